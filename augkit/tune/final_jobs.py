"""Final networks, each trained and measured by itself: in this process, or several at a time by processes beside it.

On the CPU, two processes of one thread each train two small networks faster than one process of two threads trains one
after the other. How many threads a network has depends on the settings alone and not on who trains it or when, so the
results have the same bits whether networks are trained side by side, one after the other, or after an interrupt.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from augkit.data import Dataset, Images, sample
from augkit.measure.comparison import TYPICAL, Reports, open_test_sets
from augkit.train.evaluate import measure_model
from augkit.train.history import OnEpoch
from augkit.train.loop import fit
from augkit.train.recipe import Recipe

VALIDATION = "validation"
MODULE = "augkit.tune.final_worker"
ATYPICAL = 0.5  # share of the number of test images that an atypical set has; its intervals depend more on the seeds
PAYS = 100_000  # training images shown in all final runs from which a second process is worth its start
MOST = 4  # processes; each holds the data
PAUSE = 0.02  # seconds between two looks at what other processes have done


@dataclass(frozen=True)
class FinalJob:
    """One network to train, unless its folder holds it, and to measure.

    Attributes:
        name: its name without the seed.
        recipe, seed, folder: of its run.
        sets: names of the image sets to measure it on: `VALIDATION`, or those of the test split.
        lengths: lengths of the shifts (pixels) in the response curve on typical test images; empty for none.
    """

    name: str
    recipe: Recipe
    seed: int
    folder: Path
    sets: tuple[str, ...] = (VALIDATION,)
    lengths: tuple[float, ...] = ()


class FinalData:
    """Image sets of a dataset by name; the test split is opened when one of its sets is asked for."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    @cached_property
    def tests(self) -> dict[str, Images]:
        """The test split, and fewer atypical images made from it."""
        sets = open_test_sets(self.dataset)
        few = math.ceil(ATYPICAL * len(sets[TYPICAL]))
        return {name: images if name == TYPICAL else sample(images, few) for name, images in sets.items()}

    def images(self, name: str) -> Images:
        """The images of a set."""
        return self.dataset.validation if name == VALIDATION else self.tests[name]


def perform(job: FinalJob, data: FinalData, device: torch.device, on_epoch: OnEpoch | None = None) -> Reports:
    """Train a network, or load it, and measure it; return its reports by image set."""
    run = fit(
        job.recipe, job.seed, output=job.folder, resume=True, device=device, dataset=data.dataset, on_epoch=on_epoch
    )
    return {
        name: measure_model(
            run.model, run.recipe, data.images(name), lengths=job.lengths if name == TYPICAL else (), device=device
        )
        for name in job.sets
    }


def team_size(device: torch.device, runs: int, shown: int) -> int:
    """Number of processes for final runs.

    Args:
        device: device of the networks; on a GPU they are trained one after the other.
        runs: number of final runs.
        shown: training images shown in all of them.
    """
    if device.type != "cpu" or shown < PAYS:
        return 1
    return max(1, min(torch.get_num_threads(), runs, MOST))


class FinalTeam:
    """This process and others that it starts, which share jobs among them; a context manager that ends the others.

    A job that another process could not do, because it died or the job failed there, is done by this one, so that an
    error is raised here.

    Args:
        recipe: recipe whose data all jobs use.
        data: the data, as this process has loaded it.
        device: device of the networks.
        count: number of processes, this one included.
        threads: threads of each; None divides those of this process.
    """

    def __init__(
        self, recipe: Recipe, data: FinalData, device: torch.device, count: int = 1, threads: int | None = None
    ) -> None:
        self.recipe, self.data, self.device, self.count = recipe, data, device, count
        self.threads = threads or max(1, torch.get_num_threads() // count)
        self._others: list[_Other] = []

    def __enter__(self) -> FinalTeam:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for other in self._others:
            other.end()
        self._others = []

    def run(
        self,
        jobs: Sequence[FinalJob],
        *,
        begun: Callable[[FinalJob], None] = lambda job: None,
        done: Callable[[FinalJob, bool], None] = lambda job, here: None,
        on_epoch: OnEpoch | None = None,
    ) -> list[Reports]:
        """Do all jobs, and return their reports in the same order.

        Args:
            jobs: the jobs; the longest should come first.
            begun: called when a job begins, by one thread at a time.
            done: called when it is done, with whether this process did it.
            on_epoch: called for each epoch that this process trains.
        """
        waiting, failed, found = queue.SimpleQueue[int](), queue.SimpleQueue[int](), dict[int, Reports]()
        lock = threading.Lock()
        for k in range(len(jobs)):
            waiting.put(k)
        while len(self._others) < min(self.count, len(jobs)) - 1:
            self._others.append(_Other(self.recipe, self.device, self.threads))

        def feed(other: _Other) -> None:
            while (k := _next(waiting)) is not None:
                with lock:
                    begun(jobs[k])
                reports = other.ask(jobs[k])
                if reports is None:
                    failed.put(k)
                    continue
                with lock:
                    found[k] = reports
                    done(jobs[k], False)

        for other in self._others:
            threading.Thread(target=feed, args=(other,), daemon=True).start()
        with _threads(self.threads):
            while len(found) < len(jobs):
                if (mine := _next(failed, waiting)) is None:
                    time.sleep(PAUSE)
                    continue
                with lock:
                    begun(jobs[mine])
                reports = perform(jobs[mine], self.data, self.device, on_epoch)
                with lock:
                    found[mine] = reports
                    done(jobs[mine], True)
        return [found[k] for k in range(len(jobs))]


class _Other:
    """Another process of a team. It ends with this one, whose end closes its input."""

    def __init__(self, recipe: Recipe, device: torch.device, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # Ctrl-C is for this process, which then ends the other
        )
        self._send((recipe, str(device), threads))

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has died, which its answer will show
            pickle.dump(message, self._process.stdin)
            self._process.stdin.flush()

    def ask(self, job: FinalJob) -> Reports | None:
        """Let it do a job; return the reports, or None if it failed or the process has died."""
        assert self._process.stdout is not None
        self._send(job)
        try:
            reports: Reports | None = pickle.load(self._process.stdout)
        except (EOFError, OSError, ValueError, pickle.UnpicklingError):
            return None
        return reports

    def end(self) -> None:
        """End the process; files are written as a whole, so that none is left torn."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def _next(*queues: queue.SimpleQueue[int]) -> int | None:
    for one in queues:
        with contextlib.suppress(queue.Empty):
            return one.get_nowait()
    return None


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
