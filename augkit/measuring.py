"""Measurements of several image sets by one network, kept in a folder while they go on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augkit.command import Display
from augkit.comparison import jsonable
from augkit.errors import InputError
from augkit.invariance import Measurement, Network, Plan
from augkit.invariance.measurement import batches
from augkit.storage import write

STATE = "measurement.pt"
SAVE_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class ImageSet:
    """Images ``(N, C, H, W)`` with labels ``(N,)`` or None, which stand for so many ``classes``.

    ``background`` is the grey value in [0, 1] of the canvas on which they belong.
    """

    images: Tensor
    labels: Tensor | None
    background: float
    classes: int


@dataclass
class Session:
    """One network and plan, several image sets: `try_out`, `keep_in` a folder, `measure`.

    Attributes:
        network, plan: what is measured, and under what.
        operator: arguments of `augkit.invariance.protocols.make_protocol`; the background of a set is its own when
            None here, and all sets but the first come at the input size of the first.
        seed: of the displacements.
        batch_size: images at once; 256 on a GPU and 64 elsewhere when None.
    """

    network: Network
    plan: Plan
    operator: dict[str, Any]
    seed: int = 0
    batch_size: int | None = None
    folder: Path | None = None
    sets: dict[str, ImageSet] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)

    @property
    def typical(self) -> str:
        """The name of the first image set."""
        return next(iter(self.sets))

    @property
    def passes(self) -> int:
        """Forward passes of single images, in all."""
        return sum(len(images.images) for images in self.sets.values()) * len(self.plan.layout.columns)

    def try_out(self, sets: dict[str, ImageSet]) -> None:
        """Let the network see one image of every set, so that what cannot be measured is refused before any work.

        Raises:
            InputError: see `augkit.invariance.Measurement.run`; labels of more classes than the network knows.
        """
        for name, images in sets.items():
            background = self.operator["background"]
            operator = self.operator | {"background": images.background if background is None else background}
            measurement = Measurement(self.network, self.plan, operator, seed=self.seed)
            self.sets[name], self.notes[name] = _with_fitting_labels(measurement, name, images)
            self.measurements[name] = measurement
            if self.operator["protocol"] != "circular":
                self.operator["input_size"] = tuple(measurement.settings["input_size"])

    def keep_in(self, folder: Path) -> None:
        """Save to ``folder`` from now on, and take up what an earlier session left there."""
        self.folder = folder
        for name, measurement in self.measurements.items():
            path = self._state(name)
            if path.is_file():
                try:
                    state = torch.load(path, map_location="cpu", weights_only=True)
                except Exception as error:  # torch raises many kinds for a file that is none of its own
                    raise InputError(f"'{path}': cannot be read ({str(error).splitlines()[0][:120]})") from None
                measurement.restore(state)

    def measure(self, model: str, display: Display) -> dict[str, dict[str, Any]]:
        """Reports for JSON, by image set; an interrupt keeps all whole batches and goes on upwards."""
        try:
            return {name: self._measure_one(name, model, display) for name in self.sets}
        except KeyboardInterrupt:
            for name, measurement in self.measurements.items():
                if measurement.tally.images:
                    self._save(name)
            raise

    def _measure_one(self, name: str, model: str, display: Display) -> dict[str, Any]:
        images, measurement = self.sets[name], self.measurements[name]
        for note in self.notes[name]:
            display.line(note)
        display.stage(f"measuring {model} on {name}")
        display.skip(measurement.tally.images * measurement.views)
        size = self.batch_size or (256 if self.network.device.type == "cuda" else 64)
        saved = time.monotonic()

        def on_batch(done: int) -> None:
            nonlocal saved
            if time.monotonic() - saved > SAVE_EVERY:
                self._save(name)
                display.stage(f"measuring {model} on {name}: {done:,} of {len(images.images):,} images")
                saved = time.monotonic()

        measurement.run(batches(images.images, images.labels, size), on_batch, display.advance)
        self._save(name)
        report = measurement.report().to_dict()
        report["settings"] |= {"batch_size": size, "notes": self.notes[name]}
        return {"data": name, **jsonable(report)}

    def _save(self, name: str) -> None:
        state = self.measurements[name].state()
        write(self._state(name), lambda path: torch.save(state, path))

    def _state(self, name: str) -> Path:
        assert self.folder is not None  # keep_in comes first
        number = list(self.measurements).index(name)
        return self.folder / (f"ood{number}-{STATE}" if number else STATE)


def _with_fitting_labels(measurement: Measurement, name: str, images: ImageSet) -> tuple[ImageSet, list[str]]:
    """The set, without labels where they are not the network's, and what is to be said about it."""
    classes = measurement.probe(images.images[:1])
    channels = measurement.settings["channels"]
    notes = [f"{name}: grey images, {channels} channels for the network"] if "repeated" in channels else []
    if images.labels is None:
        return images, [*notes, f"{name}: no labels, so accuracy is left out"]
    if classes < images.classes:
        raise InputError(f"labels: '{name}' has {images.classes} classes, the model {classes}; they do not match")
    if classes > images.classes:
        why = f"the model has {classes} classes and the data {images.classes}"
        return replace(images, labels=None), [*notes, f"{name}: accuracy is left out, {why}"]
    return images, notes
