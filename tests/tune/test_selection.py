"""Importance of the searched fields."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from augkit.tune.goal import Goal
from augkit.tune.selection import importance


@pytest.mark.parametrize(("trials", "known"), [(3, False), (4, True)])
def test_importance_needs_four_trials(trials: int, known: bool) -> None:
    goal = Goal()
    study = optuna.create_study(directions=["maximize"] * len(goal.objectives))
    ranges = {"a": FloatDistribution(0.0, 1.0), "b": FloatDistribution(0.0, 1.0)}
    for k in range(trials):
        value = k / trials
        study.add_trial(
            create_trial(
                params={"a": value, "b": (7 * k % 5) / 5},
                distributions=ranges,
                values=[value] * len(goal.objectives),
                user_attrs={"values": {"a": value}, "accuracy": value},
            )
        )
    found = importance(study, goal)
    assert bool(found) is known
    for shares in found.values():
        assert set(shares) == set(ranges)
        assert sum(shares.values()) == pytest.approx(1.0)
