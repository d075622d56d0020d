"""95 % intervals from a bootstrap that resamples images and, where there are several, training seeds.

Images are the clusters: all views of an image stay together. With one seed the interval is the percentile interval.
With few seeds a percentile interval is far too narrow (three seeds have ten distinct resamples), so the bootstrap
estimates a standard error instead. The variance between seeds is multiplied by S / (S - 1), which corrects the bias
of the plug-in estimate. The quantile is that of Student's t with the degrees of freedom of Satterthwaite 1946: S - 1
for the variance between seeds, and at most twice that in total.
``tests/invariance/test_bootstrap.py`` checks the coverage.

Every metric is a function of means over images, so a resample is a vector of weights and a block of resamples is one
matrix product, for all statistics at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from augkit.core.errors import InputError, unknown_name
from augkit.core.precision import on_cpu
from augkit.invariance.metrics import METRICS, Means

REPLICATES = 1000
LEVEL = 0.95
NOISE = 1e-6  # bits below which a number is noise, as entropies are kept in float32
MOST_FREEDOM = (
    2  # times S - 1: few seeds often miss the variance between seeds, so more would give too narrow intervals
)
CHUNK = 1 << 21  # counts in one block, a byte each; 8 blocks are kept, enough for 16,000 images
PREDICTIONS = "predictions"
Run = dict[str, Tensor]  # per-image statistics (N, F) by name; predictions (N, V) are integers


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; all three are NaN where it is undefined.

    >>> print(Estimate(0.25, 0.125, 0.5), f"{Estimate(0.25, 0.125, 0.5):.1%}")
    0.25 [0.125, 0.5] 25.0% [12.5%, 50.0%]
    """

    value: float
    low: float
    high: float

    @property
    def defined(self) -> bool:
        """Whether the number could be computed."""
        return math.isfinite(self.value)

    def to_dict(self) -> dict[str, float | None]:
        """``value``, ``low`` and ``high`` for JSON; None where undefined, because JSON has no NaN."""
        return {k: v if math.isfinite(v) else None for k, v in vars(self).items()}

    def __format__(self, spec: str) -> str:
        if not self.defined:
            return "undefined"
        spec = spec or ".3g"
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def __str__(self) -> str:
        return format(self)


