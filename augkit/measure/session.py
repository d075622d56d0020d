"""A measurement in progress of one network on several image sets, with its state saved in a folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from torch import Tensor

from augkit.core.errors import InputError
from augkit.core.progress import Display, following
from augkit.invariance import Measurement, Network, Plan
from augkit.invariance.gallery import FlipPicture, flip_pictures
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure.analyses import Analyses
from augkit.measure.fast_passes import choose_fast_passes
from augkit.measure.image_sets import ImageSet
from augkit.measure.results import ImageSetResults
from augkit.measure.session_parts import analyses_of, batches_of, network_of, repeated_note
from augkit.measure.settings import MeasureSettings
from augkit.measure.state_files import StateFolder
from augkit.measure.views import Operator
from augkit.train.load_model import LoadedModel


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
    network: Network = field(init=False)
    sets: dict[str, ImageSet] = field(default_factory=dict)
    measurements: dict[str, Measurement] = field(default_factory=dict)
    files: StateFolder = field(init=False)

    @property
    def typical(self) -> str:
        """The name of the first image set."""
        return next(iter(self.sets))

    def begin(self, sets: dict[str, ImageSet]) -> None:
        """Run the network on one image of every set, before any other work and before the output folder is changed.

        Raises:
            InputError: images, labels and network do not fit each other.
        """
        settings = self.settings
        self.network = network_of(settings, self.loaded)
        for name, found in sets.items():
            background = self.operator.background
            own = replace(self.operator, background=found.images.background if background is None else background)
            options = ProtocolOptions(**asdict(own))
            measurement = Measurement(self.network, self.plan, options, seed=settings.seed)
            self.sets[name] = self._with_fitting_labels(measurement, name, found)
            self.measurements[name] = measurement
            if self.operator.protocol != "circular":  # all inputs of the network have one size
                self.operator = replace(self.operator, input_size=measurement.protocol.input_size)
        self.files = StateFolder(None, self.measurements)

    def open_folder(self, folder: Path, *, resume: bool, overwrite: bool) -> None:
        """Save the measurement in ``folder``, and with ``resume`` restore its state; call it after `begin`.

        Raises:
            InputError: the folder exists; with ``resume``, it contains no measurement, or a different one.
        """
        self.files = StateFolder(folder, self.measurements, resume=resume, overwrite=overwrite)
        self.files.begin(self.network, self.settings)

    def measure(self) -> list[ImageSetResults]:
        """Return the results by image set; those of the first include the analyses."""
        self._choose_fast_passes()
        views = len(self.plan.layout.columns)
        with Display(sum(map(len, self.sets.values())) * views, quiet=not self.progress) as bar:
            first, *others = [self._measure_one(name, bar) for name in self.sets]
            return [replace(first, analyses=self._analyze(bar)), *others]

    def _choose_fast_passes(self) -> None:
        """Choose how the passes run. A resumed measurement keeps its own way, so that its bits are those of one run."""
        if self.files.resumed:
            return
        found, size = self.sets[self.typical], self.settings.images_at_once(self.network.device)
        passes = len(self.plan.layout.columns) * batches_of(self.sets, size)

        def first_batch() -> Tensor:
            return self.measurements[self.typical].unshifted(found.pixels(list(range(min(size, len(found))))))

        given = self.settings
        choose_fast_passes(self.network, first_batch, passes, memory_format=given.memory_format, fold=given.fold)

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
        stage, then = f"measuring {self.model} on {name}", following(name, self.sets)
        display.stage(stage, then)
        display.skip(measurement.accumulator.images * measurement.views)
        size = self.settings.images_at_once(self.network.device)
        measurement.run(
            found.batches(size), self.files.saver(name, lambda: display.stage(stage, then)), display.advance
        )
        self.files.save(name)
        return ImageSetResults(name, measurement.report(), size, found.notes)

    def _analyze(self, display: Display) -> Analyses | None:
        found, measurement = self.sets[self.typical], self.measurements[self.typical]
        sources = (self.settings, self.loaded, self.network, self.plan)
        return analyses_of(*sources, found, measurement.protocol, measurement.settings.channels, display)

    def _with_fitting_labels(self, measurement: Measurement, name: str, found: ImageSet) -> ImageSet:
        """Return the images, with labels only if these are classes of the network, and notes about changes."""
        outputs = measurement.count_classes(found.pixels([0]))
        channels, notes = measurement.settings.channels, list(found.notes)
        if not self.sets:
            notes.extend(self.loaded.notes)
        notes.extend(repeated_note(channels))
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
