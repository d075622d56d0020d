"""How much the boxes of a detector change between two views of an image: lost, new, of another class, elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from augkit.core.errors import InputError
from augkit.invariance.outputs.boxes import (
    BORDER,
    IOU,
    SCORE,
    Detections,
    Match,
    Size,
    match,
    nearest,
)


@dataclass(frozen=True)
class DetectionSettings:
    """How boxes are compared.

    Attributes:
        box_score: boxes of at least this score are compared.
        box_iou: the least IoU of partners, in (0, 1].
        box_border: boxes nearer to the edge of a view than this, in pixels, do not count.

    Raises:
        InputError: a number is out of its range.
    """

    box_score: float = SCORE
    box_iou: float = IOU
    box_border: float = BORDER

    def __post_init__(self) -> None:
        if not 0 < self.box_iou <= 1:
            raise InputError(f"box_iou: expected a number in (0, 1], got {self.box_iou:g}")
        if not self.box_border >= 0:
            raise InputError(f"box_border: expected pixels of at least 0, got {self.box_border:g}")
        if not abs(self.box_score) < np.inf:
            raise InputError(f"box_score: expected a finite threshold, got {self.box_score:g}")


@dataclass(frozen=True)
class BoxChanges:
    """The boxes of two views of one image, compared.

    Attributes:
        moved: all boxes of the first view, moved into the second.
        fixed: all boxes of the second view.
        counts_first, counts_second: whether each box counts, bool ``(N,)`` and ``(M,)``.
        pairs: matched boxes above the threshold.
        lost, new: boxes that count without a partner above the threshold in the other view, bool ``(N,)``, ``(M,)``.
        vanished, appeared: those among them that have no partner of any score either.
        period: ``(H, W)`` of a torus, or None.
    """

    moved: Detections
    fixed: Detections
    counts_first: np.ndarray
    counts_second: np.ndarray
    pairs: Match
    lost: np.ndarray
    new: np.ndarray
    vanished: np.ndarray
    appeared: np.ndarray
    period: Size | None = None

    def pairs_count(self) -> np.ndarray:
        """Whether each pair counts: one of its boxes does, bool ``(P,)``."""
        return self.counts_first[self.pairs.first] | self.counts_second[self.pairs.second]


def compare(
    first: Detections,
    second: Detections,
    matrix: Tensor,
    size: Size,
    settings: DetectionSettings | None = None,
    *,
    torus: bool = False,
) -> BoxChanges:
    """Compare the boxes of two views of one image.

    Args:
        first, second: the boxes of the views, each in the pixels of its own view.
        matrix: ``(3, 3)`` from pixel coordinates of the first view to those of the second.
        size: ``(H, W)`` of both views.
        settings: threshold, IoU and border.
        torus: whether content that leaves at an edge enters at the opposite one.
    """
    settings = settings or DetectionSettings()
    period = size if torus else None
    moved = first.moved(matrix, period)
    back = second.moved(matrix.double().inverse(), period)
    above_first, above_second = first.scores >= settings.box_score, second.scores >= settings.box_score
    counts_first = above_first & first.inside(size, settings.box_border) & moved.inside(size, settings.box_border)
    counts_second = above_second & second.inside(size, settings.box_border) & back.inside(size, settings.box_border)
    pairs = _match_among(moved, second, above_first, above_second, settings.box_iou, period)
    lost, new = counts_first.copy(), counts_second.copy()
    lost[pairs.first], new[pairs.second] = False, False
    # Boxes below the threshold, which no pair has: a partner among them has only crossed the threshold.
    faint_second = _match_among(moved, second, lost, ~above_second, settings.box_iou, period)
    faint_first = _match_among(moved, second, ~above_first, new, settings.box_iou, period)
    vanished, appeared = lost.copy(), new.copy()
    vanished[faint_second.first], appeared[faint_first.second] = False, False
    return BoxChanges(moved, second, counts_first, counts_second, pairs, lost, new, vanished, appeared, period)


def _match_among(
    moved: Detections, fixed: Detections, chosen: np.ndarray, others: np.ndarray, iou: float, period: Size | None
) -> Match:
    """`match` among the chosen boxes, with the indices of all boxes."""
    rows, columns = np.flatnonzero(chosen), np.flatnonzero(others)
    found = match(_take(moved, rows), _take(fixed, columns), iou, period=period)
    return Match(rows[found.first], columns[found.second], found.iou)


def _take(of: Detections, at: np.ndarray) -> Detections:
    return Detections(of.boxes[at], of.scores[at], of.labels[at])


def sums(changes: BoxChanges) -> dict[str, float]:
    """Counts and sums for one image and one pair of views, of which the numbers are ratios.

    ``relative`` is the root mean square of the corners' differences between partners, divided by the root mean
    square distance of the corners from the center of their box: ``|T f(x) - f(T x)| / |f(x) - mean f(x)|`` where f(x)
    are the corners of a box and their mean is its center. Lost and new boxes have no partner and are not part of it.
    """
    counts = changes.pairs_count()
    first, second = changes.pairs.first[counts], changes.pairs.second[counts]
    moved, fixed = changes.moved, changes.fixed
    a = moved.boxes[first]
    b = nearest(a, fixed.boxes[second], changes.period)
    spread = float(np.sqrt(np.mean(np.square(_around_center(a)) + np.square(_around_center(b))) / 2)) if len(a) else 0.0
    error = float(np.sqrt(np.mean(np.square(a - b)))) / spread if spread > 0 else 0.0
    return {
        "first": float(changes.counts_first.sum()),
        "second": float(changes.counts_second.sum()),
        "pairs": float(len(first)),
        "varied": float(spread > 0),
        "lost": float(changes.lost.sum()),
        "new": float(changes.new.sum()),
        "vanished": float(changes.vanished.sum()),
        "appeared": float(changes.appeared.sum()),
        "class_changed": float((moved.labels[first] != fixed.labels[second]).sum()),
        "score_difference": float(np.abs(moved.scores[first] - fixed.scores[second]).sum()),
        "iou": float(changes.pairs.iou[counts].sum()),
        "relative": error,
    }


def _around_center(boxes: np.ndarray) -> np.ndarray:
    return boxes - np.tile((boxes[:, :2] + boxes[:, 2:]) / 2, 2)
