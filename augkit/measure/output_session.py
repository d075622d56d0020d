"""A measurement of outputs beyond logits on several image sets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from augkit.core.files import MARK, environment, write
from augkit.core.progress import Display
from augkit.invariance import Network, Plan
from augkit.invariance.outputs import KINDS, OutputMeasurement, OutputOptions
from augkit.invariance.outputs.kinds import CLASS_INDICES
from augkit.invariance.outputs.pictures import WorstPicture
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure.analyses import Analyses, AnalysisInput, analyze, chosen_analyses
from augkit.measure.image_sets import ImageSet, atypical_sets
from augkit.measure.output_page import outputs_page
from augkit.measure.output_results import OutputResults, OutputSetResults
from augkit.measure.output_settings import choose_options, choose_shifts
from augkit.measure.settings import MeasureSettings
from augkit.measure.views import Operator
from augkit.train.build import choose_device
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

    def __post_init__(self) -> None:
        settings, typical = self.settings, next(iter(self.sets.values()))
        self.options = choose_options(settings, self.gallery)
        height, width = typical.images.shape[1:]
        self.plan, operator = choose_shifts(settings, self.loaded, (height, width))
        if settings.ood_builtin:
            self.sets = self.sets | atypical_sets(typical, self.plan, settings.seed)
        self.network = Network(
            self.loaded.model,
            mean=settings.mean or self.loaded.mean,
            std=settings.std or self.loaded.std,
            precision=settings.precision,
            compiled=settings.compile,
            device=choose_device(settings.device),
        )
        if settings.memory_format is not None:
            self.network.use_memory_format(settings.memory_format)
        for name, found in self.sets.items():
            self.measurements[name], operator = self._begun(name, found, operator)

    def measure(self, folder: Path | None, command: str) -> OutputResults:
        """Return the results, after writing them with a page to ``folder`` if there is one."""
        views = len({column for pair in self.plan.layout.pairs for column in pair})
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
            write(folder / MARK, json.dumps(environment(), indent=2))
            write(folder / "results.json", json.dumps(results.to_dict(), indent=2, allow_nan=False))
            write(folder / "report.html", outputs_page(results, self.pictures(results)))
        return results

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
        if "repeated" in measurement.channels:
            notes.append(f"gray images, {measurement.channels} channels for the network")
        self.sets[name] = replace(found, notes=tuple(notes))
        if operator.protocol != "circular":
            operator = replace(operator, input_size=measurement.protocol.input_size)
        return measurement, operator

    def _measure_one(self, name: str, display: Display, views: int) -> OutputSetResults:
        found, measurement = self.sets[name], self.measurements[name]
        for note in found.notes:
            display.line(f"{name}: {note}")
        display.stage(f"measuring {self.model} on {name}")
        size = self.settings.images_at_once(self.network.device)
        done = 0

        def advance(images: int) -> None:
            nonlocal done
            display.advance((images - done) * views)
            done = images

        measurement.run(self._stream(found, measurement, size), advance)
        return OutputSetResults(name, measurement.report(), size, found.notes)

    def _analyze(self, display: Display) -> Analyses | None:
        """Return the analyses of a few images of the first set."""
        chosen = chosen_analyses(self.settings)
        if not chosen:
            return None
        found, measurement = next(iter(self.sets.values())), next(iter(self.measurements.values()))
        count = min(len(found), self.settings.probe_images)
        images = found.pixels(torch.linspace(0, len(found) - 1, count).long().tolist())
        assert measurement.kind is not None  # found by `begin`
        given = AnalysisInput(
            self.network.model,
            images.expand(-1, 3, -1, -1) if "repeated" in measurement.channels else images,
            measurement.protocol,
            self.plan.max_shift,
            self.settings.mean or self.loaded.mean,
            self.settings.std or self.loaded.std,
            self.network.device,
            self.settings.seed,
            measurement.kind.name != "embedding",
        )
        return analyze(chosen, given, lambda name: display.stage(f"{name}, on {count} images"))

    def _stream(self, found: ImageSet, measurement: OutputMeasurement, size: int) -> Iterator[tuple[Tensor, Any]]:
        assert measurement.kind is not None  # found by `begin`
        labelled = measurement.kind.targets == CLASS_INDICES
        for pixels, labels in found.batches(size):
            yield pixels, labels if labelled else None
