"""The launcher of workers on this machine: it starts them, watches them, and replaces those that die.

A worker writes what it does to a status file once a second. One whose process has ended, or whose file has not changed
for the grace period, is dead: its trial is put in line again, and another worker takes its place.
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
from augkit.core.jobs.pool import WorkerPool
from augkit.core.jobs.recovery import requeue_of
from augkit.core.jobs.status import WorkerStatus

POLL = 1.0  # seconds between looks
RESTARTS = 3  # of one worker in a row, after which something else is wrong
STOP_GRACE = 20.0  # seconds to hand a trial back
START_GRACE = 60.0  # seconds to start in, however short the grace period


class LocalLauncher:
    """Processes of this machine.

    Attributes:
        pool: whose workers they are.
    """

    remote: ClassVar[bool] = False

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self._workers: list[LocalWorker] = []

    def run(self) -> None:
        """Start all workers, and wait until they have ended of their own accord; raises RunError where they give up."""
        (self.pool.folder / "workers").mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(RESTARTS):
                self._workers = [self._start(k) for k in range(self.pool.settings.count)]
                self._watch()
                # All may end at the moment at which a trial that another host hands back is not yet in line.
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
        # Hosts may share the folder.
        status, log = (pool.folder / "workers" / f"{index}.{end}" for end in ("json", "log"))
        status.unlink(missing_ok=True)
        threads = max(1, torch.get_num_threads() // pool.settings.count)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        gpus = torch.cuda.device_count() if "cuda" in pool.arguments else 0  # cuda:1 is a choice already
        if gpus:
            mine = k // pool.settings.per_gpu % gpus
            environment["CUDA_VISIBLE_DEVICES"] = visible_gpus(gpus)[mine]
        command = [*pool.command(k), "--status", str(status), "--parent", str(os.getpid())]
        with log.open("a") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        name = f"{socket.gethostname()}:{process.pid}:{index}"
        return LocalWorker(k, name, process, status, log, time.monotonic(), restarts, self._finished())

    def _finished(self) -> int:
        """How many jobs were done, or failed for a reason of their own; grows unless workers only die."""
        done, trials = (TrialState.COMPLETE, TrialState.PRUNED), self.pool.study.get_trials(deepcopy=False)
        return sum(trial.state in done or "error" in trial.user_attrs for trial in trials)

    def _has_ended(self, k: int) -> bool:
        """Whether worker ``k`` ended of its own accord; one that died is replaced, its trial put in line again."""
        worker, settings = self._workers[k], self.pool.settings
        code = worker.process.poll()
        grace = settings.grace if worker.status.exists() else max(settings.grace, START_GRACE)
        if code is None and worker.silence() > grace:
            self.pool.log(f"worker {worker.index} has been silent for {worker.silence():.0f} s: killed")
            worker.process.kill()
            code = worker.process.wait()
        if code is None:
            return False
        again = requeue_of(self.pool.study, worker.name, settings.retries)
        if code in (0, 1, 2):  # done, or gave up with a line in its log
            if code:
                self.pool.log(f"worker {worker.index} gave up: {worker.last_error() or f'exit code {code}'}")
            return True
        what = f"trial {', '.join(map(str, again))} is in line again" if again else "it had no trial"
        self.pool.log(f"worker {worker.index} died ({_cause(code)}): {what}")
        restarts = 1 if self._finished() > worker.finished else worker.restarts + 1
        if restarts > RESTARTS:
            raise RunError(f"worker {worker.index} died {restarts} times in a row; see {worker.log}")
        self._workers[k] = self._start(k, restarts)
        return False

    def _stop(self) -> None:
        """Have workers that still run hand their trials back; then do it for them."""
        for worker in self._workers:
            worker.process.send_signal(signal.SIGCONT)  # nothing is sent to one that has ended
            worker.process.send_signal(signal.SIGINT)
        until = time.monotonic() + STOP_GRACE
        for worker in self._workers:
            try:
                worker.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        with contextlib.suppress(AugkitError):  # a full disk, which was reported before; resuming finds the trials
            for worker in self._workers:
                requeue_of(self.pool.study, worker.name, None, counts=False)

    def _last_error(self) -> str:
        for worker in self._workers:
            if worker.last_error():
                return worker.last_error()
        # On a full disk there is no room for a last line either.
        full = shutil.disk_usage(self.pool.folder).free < 2**16
        return f"{os.strerror(errno.ENOSPC)} for '{self.pool.folder}'" if full else f"see {self._workers[0].log}"


@dataclass
class LocalWorker:
    """The process of a worker, as the process that started it sees it."""

    index: int
    name: str  # as the worker names itself in a trial
    process: subprocess.Popen[bytes]
    status: Path
    log: Path
    changed: float  # when it was started, then when its file was seen to change, by our monotonic clock
    restarts: int
    finished: int  # jobs, when it was started
    written: float = 0.0  # when the status file was written, by the clock of its disk: only whether it changes counts

    def silence(self) -> float:
        """Seconds since its last sign of life."""
        with contextlib.suppress(OSError):
            written = self.status.stat().st_mtime
            if written != self.written:
                self.written, self.changed = written, time.monotonic()
        return time.monotonic() - self.changed

    def last_error(self) -> str:
        """The last error in its log."""
        with contextlib.suppress(OSError):
            lines = [line for line in self.log.read_text().splitlines() if line.strip()]
            return lines[-1].removeprefix("augkit: error: ") if lines else ""
        return ""


def visible_gpus(count: int) -> list[str]:
    """The GPUs that this process was given, by SLURM perhaps, as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given if len(given) >= count else [str(k) for k in range(count)]


def _cause(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
