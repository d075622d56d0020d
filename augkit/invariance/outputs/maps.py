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

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.invariance.information import entropy, information, share_of_shift
from augkit.invariance.metrics import Metric, jensen_shannon
from augkit.invariance.outputs.base import Compared, KindResults, OutputCurve
from augkit.invariance.outputs.dense import DECIBELS, ERROR_BEFORE, Dense, DenseMeasure, Region
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR, curve, mean_of, ratio
from augkit.invariance.outputs.pictures import with_classes, with_mask

DISTANCES = (1, 2, 4, 8)  # upper ends of the ranges of distances; the last range is what lies beyond
DISTANCE_NAMES = ("1", "2", "3 to 4", "5 to 8", "over 8")

ROWS = (
    EQUIVARIANCE_ERROR,
    mean_of("pixel_top1_change", "pixel top-1 change", "pixels_changed",
            "share of pixels whose most probable class differs"),
    mean_of("miou_consistency", "mIoU of the two views", "miou",
            "intersection over union of the areas that the two views give to a class, mean over classes",
            higher_is_better=True),
    Metric("shift_information", "shift information of a pixel",
           "share of the information in the answers of pixels that is about the shift and not about the image",
           ("shift_bits", "answer_bits", "answer_mean"), share_of_shift, denominator=information),
    DECIBELS,
    ERROR_BEFORE,
)  # fmt: skip


class MapMeasure(DenseMeasure):
    """Compares maps, and the classes of their pixels."""

    rows = ROWS

    def compare(self, region: Region) -> dict[str, Tensor]:
        """Return the statistics of classes, where channels are class scores."""
        count = region.expected.shape[1]
        if not self._has_classes(count):
            return {}
        self.score_name = "share of pixels changed"
        first, second = region.expected.argmax(1), region.found.argmax(1)
        changed = (first != second).to(region.mask.dtype)
        p, q = region.expected.softmax(1).movedim(1, -1), region.found.softmax(1).movedim(1, -1)
        near = torch.stack(boundary_ranges(first), dim=1).to(region.mask.dtype)
        return {
            "pixels_changed": region.mean(changed),
            "miou": mean_iou(first, second, region.mask, count),
            "shift_bits": region.mean(jensen_shannon(p, q)),
            "answer_bits": region.mean((entropy(p) + entropy(q)) / 2),
            "answer_mean": region.mean(((p + q) / 2).movedim(-1, 1)),
            "near_changed": region.mean(near * changed[:, None]),
            "near": region.mean(near),
        }

    def _has_classes(self, channels: int) -> bool:
        return self.setting.options.scores and channels > 1

    def score_of(self, values: dict[str, Tensor]) -> Tensor:
        """Return the share of pixels that change their class, or without classes the relative error."""
        return values.get("pixels_changed", values["relative"])

    def draw(self, view: Tensor, output: Dense, row: int) -> Tensor:
        """Return a view covered by the colors of its classes, or a map of other values in gray."""
        values = output.whole[row]
        if self._has_classes(len(values)):
            return with_classes(view, values.argmax(0))
        return super().draw(view, output, row)

    def draw_difference(
        self, view: Tensor, first: Dense, second: Dense, compared: Compared, row: int
    ) -> list[tuple[Tensor, str]]:
        """Return the pixels that change their class; pixels that are not compared are dark."""
        if not self._has_classes(second.whole.shape[1]):
            return super().draw_difference(view, first, second, compared, row)
        expected, mask = self.moved(first, compared.moves)
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


def boundary_ranges(classes: Tensor) -> list[Tensor]:
    """Return for each range of `DISTANCE_NAMES` the pixels ``(B, h, w)`` bool at that distance from another class.

    Args:
        classes: class of each pixel, ``(B, h, w)``.

    >>> [int(inside.sum()) for inside in boundary_ranges(torch.tensor([[[0, 1, 1, 1]]]))]
    [2, 1, 1, 0, 0]
    """
    highest = classes[:, None].to(torch.float32)
    lowest, radius, ranges = -highest, 0, []
    beyond = torch.ones_like(classes, dtype=torch.bool)
    for distance in DISTANCES:
        side = 2 * (distance - radius) + 1
        highest, lowest = (_widest(values, side) for values in (highest, lowest))
        alike = (highest == -lowest)[:, 0]
        ranges.append(beyond & ~alike)
        beyond, radius = beyond & alike, distance
    return [*ranges, beyond]


def _widest(values: Tensor, side: int) -> Tensor:
    """Return the largest value of the square around each pixel, one axis after the other."""
    wide = F.max_pool2d(values, (1, side), stride=1, padding=(0, side // 2))
    return F.max_pool2d(wide, (side, 1), stride=1, padding=(side // 2, 0))


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
