"""The pool: workers of a study in processes of their own."""

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
    """Settings of the workers of one command.

    Attributes:
        count: number of workers on this machine, or on the Ray cluster.
        per_gpu: number of workers that share a GPU.
        launcher: name in `augkit.core.jobs.launch.LAUNCHERS`.
        gpus_per_worker: GPUs, or the share of one, that Ray reserves for each worker.
        retries: most retries of a trial whose worker died.
        grace: seconds without a heartbeat after which a worker is dead.
    """

    count: int = 1
    per_gpu: int = 1
    launcher: str = "local"
    gpus_per_worker: float = 0.0
    retries: int = 1
    grace: float = 300.0

    def arguments(self, storage: Storage, study: str, device: object) -> list[str]:
        """Command-line arguments that all workers of a study share."""
        words = ["--storage", storage.url, "--study", study, "--device", str(device)]
        return [*words, "--retries", str(self.retries), "--grace", str(self.grace)]


@dataclass
class WorkerPool:
    """Workers of one study.

    Attributes:
        study: the Optuna study.
        folder: folder of the study; status files and logs are in its ``workers/``.
        module: module that a worker runs, such as ``augkit.tune.worker``.
        arguments: its command-line arguments, shared by all workers.
        settings: number of workers, retries and grace period.
        done: returns whether all work is done.
        first: index of the first worker; indices must differ between hosts, because seeds of samplers depend on them.
        on_status: called about once a second with the status of each worker.
        log: called with a line to print.
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
    """A worker index for a process that joins a study, different from those of other hosts."""
    return 1 + zlib.crc32(f"{socket.gethostname()}:{os.getpid()}".encode()) % 1_000_000
