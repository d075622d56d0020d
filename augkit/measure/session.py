"""A measurement in progress of one network on several image sets, with its state saved in a folder."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from augkit.core.errors import AugkitError, InputError
from augkit.core.files import MARK, claim, environment, write
from augkit.core.progress import Display
from augkit.core.safe_files import Unreadable, load_safely
from augkit.invariance import Measurement, Network, Plan
from augkit.invariance.gallery import FlipPicture, flip_pictures
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure.analyses import Analyses, AnalysisInput, analyze, chosen_analyses
from augkit.measure.image_sets import ImageSet
from augkit.measure.memory_format import choose_memory_format
from augkit.measure.results import ImageSetResults
from augkit.measure.settings import MeasureSettings
from augkit.measure.views import MAX_SHIFT, Operator
from augkit.train.build import choose_device
from augkit.train.load_model import LoadedModel

STATE = "measurement.pt"
SAVE_EVERY = 10.0  # seconds


class MeasureInterrupted(KeyboardInterrupt):
    """A measurement was interrupted; the folder keeps all whole batches, and ``resume`` continues after them."""


@dataclass
class MeasureSession:
    """Measurements of one network on several image sets.

    Args:
        model: source of the network, for messages.
        loaded: the network.
        settings: settings of the measurement.
        plan: the displacements of every image.
        operator: settings of the protocol; the first image set determines those that are None.
        progress: show progress on standard error.
    """

    model: str
    loaded: LoadedModel
    settings: MeasureSettings
    plan: Plan
    operator: Operator
    progress: bool = False
    folder: Path | None = None
    network: Network = field(init=False)
    sets: dict[str, ImageSet] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    _resumed: bool = field(default=False, init=False)

    @property
    def typical(self) -> str:
        """The name of the first image set."""
        return next(iter(self.sets))

    @property
    def mean(self) -> Sequence[float] | None:
        """Per channel, of images in [0, 1]."""
        return self.settings.mean or self.loaded.mean

    @property
    def std(self) -> Sequence[float] | None:
        """Per channel, of images in [0, 1]."""
        return self.settings.std or self.loaded.std

    def begin(self, sets: dict[str, ImageSet]) -> None:
        """Run the network on one image of every set, before any other work and before the output folder is changed.

        Raises:
            InputError: images, labels and network do not fit each other.
        """
        settings = self.settings
        self.network = Network(
            self.loaded.model,
            mean=self.mean,
            std=self.std,
            precision=settings.precision,
            compiled=settings.compile,
            device=choose_device(settings.device),
        )
        for name, found in sets.items():
            background = self.operator.background
            own = replace(self.operator, background=found.images.background if background is None else background)
            options = ProtocolOptions(**asdict(own))
            measurement = Measurement(self.network, self.plan, options, seed=settings.seed)
            self.sets[name] = self._with_fitting_labels(measurement, name, found)
            self.measurements[name] = measurement
            if self.operator.protocol != "circular":  # all inputs of the network have one size
                self.operator = replace(self.operator, input_size=measurement.protocol.input_size)

    def open_folder(self, folder: Path, *, resume: bool, overwrite: bool) -> None:
        """Save the measurement in ``folder``, and with ``resume`` restore its state; call it after `begin`.

        Raises:
            InputError: the folder exists; with ``resume``, it contains no measurement, or a different one.
        """
        if resume and not (folder / MARK).is_file():
            raise InputError(f"--resume: '{folder}' holds no measurement to go on with")
        self.folder = claim(folder, resume=resume, overwrite=overwrite)
        for name in self.measurements:
            if resume and self._state_file(folder, name).is_file():
                self._restore(self._state_file(folder, name), name)
                self._resumed = True
        asked, kept = self.settings.memory_format, self.network.memory_format
        if self._resumed and asked not in (None, kept):
            raise InputError(f"--memory-format: expected {kept}, with which the measurement there began, got {asked}")
        write(folder / MARK, json.dumps(environment(), indent=2))

    def _restore(self, file: Path, name: str) -> None:
        try:
            self.measurements[name].restore(load_safely(file))
        except AugkitError:
            raise
        except (Unreadable, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(f"'{file}': cannot be resumed ({reason}); start anew with --overwrite") from None

    def measure(self) -> list[ImageSetResults]:
        """Return the results by image set; those of the first include the analyses."""
        self._choose_memory_format()
        views = len(self.plan.layout.columns)
        with Display(sum(map(len, self.sets.values())) * views, quiet=not self.progress) as bar:
            first, *others = [self._measure_one(name, bar) for name in self.sets]
            return [replace(first, analyses=self._analyze(bar)), *others]

    def _choose_memory_format(self) -> None:
        """Set the format of the maps. A resumed measurement keeps its own, so that its bits are those of one run."""
        if self._resumed:
            return
        if self.settings.memory_format is not None:
            self.network.use_memory_format(self.settings.memory_format)
            return
        found, size = self.sets[self.typical], self.settings.images_at_once(self.network.device)
        passes = len(self.plan.layout.columns) * sum(math.ceil(len(other) / size) for other in self.sets.values())

        def first_batch() -> Tensor:
            return self.measurements[self.typical].unshifted(found.pixels(list(range(min(size, len(found))))))

        choose_memory_format(self.network, first_batch, passes)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Save all whole batches on an interrupt, and raise MeasureInterrupted if there is a folder."""
        try:
            yield
        except KeyboardInterrupt:
            if self.folder is None:
                raise
            for name, measurement in self.measurements.items():
                if measurement.accumulator.images:
                    self._save(name)
            raise MeasureInterrupted from None

    def pictures(self, results: ImageSetResults) -> list[FlipPicture]:
        """Return pictures of the flips of the first image set."""
        flips = results.report.flips
        if not flips:
            return []
        found = self.sets[self.typical]
        protocol = self.measurements[self.typical].protocol
        return flip_pictures(flips, found.pixels([flip.image for flip in flips]), protocol, self._class_names())

    def _class_names(self) -> list[str] | None:
        """Return the names of the network's classes, or None."""
        outputs, classes = self.measurements[self.typical].accumulator.classes, self.sets[self.typical].classes
        own = self.loaded.classes
        if own is not None and len(own) == outputs:
            return own
        return classes if len(classes) == outputs else None

    def _measure_one(self, name: str, display: Display) -> ImageSetResults:
        found, measurement = self.sets[name], self.measurements[name]
        for note in found.notes:
            display.line(f"{name}: {note}")
        stage = f"measuring {self.model} on {name}"
        display.stage(stage)
        display.skip(measurement.accumulator.images * measurement.views)
        size = self.settings.images_at_once(self.network.device)
        measurement.run(found.batches(size), self._saver(name, lambda: display.stage(stage)), display.advance)
        self._save(name)
        return ImageSetResults(name, measurement.report(), size, found.notes)

    def _analyze(self, display: Display) -> Analyses | None:
        chosen = chosen_analyses(self.settings)
        if not chosen:
            return None
        found, measurement = self.sets[self.typical], self.measurements[self.typical]
        count = min(len(found), self.settings.probe_images)
        images = found.pixels(torch.linspace(0, len(found) - 1, count).long().tolist())
        if "repeated" in measurement.settings.channels:
            images = images.expand(-1, 3, -1, -1)
        given = AnalysisInput(
            self.network.model,
            images,
            measurement.protocol,
            measurement.settings.max_shift if self.plan.axis == "shift" else MAX_SHIFT,
            self.mean,
            self.std,
            self.network.device,
            self.settings.seed,
        )
        kept = self.network.memory_format
        self.network.use_memory_format("contiguous")  # in which the analyses are faster
        try:
            return analyze(chosen, given, lambda name: display.stage(f"{name}, on {count} images"))
        finally:
            self.network.use_memory_format(kept)

    def _saver(self, name: str, on_save: Callable[[], None]) -> Callable[[int], None]:
        """Return a callback for every batch, which saves the state every few seconds."""
        last = time.monotonic()

        def on_batch(done: int) -> None:
            nonlocal last
            if time.monotonic() - last > SAVE_EVERY:
                self._save(name)
                on_save()
                last = time.monotonic()

        return on_batch

    def _save(self, name: str) -> None:
        if self.folder is not None:
            state = self.measurements[name].state()
            write(self._state_file(self.folder, name), lambda path: torch.save(state, path))

    def _state_file(self, folder: Path, name: str) -> Path:
        number = list(self.measurements).index(name)
        return folder / (f"ood{number}-{STATE}" if number else STATE)

    def _with_fitting_labels(self, measurement: Measurement, name: str, found: ImageSet) -> ImageSet:
        """Return the images, with labels only if these are classes of the network, and notes about changes."""
        outputs = measurement.count_classes(found.pixels([0]))
        channels, notes = measurement.settings.channels, list(found.notes)
        if not self.sets:
            notes.extend(self.loaded.notes)
        if "repeated" in channels:
            notes.append(f"gray images, {channels} channels for the network")
        if found.images.labels is None:
            return replace(found, notes=(*notes, "no labels, so accuracy is left out"))
        count = len(found.classes)
        if outputs < count:
            raise InputError(f"labels: '{name}' has {count} classes, the model {outputs}; they do not match")
        if outputs > count and self.settings.labels is None:
            notes.append(
                f"accuracy is left out, the model has {outputs} classes and the data {count}; --labels FILE maps them"
            )
            return replace(found, images=replace(found.images, labels=None), notes=tuple(notes))
        return replace(found, notes=tuple(notes))
