"""Workers of a study in processes of their own: how many, and what they run."""

from __future__ import annotations

import os
import socket
import sys
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import optuna

from augkit.core.jobs.status import WorkerStatus
from augkit.core.jobs.storage import Storage


@dataclass(frozen=True)
class WorkerSettings:
    """How work is spread over processes.

    Attributes:
        count: on this machine, or on the Ray cluster.
        per_gpu: that share a GPU, where there are GPUs.
        launcher: what starts them, a name in `augkit.core.jobs.launch.LAUNCHERS`.
        gpus_per_worker: share of a GPU that Ray sets aside for each.
        retries: how often a trial is run again whose worker died.
        grace: seconds without a sign of life after which a worker is dead.
    """

    count: int = 1
    per_gpu: int = 1
    launcher: str = "local"
    gpus_per_worker: float = 0.0
    retries: int = 1
    grace: float = 300.0

    def arguments(self, storage: Storage, study: str, device: object) -> list[str]:
        """Arguments that every worker of a study takes."""
        words = ["--storage", storage.url, "--study", study, "--device", str(device)]
        return [*words, "--retries", str(self.retries), "--grace", str(self.grace)]


@dataclass
class WorkerPool:
    """Workers of one study.

    Attributes:
        study: seen from this process.
        folder: of the study; status files and logs go to ``workers/`` in it.
        module: that a worker runs, such as ``augkit.tune.worker``.
        arguments: of it that all of them share.
        settings: how many of them, and how long one may be silent.
        done: whether all work is done.
        first: index of the first worker; those of several hosts must differ, since their seeds derive from it.
        on_status: called about once a second with what each worker does.
        log: takes a line that stays.
    """

    study: optuna.Study
    folder: Path
    module: str
    arguments: Sequence[str]
    settings: WorkerSettings
    done: Callable[[], bool]
    first: int = 0
    on_status: Callable[[list[WorkerStatus]], None] = lambda statuses: None
    log: Callable[[str], None] = lambda text: None

    def command(self, k: int) -> list[str]:
        """The command line of worker ``k``, from 0."""
        return [sys.executable, "-m", self.module, "--index", str(self.first + k), *self.arguments]


def own_index() -> int:
    """An index of a worker that no other host has, for one that joins a study."""
    return 1 + zlib.crc32(f"{socket.gethostname()}:{os.getpid()}".encode()) % 1_000_000
