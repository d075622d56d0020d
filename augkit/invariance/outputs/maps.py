"""Maps ``(B, C, h, w)`` of any stride: segmentation, depth, features of patches.

Channels are taken for class scores where there are two or more (``scores=False`` where they are not). Then the map for
one view, moved, and the map for the other are also compared by their classes, pixel by pixel:

- ``pixel_top1_change`` is the share of pixels whose class differs, also by the distance to the nearest pixel of another
  class (in pixels of the map, the larger of the distances along the axes);
- ``miou_consistency`` is the intersection over union of both maps' areas of a class, averaged over the classes of an
  image, then over images: 1 where nothing changes;
- ``shift_information`` is that of `augkit.invariance.information` with pixels in the place of images, from pairs of
  views.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.invariance.information import information, share_of_shift
from augkit.invariance.metrics import Means, Metric
from augkit.invariance.outputs.base import Compared, KindResults, OutputCurve
from augkit.invariance.outputs.dense import DECIBELS, ERROR_BEFORE, ROUNDING, Dense, DenseMeasure, Region
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR, curve, mean_of, ratio
from augkit.invariance.outputs.pictures import with_classes, with_mask

if TYPE_CHECKING:
    from augkit.invariance.outputs.map_loop import Sums

LOOPED = 64  # channels up to which their maximum is searched one by one
DISTANCES = (1, 2, 4, 8)  # upper ends of the ranges of distances; the last range is what lies beyond
DISTANCE_NAMES = ("1", "2", "3 to 4", "5 to 8", "over 8")


def _share_of_shift(means: Means) -> Tensor:
    """Shift information; NaN where pixels say less than the rounding of entropies of float32 maps."""
    share = share_of_shift(means)
    return torch.where(information(means) > ROUNDING, share, torch.full_like(share, torch.nan))


ROWS = (
    EQUIVARIANCE_ERROR,
    mean_of("pixel_top1_change", "pixel top-1 change", "pixels_changed",
            "share of pixels whose most probable class differs"),
    mean_of("miou_consistency", "mIoU of the two views", "miou",
            "intersection over union of the areas that the two views give to a class, mean over classes",
            higher_is_better=True),
    Metric("shift_information", "shift information of a pixel",
           "share of the information in the answers of pixels that is about the shift and not about the image",
           ("shift_bits", "answer_bits", "answer_mean"), _share_of_shift, denominator=information),
    DECIBELS,
    ERROR_BEFORE,
)  # fmt: skip


class MapMeasure(DenseMeasure):
    """Compares maps, and the classes of their pixels."""

    rows = ROWS

    def has_classes(self, channels: int) -> bool:
        """Whether channels are class scores."""
        return self.setting.options.scores and channels > 1

    def class_changes(self, region: Region) -> dict[str, Tensor]:
        """Return the statistics of classes."""
        first, second = top_class(region.expected), top_class(region.found)
        changed = (first != second).to(region.mask.dtype)
        mean, of_mean, of_each = _answers(region.expected, region.found)
        near = torch.stack(boundary_ranges(first, region.mask > 0), dim=1).to(region.mask.dtype)
        return {
            "pixels_changed": region.mean(changed),
            "miou": mean_iou(first, second, region.mask, region.expected.shape[1]),
            "shift_bits": region.mean((of_mean - of_each).clamp_min_(0)),
            "answer_bits": region.mean(of_each),
            "answer_mean": region.mean(mean),
            "near_changed": region.mean(near * changed[:, None]),
            "near": region.mean(near),
        }

    def class_changes_of(self, sums: Sums) -> dict[str, Tensor]:
        """Return the same from what the compiled loop found."""
        names = ("pixels_changed", "miou", "shift_bits", "answer_bits")
        found = dict(zip(names, sums.classes.unbind(1), strict=True))
        near_changed, near = sums.near.unbind(1)
        return found | {"answer_mean": sums.answer, "near_changed": near_changed, "near": near}

    def score_of(self, values: dict[str, Tensor]) -> Tensor:
        """Return the share of pixels that change their class, or without classes the relative error."""
        if "pixels_changed" in values:
            self.score_name = "share of pixels changed"
        return values.get("pixels_changed", values["relative"])

    def draw(self, view: Tensor, output: Dense, row: int) -> Tensor:
        """Return a view covered by the colors of its classes, or a map of other values in gray."""
        values = output.whole[row]
        if self.has_classes(len(values)):
            return with_classes(view, values.argmax(0))
        return super().draw(view, output, row)

    def draw_difference(
        self, view: Tensor, first: Dense, second: Dense, compared: Compared, row: int
    ) -> list[tuple[Tensor, str]]:
        """Return the pixels that change their class; pixels that are not compared are dark."""
        if not self.has_classes(second.whole.shape[1]):
            return super().draw_difference(view, first, second, compared, row)
        expected, mask = self.moved(first, compared)
        changed = (expected[row].argmax(0) != second.whole[row].argmax(0)) & mask[row]
        share = float(changed.sum() / mask[row].sum().clamp_min(1))
        return [(with_mask(view, changed, ~mask[row]), f"{100 * share:.1f} % of the shared pixels change, red")]

    def results(self) -> KindResults:
        """Return the numbers, with the pixel top-1 change by distance to a boundary."""
        found, statistics = super().results(), self.tally.statistics()
        if "near" not in statistics:
            return found
        seen = statistics["near"].sum(0) > 0
        chosen = {name: statistics[name][:, seen] for name in ("near_changed", "near")}
        numbers = curve(
            lambda means: ratio(means, "near_changed", "near"),
            ("near_changed", "near"),
            chosen,
            low=0.0,
            high=1.0,
            seed=self.setting.seed,
        )
        x = [name for name, any_pixel in zip(DISTANCE_NAMES, seen.tolist(), strict=True) if any_pixel]
        axis = "distance to a class boundary, pixels of the map"
        found.curves["by_distance"] = OutputCurve("distance", axis, x, {"pixel_top1_change": numbers})
        return found


def _answers(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean probabilities ``(B, C, h, w)`` of two maps of logits, their entropy, and the mean entropy.

    The entropies are in bits, ``(B, h, w)``. One logarithm for three of them, as this is most of the work on a map.
    """
    logs = [logits.log_softmax(1) for logits in (first, second)]
    p, q = (each.exp() for each in logs)
    each = (p.mul(logs[0]).sum(1) + q.mul(logs[1]).sum(1)) / (-2 * math.log(2))
    mean = p.add_(q).div_(2)
    # Probabilities that underflow have no part in the entropy.
    of_mean = mean.clamp_min(torch.finfo(mean.dtype).tiny).log_().mul_(mean).sum(1) / -math.log(2)
    return mean, of_mean, each


