"""Several looks at a study as it grows: how small p must be at each, so that all together err in 5 % of cases.

A study that is tested at 5 seeds and again at 10 errs in more than 5 % of cases, as it has two chances. With the
boundaries of Pocock 1977 (Group sequential methods in the design and analysis of clinical trials) every look has the
same level; with those of O'Brien & Fleming 1979 (A multiple testing procedure for clinical trials) the first looks are
strict and the last one costs little. The test statistic is taken to be a sum of independent normal increments, one per
seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Rule = Literal["obrien-fleming", "pocock"]
RULES: tuple[Rule, ...] = ("obrien-fleming", "pocock")
GRID = 2001  # points at which the density of the statistic is kept


@dataclass(frozen=True)
class Look:
    """Where a study stands among the looks that it declared.

    Attributes:
        seeds: that are looked at.
        declared: numbers of seeds at which it was to be looked at.
        taken: at which it was, this one included.
        level: of a two-sided test at this look; 5 % of an exploratory study.
        rule: of the levels.
    """

    seeds: int
    declared: tuple[int, ...]
    taken: tuple[int, ...]
    level: float
    rule: Rule

    @property
    def exploratory(self) -> bool:
        """Whether it was looked at when that was not declared, so that no level holds."""
        return not set(self.taken) <= set(self.declared)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seeds": self.seeds,
            "declared": list(self.declared),
            "taken": list(self.taken),
            "level": self.level,
            "rule": self.rule,
            "exploratory": self.exploratory,
        }


def look_at(seeds: int, declared: Sequence[int], earlier: Sequence[int], rule: Rule, alpha: float = 0.05) -> Look:
    """The look at ``seeds``, after ``earlier`` ones; ``declared`` ascend."""
    taken = tuple(sorted({*earlier, seeds}))
    level = alpha
    if seeds in declared and len(declared) > 1:
        level = levels(declared, rule, alpha)[list(declared).index(seeds)]
    return Look(seeds, tuple(declared), taken, level, rule)


def levels(looks: Sequence[int], rule: Rule, alpha: float = 0.05) -> list[float]:
    """Two-sided level of each look, so that together they err with probability ``alpha``.

    Args:
        looks: seeds at each, ascending.
        rule: the shape of the boundary.
        alpha: of all looks together.

    >>> [round(level, 4) for level in levels([5, 10], "pocock")]
    [0.0294, 0.0294]
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    share = np.asarray(looks, dtype=np.float64) / looks[-1]
    shape = np.ones_like(share) if rule == "pocock" else 1 / np.sqrt(share)
    constant = brentq(lambda c: _crossed(share, c * shape) - alpha, 0.5, 10.0, xtol=1e-6)
    return [float(2 * norm.sf(constant * factor)) for factor in shape]


def _crossed(share: np.ndarray, bounds: np.ndarray) -> float:
    """Probability that a standard Brownian motion, over its root of time, leaves ``bounds`` at one of the looks.

    Recursion of Armitage, McPherson & Rowe 1969: the density of the sum among paths that have stayed inside.
    """
    edges = bounds * np.sqrt(share)
    x = np.linspace(-edges[0], edges[0], GRID)
    density = np.exp(-(x**2) / (2 * share[0])) / math.sqrt(2 * math.pi * share[0])
    for before, now, edge in zip(share[:-1], share[1:], edges[1:], strict=True):
        y = np.linspace(-edge, edge, GRID)
        step = now - before
        kernel = np.exp(-((y[:, None] - x) ** 2) / (2 * step)) / math.sqrt(2 * math.pi * step)
        density, x = np.trapezoid(kernel * density, x, axis=1), y
    return 1 - float(np.trapezoid(density, x))
