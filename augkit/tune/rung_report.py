"""What a rung is worth: how well the order of configurations on it agrees with their order on the top rung."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna

from augkit.core.records import Record
from augkit.tune import halving
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.volume import Array

LEAST = 4  # configurations on the top rung below which a rank correlation says nothing


@dataclass(frozen=True)
class RungRow(Record):
    """One rung of Pareto halving.

    Attributes:
        epochs: epochs of training up to this rung.
        reached: number of configurations that completed it.
        compared: number of them that also completed the top rung.
        rank_correlation: by objective, Spearman's rank correlation of the values on this rung and on the top one, over
            the configurations that completed both; None if they are fewer than 4 or all equal.
    """

    epochs: int
    reached: int
    compared: int
    rank_correlation: dict[str, float | None]


def rung_rows(study: optuna.Study, terms: SearchTerms) -> list[RungRow]:
    """One row per rung, the lowest first; an empty list without rungs."""
    trials = study.get_trials(deepcopy=False)
    found = [halving.outcomes(trials, rung) for rung in range(len(terms.rungs))]
    rows = []
    for epochs, here in zip(terms.rungs, found, strict=True):
        both = sorted(here.keys() & found[-1].keys())
        pairs = {
            name: ([here[k].values[place] for k in both], [found[-1][k].values[place] for k in both])
            for place, name in enumerate(terms.goal.objectives)
        }
        rows.append(RungRow(epochs, len(here), len(both), {n: rank_correlation(*pair) for n, pair in pairs.items()}))
    return rows


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than `LEAST` values, or if all values of one side are equal.

    >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30])
    0.8
    """
    if len(first) < LEAST:
        return None
    a, b = (_ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = math.sqrt(float((a * a).sum() * (b * b).sum()))
    return round(float((a * b).sum()) / scale, 12) if scale else None


def _ranks(values: Sequence[float]) -> Array:
    """Ranks from 1, ties with the mean of theirs, as `scipy.stats.rankdata`, which takes seconds to import."""
    _, which, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[which])


def rung_words(rows: Sequence[RungRow]) -> list[str]:
    """One line per rung below the top, and one for the top."""
    lines = []
    for row in rows[:-1]:
        found = [f"{name.replace('_', ' ')} {shown(value)}" for name, value in row.rank_correlation.items()]
        lines.append(
            f"after epoch {row.epochs}: {row.reached} configurations; rank correlation with the top rung"
            f" {', '.join(found)} (n = {row.compared})"
        )
    return [*lines, *(f"after epoch {row.epochs}: {row.reached} reached the top rung" for row in rows[-1:])]


def shown(value: float | None) -> str:
    """A rank correlation as text."""
    return "undetermined" if value is None else f"{value:.2f}"
