"""Running a trial again whose worker is gone: the retry is put in line first, then the trial is failed.

At no moment is the work in neither place, so nothing has to be inferred afterwards. A retry names its origin
(`RETRY_OF`), which makes it unique: of several retries with one origin only the first is run, and only once the origin
has failed (`claim`). What the trial is to run stays; what came of it so far does not.
"""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

TASK = {"control", "preset", "cell", "values"}  # user attributes that say what a trial is to run
OWN = {"fixed_params", "failed_trial", "retry_history"}  # Optuna's: values asked for, and how often it was run again
RETRY_OF = "retry_of"  # the user attribute that names the trial which a retry stands in for


class SkipJob(Exception):  # noqa: N818 (no error)
    """Nobody needs this trial: it fails, and is not run again."""


class PostponeJob(Exception):  # noqa: N818 (no error)
    """This trial needs another that is still in line: it goes to the end of the line.

    Attributes:
        unable: why this worker cannot run it, and ends; None where it goes on.
    """

    def __init__(self, unable: Exception | None = None) -> None:
        super().__init__()
        self.unable = unable


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


def requeue(study: optuna.Study, number: int, retries: int | None) -> bool:
    """Put a trial in line again whose worker is gone, at most ``retries`` times in all, and fail it.

    Args:
        study: of the trial.
        number: of the trial.
        retries: None is always.

    Returns:
        Whether it was still running; another worker may have done this.
    """
    trial = frozen(study, number)
    if trial.state != TrialState.RUNNING:
        return False
    if retries is None or tries(trial) < retries:
        enqueue_again(study, trial)
    return fail(study, number)


def hand_back(study: optuna.Study, number: int) -> None:
    """Put a running trial in line again that was interrupted, and fail it; this does not count as a retry."""
    trial = frozen(study, number)
    if trial.state == TrialState.RUNNING:
        enqueue_again(study, trial, counts=False)
        fail(study, number)


def enqueue_again(study: optuna.Study, trial: FrozenTrial, *, counts: bool = True) -> None:
    """Put a trial in line again if it says what is to be run, and no retry of it is there yet."""
    named = trial.user_attrs.keys() & {"control", "cell"}
    if not (trial.params or trial.system_attrs.get("fixed_params") or named) or _retries_of(study, trial.number):
        return
    system = {key: value for key, value in trial.system_attrs.items() if key in OWN}
    if counts:
        history = [*system.get("retry_history", []), trial.number]
        system |= {"failed_trial": history[0], "retry_history": history}
    asked = {key: value for key, value in trial.user_attrs.items() if key in TASK}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=trial.params,
            distributions=trial.distributions,
            user_attrs={**asked, RETRY_OF: trial.number},
            system_attrs=system,
        )
    )


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
    fail(study, origin)  # whoever put this trial in line may have died before the second step
    if frozen(study, origin).state != TrialState.FAIL:
        raise SkipJob


def tries(trial: FrozenTrial) -> int:
    """How often a trial was run before because its worker died."""
    return len(trial.system_attrs.get("retry_history", []))


def _retries_of(study: optuna.Study, origin: int) -> list[int]:
    trials = study.get_trials(deepcopy=False)
    return [trial.number for trial in trials if trial.user_attrs.get(RETRY_OF) == origin]
