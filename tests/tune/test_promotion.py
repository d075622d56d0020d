"""The rule of Pareto halving: by hand, against slow references, and its laws."""

from __future__ import annotations

import itertools

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import make_terms

from augkit.tune import halving
from augkit.tune.promotion import Standing, fronts, promotable, ranked

Point = tuple[float, ...]
POINTS = st.integers(1, 3).flatmap(
    lambda d: st.lists(st.tuples(*[st.integers(0, 6).map(lambda k: k / 4)] * d), min_size=1, max_size=8)
)


def standings(points: list[Point], violations: dict[int, float] | None = None) -> tuple[Standing, ...]:
    return tuple(Standing(number, point, (violations or {}).get(number, 0.0)) for number, point in enumerate(points))


def dominates(a: Point, b: Point) -> bool:
    return a != b and all(x >= y for x, y in zip(a, b, strict=True))


def covered(points: list[Point], corner: np.ndarray) -> float:
    """Dominated volume by inclusion and exclusion over all subsets."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(points, size):
            total -= (-1) ** size * float(np.prod(np.maximum(np.min(chosen, 0) - corner, 0)))
    return total


@given(POINTS)
def test_fronts_are_those_of_the_definition(points: list[Point]) -> None:
    left, expected = list(range(len(points))), []
    while left:
        best = [k for k in left if not any(dominates(points[j], points[k]) for j in left)]
        expected.append(best)
        left = [k for k in left if k not in best]
    assert fronts(np.array(points)) == expected


@given(POINTS)
def test_fronts_come_in_order_and_within_one_the_point_that_adds_more_volume_comes_first(points: list[Point]) -> None:
    order = ranked(standings(points))
    assert sorted(order) == list(range(len(points)))
    values = np.array(points)
    corner = np.zeros(values.shape[1])
    rank = {k: place for place, front in enumerate(fronts(values)) for k in front}
    assert [rank[k] for k in order] == sorted(rank.values())
    for front in fronts(values):
        distinct = list({points[k]: k for k in reversed(front)}.values())  # the first of equal points
        whole = covered([points[k] for k in distinct], corner)
        share = dict.fromkeys(front, 0.0)
        share |= {k: whole - covered([points[j] for j in distinct if j != k], corner) for k in distinct}
        for before, after in itertools.pairwise([k for k in order if k in front]):
            assert share[before] >= share[after] - 1e-9 or len(corner) == 1


@given(POINTS, st.floats(0.1, 10))
def test_the_unit_of_an_objective_does_not_matter(points: list[Point], factor: float) -> None:
    shares = ranked(standings(points))
    moved = ranked(standings([tuple(factor * x for x in point) for point in points]))
    values = np.array(points)
    rank = {k: place for place, front in enumerate(fronts(values)) for k in front}
    # Points whose shares are equal may change places by rounding.
    assert [rank[k] for k in shares] == [rank[k] for k in moved]


def test_the_order_by_hand() -> None:
    # What each point of the first front adds: 0.3 x 0.1, 0.2 x 0.5, 0.4 x 0.05, 0.1 x 0.35; the fifth adds nothing.
    points = [(1.0, 0.1), (0.7, 0.6), (0.5, 0.65), (0.1, 1.0), (-0.1, 1.2), (0.4, 0.4), (0.1, 0.1)]
    assert ranked(standings(points)) == [1, 3, 0, 2, 4, 5, 6]
    assert ranked(standings([(0.2,), (0.9,), (0.9,), (0.5,)])) == [1, 2, 3, 0]
    assert ranked(()) == []


def test_those_that_meet_the_bounds_come_first_and_others_by_their_distance() -> None:
    points = [(1.0, 1.0), (0.2, 0.2), (0.9, 0.9), (0.3, 0.3)]
    assert ranked(standings(points, {0: 0.4, 2: 0.1})) == [3, 1, 2, 0]
    assert ranked(standings(points[:2], {0: 0.4, 1: 0.5})) == [0, 1]


def test_one_in_factor_is_promoted_and_none_twice() -> None:
    points = standings([(k / 10,) for k in range(7)])
    assert promotable(points, [], 3) == [6, 5]
    assert promotable(points, [6], 3) == [5]
    assert promotable(points, [6, 5], 3) == []
    assert promotable(points, [6, 2], 3) == [5], "an earlier promotion that is no longer among the best is not undone"
    assert promotable(points[:2], [], 3) == []
    assert promotable((), [], 3, closed=False) == []


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_a_rung_that_nothing_more_reaches_at_least_one_is_promoted(count: int) -> None:
    points = standings([(k / 10,) for k in range(count)])
    assert promotable(points, [], 3, closed=True) == [count - 1]
    assert promotable(points, [count - 1], 3, closed=True) == []


def test_accuracy_counts_from_guessing_and_learned_invariance_from_none() -> None:
    terms = make_terms(rungs=(1, 2))
    attributes = {"chance": 0.1, "bounds": {"at_least": -0.2, "kappa": 0.3}}
    trial = optuna.trial.create_trial(values=[0.7, 0.4], user_attrs=attributes)
    found = halving.standing(5, trial, terms)
    assert (found.number, found.violation) == (5, 0.3)
    assert found.values == pytest.approx((0.6, 0.4))
