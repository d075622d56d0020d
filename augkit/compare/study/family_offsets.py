"""Whether families of networks share one line of log variability on atypical against typical images.

The mixed model is ``y[a, s] = intercept[s] + slope * x[a, s] + offset[family of a] + u[a] + e[a, s]`` for arm a and
seed s. The arm effect u is random: seeds of one arm are not independent evidence about a family, and a study has a few
arms of each. Every arm has the same seeds, so slope and offsets are estimated from the means of the arms over seeds, in
which seed effects cancel. Their errors come from the scatter of these means around the lines, with as many degrees of
freedom as arms are left after the parameters. The variance over resampled images is added, because all arms are
measured on the same images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from augkit.compare.study.claims import TYPICAL, Part
from augkit.compare.study.column_table import ColumnTable, Effect, MissingError
from augkit.invariance.bootstrap import LEVEL, UNDEFINED, Estimate, PerSeed, Replicates
from augkit.invariance.learned import FLOOR, rounding


@dataclass(frozen=True)
class FittedReplicates(Replicates):
    """A number from a fit, with its own standard error and degrees of freedom."""

    standard_error: float
    freedom: float

    def error(self) -> tuple[float, float]:
        """Return the standard error and its degrees of freedom."""
        return self.standard_error, self.freedom

    def error_with(self, seeds: int) -> tuple[float, float]:
        """Return `error`: most of it is the scatter of the arms around the lines, which more seeds do not reduce."""
        return self.error()

    def estimate(self, low: float = -math.inf, high: float = math.inf) -> Estimate:
        """Return the value with its 95 % interval, clipped to ``[low, high]``."""
        from scipy.stats import t

        if not math.isfinite(self.value):
            return UNDEFINED
        half = float(t.ppf((1 + LEVEL) / 2, self.freedom)) * self.standard_error
        return Estimate(self.value, max(low, self.value - half), min(high, self.value + half))


@dataclass(frozen=True)
class FittedEffect(Effect):
    """An effect from a fit over all arms and seeds; ``seeds`` has the fit of each seed alone."""

    fitted: FittedReplicates

    @property
    def replicates(self) -> Replicates:
        """The effect with the error of the fit."""
        return self.fitted


def family_offset(view: ColumnTable, part: Part, images: str) -> Effect:
    """Offset of one family of arms against another in log variability, at equal log variability on typical images.

    Raises:
        MissingError: fewer than two arms would be left to estimate the scatter from.
    """
    families = part.families or {}
    arms = [(name, family) for family, names in families.items() for name in names]
    x, x_drawn = _logs(view, part, [name for name, _ in arms], TYPICAL)
    y, y_drawn = _logs(view, part, [name for name, _ in arms], images)
    known = np.isfinite(x).all(1) & np.isfinite(y).all(1)
    labels = np.array([family for _, family in arms])[known]
    x, y, x_drawn, y_drawn = x[known], y[known], x_drawn[known], y_drawn[known]
    freedom = len(labels) - len(set(labels)) - 1
    pair = (str(part.family), str(part.against))
    if freedom < 2 or not set(pair) <= set(labels):
        raise MissingError(
            f"family_offset: expected arms of {pair[0]} and {pair[1]}, and two more than families and slope"
        )
    value, scatter = fit_offset(x.mean(1), y.mean(1), labels, pair)
    drawn, _ = fit_offset(x_drawn.mean(2), y_drawn.mean(2), labels, pair)
    of_seeds, _ = fit_offset(x, y, labels, pair)
    both, _ = fit_offset(x_drawn.reshape(len(x), -1), y_drawn.reshape(len(x), -1), labels, pair)
    error = math.sqrt(float(scatter) ** 2 + float(np.var(drawn)))
    count = view.variability(arms[0][0], part.measure, images, part.metric).n_images
    fitted = FittedReplicates(float(value), drawn, drawn, x.shape[1], error, freedom)
    return FittedEffect(PerSeed(of_seeds, both.reshape(-1, x.shape[1])), count, fitted)


def fit_offset(
    x: np.ndarray, y: np.ndarray, labels: np.ndarray, pair: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares lines of one slope through families of points; offset of the first of ``pair`` against the second.

    Args:
        x, y: ``(A, ...)``, one row per arm; further axes are fitted apart.
        labels: the family of each arm ``(A,)``.
        pair: two families.

    Returns:
        The offset and its standard error, ``(...)`` each.

    >>> x, labels = np.array([0.0, 1.0, 2.0, 0.0, 1.0, 2.0]), np.array(list("aaabbb"))
    >>> offset, error = fit_offset(x, 2 * x + (labels == "b"), labels, ("b", "a"))
    >>> round(float(offset), 6), round(float(error), 6)
    (1.0, 0.0)
    """
    names = list(dict.fromkeys(labels.tolist()))
    means = {name: (x[labels == name].mean(0), y[labels == name].mean(0)) for name in names}
    counts = {name: int((labels == name).sum()) for name in names}
    dx = np.stack([row - means[name][0] for row, name in zip(x, labels.tolist(), strict=True)])
    dy = np.stack([row - means[name][1] for row, name in zip(y, labels.tolist(), strict=True)])
    energy = (dx**2).sum(0)
    slope = (dx * dy).sum(0) / np.maximum(energy, FLOOR)
    apart_x, apart_y = (means[pair[0]][k] - means[pair[1]][k] for k in (0, 1))
    freedom = max(1, len(labels) - len(names) - 1)
    variance = ((dy - slope * dx) ** 2).sum(0) / freedom
    spread = sum(1 / counts[name] for name in pair) + apart_x**2 / np.maximum(energy, FLOOR)
    return np.asarray(apart_y - slope * apart_x), np.sqrt(variance * spread)


def _logs(view: ColumnTable, part: Part, arms: list[str], images: str) -> tuple[np.ndarray, np.ndarray]:
    """Log variability ``(A, S)`` and its replicates over images ``(A, R, S)``; NaN where it is within rounding."""
    least = max(rounding(part.metric, "float32"), FLOOR)
    values, drawn = [], []
    for arm in arms:
        found = view.variability(arm, part.measure, images, part.metric).seeds
        said = not view.why_undefined(arm, part.measure, images)
        known = np.where((found.values > least) & said, found.values, math.nan)
        values.append(np.log(known))
        drawn.append(np.log(np.maximum(found.images, least)))
    return np.stack(values), np.stack(drawn)
