"""Average precision of a detector under displacements, as COCO computes it, with a bootstrap over images.

Lin et al. 2014, https://arxiv.org/abs/1405.0312, and its evaluation code: detections of a class, by falling score,
take the unmatched target of greatest IoU; precision is made monotone and read at 101 recalls. AP is the mean over
classes that have targets, and ``ap`` the mean over the IoUs 0.50, 0.55, ..., 0.95. At most 100 detections of a class
count in an image.

One deviation: a target that the edge of the view cuts is treated as a crowd: detections on it count neither way.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from augkit.core.errors import InputError
from augkit.invariance.outputs.boxes import CORNERS, Detections, Size, area, overlaps, turned

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
BLOCK = 2_000_000  # numbers in one array of the bootstrap
MOST = 100  # detections of a class in an image


@dataclass(frozen=True)
class Targets:
    """The true boxes of one view of one image.

    Attributes:
        boxes: ``(G, 4)`` as x0, y0, x1, y1 in pixels, along the edges of pixels.
        labels: ``(G,)`` int64.
    """

    boxes: np.ndarray
    labels: np.ndarray


def read_targets(labels: Any, count: int) -> list[Targets]:
    """Read one dict of ``boxes`` ``(G, 4)`` and ``labels`` ``(G,)`` for each of ``count`` images (torchvision).

    Raises:
        InputError: the labels have another form or number, or are not finite.
    """
    wanted = f"labels: expected a dict of boxes and labels for each of {count} images"
    if not isinstance(labels, (list, tuple)):
        raise InputError(f"{wanted}, got {type(labels).__name__}")
    if len(labels) != count:
        raise InputError(f"{wanted}, got {len(labels)}")
    found = []
    for one in labels:
        boxes, classes = (one.get(name) if isinstance(one, dict) else None for name in ("boxes", "labels"))
        if not isinstance(boxes, Tensor) or not isinstance(classes, Tensor):
            raise InputError(f"{wanted}, got {type(one).__name__}")
        boxes = boxes.reshape(0, 4) if boxes.numel() == 0 else boxes
        if boxes.ndim != 2 or boxes.shape[1] != 4 or classes.shape != boxes.shape[:1]:
            got = f"{tuple(boxes.shape)} and {tuple(classes.shape)}"
            raise InputError(f"labels: expected boxes (G, 4) and labels (G,), got {got}")
        values = boxes.detach().to("cpu").double().numpy()
        if not np.isfinite(values).all():
            raise InputError("labels: expected finite boxes, got NaN or infinity")
        if turned(values).any():
            raise InputError(f"labels: {CORNERS}, got {values[turned(values)][0].tolist()}")
        found.append(Targets(values, classes.detach().to("cpu").numpy().astype(np.int64)))
    return found


@dataclass
class ViewScores:
    """What one view of every image adds to average precision; `add` images, then ask for `precision`."""

    scores: dict[int, list[np.ndarray]] = field(default_factory=dict)  # (n,), of each class
    images: dict[int, list[np.ndarray]] = field(default_factory=dict)  # (n,), the number of the image
    outcomes: dict[int, list[np.ndarray]] = field(default_factory=dict)  # (10, n): 1 right, 0 wrong, -1 ignored
    targets: dict[int, list[int]] = field(default_factory=dict)  # the image of every target that counts

    def add(self, image: int, found: Detections, targets: Targets, size: Size) -> None:
        """Match the detections of one image with its targets, both in a view of ``size`` ``(H, W)``."""
        height, width = size
        x0, y0, x1, y1 = targets.boxes.T
        seen = area(np.clip(targets.boxes, 0, [width, height, width, height])) > 0
        cut = (x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height)
        order = np.argsort(-found.scores, kind="stable")
        for label in {*targets.labels[seen].tolist(), *found.labels[order].tolist()}:
            mine = order[found.labels[order] == label][:MOST]
            whole = targets.boxes[seen & ~cut & (targets.labels == label)]
            crowd = targets.boxes[seen & cut & (targets.labels == label)]
            self.targets.setdefault(label, []).extend([image] * len(whole))
            self.scores.setdefault(label, []).append(found.scores[mine])
            self.images.setdefault(label, []).append(np.full(len(mine), image))
            self.outcomes.setdefault(label, []).append(_outcomes(found.boxes[mine], whole, crowd))

    def state(self, images: int) -> dict[str, dict[int, Any]]:
        """The fields for the first ``images`` images."""
        out: dict[str, dict[int, Any]] = {"scores": {}, "images": {}, "outcomes": {}}
        for label, parts in self.images.items():
            numbers = np.concatenate(parts)
            known = numbers < images
            out["images"][label] = [numbers[known]]
            out["scores"][label] = [np.concatenate(self.scores[label])[known]]
            out["outcomes"][label] = [np.concatenate(self.outcomes[label], axis=1)[:, known]]
        return out | {"targets": {k: [image for image in v if image < images] for k, v in self.targets.items()}}

    def precision(self, weights: np.ndarray) -> np.ndarray:
        """AP at each of `IOUS` where image n counts ``weights[:, n]`` times, ``(R, 10)``; NaN without targets.

        Args:
            weights: ``(R, N)``, whole numbers of at least 0.
        """
        with_targets = [label for label, images in self.targets.items() if images]
        per_class = [self._of_class(label, weights) for label in with_targets]
        if not per_class:
            return np.full((len(weights), len(IOUS)), np.nan)
        stacked = np.stack(per_class)
        known = np.isfinite(stacked).sum(0)
        return np.where(known > 0, np.nansum(stacked, axis=0) / np.maximum(known, 1), np.nan)

    def _of_class(self, label: int, weights: np.ndarray) -> np.ndarray:
        scores = np.concatenate(self.scores[label])
        order = np.argsort(-scores, kind="stable")
        images = np.concatenate(self.images[label])[order]
        outcomes = np.concatenate(self.outcomes[label], axis=1)[:, order]
        wanted = weights[:, self.targets[label]].sum(1)
        step = max(1, BLOCK // max(1, outcomes.size))
        parts = [slice(k, k + step) for k in range(0, len(weights), step)]
        return np.concatenate([_areas(weights[part][:, images], outcomes, wanted[part]) for part in parts])


def _outcomes(boxes: np.ndarray, whole: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """For each of `IOUS` and each box, surest first: 1 where it takes a target, -1 where it lies on a crowd, else 0."""
    iou = overlaps(boxes[:, None], whole[None])
    on_crowd = _share_inside(boxes, crowd).max(1, initial=0.0)
    out = np.zeros((len(IOUS), len(boxes)), dtype=np.int8)
    for k, least in enumerate(IOUS):
        free = np.ones(len(whole), dtype=bool)
        for n in range(len(boxes)):
            at = int(np.argmax(np.where(free, iou[n], -1.0))) if free.any() else -1
            if at >= 0 and iou[n, at] >= least - 1e-10:
                out[k, n], free[at] = 1, False
            elif on_crowd[n] >= least - 1e-10:
                out[k, n] = -1
    return out


def _share_inside(boxes: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """The share of each box that lies in each crowd, ``(N, M)``: COCO's overlap with crowds."""
    a, b = boxes[:, None], crowd[None]
    width = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    common, own = np.prod(np.maximum(width, 0), axis=-1), area(boxes)[:, None]
    return np.where(own > 0, common / np.where(own > 0, own, 1), 0.0)


