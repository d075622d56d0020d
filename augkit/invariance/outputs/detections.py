"""Flicker of detectors: boxes that are lost, new, of another class or elsewhere when the image moves.

Boxes are compared as in `augkit.invariance.outputs.box_changes`. Images without boxes add nothing to a number; an error
is raised only if none has any. With true boxes as labels, average precision is computed under every
displacement (`augkit.invariance.outputs.average_precision`).

A detector that itself resizes or pads its input, as those of torchvision do, is measured including that: shifts are in
pixels of the images that it is given.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.core.errors import InputError
from augkit.core.precision import on_cpu
from augkit.invariance.accumulator import State
from augkit.invariance.bootstrap import UNDEFINED, Estimate, percentile_interval, resamples
from augkit.invariance.metrics import Metric
from augkit.invariance.outputs.average_precision import Targets, ViewScores, over_views, read_targets
from augkit.invariance.outputs.base import Compared, KindResults, OutputMeasure, OutputSetting
from augkit.invariance.outputs.box_changes import BoxChanges, DetectionSettings, compare, sums
from augkit.invariance.outputs.box_pictures import PLAIN, Drawn, draw_boxes, draw_changes
from augkit.invariance.outputs.boxes import Detections, read_detections
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR, ratio_of

AP_REPLICATES = 200  # average precision is no mean over images: each replicate sorts and counts anew


AP_ROWS = tuple(
    # No functions of means over images, so `DetectionMeasure.results` computes them.
    Metric(name, title, meaning, ("average precision",), None, higher_is_better=better)
    for name, title, meaning, better in (
        ("ap50", "AP at IoU 0.5", "average precision at IoU 0.5, mean over the compared displacements", True),
        ("ap", "AP at IoU 0.5 to 0.95", "COCO's average precision, mean over the compared displacements", True),
        ("ap50_spread", "spread of AP at IoU 0.5", "largest less smallest over the compared displacements", False),
        ("ap_spread", "spread of AP", "largest less smallest over the compared displacements", False),
    )
)


class DetectionMeasure(OutputMeasure):
    """Compares detections; see the head of this file."""

    rows = (
        EQUIVARIANCE_ERROR,
        ratio_of(
            "lost", "lost boxes", ("lost", "first"),
            "share of boxes of one view without a partner above the score threshold in the other",
        ),
        ratio_of("new", "new boxes", ("new", "second"), "the same share of boxes of the other view"),
        ratio_of(
            "vanished", "vanished boxes", ("vanished", "first"),
            "share of boxes of one view without a partner of any score in the other; a lost box that has not vanished"
            " has only crossed the threshold",
        ),
        ratio_of("appeared", "appeared boxes", ("appeared", "second"), "the same share of boxes of the other view"),
        ratio_of(
            "class_change", "class change", ("class_changed", "pairs"), "share of partners of different classes",
        ),
        ratio_of(
            "score_change", "change of score", ("score_difference", "pairs"), "mean difference of the partners' scores",
            unit="",
        ),
        ratio_of(
            "box_iou", "IoU of partners", ("iou", "pairs"), "mean IoU of partners after the move",
            unit="", higher_is_better=True,
        ),
        *AP_ROWS,
    )  # fmt: skip

    def __init__(self, setting: OutputSetting) -> None:
        super().__init__(setting)
        given = {field.name: getattr(setting.options, field.name) for field in fields(DetectionSettings)}
        self.settings = DetectionSettings(**{name: value for name, value in given.items() if value is not None})
        self._seen = self._boxes = self._images = 0
        self._views: dict[tuple[int, int], ViewScores] = {}  # by pair and side
        self._batch: tuple[int, list[list[Detections]]] = (-1, [])

    def take(self, output: Any, batch: int) -> list[Detections]:
        """Return the boxes of every image; see `augkit.invariance.outputs.boxes.read_detections`."""
        found = read_detections(output, batch)
        self._boxes += sum(len(one) for one in found)
        self._seen += sum(int((one.scores >= self.settings.box_score).sum()) for one in found)
        return found

    def changes(self, first: Detections, second: Detections, matrix: Tensor) -> BoxChanges:
        """Compare the boxes of two views of one image; ``matrix`` ``(3, 3)`` leads from the first to the second."""
        size, torus = self.setting.protocol.input_size, self.setting.circular
        return compare(first, second, matrix, size, self.settings, torus=torus)

    def add(self, first: list[Detections], second: list[Detections], compared: Compared) -> Tensor:
        """Compare the boxes of two views; the score is the total score of boxes that are lost, new or change class."""
        matrices = on_cpu(compared.matrix(self.setting.protocol.input_size))
        changes = [self.changes(a, b, matrix) for a, b, matrix in zip(first, second, matrices, strict=True)]
        found = [sums(change) for change in changes]
        self.tally.add(compared.start, {n: torch.tensor([one[n] for one in found]) for n in found[0]})
        self._images = max(self._images, compared.start + len(first))
        if compared.targets is not None:
            targets = read_targets(compared.targets, len(first))
            for side, boxes in ((0, first), (1, second)):
                # A view of several pairs is the same object in each of them.
                if not any(boxes is known for known in self._added(compared.start)):
                    self._add_view(side, boxes, targets, compared)
        return torch.tensor([severity(change) for change in changes])

    def draw(self, view: Tensor, output: list[Detections], row: int) -> Tensor:
        """Return a view ``(C, H, W)`` with its boxes above the threshold and their scores."""
        boxes = output[row]
        return draw_boxes(view, [Drawn(boxes, boxes.scores >= self.settings.box_score, PLAIN)])

    def draw_difference(
        self, view: Tensor, first: list[Detections], second: list[Detections], compared: Compared, row: int
    ) -> list[tuple[Tensor, str]]:
        """Return the second view with its boxes and the lost ones; see `augkit.invariance.outputs.box_pictures`."""
        changes = self.changes(first[row], second[row], on_cpu(compared.matrix(self.setting.protocol.input_size))[row])
        found = sums(changes)
        caption = (
            f"red: {found['lost']:g} lost ({found['vanished']:g} vanished); orange: {found['new']:g} new"
            f" ({found['appeared']:g} appeared); violet: {found['class_changed']:g} of another class; green: others;"
            " boxes at the edges are left out"
        )
        return [(draw_changes(view, changes), caption)]

    def _added(self, start: int) -> list[list[Detections]]:
        """The views of the batch that begins with image ``start`` that average precision has seen."""
        if self._batch[0] != start:
            self._batch = (start, [])
        return self._batch[1]

    def _add_view(self, side: int, found: list[Detections], targets: list[Targets], compared: Compared) -> None:
        self._added(compared.start).append(found)
        protocol, view = self.setting.protocol, self._views.setdefault((compared.pair, side), ViewScores())
        period = protocol.input_size if self.setting.circular else None
        placed = on_cpu(compared.placed(side, protocol.input_size))
        matrices = placed @ geometry.shift(torch.tensor([protocol.start], dtype=placed.dtype))
        for k, (boxes, true, matrix) in enumerate(zip(found, targets, matrices, strict=True)):
            moved = Detections(true.boxes, np.ones(len(true.labels)), true.labels).moved(matrix, period)
            view.add(compared.start + k, boxes, Targets(moved.boxes, moved.labels), protocol.input_size)

    def state(self, images: int) -> State:
        """Beside the statistics, how many boxes there were, and what average precision needs."""
        views = {key: view.state(images) for key, view in self._views.items()}
        return super().state(images) | {"boxes": self._boxes, "seen": self._seen, "views": views}

    def restore(self, state: State, images: int) -> None:
        """Continue from a `state`."""
        super().restore(state, images)
        self._boxes, self._seen, self._images = state["boxes"], state["seen"], images
        self._views = {key: ViewScores(**view) for key, view in state["views"].items()}

    def results(self) -> KindResults:
        """Return the numbers of all images so far.

        Raises:
            InputError: no image has a box above the threshold.
        """
        if not self._seen:
            remedy = "lower box_score" if self._boxes else "lower the detector's own threshold"
            raise InputError(
                f"model: expected boxes of score {self.settings.box_score:g} or more, got none on all {self._images}"
                f" images ({self._boxes} boxes of any score); {remedy}"
            )
        found = super().results()
        numbers = {**found.numbers, **self._precision()}
        facts: dict[str, object] = {field.name: getattr(self.settings, field.name) for field in fields(self.settings)}
        notes: tuple[str, ...] = ()
        if not any(float(self.tally.statistics()[name].sum()) for name in ("first", "second")):
            notes = (
                "No box was compared: none of them lies whole in both views, at least"
                f" {self.settings.box_border:g} px from their edges.",
            )
        return KindResults(numbers, found.curves, {**found.settings, **facts}, (*found.notes, *notes))

    def _precision(self) -> dict[str, Estimate]:
        if not self._views:
            return {}
        views = list(self._views.values())
        whole = over_views(views, np.ones((1, self._images)))
        counts = next(iter(resamples(self._images, self.setting.seed)))[:AP_REPLICATES]
        drawn = over_views(views, counts.double().numpy())
        out = {}
        for name, value in whole.items():
            replicates = drawn[name][np.isfinite(drawn[name])]
            defined = math.isfinite(value[0]) and len(replicates)
            out[name] = percentile_interval(float(value[0]), replicates, 0.0, 1.0) if defined else UNDEFINED
        return out


def severity(changes: BoxChanges) -> float:
    """How bad a flicker looks: the total score of boxes that are lost, new or change class, then the lack of IoU."""
    pairs, moved, fixed = changes.pairs, changes.moved, changes.fixed
    counts = changes.pairs_count()
    first, second = pairs.first[counts], pairs.second[counts]
    other = moved.labels[first] != fixed.labels[second]
    total = moved.scores[changes.lost].sum() + fixed.scores[changes.new].sum() + moved.scores[first][other].sum()
    return float(total) + (float(1 - pairs.iou[counts].mean()) if counts.any() else 0.0)
