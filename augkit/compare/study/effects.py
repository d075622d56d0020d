"""Effects for claims: paired, on the scale of the test, with errors over seeds and images.

Every effect is a function of means over images of per-image columns, resampled by `augkit.invariance.bootstrap`. All
arms use the same resample of images, so that variation that arms share cancels. The effect is computed for every
training seed and then averaged over seeds. Variability V is compared on a log scale. Learned and architectural
invariance, ``1 - V / V0``, are tested as ``-log(V / V0)`` and shown as shares.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from augkit.compare.study.claims import TYPICAL, Part
from augkit.compare.study.column_table import ColumnTable, Effect, MissingError, combine_effects
from augkit.compare.study.family_offsets import family_offset
from augkit.compare.study.hypothesis_tests import Bounds, Decision
from augkit.compare.study.log_ratios import factor_share, kept_share, log_ratio_of, log_transfer, mean_log_ratio
from augkit.core.errors import InputError
from augkit.invariance.bootstrap import UNDEFINED, Estimate
from augkit.invariance.learned import AGREEING, DEFAULT, FLOOR
from augkit.invariance.metrics import METRICS


@dataclass(frozen=True)
class PartEffect:
    """The effect that a part of a claim is about.

    Attributes:
        effect: effect on the scale of the test.
        bounds: interval of the prediction on the same scale.
        shown: estimate in the unit of the statistic, for reports.
        dissent: variabilities by which the effect has another sign; if there are any, the test is undetermined.
        reason: why the effect is undefined, or which image sets were left out.
    """

    effect: Effect
    bounds: Bounds
    shown: Estimate
    dissent: tuple[str, ...] = ()
    reason: str = ""

    @property
    def decision(self) -> Decision:
        """Decision of the test of the prediction."""
        return Decision(1.0, 1.0) if self.dissent else self.effect.decide(self.bounds)


def statistic(view: ColumnTable, part: Part) -> PartEffect:
    """Compute the effect of a part of a claim.

    Raises:
        MissingError: a number that the part needs was not measured.
        InputError: the numbers cannot be combined.
    """
    effect = view.average(part, lambda images: COMPUTE[part.statistic](view, part, images))
    dissent = _dissent(view, part, effect)
    reason = _reason(view, part) if part.statistic in OF_RATIOS else ""
    if part.statistic not in AS_SHARES:
        return PartEffect(effect, part.prediction.bounds, effect.estimate(), dissent, reason)
    shown = effect.estimate()
    if shown.defined:
        shown = Estimate(*(1 - math.exp(-bound) for bound in (shown.value, shown.low, shown.high)))
    low, high = (log_share(bound) for bound in part.prediction.bounds)
    return PartEffect(effect, (low, high), shown if shown.defined else UNDEFINED, dissent, reason)


def _dissent(view: ColumnTable, part: Part, effect: Effect) -> tuple[str, ...]:
    """Variabilities by which a contrast has another sign, among those that were measured."""
    if part.statistic not in CONTRASTS or part.metric != DEFAULT:
        return ()
    found = []
    for metric in AGREEING[1:]:
        other = part.model_copy(update={"metric": metric})
        compute = functools.partial(COMPUTE[part.statistic], view, other)
        try:
            value = view.average(other, compute).replicates.value
        except MissingError:
            continue
        if value * effect.replicates.value <= 0:
            found.append(metric)
    return tuple(found)


def _reason(view: ColumnTable, part: Part) -> str:
    reasons = {
        images: next(filter(None, (view.why_undefined(arm, part.measure, images) for arm in part.names)), "")
        for images in part.sets
    }
    return "; ".join(f"left out: {images}, {words}" for images, words in reasons.items() if words)


def log_share(share: float) -> float:
    """``-log(1 - share)``, the scale on which an invariance is tested; infinite for shares of 1 or more."""
    return math.inf if share >= 1 else -math.log(1 - share) if math.isfinite(share) else -math.inf


def _pair(part: Part) -> tuple[str | None, str | None]:
    return part.arm, part.control


def _variability(view: ColumnTable, part: Part, images: str) -> Effect:
    return view.variability(str(part.arm), part.measure, images, part.metric)


def _ratio(view: ColumnTable, part: Part, images: str) -> Effect:
    return log_ratio_of(view, part, _pair(part), images, part.measure)


def _invariance(view: ColumnTable, part: Part, images: str) -> Effect:
    return combine_effects(np.negative, _ratio(view, part, images))


def _transfer(view: ColumnTable, part: Part, images: str) -> Effect:
    there = log_ratio_of(view, part, _pair(part), images, part.measure)
    here = log_ratio_of(view, part, _pair(part), TYPICAL, part.from_measure or part.measure)
    return combine_effects(lambda a, b: np.exp(b) - np.exp(a), there, here)


def _interaction(view: ColumnTable, part: Part, images: str) -> Effect:
    beside = (part.beside, part.beside_control)
    return combine_effects(
        np.subtract, *(log_ratio_of(view, part, pair, images, part.measure) for pair in (_pair(part), beside))
    )


def _slope(view: ColumnTable, part: Part, images: str) -> Effect:
    """Least-squares slope of ``1 - V / V0`` on strength, over strengths above 0.

    The control at strength 0 is left out; with it, even an effect that does not depend on strength would have a slope.
    """
    arms = part.arms or []
    x = np.array([view.strengths[arm] for arm in arms])
    if len(set(x)) < 2:
        raise InputError(f"slope: expected arms of different strengths, got {', '.join(arms)}")
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    ratios = [log_ratio_of(view, part, (arm, part.control), images, part.measure) for arm in arms]

    def fit(*values: np.ndarray) -> np.ndarray:
        return sum((w * (1 - np.exp(v)) for w, v in zip(weight, values, strict=True)), np.zeros_like(values[0]))

    return combine_effects(fit, *ratios)


def _growth(view: ColumnTable, part: Part, images: str) -> Effect:
    far, near = (view.variability(str(part.arm), part.measure, images, part.metric, at) for at in (part.far, part.near))
    return combine_effects(lambda a, b: np.log(np.maximum(a, FLOOR) / np.maximum(b, FLOOR)), far, near)


def _half_life(view: ColumnTable, part: Part, images: str) -> Effect:
    """The shortest shift (pixels) at which V reaches half of its largest value on the curve, linearly interpolated."""
    lengths = view.lengths_of(part.measure)
    if not lengths:
        raise MissingError(f"measure '{part.measure}' has no lengths")
    curve = [view.variability(str(part.arm), part.measure, images, part.metric, at) for at in lengths]
    return combine_effects(lambda *values: half_length(np.array([0.0, *lengths]), np.stack(values)), *curve)


def half_length(lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Lengths ``(...)`` at which curves ``(P, ...)`` over ``lengths`` ``(P,)`` first reach half of their largest value.

    >>> float(half_length(np.array([0.0, 1.0, 3.0]), np.array([2.0, 4.0])))
    1.0
    """
    whole = np.concatenate([np.zeros_like(values[:1]), values])
    half = whole.max(0) / 2
    upper = np.maximum(1, (whole >= half).argmax(0))
    y1, y0 = (np.take_along_axis(whole, (upper - k)[None], 0)[0] for k in (0, 1))
    share = np.divide(half - y0, y1 - y0, out=np.ones_like(half), where=y1 > y0)
    return np.asarray(lengths[upper - 1] + share * (lengths[upper] - lengths[upper - 1]))


