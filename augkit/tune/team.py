"""A team: this process and others that it starts, which train and measure networks of a search side by side.

On the CPU, two processes of one thread each train two small networks faster than one process of two threads trains one
after the other. How many threads a network has depends on the settings alone and not on who trains it or when, so the
results have the same bits whether networks are trained side by side, one after the other, or after an interrupt.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import torch

from augkit.core.processes import start
from augkit.data import Dataset, Images, atypical, sample
from augkit.measure.comparison import TYPICAL, open_test_sets
from augkit.train.history import OnEpoch
from augkit.train.recipe import Recipe

VALIDATION = "validation"
MODULE = "augkit.tune.team_worker"
ATYPICAL = 0.5  # share of the number of test images that an atypical set has; its intervals depend more on the seeds
PAYS = 100_000  # training images shown in a whole tuning from which a second process is worth its start
MOST = 4  # processes; each holds the data
PAUSE = 0.02  # seconds between two looks at what other processes have done
ENDED = (EOFError, OSError, ValueError, pickle.UnpicklingError)  # by the pipes of a process that has died
Nothing = Callable[[], None]


class TeamData:
    """Image sets of a dataset by name; the test split is opened when one of its sets is asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._searched: dict[int | None, dict[str, Images]] = {}

    @cached_property
    def tests(self) -> dict[str, Images]:
        """The test split, and fewer atypical images made from it."""
        sets = open_test_sets(self.dataset)
        few = math.ceil(ATYPICAL * len(sets[TYPICAL]))
        return {name: images if name == TYPICAL else sample(images, few) for name, images in sets.items()}

    def images(self, name: str) -> Images:
        """The images of a set: `VALIDATION`, or one of the test split."""
        return self.dataset.validation if name == VALIDATION else self.tests[name]

    def searched(self, seed: int | None) -> dict[str, Images]:
        """The validation images as ``typical``, with atypical images made from them unless the seed is None."""
        if seed not in self._searched:
            images = self.dataset.validation
            made = {} if seed is None else atypical(images, seed=seed, data=self.dataset.name)
            self._searched[seed] = {TYPICAL: images, **made}
        return self._searched[seed]


class Job(Protocol):
    """What a process of a team does with the data; it is pickled, as is what it returns."""

    def perform(
        self, data: TeamData, device: torch.device, on_epoch: OnEpoch | None = None, alive: Nothing | None = None
    ) -> Any:
        """Do it.

        Args:
            data: the data.
            device: device of the network.
            on_epoch: called for each epoch that is trained.
            alive: called at least every few seconds.
        """


@dataclass(eq=False)
class Task:
    """A job that was given to a team.

    Attributes:
        job: the job.
        begun: called with the job when a process begins it, by one thread at a time.
        done: called with the job when it is done, and with whether this process did it.
        state: ``failed`` if another process could not do it.
        result: what the job returned.
        error: the error that it raised in this process.
    """

    job: Job
    begun: Callable[[Any], None] = lambda job: None
    done: Callable[[Any, bool], None] = lambda job, here: None
    state: Literal["waiting", "begun", "failed", "done"] = "waiting"
    result: Any = None
    error: Exception | None = None


def team_size(device: torch.device, jobs: int, shown: int) -> int:
    """Number of processes of a team.

    Args:
        device: device of the networks; on a GPU they are trained one after the other.
        jobs: number of networks.
        shown: training images shown to all of them.
    """
    if device.type != "cpu" or shown < PAYS:
        return 1
    return max(1, min(torch.get_num_threads(), jobs, MOST))


