"""The life of a worker: take a job, beat, run it, report the result, take the next.

A job is a trial of an Optuna study: a trial of a search, or a cell of a study of claims. Workers in other processes, on
this machine or on others, do the same at the same time.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from augkit.core.errors import AugkitError, InputError, RunError, WriteError
from augkit.core.jobs.heartbeat import PROCESS, Heartbeat, HeartbeatMonitor, RetryPolicy, process_mark
from augkit.core.jobs.journal import StorageLostError
from augkit.core.jobs.optuna_private import without_waiting
from augkit.core.jobs.retry import PostponeJob, SkipJob, claim, fail, frozen, hand_back, requeue

IN_A_ROW = 3  # failed jobs after which a worker gives up
POLL = 0.5  # seconds between looks while there is nothing to do
READY = 60.0  # seconds in which the host that makes a study has put its first trials in line
STOPPED = (KeyboardInterrupt, WriteError, StorageLostError)  # no fault of the job, which is run again
Values = float | Sequence[float]


class GiveUpError(RunError):
    """A failure that the next job would share: the worker ends."""


@dataclass
class WorkerEvents:
    """What a worker reports while it works; each function may do nothing.

    Attributes:
        stage: takes what is being done.
        epoch: takes a row of the history of the training under way, and its epochs in all.
        work: takes work done, in epochs of training.
        alive: called at least every few seconds while a job runs; may raise KeyboardInterrupt to stop it.
        log: takes a line that stays.
    """

    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[dict[str, Any], int], None] = lambda row, epochs: None
    work: Callable[[float], None] = lambda amount: None
    alive: Callable[[], None] = lambda: None
    log: Callable[[str], None] = lambda text: None


@dataclass
class Worker(abc.ABC):
    """Runs jobs of a study until none is left; subclasses say what a job is.

    Attributes:
        study: whose trials are the jobs.
        index: of this worker in its study.
        events: functions that are called while it works.
        policy: when other workers are dead.
        failed: jobs in a row that failed.
    """

    jobs: ClassVar[str]  # what the jobs are called

    study: optuna.Study
    _: KW_ONLY
    index: int = 0
    events: WorkerEvents = field(default_factory=WorkerEvents)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    failed: int = field(default=0, init=False)
    _heartbeat: Heartbeat | None = field(default=None, init=False, repr=False)

    @abc.abstractmethod
    def is_done(self) -> bool:
        """Whether no job is left, here or with other workers."""

    @abc.abstractmethod
    def has_job(self) -> bool:
        """Whether a job can be taken now; else other workers are waited for."""

    @abc.abstractmethod
    def work(self, trial: optuna.Trial) -> Values:
        """Run a job and return its values.

        Raises:
            RunError: it failed; other jobs may not.
            GiveUpError: it failed, and the worker ends.
            SkipJob, PostponeJob: see there.
            optuna.TrialPruned: it was not worth its time.
        """

    @functools.cached_property
    def name(self) -> str:
        """Host, process and index."""
        return f"{socket.gethostname()}:{os.getpid()}:{self.index}"

    @functools.cached_property
    def monitor(self) -> HeartbeatMonitor:
        """What this worker has seen of the others."""
        return HeartbeatMonitor(self.policy)

    def run(self) -> None:
        """Take jobs until none is left.

        Raises:
            RunError: three jobs in a row failed, `work` gave up, or nothing can be written.
            KeyboardInterrupt: what was begun is in line again.
        """
        while not self.is_done():
            if self.has_job():
                self.run_one()
                continue
            self.events.stage("waiting for other workers")
            self.alive()
            time.sleep(POLL)

    def run_one(self) -> None:
        """Take one job, run it, and report what came of it."""
        self.monitor.check(self.study)
        trial = self.study.ask()
        self._heartbeat = Heartbeat(trial, self.policy.grace)
        try:
            trial.set_user_attr(PROCESS, process_mark(os.getpid()))
            trial.set_user_attr("worker", self.name)
            self._report(trial, *self._outcome(trial))
        except UpdateFinishedTrialError:
            # Taken for dead: the job is another worker's, and so is its result.
            self.events.log(f"trial {trial.number} was taken over while this worker slept; its result is dropped")
        except STOPPED:
            with contextlib.suppress(AugkitError):  # where even that cannot be written, resuming finds the trial
                hand_back(self.study, trial.number)
            raise
        finally:
            self._heartbeat = None

    def _outcome(self, trial: optuna.Trial) -> tuple[TrialState, Values | None]:
        """Run a job; how it ended, and its values."""
        try:
            claim(self.study, trial)
            values = self.work(trial)
            self.failed = 0
            return TrialState.COMPLETE, values
        except optuna.TrialPruned:
            self.failed = 0
            return TrialState.PRUNED, None
        except (*STOPPED, UpdateFinishedTrialError):
            raise
        except PostponeJob as postponed:
            hand_back(self.study, trial.number)
            if postponed.__cause__ is not None:
                raise postponed.__cause__ from None
        except SkipJob:
            trial.set_user_attr("skipped", True)
        except GiveUpError:
            fail(self.study, trial.number)
            raise
        except RunError as error:
            trial.set_user_attr("error", str(error))
            self.failed += 1
            if self.failed == IN_A_ROW:
                fail(self.study, trial.number)
                last = trial.user_attrs.get("cell", f"trial {trial.number}")
                raise GiveUpError(f"three {self.jobs} failed in a row, the last one, {last}: {error}") from None
        except BaseException as error:
            # A bug ends the worker as a crash does: the trial is run again, at most as often as after a crash.
            requeue(self.study, trial.number, 0 if isinstance(error, AugkitError) else self.policy.retries)
            raise
        return TrialState.FAIL, None

    def _report(self, trial: optuna.Trial, state: TrialState, values: Values | None) -> None:
        if state == TrialState.FAIL:
            fail(self.study, trial.number)
            return
        if frozen(self.study, trial.number).state.is_finished():
            raise UpdateFinishedTrialError
        # Without a state, Optuna completes the trial, or fails it where a value is NaN.
        self.study.tell(trial, values, None if state == TrialState.COMPLETE else state)

    def alive(self) -> None:
        """Beat, and put the jobs of dead workers in line again; called every few seconds by whatever `work` does.

        Raises:
            KeyboardInterrupt: this worker is to stop.
            UpdateFinishedTrialError: another worker has taken the trial over.
        """
        self.events.alive()
        if self._heartbeat is None or self._heartbeat.beat():
            with contextlib.suppress(Exception), without_waiting():  # a storage that is away
                self.monitor.check(self.study)


def wait_for(find: Callable[[], Any], seconds: float, pause: float = 0.5) -> Any:
    """What ``find`` returns once that is not None; None after ``seconds``."""
    until = time.monotonic() + seconds
    while (found := find()) is None and time.monotonic() < until:
        time.sleep(pause)
    return found


def wait_until_ready(study: optuna.Study) -> None:
    """Wait until the command that makes a study has put its first jobs in line; InputError where it does not."""
    if wait_for(lambda: study.user_attrs.get("ready"), READY) is None:
        raise InputError(
            f"study '{study.study_name}' is not ready: --resume the command that makes it, or name another --study"
        )
