"""Importance of the searched fields, and trials that are chosen for final runs."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial

from augkit.tune.goal import Goal
from augkit.tune.selection import candidates, importance


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


@pytest.mark.parametrize("at_least", [0.2, 0.9])
@pytest.mark.parametrize("mode", ["pareto", "accuracy", "invariance"])
def test_equal_values_are_retrained_once(mode: str, at_least: float) -> None:
    """A sampler may propose values again; their result is copied, and final runs of both would be the same."""
    goal = Goal.model_validate({"mode": mode} if mode == "pareto" else {"mode": mode, "at_least": at_least})
    trials = []
    for number, (a, score) in enumerate(((0.1, 0.8), (0.1, 0.8), (0.2, 0.79))):
        trial = create_trial(
            values=[score] * len(goal.objectives),
            user_attrs={"values": {"a": a}, "accuracy": score, "learned_invariance": score},
        )
        trial.number = number
        trials.append(trial)
    assert [trial.number for trial in candidates(trials, goal, 0.5, 100, 2)] == [0, 2]
