"""The launcher of workers on this machine: it starts them, watches them, and replaces those that die.

A worker writes its status to a file once a second. If its process has ended, or its file has not changed for the grace
period, the worker is dead: its trial is queued again and another worker is started.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from optuna.trial import TrialState

from augkit.core.errors import AugkitError, RunError
from augkit.core.jobs.heartbeat import LEAST_GRACE
from augkit.core.jobs.pool import WorkerPool
from augkit.core.jobs.recovery import requeue_of
from augkit.core.jobs.status import WorkerStatus
from augkit.core.processes import interrupt, start

POLL = 1.0  # seconds between checks
RESTARTS = 3  # restarts of one worker in a row after which the pool gives up
STOP_GRACE = 20.0  # seconds that workers have to hand their trials back
START_GRACE = 60.0  # seconds that a worker has to start, even if the grace period is shorter


class LocalLauncher:
    """Runs the workers of a pool as processes of this machine.

    Attributes:
        pool: the pool.
    """

    remote: ClassVar[bool] = False

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self._workers: list[LocalWorker] = []

    def run(self) -> None:
        """Start all workers and wait until they have ended.

        Raises:
            RunError: the workers gave up before the work was done.
        """
        (self.pool.folder / "workers").mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(RESTARTS):
                self._workers = [self._start(k) for k in range(self.pool.settings.count)]
                self._watch()
                # All workers may end just before another host hands a trial back.
                if self.pool.done() or any(worker.process.returncode for worker in self._workers):
                    break
            if not self.pool.done():
                raise RunError(f"the workers gave up: {self._last_error()}")
        finally:
            self._stop()

    def _watch(self) -> None:
        running = list(range(len(self._workers)))
        while running := [k for k in running if not self._has_ended(k)]:
            self.pool.on_status([WorkerStatus.read(w.status, w.index, w.silence()) for w in self._workers])
            time.sleep(POLL)

    def _start(self, k: int, restarts: int = 0) -> LocalWorker:
        pool, index = self.pool, self.pool.first + k
        # The index keeps names unique, because several hosts may share the folder.
        status, log = (pool.folder / "workers" / f"{index}.{end}" for end in ("json", "log"))
        status.unlink(missing_ok=True)
        threads = max(1, torch.get_num_threads() // pool.settings.count)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        # A device such as cuda:1 needs no assignment.
        gpus = torch.cuda.device_count() if "cuda" in pool.arguments else 0
        if gpus:
            mine = k // pool.settings.per_gpu % gpus
            environment["CUDA_VISIBLE_DEVICES"] = visible_gpus(gpus)[mine]
        command = [*pool.command(k), "--status", str(status), "--parent", str(os.getpid())]
        with log.open("a", encoding="utf-8") as file:
            process = start(command, environment=environment, stdout=file, stderr=file)
        name = f"{socket.gethostname()}:{process.pid}:{index}"
        return LocalWorker(k, name, process, status, log, time.monotonic(), restarts, self._finished())

    def _finished(self) -> int:
        """Number of jobs that finished or failed with an error; if it does not grow, workers only die."""
        done, trials = (TrialState.COMPLETE, TrialState.PRUNED), self.pool.study.get_trials(deepcopy=False)
        return sum(trial.state in done or "error" in trial.user_attrs for trial in trials)

    def _has_ended(self, k: int) -> bool:
        """Whether worker ``k`` has ended by itself; a dead worker is replaced, and its trial is queued again."""
        worker, settings = self._workers[k], self.pool.settings
        code, silent = worker.process.poll(), False
        grace = max(settings.grace, LEAST_GRACE if worker.status.exists() else START_GRACE)
        if code is None and worker.silence() > grace:
            self.pool.log(f"worker {worker.index} has been silent for {worker.silence():.0f} s: killed")
            worker.process.kill()
            code, silent = worker.process.wait(), True
        if code is None:
            return False
        again = requeue_of(self.pool.study, worker.name, settings.retries)
        if code in (0, 1, 2) and not silent:  # the exit codes of `augkit.core.cli.run`; 1 of a killed one on Windows
            if code:
                self.pool.log(f"worker {worker.index} gave up: {worker.last_error() or f'exit code {code}'}")
            return True
        what = f"trial {', '.join(map(str, again))} is queued again" if again else "it had no trial"
        self.pool.log(f"worker {worker.index} died ({_cause(code)}): {what}")
        restarts = 1 if self._finished() > worker.finished else worker.restarts + 1
        if restarts > RESTARTS:
            raise RunError(f"worker {worker.index} died {restarts} times in a row; see {worker.log}")
        self._workers[k] = self._start(k, restarts)
        return False

    def _stop(self) -> None:
        """Interrupt workers that still run, so that they hand their trials back; then requeue what is left."""
        for worker in self._workers:
            interrupt(worker.process)
        until = time.monotonic() + STOP_GRACE
        for worker in self._workers:
            try:
                worker.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        with contextlib.suppress(AugkitError):  # a full disk, reported before; --resume recovers the trials
            for worker in self._workers:
                requeue_of(self.pool.study, worker.name, None)

    def _last_error(self) -> str:
        for worker in self._workers:
            if worker.last_error():
                return worker.last_error()
        # On a full disk the log cannot have a last line.
        full = shutil.disk_usage(self.pool.folder).free < 2**16
        return f"{os.strerror(errno.ENOSPC)} for '{self.pool.folder}'" if full else f"see {self._workers[0].log}"


@dataclass
class LocalWorker:
    """A worker process, as its parent sees it."""

    index: int
    name: str  # name of the worker in its trials
    process: subprocess.Popen[bytes]
    status: Path
    log: Path
    changed: float  # start of the worker, then last seen change of its status file (monotonic clock)
    restarts: int
    finished: int  # number of finished jobs at its start
    written: float = 0.0  # modification time of the status file, only compared with itself

    def silence(self) -> float:
        """Seconds since its status file changed."""
        with contextlib.suppress(OSError):
            written = self.status.stat().st_mtime
            if written != self.written:
                self.written, self.changed = written, time.monotonic()
        return time.monotonic() - self.changed

    def last_error(self) -> str:
        """The last error in its log."""
        with contextlib.suppress(OSError):
            text = self.log.read_text(encoding="utf-8", errors="replace")
            lines = [line for line in text.splitlines() if line.strip()]
            return lines[-1].removeprefix("augkit: error: ") if lines else ""
        return ""


def visible_gpus(count: int) -> list[str]:
    """The GPUs of this process, such as those assigned by SLURM, as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given if len(given) >= count else [str(k) for k in range(count)]


def _cause(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
