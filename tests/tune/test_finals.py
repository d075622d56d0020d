"""Who wins among the retrained trials: luck does not, since the lower ends of intervals decide."""

from __future__ import annotations

from typing import Any

import pytest

from augkit.invariance import Estimate
from augkit.tune.goal import Goal
from augkit.tune.selection import decide

NAN = float("nan")


def row(number: int | None, accuracy: tuple[float, float], learned: tuple[float, float] | None) -> dict[str, Any]:
    def between(ends: tuple[float, float] | None) -> Estimate:
        return Estimate(NAN, NAN, NAN) if ends is None else Estimate(sum(ends) / 2, *ends)

    return {"number": number, "accuracy": between(accuracy), "learned_invariance": between(learned)}


CONTROL = row(None, (0.94, 0.96), None)
LUCKY = row(1, (0.93, 0.97), (0.2, 0.9))  # the higher value, the lower end
STEADY = row(2, (0.94, 0.95), (0.4, 0.5))
INACCURATE = row(3, (0.80, 0.90), (0.8, 0.9))
UNDEFINED = row(4, (0.95, 0.97), None)


@pytest.mark.parametrize(
    ("goal", "winner"),
    [
        (Goal(), STEADY),
        (Goal(mode="accuracy", at_least=0.3), STEADY),
        (Goal(mode="accuracy", at_least=0.6), INACCURATE),
        (Goal(mode="accuracy", at_least=0.1), STEADY),
        (Goal(mode="accuracy", at_least=0.85), INACCURATE),  # nobody is above it for certain: the nearest
        (Goal(mode="invariance", at_least=0.925), STEADY),
        (Goal(mode="invariance", at_least=0.7), INACCURATE),
        (Goal(mode="invariance", at_least=0.99), UNDEFINED),
    ],
)
def test_the_lower_end_decides(goal: Goal, winner: dict[str, Any]) -> None:
    rows = [CONTROL, LUCKY, STEADY, INACCURATE, UNDEFINED]
    chosen, rule = decide(rows, goal)
    assert rows[chosen] is winner
    assert ("for certain; this one comes nearest" in rule) == (goal.at_least in (0.85, 0.99))


def test_where_nobody_is_as_accurate_as_the_control_the_most_invariant_wins() -> None:
    assert decide([CONTROL, row(1, (0.5, 0.6), (0.1, 0.2)), row(2, (0.4, 0.5), (0.3, 0.4))], Goal())[0] == 2
