"""Learned and architectural invariance: the share of variability that augmentation, or architecture, removed.

``L = 1 - V(treated) / V(control)``: 1 is perfect, 0 is no gain, negative is harm. V is a variability under shift, by
default `shift_information`, which hardly depends on confidence. The interval is computed on the mean over
training seeds of ``log(V_treated / V_control)``, paired by seed and by image. *Transfer* is L on atypical images minus
L on typical ones: a difference, because ratios explode near 0.

No single number decides that one network is more invariant than another: see `compare_invariance`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from augkit.core.errors import InputError, brief
from augkit.invariance.bootstrap import (
    PREDICTIONS,
    UNDEFINED,
    Estimate,
    PerSeed,
    Replicates,
    Run,
    combine_seeds,
    means_per_seed,
    per_seed,
)
from augkit.invariance.information import UNCHANGED, matched_js
from augkit.invariance.metrics import METRICS, names_of
from augkit.invariance.report import InvarianceReport

DEFAULT = "shift_information"
MATCHED = "entropy_matched_js"  # needs two networks, so a single report does not have it
AGREEING = (DEFAULT, MATCHED, "top1_change")  # must have one sign for a verdict
VARIABILITIES = names_of(lambda row: row.variability)
# Typical change of logits by rounding; float32 when a report has no precision.
LOGIT_ROUNDING = {"float32": 1e-5, "fp16": 1e-2, "bf16": 1e-1}
FLOOR = 1e-12
LEAST_SAID = 0.1  # of the information in answers to typical images; answers to others that carry less are not compared

Reports = InvarianceReport | Sequence[InvarianceReport]


def learned_invariance(treated: Reports, control: Reports, *, metric: str = DEFAULT, seed: int = 0) -> Estimate:
    """Return the share of the control's variability that the treatment removed, with its 95 % interval.

    Args:
        treated, control: one report, or one per training seed in the same order; all on the same images under
            the same protocol.
        metric: one of `VARIABILITIES`, which the reports hold. With ``entropy_matched_js`` the logits of each treated
            network are first scaled until its answers to unshifted images are as confident as those of its control.
        seed: seed of the bootstrap.

    Returns:
        The estimate. It is undefined (NaN) where the control's variability is below its own noise (less than two
        standard errors over images, or of the order of float rounding), where the answers carry no information, or
        where no scaling makes the confidences equal.

    Raises:
        InputError: the metric is not one of `VARIABILITIES`, or the reports are not on the same images under the same
            protocol, in equal numbers.
    """
    ratios = log_ratios(treated, control, metric=metric, seed=seed)
    return UNDEFINED if ratios is None else as_share(ratios.over_seeds())


def architectural_invariance(model: Reports, reference: Reports, *, metric: str = DEFAULT, seed: int = 0) -> Estimate:
    """Return the share of a reference architecture's variability that another architecture removed.

    Both are trained without augmentation. Arguments, result and errors are those of `learned_invariance`, with the
    reference as the control.
    """
    return learned_invariance(model, reference, metric=metric, seed=seed)


def transfer(
    typical: tuple[Reports, Reports], atypical: tuple[Reports, Reports], *, metric: str = DEFAULT, seed: int = 0
) -> Estimate:
    """Return learned invariance on atypical images minus that on typical images.

    Args:
        atypical, typical: pairs (treated, control) of reports on each set of images. The difference is paired by seed,
            and by image where both sets hold versions of the same images in the same order.
        metric, seed: as in `learned_invariance`.

    Returns:
        The difference; undefined where `unsaid` gives a reason.

    Raises:
        InputError: as in `learned_invariance`, or the two sets have different numbers of seeds.
    """
    there, here = (log_ratios(*pair, metric=metric, seed=seed) for pair in (atypical, typical))
    if there is None or here is None or any(unsaid(a, t) for a, t in zip(atypical, typical, strict=True)):
        return UNDEFINED
    if len(there.values) != len(here.values):
        raise InputError("transfer: expected as many seeds on typical as on atypical images")
    return combine_seeds(lambda a, b: np.exp(b) - np.exp(a), there, here).over_seeds().estimate()


def unsaid(atypical: Reports, typical: Reports) -> str:
    """Return why answers to atypical images carry too little information to be compared; empty where they carry enough.

    Too little is less than a tenth of the bits (`METRICS["information"]`) in the answers to typical images, as means
    over training seeds. The result is also empty for reports without probabilities.
    """
    return too_little(*([report.statistics for report in _several(reports)] for reports in (atypical, typical)))


def too_little(atypical: Sequence[Run], typical: Sequence[Run]) -> str:
    """`unsaid`, from per-image statistics of one run per training seed."""
    row = METRICS["information"]
    if any(need not in run for group in (atypical, typical) for run in group for need in row.needs):
        return ""

    def said(run: Run) -> float:
        return float(row({need: run[need].double().mean(0) for need in row.needs}))

    there, here = (float(np.mean([said(run) for run in group])) for group in (atypical, typical))
    if there >= LEAST_SAID * here:
        return ""
    return f"the networks say {there:.2g} bits about these images, {here:.2g} about typical ones"


@dataclass(frozen=True)
class InvarianceComparison:
    """Whether networks are more invariant than their controls, by several variabilities.

    Attributes:
        verdict: ``more``, ``less``, ``undetermined``, ``disputed`` or ``undefined``.
        by: learned invariance by each variability of `AGREEING`.
        dissent: those of them that do not have the sign of `shift_information`.
    """

    verdict: str
    by: dict[str, Estimate]
    dissent: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """The comparison as plain values for JSON."""
        by = {name: estimate.to_dict() for name, estimate in self.by.items()}
        return {"verdict": self.verdict, "by": by, "dissent": list(self.dissent)}


def compare_invariance(treated: Reports, control: Reports, *, seed: int = 0) -> InvarianceComparison:
    """Decide whether networks are more invariant than their controls; arguments and errors as in `learned_invariance`.

    The verdict is ``more`` or ``less`` where the interval of learned invariance by shift information excludes 0 and
    the values by entropy-matched JS and by top-1 change have the same sign. Shift information alone misjudges networks
    that nearly collapsed, JS alone misjudges less confident networks. The verdict is ``disputed`` where one of the two
    has the other sign, or is undefined.
    """
    by = {metric: learned_invariance(treated, control, metric=metric, seed=seed) for metric in AGREEING}
    return judge(by)


def judge(by: dict[str, Estimate]) -> InvarianceComparison:
    """Return the verdict, given learned invariance by each variability of `AGREEING`."""
    word = {"positive": "more", "negative": "less"}.get(verdict(by[DEFAULT]), verdict(by[DEFAULT]))
    if word not in ("more", "less"):
        return InvarianceComparison(word, by)
    # NaN has no sign, so an undefined value does not agree.
    dissent = tuple(m for m in AGREEING if not by[m].value * by[DEFAULT].value > 0)
    return InvarianceComparison("disputed" if dissent else word, by, dissent)


def verdict(estimate: Estimate) -> str:
    """Return ``positive``, ``negative`` or ``undetermined`` from the interval; ``undefined`` for an undefined value."""
    if not estimate.defined:
        return "undefined"
    if estimate.low > 0:
        return "positive"
    return "negative" if estimate.high < 0 else "undetermined"


def rounding(metric: str, precision: str) -> float:
    """Return the largest variability that rounding alone gives an invariant network; smaller values are noise.

    Metrics that count answers have no such floor: an answer that rounding changes is a changed answer.
    """
    return METRICS[metric].floor(LOGIT_ROUNDING[precision])


def as_share(log_ratio: Replicates) -> Estimate:
    """Return ``1 - V / V0`` with its interval, from ``log(V / V0)``."""
    interval = log_ratio.estimate()
    if not interval.defined:
        return UNDEFINED
    return Estimate(*(1 - math.exp(bound) for bound in (interval.value, interval.high, interval.low)))


def log_ratios(treated: Reports, control: Reports, *, metric: str = DEFAULT, seed: int = 0) -> PerSeed | None:
    """Return ``log(V_treated / V_control)`` per training seed; None where `learned_invariance` is undefined."""
    above, below = _several(treated), _several(control)
    if metric not in VARIABILITIES:
        raise InputError(f"metric: expected one of {', '.join(VARIABILITIES)}, got {brief(metric)}")
    if len(above) != len(below):
        raise InputError(f"expected as many treated runs as controls, got {len(above)} and {len(below)}")
    if len({report.fingerprint for report in above + below}) != 1:
        raise InputError("expected reports on the same images under the same protocol, shifts and seed")
    quiet = rounding(metric, below[0].settings.precision)
    if metric == MATCHED:
        return log_ratio(
            *entropy_matched(*([r.statistics for r in group] for group in (above, below)), seed=seed), quiet=quiet
        )
    v, v0 = (per_seed([metric], [r.statistics for r in group], seed=seed)[metric] for group in (above, below))
    return log_ratio(v, v0, quiet=quiet, half=half_an_answer(metric, below[0].statistics))


def log_ratio(v: PerSeed, v0: PerSeed, *, quiet: float, half: float = 0.0) -> PerSeed | None:
    """Return ``log(V / V0)`` per seed; None where either is not finite, or V0 is within its noise.

    Args:
        v, v0: variability of the treated networks and of their controls.
        quiet: level of rounding. V0 minus two standard errors must exceed it, and a smaller V is raised to it.
        half: half of one answer where V counts answers. It is added to both, as a count can be 0 by chance
            (Haldane 1956, The estimation and significance of the logarithm of a ratio of frequencies).
    """
    pooled = v0.over_seeds()
    if not (np.isfinite(v.values).all() and pooled.value - 2 * float(pooled.images.std()) > quiet):
        return None
    least = max(quiet, FLOOR)

    def logs(values: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(values + half, least))

    return combine_seeds(lambda a, b: logs(a) - logs(b), v, v0)


def half_an_answer(metric: str, run: Run, pairs: float = 1) -> float:
    """Return half of one changed answer as a share of all answers, for metrics that count; else 0.

    Args:
        metric: name of the metric.
        run: per-image statistics.
        pairs: pairs per image, used where the run keeps no predictions.
    """
    row = METRICS[metric]
    if not row.counts:
        return 0.0
    if PREDICTIONS in run:
        pairs = run[PREDICTIONS].shape[1] / 2
    return 0.5 / (len(run[row.needs[0]]) * (pairs if row.counts == "pairs" else 1))


def entropy_matched(treated: Sequence[Run], control: Sequence[Run], *, seed: int = 0) -> tuple[PerSeed, PerSeed]:
    """Return the JS of both, with the logits of each treated network scaled to the confidence of its control.

    Args:
        treated, control: per-image statistics of one run per training seed, in the same order.
        seed: seed of the bootstrap.
    """
    needs = METRICS[MATCHED].needs
    values: list[tuple[float, float]] = []
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    for mine, its in zip(*(means_per_seed(runs, needs, seed=seed) for runs in (treated, control)), strict=True):
        whole, resampled = (
            (matched_js(a["tempered_js"], a["tempered_bits"], b["tempered_bits"][..., UNCHANGED]),
             b["tempered_js"][..., UNCHANGED])
            for a, b in zip(mine, its, strict=True)
        )  # fmt: skip
        values.append((float(whole[0]), float(whole[1])))
        drawn.append((resampled[0].numpy(), resampled[1].numpy()))
    both = [
        PerSeed(np.array(v), np.stack(d, axis=1), seed)
        for v, d in zip(zip(*values, strict=True), zip(*drawn, strict=True), strict=True)
    ]
    return both[0], both[1]


def _several(reports: Reports) -> list[InvarianceReport]:
    return [reports] if isinstance(reports, InvarianceReport) else list(reports)
