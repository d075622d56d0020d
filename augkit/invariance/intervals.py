"""95 % intervals by a bootstrap that resamples images and, where there are several, training seeds.

Images are the clusters: all pairs of shifts of an image stay together. With one seed the interval is the
percentile interval. With few seeds a percentile interval is far too narrow (three seeds have ten distinct
resamples), so the bootstrap gives the standard error instead: its part from seeds is multiplied by S / (S - 1)
(the bias of a plug-in variance), and the quantile is Student's t with the degrees of freedom of
Satterthwaite 1946, S - 1 for the part from seeds. ``tests/test_intervals.py`` checks the coverage.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augkit.errors import InputError
from augkit.invariance.metrics import METRICS

REPLICATES = 1000
LEVEL = 0.95
CHUNK = 1 << 22  # weights in one block; eight blocks are kept


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; all three are NaN where it is undefined."""

    value: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Whether the number could be computed."""
        return math.isfinite(self.value)

    def to_dict(self) -> dict[str, float | None]:
        """``value``, ``low`` and ``high``; None where undefined, which JSON can hold and NaN cannot."""
        return {k: v if math.isfinite(v) else None for k, v in vars(self).items()}

    def __format__(self, spec: str) -> str:
        if not self.defined:
            return "undefined"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Replicates:
    """A statistic: its value, and its bootstrap replicates ``(R,)``.

    ``images`` resamples images with the seeds as they are; ``both`` resamples seeds too.
    """

    value: float
    images: np.ndarray
    both: np.ndarray
    seeds: int

    def estimate(self, low: float = -math.inf, high: float = math.inf) -> Estimate:
        """The value with its interval, clipped to ``[low, high]``."""
        if not math.isfinite(self.value):
            return UNDEFINED
        if self.seeds == 1:
            tail = (1 - LEVEL) / 2
            bounds = np.quantile(self.images, [tail, 1 - tail])
        else:
            bounds = self.value + self._half_width() * np.array([-1.0, 1.0])
        return Estimate(self.value, float(np.clip(bounds[0], low, high)), float(np.clip(bounds[1], low, high)))

    def _half_width(self) -> float:
        from scipy.stats import t

        from_images = float(self.images.var())
        from_seeds = max(0.0, float(self.both.var()) - from_images) * self.seeds / (self.seeds - 1)
        total = from_images + from_seeds
        if total == 0:
            return 0.0
        freedom = (self.seeds - 1) * (total / from_seeds) ** 2 if from_seeds > 0 else math.inf
        return float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(total)


def combine(function: Callable[..., np.ndarray], *parts: Replicates) -> Replicates:
    """A statistic made of others, replicate by replicate, so that what they share cancels (paired)."""
    return Replicates(
        float(function(*(np.float64(part.value) for part in parts))),
        np.asarray(function(*(part.images for part in parts))),
        np.asarray(function(*(part.both for part in parts))),
        parts[0].seeds,
    )


def replicates(metric: str, runs: list[dict[str, Tensor]], *, seed: int = 0) -> Replicates:
    """Bootstrap a metric over runs of several seeds on the same images.

    Args:
        metric: a key of `augkit.invariance.metrics.METRICS`; computed per seed, then averaged over seeds.
        runs: per seed, statistics ``(N, F)`` per image (`image_statistics`).
        seed: the same seed, images and runs give the same resamples, whatever the metric: results are paired.
    """
    if not runs or len({len(run["js"]) for run in runs}) != 1:
        raise InputError("intervals: expected at least one run, all on the same images")
    count, images = len(runs), len(runs[0]["js"])
    per_seed = np.empty((REPLICATES, count))
    step = max(1, CHUNK // images)
    for start in range(0, REPLICATES, step):
        weights = _image_weights(seed, images, start, min(start + step, REPLICATES))
        for k, run in enumerate(runs):
            means = {name: weights @ values.double().cpu() for name, values in run.items()}
            per_seed[start : start + step, k] = METRICS[metric](means).numpy()
    seed_weights = np.random.default_rng([seed, count]).multinomial(count, [1 / count] * count, size=REPLICATES) / count
    whole = [
        float(METRICS[metric]({name: values.double().cpu().mean(0) for name, values in run.items()})) for run in runs
    ]
    return Replicates(float(np.mean(whole)), per_seed.mean(1), (per_seed * seed_weights).sum(1), count)


@functools.lru_cache(maxsize=8)
def _image_weights(seed: int, images: int, start: int, stop: int) -> Tensor:
    """Weights of replicates ``start`` to ``stop``, ``(stop - start, images)``: the same for every metric and run."""
    rng = np.random.default_rng([seed, images, start])
    counts = rng.multinomial(images, np.full(images, 1 / images), size=stop - start)
    return torch.from_numpy(counts / images)
