"""What a worker that died leaves behind: its trial is failed, and put in line again."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from augkit.core.jobs.liveness import PROCESS, process_mark
from augkit.core.jobs.retry import requeue, requeue_interrupted


def requeue_of(study: optuna.Study, worker: str, retries: int) -> list[int]:
    """Fail the running trials of a worker and put them in line again; their numbers."""
    failed = [trial for trial in _running(study, worker) if requeue(study, trial.number, retries)]
    return [trial.number for trial in failed if _tries(trial) < retries]


def _running(study: optuna.Study, worker: str) -> list[FrozenTrial]:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [trial for trial in running if trial.user_attrs.get("worker") == worker]


def recover(study: optuna.Study, retries: int | None, *, alone: bool) -> tuple[int, int]:
    """Put trials in line again whose workers are gone; how many, and how many others still run.

    ``alone`` says that nobody else works on the study: then workers of other hosts, which this machine may have been
    called before, are gone too, and a trial that nobody put a name to is nobody's.
    """
    again, others = _put_back(study, retries), 0
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


def _put_back(study: optuna.Study, retries: int | None) -> int:
    """Failed trials that were to be put in line again, where that did not reach the study; how many."""
    trials = study.get_trials(deepcopy=False)
    alive = [json.dumps(t.user_attrs.get("values"), sort_keys=True) for t in trials if t.state != TrialState.FAIL]
    alive += [json.dumps(t.params, sort_keys=True) for t in trials if t.state == TrialState.WAITING]
    count, controls = 0, {t.user_attrs.get("control") for t in trials if t.state != TrialState.FAIL}
    controls |= set(study.user_attrs)
    presets = {t.user_attrs.get("preset") for t in trials if t.state != TrialState.FAIL or "values" in t.user_attrs}
    for trial in trials:
        control = trial.user_attrs.get("control")
        if control is not None and control not in controls:  # without which there is nothing to measure against
            requeue_interrupted(study, trial)
            controls.add(control)
            count += 1
        preset = trial.user_attrs.get("preset")
        if preset is not None and "values" not in trial.user_attrs and preset not in presets:
            requeue_interrupted(study, trial)
            presets.add(preset)
            count += 1
        # One that failed for a reason of its own has an error.
        if trial.state != TrialState.FAIL or "values" not in trial.user_attrs or "error" in trial.user_attrs:
            continue
        mine = json.dumps(trial.user_attrs["values"], sort_keys=True), json.dumps(trial.params, sort_keys=True)
        if not set(mine) & set(alive) and (retries is None or _tries(trial) < retries):
            requeue_interrupted(study, trial)
            alive += mine
            count += 1
    return count


def _tries(trial: FrozenTrial) -> int:
    return len(trial.system_attrs.get("retry_history", []))


def _lives(pid: int, trial: FrozenTrial) -> bool:
    """Whether the process that began a trial of this host is still there."""
    if pid == os.getpid():
        return False  # a trial of this process that is not under way: an earlier one had the same number
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
