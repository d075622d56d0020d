"""The numbers that claims are about, each with its error over seeds and images: paired, on the scale it is tested on.

Every number is a function of means over images of per-image columns, resampled by `augkit.invariance.intervals`: the
same resample of images and of seeds in every arm, so that what arms share cancels. Variability V is compared on a log
scale. Learned and architectural invariance, ``1 - V / V0``, are tested as ``-log(V / V0)`` and shown as shares.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from augkit.claims import TYPICAL, Part
from augkit.decisions import Bounds, Decision, decide
from augkit.errors import InputError
from augkit.invariance.intervals import UNDEFINED, Estimate, Replicates, combine, mean_replicates
from augkit.invariance.learned import FLOOR, rounding
from augkit.invariance.metrics import METRICS

Columns = Mapping[str, np.ndarray]  # "image set|statistic" or "image set|statistic@length" to one number per image


class Matching(Protocol):
    """What takes the influence of accuracy out of a variability."""

    def factor(self, arm: str, seed: int, column: str) -> float:
        """By what a run's variability is multiplied."""

    def drift(self, arm: str, column: str) -> np.ndarray:
        """By what its replicates ``(R,)`` are, for the error of the slope."""


@dataclass(frozen=True)
class Effect:
    """A number with its replicates, its value per seed ``(S,)``, and the number of images behind it."""

    replicates: Replicates
    per_seed: np.ndarray
    n_images: int

    def estimate(self) -> Estimate:
        """With its 95 % interval."""
        return self.replicates.estimate()

    def decide(self, bounds: Bounds) -> Decision:
        """How far it speaks for lying within ``bounds``."""
        if self.replicates.seeds == 1 and self.replicates.error()[0] > 0:
            return Decision(1.0, 1.0)  # one seed says nothing about others
        return decide(self.replicates.value, *self.replicates.error(), bounds)


def mix(function: Callable[..., np.ndarray], *effects: Effect) -> Effect:
    """An effect made of others, replicate by replicate and seed by seed."""
    return Effect(
        combine(function, *(effect.replicates for effect in effects)),
        np.asarray(function(*(effect.per_seed for effect in effects))),
        min(effect.n_images for effect in effects),
    )


class MissingError(Exception):
    """A number that was not measured; the message says which."""


@dataclass
class View:
    """Columns of all runs, as means with replicates; ``seeds`` are those that all arms in question have.

    Attributes:
        columns: by arm, seed and measure.
        seeds: in order.
        strengths: of the arms.
        lengths: of the response curve, by measure (pixels).
        matching: multiplies variabilities, where they are to be compared at the same accuracy.
    """

    columns: Mapping[tuple[str, int, str], Columns]
    seeds: Sequence[int]
    strengths: Mapping[str, float] = field(default_factory=dict)
    lengths: Mapping[str, Sequence[float]] = field(default_factory=dict)
    matching: Matching | None = None
    _cache: dict[tuple[str, str, str], Effect] = field(default_factory=dict, repr=False)

    def mean(self, arm: str, measure: str, column: str) -> Effect:
        """The mean of a column over images and seeds."""
        key = (arm, measure, column)
        if key not in self._cache:
            self._cache[key] = self._mean(*key)
        return self._cache[key]

    def _mean(self, arm: str, measure: str, column: str) -> Effect:
        found = []
        for seed in self.seeds:
            values = self.columns.get((arm, seed, measure), {}).get(column)
            if values is None:
                raise MissingError(f"'{column.replace('|', ' ')}' of {arm}, seed {seed}, was not measured")
            factor = self.matching.factor(arm, seed, column) if self.matching else 1.0
            found.append(torch.from_numpy(np.atleast_1d(np.asarray(values, dtype=np.float64)) * factor))
        whole = mean_replicates(found)
        if self.matching:
            whole = Replicates(whole.value, whole.images, whole.both * self.matching.drift(arm, column), whole.seeds)
        return Effect(whole, np.array([float(column.mean()) for column in found]), len(found[0]))

    def average(self, part: Part, make: Callable[[str], Effect]) -> Effect:
        """The mean of ``make`` over the part's image sets."""
        effects = [make(images) for images in part.sets]
        return effects[0] if len(effects) == 1 else mix(lambda *values: np.mean(values, axis=0), *effects)


@dataclass(frozen=True)
class Found:
    """What a part found.

    ``effect`` is on the scale of the test, on which the prediction is ``bounds``; ``shown`` is for people.
    """

    effect: Effect
    bounds: Bounds
    shown: Estimate

    @property
    def decision(self) -> Decision:
        """For and against the prediction."""
        return self.effect.decide(self.bounds)


def statistic(view: View, part: Part) -> Found:
    """Compute a part of a claim.

    Raises:
        MissingError: something that it needs was not measured.
        InputError: numbers that cannot be combined.
    """
    effect = view.average(part, lambda images: COMPUTE[part.statistic](view, part, images))
    if part.statistic not in AS_SHARES:
        return Found(effect, part.prediction.bounds, effect.estimate())
    shown = effect.estimate()
    if shown.defined:
        shown = Estimate(*(1 - math.exp(-bound) for bound in (shown.value, shown.low, shown.high)))
    low, high = (_log_share(bound) for bound in part.prediction.bounds)
    return Found(effect, (low, high), shown if shown.defined else UNDEFINED)


def _log_share(share: float) -> float:
    """``-log(1 - share)``, which is how an invariance is tested; infinite from 1 on."""
    return math.inf if share >= 1 else -math.log(1 - share) if math.isfinite(share) else -math.inf


