"""Trials that dead workers of this machine left behind, found by the ids of their processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from augkit.core.jobs.heartbeat import PROCESS, process_mark
from augkit.core.jobs.retry import requeue, tries


def requeue_of(study: optuna.Study, worker: str, retries: int | None, *, counts: bool = True) -> list[int]:
    """`requeue` the running trials of a worker that has ended; the numbers of those in line again."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    own = [trial for trial in running if trial.user_attrs.get("worker") == worker]
    failed = [trial for trial in own if requeue(study, trial.number, retries, counts=counts)]
    return [trial.number for trial in failed if retries is None or tries(trial) < retries]


def recover(study: optuna.Study, retries: int | None, *, alone: bool) -> tuple[int, int]:
    """Put running trials in line again whose workers are gone.

    Args:
        study: that is gone on with.
        retries: see `requeue`.
        alone: whether only this machine works on the study. Then workers of other hosts are gone too (this machine may
            have had another name), and a trial without a worker's name has no worker.

    Returns:
        How many are in line again, and how many others still run.
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
    """Whether the process that began a trial of this host is still there."""
    if pid == os.getpid():
        return False  # no trial of this process is under way yet: an earlier process had the same id
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    if not Path("/proc/self/stat").is_file():
        return True
    mark, began_by = process_mark(pid), trial.user_attrs.get(PROCESS)
    return mark is not None and began_by in (None, mark)
