"""Rows of a run's history as TensorBoard events."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from augkit.core.errors import InputError


def event_writer(folder: Path | None) -> Callable[[dict[str, Any]], None]:
    """A function that writes a row's numbers to event files in ``folder``; one that does nothing when None.

    Raises:
        InputError: TensorBoard is not installed.
    """
    if folder is None:
        return lambda row: None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("train.tensorboard: not installed; pip install 'augkit[tensorboard]'") from None
    writer = SummaryWriter(str(folder))

    def write(row: dict[str, Any]) -> None:
        for name, value in row.items():
            number = value["value"] if isinstance(value, dict) else value
            if isinstance(number, int | float):
                writer.add_scalar(name, number, row["epoch"])
        writer.flush()

    return write