UNDEFINED = Estimate(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Replicates:
    """A statistic with its bootstrap replicates.

    Attributes:
        value: the statistic itself.
        images: replicates ``(R,)`` that resample images and keep the seeds.
        both: replicates ``(R,)`` that resample images and seeds.
        seeds: number of training seeds.
    """

    value: float
    images: np.ndarray
    both: np.ndarray
    seeds: int

    def estimate(self, low: float = -math.inf, high: float = math.inf) -> Estimate:
        """Return the value with its 95 % interval, clipped to ``[low, high]``."""
        if not math.isfinite(self.value):
            return UNDEFINED
        if self.seeds == 1:
            tail = (1 - LEVEL) / 2
            bounds = np.quantile(self.images, [tail, 1 - tail])
        else:
            bounds = self.value + self._half_width() * np.array([-1.0, 1.0])
        return Estimate(self.value, float(np.clip(bounds[0], low, high)), float(np.clip(bounds[1], low, high)))

    def error(self) -> tuple[float, float]:
        """Return the standard error and its degrees of freedom for Student's t (Satterthwaite 1946)."""
        if self.seeds == 1:
            return math.sqrt(float(self.images.var())), math.inf
        return self.error_with(self.seeds)

    def error_with(self, seeds: int) -> tuple[float, float]:
        """Return `error` as it would be with another number of seeds, at least 2, on the same images.

        The part that comes from the images stays. It needs at least 2 seeds to know the spread between them.
        """
        from_images = float(self.images.var())
        from_seeds = max(0.0, float(self.both.var()) - from_images) * self.seeds / (self.seeds - 1)
        from_seeds *= self.seeds / seeds
        total = from_images + from_seeds
        freedom = (seeds - 1) * (total / from_seeds) ** 2 if from_seeds > 0 else math.inf
        return math.sqrt(total), min(freedom, MOST_FREEDOM * (seeds - 1))

    def _half_width(self) -> float:
        from scipy.special import stdtrit  # Student's t; `scipy.stats` takes seconds to import

        error, freedom = self.error()
        return float(stdtrit(freedom, (1 + LEVEL) / 2)) * error if error else 0.0


@dataclass(frozen=True)
class PerSeed:
    """A statistic for each training seed.

    Attributes:
        values: ``(S,)``; NaN where the statistic is undefined.
        images: ``(R, S)``, replicates over images. All statistics on the same images share the resamples.
        seed: seed of the bootstrap.
    """

    values: np.ndarray
    images: np.ndarray
    seed: int = 0

    def over_seeds(self) -> Replicates:
        """The mean over seeds."""
        count = len(self.values)
        rng = np.random.default_rng([self.seed, count])
        weights = rng.multinomial(count, [1 / count] * count, size=REPLICATES) / count
        return Replicates(float(np.mean(self.values)), self.images.mean(1), (self.images * weights).sum(1), count)


def combine_seeds(function: Callable[..., np.ndarray], *parts: PerSeed) -> PerSeed:
    """Apply ``function`` to several statistics seed by seed, so that a mean of ratios is not a ratio of means.

    Args:
        function: maps arrays ``(...)``, one of each part, to an array of the same shape.
        parts: statistics of the same training seeds.

    Raises:
        InputError: the parts have different numbers of seeds.
    """
    if len({len(part.values) for part in parts}) != 1:
        raise InputError("intervals: expected as many seeds of every part")
    with np.errstate(invalid="ignore", divide="ignore"):
        values = np.asarray(function(*(part.values for part in parts)))
        return PerSeed(values, np.asarray(function(*(part.images for part in parts))), parts[0].seed)


def combine(function: Callable[..., np.ndarray], *parts: Replicates) -> Replicates:
    """Apply ``function`` to several statistics replicate by replicate, so that shared variation cancels (paired)."""
    return Replicates(
        float(function(*(np.float64(part.value) for part in parts))),
        np.asarray(function(*(part.images for part in parts))),
        np.asarray(function(*(part.both for part in parts))),
        parts[0].seeds,
    )


def replicates(metric: str, runs: Sequence[Run], *, seed: int = 0) -> Replicates:
    """Bootstrap a metric over runs of several seeds on the same images.

    Args:
        metric: a key of `augkit.invariance.metrics.METRICS`; computed per seed, then averaged over seeds.
        runs: per seed, per-image statistics ``(N, F)`` by name.
        seed: seed of the bootstrap. The resamples do not depend on the metric, so results with one seed are paired.

    Raises:
        InputError: there are no runs, the runs are on different images, or the metric was not measured.
    """
    return replicates_of([metric], runs, seed=seed)[metric]


def replicates_of(metrics: Sequence[str], runs: Sequence[Run], *, seed: int = 0) -> dict[str, Replicates]:
    """Bootstrap several metrics as `replicates` does; they share the resamples and most of the work."""
    return {metric: found.over_seeds() for metric, found in per_seed(metrics, runs, seed=seed).items()}


def per_seed(metrics: Sequence[str], runs: Sequence[Run], *, seed: int = 0) -> dict[str, PerSeed]:
    """Return the metrics of every run with their replicates over images; arguments and errors as in `replicates`.

    A share is NaN where its denominator is within its own noise.
    """
    unknown = [metric for metric in metrics if metric not in METRICS]
    if unknown:
        raise unknown_name("metric", unknown[0], METRICS)
    needs = {name for metric in metrics for name in METRICS[metric].needs}
    whole: dict[str, list[float]] = {metric: [] for metric in metrics}
    resampled: dict[str, list[np.ndarray]] = {metric: [] for metric in metrics}
    for means, drawn in means_per_seed(runs, needs, seed=seed):
        for metric in metrics:
            row = METRICS[metric]
            quiet = row.denominator is not None and _is_noise(row.denominator(means), row.denominator(drawn))
            whole[metric].append(math.nan if quiet else float(row(means)))
            resampled[metric].append(row(drawn).numpy())
    return {m: PerSeed(np.array(whole[m]), np.stack(resampled[m], axis=1), seed) for m in metrics}


def means_per_seed(runs: Sequence[Run], needs: Iterable[str], *, seed: int = 0) -> Iterator[tuple[Means, Means]]:
    """Yield, for every run, the means of its statistics over images ``(F,)`` and over resampled images ``(R, F)``."""
    if not runs or len({_length(run) for run in runs}) != 1:
        raise InputError("intervals: expected at least one run, all on the same images")
    for run in runs:
        yield _means(run, set(needs), seed)


def _is_noise(value: Tensor, drawn: Tensor) -> bool:
    return float(value) - 2 * float(drawn.std()) <= NOISE


def mean_replicates(columns: Sequence[Tensor], *, seed: int = 0) -> Replicates:
    """Bootstrap the mean of one column ``(N,)`` per training seed, with the same resamples as `replicates`."""
    if not columns or len({len(column) for column in columns}) != 1:
        raise InputError("intervals: expected at least one run, all on the same images")
    joined = torch.stack([on_cpu(column) for column in columns], dim=1)
    return PerSeed(joined.mean(0).numpy(), resampled_means(joined, seed).numpy(), seed).over_seeds()


def mean_estimates(columns: Tensor, *, low: float = 0.0, high: float = math.inf, seed: int = 0) -> list[Estimate]:
    """Return the mean over images of each of the F ``columns`` ``(N, F)``; intervals are clipped to ``[low, high]``."""
    whole, resampled = means_with_replicates(columns, seed)
    return [percentile_interval(value, column, low, high) for value, column in zip(whole, resampled.T, strict=True)]


def means_with_replicates(values: Tensor, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the means over images of ``values`` ``(N, F)`` and their bootstrap replicates: ``(F,)`` and ``(R, F)``.

    Both are float64. Calls with the same seed and the same number of images use the same resamples.
    """
    values = on_cpu(values)
    return values.mean(0).numpy(), resampled_means(values, seed).numpy()


def percentile_interval(
    value: float | np.ndarray, replicates: np.ndarray, low: float = -math.inf, high: float = math.inf
) -> Estimate:
    """Return ``value`` with the 95 % percentile interval of its replicates ``(R,)``, clipped to ``[low, high]``."""
    return Replicates(float(value), replicates, replicates, seeds=1).estimate(low, high)


def resampled_means(values: Tensor, seed: int = 0) -> Tensor:
    """Means of ``values`` ``(N, F)`` over resampled images, ``(R, F)``."""
    values = on_cpu(values)
    out = torch.empty(REPLICATES, values.shape[1], dtype=torch.float64)
    # One buffer for all blocks: torch's aligned allocations of this size would each take fresh memory.
    buffer = torch.empty(_block(len(values)), len(values), dtype=torch.float64)
    start = 0
    for counts in resamples(len(values), seed):
        rows = buffer[: len(counts)].copy_(counts)
        torch.mm(rows, values, out=out[start : start + len(counts)])
        start += len(counts)
    return out / len(values)


def _means(run: Run, needs: set[str], seed: int) -> tuple[Means, Means]:
    """Return the means of the statistics in ``needs``, over all images ``(F,)`` and per resample ``(R, F)``."""
    shares = {"shares"} & needs if PREDICTIONS in run else set()
    plain = sorted(needs - shares)
    missing = [name for name in plain if name not in run]
    if missing:
        raise InputError(f"intervals: '{missing[0]}' was not measured; known: {', '.join(sorted(run))}")
    joined = torch.cat([on_cpu(run[name]) for name in plain], dim=1)
    widths = [run[name].shape[1] for name in plain]
    whole = dict(zip(plain, joined.mean(0).split(widths), strict=True))
    resampled = dict(zip(plain, resampled_means(joined, seed).split(widths, dim=1), strict=True))
    if shares:
        whole["shares"], resampled["shares"] = _shares(run[PREDICTIONS], seed)
    return whole, resampled


def _shares(predictions: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Share of predictions per class, over all images ``(K,)`` and per resample ``(R, K)``, without a one-hot array."""
    from scipy.sparse import csr_matrix

    count, views = predictions.shape
    classes = predictions.cpu().numpy().astype(np.int64).ravel()
    rows = np.arange(0, count * views + 1, views)
    one_hot = csr_matrix((np.full(count * views, 1 / views), classes, rows), shape=(count, int(classes.max()) + 1))
    one_hot.sum_duplicates()
    transposed = one_hot.T.tocsr()
    resampled = np.empty((REPLICATES, one_hot.shape[1]))
    start = 0
    for counts in resamples(count, seed):
        # Rows of images, as scipy's product wants them; it would copy any other layout.
        drawn = np.ascontiguousarray(counts.numpy().T, dtype=np.float64)
        resampled[start : start + len(counts)] = (transposed @ drawn).T / count
        start += len(counts)
    return torch.from_numpy(np.asarray(one_hot.mean(0)).ravel()), torch.from_numpy(resampled)


def resamples(images: int, seed: int) -> Iterator[Tensor]:
    """Yield the number of times each resample draws each image, ``(block, images)`` uint8, block by block."""
    step = _block(images)
    for start in range(0, REPLICATES, step):
        yield _counts(seed, images, start, min(start + step, REPLICATES))


def _block(images: int) -> int:
    """Number of resamples in one block."""
    return min(REPLICATES, max(1, CHUNK // images))


@functools.lru_cache(maxsize=8)
def _counts(seed: int, images: int, start: int, stop: int) -> Tensor:
    rng = np.random.default_rng([seed, images, start])
    out = np.empty((stop - start, images), dtype=np.uint8)
    for row in out:
        # Counting draws with replacement gives a multinomial draw at a tenth of the cost of numpy's own.
        row[:] = np.bincount(rng.integers(0, images, images, dtype=np.int32), minlength=images)
    return torch.from_numpy(out)


def _length(run: Run) -> int:
    return len(next(iter(run.values())))
