"""Metrics of embeddings and of detections as `torchmetrics` metrics, beside those of `augkit.adapters.torchmetrics`.

``update`` takes the outputs of a network for the same images under two shifts. Batches of any sizes and any number of
processes give the numbers that `augkit.measure_outputs` gives for all images. Maps have `EquivarianceError` there.

>>> import torch
>>> cosine = EmbeddingCosine()
>>> cosine.update(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [1.0, -1.0]]))
>>> cosine.compute()
tensor(0.5000)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from augkit.adapters.torchmetrics import PairMetric
from augkit.augment import geometry
from augkit.augment.checks import check_flag, is_float
from augkit.augment.resample import check_size
from augkit.core.errors import InputError, InputTypeError
from augkit.invariance.outputs.box_changes import DetectionSettings, compare, sums
from augkit.invariance.outputs.boxes import read_detections
from augkit.invariance.outputs.detections import DetectionMeasure
from augkit.invariance.outputs.embeddings import nearest_entries

COMPARED = (  # by `augkit.invariance.outputs.box_changes.sums`
    "first", "second", "pairs", "varied", "lost", "new", "vanished", "appeared", "class_changed", "score_difference",
    "iou", "relative",
)  # fmt: skip


class EmbeddingCosine(PairMetric):
    """Mean cosine between the embeddings of two views of an image: ``cosine`` of `augkit.measure_outputs`.

    Args:
        validate: check values, which synchronizes with the device; shapes are always checked.
        torchmetrics_options: options of `torchmetrics.Metric`, such as ``sync_on_compute``.
    """

    higher_is_better = True

    def __init__(self, *, validate: bool = True, **torchmetrics_options: Any) -> None:
        super().__init__(validate=validate, **torchmetrics_options)

    def update(self, first: Tensor, second: Tensor) -> None:
        """Add embeddings ``(B, D)`` of images and of the same images under another shift."""
        a, b = self._embeddings(first, second)
        self._add(F.cosine_similarity(a, b, dim=-1, eps=1e-30))

    def _embeddings(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Both, checked, float32 at least."""
        for each in (first, second):
            if not (isinstance(each, Tensor) and is_float(each) and each.ndim == 2):
                got = f"{each.dtype} {tuple(each.shape)}" if isinstance(each, Tensor) else type(each).__name__
                raise InputTypeError(f"first and second: expected floating embeddings (B, D), got {got}")
        if first.shape != second.shape:
            shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
            raise InputError(f"first and second: expected embeddings of one shape, got {shapes}")
        if self.validate and not bool(torch.isfinite(first).all() & torch.isfinite(second).all()):
            raise InputError("first and second: expected finite values, got NaN or infinity")
        a, b = (each.detach().to(torch.promote_types(each.dtype, torch.float32)) for each in (first, second))
        return a, b


class NeighborChange(EmbeddingCosine):
    """Share of pairs of views whose nearest neighbor in a gallery differs: ``neighbour_change`` with that gallery.

    Args:
        gallery: embeddings ``(G, D)`` of unshifted images, other than those of ``update``; G at least 2.
        validate, torchmetrics_options: as in `EmbeddingCosine`.

    >>> change = NeighborChange(torch.eye(2))
    >>> change.update(torch.tensor([[2.0, 1.0], [2.0, 1.0]]), torch.tensor([[3.0, 1.0], [1.0, 2.0]]))
    >>> change.compute()
    tensor(0.5000)
    """

    higher_is_better = False
    summed = torch.long
    gallery: Tensor

    def __init__(self, gallery: Tensor, **options: Any) -> None:
        super().__init__(**options)
        if not (isinstance(gallery, Tensor) and is_float(gallery) and gallery.ndim == 2 and len(gallery) > 1):
            got = f"{gallery.dtype} {tuple(gallery.shape)}" if isinstance(gallery, Tensor) else type(gallery).__name__
            raise InputTypeError(f"gallery: expected floating embeddings (G, D), G at least 2, got {got}")
        self.register_buffer("gallery", gallery.detach().clone(), persistent=False)
        self._add_marker(gallery=len(gallery))

    def update(self, first: Tensor, second: Tensor) -> None:
        """Add embeddings ``(B, D)`` of images and of the same images under another shift."""
        a, b = (each.cpu() for each in self._embeddings(first, second))
        if a.shape[1] != self.gallery.shape[1]:
            raise InputError(f"first and second: expected {self.gallery.shape[1]} dimensions, got {a.shape[1]}")
        gallery = self.gallery.cpu()
        one, other = (nearest_entries(each, gallery, 1, None)[:, 0] for each in (a, b))
        self._add((one != other).to(self.total.device))