def _areas(weights: np.ndarray, outcomes: np.ndarray, totals: np.ndarray) -> np.ndarray:
    """Mean precision at `RECALLS` ``(R, T)``, NaN without targets.

    Args:
        weights: ``(R, n)``, whole numbers: how often each detection counts, by falling score.
        outcomes: ``(T, n)``, 1 right, 0 wrong, -1 ignored.
        totals: ``(R,)``, the number of targets.
    """
    if not outcomes.shape[1]:
        return np.repeat(np.where(totals > 0, 0.0, np.nan)[:, None], len(outcomes), axis=1)
    hits = np.cumsum(weights[:, None] * (outcomes == 1), axis=-1)
    misses = np.cumsum(weights[:, None] * (outcomes == 0), axis=-1)
    precision = hits / np.maximum(hits + misses, np.spacing(1.0))
    envelope = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 0), (0, 1))).reshape(-1, envelope.shape[-1] + 1)
    # The hits that each recall needs, then one search for all rows, offset so that their values do not overlap.
    some = np.maximum(totals, 1)[:, None]
    need = np.ceil(RECALLS * some)
    need = need + (need / some < RECALLS)
    rows = np.arange(len(envelope)) * (some.max() + 2)
    queries = np.repeat(need[:, None], len(outcomes), axis=1).reshape(len(envelope), -1) + rows[:, None]
    flat = (hits.reshape(len(envelope), -1) + rows[:, None]).ravel()
    found = np.searchsorted(flat, queries.ravel(), side="left").reshape(queries.shape)
    at = found - np.arange(len(envelope))[:, None] * hits.shape[-1]
    areas = np.take_along_axis(envelope, at, axis=1).mean(1).reshape(len(weights), -1)
    return np.where(totals[:, None] > 0, areas, np.nan)


def over_views(views: Iterable[ViewScores], weights: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers over views where image n counts ``weights[:, n]`` times, each ``(R,)``.

    ``ap50`` and ``ap`` are means over views; ``ap50_spread`` and ``ap_spread`` are the largest less the smallest.
    """
    each = np.stack([view.precision(weights) for view in views])  # (V, R, 10)
    ap50, ap = each[..., 0], each.mean(-1)
    return {
        "ap50": ap50.mean(0),
        "ap": ap.mean(0),
        "ap50_spread": ap50.max(0) - ap50.min(0),
        "ap_spread": ap.max(0) - ap.min(0),
    }
