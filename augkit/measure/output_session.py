"""A measurement of outputs beyond logits on several image sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from augkit.core.errors import InputError
from augkit.core.files import environment, write
from augkit.core.progress import Display, following
from augkit.invariance import Network, Plan
from augkit.invariance.outputs import KINDS, OutputMeasurement, OutputOptions
from augkit.invariance.outputs.kinds import CLASS_INDICES
from augkit.invariance.outputs.pictures import WorstPicture
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure.analyses import Analyses
from augkit.measure.fast_passes import choose_fast_passes
from augkit.measure.image_sets import ImageSet, atypical_sets
from augkit.measure.output_page import outputs_page
from augkit.measure.output_results import OutputResults, OutputSetResults
from augkit.measure.output_settings import choose_options, choose_pairs
from augkit.measure.session_parts import analyses_of, batches_of, network_of, repeated_note
from augkit.measure.settings import MeasureSettings
from augkit.measure.state_files import StateFolder
from augkit.measure.views import Operator
from augkit.train.load_model import LoadedModel

DRAWN = 12  # worst cases on the page


@dataclass
class OutputSession:
    """Measurements of the outputs of one network on several image sets.

    Args:
        model: source of the network, for messages.
        loaded: the network.
        settings: settings of the measurement.
        sets: the image sets, the dataset's own first.
        progress: show progress on standard error.
        gallery: images among whose embeddings neighbors are looked for; the measured ones when None.

    Raises:
        InputError: images and network do not fit each other, or the output is of another kind.
    """

    model: str
    loaded: LoadedModel
    settings: MeasureSettings
    sets: dict[str, ImageSet]
    progress: bool = False
    gallery: ImageSet | None = None
    network: Network = field(init=False)
    plan: Plan = field(init=False)
    options: OutputOptions = field(init=False)
    measurements: dict[str, OutputMeasurement] = field(default_factory=dict)
    files: StateFolder = field(init=False)

    def __post_init__(self) -> None:
        settings, typical = self.settings, next(iter(self.sets.values()))
        self.options = choose_options(settings, self.gallery)
        height, width = typical.images.shape[1:]
        self.plan, operator = choose_pairs(settings, self.loaded, (height, width))
        if settings.shift is None and self.plan.axis == "shift" and not self.plan.max_shift:
            quantum = self.plan.pairs.quantum or 0.0
            raise InputError(
                f"--max-shift: expected at least the quantum of {quantum:g} pixels, got less; --quantum 0 allows any"
                " fraction"
            )
        if settings.ood_builtin:
            self.sets = self.sets | atypical_sets(typical, self.plan, settings.seed)
        self.network = network_of(settings, self.loaded)
        for name, found in self.sets.items():
            self.measurements[name], operator = self._begun(name, found, operator)

        self.files = StateFolder(None, self.measurements)

    def open_folder(self, folder: Path, *, resume: bool, overwrite: bool) -> None:
        """Save the measurement in ``folder``, and with ``resume`` restore its state.

        Raises:
            InputError: the folder exists; with ``resume``, it contains no measurement, or a different one.
        """
        self.files = StateFolder(folder, self.measurements, resume=resume, overwrite=overwrite)
        self.files.begin(self.network, self.settings)

    def measure(self, command: str) -> OutputResults:
        """Return the results, after writing them with a page to the folder if there is one.

        Raises:
            MeasureInterrupted: Ctrl-C was pressed; all whole batches are kept in the folder.
        """
        with self.files.interruptible():
            return self._measure(command, self.files.folder)

    def _measure(self, command: str, folder: Path | None) -> OutputResults:
        views = len({column for pair in self.plan.layout.pairs for column in pair})
        self._choose_fast_passes(views)
        with Display(sum(map(len, self.sets.values())) * views, quiet=not self.progress) as display:
            found = {name: self._measure_one(name, display, views) for name in self.sets}
            first = next(iter(found))
            found[first] = replace(found[first], analyses=self._analyze(display))
        results = OutputResults(
            model=self.model,
            split=self.settings.split,
            sets=found,
            weights_sha256=self.network.digest,
            folder=folder,
            command=command,
            environment=environment(),
        )
        if folder is not None:
            write(folder / "results.json", json.dumps(results.to_dict(), indent=2, allow_nan=False))
            write(folder / "report.html", outputs_page(results, self.pictures(results)))
        return results

    def _choose_fast_passes(self, views: int) -> None:
        """Choose how the passes run. A resumed measurement keeps its own way, so that its bits are those of one run."""
        if self.files.resumed:
            return
        settings, (typical, found) = self.settings, next(iter(self.sets.items()))
        size = settings.images_at_once(self.network.device)

        def first_batch() -> Tensor:
            return self.measurements[typical].unshifted(found.pixels(list(range(min(size, len(found))))))

        choose_fast_passes(
            self.network,
            first_batch,
            views * batches_of(self.sets, size),
            self.network.output,
            memory_format=settings.memory_format,
            fold=settings.fold,
        )

    def pictures(self, results: OutputResults) -> list[WorstPicture]:
        """Return pictures of the worst cases of the first image set."""
        name, found = next(iter(self.sets.items()))
        return self.measurements[name].pictures(results.typical.report.worst[:DRAWN], found.pixels)

    def _begun(self, name: str, found: ImageSet, operator: Operator) -> tuple[OutputMeasurement, Operator]:
        """Run the network on one image, before any other work; all its inputs have the size of the first."""
        background = operator.background
        own = replace(operator, background=found.images.background if background is None else background)
        kind = self.settings.output_kind
        measurement = OutputMeasurement(
            self.network,
            self.plan,
            ProtocolOptions(**asdict(own)),
            output=kind if kind in KINDS else None,
            seed=self.settings.seed,
            options=self.options,
        )
        measurement.begin(found.pixels([0]))
        notes = list(found.notes) if self.measurements else [*self.loaded.notes, *found.notes]
        notes.extend(repeated_note(measurement.channels))
        self.sets[name] = replace(found, notes=tuple(notes))
        if operator.protocol != "circular":
            operator = replace(operator, input_size=measurement.protocol.input_size)
        return measurement, operator

    def _measure_one(self, name: str, display: Display, views: int) -> OutputSetResults:
        found, measurement = self.sets[name], self.measurements[name]
        for note in found.notes:
            display.line(f"{name}: {note}")
        stage, then = f"measuring {self.model} on {name}", following(name, self.sets)
        display.stage(stage, then)
        size = self.settings.images_at_once(self.network.device)
        done = measurement.images
        display.skip(done * views)
        save = self.files.saver(name, lambda: display.stage(stage, then))

        def advance(images: int) -> None:
            nonlocal done
            display.advance((images - done) * views)
            done = images
            save(done)

        measurement.run(self._stream(found, measurement, size), advance)
        self.files.save(name)
        return OutputSetResults(name, measurement.report(), size, found.notes)

    def _analyze(self, display: Display) -> Analyses | None:
        found, measurement = next(iter(self.sets.values())), next(iter(self.measurements.values()))
        assert measurement.kind is not None  # found by `begin`
        sources, kind = (self.settings, self.loaded, self.network, self.plan), measurement.kind.name
        return analyses_of(*sources, found, measurement.protocol, measurement.channels, display, kind=kind)

    def _stream(self, found: ImageSet, measurement: OutputMeasurement, size: int) -> Iterator[tuple[Tensor, Any]]:
        assert measurement.kind is not None  # found by `begin`
        labeled = measurement.kind.targets == CLASS_INDICES
        for pixels, labels in found.batches(size):
            yield pixels, labels if labeled else None
