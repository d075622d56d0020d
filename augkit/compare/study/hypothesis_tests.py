"""Test a prediction of an effect: *supported*, *refuted* or *undetermined*.

Superiority is tested two-sided at 5 %, in agreement with the 95 % interval; equivalence ("about 0") by two
one-sided tests at 5 % each (Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power
approach"). A claim has the verdict of its primary part. p-values of the claims of a study are
corrected for interim analyses (`augkit.compare.study.sequential`), then for their number after Holm 1979, "A simple
sequentially rejective multiple test procedure".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

ALPHA = 0.05
MOST_SEEDS = 1000
SUPPORTED, REFUTED, UNDETERMINED, NOT_RUN = "supported", "refuted", "undetermined", "not run"
HOLDS, FAILS = "holds", "fails"  # verdicts of a check
PILOT = "pilot"  # of a claim about networks below the study's floor of accuracy, instead of a verdict
REPORTED = "reported"  # verdict of a part without a prediction
SMALLEST_P = 1e-3  # a smaller p depends on tails of the distribution that few seeds cannot verify
Bounds = tuple[float, float]


@dataclass(frozen=True)
class Decision:
    """p-values of the tests for a prediction (``p_for``) and against it (``p_against``), each in [0, 1]."""

    p_for: float
    p_against: float

    @property
    def verdict(self) -> str:
        """Verdict before any correction for the number of claims."""
        return verdict_of(self.p_for, self.p_against)

    @property
    def p(self) -> float:
        """The smaller of both p-values."""
        return min(self.p_for, self.p_against)


def verdict_of(p_for: float, p_against: float) -> str:
    """Verdict at 5 %: ``supported``, ``refuted`` or ``undetermined``."""
    if p_for < ALPHA:
        return SUPPORTED
    return REFUTED if p_against < ALPHA else UNDETERMINED


def p_words(p: float) -> str:
    """A p-value as text, such as ``p = 0.012`` or ``p < 0.001``."""
    return f"p < {SMALLEST_P:g}" if p < SMALLEST_P else f"p = {p:.2g}"


def tail(value: float, error: float, freedom: float) -> float:
    """P(T > value / error) for Student's t; 0, 1/2 or 1 if ``error`` is 0.

    >>> round(tail(2.776, 1.0, 4), 3)
    0.025
    """
    from scipy.stats import t

    if error == 0 or math.isinf(value):
        return 0.5 * (1 - math.copysign(1, value)) if value else 0.5
    return float(t.sf(value / error, freedom))


def decide(value: float, error: float, freedom: float, bounds: Bounds) -> Decision:
    """Test a prediction.

    Args:
        value: value of the effect; NaN gives p-values of 1.
        error: standard error; 0 for an exact number.
        freedom: degrees of freedom of Student's t.
        bounds: interval of the prediction; two finite bounds are a test of equivalence.
    """
    low, high = bounds
    finite = [bound for bound in bounds if math.isfinite(bound)]
    if not math.isfinite(value) or not finite:
        return Decision(1.0, 1.0)
    inside = [tail(value - low, error, freedom), tail(high - value, error, freedom)]
    outside = [tail(low - value, error, freedom), tail(value - high, error, freedom)]
    sides = 3 - len(finite)  # equivalence: two one-sided tests; superiority: one two-sided test
    return Decision(min(1.0, sides * max(inside)), min(1.0, 2 * min(outside)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the order given.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))) if len(p) else p
    out = np.empty_like(p)
    out[order] = adjusted
    return [float(value) for value in out]


def power(effect: float, spread: float, seeds: int, bounds: Bounds, alpha: float = ALPHA) -> float:
    """Power of a t test over ``seeds`` of whether an effect lies within ``bounds``.

    Args:
        effect: the true mean over seeds.
        spread: standard deviation between seeds.
        seeds: number of seeds, at least 2.
        bounds: as in `decide`. For two finite bounds the result is a lower bound of the power, because both tests must
            succeed; it is tight where the power is high.
        alpha: level of the two-sided test, or of each of the two one-sided tests of equivalence.
    """
    return power_at(effect, spread / math.sqrt(seeds), seeds - 1, bounds, alpha)


def power_at(effect: float, error: float, freedom: float, bounds: Bounds, alpha: float = ALPHA) -> float:
    """As `power`, for an effect whose estimate has a standard error with these degrees of freedom."""
    from scipy.stats import t

    finite = [bound for bound in bounds if math.isfinite(bound)]
    level = alpha if len(finite) == 2 else alpha / 2
    found = []
    for bound, distance in zip(bounds, (effect - bounds[0], bounds[1] - effect), strict=True):
        if not math.isfinite(bound):
            continue
        if error == 0:
            found.append(float(distance > 0))
            continue
        found.append(_noncentral_t_tail(t.ppf(1 - level, freedom), freedom, distance / error))
    return max(0.0, sum(found) - (len(found) - 1)) if found else 0.0


def _noncentral_t_tail(critical: float, freedom: float, noncentrality: float) -> float:
    """Return P(T > critical) for ``T = (Z + noncentrality) / sqrt(chi2 / freedom)``, Z normal and chi2 independent.

    It is the mean of P(Z > critical sqrt(chi2 / freedom) - noncentrality) over chi2, whose quantiles stand at equally
    spaced places of a normal variable: for such smooth, vanishing integrands the trapezoidal rule converges
    exponentially. ``scipy.stats.nct`` gives NaN for some large effects in scipy 1.11.
    """
    from scipy.special import chdtri, ndtr

    z = np.linspace(-8.0, 8.0, 801)
    weight = np.exp(-(z**2) / 2)
    ratio = np.sqrt(chdtri(freedom, ndtr(-z)) / freedom)
    return float(ndtr(noncentrality - critical * ratio) @ weight / weight.sum())


def seeds_needed(
    effect: float,
    error_with: Callable[[int], tuple[float, float]],
    bounds: Bounds,
    wanted: float = 0.8,
    alpha: float = ALPHA,
) -> int | None:
    """Number of seeds for a given power, if the true effect is the given one.

    Args:
        effect: the effect.
        error_with: its standard error and degrees of freedom with a number of seeds of at least 2, on the same images
            and with the same arms.
        bounds: as in `decide`; if the effect lies outside, the result is the number of seeds to refute the prediction.
        wanted: the power.
        alpha: as in `power`; lower if many claims are tested.

    Returns:
        The smallest number of seeds; None if 1,000 are not enough, such as for effects on a bound, or where the error
        comes from the images or from the scatter of the arms.
    """
    if not math.isfinite(effect) or not any(math.isfinite(bound) for bound in bounds):
        return None
    if effect < bounds[0]:
        bounds = (-math.inf, bounds[0])
    elif effect > bounds[1]:
        bounds = (bounds[1], math.inf)

    def enough(seeds: int) -> bool:
        return power_at(effect, *error_with(seeds), bounds, alpha) >= wanted

    if not enough(MOST_SEEDS):
        return None
    low, high = 2, MOST_SEEDS
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return low
