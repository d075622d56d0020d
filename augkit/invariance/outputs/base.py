"""What the kinds of output share: the setting, one comparison, and per-image statistics that are gathered in a stream.

A kind of output is a subclass of `OutputMeasure` and a row in `augkit.invariance.outputs.kinds`. It says how an output
is taken from what the network returns, what two views are compared by, and which numbers come out of that. Each
comparison is reduced to a few numbers per image at once, so the memory does not grow with the size of the outputs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from augkit.architectures.outputs import REAL, logits_in
from augkit.augment import geometry
from augkit.core.errors import InputError
from augkit.core.precision import on_cpu
from augkit.core.records import Record
from augkit.invariance.accumulator import State
from augkit.invariance.bootstrap import Estimate, Run
from augkit.invariance.metrics import Metric
from augkit.invariance.outputs.numbers import estimates
from augkit.invariance.protocols import Protocol

# Keys or attributes under which networks return tensors, the first one first.
NAMES = ("logits", "out", "image_embeds", "pooler_output", "embedding", "sample", "reconstruction", "predicted_depth")


@dataclass(frozen=True)
class OutputOptions:
    """Options of single kinds; each kind names those that it takes.

    Attributes:
        map_kernel: kernel that moves maps; chosen from their size when None.
        border: pixels of the input that are left out at each border of a map, such as the reach of a zero padding.
        scores: whether the channels of a map are class scores.
        gallery: images ``(G, C, H, W)`` or embeddings ``(G, D)`` among which neighbors are looked for; the images
            themselves when None.
        gallery_labels: ``(G,)`` class indices.
        class_embeddings: ``(K, D)``, one for each class.
        neighbors: number of nearest neighbors; 5 when None.
        box_score: boxes of at least this score are compared; 0.3 when None.
        box_iou: the least IoU of boxes that count as one, in (0, 1]; 0.5 when None.
        box_border: boxes nearer to an edge of a view than this do not count, as the edge may cut them; pixels, 1 when
            None.
        keypoint_score: keypoints that have a score are compared if it is at least this; 0.3 when None.
    """

    map_kernel: str | None = None
    border: float = 0.0
    scores: bool = True
    gallery: Tensor | None = None
    gallery_labels: Tensor | None = None
    class_embeddings: Tensor | None = None
    neighbors: int | None = None
    box_score: float | None = None
    box_iou: float | None = None
    box_border: float | None = None
    keypoint_score: float | None = None


@dataclass(frozen=True)
class OutputSetting:
    """What a kind knows of its measurement.

    Attributes:
        protocol: how images are displaced, with the sizes of images and input.
        pairs: comparisons per image.
        most: the largest move between two compared views along an axis, in pixels of the input.
        whole: whether all moves are whole pixels of the input.
        factors: the smallest and the largest factor between two compared views; both 1 for shifts.
        stride: the network's own stride, in pixels of the input; see `augkit.invariance.outputs.upsampling`.
        seed: seed of the bootstrap.
        options: options of single kinds.
        embed: for a gallery: maps images ``(G, C, *image_size)`` and a ``take(output, count)`` to what ``take`` returns
            for their unshifted views.
    """

    protocol: Protocol
    pairs: int
    most: float
    whole: bool
    stride: int
    seed: int = 0
    factors: tuple[float, float] = (1.0, 1.0)
    options: OutputOptions = OutputOptions()
    embed: Callable[[Tensor, Callable[[Any, int], Tensor]], Tensor] | None = None

    @property
    def circular(self) -> bool:
        """Whether images are tori."""
        return self.protocol.name == "circular"


class Compared(NamedTuple):
    """One pair of views of a batch of images.

    Attributes:
        start: number of the first image of the batch.
        pair: number of the pair.
        first, second: ``(B, 2)`` (x, y) pixels of the input, the displacements of the two views.
        targets: labels of the batch in the form that the kind takes; None without labels.
        views: numbers of the two views among those of an image; equal for the same view in several pairs.
        factors: ``(B,)`` each, by which the two views are rescaled about the center of the input; None for shifts.
    """

    start: int
    pair: int
    first: Tensor
    second: Tensor
    targets: Any = None
    views: tuple[int, int] = (0, 1)
    factors: tuple[Tensor, Tensor] | None = None

    @property
    def moves(self) -> Tensor:
        """How far the content of the second view lies from that of the first, ``(B, 2)`` (x, y) pixels."""
        return self.second - self.first

    @property
    def factor(self) -> Tensor | None:
        """By how much the second view is larger than the first, ``(B,)``; None for shifts."""
        return None if self.factors is None else self.factors[1] / self.factors[0]

    def matrix(self, size: tuple[int, int]) -> Tensor:
        """Return ``(B, 3, 3)`` from pixel coordinates of the first view to those of the second, of ``size`` (H, W)."""
        return _matrix(self.moves, self.factor, size)

    def placed(self, side: int, size: tuple[int, int]) -> Tensor:
        """Return ``(B, 3, 3)`` from pixel coordinates of the unmoved view to those of view ``side``, 0 or 1."""
        own = None if self.factors is None else self.factors[side]
        return _matrix((self.first, self.second)[side], own, size)


def _matrix(pixels: Tensor, factor: Tensor | None, size: tuple[int, int]) -> Tensor:
    return geometry.shift(pixels) if factor is None else geometry.rescale(factor, size)


class OutputCurve(NamedTuple):
    """Numbers against another quantity.

    Attributes:
        by: the quantity, with its unit in ``axis``.
        axis: title of the axis.
        x: its values; texts for ranges.
        numbers: one estimate per value, by name.
    """

    by: str
    axis: str
    x: Sequence[float | str]
    numbers: dict[str, list[Estimate]]

    def to_rows(self) -> list[dict[str, object]]:
        """For JSON: an object per value."""
        return [
            {self.by: at, **{name: found[k].to_dict() for name, found in self.numbers.items()}}
            for k, at in enumerate(self.x)
        ]


@dataclass(frozen=True)
class KindResults(Record):
    """What a kind found on all images.

    Attributes:
        numbers: estimates by name.
        curves: curves by name.
        settings: what the kind chose, such as stride and kernel of a map.
        notes: sentences for readers, such as the cause of an error.
    """

    numbers: dict[str, Estimate]
    curves: dict[str, OutputCurve] = field(default_factory=dict)
    settings: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Tally:
    """Per-image statistics ``(N, F)`` by name, as means over the pairs of an image."""

    def __init__(self, pairs: int) -> None:
        self._pairs = pairs
        self._columns: dict[str, Tensor] = {}  # (capacity, F), which grow by doubling
        self._images = 0

    def add(self, start: int, values: dict[str, Tensor]) -> None:
        """Add the statistics ``(B,)`` or ``(B, F)`` of one pair for images from ``start`` on."""
        for name, each in values.items():
            rows = on_cpu(each.detach()).reshape(len(each), -1)
            stop = start + len(rows)
            column = self._columns.get(name)
            if column is None or len(column) < stop:
                grown = torch.zeros(max(stop, 2 * start), rows.shape[1], dtype=torch.float64)
                if column is not None:
                    grown[: len(column)] = column
                self._columns[name] = column = grown
            column[start:stop] += rows / self._pairs
            self._images = max(self._images, stop)

    def statistics(self) -> Run:
        """All statistics so far."""
        return {name: column[: self._images] for name, column in self._columns.items()}

    def state(self, images: int) -> Run:
        """Copies of the statistics of the first ``images`` images."""
        return {name: column[:images].clone() for name, column in self._columns.items()}

    def restore(self, columns: Run, images: int) -> None:
        """Continue after ``images`` images from a `state`."""
        self._columns, self._images = dict(columns), images


class OutputMeasure(ABC):
    """The running measurement of one kind of output.

    Attributes:
        rows: the numbers of the kind; each is a function of means over images of statistics in ``tally``.
        setting: the setting.
        tally: the statistics so far.
        score_name: what the score of `add` is.
    """

    rows: ClassVar[tuple[Metric, ...]] = ()
    score_name = "score"

    def __init__(self, setting: OutputSetting) -> None:
        self.setting = setting
        self.tally = Tally(setting.pairs)

    def watching(self) -> AbstractContextManager[Any]:
        """Context of every forward pass, for kinds that look into it."""
        return nullcontext()

    @abstractmethod
    def take(self, output: Any, batch: int) -> Any:
        """Return from a network's output for ``batch`` images what is compared.

        Raises:
            InputError: the output is not of this kind, is not finite, or has another shape than before.
        """

    @abstractmethod
    def add(self, first: Any, second: Any, compared: Compared) -> Tensor:
        """Compare what `take` returned for two views, and add the statistics to ``tally``.

        Returns:
            A score ``(B,)`` per image, larger where the two differ more; the worst are shown in reports.
        """

    def draw(self, view: Tensor, output: Any, row: int) -> Tensor:
        """Return a view ``(C, H, W)`` in [0, 1] with its output, row ``row`` of what `take` returned, drawn on it."""
        del output, row
        return view

    def draw_difference(
        self, view: Tensor, first: Any, second: Any, compared: Compared, row: int
    ) -> list[tuple[Tensor, str]]:
        """Return pictures ``(C, H, W)`` of what differs in the second ``view``, with captions."""
        del view, first, second, compared, row
        return []

    def neighbors_of(self, output: Any, row: int, image: int) -> list[int]:
        """Return the numbers of images to show beside image ``image``, nearest first."""
        del output, row, image
        return []

    def state(self, images: int) -> State:
        """Return what is known of the first ``images`` images, as tensors, numbers and texts in plain containers.

        An interrupted batch may have left data of later images.
        """
        return {"tally": self.tally.state(images), "score_name": self.score_name}

    def restore(self, state: State, images: int) -> None:
        """Continue after ``images`` images from a `state`; `take` has seen an output of the same network before."""
        self.tally.restore(state["tally"], images)
        self.score_name = state["score_name"]

    def results(self) -> KindResults:
        """Return the numbers of all images so far."""
        return KindResults(estimates(self.rows, self.tally.statistics(), self.setting.seed))


def tensor_in(output: Any) -> Any:
    """Return the tensor in the output of a network, or the output itself where none is found."""
    return logits_in(output, NAMES)


def checked_tensor(output: Any, batch: int, shape: str, dimensions: int) -> Tensor:
    """Return the tensor ``(batch, ...)`` with ``dimensions`` axes in an output, at least in float32.

    Raises:
        InputError: there is none, or it is not real floating point.
    """
    found = tensor_in(output)
    if not isinstance(found, Tensor) or found.ndim != dimensions or len(found) != batch:
        got = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise InputError(f"model: expected {shape} for {batch} images, got {got}; wrap it so that it gives these")
    if found.dtype not in REAL or found.layout != torch.strided or found.is_meta:
        kind = str(found.dtype).removeprefix("torch.")
        raise InputError(f"model: expected {shape} in floating point, got {kind}; wrap it so that it gives these")
    return found.to(torch.promote_types(found.dtype, torch.float32))


class SameShape:
    """Checks that outputs keep their shape from view to view and from batch to batch."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] | None = None

    def check(self, found: Tensor) -> Tensor:
        """Return ``found`` ``(B, ...)``.

        Raises:
            InputError: it has another shape than before, or is not finite.
        """
        shape = tuple(found.shape[1:])
        if self.shape not in (None, shape):
            raise InputError(f"model: expected outputs of one shape, got {self.shape} and then {shape}")
        self.shape = shape
        # A sum is faster to check, and not finite where any value is not.
        if not bool(torch.isfinite(found.sum())) and not bool(torch.isfinite(found).all()):
            raise InputError("model: expected a finite output, got NaN or infinity")
        return found
