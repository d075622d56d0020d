"""The process of a worker: its arguments, and the file that shows what it does to the process that started it."""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import math
import os
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


def worker_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments that every worker takes; ``command`` is the module that runs it."""
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description=description, allow_abbrev=False)
    parser.add_argument("--storage", required=True, help="as of the command that started it")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--index", type=int, default=0, help="of this worker; its sampler's seed derives from it")
    parser.add_argument("--status", type=Path, help="file that shows what is being done")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--retries", type=int, default=1, help="of a job whose worker died")
    parser.add_argument("--grace", type=float, default=300.0, help="seconds after which a silent worker is dead")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    return parser


def open_job_study(options: argparse.Namespace) -> tuple[optuna.Study, dict[str, Any]]:
    """The study that parsed arguments name, and the keywords of `augkit.core.jobs.worker.Worker` that they give."""
    storage = open_storage(options.storage, grace=options.grace)
    events = StatusFile(options.status, options.parent)
    common = {"index": options.index, "events": events, "policy": RetryPolicy(options.retries, options.grace)}
    return optuna.load_study(storage=storage, study_name=options.study), common


@dataclass(frozen=True)
class WorkerStatus:
    """What a worker does.

    Attributes:
        worker: its index.
        stage: in words.
        work: done so far, in epochs of training.
        epoch, epochs: of the training under way: finished, and in all.
        images_per_second: in the last epoch.
        silence: seconds since its last sign of life.
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
        """What a status file says; of one that is not there yet, that the worker starts."""
        with contextlib.suppress(OSError, ValueError, TypeError):
            return cls(**{**json.loads(path.read_text()), "worker": worker, "silence": silence})
        return cls(worker, silence=silence)

    def describe(self) -> str:
        """One line for people."""
        text = f"worker {self.worker}: {self.stage}"
        if self.epoch:
            text += f", epoch {self.epoch}/{self.epochs}, {self.images_per_second:,.0f} images/s"
        return text + (f", silent for {self.silence:.0f} s" if self.silence > 5 else "")


class StatusFile(WorkerEvents):
    """The file in which a worker says what it does, written at least once a second while it is alive.

    Args:
        path: of the file; None writes nothing.
        parent: process without which the worker stops; None is any.
    """

    def __init__(self, path: Path | None, parent: int | None) -> None:
        log = functools.partial(print, file=sys.stderr, flush=True)
        super().__init__(self._on_stage, self._on_epoch, self._on_work, self._on_alive, log)
        self.path, self.parent = path, parent
        self.status, self.written = WorkerStatus(), -math.inf

    def _write(self, **changes: Any) -> None:
        self.status, self.written = replace(self.status, **changes), time.monotonic()
        if self.path is not None:
            with contextlib.suppress(WriteError):  # no job fails for want of a status
                write(self.path, json.dumps(asdict(self.status)))

    def _on_stage(self, text: str) -> None:
        self._write(stage=text, epoch=None, epochs=None)

    def _on_epoch(self, row: Mapping[str, Any], epochs: int) -> None:
        self._write(epoch=row["epoch"], epochs=epochs, images_per_second=row["images_per_second"])

    def _on_work(self, amount: float) -> None:
        self.status = replace(self.status, work=self.status.work + amount)

    def _on_alive(self) -> None:
        if self.parent and os.getppid() != self.parent:
            raise KeyboardInterrupt
        if time.monotonic() - self.written > 1:
            self._write()