@dataclass
class Team:
    """This process and others that it starts with the second job; a context manager that ends the others.

    A job that another process could not do, because it died or the job failed there, is done by this one, so that an
    error is raised here.

    Attributes:
        recipe: recipe whose data all jobs use.
        data: the data, as this process has loaded it.
        device: device of the networks.
        count: number of processes, this one included.
        threads: threads of each; 0 divides those of this process.
    """

    recipe: Recipe
    data: TeamData
    device: torch.device
    count: int = 1
    threads: int = 0
    _others: list[_Other] = field(default_factory=list, init=False, repr=False)
    _waiting: deque[Task] = field(default_factory=deque, init=False, repr=False)
    _spare: list[Task] = field(default_factory=list, init=False, repr=False)
    _closed: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        self.threads = self.threads or max(1, torch.get_num_threads() // self.count)
        self._change = threading.Condition()  # of tasks and of the queue

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *error: object) -> None:
        with self._change:
            self._closed = True
            self._change.notify_all()
        for other in self._others:
            other.end()

    def run(
        self,
        jobs: Sequence[Job],
        *,
        begun: Callable[[Any], None] = lambda job: None,
        done: Callable[[Any, bool], None] = lambda job, here: None,
        on_epoch: OnEpoch | None = None,
    ) -> list[Any]:
        """Do all jobs, and return their results in the same order.

        Args:
            jobs: the jobs; the longest should come first.
            begun, done: as for `Task`.
            on_epoch: called for each epoch that this process trains.
        """
        tasks = [Task(job, begun, done) for job in jobs]
        given = [self._taken_up(task) or self.give(task) for task in tasks]
        return [self.result(task, on_epoch) for task in given]

    def give(self, task: Task) -> Task:
        """Put a task at the end of the queue; return it."""
        with self._change:
            self._waiting.append(task)
            self._change.notify()
        if len(self._others) < self.count - 1 and len(self._waiting) > 1:
            other = _Other(self.recipe, self.device, self.threads)
            self._others.append(other)
            threading.Thread(target=self._feed, args=(other,), daemon=True).start()
        return task

    def give_spare(self, job: Job) -> None:
        """Let another process begin a job while nothing else waits; `run` then uses its result."""
        with self._change:
            self._spare.append(Task(job))
            self._change.notify()

    def _taken_up(self, task: Task) -> Task | None:
        """The spare task of the same job, if another process has begun it; else it is no longer spare."""
        with self._change:
            spare = next((spare for spare in self._spare if spare.job == task.job), None)
            if spare is None:
                return None
            self._spare.remove(spare)
            if spare.state == "done":
                task.done(task.job, False)
            spare.done = task.done
            return spare if spare.state in ("begun", "done") else None

    def drop(self, task: Task) -> None:
        """Take a task out of the queue, if no process has begun it."""
        with self._change, contextlib.suppress(ValueError):
            self._waiting.remove(task)

    def result(self, task: Task, on_epoch: OnEpoch | None = None, alive: Nothing = lambda: None) -> Any:
        """The result of a task. Until it is there, this process does tasks itself, this one first if it can.

        Args:
            task: the task.
            on_epoch: called for each epoch that this process trains.
            alive: called at least every few seconds.

        Raises:
            Exception: whatever the job raised.
        """
        with threads(self.threads):
            while task.state != "done":
                if (mine := self._mine(task)) is None:
                    alive()
                    time.sleep(PAUSE)
                    continue
                try:
                    mine.result = mine.job.perform(self.data, self.device, on_epoch, alive)
                except Exception as error:  # raised when the result of this task is asked for
                    mine.error = error
                self._end(mine, here=True)
        if task.error is not None:
            raise task.error
        return task.result

    def _mine(self, wanted: Task) -> Task | None:
        """The task that this process does next, which then has begun; None if others do all that is left."""
        with self._change:
            if wanted.state in ("waiting", "failed"):
                with contextlib.suppress(ValueError):
                    self._waiting.remove(wanted)
                return self._begin(wanted)
            return self._begin(self._waiting.popleft()) if self._waiting else None

    def _begin(self, task: Task) -> Task:
        task.state = "begun"
        task.begun(task.job)
        return task

    def _end(self, task: Task, *, here: bool) -> None:
        with self._change:
            task.state = "done"
            task.done(task.job, here)

    def _idle(self) -> list[Task]:
        """Spare tasks that no process has begun."""
        return [task for task in self._spare if task.state == "waiting"]

    def _feed(self, other: _Other) -> None:
        """Give tasks to another process until it has died or the team ends."""
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._idle() or self._closed)
                if self._closed:
                    return
                task = self._begin(self._waiting.popleft() if self._waiting else self._idle()[0])
            try:
                task.result = other.ask(task.job)
            except ENDED:
                task.state = "failed"
                return
            if task.result is None:
                task.state = "failed"
            else:
                self._end(task, here=False)


class _Other:
    """Another process of a team. It ends with this one, whose end closes its input."""

    def __init__(self, recipe: Recipe, device: torch.device, threads: int) -> None:
        # Ctrl-C is for this process, which then ends the other.
        self._process = start(
            [sys.executable, "-m", MODULE],
            environment={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(*ENDED):  # it has died, which its first answer will show
            self._send((recipe, str(device), threads))

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        pickle.dump(message, self._process.stdin)
        self._process.stdin.flush()

    def ask(self, job: Job) -> Any:
        """Let it do a job; return the result, or None if it failed.

        Raises:
            Exception: the process has died, which is one of `ENDED`.
        """
        assert self._process.stdout is not None
        self._send(job)
        return pickle.load(self._process.stdout)

    def end(self) -> None:
        """End the process; files are written atomically, so none is incomplete."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Context in which torch has that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
