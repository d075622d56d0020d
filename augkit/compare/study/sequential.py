"""Group sequential tests: the level of each interim analysis of a study, for a level of 5 % over all analyses.

A study that is tested at 5 seeds and again at 10 rejects a true null hypothesis in more than 5 % of cases, because it
tests twice. With the boundaries of Pocock 1977 (Group sequential methods in the design and analysis of clinical trials)
every analysis has the same level; with those of O'Brien & Fleming 1979 (A multiple testing procedure for clinical
trials) the first analyses are strict and the last one is close to a single test. The test statistic is taken to be a
sum of independent normal increments, one per seed. Study files and ``results.json`` call the analyses ``looks``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from augkit.core.records import Record

Rule = Literal["obrien-fleming", "pocock"]
RULES: tuple[Rule, ...] = ("obrien-fleming", "pocock")
GRID = 401  # grid points of the density of the statistic


@dataclass(frozen=True)
class InterimAnalysis(Record):
    """One of the interim analyses of a study.

    Attributes:
        seeds: number of seeds at this analysis.
        declared: numbers of seeds of the declared analyses.
        taken: numbers of seeds of the analyses made so far, including this one.
        level: level of a two-sided test at this analysis; 5 % in an exploratory study.
        rule: rule by which the analyses share the level.
    """

    seeds: int
    declared: tuple[int, ...]
    taken: tuple[int, ...]
    level: float
    rule: Rule

    @property
    def exploratory(self) -> bool:
        """Whether an analysis was made that was not declared, so that the level is not guaranteed."""
        return not set(self.taken) <= set(self.declared)

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping, with ``exploratory``."""
        return {**super().to_mapping(), "exploratory": self.exploratory}


def interim_analysis(
    seeds: int, declared: Sequence[int], earlier: Sequence[int], rule: Rule, alpha: float = 0.05
) -> InterimAnalysis:
    """Describe the analysis at a number of seeds.

    Args:
        seeds: number of seeds.
        declared: numbers of seeds of the declared analyses, ascending.
        earlier: numbers of seeds of the analyses made before.
        rule: rule by which the analyses share the level.
        alpha: level of all declared analyses together.
    """
    taken = tuple(sorted({*earlier, seeds}))
    level = alpha
    if seeds in declared and len(declared) > 1:
        level = levels(declared, rule, alpha)[list(declared).index(seeds)]
    return InterimAnalysis(seeds, tuple(declared), taken, level, rule)


def levels(seeds: Sequence[int], rule: Rule, alpha: float = 0.05) -> list[float]:
    """Two-sided level of each interim analysis, for the level ``alpha`` over all analyses.

    Args:
        seeds: number of seeds at each analysis, ascending.
        rule: rule by which the analyses share the level, the shape of the boundary.
        alpha: level of all analyses together.

    >>> [round(level, 4) for level in levels([5, 10], "pocock")]
    [0.0294, 0.0294]
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    share = np.asarray(seeds, dtype=np.float64) / seeds[-1]
    shape = np.ones_like(share) if rule == "pocock" else 1 / np.sqrt(share)
    constant = brentq(lambda c: _crossed(share, c * shape) - alpha, 0.5, 10.0, xtol=1e-6)
    return [float(2 * norm.sf(constant * factor)) for factor in shape]


def _crossed(share: np.ndarray, bounds: np.ndarray) -> float:
    """Probability that standard Brownian motion, divided by the root of time, leaves ``bounds`` at any analysis.

    Recursion of Armitage, McPherson & Rowe 1969 for the density of the sum over paths that have stayed inside so far.
    """
    from scipy.integrate import simpson

    edges = bounds * np.sqrt(share)
    x = np.linspace(-edges[0], edges[0], GRID)
    density = np.exp(-(x**2) / (2 * share[0])) / math.sqrt(2 * math.pi * share[0])
    for before, now, edge in zip(share[:-1], share[1:], edges[1:], strict=True):
        y = np.linspace(-edge, edge, GRID)
        step = now - before
        kernel = np.exp(-((y[:, None] - x) ** 2) / (2 * step)) / math.sqrt(2 * math.pi * step)
        density, x = simpson(kernel * density, x=x, axis=1), y
    return 1 - float(simpson(density, x=x))
