"""Variability at matched accuracy: a better classifier is more consistent, so arms are also compared as if alike.

Within every arm, ``log V`` of its runs is regressed on their accuracy, with one slope for all arms of the study; V of
each run is then taken to the mean accuracy of the arms compared. Arms whose runs do not overlap in accuracy, and have
no pair within 0.5 points, cannot be compared so: that would be extrapolation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from augkit.invariance.intervals import REPLICATES
from augkit.invariance.learned import FLOOR

TOLERANCE = 0.005  # 0.5 points of accuracy
ACCURACY, VARIABILITY = "correct", ("js", "mac", "logit")


@dataclass
class Matched:
    """Takes variabilities of ``arms`` to their common mean accuracy.

    Attributes:
        accuracy: of every run of the study on typical images, by arm and seed.
        levels: mean V of every run, by column and then by arm and seed.
        arms: those compared.
    """

    accuracy: Mapping[tuple[str, int], float]
    levels: Mapping[str, Mapping[tuple[str, int], float]]
    arms: Sequence[str]
    _slopes: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def possible(self) -> bool:
        """Whether all arms overlap in accuracy, or come within 0.5 points of each other."""
        spans = [self._of(arm) for arm in self.arms]
        if not spans or any(not len(span) for span in spans):
            return False
        return max(min(span) for span in spans) <= min(max(span) for span in spans) + TOLERANCE

    @property
    def reference(self) -> float:
        """The accuracy to which all are taken: the mean over the arms compared."""
        return float(np.mean([np.mean(self._of(arm)) for arm in self.arms]))

    def slope(self, column: str) -> tuple[float, float]:
        """Slope of log V on accuracy within arms, and its standard error; (0, 0) for what is no variability."""
        if column not in self._slopes:
            self._slopes[column] = self._fit(column)
        return self._slopes[column]

    def factor(self, arm: str, seed: int, column: str) -> float:
        """By what V of a run is multiplied."""
        return float(np.exp(-self.slope(column)[0] * (self.accuracy[arm, seed] - self.reference)))

    def drift(self, arm: str, column: str) -> np.ndarray:
        """By what replicates are multiplied for the error of the slope; the same draws in every arm."""
        draws = np.random.default_rng(0).normal(size=REPLICATES)
        away = float(np.mean(self._of(arm))) - self.reference
        return np.asarray(np.exp(-self.slope(column)[1] * draws * away))

    def _of(self, arm: str) -> list[float]:
        return [value for (name, _), value in self.accuracy.items() if name == arm]

    def _fit(self, column: str) -> tuple[float, float]:
        if column.partition("|")[2].partition("@")[0] not in VARIABILITY:
            return 0.0, 0.0
        runs = [run for run in self.levels.get(column, {}) if run in self.accuracy]
        x, y, arms = [], [], 0
        for arm in dict.fromkeys(name for name, _ in runs):
            own = [run for run in runs if run[0] == arm]
            if len(own) < 2:
                continue
            arms += 1
            accuracy = np.array([self.accuracy[run] for run in own])
            logs = np.log(np.maximum([self.levels[column][run] for run in own], FLOOR))
            x.append(accuracy - accuracy.mean())
            y.append(logs - logs.mean())
        if not x:
            return 0.0, 0.0
        dx, dy = np.concatenate(x), np.concatenate(y)
        freedom, energy = len(dx) - arms - 1, float((dx**2).sum())
        if freedom < 1 or energy < 1e-12:
            return 0.0, 0.0
        slope = float((dx * dy).sum() / energy)
        return slope, float(np.sqrt(((dy - slope * dx) ** 2).sum() / freedom / energy))
