"""Keypoints ``(B, K, 2)`` in pixels, or ``(B, K, 3)`` with a score: how far they are from where the image moved them.

A keypoint is compared if it lies on both views (x from -0.5 to W - 0.5), both where the first view has it, moved, and
where the second has it; one with a score also needs the threshold in both views. On a torus the shortest way counts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from augkit.augment.targets import move_points, visible
from augkit.core.errors import InputError
from augkit.core.precision import exactly
from augkit.invariance.accumulator import State
from augkit.invariance.bootstrap import UNDEFINED, Estimate, percentile_interval, resamples
from augkit.invariance.metrics import Metric
from augkit.invariance.outputs.base import (
    Compared,
    KindResults,
    OutputMeasure,
    OutputSetting,
    SameShape,
    checked_tensor,
    tensor_in,
)
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR, ratio_of

SCORE = 0.3  # default threshold of keypoints that have a score
FAR = 1.0  # pixels beyond which a keypoint counts as moved
QUANTILES = {"error_median": 0.5, "error_95": 0.95}


QUANTILE_ROWS = tuple(
    # No functions of means over images, so `KeypointMeasure.results` computes them.
    Metric(name, title, f"{title} over keypoints", ("errors",), None, unit="pixels", high=math.inf)
    for name, title in (("error_median", "median error"), ("error_95", "95 % quantile of the error"))
)


class KeypointMeasure(OutputMeasure):
    """Compares keypoints; see the head of this file."""

    rows = (
        EQUIVARIANCE_ERROR,
        ratio_of(
            "error", "mean error", ("distance", "points"), "mean distance from the moved keypoint", unit="pixels",
            high=math.inf,
        ),
        ratio_of("far", "further than 1 px", ("far", "points"), "share of keypoints more than a pixel from the moved"),
        ratio_of(
            "one_sided", "in one view only", ("one_sided", "either"),
            "share of the keypoints on both views whose score reaches the threshold in one view only",
        ),
        *QUANTILE_ROWS,
    )  # fmt: skip

    def __init__(self, setting: OutputSetting) -> None:
        super().__init__(setting)
        given = setting.options.keypoint_score
        self.score = SCORE if given is None else given
        self._shape = SameShape()
        self._distances: list[Tensor] = []
        self._owners: list[Tensor] = []
        self._images = 0

    def take(self, output: Any, batch: int) -> Tensor:
        """Return keypoints ``(batch, K, 2)`` or ``(batch, K, 3)`` in the output of a network."""
        found = checked_tensor(output, batch, "keypoints (B, K, 2) or (B, K, 3)", 3)
        if found.shape[-1] not in (2, 3) or not found.shape[1]:
            shape = tuple(found.shape)
            raise InputError(f"model: expected keypoints (B, K, 2) or (B, K, 3), got {shape}; wrap it to give these")
        return self._shape.check(found)

    def add(self, first: Tensor, second: Tensor, compared: Compared) -> Tensor:
        """Compare the keypoints of two views; the score of an image is its largest error in pixels."""
        size = self.setting.protocol.input_size
        moved, there = move_points(compared.matrix(size).to(first), first[..., :2]), second[..., :2]
        off = there - moved
        shared = visible(moved, size) & visible(there, size)
        if self.setting.circular:
            period = off.new_tensor([size[1], size[0]])
            off = off - (off / period).round() * period
            shared = torch.ones_like(shared)
        sure = [torch.ones_like(shared) if p.shape[-1] == 2 else p[..., 2] >= self.score for p in (first, second)]
        counts, either = shared & sure[0] & sure[1], shared & (sure[0] | sure[1])
        off, expected = exactly(off), exactly(moved)
        counts, either = counts.to(off.device), either.to(off.device)
        distance = off.norm(dim=-1) * counts
        points = counts.sum(1)
        varied, relative = _relative(distance, expected, counts)
        self.tally.add(
            compared.start,
            {
                "distance": distance.sum(1),
                "far": ((distance > FAR) & counts).sum(1),
                "points": points,
                "one_sided": (either & ~counts).sum(1),
                "either": either.sum(1),
                "relative": relative,
                "varied": varied,
            },
        )
        image = torch.arange(compared.start, compared.start + len(first), device=counts.device)
        self._distances.append(distance[counts].cpu())
        self._owners.append(image[:, None].expand_as(counts)[counts].cpu())
        self._images = max(self._images, compared.start + len(first))
        return distance.amax(1)

    def state(self, images: int) -> State:
        """Beside the statistics, the errors of all keypoints."""
        owners, distances = torch.cat(self._owners), torch.cat(self._distances)
        errors = {"owners": owners[owners < images], "distances": distances[owners < images]}
        return super().state(images) | errors

    def restore(self, state: State, images: int) -> None:
        """Continue from a `state`."""
        super().restore(state, images)
        self._owners, self._distances, self._images = [state["owners"]], [state["distances"]], images

    def results(self) -> KindResults:
        """Return the numbers of all images so far, with the quantiles of the error in pixels."""
        found = super().results()
        errors = _quantiles(torch.cat(self._distances), torch.cat(self._owners), self._images, self.setting.seed)
        notes = found.notes
        if not sum(map(len, self._distances)):
            notes = (*notes, "No keypoint lies on both views with a score above the threshold, so none was compared.")
        settings = {**found.settings, "keypoint_score": self.score}
        return KindResults({**found.numbers, **errors}, found.curves, settings, notes)


def is_keypoints(output: Any, batch: int) -> bool:
    """Whether the output of a network for ``batch`` images looks like keypoints."""
    found = tensor_in(output)
    return isinstance(found, Tensor) and found.ndim == 3 and len(found) == batch and found.shape[-1] in (2, 3)


def _relative(distance: Tensor, points: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the keypoints of an image differ ``(B,)``, and their error relative to that about their mean ``(B,)``."""
    number = counts.sum(1).clamp(min=1)
    middle = (points * counts[..., None]).sum(1) / number[:, None]
    spread = ((points - middle[:, None]).square().sum(-1) * counts).sum(1) / number
    error = distance.square().sum(1) / number
    varied = spread > 0
    return varied.double(), torch.where(varied, (error / spread.where(varied, torch.ones_like(spread))).sqrt(), 0.0)


def _quantiles(values: Tensor, owners: Tensor, images: int, seed: int) -> dict[str, Estimate]:
    """Quantiles of ``values`` ``(n,)``, with intervals that resample the images ``owners`` ``(n,)`` they are from."""
    if not len(values):
        return dict.fromkeys(QUANTILES, UNDEFINED)
    ordered, order = values.double().sort(stable=True)
    owner = owners[order]
    wanted = torch.tensor(list(QUANTILES.values()), dtype=torch.float64)

    def at(counts: Tensor) -> Tensor:
        """The smallest values with at least those shares at or below, ``(R, Q)``, for weights ``(R, images)``."""
        below = counts.double()[:, owner].cumsum(1)
        place = torch.searchsorted(below, wanted * below[:, -1:] - 1e-9).clamp_max(len(ordered) - 1)
        return torch.where(below[:, -1:] > 0, ordered[place], torch.nan)

    whole = at(torch.ones(1, images))[0]
    drawn = torch.cat([at(part) for block in resamples(images, seed) for part in block.split(64)])
    out = {}
    for name, value, column in zip(QUANTILES, whole, drawn.unbind(1), strict=True):
        out[name] = percentile_interval(float(value), column[column.isfinite()].numpy(), 0.0)
    return out