class DetectionChange(Metric):
    """How much the boxes of a detector change under a shift: the numbers of `augkit.measure_outputs` for detections.

    ``compute`` returns them by name, without those that need labels: ``lost``, ``new``, ``vanished``, ``appeared``,
    ``class_change``, ``score_change``, ``box_iou``, ``equivariance_error``. A number without a box is NaN.

    Args:
        size: ``(H, W)`` of the detector's input.
        circular: whether images are tori.
        box_score, box_iou, box_border: see `augkit.invariance.outputs.box_changes.DetectionSettings`.
        torchmetrics_options: options of `torchmetrics.Metric`.

    >>> change = DetectionChange((32, 32))
    >>> box = {"boxes": torch.tensor([[4.0, 4.0, 12.0, 12.0]]), "scores": torch.ones(1), "labels": torch.ones(1)}
    >>> moved = {**box, "boxes": box["boxes"] + torch.tensor([2.0, 0.0, 2.0, 0.0])}
    >>> change.update([box], [moved], torch.tensor([[2.0, 0.0]]))
    >>> change.compute()["lost"], change.compute()["box_iou"]
    (tensor(0.), tensor(1.))
    """

    is_differentiable = False
    full_state_update = False
    higher_is_better = None
    summed: Tensor

    def __init__(
        self,
        size: tuple[int, int],
        *,
        circular: bool = False,
        box_score: float | None = None,
        box_iou: float | None = None,
        box_border: float | None = None,
        **torchmetrics_options: Any,
    ) -> None:
        super().__init__(**torchmetrics_options)
        self.size, self.circular = check_size(size), check_flag("circular", circular)
        given = {"box_score": box_score, "box_iou": box_iou, "box_border": box_border}
        self.settings = DetectionSettings(**{name: value for name, value in given.items() if value is not None})
        self.add_state("summed", torch.zeros(len(COMPARED), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, first: Any, second: Any, pixels: Tensor) -> None:
        """Add the detector's outputs for B images and for the same images moved by ``pixels`` ``(B, 2)`` (x, y).

        Outputs are in the forms of `augkit.invariance.outputs.boxes.read_detections`.
        """
        if not (isinstance(pixels, Tensor) and is_float(pixels) and pixels.ndim == 2 and pixels.shape[1] == 2):
            got = f"{pixels.dtype} {tuple(pixels.shape)}" if isinstance(pixels, Tensor) else type(pixels).__name__
            raise InputTypeError(f"pixels: expected floating (B, 2), got {got}")
        if not bool(torch.isfinite(pixels).all()):
            raise InputError("pixels: expected finite values, got NaN or infinity")
        moves = geometry.shift(pixels.detach().to("cpu", torch.float64))
        pairs = zip(read_detections(first, len(pixels)), read_detections(second, len(pixels)), moves, strict=True)
        for one, other, matrix in pairs:
            found = sums(compare(one, other, matrix, self.size, self.settings, torus=self.circular))
            self.summed += self.summed.new_tensor([found[name] for name in COMPARED])

    def compute(self) -> dict[str, Tensor]:
        """The numbers by name, scalars."""
        means = {name: value[None] for name, value in zip(COMPARED, self.summed, strict=True)}
        rows = [row for row in DetectionMeasure.rows if set(row.needs) <= set(COMPARED)]
        return {row.name: row(means).to(torch.float32) for row in rows}
