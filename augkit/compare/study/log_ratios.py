"""Log ratios of variabilities, their means over pairs of arms, and shares of them.

A share is a ratio R of two means over seeds. Its value of a seed is linearized, ``R + (n - R d) / mean(d)``, so the
mean over seeds is R itself and the spread between seeds gives its standard error (the ratio estimator of Cochran 1977,
Sampling techniques, section 6.4). It is undefined where the denominator is within two standard errors of 0.
"""

from __future__ import annotations

import math

import numpy as np

from augkit.compare.study.claims import TYPICAL, Part, selection
from augkit.compare.study.column_table import ColumnTable, Effect, combine_effects
from augkit.invariance.bootstrap import PerSeed
from augkit.invariance.learned import MATCHED, entropy_matched, half_an_answer, log_ratio, rounding
from augkit.invariance.metrics import METRICS

Pair = tuple[str | None, str | None]


def log_ratio_of(view: ColumnTable, part: Part, pair: Pair, images: str, measure: str) -> Effect:
    """``log(V / V0)`` of an arm and its control; NaN where `augkit.invariance.learned` is undefined."""
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


def mean_log_ratio(view: ColumnTable, part: Part, images: str) -> Effect:
    """Mean over pairs of an arm and its control of ``log(V / V0)``, each on the images of its group of classes."""
    pairs = list(zip(part.arms or [], part.controls or [], strict=True))
    chosen = [images] * len(pairs)
    if part.groups:
        chosen = [selection(images, group, part.answers) for group in part.groups]
    found = [log_ratio_of(view, part, pair, each, part.measure) for pair, each in zip(pairs, chosen, strict=True)]
    return found[0] if len(found) == 1 else combine_effects(lambda *values: np.mean(values, axis=0), *found)


def kept_share(view: ColumnTable, part: Part, images: str) -> Effect:
    """`mean_log_ratio`, as a share of that of ``from_arms`` on ``from_groups``, which are its own when not given."""
    changed = {"arms": part.from_arms, "controls": part.from_controls, "groups": part.from_groups}
    whole = part.model_copy(update={name: value for name, value in changed.items() if value is not None})
    return share_of(mean_log_ratio(view, part, images), mean_log_ratio(view, whole, images))


def factor_share(view: ColumnTable, part: Part, images: str) -> Effect:
    """Share of ``log(V / V0)`` that one of two factors brings, as the mean over both orders (Shapley 1953).

    ``arm`` has both factors, ``control`` neither, ``beside`` the factor in question and ``beside_control`` the other.
    """
    pairs = ((part.beside, part.control), (part.arm, part.beside_control), (part.arm, part.control))
    alone, on_top, whole = (log_ratio_of(view, part, pair, images, part.measure) for pair in pairs)
    return share_of(combine_effects(lambda a, b: (a + b) / 2, alone, on_top), whole)


def log_transfer(view: ColumnTable, part: Part, images: str) -> Effect:
    """``log(V / V0)`` on atypical images minus that on typical ones: 0 where V falls by the same factor.

    Shares of variability have a ceiling at 1, so their differences depend on where one starts; logs do not.
    """
    there = log_ratio_of(view, part, (part.arm, part.control), images, part.measure)
    here = log_ratio_of(view, part, (part.arm, part.control), TYPICAL, part.from_measure or part.measure)
    return combine_effects(np.subtract, there, here)


def share_of(part: Effect, whole: Effect) -> Effect:
    """Ratio of the means over seeds of two effects, with linearized values of the seeds (see the head of this file)."""

    def linear(n: np.ndarray, d: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = d.mean(-1, keepdims=True)
            ratio = n.mean(-1, keepdims=True) / mean
            return np.asarray(ratio + (n - ratio * d) / mean)

    count = min(part.n_images, whole.n_images)
    values = linear(part.seeds.values, whole.seeds.values)
    error, _ = whole.replicates.error()
    if not abs(whole.replicates.value) > 2 * error:
        values = np.full_like(values, math.nan)
    return Effect(PerSeed(values, linear(part.seeds.images, whole.seeds.images), part.seeds.seed), count)
