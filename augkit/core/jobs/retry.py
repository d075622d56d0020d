"""A trial whose worker is gone is put in line again: what it is to run stays, what came of it so far does not.

Optuna hands everything down to the trial that follows. Of a trial that was already judged, the bounds would then hold
for one that is yet to run (Optuna sets a bound once), and of one that passed rungs of pruning, the rungs.
"""

from __future__ import annotations

import copy
import warnings

import optuna
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

TASK = {"control", "preset", "cell", "values"}  # user attributes that say what a trial is to run
OWN = {"fixed_params", "failed_trial", "retry_history"}  # Optuna's: values asked for, and how often it was run again


class Retry:
    """What a storage does with a trial whose heartbeat has stopped: again, ``retries`` times in all; None is always."""

    def __init__(self, retries: int | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._callback = RetryHeartbeatStaleTrialCallback(max_retry=retries)

    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:
        if _says_what(trial):
            self._callback(study, _as_asked(trial))


def requeue(study: optuna.Study, number: int, retries: int | None) -> bool:
    """Fail a trial whose worker is gone and put it in line again, at most ``retries`` times in all; None is always.

    Whether it was still running; somebody else may have done this.
    """
    trial = _fail(study, number)
    if trial is not None:
        Retry(retries)(study, trial)
    return trial is not None


def hand_back(study: optuna.Study, number: int) -> None:
    """`requeue`, of a trial that was interrupted: no fault of its own, so it does not count as a retry."""
    trial = _fail(study, number)
    if trial is not None:
        requeue_interrupted(study, trial)


def requeue_interrupted(study: optuna.Study, trial: FrozenTrial) -> None:
    """Put a trial that failed because it was interrupted in line again."""
    if _says_what(trial):
        asked = _as_asked(trial)
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=asked.params,
                distributions=asked.distributions,
                user_attrs=asked.user_attrs,
                system_attrs=asked.system_attrs,
            )
        )


def _fail(study: optuna.Study, number: int) -> FrozenTrial | None:
    """The trial, where it was running and now has failed."""
    trial = next(t for t in study.get_trials(deepcopy=True) if t.number == number)
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, RuntimeError, optuna.exceptions.UpdateFinishedTrialError):
        return None
    return trial


def _as_asked(trial: FrozenTrial) -> FrozenTrial:
    """The trial without what came of it."""
    asked = copy.deepcopy(trial)
    asked.user_attrs = {key: value for key, value in asked.user_attrs.items() if key in TASK}
    asked.system_attrs = {key: value for key, value in asked.system_attrs.items() if key in OWN}
    return asked


def _says_what(trial: FrozenTrial) -> bool:
    """Whether a trial says what is to be run; one whose worker died before it asked for values does not."""
    named = trial.user_attrs.keys() & {"control", "cell"}
    return bool(trial.params or trial.system_attrs.get("fixed_params") or named)
