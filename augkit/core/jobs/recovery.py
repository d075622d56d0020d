"""Retrying the trials of dead workers of this machine, which are found by their process ids."""

from __future__ import annotations

import os
import socket

import optuna
from optuna.trial import FrozenTrial, TrialState

from augkit.core.jobs.heartbeat import PROCESS
from augkit.core.jobs.retry import requeue, tries
from augkit.core.processes import runs


def requeue_of(study: optuna.Study, worker: str, retries: int | None) -> list[int]:
    """`requeue` the running trials of a worker that has ended; return the numbers of those that are retried."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    own = [trial for trial in running if trial.user_attrs.get("worker") == worker]
    failed = [trial for trial in own if requeue(study, trial.number, retries)]
    return [trial.number for trial in failed if retries is None or tries(trial) < retries]


def recover(study: optuna.Study, retries: int | None, *, alone: bool) -> tuple[int, int]:
    """Requeue the running trials whose workers have ended.

    Args:
        study: study that is resumed or joined.
        retries: most retries of a trial, see `requeue`.
        alone: whether only this machine works on the study. Then workers of other hosts have ended too (this machine
            may have had another name), as have those of trials without a worker's name.

    Returns:
        The number of requeued trials, and that of other running trials.
    """
    again = others = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        worker = trial.user_attrs.get("worker")
        if worker is None:
            again += alone and requeue(study, trial.number, retries)
            continue
        host, pid, _ = worker.rsplit(":", 2)
        here = host == socket.gethostname()
        if (here or alone) and not (here and _lives(int(pid), trial)):
            again += requeue(study, trial.number, retries)
        else:
            others += 1
    return again, others


def _lives(pid: int, trial: FrozenTrial) -> bool:
    """Whether the process that started a trial on this host still runs."""
    if pid == os.getpid():
        return False  # this process has not started a trial yet, so an earlier process had the same id
    return runs(pid, trial.user_attrs.get(PROCESS))