def _difference(column: str) -> Callable[[ColumnTable, Part, str], Effect]:
    """Mean of a column minus that of the control, if there is a control."""

    def compute(view: ColumnTable, part: Part, images: str) -> Effect:
        found = [view.mean(arm, part.measure, f"{images}|{column}") for arm in _pair(part) if arm is not None]
        return found[0] if len(found) == 1 else combine_effects(np.subtract, *found)

    return compute


def _probe(view: ColumnTable, part: Part, images: str) -> Effect:
    del images
    arms = [arm for arm in _pair(part) if arm is not None] or [NO_NETWORK]
    found = [view.mean(arm, probe_measure(part), str(part.key)) for arm in arms]
    return found[0] if len(found) == 1 else combine_effects(np.subtract, *found)


NO_NETWORK = "no-network"  # takes the place of an arm for a probe with a network of its own


def probe_measure(part: Part) -> str:
    """Name under which the numbers of a probe are stored."""
    options = ",".join(f"{key}={value}" for key, value in sorted(part.options.items()))
    where = "" if part.sets == [TYPICAL] else f" on {', '.join(part.sets)}"
    return f"probe {part.probe}" + (f" ({options})" if options else "") + where


AS_SHARES = frozenset({"learned_invariance", "architectural_invariance"})
# Statistics whose sign must not depend on the variability.
CONTRASTS = AS_SHARES | {"log_variability_ratio", "mean_log_ratio"}
OF_RATIOS = CONTRASTS | {"transfer_learned", "transfer_architectural", "log_transfer", "interaction", "slope"}
COMPUTE: dict[str, Callable[[ColumnTable, Part, str], Effect]] = {
    "variability": _variability,
    "log_variability_ratio": _ratio,
    "learned_invariance": _invariance,
    "architectural_invariance": _invariance,
    "transfer_learned": _transfer,
    "transfer_architectural": _transfer,
    "log_transfer": log_transfer,
    "interaction": _interaction,
    "mean_log_ratio": mean_log_ratio,
    "kept_share": kept_share,
    "factor_share": factor_share,
    "slope": _slope,
    "family_offset": family_offset,
    "growth": _growth,
    "half_life": _half_life,
    "top1_change": _difference(METRICS["top1_change"].needs[0]),
    "accuracy_difference": _difference(METRICS["accuracy"].needs[0]),
    "layer_loss": _difference("layer_loss"),
    "probe": _probe,
}
