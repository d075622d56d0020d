"""Boxes of detectors: read from the output of a network, moved from one view into another, and matched.

A detector flickers when a box of one view has no partner in another view of the same image. Here the boxes of the
first view are moved by the matrix between the two views and matched with those of the second, one to one.

- **Matching** maximizes the total IoU of the pairs (`scipy.optimize.linear_sum_assignment`), among pairs of at least
  the given IoU: first within each class, then, among the boxes that are left, across classes. The greedy matching of
  COCO goes by score and treats the two sides differently; here neither view is the truth, and swapping them must give
  the same pairs. Classes come first because detectors may give one place to several classes.
- **A box counts** if its score is above the threshold and it lies whole in both views, at least ``border`` pixels from
  their edges; a box that a border cuts in either view does not count. The partner of a box that counts need not count
  itself, so that an error of half a pixel near the border is not a loss.
- On a torus (``period``) boxes move across the edges and are compared at their nearest places.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkit.augment.targets import move_boxes
from augkit.core.errors import InputError
from augkit.core.precision import on_cpu, widest

FIELDS = ("boxes", "scores", "labels")
SCORE = 0.3  # default threshold of boxes that count
IOU = 0.5  # default least IoU of partners
MOST_TURNED = 0.1  # share of a batch's boxes; a detector may give a few that are no boxes, but not many
CORNERS = "expected boxes as x0, y0, x1, y1 with x0 <= x1 and y0 <= y1 (`torchvision.ops.box_convert` gives them)"
BORDER = 1.0  # default distance in pixels between a box that counts and the edges of both views
Size = tuple[int, int]


@dataclass(frozen=True)
class Detections:
    """The boxes in one view of one image.

    Attributes:
        boxes: ``(N, 4)`` float64 as x0, y0, x1, y1 in pixels, along the edges of pixels: ``0, 0, W, H`` is the view.
        scores: ``(N,)`` float64.
        labels: ``(N,)`` int64.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)

    def moved(self, matrix: Tensor, period: Size | None = None) -> Detections:
        """Move the boxes by ``matrix`` ``(3, 3)``; on a torus of ``period`` ``(H, W)`` their centers stay on it."""
        matrix = on_cpu(matrix)
        boxes = move_boxes(matrix[None], torch.from_numpy(self.boxes)[None])[0].numpy()
        if period is not None:
            size = np.array([period[1], period[0]], dtype=np.float64)
            boxes = boxes - np.tile(np.floor(centers(boxes) / size) * size, 2)
        return Detections(boxes, self.scores, self.labels)

    def inside(self, size: Size, border: float) -> np.ndarray:
        """Whether each box is at least ``border`` pixels from the edges of a view of ``size`` ``(H, W)``: ``(N,)``."""
        x0, y0, x1, y1 = self.boxes.T
        height, width = size
        return (x0 >= border) & (y0 >= border) & (x1 <= width - border) & (y1 <= height - border)


def turned(boxes: np.ndarray) -> np.ndarray:
    """Whether a corner of boxes ``(N, 4 or more)`` lies on the wrong side of the other: ``(N,)``."""
    return (boxes[:, 0] > boxes[:, 2]) | (boxes[:, 1] > boxes[:, 3])


