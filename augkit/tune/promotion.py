"""The rule of Pareto halving: which configurations of a rung go on to the next one.

Asynchronous successive halving (Li et al. 2020, https://arxiv.org/abs/1810.05934) for one or several objectives: of n
configurations that completed a rung, the best ``n // factor`` are promoted, whenever a worker is free. Those that meet
all bounds come first. Of these, a configuration that fewer fronts dominate is better (non-dominated sorting, Deb et al.
2002), and within a front the one that adds more to the volume that is dominated above 0. Objectives are therefore given
relative to a worthless network, such as one that guesses.

Deviations from the paper: its objective is one number; and once no further configuration can reach a rung, at least one
is promoted, so that the search ends with a configuration on the top rung.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from augkit.tune.volume import Array, dominated_volume


@dataclass(frozen=True)
class Standing:
    """A configuration on a rung.

    Attributes:
        number: number of the configuration.
        values: its objectives on this rung, which are maximized; 0 is worthless.
        violation: sum of its distances from the bounds that it violates; 0 if it meets all of them.
    """

    number: int
    values: tuple[float, ...]
    violation: float = 0.0


def promotable(
    standings: Sequence[Standing], promoted: Collection[int], factor: int, *, closed: bool = False
) -> list[int]:
    """Numbers of the configurations to promote next, best first.

    Args:
        standings: configurations that completed the rung.
        promoted: numbers of those that were promoted already.
        factor: one of ``factor`` configurations is promoted.
        closed: whether no further configuration can reach the rung; then at least one is promoted.
    """
    count = max(len(standings) // factor, int(closed))
    return [number for number in ranked(tuple(standings))[:count] if number not in promoted]


@functools.lru_cache(maxsize=64)
def ranked(standings: tuple[Standing, ...]) -> list[int]:
    """Numbers of configurations, best first.

    >>> ranked((Standing(1, (0.9, 0.1)), Standing(2, (0.5, 0.5)), Standing(3, (0.4, 0.4)), Standing(4, (1, 1), 0.2)))
    [2, 1, 3, 4]
    """
    fair = sorted((s for s in standings if s.violation <= 0), key=lambda s: s.number)
    others = sorted((s for s in standings if s.violation > 0), key=lambda s: (s.violation, s.number))
    values = np.array([s.values for s in fair], dtype=float)
    order = [k for front in fronts(values) for k in _by_share(values, front)]
    return [fair[k].number for k in order] + [s.number for s in others]


def fronts(values: Array) -> list[list[int]]:
    """Non-dominated sorting: places of the points of each front, the best front first.

    Args:
        values: (N, D) objectives, which are maximized.
    """
    no_worse = np.all(values[:, None] >= values[None], axis=-1)
    dominates = no_worse & ~no_worse.T  # (N, N): whether the point of the row dominates that of the column
    left, found = np.arange(len(values)), []
    while len(left):
        best = left[~np.any(dominates[np.ix_(left, left)], axis=0)]
        found.append(best.tolist())
        left = np.setdiff1d(left, best)
    return found


def _by_share(values: Array, front: list[int]) -> list[int]:
    """The points of a front by the volume that each alone dominates above 0, largest first; equal ones in order."""
    if len(front) == 1 or values.shape[1] == 1:
        return front
    corner = [0.0] * values.shape[1]
    points = np.unique(values[front], axis=0)  # of equal points, the first gets their share
    whole = dominated_volume(points.tolist(), corner)
    shares = {
        tuple(point): whole - dominated_volume(np.delete(points, k, 0).tolist(), corner)
        for k, point in enumerate(points)
    }
    return sorted(front, key=lambda k: -shares.pop(tuple(values[k]), 0.0))
