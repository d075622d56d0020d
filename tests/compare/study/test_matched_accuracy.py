"""Comparison at equal accuracy: by hand, and for networks that differ only in the progress of training."""

from __future__ import annotations

import math

import numpy as np
import pytest

from augkit.compare.study.matched_accuracy import at_accuracy, log_ratio_at_equal_accuracy


def path(rate: float, factor: float, epochs: int = 8) -> list[tuple[float, float]]:
    """A network that learns at ``rate`` and whose variability is ``factor`` times a function of its accuracy."""
    accuracies = [1 - math.exp(-rate * (k + 1)) for k in range(epochs)]
    return [(accuracy, factor * math.exp(-3 * accuracy)) for accuracy in accuracies]


def test_log_variability_is_linear_between_epochs() -> None:
    made = [(0.2, 0.5), (0.6, 0.1), (0.5, 0.2), (0.8, 0.05)]
    assert at_accuracy(made, 0.4) == pytest.approx((math.log(0.5) + math.log(0.1)) / 2)
    assert at_accuracy(made, 0.1) == pytest.approx(math.log(0.5))  # reached at the first epoch
    assert at_accuracy(made, 0.8) == pytest.approx(math.log(0.05))
    # Only the first passage counts; a later fall and rise of accuracy is ignored.
    assert at_accuracy(made, 0.7) == pytest.approx((math.log(0.1) + math.log(0.05)) / 2)
    assert math.isnan(at_accuracy(made, 0.9))


def test_a_difference_due_to_accuracy_vanishes_at_equal_accuracy_and_the_rest_remains() -> None:
    seeds = range(4)
    slow = {("a", s): path(0.3 + 0.02 * s, 1.0) for s in seeds} | {("b", s): path(0.6, 1.0) for s in seeds}
    plain = np.mean([math.log(slow["a", s][-1][1] / slow["b", s][-1][1]) for s in seeds])
    found = log_ratio_at_equal_accuracy(slow, "a", "b", seeds)
    assert found is not None
    assert plain > 0.15
    assert found.value == pytest.approx(0, abs=0.02)
    better = {("a", s): path(0.3, 0.5) for s in seeds} | {("b", s): path(0.6, 1.0) for s in seeds}
    found = log_ratio_at_equal_accuracy(better, "a", "b", seeds)
    assert found is not None
    assert found.value == pytest.approx(math.log(0.5), abs=0.02)


def test_the_interval_is_student_s_over_seeds() -> None:
    values = [0.4, 0.5, 0.7]
    paths = {("a", s): [(0.5, v), (0.9, v)] for s, v in enumerate(values)}
    paths |= {("b", s): [(0.5, 1.0), (0.9, 1.0)] for s in range(3)}
    found = log_ratio_at_equal_accuracy(paths, "a", "b", range(3))
    assert found is not None
    half = 4.3027 * np.std(np.log(values), ddof=1) / math.sqrt(3)
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-4)


def test_the_effect_is_none_without_two_seeds_measured_along_training() -> None:
    paths = {("a", 0): path(0.3, 1.0), ("b", 0): path(0.3, 1.0), ("a", 1): [], ("b", 1): path(0.3, 1.0)}
    assert log_ratio_at_equal_accuracy(paths, "a", "b", (0, 1)) is None
