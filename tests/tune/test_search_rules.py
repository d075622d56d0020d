"""Rules of a search, checked by hand: candidates for final runs, waiting with a timeout, messages about changes."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest
from toy import make_terms, open_toy

from augkit.core.errors import InputError
from augkit.core.jobs import worker
from augkit.tune import selection
from augkit.tune.goal import Goal


def trial(number: int, accuracy: float, learned: float) -> optuna.trial.FrozenTrial:
    made = optuna.trial.create_trial(values=[accuracy, learned])
    made.number = number
    made.set_user_attr("accuracy", accuracy)
    made.set_user_attr("learned_invariance", learned)
    made.set_user_attr("values", {"k": number})
    return made


def near(best: float, images: int, accuracies: list[float], control: float = 0.0) -> list[int]:
    """Numbers of the trials that count as equally accurate; every trial below the bar is more invariant than these."""
    trials = [trial(0, best, 0.0), *(trial(k + 1, a, 0.9 - 0.1 * k) for k, a in enumerate(accuracies))]
    return [t.number for t in selection.candidates(trials, Goal(), control, images, 9)]


def test_the_bar_is_two_binomial_standard_errors_below_the_best() -> None:
    # sqrt(0.9 * 0.1 / 900) = 0.01; sqrt(0.8 * 0.2 / 400) = 0.02
    assert near(0.9, 900, [0.8801, 0.8799, 0.885]) == [1, 3, 0]
    assert near(0.8, 400, [0.7601, 0.7599, 0.79]) == [1, 3, 0]


def test_the_bar_is_taken_from_a_control_that_is_better() -> None:
    assert near(0.885, 900, [0.8801, 0.8799], control=0.9) == [1, 0]
    # No trial reaches the bar: the most accurate come first.
    assert near(0.80, 900, [0.79, 0.795], control=0.9) == [0, 2, 1]


def test_waiting_ends_with_a_result_or_at_the_timeout() -> None:
    answers = iter([None, None, 0, 1])
    assert worker.wait_for(lambda: next(answers), 30, 0.001) == 0  # 0 is a result
    assert next(answers) == 1, "nobody is asked again after the answer"
    started = time.monotonic()
    assert worker.wait_for(lambda: None, 0.05, 0.01) is None
    assert 0.05 <= time.monotonic() - started < 5
    started = time.monotonic()
    assert worker.wait_for(lambda: "there", 30, 20) == "there"
    assert time.monotonic() - started < 5, "an answer that is there is not waited for"


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({"seed": 7}, ""),
        ({"seed": 7, "epochs": 9}, ""),
        ({"seed": 7, "epochs": 9, "sampler": "random"}, r" \(and 1 more\)"),
        ({"seed": 7, "epochs": 9, "sampler": "random", "floor": 0.5}, r" \(and 2 more\)"),
    ],
)
def test_the_error_names_two_changed_terms_and_counts_the_rest(
    tmp_path: Path, changes: dict[str, object], more: str
) -> None:
    open_toy(tmp_path / "j", make_terms(), 3)
    with pytest.raises(InputError, match=r"[^;]+" + "; [^;]+" * (len(changes) > 1) + more + "$") as caught:
        open_toy(tmp_path / "j", make_terms(**changes), 3, join=True)
    assert ("more)" in str(caught.value)) == bool(more)
    assert str(caught.value).count(";") == min(len(changes), 2) - 1
