"""How a worker takes trials of an Optuna study, one at a time, while other workers on other machines do the same."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from augkit.core.errors import AugkitError, InputError, RunError
from augkit.core.jobs.liveness import HeartbeatThread, LivenessMonitor
from augkit.core.jobs.retry import hand_back, requeue_interrupted

IN_A_ROW = 3  # failed trials after which a worker gives up


class Surplus(Exception):  # noqa: N818 (no error: enough others are at work)
    """A trial that nobody needs."""


class Later(Exception):  # noqa: N818 (no error: it is run after what it waits for)
    """A trial that needs what stands in line behind it."""


class GiveUpError(AugkitError):
    """Nothing that another trial would mend."""


@dataclass
class WorkerEvents:
    """What a worker tells while it works; each function may do nothing.

    Attributes:
        stage: takes what is being done.
        epoch: takes the trial's number, the row of its history, and epochs in all.
        work: takes work done, in epochs of training.
        alive: called at least every few seconds while a trial runs; may raise KeyboardInterrupt to stop it.
        line: takes a line that stays.
        vigil: what this worker has seen of others while it waited.
    """

    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[int, dict[str, Any], int], None] = lambda number, row, epochs: None
    work: Callable[[float], None] = lambda amount: None
    alive: Callable[[], None] = lambda: None
    line: Callable[[str], None] = lambda text: None
    vigil: LivenessMonitor = field(default_factory=LivenessMonitor)


def run_one_job(
    study: optuna.Study, objective: Callable[[optuna.Trial], float | Sequence[float]], watch: WorkerEvents
) -> None:
    """Ask for a trial, run it, and tell what came of it; with a heartbeat where the storage has one.

    A RunError or `Surplus` in ``objective`` fails the trial and nothing else; `Later` puts it at the end of the line.

    Raises:
        RunError: ``objective`` raised `GiveUpError`.
        KeyboardInterrupt: what was begun is in line again.
    """
    begun, raised = list[int](), list[BaseException]()

    def run(trial: optuna.Trial) -> float | Sequence[float]:
        begun.append(trial.number)
        storage = study._storage
        beats = (
            storage.heartbeats.of(study, trial.number)
            if isinstance(storage, HeartbeatThread)
            else contextlib.nullcontext()
        )
        try:
            with beats:
                return objective(trial)
        except BaseException as error:
            raised.append(error)
            raise

    def was(kind: type[BaseException]) -> bool:
        return any(isinstance(error, kind) for error in raised)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            study.optimize(run, n_trials=1, catch=(RunError, Surplus, Later))
            if was(Later):
                requeue_interrupted(study, frozen(study, begun[0]))
        except KeyboardInterrupt:
            _break_off(study, begun, told=was(KeyboardInterrupt))
            raise
        except GiveUpError as error:
            raise RunError(str(error)) from None
        except InputError:
            raise
        except (optuna.exceptions.UpdateFinishedTrialError, ValueError) as error:
            if was(KeyboardInterrupt):  # and taken over before: there is nothing to hand back
                raise KeyboardInterrupt from None
            own_fault = isinstance(error, ValueError) and any(error is one for one in raised)
            if own_fault or not begun or not frozen(study, begun[0]).state.is_finished():
                raise
            # Taken for dead, its trial is another worker's; so is what comes of it.
            watch.line(f"trial {begun[0]} was taken over while this worker slept; its result is dropped")
        except AssertionError as error:
            if isinstance(error.__context__, AugkitError):  # a full disk, over which Optuna trips as well
                raise error.__context__ from None
            raise
        except UnboundLocalError as error:
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            # Interrupted while the result was told, Optuna trips over a variable of its own.
            _break_off(study, begun, told=was(KeyboardInterrupt))
            raise KeyboardInterrupt from None


def _break_off(study: optuna.Study, begun: Sequence[int], *, told: bool) -> None:
    """Put trials in line again that were interrupted; ``told`` says that those that failed did so for that reason."""
    for trial in (frozen(study, number) for number in begun):
        if trial.state == TrialState.RUNNING:
            hand_back(study, trial.number)
        elif trial.state == TrialState.FAIL and told:
            requeue_interrupted(study, trial)


def wait_idle(study: optuna.Study, watch: WorkerEvents, text: str) -> None:
    """Wait a moment for others, and put in line again what the dead among them left."""
    watch.stage(text)
    watch.alive()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)  # what `optimize` does at its start
    watch.vigil.look(study)
    time.sleep(0.5)


def frozen(study: optuna.Study, number: int) -> FrozenTrial:
    """A trial as the storage has it."""
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)


READY = 60.0  # seconds in which the host that makes a study has put its first trials in line


def wait_for(ask: Callable[[], Any], seconds: float, pause: float = 0.5) -> Any:
    """What ``ask`` returns once that is not None; None after ``seconds``."""
    until = time.monotonic() + seconds
    while (found := ask()) is None and time.monotonic() < until:
        time.sleep(pause)
    return found
