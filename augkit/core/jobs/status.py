"""The process of a worker: its command-line arguments, and the status file that its parent reads."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from augkit.core.errors import WriteError
from augkit.core.files import write
from augkit.core.jobs.heartbeat import RetryPolicy
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import WorkerEvents
from augkit.core.processes import ParentWatch


def worker_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """The parser of the arguments that all workers share; ``command`` is the module of the worker."""
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description=description, allow_abbrev=False)
    parser.add_argument("--storage", required=True, help="storage of the command that started the worker")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument(
        "--index", type=int, default=0, help="index of this worker, on which its sampler's seed depends"
    )
    parser.add_argument("--status", type=Path, help="status file to write")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--retries", type=int, default=1, help="retries of a job whose worker died")
    parser.add_argument(
        "--grace", type=float, default=300.0, help="seconds without a heartbeat after which a worker is dead"
    )
    parser.add_argument("--parent", type=int, help="process id of the parent; stop when it has ended")
    return parser


def open_job_study(options: argparse.Namespace) -> tuple[optuna.Study, dict[str, Any]]:
    """Open the study that parsed arguments name; also return keyword arguments for `augkit.core.jobs.worker.Worker`."""
    storage = open_storage(options.storage, grace=options.grace)
    events = StatusFile(options.status, options.parent)
    common = {"index": options.index, "events": events, "policy": RetryPolicy(options.retries, options.grace)}
    return optuna.load_study(storage=storage, study_name=options.study), common


@dataclass(frozen=True)
class WorkerStatus:
    """The status of a worker.

    Attributes:
        worker: index of the worker.
        stage: description of its present work.
        work: work done so far, in epochs of training.
        epoch, epochs: finished and total epochs of the current training; None if there is none.
        images_per_second: speed in the last epoch.
        silence: seconds since its status file changed.
    """

    worker: int = 0
    stage: str = "starting"
    work: float = 0.0
    epoch: int | None = None
    epochs: int | None = None
    images_per_second: float = 0.0
    silence: float = 0.0

    @classmethod
    def read(cls, path: Path, worker: int, silence: float) -> WorkerStatus:
        """Read a status file; if it does not exist yet, the worker is starting."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return cls(**{**json.loads(path.read_text(encoding="utf-8")), "worker": worker, "silence": silence})
        return cls(worker, silence=silence)

    def describe(self) -> str:
        """The status as one line of text."""
        text = f"worker {self.worker}: {self.stage}"
        if self.epoch:
            text += f", epoch {self.epoch}/{self.epochs}"
            text += f", {self.images_per_second:,.0f} images/s" * (self.images_per_second > 0)
        return text + (f", silent for {self.silence:.0f} s" if self.silence > 5 else "")


class StatusFile(WorkerEvents):
    """Writes the status of a worker to a file at least once a second.

    Args:
        path: path of the file; None writes nothing.
        parent: process id of the parent, without which the worker stops; None does not check it.
    """

    def __init__(self, path: Path | None, parent: int | None) -> None:
        log = functools.partial(print, file=sys.stderr, flush=True)
        super().__init__(self._on_stage, self._on_epoch, self._on_work, self._on_alive, log)
        self.path, self.parent = path, None if parent is None else ParentWatch(parent)
        self.status, self.written = WorkerStatus(), -math.inf

    def _write(self, **changes: Any) -> None:
        self.status, self.written = replace(self.status, **changes), time.monotonic()
        if self.path is not None:
            with contextlib.suppress(WriteError):  # a job must not fail because its status cannot be written
                write(self.path, json.dumps(asdict(self.status)))

    def _on_stage(self, text: str) -> None:
        self._write(stage=text, epoch=None, epochs=None)

    def _on_epoch(self, row: Mapping[str, Any], epochs: int) -> None:
        self._write(epoch=row["epoch"], epochs=epochs, images_per_second=row.get("images_per_second", 0.0))

    def _on_work(self, amount: float) -> None:
        self.status = replace(self.status, work=self.status.work + amount)

    def _on_alive(self) -> None:
        if self.parent is not None and self.parent.has_ended():
            raise KeyboardInterrupt
        if time.monotonic() - self.written > 1:
            self._write()
