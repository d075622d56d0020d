"""Runs a trial by torchrun, in processes of its own."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from augkit.core.errors import RunError
from augkit.core.files import write
from augkit.core.processes import end, start
from augkit.data import Dataset
from augkit.train.history import EpochRow, OnEpoch
from augkit.train.loop import fit
from augkit.train.recipe import Recipe
from augkit.train.run import Run

POLL = 0.5  # seconds between looks at a job
LEAVE = 60.0  # seconds for a job to end, of which torchrun itself takes up to 30 to kill its ranks


def fit_by_torchrun(
    recipe: Recipe,
    folder: Path | None,
    processes: int,
    dataset: Dataset,
    on_epoch: OnEpoch,
    alive: Callable[[], None],
    device: str | None = None,
) -> Run:
    """Train by ``torchrun -m augkit.train`` and load the result; only this process communicates with a study.

    Args:
        recipe: the recipe, with its seed.
        folder: folder of the run, on storage that all processes share; a temporary one when None.
        processes: number of processes of the job.
        dataset: data for the evaluation of the trained network.
        on_epoch: called with each row of the history; an exception from it ends the job.
        alive: called while the job runs; an exception from it ends the job.
        device: see `augkit.fit`.

    Raises:
        RunError: the job failed; the message has its last line.
    """
    with tempfile.TemporaryDirectory(prefix="augkit-trial-") as scratch:
        target = folder or Path(scratch) / "run"
        file = Path(scratch) / "recipe.yaml"
        write(file, recipe.to_yaml())
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = [*launcher, "-m", "augkit.train", str(file), "--output", str(target), "--resume", "--quiet"]
        command += ["--device", device] if device else []
        with (Path(scratch) / "log").open("w+", encoding="utf-8", errors="replace") as log:
            job = start(command, stdout=log, stderr=log)
            code, seen = None, 0
            try:
                while code is None:
                    code = job.poll()
                    rows = _rows(target / "metrics.jsonl")
                    for row in rows[seen:]:
                        on_epoch(row)
                    seen = len(rows)
                    alive()
                    if code is None:
                        time.sleep(POLL)
            finally:
                end(job, LEAVE)
            if code:
                log.seek(0)
                lines = [line for line in log.read().splitlines() if line.startswith("augkit: error: ")]
                reason = lines[-1].removeprefix("augkit: error: ") if lines else f"exit code {code}"
                raise RunError(f"torchrun with {processes} processes failed: {reason}")
        return fit(recipe, output=target, resume=True, device=device, dataset=dataset, alive=alive)


def _rows(path: Path) -> list[EpochRow]:
    """Return the complete rows."""
    if not path.is_file():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