def _column(part: Part, images: str, at: float | None = None) -> str:
    needs = METRICS[part.metric].needs[0]
    return f"{images}|{needs}" if at is None else f"{images}|{needs}@{at:g}"


def _log_ratio(view: View, part: Part, pair: tuple[str | None, str | None], images: str, measure: str) -> Effect:
    """``log(V / V0)``; NaN where V0 is below its own noise, as in `augkit.invariance.learned`."""
    above, below = (view.mean(str(arm), measure, _column(part, images)) for arm in pair)
    value, spread = below.replicates.value, float(below.replicates.images.std())
    quiet = value - 2 * spread <= rounding(part.metric, "float32")

    def ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.log(np.maximum(a, FLOOR) / np.maximum(b, FLOOR)) + (math.nan if quiet else 0.0)

    return mix(ratio, above, below)


def _pair(part: Part) -> tuple[str | None, str | None]:
    return part.arm, part.control


def _variability(view: View, part: Part, images: str) -> Effect:
    return view.mean(str(part.arm), part.measure, _column(part, images))


def _ratio(view: View, part: Part, images: str) -> Effect:
    return _log_ratio(view, part, _pair(part), images, part.measure)


def _invariance(view: View, part: Part, images: str) -> Effect:
    return mix(np.negative, _ratio(view, part, images))


def _transfer(view: View, part: Part, images: str) -> Effect:
    there = _log_ratio(view, part, _pair(part), images, part.measure)
    here = _log_ratio(view, part, _pair(part), TYPICAL, part.from_measure or part.measure)
    return mix(lambda a, b: np.exp(b) - np.exp(a), there, here)


def _interaction(view: View, part: Part, images: str) -> Effect:
    beside = (part.beside, part.beside_control)
    return mix(np.subtract, *(_log_ratio(view, part, pair, images, part.measure) for pair in (_pair(part), beside)))


def _slope(view: View, part: Part, images: str) -> Effect:
    """Least squares of ``1 - V / V0`` on strength, through the control at strength 0."""
    arms = part.arms or []
    x = np.array([0.0, *(view.strengths[arm] for arm in arms)])
    if len(set(x)) < 2:
        raise InputError(f"slope: expected arms of different strengths, got {', '.join(arms)}")
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    ratios = [_log_ratio(view, part, (arm, part.control), images, part.measure) for arm in arms]

    def fit(*values: np.ndarray) -> np.ndarray:
        return sum((w * (1 - np.exp(v)) for w, v in zip(weight[1:], values, strict=True)), np.zeros_like(values[0]))

    return mix(fit, *ratios)


def _growth(view: View, part: Part, images: str) -> Effect:
    far, near = (view.mean(str(part.arm), part.measure, _column(part, images, at)) for at in (part.far, part.near))
    return mix(lambda a, b: np.log(np.maximum(a, FLOOR) / np.maximum(b, FLOOR)), far, near)


def _half_life(view: View, part: Part, images: str) -> Effect:
    """The shortest shift in pixels at which V is half of its largest value on the curve, linear in between."""
    lengths = [length for length in view.lengths.get(part.measure, ()) if length > 0]
    if not lengths:
        raise MissingError(f"measure '{part.measure}' has no lengths")
    curve = [view.mean(str(part.arm), part.measure, _column(part, images, at)) for at in lengths]
    return mix(lambda *values: half_length(np.array([0.0, *lengths]), np.stack(values)), *curve)


def half_length(lengths: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where curves ``(P, ...)`` that start from 0 at ``lengths[0]`` first reach half of their largest value.

    >>> float(half_length(np.array([0.0, 1.0, 3.0]), np.array([2.0, 4.0])))
    1.0
    """
    whole = np.concatenate([np.zeros_like(values[:1]), values])
    half = whole.max(0) / 2
    upper = np.maximum(1, (whole >= half).argmax(0))
    y1, y0 = (np.take_along_axis(whole, (upper - k)[None], 0)[0] for k in (0, 1))
    share = np.divide(half - y0, y1 - y0, out=np.ones_like(half), where=y1 > y0)
    return np.asarray(lengths[upper - 1] + share * (lengths[upper] - lengths[upper - 1]))


def _difference(column: str) -> Callable[[View, Part, str], Effect]:
    """The mean of a column, less that of the control where there is one."""

    def compute(view: View, part: Part, images: str) -> Effect:
        found = [view.mean(arm, part.measure, f"{images}|{column}") for arm in _pair(part) if arm is not None]
        return found[0] if len(found) == 1 else mix(np.subtract, *found)

    return compute


def _probe(view: View, part: Part, images: str) -> Effect:
    del images
    arms = [arm for arm in _pair(part) if arm is not None] or [NO_NETWORK]
    found = [view.mean(arm, probe_measure(part), str(part.key)) for arm in arms]
    return found[0] if len(found) == 1 else mix(np.subtract, *found)


NO_NETWORK = "no-network"  # stands for the arm of a probe that brings its own network


def probe_measure(part: Part) -> str:
    """Under which name a probe's numbers are kept."""
    options = ",".join(f"{key}={value}" for key, value in sorted(part.options.items()))
    where = "" if part.sets == [TYPICAL] else f" on {', '.join(part.sets)}"
    return f"probe {part.probe}" + (f" ({options})" if options else "") + where


AS_SHARES = frozenset({"learned_invariance", "architectural_invariance"})
COMPUTE: dict[str, Callable[[View, Part, str], Effect]] = {
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
    "top1_change": _difference("changed"),
    "accuracy_difference": _difference("correct"),
    "layer_loss": _difference("layer_loss"),
    "probe": _probe,
}
