"""One session of `augkit.measure`: several image sets seen by one network, kept in a folder while it goes on."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augkit.core.cli import interrupted, new_folder
from augkit.core.errors import AugkitError, InputError
from augkit.core.files import MARK, claim, environment, write
from augkit.core.json import jsonable
from augkit.core.progress import Display
from augkit.core.safe_files import Unreadable, load_safely
from augkit.data import Images
from augkit.data import batches as decoded
from augkit.invariance import Measurement, Network, Plan
from augkit.invariance.gallery import FlipPicture, flip_pictures
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure.analyses import AnalysisInput, chosen_probes, probe
from augkit.train.build import choose_device
from augkit.train.load_model import LoadedModel

STATE = "measurement.pt"
SAVE_EVERY = 10.0  # seconds


@dataclass(frozen=True)
class ImageSet:
    """Images at hand or streamed, with the names of the classes that their labels stand for.

    ``notes`` are sentences on what was done to them, such as broken files left out.
    """

    images: Images
    classes: list[str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Pixels ``(B, C, H, W)`` uint8 with labels ``(B,)`` or None."""
        labels = self.images.labels
        start = 0
        for pixels in decoded(self.images, size):
            yield pixels, None if labels is None else labels[start : start + len(pixels)]
            start += len(pixels)

    def pixels(self, indices: list[int]) -> Tensor:
        """The images at ``indices``, decoded: ``(len(indices), C, H, W)`` uint8."""
        return torch.cat(list(decoded(self.images.take(torch.tensor(indices)), max(1, len(indices)))))


