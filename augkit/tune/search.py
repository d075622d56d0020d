"""What both kinds of search do with their study: take up what earlier processes left, and run trials."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import optuna

from augkit.core.jobs.heartbeat import RetryPolicy
from augkit.core.jobs.launch import needs_pool, run_workers
from augkit.core.jobs.pool import WorkerPool, WorkerSettings
from augkit.core.jobs.recovery import recover
from augkit.core.jobs.worker import WorkerEvents
from augkit.tune import halving, optuna_study
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.progress import LiveProgress
from augkit.tune.trial import TrialWorker


def take_up(
    study: optuna.Study,
    terms: SearchTerms,
    retries: int,
    say: Callable[[str], None],
    *,
    alone: bool,
    controls: bool = True,
    earlier: str = "command",
) -> None:
    """Enqueue the unfinished trials of earlier processes again, and report running ones.

    Args:
        study: the study.
        terms: its terms.
        retries, alone: as for `augkit.core.jobs.recovery.recover`.
        say: called with a line to print.
        controls: also enqueue controls that are lost.
        earlier: what the earlier processes ran, in words.
    """
    again, others = recover(study, retries, alone=alone)
    if controls:
        again += optuna_study.restore_controls(study, terms)
    if again:
        say(f"{again} unfinished trial(s) of an earlier {earlier} were queued again")
    if others:
        say(f"{others} trial(s) are running elsewhere")


def run_trials(
    progress: LiveProgress,
    folder: Path,
    settings: WorkerSettings,
    index: int,
    make: Callable[..., TrialWorker],
    module: str,
    words: Sequence[str],
    then: str = "",
) -> None:
    """Run trials until the search is done, in this process or by workers in processes of their own.

    Args:
        progress: progress of the search, which knows the study.
        folder: folder of the search.
        settings: settings of the workers.
        index: index of the first worker.
        make: makes the worker of this process from ``index``, ``folder``, ``events`` and ``policy``.
        module, words: module and arguments of workers in processes of their own.
        then: what comes after the search, in words.
    """
    study, display = progress.study, progress.display
    if needs_pool(settings):
        done = functools.partial(halving.done, study, progress.terms)
        pool = WorkerPool(study, folder, module, words, settings, done, index, progress.on_status, display.line)
        display.stage(f"searching with {settings.count} workers", then)
        run_workers(pool, display)
    else:
        events = WorkerEvents(stage=progress.stage, work=display.advance, log=display.line)
        policy = RetryPolicy(settings.retries, settings.grace)
        make(index=index, folder=folder, events=events, policy=policy).run()
    progress.trials()
