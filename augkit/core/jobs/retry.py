"""Retrying the trial of a dead worker: the retry is enqueued first, then the trial is failed.

The work is therefore in the study at every moment, whenever a process dies. A retry names its origin (`RETRY_OF`): of
several retries with one origin only the first is run, and only once the origin has failed (`claim`). A retry copies
what the trial is to run, but not its results so far.
"""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

# User attributes that define what a trial is to run.
TASK = {"control", "preset", "cell", "values", "rung", "configuration"}
OWN = {"fixed_params", "failed_trial", "retry_history"}  # Optuna's system attributes: fixed values and retries so far
RETRY_OF = "retry_of"  # user attribute of a retry: number of the trial that it repeats


class SkipJob(Exception):  # noqa: N818 (no error)
    """The study does not need this trial: it is failed and not retried."""


class PostponeJob(Exception):  # noqa: N818 (no error)
    """This trial needs another one to run first: it goes to the end of the queue.

    If it is raised from another error, this worker cannot run the trial and ends with that error.
    """


def frozen(study: optuna.Study, number: int) -> FrozenTrial:
    """The present state of a trial in the storage."""
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)


def fail(study: optuna.Study, number: int) -> bool:
    """Fail a running trial; return whether it was still running."""
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return False
    return True


def requeue(study: optuna.Study, number: int, retries: int | None) -> bool:
    """Enqueue a retry of a running trial, unless it had all its retries, and fail the trial.

    No retry is enqueued if the trial does not define what is to be run, or has a retry already.

    Args:
        study: study of the trial.
        number: number of the trial.
        retries: most retries of the trial; with None it is always retried, and this retry is not counted.

    Returns:
        Whether the trial was still running; another worker may have done the same before.
    """
    trial = frozen(study, number)
    if trial.state != TrialState.RUNNING:
        return False
    says_what = trial.params or trial.system_attrs.get("fixed_params") or trial.user_attrs.keys() & {"control", "cell"}
    if (retries is None or tries(trial) < retries) and says_what and not _retries_of(study, number):
        system = {key: value for key, value in trial.system_attrs.items() if key in OWN}
        if retries is not None:
            history = [*system.get("retry_history", []), number]
            system |= {"failed_trial": history[0], "retry_history": history}
        study.add_trial(
            optuna.create_trial(
                state=TrialState.WAITING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs={**{k: v for k, v in trial.user_attrs.items() if k in TASK}, RETRY_OF: number},
                system_attrs=system,
            )
        )
    return fail(study, number)


def hand_back(study: optuna.Study, number: int) -> None:
    """Enqueue an interrupted trial again, and fail it; this does not count as a retry."""
    requeue(study, number, None)


def claim(study: optuna.Study, trial: optuna.Trial) -> None:
    """Check that a trial is to be run, just after it was taken; if it is a retry, fail its origin.

    Raises:
        SkipJob: the trial is a second retry of its origin, or the origin has finished.
    """
    origin = trial.user_attrs.get(RETRY_OF)
    if origin is None:
        return
    if trial.number != min(_retries_of(study, origin)):
        raise SkipJob
    fail(study, origin)  # the process that enqueued this trial may have died before the second step
    if frozen(study, origin).state != TrialState.FAIL:
        raise SkipJob


def tries(trial: FrozenTrial) -> int:
    """Number of retries so far."""
    return len(trial.system_attrs.get("retry_history", []))


def _retries_of(study: optuna.Study, origin: int) -> list[int]:
    trials = study.get_trials(deepcopy=False)
    return [trial.number for trial in trials if trial.user_attrs.get(RETRY_OF) == origin]
