"""A measurement of outputs in progress: forward passes, comparisons of pairs of views, the worst cases, a report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from augkit.augment.resample import check_images
from augkit.core.errors import InputError, check_seed
from augkit.invariance.accumulator import State, digest
from augkit.invariance.batch_stream import class_indices
from augkit.invariance.bootstrap import Run
from augkit.invariance.gallery import picture_of, place_of
from augkit.invariance.network import Network
from augkit.invariance.outputs.base import Compared, KindResults, OutputMeasure, OutputOptions, OutputSetting
from augkit.invariance.outputs.kinds import CLASS_INDICES, KINDS, OutputKind, find_kind
from augkit.invariance.outputs.pictures import Fetch, WorstPicture, small
from augkit.invariance.outputs.report import OutputReport, OutputSettings, WorstCase
from augkit.invariance.outputs.upsampling import own_stride
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.protocols import Protocol, ProtocolOptions, Scene
from augkit.invariance.views import Views

WORST = 24  # cases kept for reports
NO_OPTIONS = OutputOptions()
STATE_VERSION = 2  # of `OutputMeasurement.state`


class _Done(NamedTuple):
    """Whole batches: number of their images, their worst cases, and a `digest` ``(B,)`` of each batch."""

    images: int = 0
    worst: tuple[WorstCase, ...] = ()
    digests: tuple[Tensor, ...] = ()


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
        InputError: the plan has a curve of factors, or the seed is negative.
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
        check_seed(seed)
        if plan.scales:
            raise InputError("plan: outputs are compared in pairs, got scales of a curve; leave them out")
        if output is not None:
            find_kind(output, None, torch.empty(0))  # a wrong name is an error before any work
        self.network, self.plan, self.seed, self.options = network, plan, seed, options
        self.kind: OutputKind | None = None
        self._output, self._protocol_options = output, options_of_protocol
        self._protocol: Protocol | None = None
        self._measure: OutputMeasure | None = None
        self.channels = ""
        self._done = _Done()
        self._restored = 0  # images that the next run must bring again, not measured anew

    @property
    def images(self) -> int:
        """Number of measured images, of whole batches."""
        return self._done.images

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
            with self.network.measuring(), _numbered(self.images):
                output = self._find_kind(images)
                assert self._measure is not None
                self._measure.take(output, 1)
        assert self.kind is not None
        return self.kind

    def unshifted(self, images: Tensor) -> Tensor:
        """Return the unshifted inputs ``(B, C, h, w)`` of the network in [0, 1], on its device, for images."""
        self._prepare(images)
        return Scene(self.protocol, self.network.load(images)).unshifted()

    def run(self, stream: Iterable[tuple[Tensor, Any]], on_batch: Callable[[int], None] | None = None) -> None:
        """Measure a stream of batches ``(images, targets)``; ``on_batch`` gets the number of finished images.

        After `restore` the batches of the restored state are checked to be the same, then skipped.

        Raises:
            InputError: there are no images, they do not fit the network or the protocol, they are not those of the
                restored state, or an output is not of the kind, not finite, or of another shape than before.
        """
        seen, restored = 0, self._restored
        with self.network.measuring():
            for images, targets in stream:
                self._prepare(images)
                if self._measure is None:
                    self._find_kind(images)
                if seen < restored:
                    self._check_seen(images, seen)
                    seen += len(images)
                    continue
                with _numbered(self.images):
                    self._add(images, targets)
                if on_batch is not None:
                    on_batch(self.images)
        if not self.images:
            raise InputError("images: expected at least 1, got none")
        if seen < restored:
            raise InputError(f"images: {restored} were measured before, and {seen} came")
        self._restored = 0

    def state(self) -> State:
        """Return the state after the last whole batch, for `restore`.

        Raises:
            InputError: no image has been measured yet.
        """
        images, worst, digests = self._done
        if self.kind is None or not images:
            raise InputError("measurement: it has a state once the first batch has been measured")
        whole = {"version": STATE_VERSION, "identity": self._identity(), **self.network.speed()}
        cases = [(case.image, case.shifts, case.score, case.factors) for case in worst]
        own = {"kind": self.kind.name, "measure": self.measure.state(images)}
        return whole | own | {"images": images, "worst": cases, "digests": torch.cat(digests)}

    def restore(self, state: State) -> None:
        """Continue from a `state` of the same measurement, after `begin`. On the CPU the result is that of one run.

        Raises:
            InputError: the state has another network, plan, protocol, precision, seed, output or options.
        """
        kind = None if self.kind is None else self.kind.name
        found = (state.get("version"), state.get("kind"), state.get("identity"))
        if found != (STATE_VERSION, kind, self._identity()):
            raise InputError(
                "the measurement there is of another network, plan, protocol, precision, seed, kind of output or its"
                " options; start anew"
            )
        self.network.restore_speed(state)
        self.measure.restore(state["measure"], state["images"])
        cases = tuple(WorstCase(*case) for case in state["worst"])
        self._done, self._restored = _Done(state["images"], cases, (state["digests"],)), state["images"]

    def report(self) -> OutputReport:
        """Return the report on the images measured so far."""
        measure, plan, protocol = self.measure, self.plan, self.protocol
        assert self.kind is not None  # as it is found with the measure
        found: KindResults = measure.results()
        settings = OutputSettings(
            protocol=protocol.name,
            kernel=protocol.kernel,
            axis=plan.axis,
            max_shift=plan.max_shift,
            max_scale=plan.factors[1],
            quantum=plan.pairs.quantum,
            pairs=plan.pairs.count,
            seed=self.seed,
            images=self.images,
            image_size=list(protocol.image_size),
            input_size=list(protocol.input_size),
            background=protocol.background,
            views=self.views,
            channels=self.channels,
            precision=self.network.precision,
            device=self.network.device.type,
            memory_format=self.network.memory_format,
            folded=self.network.folds,
            plan=plan,
            of_kind=found.settings,
        )
        statistics: Run = measure.tally.statistics()
        parts = (found.numbers, found.curves, self._done.worst, found.notes, statistics)
        return OutputReport(self.kind.name, settings, *parts)

    def pictures(self, cases: Sequence[WorstCase], fetch: Fetch) -> list[WorstPicture]:
        """Return the worst cases with outputs drawn on both views; ``fetch`` returns images by their numbers."""
        return [self._picture(case, fetch) for case in cases]

    def _picture(self, case: WorstCase, fetch: Fetch) -> WorstPicture:
        device, image = self.network.device, self.network.load(fetch([case.image]))
        shifts = [torch.tensor([shift], device=device) for shift in case.shifts]
        factors = [torch.tensor([factor], device=device) for factor in case.factors]
        measure, scene = self.measure, Scene(self.protocol, image)
        views = [_view(scene, *place) for place in zip(shifts, factors, strict=True)]
        with self.network.measuring():
            outputs = [self._output_of(view) for view in views]
        rescaled = (factors[0], factors[1]) if self.plan.axis == "scale" else None
        compared = Compared(case.image, 0, shifts[0], shifts[1], factors=rescaled)
        drawn = []
        for place, factor, view, output in zip(case.shifts, case.factors, views, outputs, strict=True):
            drawn.append((measure.draw(view[0], output, 0), place_of(place, factor)))
            near = measure.neighbors_of(output, 0, case.image)
            for number, pixels in zip(near, fetch(near) if near else (), strict=True):
                shown = Scene(self.protocol, self.network.load(pixels[None])).unshifted()[0]
                drawn.append((shown, f"its neighbor, image {number:,}"))
        drawn += measure.draw_difference(views[1][0], outputs[0], outputs[1], compared, 0)
        pictures = [(picture_of(small(image)), caption) for image, caption in drawn]
        return WorstPicture(f"image {case.image:,}: {measure.score_name} {case.score:.3g}", pictures)

    def _columns(self) -> list[int]:
        return sorted({column for pair in self.plan.layout.pairs for column in pair})

    def _prepare(self, images: Tensor) -> None:
        check_images(images)
        size = (images.shape[-2], images.shape[-1])
        if self._protocol is None:
            most, factors = self.plan.max_shift, self.plan.factors
            self._protocol = self._protocol_options.make(size, max_shift=most, factors=factors)
            self.channels = self.network.fit_channels(images.shape[1])
        elif size != self._protocol.image_size:
            raise InputError(f"images: expected {self._protocol.image_size} pixels in every batch, got {size}")

    def _find_kind(self, images: Tensor) -> Any:
        """Find the kind from the output for one unshifted image, and return that output."""
        inputs = Scene(self.protocol, self.network.load(images[:1])).unshifted()
        with own_stride(self.network.model, self.protocol.input_size) as stride:
            output = self.network.output(inputs, hooked=True)
        seen = inputs.expand(-1, 3, -1, -1) if "repeated" in self.channels else inputs
        kind = find_kind(self._output, output, seen)
        for name, value in vars(self.options).items():
            if value is not vars(NO_OPTIONS)[name] and name not in kind.options:
                takers = " or ".join(f"'{row.name}'" for row in KINDS.values() if name in row.options)
                raise InputError(f"{name}: it belongs to outputs of kind {takers}, got one of kind '{kind.name}'")
        pairs = self.plan.pairs
        setting = OutputSetting(
            self.protocol,
            pairs.count,
            most=pairs.apart if self.plan.axis == "shift" else 0.0,
            whole=self.plan.axis == "shift" and _whole(pairs),
            stride=stride[0],
            seed=self.seed,
            factors=_factors(pairs) if self.plan.axis == "scale" else (1.0, 1.0),
            options=self.options,
            embed=self._embed,
        )
        self._measure, self.kind = kind.measure(setting), kind
        return output

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
        if self.kind is not None and self.kind.targets == CLASS_INDICES:
            targets = class_indices(targets, len(images))
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
                a, b = (places[:, k] for k in (first, second))
                factors = (a[:, 2], b[:, 2]) if self.plan.axis == "scale" else None
                compared = Compared(self.images, number, a[:, :2], b[:, :2], targets, (first, second), factors)
                scores = self.measure.add(alive[first], alive[second], compared).tolist()
                self._keep_worst(cases, scores, displacements[:, [first, second]].tolist())
            alive = {k: output for k, output in alive.items() if last[k] > column}
        found = [case for case in cases if case is not None and case.score > 0]
        worst = tuple(sorted([*self._done.worst, *found], key=lambda case: case.rank)[:WORST])
        # A single assignment, so that an interrupt leaves only whole batches.
        self._done = _Done(self.images + len(images), worst, (*self._done.digests, digest(images)))

    def _check_seen(self, images: Tensor, start: int) -> None:
        stop = start + len(images)
        if stop > self._restored:
            raise InputError("images: the batches have other sizes than those measured before; use the same batch size")
        if not torch.equal(digest(images), torch.cat(self._done.digests)[start:stop]):
            raise InputError(f"images: those from {start} on are not the ones measured before; start anew")

    def _identity(self) -> str:
        options = {
            name: digest(value[None]).tolist() if isinstance(value, Tensor) else value
            for name, value in vars(self.options).items()
        }
        protocol = sorted(vars(self._protocol_options).items())
        return repr((self.plan, protocol, self.seed, self.network.precision, self.network.digest, options))

    def _output_of(self, view: Tensor) -> Any:
        with self.measure.watching():
            output = self.network.output(view)
        return self.measure.take(output, len(view))

    def _keep_worst(self, cases: list[WorstCase | None], scores: list[float], places: list[Any]) -> None:
        for row, (score, (first, second)) in enumerate(zip(scores, places, strict=True)):
            before = cases[row]
            if before is None or score > before.score:
                shifts, factors = ((*first[:2],), (*second[:2],)), (first[2], second[2])
                cases[row] = WorstCase(self.images + row, shifts, score, factors)


def _view(scene: Scene, shift: Tensor, factor: Tensor) -> Tensor:
    if bool((factor != 1).any()):
        return scene.rescale(factor, float(factor.min()))
    return scene.shift(shift) if bool(shift.any()) else scene.unshifted()


def _whole(pairs: Pairs) -> bool:
    """Whether the moves between two views of a pair are whole pixels."""
    steps = pairs.step if pairs.step is not None else (pairs.quantum,)
    return all(step is not None and step % 1 == 0 for step in steps)


def _factors(pairs: Pairs) -> tuple[float, float]:
    """The smallest and the largest factor between two views of a pair."""
    first = (1.0, 1.0) if pairs.anchored else (pairs.low, pairs.high)
    return pairs.low / first[1], pairs.high / first[0]


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
