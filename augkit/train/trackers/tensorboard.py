"""Runs as event files of TensorBoard, in the folder of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from augkit.core.errors import InputError
from augkit.train.recipe import Recipe


class TensorBoardTracker:
    """Writes event files; ``tensorboard --logdir FOLDER`` shows them."""

    def start(self, recipe: Recipe, output: Path | None) -> None:
        """Open a new event file in the folder of the run."""
        if output is None:
            raise InputError("log: tensorboard writes to the folder of a run, got none; give an output")
        self._writer = SummaryWriter(str(output))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers, so that they are seen while the run goes on."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if hasattr(self, "_writer"):
            self._writer.close()
