"""The process of a worker: its arguments, and the file that tells the process that started it what it does."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from augkit.core.errors import WriteError
from augkit.core.files import write
from augkit.core.jobs.worker import WorkerEvents


def worker_parser(command: str, description: str | None) -> argparse.ArgumentParser:
    """The arguments that every worker takes; ``command`` is the module that runs it."""
    parser = argparse.ArgumentParser(prog=f"python -m {command}", description=description, allow_abbrev=False)
    parser.add_argument("--storage", required=True, help="as of the command that started it")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("--index", type=int, default=0, help="of this worker; its sampler's seed derives from it")
    parser.add_argument("--status", type=Path, help="file that tells the starting process what is being done")
    parser.add_argument("--device", help="cpu, cuda, ...")
    parser.add_argument("--retries", type=int, default=1, help="of a job whose worker died")
    parser.add_argument("--grace", type=float, default=300.0, help="seconds after which a silent worker is dead")
    parser.add_argument("--parent", type=int, help="stop when this process is gone")
    return parser


def status_events(options: argparse.Namespace) -> WorkerEvents:
    """What it is doing, written to the status file once a second; the file's age tells whether it still lives."""
    told: dict[str, Any] = {"pid": os.getpid(), "stage": "starting", "work": 0.0}
    last = [0.0]

    def tell() -> None:
        last[0] = time.monotonic()
        if options.status:
            with contextlib.suppress(WriteError):  # no job fails for want of a status
                write(options.status, json.dumps(told))

    def stage(text: str) -> None:
        told.update(stage=text, epoch=None, epochs=None)
        tell()

    def epoch(number: int, row: dict[str, Any], epochs: int) -> None:
        told.update(epoch=row["epoch"], epochs=epochs, images_per_second=row["images_per_second"])
        told["accuracy"] = row.get("validation_accuracy")
        tell()

    def work(amount: float) -> None:
        told["work"] += amount

    def alive() -> None:
        if options.parent and os.getppid() != options.parent:
            raise KeyboardInterrupt
        if time.monotonic() - last[0] > 1:
            tell()

    return WorkerEvents(stage, epoch, work, alive, log=lambda text: print(text, file=sys.stderr, flush=True))
