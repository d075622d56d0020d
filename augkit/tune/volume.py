"""Dominated volume: the hypervolume indicator of Zitzler & Thiele 1998, computed exactly by slicing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def dominated_volume(points: Sequence[Sequence[float]], reference: Sequence[float]) -> float:
    """Volume that the points dominate above ``reference``, with all objectives maximized.

    Args:
        points: (N, D) values; a point adds nothing if a value is not finite or not above the reference.
        reference: (D,) values, where D is 2 or 3.

    Raises:
        ValueError: D is not 2 or 3, or a point does not have D values.

    >>> dominated_volume([[1, 3], [2, 2]], [0, 0])
    5.0
    """
    corner = np.asarray(reference, dtype=float)
    if corner.shape not in {(2,), (3,)} or not np.isfinite(corner).all():
        raise ValueError(f"reference: expected 2 or 3 finite numbers, got {reference}")
    if any(len(point) != len(corner) for point in points):
        raise ValueError(f"points: expected {len(corner)} values each, as the reference has")
    gains = np.asarray(points, dtype=float).reshape(-1, len(corner)) - corner
    gains = gains[np.isfinite(gains).all(1) & (gains > 0).all(1)]
    return _area(gains) if len(corner) == 2 else _sliced(gains)


def _area(gains: Array) -> float:
    """Area that (N, 2) gains over the reference dominate."""
    down = gains[np.argsort(-gains[:, 0])]
    widths = -np.diff(down[:, 0], append=0.0)
    return float((widths * np.maximum.accumulate(down[:, 1])).sum()) if len(down) else 0.0


def _sliced(gains: Array) -> float:
    """Volume that (N, 3) gains dominate: each slice between two heights has the area of the points above it."""
    down = gains[np.argsort(-gains[:, 2])]
    depths = -np.diff(down[:, 2], append=0.0) if len(down) else np.empty(0)
    return float(sum(depth * _area(down[: k + 1, :2]) for k, depth in enumerate(depths) if depth))
