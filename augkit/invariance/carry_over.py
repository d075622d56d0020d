"""How much of the invariance that networks gain on typical images arrives on other images.

Every network is a point: the logarithm of its variability on typical images, and that on others. The slope of the line
through them is how much arrives: 1 is all of it, 0 is nothing, and negative is harm. Unlike a difference of shares
(`augkit.invariance.transfer`) it does not depend on where one starts, and it uses every network of a run or study:
controls, treated, and all strengths between.
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
    """The share of a variability's change that arrives on other images, with the points of the fit.

    Attributes:
        slope: with its 95 % interval; undefined where ``reason`` says why.
        intercept: of the line, so that it can be drawn.
        typical, atypical: variability of every network.
        names: of the networks.
        reason: in words, empty where the slope is defined.
    """

    slope: Estimate
    intercept: float
    typical: list[float]
    atypical: list[float]
    names: list[str] = field(default_factory=list)
    reason: str = ""

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
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
    """The slope of log variability on atypical images over that on typical ones, over networks.

    Least squares; its error joins the scatter of the networks around the line, with Student's t on two degrees of
    freedom less than networks, and the error from the images, by a bootstrap over images that all networks share.

    Args:
        typical, atypical: one report of each network, in one order; all typical reports on the same images, and all
            atypical ones.
        names: of the networks; numbers when left out.
        metric: a variability that every report holds.
        seed: of the bootstrap.

    Returns:
        An undefined slope, with its reason, for fewer than five networks whose variability is known on both sets, for
        networks that all vary alike, and where they say too little about the atypical images.

    Raises:
        InputError: the reports do not belong together.
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
    """`carry_over` of statistics per image, one run of each network, measured in one precision."""
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
    """Slope and intercept by least squares along the last axis; NaN where all ``x`` are one."""
    dx = x - x.mean(-1, keepdims=True)
    energy = (dx**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(energy > 1e-18, (dx * y).sum(-1) / energy, math.nan)
    intercept = y.mean(-1) - slope * x.mean(-1)
    return (float(slope), float(intercept)) if x.ndim == 1 else (slope, intercept)


def _half_width(x: np.ndarray, residuals: np.ndarray, from_images: float) -> float:
    from scipy.stats import t

    freedom = len(x) - 2
    scatter = float((residuals**2).sum()) / freedom / float(((x - x.mean()) ** 2).sum())
    return float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(scatter + from_images)


def _undefined(names: list[str], typical: list[float], atypical: list[float], reason: str) -> CarryOver:
    return CarryOver(UNDEFINED, math.nan, typical, atypical, names, reason)


def _too_few(count: int) -> str:
    return f"expected {FEWEST} networks or more whose variability is known, got {count}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
