"""Measures how much any output of a network changes, beyond what it should, when its input is shifted.

For two displacements of an image the output for one is moved by their difference and compared with the output for the
other: ``T f(x)`` with ``f(T x)``. An embedding should not move, a map moves by pixels of its own stride, boxes and
keypoints move by pixels. `measure_invariance` is the measurement of logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from augkit.augment.ragged import Ragged
from augkit.augment.resample import check_images
from augkit.core.errors import InputError
from augkit.invariance.bootstrap import Run
from augkit.invariance.measurement import Pixels, batches
from augkit.invariance.network import Network
from augkit.invariance.outputs.base import Compared, KindResults, OutputMeasure, OutputOptions, OutputSetting
from augkit.invariance.outputs.kinds import KINDS, OutputKind, find_kind
from augkit.invariance.outputs.report import OutputReport, OutputSettings, WorstCase
from augkit.invariance.outputs.upsampling import own_stride
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.protocols import Protocol, ProtocolOptions, Scene
from augkit.invariance.views import Views

WORST = 24  # cases kept for reports
NO_OPTIONS = OutputOptions()


def measure_outputs(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Pixels | Iterable[Any],
    targets: Any = None,
    *,
    output: str | None = None,
    protocol: str = "crop",
    max_shift: float = 8.0,
    quantum: float | None = 1.0,
    kernel: str | None = None,
    pairs: int = 4,
    plan: Plan | None = None,
    seed: int = 0,
    options: OutputOptions | None = None,
    input_size: tuple[int, int] | int | None = None,
    image_size: tuple[int, int] | int | None = None,
    background: float | str = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
    **kind_options: Any,
) -> OutputReport:
    """Measure how much an embedding, a map, an image or another output changes when the input is shifted.

    The network processes each image without a shift, and once for each of ``pairs`` shifts uniform in ``[-max_shift,
    max_shift]`` along each axis; the outputs for both are compared where both see the same content. Shifts are whole
    pixels by default, which are copied, so every difference is the network's own. They are drawn per image from
    ``seed``, so the result does not depend on ``batch_size``. Maps are reduced to a few numbers per image at once.

    Args:
        model: in ``eval()`` during the measurement, then restored.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1]; or an iterable of batches, each a tensor or a pair of
            images and targets. Images of different sizes are an `augkit.Ragged`.
        targets: labels for the numbers that need them, in the form that the kind of output takes: class indices
            ``(N,)`` for embeddings. None for an iterable, whose batches contain their targets.
        output: kind of output, a key of `augkit.invariance.outputs.KINDS`; recognized from the output when None.
        protocol, kernel, input_size, background: see `augkit.invariance.protocols.make_protocol`.
        max_shift: pixels of the network's input.
        quantum: shifts are multiples of this many pixels along each axis; any fraction when None.
        pairs: comparisons per image.
        plan: displacements of every image along the axis ``shift``; replaces ``max_shift``, ``quantum`` and ``pairs``.
        seed: seed of the shifts and of the bootstrap.
        options, kind_options: the fields of `augkit.invariance.outputs.OutputOptions`, as one object or as keywords.
        image_size: see `augkit.measure_invariance`.
        mean, std: per channel, applied to the moved images before the network sees them.
        batch_size: images per forward pass.
        device, precision, compiled: see `augkit.invariance.network.Network`.
        on_batch: called with the number of finished images and the number of all images.

    Returns:
        Every number with its 95 % interval over images, curves, worst cases and settings.

    Raises:
        InputError: a shape, name or number does not fit; the output is of no known kind, not finite, or changes its
            shape.

    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(128, 3))
    >>> report = measure_outputs(net, torch.rand(6, 1, 10, 10), max_shift=1.0)
    >>> report.kind, -1 <= report.cosine.low <= report.cosine.value <= 1
    ('embedding', True)
    """
    if plan is None:
        if not max_shift >= 0:
            raise InputError(f"max_shift: expected pixels of at least 0, got {max_shift:g}")
        if quantum is not None and not quantum > 0:
            raise InputError(f"quantum: expected pixels above 0, or None, got {quantum:g}")
        most = max_shift if quantum is None else quantum * (max_shift // quantum)
        plan = Plan(pairs=Pairs(pairs, -most, most, quantum, anchored=True))
    elif (max_shift, quantum, pairs) != (8.0, 1.0, 4):
        raise InputError("plan: it replaces max_shift, quantum and pairs; leave them out")
    measurement = OutputMeasurement(
        Network(model, mean=mean, std=std, precision=precision, compiled=compiled, device=device),
        plan,
        ProtocolOptions(protocol, kernel, input_size, background),
        output=output,
        seed=seed,
        options=merged_options(options, kind_options),
    )

    def progress(done: int) -> None:
        if on_batch is not None:
            on_batch(done, len(images) if isinstance(images, (Tensor, Ragged)) else done)

    stream = batches(images, targets, batch_size, image_size, check=check_targets)
    measurement.run(stream, progress)
    return measurement.report()


def merged_options(options: OutputOptions | None, given: Mapping[str, Any]) -> OutputOptions:
    """Return ``options`` with the fields in ``given`` replaced.

    Raises:
        InputError: a name is not a field, or both are given.
    """
    if options is not None and given:
        raise InputError("options: expected either one object or keywords, got both")
    known = vars(NO_OPTIONS)
    for name in given:
        if name not in known:
            raise InputError(f"unknown option '{name}' (known: {', '.join(known)})")
    return replace(options or NO_OPTIONS, **given)


def check_targets(targets: Any, count: int) -> None:
    """Raise InputError unless there are as many targets as images."""
    if targets is not None and len(targets) != count:
        raise InputError(f"targets: expected one for each of {count} images, got {len(targets)}")


class OutputMeasurement:
    """A measurement of outputs in progress: `run` it over batches, then `report`.

    Args:
        network: the network that is measured.
        plan: the displacements of every image.
        options_of_protocol: the protocol; the image size is that of the first batch.
        output: kind of output; recognized from the first output when None.
        seed: seed of the displacements and of the bootstrap.
        options: options of the kind of output.

    Raises:
        InputError: the plan rescales, or its seed is negative.
    """

    def __init__(
        self,
        network: Network,
        plan: Plan,
        options_of_protocol: ProtocolOptions,
        *,
        output: str | None = None,
        seed: int = 0,
        options: OutputOptions = NO_OPTIONS,
    ) -> None:
        if seed < 0:
            raise InputError(f"seed: expected an integer of at least 0, got {seed}")
        if plan.axis != "shift" or plan.scales:
            raise InputError("plan: outputs are compared under shifts, got factors; expected axis 'shift'")
        if output is not None:
            find_kind(output, None, torch.empty(0))  # a wrong name is an error before any work
        self.network, self.plan, self.seed, self.options = network, plan, seed, options
        self.images = 0
        self.kind: OutputKind | None = None
        self._output, self._protocol_options = output, options_of_protocol
        self._protocol: Protocol | None = None
        self._measure: OutputMeasure | None = None
        self._channels = ""
        self._worst: list[WorstCase] = []

    @property
    def views(self) -> int:
        """Number of forward passes per image."""
        return len(self._columns())

    @property
    def protocol(self) -> Protocol:
        """The protocol for the size of the images.

        Raises:
            InputError: no batch has been measured yet.
        """
        if self._protocol is None:
            raise InputError("measurement: its protocol is known once the first batch has come")
        return self._protocol

    @property
    def measure(self) -> OutputMeasure:
        """The measurement of the kind of output.

        Raises:
            InputError: no output has been seen yet.
        """
        if self._measure is None:
            raise InputError("measurement: its kind is known once the first batch has come")
        return self._measure

    def begin(self, images: Tensor) -> OutputKind:
        """Run the network on the first unshifted image of a batch and return the kind of its output.

        Raises:
            InputError: as `run` on its first batch, but before any other work.
        """
        self._prepare(images)
        if self.kind is None:
            with self.network.measuring():
                self._find_kind(images)
        assert self.kind is not None
        return self.kind

    def run(self, stream: Iterable[tuple[Tensor, Any]], on_batch: Callable[[int], None] | None = None) -> None:
        """Measure a stream of batches ``(images, targets)``; ``on_batch`` gets the number of finished images.

        Raises:
            InputError: there are no images, they do not fit the network or the protocol, or an output is not of the
                kind, not finite, or of another shape than before.
        """
        with self.network.measuring():
            for images, targets in stream:
                self._prepare(images)
                if self._measure is None:
                    self._find_kind(images)
                with _numbered(self.images):
                    self._add(images, targets)
                self.images += len(images)
                if on_batch is not None:
                    on_batch(self.images)
        if not self.images:
            raise InputError("images: expected at least 1, got none")

    def report(self) -> OutputReport:
        """Return the report on the images measured so far."""
        measure, plan, protocol = self.measure, self.plan, self.protocol
        assert self.kind is not None  # as it is found with the measure
        found: KindResults = measure.results()
        settings = OutputSettings(
            protocol=protocol.name,
            kernel=protocol.kernel,
            max_shift=plan.pairs.reach,
            quantum=plan.pairs.quantum,
            pairs=plan.pairs.count,
            seed=self.seed,
            images=self.images,
            image_size=list(protocol.image_size),
            input_size=list(protocol.input_size),
            background=protocol.background,
            views=self.views,
            channels=self._channels,
            precision=self.network.precision,
            device=self.network.device.type,
            plan=plan,
            of_kind=found.settings,
        )
        statistics: Run = measure.tally.statistics()
        worst = tuple(self._worst)
        return OutputReport(self.kind.name, settings, found.numbers, found.curves, worst, found.notes, statistics)

    def outputs(self, images: Tensor, shifts: Tensor) -> Any:
        """Return what the kind compares for images moved by ``shifts`` ``(B, 2)``, for pictures of the worst cases."""
        with self.network.measuring():
            view = Scene(self.protocol, self.network.load(images)).shift(shifts.to(self.network.device))
            return self._output_of(view)

    def _columns(self) -> list[int]:
        return sorted({column for pair in self.plan.layout.pairs for column in pair})

    def _prepare(self, images: Tensor) -> None:
        check_images(images)
        size = (images.shape[-2], images.shape[-1])
        if self._protocol is None:
            reach = self.plan.pairs.reach
            self._protocol = self._protocol_options.make(size, max_shift=reach, factors=(1.0, 1.0))
            self._channels = self.network.fit_channels(images.shape[1])
        elif size != self._protocol.image_size:
            raise InputError(f"images: expected {self._protocol.image_size} pixels in every batch, got {size}")

    def _find_kind(self, images: Tensor) -> None:
        """Find the kind from the output for one unshifted image."""
        inputs = Scene(self.protocol, self.network.load(images[:1])).unshifted()
        with own_stride(self.network.model, self.protocol.input_size) as stride:
            output = self.network.output(inputs)
        seen = inputs.expand(-1, 3, -1, -1) if "repeated" in self._channels else inputs
        kind = find_kind(self._output, output, seen)
        for name, value in vars(self.options).items():
            if value is not vars(NO_OPTIONS)[name] and name not in kind.options:
                takers = " or ".join(f"'{row.name}'" for row in KINDS.values() if name in row.options)
                raise InputError(f"{name}: it belongs to outputs of kind {takers}, got one of kind '{kind.name}'")
        pairs = self.plan.pairs
        setting = OutputSetting(
            self.protocol,
            pairs.count,
            2 * pairs.reach if not pairs.anchored else pairs.reach,
            pairs.quantum is not None and pairs.quantum % 1 == 0,
            stride[0],
            self.seed,
            self.options,
            self._embed,
        )
        self._measure, self.kind = kind.measure(setting), kind

    def _embed(self, images: Tensor, take: Callable[[Any, int], Tensor]) -> Tensor:
        """Return ``take`` of the outputs of unshifted images, for a gallery."""
        found = []
        for part in images.split(64):
            if tuple(part.shape[-2:]) != self.protocol.image_size:
                got = tuple(part.shape[-2:])
                raise InputError(f"gallery: expected images of {self.protocol.image_size} pixels, got {got}")
            output = self.network.output(Scene(self.protocol, self.network.load(part)).unshifted())
            found.append(take(output, len(part)))
        return torch.cat(found)

    def _add(self, images: Tensor, targets: Any) -> None:
        displacements = self.plan.displacements(self.seed, self.images, len(images))
        places = displacements.to(self.network.device, non_blocking=True)
        views = Views(self.plan, self.protocol, self.network.load(images), places)
        pairs = list(enumerate(self.plan.layout.pairs))
        last = {column: max(max(pair) for _, pair in pairs if column in pair) for column in self._columns()}
        alive: dict[int, Any] = {}
        cases: list[WorstCase | None] = [None] * len(images)
        for column in self._columns():
            alive[column] = self._output_of(views(column))
            for number, (first, second) in pairs:
                if max(first, second) != column:
                    continue
                ends = [places[:, k, :2] for k in (first, second)]
                compared = Compared(self.images, number, ends[0], ends[1], targets, (first, second))
                scores = self.measure.add(alive[first], alive[second], compared).tolist()
                self._keep_worst(cases, scores, displacements[:, [first, second], :2].tolist())
            alive = {k: output for k, output in alive.items() if last[k] > column}
        found = [case for case in cases if case is not None and case.score > 0]
        self._worst = sorted([*self._worst, *found], key=lambda case: case.rank)[:WORST]

    def _output_of(self, view: Tensor) -> Any:
        with self.measure.watching():
            output = self.network.output(view)
        return self.measure.take(output, len(view))

    def _keep_worst(self, cases: list[WorstCase | None], scores: list[float], shifts: list[Any]) -> None:
        for row, (score, (first, second)) in enumerate(zip(scores, shifts, strict=True)):
            before = cases[row]
            if before is None or score > before.score:
                cases[row] = WorstCase(self.images + row, (tuple(first), tuple(second)), score)


@contextmanager
def _numbered(start: int) -> Iterator[None]:
    """Context in which an error about an output says which images it is about."""
    try:
        yield
    except InputError as error:
        text = str(error)
        if text.startswith("model: expected") and "images from" not in text:
            raise InputError(f"{text}, on images from {start} on") from None
        raise
