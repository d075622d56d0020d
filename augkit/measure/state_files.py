"""The folder of a measurement in progress: its state is saved every few seconds, and restored with ``resume``."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch

from augkit.core.errors import AugkitError, InputError
from augkit.core.files import MARK, claim, environment, write
from augkit.core.safe_files import Unreadable, load_safely
from augkit.invariance import Network
from augkit.invariance.accumulator import State
from augkit.measure.settings import MeasureSettings

STATE = "measurement.pt"
WRITTEN = (MARK, "results.json", "report.html")  # beside the states
SAVE_EVERY = 10.0  # seconds


def holds_measurement(folder: Path, written: Iterable[str] = WRITTEN, proof: str = STATE) -> bool:
    """Whether a measurement can go on in a folder that augkit wrote: it has the file ``proof``, or nothing else yet.

    The mark alone tells nothing: the folders of runs, searches and studies have it, too, and a report of their own.
    """
    if not (folder / MARK).is_file():
        return False
    found = (entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return (folder / proof).is_file() or all(name in written or name.endswith(STATE) for name in found)


class MeasureInterrupted(KeyboardInterrupt):
    """A measurement was interrupted; the folder keeps all whole batches, and ``resume`` continues after them."""


class Resumable(Protocol):
    """A measurement of one image set that can go on from its state."""

    @property
    def images(self) -> int:
        """Number of measured images, of whole batches."""

    def state(self) -> State:
        """The state after the last whole batch."""

    def restore(self, state: State) -> None:
        """Continue from a state."""


class StateFolder:
    """Keeps the measurements of several image sets in a folder, one file for each.

    Args:
        folder: the folder, created or claimed; nothing is kept when None.
        measurements: measurements by the name of the images.
        resume: restore the states in the folder.
        overwrite: replace what is in the folder.

    Attributes:
        folder: as given.
        resumed: whether a state was restored.

    Raises:
        InputError: the folder exists; with ``resume``, it contains no measurement, or a different one.
    """

    def __init__(
        self,
        folder: Path | None,
        measurements: Mapping[str, Resumable],
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        self.folder, self.resumed = folder, False
        self._measurements = measurements
        if folder is None:
            return
        if resume and not holds_measurement(folder):
            raise InputError(f"--resume: '{folder}' holds no measurement to go on with")
        self.folder = claim(folder, resume=resume, overwrite=overwrite)
        for name in measurements:
            if resume and self._file(folder, name).is_file():
                self._restore(self._file(folder, name), name)
                self.resumed = True

    def begin(self, network: Network, settings: MeasureSettings) -> None:
        """Mark the folder as that of a measurement with ``network``.

        Raises:
            InputError: the settings have another memory format than the restored state, or fold otherwise.
        """
        if self.resumed and settings.memory_format not in (None, network.memory_format):
            kept, got = network.memory_format, settings.memory_format
            raise InputError(f"--memory-format: expected {kept}, with which the measurement there began, got {got}")
        if self.resumed and settings.fold not in (None, network.folds):
            kept, got = ("--fold" if on else "--no-fold" for on in (network.folds, settings.fold))
            raise InputError(f"{got}: expected {kept}, with which the measurement there began")
        if self.folder is not None:
            write(self.folder / MARK, json.dumps(environment(), indent=2))

    def save(self, name: str) -> None:
        """Save the state of one measurement."""
        if self.folder is not None:
            state = self._measurements[name].state()
            write(self._file(self.folder, name), lambda path: torch.save(state, path))

    def saver(self, name: str, on_save: Callable[[], None]) -> Callable[[int], None]:
        """Return a callback for every batch, which saves the state every few seconds."""
        last = time.monotonic()

        def on_batch(done: int) -> None:
            nonlocal last
            if time.monotonic() - last > SAVE_EVERY:
                self.save(name)
                on_save()
                last = time.monotonic()

        return on_batch

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Save all whole batches on an interrupt, and raise MeasureInterrupted if there is a folder."""
        try:
            yield
        except KeyboardInterrupt:
            if self.folder is None:
                raise
            for name, measurement in self._measurements.items():
                if measurement.images:
                    self.save(name)
            raise MeasureInterrupted from None

    def _restore(self, file: Path, name: str) -> None:
        try:
            self._measurements[name].restore(load_safely(file))
        except AugkitError:
            raise
        except (Unreadable, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(f"'{file}': cannot be resumed ({reason}); start anew with --overwrite") from None

    def _file(self, folder: Path, name: str) -> Path:
        number = list(self._measurements).index(name)
        return folder / (f"ood{number}-{STATE}" if number else STATE)
