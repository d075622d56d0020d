"""Strength over the epochs of a training run, op by op: points ``[epoch, strength]`` and straight lines between them.

>>> strength_at([[0, 0.0], [10, 1.0]], 2.5)
0.25
"""

from __future__ import annotations

import itertools
from typing import Annotated

from pydantic import AfterValidator, Field

ALL, WORKERS = "all", "worker_ops"  # names in a schedule beside those of ops and `op_strengths.KORNIA`


def _rising(points: list[list[float]]) -> list[list[float]]:
    epochs, strengths = zip(*points, strict=True)
    if epochs[0] < 0 or not all(a < b for a, b in itertools.pairwise(epochs)):
        raise ValueError("points [epoch, strength] whose epochs rise, from 0 on")
    if not all(0 <= strength <= 1 for strength in strengths):
        raise ValueError("points [epoch, strength] whose strengths are in [0, 1]")
    return points


Number = Annotated[float, Field(strict=True)]  # else True would count as 1
Point = Annotated[list[Number], Field(min_length=2, max_length=2)]
Points = Annotated[list[Point], Field(min_length=1), AfterValidator(_rising)]


def strength_at(points: list[list[float]], epoch: float) -> float:
    """The strength after ``epoch`` epochs; constant before the first point and after the last."""
    for (start, low), (end, high) in itertools.pairwise(points):
        if start <= epoch < end:
            return low + (high - low) * (epoch - start) / (end - start)
    return points[0][1] if epoch < points[0][0] else points[-1][1]