def centers(boxes: np.ndarray) -> np.ndarray:
    """Centers ``(..., 2)`` of boxes ``(..., 4)``."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def read_detections(output: Any, count: int) -> list[Detections]:
    """Read the boxes of ``count`` images in any of the usual forms.

    Args:
        output: one of each image, as a dict of ``boxes`` ``(N, 4)``, ``scores`` ``(N,)`` and ``labels`` ``(N,)``
            (torchvision), as rows ``(N, 6)`` x0, y0, x1, y1, score, class, or as an object with ``boxes.xyxy``,
            ``boxes.conf`` and ``boxes.cls`` (Ultralytics); or rows ``(B, N, 6)``. A dict alone is one image. A tuple
            of losses and detections (scripted detectors of torchvision) gives its second part.
        count: the number of images.

    Raises:
        InputError: the output is none of these, has another number of images, or is not finite.
    """
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Mapping) and is_detections(output[1]):
        output = output[1]
    if isinstance(output, Mapping):
        output = [output]
    if not isinstance(output, Tensor) and not isinstance(output, Sequence):
        raise _not_detections(type(output).__name__)
    if len(output) != count:
        raise InputError(f"model: expected the detections of {count} images, got those of {len(output)}")
    rows = [_rows(one) for one in output]
    # One copy from the device, not three for each image.
    whole = on_cpu(torch.cat(rows).detach()) if rows else torch.zeros(0, 6, dtype=torch.float64)
    if not bool(torch.isfinite(whole).all()):
        raise InputError("model: expected finite boxes and scores, got NaN or infinity")
    parts = whole.numpy()
    if (share := turned(parts).mean() if len(parts) else 0.0) > MOST_TURNED:
        raise InputError(f"model: {CORNERS}, got {100 * share:.0f} % of boxes with x0 > x1 or y0 > y1")
    ends = np.cumsum([0, *(len(one) for one in rows)])
    return [_of_rows(parts[start:end]) for start, end in pairwise(ends)]


def is_detections(output: Any) -> bool:
    """Whether the output of a network looks like detections, in one of the forms of `read_detections`."""
    if isinstance(output, Tensor):
        return output.ndim == 3 and output.shape[-1] == 6 and output.is_floating_point()
    if isinstance(output, Mapping):
        return all(name in output for name in FIELDS)
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Mapping) and "boxes" not in output[0]:
        return is_detections(output[1])
    return isinstance(output, (list, tuple)) and len(output) > 0 and all(map(_is_of_one_image, output))


def _is_of_one_image(one: Any) -> bool:
    if isinstance(one, Tensor):
        return one.ndim == 2 and one.shape[-1] == 6 and one.is_floating_point()
    return is_detections(one) if isinstance(one, Mapping) else hasattr(getattr(one, "boxes", None), "xyxy")


def _rows(one: Any) -> Tensor:
    """The boxes of one image as rows ``(N, 6)``."""
    if isinstance(one, Tensor):
        if one.ndim != 2 or one.shape[1] != 6:
            raise _not_detections(f"a tensor {tuple(one.shape)} of an image")
        return one
    if isinstance(one, Mapping):
        parts = [one.get(name) for name in FIELDS]
    else:
        boxes = getattr(one, "boxes", None)
        parts = [getattr(boxes, name, None) for name in ("xyxy", "conf", "cls")]
    if not all(isinstance(part, Tensor) for part in parts):
        raise _not_detections(type(one).__name__)
    corners, scores, labels = (part for part in parts if isinstance(part, Tensor))
    if corners.ndim != 2 or corners.shape[1] != 4 or not scores.shape == labels.shape == corners.shape[:1]:
        shapes = ", ".join(str(tuple(part.shape)) for part in (corners, scores, labels))
        raise InputError(f"model: expected boxes (N, 4), scores (N,) and labels (N,), got {shapes}")
    wide = [part.to(widest(part.device)) for part in (corners, scores[:, None], labels[:, None])]
    return torch.cat(wide, dim=1)


def _not_detections(got: str) -> InputError:
    return InputError(
        f"model: expected detections, got {got}; wrap it so that it gives a list with a dict of boxes, scores and"
        " labels for each image"
    )


def _of_rows(rows: np.ndarray) -> Detections:
    return Detections(rows[:, :4].copy(), rows[:, 4].copy(), rows[:, 5].astype(np.int64))


@dataclass(frozen=True)
class Match:
    """Pairs of boxes of two views: ``first`` and ``second`` ``(P,)`` are their indices, ``iou`` ``(P,)`` their IoU."""

    first: np.ndarray
    second: np.ndarray
    iou: np.ndarray


def match(moved: Detections, fixed: Detections, least_iou: float = IOU, *, period: Size | None = None) -> Match:
    """Match boxes one to one by the greatest total IoU, within classes first; see the head of this file.

    Args:
        moved: boxes of the first view, moved into the second.
        fixed: boxes of the second view.
        least_iou: the least IoU of a pair, above 0.
        period: ``(H, W)`` of a torus.
    """
    overlap = pairwise_iou(moved.boxes, fixed.boxes, period)
    allowed = overlap >= least_iou
    same = moved.labels[:, None] == fixed.labels
    first, second = _assign(overlap * (allowed & same))
    left = np.ones(len(moved), dtype=bool)
    open_ = np.ones(len(fixed), dtype=bool)
    left[first], open_[second] = False, False
    more_first, more_second = _assign(overlap * (allowed & left[:, None] & open_))
    first, second = np.concatenate([first, more_first]), np.concatenate([second, more_second])
    return Match(first, second, overlap[first, second])


def _assign(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of weight above 0 whose sum is the greatest."""
    from scipy.optimize import linear_sum_assignment

    if not weights.any():
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    first, second = linear_sum_assignment(weights, maximize=True)
    kept = weights[first, second] > 0
    return first[kept], second[kept]


def pairwise_iou(a: np.ndarray, b: np.ndarray, period: Size | None = None) -> np.ndarray:
    """IoU ``(N, M)`` of boxes ``(N, 4)`` and ``(M, 4)``, on a torus of nearest copies; 0 for empty boxes."""
    first, second = a[:, None, :], nearest(a[:, None, :], b[None, :, :], period)
    return overlaps(first, second)


def nearest(boxes: np.ndarray, others: np.ndarray, period: Size | None) -> np.ndarray:
    """``others`` ``(..., 4)``, each moved by whole periods to where its center is nearest to that of its box."""
    if period is None:
        return others
    size = np.array([period[1], period[0]], dtype=np.float64)
    off = np.round((centers(boxes) - centers(others)) / size) * size
    return others + np.concatenate([off, off], axis=-1)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU ``(...)`` of boxes ``(..., 4)``."""
    width = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common = np.prod(np.maximum(width, 0), axis=-1)
    whole = area(a) + area(b) - common
    return np.where(whole > 0, common / np.where(whole > 0, whole, 1), 0.0)


def area(boxes: np.ndarray) -> np.ndarray:
    """Area ``(...)`` of boxes ``(..., 4)``, 0 where the corners are in the wrong order."""
    return np.prod(np.maximum(boxes[..., 2:] - boxes[..., :2], 0), axis=-1)
