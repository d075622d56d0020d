"""Workers of a study in processes of their own: how many, who starts them; on this machine watched and replaced.

A worker writes what it does to a status file once a second. One whose process has ended, or whose file has not moved
for ``grace`` seconds, is dead: its trial fails and is put in line again, and another worker takes its place.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import optuna
import torch

from augkit.core.errors import AugkitError, InputError, RunError
from augkit.core.jobs.ray import on_ray
from augkit.core.jobs.recovery import _running, requeue_of
from augkit.core.jobs.retry import hand_back
from augkit.core.jobs.storage import is_sqlite

POLL = 0.25  # seconds between looks
DEATHS = 3  # of one worker in a row, after which something else is wrong
MERCY = 20.0  # seconds to hand a trial back
START = 60.0  # seconds to start in, however short the grace


@dataclass(frozen=True)
class WorkerSettings:
    """How work is spread over processes.

    Attributes:
        count: on this machine, or on the Ray cluster.
        per_gpu: that share a GPU, where there are GPUs.
        launcher: who starts them.
        gpus_per_worker: share of a GPU that Ray sets aside for each.
        retries: how often a trial is run again whose worker died.
        grace: seconds without a sign of life after which a worker is dead.
    """

    count: int = 1
    per_gpu: int = 1
    launcher: Literal["local", "ray"] = "local"
    gpus_per_worker: float = 0.0
    retries: int = 1
    grace: float = 300.0

    def check(self, storage: str | None) -> None:
        """InputError where the storage is not one for so many processes."""
        if storage is not None and is_sqlite(storage) and self.count > 1:
            raise InputError(
                "SQLite with several workers runs trials twice: leave --storage out (a journal file), or use PostgreSQL"
            )
        if self.launcher == "ray" and (storage is None or "://" not in storage):
            raise InputError("--launcher ray: expected --storage with a URL that all hosts of the cluster reach")


def own_index() -> int:
    """An index of a worker that no other host has, for one that joins a study."""
    return 1 + zlib.crc32(f"{socket.gethostname()}:{os.getpid()}".encode()) % 1_000_000


@dataclass
class WorkerPool:
    """Workers of one study.

    Attributes:
        study: seen from this process.
        folder: of the study; status files and logs go to ``workers/`` in it.
        module: that a worker runs, such as ``augkit.tune.worker``.
        arguments: of it that all of them share.
        spread: how many of them, and how long one may be silent.
        done: whether all work is done.
        progress: grows whenever something is finished.
        first: index of the first worker; those of several hosts must differ, since their seeds derive from it.
        look: called a few times a second with what each worker does.
        line: takes a line that stays.
    """

    study: optuna.Study
    folder: Path
    module: str
    arguments: Sequence[str]
    spread: WorkerSettings
    done: Callable[[], bool]
    progress: Callable[[], int]
    first: int = 0
    look: Callable[[list[dict[str, Any]]], None] = lambda states: None
    line: Callable[[str], None] = lambda text: None
    _members: list[_WorkerProcess] = field(default_factory=list)

    def run(self) -> None:
        """Until all workers have ended of their own accord.

        Raises:
            RunError: workers die again and again, or give up.
            InputError: Ray is asked for, and not installed.
        """
        if self.spread.launcher == "ray":
            starts = [self._command(k) for k in range(self.spread.count)]
            codes = on_ray(starts, self.spread.gpus_per_worker, 1, lambda: self.look([]), self.done)
            if not self.done():
                raise RunError(f"the workers on Ray ended with exit codes {codes} before the work was done")
            return
        (self.folder / "workers").mkdir(parents=True, exist_ok=True)
        try:
            for _ in range(DEATHS):
                self._members = [self._start(k) for k in range(self.spread.count)]
                self._mind()
                # All may end in good faith in the moment in which what somebody else hands back is in no line.
                if self.done() or any(member.process.returncode for member in self._members):
                    break
            if not self.done():
                raise RunError(f"the workers gave up: {self._last_words()}")
        finally:
            self._dismiss()

    def _mind(self) -> None:
        while any(member.process.poll() is None or not member.ended for member in self._members):
            for member in self._members:
                self._look_after(member)
            self.look([member.state() for member in self._members])
            time.sleep(POLL)

    def _command(self, k: int) -> list[str]:
        return [sys.executable, "-m", self.module, "--index", str(self.first + k), *self.arguments]

    def _start(self, k: int, deaths: int = 0) -> _WorkerProcess:
        # Hosts may share the folder.
        status, log = (self.folder / "workers" / f"{self.first + k}.{end}" for end in ("json", "log"))
        status.unlink(missing_ok=True)
        threads = max(1, torch.get_num_threads() // self.spread.count)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        gpus = torch.cuda.device_count() if "cuda" in self.arguments else 0  # cuda:1 is a choice already
        if gpus:
            mine = k // self.spread.per_gpu % gpus
            environment["CUDA_VISIBLE_DEVICES"] = visible_gpus(gpus)[mine]
        command = [*self._command(k), "--status", str(status), "--parent", str(os.getpid())]
        with log.open("a") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True)
        name = f"{socket.gethostname()}:{process.pid}:{self.first + k}"
        return _WorkerProcess(k, name, process, status, log, time.monotonic(), deaths, self.progress())

    def _look_after(self, member: _WorkerProcess) -> None:
        code = member.process.poll()
        if member.ended:
            return
        grace = self.spread.grace if member.status.exists() else max(self.spread.grace, START)
        if code is None and member.silent() > grace:
            self.line(f"worker {member.index} has been silent for {member.silent():.0f} s: killed")
            member.process.kill()
            code = member.process.wait()
        if code is None:
            return
        if code in (0, 1, 2):  # done, or gave up with a line in its log
            member.ended = True
            requeue_of(self.study, member.name, self.spread.retries)
            if code:
                self.line(f"worker {member.index} gave up: {member.last_word() or f'exit code {code}'}")
            return
        again = requeue_of(self.study, member.name, self.spread.retries)
        what = f"trial {', '.join(map(str, again))} is in line again" if again else "it had no trial"
        self.line(f"worker {member.index} died ({_cause(code)}): {what}")
        deaths = 1 if self.progress() > member.finished else member.deaths + 1
        if deaths > DEATHS:
            raise RunError(f"worker {member.index} died {deaths} times in a row; see {member.log}")
        self._members[member.index] = self._start(member.index, deaths)

    def _dismiss(self) -> None:
        """Have those that still work hand their trials back; then do it for them."""
        at_work = [member for member in self._members if member.process.poll() is None]
        for member in at_work:
            with contextlib.suppress(ProcessLookupError):
                member.process.send_signal(signal.SIGCONT)
                member.process.send_signal(signal.SIGINT)
        until = time.monotonic() + MERCY
        for member in at_work:
            try:
                member.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()
        with contextlib.suppress(AugkitError):  # a full disk, of which there was word before; resuming finds them
            for member in self._members:
                for trial in _running(self.study, member.name):
                    hand_back(self.study, trial.number)

    def _last_words(self) -> str:
        for member in self._members:
            if member.last_word():
                return member.last_word()
        # On a full disk there is no room for last words either.
        full = shutil.disk_usage(self.folder).free < 2**16
        return f"{os.strerror(errno.ENOSPC)} for '{self.folder}'" if full else f"see {self._members[0].log}"


@dataclass
class _WorkerProcess:
    index: int
    name: str  # as the worker names itself in a trial
    process: subprocess.Popen[bytes]
    status: Path
    log: Path
    started: float
    deaths: int
    finished: int
    ended: bool = False
    sign: float = 0.0  # when the status file was written, by the clock of its disk
    seen: float = -math.inf  # when that was seen to change, by ours, which stands still while a laptop sleeps

    def state(self) -> dict[str, Any]:
        """What it does."""
        with contextlib.suppress(OSError, ValueError):
            return {"worker": self.index, "silent": self.silent(), **json.loads(self.status.read_text())}
        return {"worker": self.index, "stage": "starting", "silent": self.silent()}

    def silent(self) -> float:
        """Seconds since its last sign of life."""
        with contextlib.suppress(OSError):
            sign = self.status.stat().st_mtime
            if sign != self.sign:
                self.sign, self.seen = sign, time.monotonic()
        return time.monotonic() - max(self.seen, self.started)

    def last_word(self) -> str:
        """The last error in its log."""
        with contextlib.suppress(OSError):
            lines = [line for line in self.log.read_text().splitlines() if line.strip()]
            return lines[-1].removeprefix("augkit: error: ") if lines else ""
        return ""


def visible_gpus(count: int) -> list[str]:
    """What this process was given, by SLURM perhaps, as ``CUDA_VISIBLE_DEVICES`` names them."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given if len(given) >= count else [str(k) for k in range(count)]


def doing(state: dict[str, Any]) -> str:
    """What a worker does, in words."""
    text = f"worker {state['worker']}: {state.get('stage', '')}"
    if state.get("epoch"):
        text += f", epoch {state['epoch']}/{state['epochs']}, {state['images_per_second']:,.0f} images/s"
    return text + (f", silent for {state['silent']:.0f} s" if state["silent"] > 5 else "")


def _cause(code: int) -> str:
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