def boundary_ranges(classes: Tensor, region: Tensor | None = None) -> list[Tensor]:
    """Return for each range of `DISTANCE_NAMES` the pixels ``(B, h, w)`` bool at that distance from another class.

    Args:
        classes: class of each pixel, ``(B, h, w)``.
        region: ``(B, h, w)`` bool, a rectangle of each map outside of which no class is seen; all of it when None.

    >>> [int(inside.sum()) for inside in boundary_ranges(torch.tensor([[[0, 1, 1, 1]]]))]
    [2, 1, 1, 0, 0]
    """
    # Within distance d of another class lies what is within d - 1 of a pixel that touches one.
    near, reached, ranges = _touching(classes, region)[:, None], 1, []
    within = torch.zeros_like(classes, dtype=torch.bool)
    for distance in DISTANCES:
        near = _widest(near, distance - reached) if distance > reached else near
        inside = near[:, 0] > 0
        ranges.append(inside & ~within)
        within, reached = inside, distance
    return [*ranges, ~within]


def _touching(classes: Tensor, region: Tensor | None) -> Tensor:
    """Return 1 where one of a pixel's eight neighbors in the region has another class, else 0, ``(B, h, w)``."""
    out = torch.zeros(classes.shape, device=classes.device)
    height, width = classes.shape[-2:]
    for y, x in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = (..., slice(0, height - y), slice(max(0, -x), width - max(0, x)))
        other = (..., slice(y, height), slice(max(0, x), width + min(0, x)))
        differs = classes[one] != classes[other]
        differs = (differs if region is None else differs & region[one] & region[other]).to(out.dtype)
        out[one].add_(differs)
        out[other].add_(differs)
    return out.clamp_max_(1)


def _widest(values: Tensor, reach: int) -> Tensor:
    """Return the largest value within ``reach`` pixels of each pixel, one axis after the other."""
    wide = F.max_pool2d(values, (1, 2 * reach + 1), stride=1, padding=(0, reach))
    return F.max_pool2d(wide, (2 * reach + 1, 1), stride=1, padding=(reach, 0))


def top_class(scores: Tensor) -> Tensor:
    """Return the class ``(B, h, w)`` of the highest of the scores ``(B, C, h, w)``, the first of several.

    On a CPU channel by channel, as torch's own argmax over another axis than the last is ten times as slow.
    """
    if scores.device.type != "cpu" or scores.shape[1] > LOOPED:
        return scores.argmax(1)
    best, classes = scores[:, 0].clone(), torch.zeros_like(scores[:, 0], dtype=torch.int64)
    for channel in range(1, scores.shape[1]):
        higher = scores[:, channel] > best
        classes.masked_fill_(higher, channel)
        torch.maximum(best, scores[:, channel], out=best)
    return classes


def mean_iou(first: Tensor, second: Tensor, mask: Tensor, count: int) -> Tensor:
    """Return the mean intersection over union of the classes of two maps ``(B, h, w)``, ``(B,)``.

    Only pixels within ``mask`` ``(B, h, w)`` count, and only classes that either map has there.
    """
    weight = mask.flatten(1)
    size = mask.new_zeros(len(first), count)
    areas = [size.scatter_add(1, each.flatten(1), weight) for each in (first, second)]
    same = size.scatter_add(1, first.flatten(1), weight * (first == second).flatten(1))
    union = areas[0] + areas[1] - same
    present = union > 0
    return torch.where(present, same / union.clamp_min(1), 0.0).sum(1) / present.sum(1).clamp_min(1)
