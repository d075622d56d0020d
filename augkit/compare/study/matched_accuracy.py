"""Variability at equal accuracy, because a more accurate network is also more consistent.

During training a network passes through all accuracies up to its best one. Two networks of one seed are compared where
each first reached the lower of their two best accuracies. This needs no extrapolation and no regression over finished
networks, whose accuracies differ within an arm by noise alone. It applies to typical images only, because accuracy on
them does not determine the predictions for others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from augkit.invariance.bootstrap import LEVEL, Estimate
from augkit.invariance.learned import FLOOR

# Accuracy and variability on the validation images after each epoch at which both were measured.
Path = Sequence[tuple[float, float]]


def at_accuracy(path: Path, accuracy: float) -> float:
    """Log variability where training first reached an accuracy, interpolated between epochs; NaN if it never did.

    >>> round(at_accuracy([(0.5, 0.4), (0.9, 0.1)], 0.7), 4) == round(math.log(0.4 * 0.1) / 2, 4)
    True
    """
    before = None
    for reached, variability in path:
        log = math.log(max(variability, FLOOR))
        if reached >= accuracy:
            if before is None or reached == before[0]:
                return log
            share = (accuracy - before[0]) / (reached - before[0])
            return before[1] + share * (log - before[1])
        before = (reached, log) if before is None or reached > before[0] else before
    return math.nan


def log_ratio_at_equal_accuracy(
    paths: Mapping[tuple[str, int], Path], arm: str, control: str, seeds: Sequence[int]
) -> Estimate | None:
    """``log(V / V0)`` at the highest accuracy that both networks of a seed reached, averaged over seeds.

    Args:
        paths: accuracy and variability along training, by arm and seed.
        arm, control: names of the arms.
        seeds: seeds that both arms have.

    Returns:
        The mean with a 95 % interval (Student's t over seeds); None if fewer than two seeds were measured in training.
    """
    found = []
    for seed in seeds:
        mine, its = paths.get((arm, seed), ()), paths.get((control, seed), ())
        if len(mine) < 2 or len(its) < 2:
            continue
        common = min(max(accuracy for accuracy, _ in path) for path in (mine, its))
        found.append(at_accuracy(mine, common) - at_accuracy(its, common))
    known = np.array([value for value in found if math.isfinite(value)])
    if len(known) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf((1 + LEVEL) / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known)))
    mean = float(known.mean())
    return Estimate(mean, mean - half, mean + half)
