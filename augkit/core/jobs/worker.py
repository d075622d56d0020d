"""The worker: takes a job, runs it with a heartbeat, reports the result, and takes the next.

A job is a trial of an Optuna study: a trial of a search, or a cell of a compare study. Several workers, on one machine
or on many, may run jobs of one study at the same time.
"""

from __future__ import annotations

import abc
import contextlib
import functools
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from augkit.core.errors import AugkitError, InputError, RunError, WriteError
from augkit.core.jobs.heartbeat import PROCESS, Heartbeat, HeartbeatMonitor, RetryPolicy
from augkit.core.jobs.journal import StorageLostError
from augkit.core.jobs.optuna_private import without_waiting
from augkit.core.jobs.retry import PostponeJob, SkipJob, claim, fail, frozen, hand_back, requeue
from augkit.core.processes import process_mark

IN_A_ROW = 3  # failed jobs after which a worker gives up
POLL = 0.5  # seconds between checks while there is no job to take
OPEN = (TrialState.WAITING, TrialState.RUNNING)  # states of jobs that have not ended
READY = 60.0  # seconds that the command that creates a study has to enqueue its first trials
STOPPED = (KeyboardInterrupt, WriteError, StorageLostError)  # not a failure of the job, which is handed back
Values = float | Sequence[float]


class GiveUpError(RunError):
    """A failure that the next job would repeat, so that the worker ends."""


@dataclass
class WorkerEvents:
    """Functions that a worker calls to report its progress; by default they do nothing.

    Attributes:
        stage: called with a description of the present work.
        epoch: called with a row of the training history and the total number of epochs.
        work: called with work done, in epochs of training.
        alive: called at least every few seconds while a job runs; may raise KeyboardInterrupt to stop it.
        log: called with a line to print.
    """

    stage: Callable[[str], None] = lambda text: None
    epoch: Callable[[dict[str, Any], int], None] = lambda row, epochs: None
    work: Callable[[float], None] = lambda amount: None
    alive: Callable[[], None] = lambda: None
    log: Callable[[str], None] = lambda text: None


@dataclass
class Worker(abc.ABC):
    """Runs jobs of a study until none is left; subclasses define a job.

    Attributes:
        study: the Optuna study; its trials are the jobs.
        index: index of this worker in its study.
        events: functions that are called while it works.
        policy: when other workers are dead, and how often their jobs are retried.
        failed: number of failed jobs in a row.
    """

    jobs: ClassVar[str]  # plural name of the jobs, for messages

    study: optuna.Study
    _: KW_ONLY
    index: int = 0
    events: WorkerEvents = field(default_factory=WorkerEvents)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    failed: int = field(default=0, init=False)
    _heartbeat: Heartbeat | None = field(default=None, init=False, repr=False)

    def is_done(self) -> bool:
        """Whether no job is left to run or running, also with other workers."""
        return not self.study.get_trials(deepcopy=False, states=OPEN)

    def has_job(self) -> bool:
        """Whether a job can be taken now; if not, the worker waits for other workers."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    @abc.abstractmethod
    def work(self, trial: optuna.Trial) -> Values:
        """Run a job and return its values.

        Raises:
            RunError: the job failed; others may succeed.
            GiveUpError: the job failed, and the worker must end.
            SkipJob: the study does not need the job.
            PostponeJob: the job needs another one first, or this worker cannot run it.
            optuna.TrialPruned: the job was pruned.
        """

    @functools.cached_property
    def name(self) -> str:
        """Name of the worker in its trials: host, process id and index."""
        return f"{socket.gethostname()}:{os.getpid()}:{self.index}"

    @functools.cached_property
    def monitor(self) -> HeartbeatMonitor:
        """The monitor of the heartbeats of other workers."""
        return HeartbeatMonitor(self.policy)

    def run(self) -> None:
        """Run jobs until none is left.

        Raises:
            RunError: three jobs in a row failed, or `work` raised GiveUpError.
            KeyboardInterrupt: the worker was interrupted; its job was handed back.
        """
        while not self.is_done():
            if not self.step():
                self.events.stage("waiting for other workers")
                self.wait()

    def wait(self) -> None:
        """Wait a moment for other workers, with a heartbeat; raises the errors of `alive`."""
        self.alive()
        time.sleep(POLL)

    def step(self) -> bool:
        """Run a job if one can be taken; return whether there was one."""
        found = self.has_job()
        if found:
            self.run_one()
        return found

    def run_one(self) -> None:
        """Take one job, run it, and report its result."""
        self.monitor.check(self.study)
        self.run_taken(self.study.ask())

    def run_taken(self, trial: optuna.Trial) -> None:
        """Run a job that was taken, and report its result."""
        self._heartbeat = Heartbeat(trial, self.policy.grace)
        try:
            self.sign(trial)
            self._report(trial, *self._outcome(trial))
        except UpdateFinishedTrialError:
            # This worker counted as dead, so another worker runs the job.
            self.events.log(f"trial {trial.number} was taken over while this worker slept; its result is dropped")
        except STOPPED as stop:
            self.hand_back([trial], stop)
            raise
        finally:
            self._heartbeat = None

    def hand_back(self, trials: Iterable[optuna.Trial], stop: BaseException) -> None:
        """Enqueue trials again that this worker leaves because of ``stop``; if it cannot, --resume recovers them."""
        once = without_waiting() if isinstance(stop, StorageLostError) else contextlib.nullcontext()
        with contextlib.suppress(AugkitError), once:
            for trial in trials:
                hand_back(self.study, trial.number)

    def sign(self, trial: optuna.Trial) -> None:
        """Write to a trial which worker runs it."""
        trial.set_user_attr(PROCESS, process_mark(os.getpid()))
        trial.set_user_attr("worker", self.name)

    def _outcome(self, trial: optuna.Trial) -> tuple[TrialState, Values | None]:
        """Run a job; return its final state and its values."""
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
            # An unexpected error ends the worker; the trial is retried as after a crash.
            requeue(self.study, trial.number, 0 if isinstance(error, AugkitError) else self.policy.retries)
            raise
        return TrialState.FAIL, None

    def _report(self, trial: optuna.Trial, state: TrialState, values: Values | None) -> None:
        if state == TrialState.FAIL:
            fail(self.study, trial.number)
            return
        if frozen(self.study, trial.number).state.is_finished():
            raise UpdateFinishedTrialError
        # Without a state, Optuna completes the trial, or fails it if a value is NaN.
        self.study.tell(trial, values, None if state == TrialState.COMPLETE else state)

    def alive(self) -> None:
        """Send a heartbeat, and requeue the jobs of dead workers; `work` must call this every few seconds.

        Raises:
            KeyboardInterrupt: this worker must stop.
            UpdateFinishedTrialError: another worker has taken over the trial.
        """
        self.events.alive()
        if self._heartbeat is None or self._heartbeat.beat():
            with contextlib.suppress(Exception), without_waiting():  # the storage may be unavailable
                self.monitor.check(self.study)


def wait_for(find: Callable[[], Any], seconds: float, pause: float = 0.5) -> Any:
    """Call ``find`` until it returns something other than None, and return that; None after ``seconds``."""
    until = time.monotonic() + seconds
    while (found := find()) is None and time.monotonic() < until:
        time.sleep(pause)
    return found


def wait_until_ready(study: optuna.Study) -> None:
    """Wait until the command that creates a study has enqueued its first jobs; raise InputError after a minute."""
    if wait_for(lambda: study.user_attrs.get("ready"), READY) is None:
        raise InputError(
            f"study '{study.study_name}' is not ready: --resume the command that created it, or name another --study"
        )
