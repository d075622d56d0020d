"""Numbers of outputs: functions of means over images of per-image statistics, with 95 % intervals over images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkit.core.precision import on_cpu
from augkit.invariance.bootstrap import REPLICATES, UNDEFINED, Estimate, Run, means_per_seed, percentile_interval
from augkit.invariance.bootstrap import resamples as drawn_images
from augkit.invariance.metrics import Means, Metric


def mean_of(name: str, title: str, statistic: str, meaning: str, **facts: Any) -> Metric:
    """Return the row of a number that is the mean over images of one statistic ``(N, 1)``."""
    return Metric(name, title, meaning, (statistic,), lambda means: means[statistic][..., 0], **facts)


def ratio_of(name: str, title: str, parts: tuple[str, str], meaning: str, **facts: Any) -> Metric:
    """Return the row of a number that is the mean of one statistic ``(N, 1)`` divided by that of another.

    It is undefined where the second is 0, as the class changes of a detector that finds nothing.
    """
    return Metric(name, title, meaning, parts, lambda means: ratio(means, *parts)[..., 0], **facts)


def ratio(means: Means, above: str, below: str) -> Tensor:
    """Return the mean of one statistic divided by that of another, ``(..., F)``; NaN where the second is 0."""
    part, whole = means[above], means[below]
    return torch.where(whole > 0, part / whole.clamp_min(1e-300), torch.full_like(part, torch.nan))


def decibels(means: Means, signal: str, error: str, resolution: float) -> Tensor:
    """Return ``10 log10(signal / error)`` of two mean energies, ``(..., F)``; NaN without a signal.

    An error below the rounding ``resolution`` (relative to the signal) is replaced by it, so the result is finite.
    """
    share = ratio(means, error, signal).clamp_min(resolution**2)
    return -10 * torch.log10(share)


# Of every kind: |T f(x) - f(T x)| / |f(x) - mean f(x)|, from images whose output is not constant.
EQUIVARIANCE_ERROR = ratio_of(
    "equivariance_error", "equivariance error", ("relative", "varied"),
    "root mean square of T f(x) - f(T x), relative to that of f(x) about its mean",
    unit="", high=math.inf,
)  # fmt: skip


def estimates(rows: Sequence[Metric], statistics: Run, seed: int = 0) -> dict[str, Estimate]:
    """Return an estimate of every row whose statistics are available; undefined resamples are left out."""
    able = [row for row in rows if set(row.needs) <= set(statistics)]
    if not able:
        return {}
    [(means, drawn)] = means_per_seed([statistics], {need for row in able for need in row.needs}, seed=seed)
    return {row.name: estimate(row(means), row(drawn), row.low, row.high) for row in able}


def curve(
    function: Callable[[Means], Tensor],
    needs: Sequence[str],
    statistics: Run,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    seed: int = 0,
) -> list[Estimate]:
    """Return the estimates of a function of means that gives several numbers ``(..., P)``, one per point of a curve."""
    [(means, drawn)] = means_per_seed([statistics], needs, seed=seed)
    value, replicates = function(means), function(drawn)
    return [estimate(value[p], replicates[:, p], low, high) for p in range(len(value))]


def estimate(value: Tensor, replicates: Tensor, low: float = -math.inf, high: float = math.inf) -> Estimate:
    """Return a number with the percentile interval of those replicates ``(R,)`` that are defined."""
    defined = replicates[torch.isfinite(replicates)].numpy()
    if not len(defined):
        return UNDEFINED
    return percentile_interval(float(value), defined, low, high)


def quantiles(values: Tensor, shares: Sequence[float], seed: int = 0) -> list[Estimate]:
    """Return quantiles of ``values`` ``(N, P)``, P for each of N images, with intervals that resample images.

    A quantile is the smallest value with at least that share of the values at or below it.
    """
    images, views = values.shape
    flat = on_cpu(values).flatten()
    ordered, order = flat.sort(stable=True)
    owner = order.div(views, rounding_mode="floor")

    def at(counts: Tensor) -> Tensor:
        """The quantiles ``(R, Q)`` where image n counts ``counts[:, n]`` times."""
        below = counts.double()[:, owner].cumsum(1)
        wanted = torch.tensor(list(shares), dtype=torch.float64) * below[:, -1:]
        return ordered[torch.searchsorted(below, wanted - 1e-9).clamp_max(len(ordered) - 1)]

    whole = at(torch.ones(1, images))[0]
    # In small blocks, as the counts are expanded to all views.
    drawn = torch.cat([at(part) for block in drawn_images(images, seed) for part in block.split(64)])
    assert len(drawn) == REPLICATES
    return [percentile_interval(float(v), np.asarray(column)) for v, column in zip(whole, drawn.unbind(1), strict=True)]
