"""Running a trial again whose worker is gone: the retry is put in line first, then the trial is failed.

At no moment is the work in neither place, so nothing has to be inferred afterwards. A retry names its origin
(`RETRY_OF`), which makes it unique: of several retries with one origin only the first is run, and only once the origin
has failed (`claim`). What the trial is to run stays; what came of it so far does not.
"""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

TASK = {"control", "preset", "cell", "values"}  # user attributes that say what a trial is to run
OWN = {"fixed_params", "failed_trial", "retry_history"}  # Optuna's: fixed values, and how often it was run again
RETRY_OF = "retry_of"  # the user attribute that names the trial which a retry stands in for


class SkipJob(Exception):  # noqa: N818 (no error)
    """The study does not need this trial: it fails, and is not run again."""


class PostponeJob(Exception):  # noqa: N818 (no error)
    """This trial needs another that is still in line: it goes to the end of the line.

    Raised from another error, it says that this worker cannot run the trial: the worker ends with that error.
    """


def frozen(study: optuna.Study, number: int) -> FrozenTrial:
    """A trial as the storage has it."""
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)


def fail(study: optuna.Study, number: int) -> bool:
    """Fail a running trial; whether it was still running."""
    try:
        study.tell(number, state=TrialState.FAIL)
    except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
        return False
    return True


def requeue(study: optuna.Study, number: int, retries: int | None, *, counts: bool = True) -> bool:
    """Put a running trial in line again, unless it had all its retries, and fail it.

    Nothing is put in line where the trial does not say what is to be run, or a retry of it is there already.

    Args:
        study: of the trial.
        number: of the trial.
        retries: how often it is run again in all; None is always.
        counts: whether this is one of these retries.

    Returns:
        Whether it was still running; another worker may have done this.
    """
    trial = frozen(study, number)
    if trial.state != TrialState.RUNNING:
        return False
    says_what = trial.params or trial.system_attrs.get("fixed_params") or trial.user_attrs.keys() & {"control", "cell"}
    if (retries is None or tries(trial) < retries) and says_what and not _retries_of(study, number):
        system = {key: value for key, value in trial.system_attrs.items() if key in OWN}
        if counts:
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
    """Put a running trial in line again that was interrupted, and fail it; this does not count as a retry."""
    requeue(study, number, None, counts=False)


def claim(study: optuna.Study, trial: optuna.Trial) -> None:
    """Make sure that a trial just taken is to be run.

    Raises:
        SkipJob: it is a second retry of its origin, or the origin finished after all.
    """
    origin = trial.user_attrs.get(RETRY_OF)
    if origin is None:
        return
    if trial.number != min(_retries_of(study, origin)):
        raise SkipJob
    fail(study, origin)  # the worker that put this trial in line may have died before the second step
    if frozen(study, origin).state != TrialState.FAIL:
        raise SkipJob


def tries(trial: FrozenTrial) -> int:
    """How often a trial was run before because its worker died."""
    return len(trial.system_attrs.get("retry_history", []))


def _retries_of(study: optuna.Study, origin: int) -> list[int]:
    trials = study.get_trials(deepcopy=False)
    return [trial.number for trial in trials if trial.user_attrs.get(RETRY_OF) == origin]
