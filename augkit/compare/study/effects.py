"""Effects for claims: paired, on the scale of the test, with errors over seeds and images.

Every effect is a function of means over images of per-image columns, resampled by `augkit.invariance.bootstrap`. All
arms use the same resample of images, so that variation that arms share cancels. The effect is computed for every
training seed and then averaged over seeds. Variability V is compared on a log scale. Learned and architectural
invariance, ``1 - V / V0``, are tested as ``-log(V / V0)`` and shown as shares.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from augkit.compare.study.claims import TYPICAL, Part
from augkit.compare.study.hypothesis_tests import Bounds, Decision, decide
from augkit.core.errors import InputError
from augkit.invariance.bootstrap import (
    UNDEFINED,
    Estimate,
    PerSeed,
    Replicates,
    Run,
    combine_seeds,
    per_seed,
    resampled_means,
)
from augkit.invariance.learned import (
    AGREEING,
    DEFAULT,
    FLOOR,
    MATCHED,
    entropy_matched,
    half_an_answer,
    log_ratio,
    rounding,
    too_little,
)
from augkit.invariance.metrics import METRICS
from augkit.invariance.report import CURVE_STATISTICS

# From "image set|statistic" or "image set|statistic@length" to an array with one number or row per image.
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Effect:
    """An effect for every seed, with its bootstrap replicates over images and the number of images."""

    seeds: PerSeed
    n_images: int

    @functools.cached_property
    def replicates(self) -> Replicates:
        """Bootstrap replicates of the mean over seeds."""
        return self.seeds.over_seeds()

    @property
    def per_seed(self) -> np.ndarray:
        """Value of every seed ``(S,)``."""
        return self.seeds.values

    def estimate(self) -> Estimate:
        """Mean over seeds with its 95 % interval."""
        return self.replicates.estimate()

    def decide(self, bounds: Bounds) -> Decision:
        """Test whether the effect lies within ``bounds``."""
        if self.replicates.seeds == 1 and self.replicates.error()[0] > 0:
            return Decision(1.0, 1.0)  # one seed has no information about the spread between seeds
        return decide(self.replicates.value, *self.replicates.error(), bounds)


def combine_effects(function: Callable[..., np.ndarray], *effects: Effect) -> Effect:
    """Combine effects into one, replicate by replicate and seed by seed."""
    parts = combine_seeds(function, *(effect.seeds for effect in effects))
    return Effect(parts, min(effect.n_images for effect in effects))


class MissingError(Exception):
    """A number was not measured; the message names it."""


@dataclass
class ColumnTable:
    """Columns of all runs; its methods give their means over images with bootstrap replicates.

    Attributes:
        columns: columns by arm, seed and measure.
        seeds: seeds that all compared arms have, in order.
        strengths: strength by arm.
        lengths: lengths of the response curve (pixels), by measure.
        pairs: number of pairs of displacements per image, by measure.
    """

    columns: Mapping[tuple[str, int, str], Columns]
    seeds: Sequence[int]
    strengths: Mapping[str, float] = field(default_factory=dict)
    lengths: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pairs: Mapping[str, int] = field(default_factory=dict)
    _cache: dict[tuple[object, ...], Effect] = field(default_factory=dict, repr=False)

    def mean(self, arm: str, measure: str, column: str) -> Effect:
        """Mean of a column over images, for every seed."""
        key = (arm, measure, column)
        if key not in self._cache:
            found = [self._column(arm, seed, measure, column) for seed in self.seeds]
            if len({len(values) for values in found}) != 1:
                raise InputError(f"'{column}' of {arm}: expected the same images of every seed")
            joined = torch.cat(found, dim=1)
            parts = PerSeed(joined.mean(0).numpy(), resampled_means(joined).numpy())
            self._cache[key] = Effect(parts, len(joined))
        return self._cache[key]

    def variability(self, arm: str, measure: str, images: str, metric: str, at: float | None = None) -> Effect:
        """A variability for every seed; with ``at``, at that length of the response curve (pixels)."""
        key = (arm, measure, images, metric, at)
        if key not in self._cache:
            runs = self.runs(arm, measure, images, METRICS[metric].needs, at)
            self._cache[key] = Effect(per_seed([metric], runs)[metric], len(next(iter(runs[0].values()))))
        return self._cache[key]

    def runs(self, arm: str, measure: str, images: str, needs: Sequence[str], at: float | None = None) -> list[Run]:
        """Per-image statistics ``(N, F)`` by name, for every seed.

        On the response curve an image has two views, and their JS is the shift information; the entropy of
        predictions is that of the pairs of displacements.
        """
        of_curve = {} if at is None else {name: f"{name}@{at:g}" for name in CURVE_STATISTICS.values()}
        if at is not None:
            of_curve["shift_bits"] = of_curve[CURVE_STATISTICS["js"]]
        return [
            {need: self._column(arm, seed, measure, f"{images}|{of_curve.get(need, need)}") for need in needs}
            for seed in self.seeds
        ]

    def _column(self, arm: str, seed: int, measure: str, column: str) -> torch.Tensor:
        values = self.columns.get((arm, seed, measure), {}).get(column)
        if values is None:
            raise MissingError(f"'{column.replace('|', ' ')}' of {arm}, seed {seed}, was not measured")
        whole = torch.from_numpy(np.atleast_1d(np.asarray(values, dtype=np.float64)))
        return whole[:, None] if whole.ndim == 1 else whole

    def why_undefined(self, arm: str, measure: str, images: str) -> str:
        """Why the predictions of an arm carry too little information about atypical images; empty if they do not.

        The criterion is that of `augkit.invariance.unsaid`.
        """
        needs = METRICS["information"].needs
        if images == TYPICAL:
            return ""
        try:
            return too_little(*(self.runs(arm, measure, name, needs) for name in (images, TYPICAL)))
        except MissingError:
            return ""

    def average(self, part: Part, make: Callable[[str], Effect]) -> Effect:
        """Mean of ``make`` over those image sets of the part for which it is defined."""
        effects = [make(images) for images in part.sets]
        effects = [effect for effect in effects if math.isfinite(effect.replicates.value)] or effects
        return effects[0] if len(effects) == 1 else combine_effects(lambda *values: np.mean(values, axis=0), *effects)


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
    low, high = (_log_share(bound) for bound in part.prediction.bounds)
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


def _log_share(share: float) -> float:
    """``-log(1 - share)``, the scale on which an invariance is tested; infinite for shares of 1 or more."""
    return math.inf if share >= 1 else -math.log(1 - share) if math.isfinite(share) else -math.inf


def _log_ratio(view: ColumnTable, part: Part, pair: tuple[str | None, str | None], images: str, measure: str) -> Effect:
    """``log(V / V0)``; NaN where `augkit.invariance.learned` is undefined."""
    arm, control = (str(name) for name in pair)
    if part.metric == MATCHED:
        needs = METRICS[MATCHED].needs
        groups = [view.runs(name, measure, images, needs) for name in (arm, control)]
        v, v0 = entropy_matched(*groups)
        count, half = len(groups[0][0][needs[0]]), 0.0
    else:
        above, below = (view.variability(name, measure, images, part.metric) for name in (arm, control))
        v, v0, count = above.seeds, below.seeds, min(above.n_images, below.n_images)
        run = view.runs(control, measure, images, METRICS[part.metric].needs[:1])[0]
        half = half_an_answer(part.metric, run, view.pairs.get(measure, 1))
    found = log_ratio(v, v0, quiet=rounding(part.metric, "float32"), half=half)
    if found is None or any(view.why_undefined(name, measure, images) for name in (arm, control)):
        found = PerSeed(np.full(len(v.values), math.nan), np.full(v.images.shape, math.nan), v.seed)
    return Effect(found, count)


def _pair(part: Part) -> tuple[str | None, str | None]:
    return part.arm, part.control


def _variability(view: ColumnTable, part: Part, images: str) -> Effect:
    return view.variability(str(part.arm), part.measure, images, part.metric)


def _ratio(view: ColumnTable, part: Part, images: str) -> Effect:
    return _log_ratio(view, part, _pair(part), images, part.measure)


def _invariance(view: ColumnTable, part: Part, images: str) -> Effect:
    return combine_effects(np.negative, _ratio(view, part, images))


def _transfer(view: ColumnTable, part: Part, images: str) -> Effect:
    there = _log_ratio(view, part, _pair(part), images, part.measure)
    here = _log_ratio(view, part, _pair(part), TYPICAL, part.from_measure or part.measure)
    return combine_effects(lambda a, b: np.exp(b) - np.exp(a), there, here)


def _interaction(view: ColumnTable, part: Part, images: str) -> Effect:
    beside = (part.beside, part.beside_control)
    return combine_effects(
        np.subtract, *(_log_ratio(view, part, pair, images, part.measure) for pair in (_pair(part), beside))
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
    ratios = [_log_ratio(view, part, (arm, part.control), images, part.measure) for arm in arms]

    def fit(*values: np.ndarray) -> np.ndarray:
        return sum((w * (1 - np.exp(v)) for w, v in zip(weight, values, strict=True)), np.zeros_like(values[0]))

    return combine_effects(fit, *ratios)


def _growth(view: ColumnTable, part: Part, images: str) -> Effect:
    far, near = (view.variability(str(part.arm), part.measure, images, part.metric, at) for at in (part.far, part.near))
    return combine_effects(lambda a, b: np.log(np.maximum(a, FLOOR) / np.maximum(b, FLOOR)), far, near)


def _half_life(view: ColumnTable, part: Part, images: str) -> Effect:
    """The shortest shift (pixels) at which V reaches half of its largest value on the curve, linearly interpolated."""
    lengths = [length for length in view.lengths.get(part.measure, ()) if length > 0]
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
CONTRASTS = AS_SHARES | {"log_variability_ratio"}  # statistics whose sign must not depend on the variability
OF_RATIOS = CONTRASTS | {"transfer_learned", "transfer_architectural", "interaction", "slope"}
COMPUTE: dict[str, Callable[[ColumnTable, Part, str], Effect]] = {
    "variability": _variability,
    "log_variability_ratio": _ratio,
    "learned_invariance": _invariance,
    "architectural_invariance": _invariance,
    "transfer_learned": _transfer,
    "transfer_architectural": _transfer,
    "interaction": _interaction,
    "slope": _slope,
    "growth": _growth,
    "half_life": _half_life,
    "top1_change": _difference(METRICS["top1_change"].needs[0]),
    "accuracy_difference": _difference(METRICS["accuracy"].needs[0]),
    "layer_loss": _difference("layer_loss"),
    "probe": _probe,
}
