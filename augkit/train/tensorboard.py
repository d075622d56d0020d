"""Rows of a run's history as TensorBoard events."""

from __future__ import annotations

from pathlib import Path

from augkit.core.errors import InputError
from augkit.train.history import EpochRow, OnEpoch


def event_writer(folder: Path | None) -> OnEpoch:
    """Return a function that writes a row's numbers to event files in ``folder``, or does nothing when None.

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

    def write(row: EpochRow) -> None:
        for name, value in row.items():
            number = value["value"] if isinstance(value, dict) else value
            if isinstance(number, int | float):
                writer.add_scalar(name, number, row["epoch"])
        writer.flush()

    return write
