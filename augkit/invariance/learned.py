"""Learned and architectural invariance: how much variability augmentation, or architecture, removed.

``L = 1 - V(treated) / V(control)``: 1 is perfect, 0 nothing, negative is harm. V is a variability under shift,
Jensen-Shannon divergence by default. The interval is computed on ``log(V_treated / V_control)``, paired by seed
and by image. *Transfer* is L on atypical images minus L on typical ones: a difference, because ratios explode
near 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from augkit.errors import InputError
from augkit.invariance.intervals import UNDEFINED, Estimate, Replicates, combine, replicates
from augkit.invariance.reports import InvarianceReport

VARIABILITIES: tuple[str, ...] = (
    "js",
    "top1_change",
    "mac",
    "worst_case",
    "jaggedness",
    "logit_change",
    "logit_change_max",
)
VARIABILITIES += ("from_unshifted_js", "blur_matched_js", "blur_only_js")
# By how much rounding moves logits of the size that networks give; float32 when a report names no precision.
LOGIT_ROUNDING = {"float32": 1e-5, "fp16": 1e-2, "bf16": 1e-1}
FLOOR = 1e-12

Reports = InvarianceReport | Sequence[InvarianceReport]


def learned_invariance(treated: Reports, control: Reports, *, metric: str = "js", seed: int = 0) -> Estimate:
    """Share of the control's variability that the treatment removed, with its 95 % interval.

    Args:
        treated, control: one report, or one per training seed in the same order; all on the same images under
            the same protocol.
        metric: one of `VARIABILITIES`, which the reports hold.
        seed: of the bootstrap.

    Returns:
        The estimate; undefined (NaN) where the control's variability is below its own noise: less than two
        standard errors over images, or of the order of float rounding.

    Raises:
        InputError: the reports do not belong together.
    """
    log_ratio = _log_ratio(_several(treated), _several(control), metric, seed)
    if log_ratio is None:
        return UNDEFINED
    interval = log_ratio.estimate()
    return Estimate(*(1 - math.exp(bound) for bound in (interval.value, interval.high, interval.low)))


def architectural_invariance(model: Reports, reference: Reports, *, metric: str = "js", seed: int = 0) -> Estimate:
    """As `learned_invariance`, with the reference architecture, both without augmentation, as the control."""
    return learned_invariance(model, reference, metric=metric, seed=seed)


def transfer(
    typical: tuple[Reports, Reports], atypical: tuple[Reports, Reports], *, metric: str = "js", seed: int = 0
) -> Estimate:
    """Learned invariance on atypical images minus that on typical ones; each pair is (treated, control).

    Paired by seed, and by image where both sets hold versions of the same images in the same order.
    """
    parts = [_log_ratio(_several(a), _several(b), metric, seed) for a, b in (atypical, typical)]
    if parts[0] is None or parts[1] is None:
        return UNDEFINED
    if parts[0].seeds != parts[1].seeds:
        raise InputError("transfer: expected as many seeds on typical as on atypical images")
    return combine(lambda a, b: np.exp(b) - np.exp(a), parts[0], parts[1]).estimate()


def verdict(estimate: Estimate) -> str:
    """``positive``, ``negative`` or ``undetermined``, by where the interval lies; ``undefined`` stays so."""
    if not estimate.defined:
        return "undefined"
    if estimate.low > 0:
        return "positive"
    return "negative" if estimate.high < 0 else "undetermined"


def rounding(metric: str, precision: str) -> float:
    """What a network that is invariant but for rounding may score; its variability says nothing below that.

    Logits that move by up to d move probabilities by at most d / 2, and JS by at most about d**2 / (8 ln 2) bits. What
    counts answers has no such floor: an answer that rounding changes is a changed answer.
    """
    moved = LOGIT_ROUNDING[precision]
    if metric.endswith("js"):
        return max(1e-9, moved**2 / (8 * math.log(2)))
    return {"mac": moved / 2, "logit_change": moved, "logit_change_max": moved}.get(metric, 0.0)


def _several(reports: Reports) -> list[InvarianceReport]:
    return [reports] if isinstance(reports, InvarianceReport) else list(reports)


def _log_ratio(
    treated: list[InvarianceReport], control: list[InvarianceReport], metric: str, seed: int
) -> Replicates | None:
    if metric not in VARIABILITIES:
        raise InputError(f"metric: expected one of {', '.join(VARIABILITIES)}, got {metric!r}")
    if len(treated) != len(control):
        raise InputError(f"expected as many treated runs as controls, got {len(treated)} and {len(control)}")
    if len({report.fingerprint for report in treated + control}) != 1:
        raise InputError("expected reports on the same images under the same protocol, shifts and seed")
    above = replicates(metric, [report.statistics for report in treated], seed=seed)
    below = replicates(metric, [report.statistics for report in control], seed=seed)
    precision = control[0].settings.get("precision", "float32")
    if below.value - 2 * float(below.images.std()) <= rounding(metric, precision):
        return None
    return combine(lambda a, b: np.log(np.maximum(a, FLOOR) / np.maximum(b, FLOOR)), above, below)