@dataclass
class MeasureSession:
    """Measurements of several image sets by one network.

    Args:
        options: of the command line.
        arguments: as typed, for the line that goes on.
        loaded: the network.
        plan: what every image is seen under.
        operator: arguments of `augkit.invariance.protocols.make_protocol`.
        lie: whether the preset asks for Lie derivatives.
    """

    options: Any
    arguments: list[str]
    loaded: LoadedModel
    plan: Plan
    operator: dict[str, Any]
    lie: bool = False
    folder: Path = field(init=False)
    network: Network = field(init=False)
    sets: dict[str, ImageSet] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)

    @property
    def typical(self) -> str:
        """The name of the first image set."""
        return next(iter(self.sets))

    def begin(self, sets: dict[str, ImageSet]) -> None:
        """Let the network see one image of every set, and only then touch the output folder."""
        options, loaded = self.options, self.loaded
        self.network = Network(
            loaded.model,
            mean=options.mean or loaded.mean,
            std=options.std or loaded.std,
            precision=options.precision,
            compiled=options.compile,
            device=choose_device(options.device),
        )
        for name, found in sets.items():
            background = self.operator["background"]
            operator = self.operator | {"background": found.images.background if background is None else background}
            measurement = Measurement(self.network, self.plan, ProtocolOptions(**operator), seed=options.seed or 0)
            self.sets[name] = self._with_fitting_labels(measurement, name, found)
            self.measurements[name] = measurement
            if self.operator["protocol"] != "circular":  # the network sees images of one size
                self.operator["input_size"] = tuple(measurement.settings["input_size"])
        if options.resume and not (options.output / MARK).is_file():
            raise InputError(f"--resume: '{options.output}' holds no measurement to go on with")
        self.folder = claim(options.output or new_folder("measure"), resume=options.resume, overwrite=options.overwrite)
        for name in self.measurements:
            if options.resume and self._state(name).is_file():
                self._restore(name)
        write(self.folder / MARK, json.dumps(environment(), indent=2))

    def _restore(self, name: str) -> None:
        file = self._state(name)
        try:
            self.measurements[name].restore(load_safely(file))
        except AugkitError:
            raise
        except (Unreadable, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(f"'{file}': cannot be gone on with ({reason}); start anew with --overwrite") from None

    def measure(self) -> dict[str, dict[str, Any]]:
        """Reports for JSON, by image set, the probes with the first."""
        views = len(self.plan.layout.columns)
        with Display(sum(map(len, self.sets.values())) * views, quiet=self.options.quiet) as bar:
            reports = {name: self._measure_one(name, bar) for name in self.sets}
            reports[self.typical] |= self._probe(bar)
            return reports

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """An interrupt keeps all whole batches, and says how to go on."""
        try:
            yield
        except KeyboardInterrupt:
            for name, measurement in self.measurements.items():
                if measurement.accumulator.images:
                    self._save(name)
            raise interrupted("measure", self.arguments, self.folder) from None

    def pictures(self, flips: list[dict[str, Any]]) -> list[FlipPicture]:
        """The flips of the first image set, drawn."""
        if not flips:
            return []
        found = self.sets[self.typical]
        protocol = self.measurements[self.typical].protocol
        return flip_pictures(flips, found.pixels([flip["index"] for flip in flips]), protocol, self._names())

    def _names(self) -> list[str] | None:
        """Names of the network's classes, where they are known."""
        outputs, classes = self.measurements[self.typical].accumulator.classes, self.sets[self.typical].classes
        own = self.loaded.classes
        if own is not None and len(own) == outputs:
            return own
        return classes if len(classes) == outputs else None

    def _measure_one(self, name: str, display: Display) -> dict[str, Any]:
        found, measurement = self.sets[name], self.measurements[name]
        for note in found.notes:
            display.line(f"{name}: {note}")
        what = f"measuring {self.options.model} on {name}"
        display.stage(what)
        display.skip(measurement.accumulator.images * measurement.views)
        size = self.options.batch_size or (256 if self.network.device.type == "cuda" else 64)
        measurement.run(found.batches(size), self._saver(name, lambda: display.stage(what)), display.advance)
        self._save(name)
        report = measurement.report().to_dict()
        report["settings"] |= {"batch_size": size, "notes": list(found.notes)}
        return {"data": name, **jsonable(report)}

    def _probe(self, display: Display) -> dict[str, Any]:
        chosen = chosen_probes(self.options, lie=self.lie)
        if not chosen:
            return {}
        found, measurement = self.sets[self.typical], self.measurements[self.typical]
        count = min(len(found), self.options.probe_images)
        images = found.pixels(torch.linspace(0, len(found) - 1, count).long().tolist())
        if "repeated" in measurement.settings["channels"]:
            images = images.expand(-1, 3, -1, -1)
        subject = AnalysisInput(
            self.network.model,
            images,
            measurement.protocol,
            measurement.settings["max_shift"] if self.plan.axis == "shift" else 8.0,
            self.options.mean or self.loaded.mean,
            self.options.std or self.loaded.std,
            self.network.device,
            self.options.seed or 0,
        )
        out: dict[str, Any] = {"probe_images": count}
        for name in chosen:
            display.stage(f"{name}, on {count} images")
            key, value = probe(name, subject)
            out[key] = jsonable(value)
        return out

    def _saver(self, name: str, show: Callable[[], None]) -> Callable[[int], None]:
        last = time.monotonic()

        def on_batch(done: int) -> None:
            nonlocal last
            if time.monotonic() - last > SAVE_EVERY:
                self._save(name)
                show()
                last = time.monotonic()

        return on_batch

    def _save(self, name: str) -> None:
        state = self.measurements[name].state()
        write(self._state(name), lambda path: torch.save(state, path))

    def _state(self, name: str) -> Path:
        number = list(self.measurements).index(name)
        return self.folder / (f"ood{number}-{STATE}" if number else STATE)

    def _with_fitting_labels(self, measurement: Measurement, name: str, found: ImageSet) -> ImageSet:
        outputs = measurement.count_classes(found.pixels([0]))
        channels, notes = measurement.settings["channels"], list(found.notes)
        if not self.sets:
            notes.extend(self.loaded.notes)
        if "repeated" in channels:
            notes.append(f"grey images, {channels} channels for the network")
        if found.images.labels is None:
            return replace(found, notes=(*notes, "no labels, so accuracy is left out"))
        count = len(found.classes)
        if outputs < count:
            raise InputError(f"labels: '{name}' has {count} classes, the model {outputs}; they do not match")
        if outputs > count and self.options.labels is None:
            notes.append(
                f"accuracy is left out, the model has {outputs} classes and the data {count}; --labels FILE maps them"
            )
            return replace(found, images=replace(found.images, labels=None), notes=tuple(notes))
        return replace(found, notes=tuple(notes))
