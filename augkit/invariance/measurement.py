"""Measures one network on a stream of images: forward passes, an accumulator, and a report at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from augkit.augment.ragged import Ragged
from augkit.augment.resample import check_images
from augkit.core.errors import InputError, check_number, check_seed, check_whole
from augkit.invariance.accumulator import Accumulator, State, digest, fingerprint
from augkit.invariance.batch_statistics import BatchStatistics, measure_batch
from augkit.invariance.batch_stream import Images, batches, check_labels
from augkit.invariance.network import Network
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.protocols import Protocol, ProtocolOptions, Scene
from augkit.invariance.report import InvarianceReport, MeasurementSettings, estimates
from augkit.invariance.views import NoisyViews, Views

Batch = tuple[Tensor, Tensor | None]
STATE_VERSION = 2  # of `Measurement.state`
OF_SPEED = ("compiled", "device", "memory_format", "folded")  # settings that change numbers by rounding alone


def measure_invariance(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Images,
    labels: Tensor | None = None,
    *,
    protocol: str = "crop",
    max_shift: float = 8.0,
    kernel: str | None = None,
    seed: int = 0,
    pairs: int = 4,
    lengths: Sequence[float] = (),
    plan: Plan | None = None,
    input_size: tuple[int, int] | int | None = None,
    image_size: tuple[int, int] | int | None = None,
    background: float | str = 0.0,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 250,
    device: torch.device | str | None = None,
    precision: str = "float32",
    compiled: bool = False,
    keep_probabilities: bool = False,
    noise: bool = False,
    on_batch: Callable[[int, int], None] | None = None,
) -> InvarianceReport:
    """Measure how much the output of a network varies when its input is shifted or rescaled.

    The network processes each image without a displacement, under ``pairs`` pairs of shifts uniform in ``[-max_shift,
    max_shift]`` along each axis, and once for each of ``lengths`` in a random direction. A ``plan`` replaces these
    views. Displacements are drawn per image from ``seed``, so the result does not depend on ``batch_size``. Only a few
    bytes per image are kept, so the images need not fit in memory.

    Args:
        model: gives logits ``(B, K)``; in ``eval()`` during the measurement, then restored.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1]; or an iterable of batches, each a tensor or a pair of
            images and labels, such as a `DataLoader` that does not shuffle. Images of different sizes are an
            `augkit.Ragged` in place of such a tensor.
        labels: ``(N,)`` class indices, for accuracy; None for unlabeled images, and for an iterable, whose batches
            contain their labels.
        protocol, kernel, input_size, background: see `augkit.invariance.protocols.make_protocol`.
        image_size: side, or (H, W), to which each image of a `Ragged` is fitted, its center, in one resampling; batches
            ``(B, C, H, W)`` keep their size.
        max_shift: pixels of the network's input.
        pairs: pairs of shifts per image.
        lengths: lengths in pixels of the points of the response curve.
        plan: the displacements of every image; replaces ``max_shift``, ``pairs`` and ``lengths``.
        mean, std: per channel, applied to the moved images before the network sees them.
        seed: seed of the displacements and of the bootstrap.
        batch_size: images per forward pass; larger batches of an iterable are split, smaller ones are not joined.
        device, precision, compiled: see `augkit.invariance.network.Network`.
        keep_probabilities: keep the logarithms of the probabilities of all views (``report.log_probabilities``), two
            bytes for each image, view and class.
        noise: add Gaussian noise in place of every displacement, of the norm by which it changes the image; all numbers
            are then those of a sensitivity to noise.
        on_batch: called with the number of finished images and the number of all images. For an iterable without a
            length, both are the number of finished images.

    Returns:
        Every metric with its 95 % interval, the response curves, the worst flips and the settings.

    Raises:
        InputError: a shape, name or number does not fit, or the logits are not ``(B, K)`` or not finite.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 3))
    >>> report = measure_invariance(net, torch.rand(4, 1, 8, 8), max_shift=1.0)
    >>> 0 <= report.shift_information.low <= report.shift_information.value <= 1
    True
    """
    if plan is None:
        check_whole("pairs", pairs, 1, optional=False)
        if not check_number("max_shift", max_shift) >= 0:
            raise InputError(f"max_shift: expected pixels of at least 0, got {max_shift:g}")
        plan = Plan(
            pairs=Pairs(pairs, -max_shift, max_shift), lengths=tuple(check_number("lengths", v) for v in lengths)
        )
    elif (max_shift, pairs, tuple(lengths)) != (8.0, 4, ()):
        raise InputError("plan: it replaces max_shift, pairs and lengths; leave them out")
    network = Network(model, mean=mean, std=std, precision=precision, compiled=compiled, device=device)
    options = ProtocolOptions(protocol, kernel, input_size, background)
    measurement = Measurement(network, plan, options, seed=seed, keep_probabilities=keep_probabilities, noise=noise)

    def progress(done: int) -> None:
        if on_batch is not None:
            on_batch(done, len(images) if isinstance(images, (Tensor, Ragged)) else done)

    measurement.run(batches(images, labels, batch_size, image_size), progress)
    return measurement.report()


class _PendingBatch(NamedTuple):
    """A batch that was sent to the device and is not yet counted; ``start`` is the number of its first image."""

    start: int
    statistics: BatchStatistics
    displacements: Tensor
    labels: Tensor | None
    digests: Tensor


class Measurement:
    """A measurement in progress: `run` it over batches, save its `state` at any time, `report` at the end.

    Args:
        network: the network that is measured.
        plan: the displacements of every image.
        options: the protocol; the image size is that of the first batch.
        seed: seed of the displacements and of the bootstrap.
        keep_probabilities, noise: see `measure_invariance`.
    """

    def __init__(
        self,
        network: Network,
        plan: Plan,
        options: ProtocolOptions,
        *,
        seed: int = 0,
        keep_probabilities: bool = False,
        noise: bool = False,
    ) -> None:
        check_seed(seed)
        self.network, self.plan, self.seed = network, plan, seed
        self.accumulator = Accumulator(plan.layout)
        self._options, self._keep, self._noise = options, keep_probabilities, noise
        self._protocol: Protocol | None = None
        self._channels = ""

    @property
    def images(self) -> int:
        """Number of measured images, of whole batches."""
        return self.accumulator.images

    @property
    def views(self) -> int:
        """Number of forward passes per image."""
        return len(self.plan.layout.columns)

    def count_classes(self, image: Tensor) -> int:
        """Run the network on one unshifted image ``(1, C, H, W)`` and return the number of its logits.

        Raises:
            InputError: as `run` on its first batch, but before any other work.
        """
        with self.network.measuring():
            logits = self.network(self.unshifted(image))
        if not bool(torch.isfinite(logits).all()):
            raise InputError("model: expected finite logits, got NaN or infinity on the first image")
        return logits.shape[1]

    def unshifted(self, images: Tensor) -> Tensor:
        """Return the unshifted inputs ``(B, C, h, w)`` of the network in [0, 1], on its device, for images."""
        self._prepare(images, None)
        return Scene(self.protocol, self.network.load(images)).unshifted()

    def run(
        self,
        stream: Iterable[Batch],
        on_batch: Callable[[int], None] | None = None,
        on_view: Callable[[int], None] | None = None,
    ) -> None:
        """Measure a stream of batches. Batches in a restored state are checked to be the same, then skipped.

        A batch is counted after the next one has been sent, so that a GPU need not wait. An interrupt leaves only whole
        batches.

        Args:
            stream: images ``(B, C, H, W)`` with labels ``(B,)`` or None, see `batches`.
            on_batch: called after each batch with the number of finished images.
            on_view: called after each forward pass with the number of images in it.

        Raises:
            InputError: there are no images, they do not fit the network or the protocol, or they are not those of the
                restored state.
        """
        waiting, sent = list[_PendingBatch](), 0
        with self.network.measuring():
            try:
                for images, labels in stream:
                    self._prepare(images, labels)
                    if sent < self.accumulator.images:
                        self._check_seen(images, sent)
                    else:
                        displacements = self.plan.displacements(self.seed, sent, len(images))
                        statistics = self._measure(images, displacements, sent, on_view)
                        waiting.append(_PendingBatch(sent, statistics, displacements, labels, digest(images)))
                    sent += len(images)
                    if len(waiting) > 1:
                        self._fetch(waiting, on_batch)
                if waiting:
                    self._fetch(waiting, on_batch)
            except KeyboardInterrupt:
                while waiting:
                    self._fetch(waiting, None)
                raise
        if sent < self.accumulator.images:
            raise InputError(f"images: {self.accumulator.images} were measured before, and {sent} came")
        if sent == 0:
            raise InputError("images: expected at least 1, got none")

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
    def settings(self) -> MeasurementSettings:
        """Settings that reproduce the measurement.

        Raises:
            InputError: no batch has been measured yet.
        """
        protocol, plan = self._protocol, self.plan
        if protocol is None:
            raise InputError("measurement: its settings are known once the first batch has come")
        return MeasurementSettings(
            protocol=protocol.name,
            kernel=protocol.kernel,
            axis=plan.axis,
            max_shift=plan.max_shift if plan.axis == "scale" else plan.pairs.reach,
            pairs=plan.pairs.count,
            seed=self.seed,
            images=self.accumulator.images,
            image_size=list(protocol.image_size),
            input_size=list(protocol.input_size),
            background=protocol.background,
            lengths=list(plan.lengths),
            plan=plan,
            views=self.views,
            views_of_pairs=len({column for pair in plan.layout.pairs for column in pair}),
            channels=self._channels,
            precision=self.network.precision,
            compiled=self.network.compiled,
            device=self.network.device.type,
            classes=self.accumulator.classes,
            memory_format=self.network.memory_format,
            folded=self.network.folds,
            noise=self._noise,
        )

    def report(self) -> InvarianceReport:
        """Return the report on the images measured so far."""
        statistics, curves, settings = self.accumulator.statistics(), self.accumulator.curves(), self.settings
        identity = [(name, value) for name, value in settings.to_dict().items() if name not in OF_SPEED]
        return InvarianceReport(
            settings,
            statistics,
            curves.pop("length", {}),
            fingerprint(identity, self.accumulator.merged("digests")),
            estimates(statistics),
            curves,
            [replace(flip, axis=self.plan.axis) for flip in self.accumulator.flips],
            float(statistics["logit_max"].max()),
            self.accumulator.log_probabilities,
        )

    def state(self) -> State:
        """Return the state after the last whole batch, for `restore`."""
        whole = {"version": STATE_VERSION, "identity": self._identity(), **self.network.speed()}
        return whole | {"tally": self.accumulator.state()}

    def restore(self, state: State) -> None:
        """Continue from a `state` of the same measurement. On the CPU the result is bitwise that of one run.

        Raises:
            InputError: the state has another network, plan, protocol, precision or seed.
        """
        if state.get("version") != STATE_VERSION or state.get("identity") != self._identity():
            raise InputError(
                "the measurement there is of another network, plan, protocol, precision or seed; start anew"
            )
        self.network.restore_speed(state)
        self.accumulator.restore(state["tally"])

    def _fetch(self, waiting: list[_PendingBatch], on_batch: Callable[[int], None] | None) -> None:
        """Count the first waiting batch; an interrupt here neither loses it nor counts it twice."""
        if waiting[0].start == self.accumulator.images:
            self.accumulator.add(*waiting[0][1:])
        waiting.pop(0)
        if on_batch is not None:
            on_batch(self.accumulator.images)

    def _identity(self) -> str:
        whole = (self.plan, sorted(vars(self._options).items()), self.seed, self.network.precision, self.network.digest)
        return repr((*whole, self._keep, *([True] if self._noise else [])))

    def _prepare(self, images: Tensor, labels: Tensor | None) -> None:
        check_images(images)
        check_labels(labels, len(images))
        size = (images.shape[-2], images.shape[-1])
        if self._protocol is None:
            self._protocol = self._options.make(size, max_shift=self.plan.max_shift, factors=self.plan.factors)
            self._channels = self.network.fit_channels(images.shape[1])
        elif size != self._protocol.image_size:
            raise InputError(f"images: expected {self._protocol.image_size} pixels in every batch, got {size}")

    def _measure(
        self, images: Tensor, displacements: Tensor, start: int, on_view: Callable[[int], None] | None
    ) -> BatchStatistics:
        places = displacements.to(self.network.device, non_blocking=True)
        displaced = Views(self.plan, self.protocol, self.network.load(images), places)
        views = NoisyViews(displaced, self.seed, start) if self._noise else displaced

        def logits_of(k: int) -> Tensor:
            view = views(k)
            logits = self.network(view)
            if on_view is not None:
                on_view(len(view))
            return logits

        return measure_batch(
            self.plan.layout, logits_of, keep=self._keep, pair_statistics=self.accumulator.pair_statistics
        )

    def _check_seen(self, images: Tensor, start: int) -> None:
        stop = start + len(images)
        if stop > self.accumulator.images:
            raise InputError("images: the batches have other sizes than those measured before; use the same batch size")
        if not torch.equal(digest(images), self.accumulator.merged("digests")[start:stop]):
            raise InputError(f"images: those from {start} on are not the ones measured before; start anew")
