"""How much of the invariance that networks gain on typical images carries over to other images.

Every network is a point: x is the logarithm of its variability on typical images, y that on atypical images. The
slope of the line through the points is the share that carries over: 1 is all, 0 is none, and a negative slope is
harm. Unlike a difference of shares (`augkit.invariance.transfer`) the slope does not depend on the starting point, and
it uses every network of a study: controls, treated networks, and all strengths between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from augkit.core.errors import InputError
from augkit.invariance.bootstrap import LEVEL, UNDEFINED, Estimate, Run, per_seed
from augkit.invariance.learned import DEFAULT, FLOOR, rounding, too_little
from augkit.invariance.report import InvarianceReport

FEWEST = 5  # networks


@dataclass(frozen=True)
class CarryOver:
    """The share of a change in variability that carries over to other images, with the points of the fit.

    Attributes:
        slope: slope of the line, with its 95 % interval; undefined where ``reason`` is not empty.
        intercept: intercept of the line, for figures.
        typical, atypical: variability of every network on typical and on atypical images.
        names: names of the networks.
        reason: why the slope is undefined; empty where it is defined.
    """

    slope: Estimate
    intercept: float
    typical: list[float]
    atypical: list[float]
    names: list[str] = field(default_factory=list)
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        """Slope, intercept, points and reason for JSON."""
        line = {"slope": self.slope.to_dict(), "intercept": self.intercept if self.slope.defined else None}
        points = [
            {"name": name, "typical": _finite(x), "atypical": _finite(y)}
            for name, x, y in zip(self.names, self.typical, self.atypical, strict=True)
        ]
        return {**line, "networks": len(points), "points": points, "reason": self.reason or None}


def carry_over(
    typical: Sequence[InvarianceReport],
    atypical: Sequence[InvarianceReport],
    names: Sequence[str] = (),
    *,
    metric: str = DEFAULT,
    seed: int = 0,
) -> CarryOver:
    """Fit a line to the log variability of networks on atypical images against that on typical images.

    The fit is by least squares. Its error combines the scatter of the networks around the line (Student's t, with two
    degrees of freedom fewer than there are networks) and the sampling of images (a bootstrap whose resamples all
    networks share).

    Args:
        typical, atypical: one report per network, in the same order. All typical reports are on the same images, and
            so are all atypical ones.
        names: names of the networks; numbers when left out.
        metric: a variability that every report holds.
        seed: seed of the bootstrap.

    Returns:
        The slope with the points of the fit. It is undefined, with a reason, for fewer than five networks whose
        variability is known on both sets, for networks that all vary alike, and for networks whose answers depend
        too little on the atypical images.

    Raises:
        InputError: the reports are not on the same images under the same protocol, or their numbers differ.
    """
    names = list(names) or [str(k) for k in range(len(typical))]
    if not len(typical) == len(atypical) == len(names):
        raise InputError(
            f"carry_over: expected a typical and an atypical report of every network, got {len(typical)} and"
            f" {len(atypical)} of {len(names)}"
        )
    if any(len({report.fingerprint for report in group}) > 1 for group in (typical, atypical)):
        raise InputError("carry_over: expected reports on the same images under the same protocol, shifts and seed")
    precision = typical[0].settings.precision if typical else "float32"
    here, there = ([report.statistics for report in group] for group in (typical, atypical))
    return carry_over_of(here, there, names, metric=metric, precision=precision, seed=seed)


def carry_over_of(
    typical: Sequence[Run],
    atypical: Sequence[Run],
    names: Sequence[str],
    *,
    metric: str = DEFAULT,
    precision: str = "float32",
    seed: int = 0,
) -> CarryOver:
    """`carry_over` from per-image statistics, one run per network, all measured in one precision."""
    names = list(names)
    if len(names) < FEWEST:
        return _undefined(names, [math.nan] * len(names), [math.nan] * len(names), _too_few(len(names)))
    sides = [per_seed([metric], runs, seed=seed)[metric] for runs in (typical, atypical)]
    least = max(FLOOR, rounding(metric, precision))
    found = (sides[0].values.tolist(), sides[1].values.tolist())
    reason = too_little(atypical, typical)
    if reason:
        return _undefined(names, *found, reason)
    known = np.isfinite(sides[0].values) & np.isfinite(sides[1].values)
    if known.sum() < FEWEST:
        return _undefined(names, *found, _too_few(int(known.sum())))
    x, y = (np.log(np.maximum(side.values[known], least)) for side in sides)
    drawn = [np.log(np.maximum(side.images[:, known], least)) for side in sides]
    slope, intercept = fit_line(x, y)
    if not math.isfinite(slope):
        return _undefined(names, *found, "all networks vary alike on typical images")
    replicates = fit_line(*drawn)[0]
    half = _half_width(x, y - intercept - slope * x, float(np.var(replicates[np.isfinite(replicates)])))
    return CarryOver(Estimate(slope, slope - half, slope + half), intercept, *found, names)


def fit_line(x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
    """Return slope and intercept by least squares along the last axis; NaN where all ``x`` are equal."""
    dx = x - x.mean(-1, keepdims=True)
    energy = (dx**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(energy > 1e-18, (dx * y).sum(-1) / energy, math.nan)
    intercept = y.mean(-1) - slope * x.mean(-1)
    return (float(slope), float(intercept)) if x.ndim == 1 else (slope, intercept)


def _half_width(x: np.ndarray, residuals: np.ndarray, from_images: float) -> float:
    from scipy.special import stdtrit  # Student's t; `scipy.stats` takes seconds to import

    freedom = len(x) - 2
    scatter = float((residuals**2).sum()) / freedom / float(((x - x.mean()) ** 2).sum())
    return float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(scatter + from_images)


def _undefined(names: list[str], typical: list[float], atypical: list[float], reason: str) -> CarryOver:
    return CarryOver(UNDEFINED, math.nan, typical, atypical, names, reason)


def _too_few(count: int) -> str:
    return f"expected {FEWEST} networks or more whose variability is known, got {count}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
