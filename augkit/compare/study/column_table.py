"""Means over images of the columns of all runs, per seed, with their bootstrap replicates."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from augkit.compare.study.claims import TYPICAL, Part
from augkit.compare.study.hypothesis_tests import Bounds, Decision, decide
from augkit.core.errors import InputError
from augkit.invariance.bootstrap import (
    Estimate,
    PerSeed,
    Replicates,
    Run,
    combine_seeds,
    per_seed,
    resampled_means,
)
from augkit.invariance.learned import too_little
from augkit.invariance.metrics import METRICS
from augkit.invariance.report import CURVE_STATISTICS

# From "image set|statistic" or "image set|statistic@length" to an array with one number or row per image.
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Effect:
    """An effect for every seed, with its bootstrap replicates over images and the number of images."""

    seeds: PerSeed
    n_images: int

    @functools.cached_property
    def replicates(self) -> Replicates:
        """Bootstrap replicates of the mean over seeds."""
        return self.seeds.over_seeds()

    @property
    def per_seed(self) -> np.ndarray:
        """Value of every seed ``(S,)``."""
        return self.seeds.values

    def estimate(self) -> Estimate:
        """Mean over seeds with its 95 % interval."""
        return self.replicates.estimate()

    def decide(self, bounds: Bounds) -> Decision:
        """Test whether the effect lies within ``bounds``."""
        if self.replicates.seeds == 1 and self.replicates.error()[0] > 0:
            return Decision(1.0, 1.0)  # one seed has no information about the spread between seeds
        return decide(self.replicates.value, *self.replicates.error(), bounds)


def combine_effects(function: Callable[..., np.ndarray], *effects: Effect) -> Effect:
    """Combine effects into one, replicate by replicate and seed by seed."""
    parts = combine_seeds(function, *(effect.seeds for effect in effects))
    return Effect(parts, min(effect.n_images for effect in effects))


class MissingError(Exception):
    """A number was not measured; the message names it."""


@dataclass
class ColumnTable:
    """Columns of all runs; its methods give their means over images with bootstrap replicates.

    Attributes:
        columns: columns by arm, seed and measure.
        seeds: seeds that all compared arms have, in order.
        strengths: strength by arm.
        lengths: lengths of the response curve (pixels), by measure.
        pairs: number of pairs of displacements per image, by measure.
    """

    columns: Mapping[tuple[str, int, str], Columns]
    seeds: Sequence[int]
    strengths: Mapping[str, float] = field(default_factory=dict)
    lengths: Mapping[str, Sequence[float]] = field(default_factory=dict)
    pairs: Mapping[str, int] = field(default_factory=dict)
    _cache: dict[tuple[object, ...], Effect] = field(default_factory=dict, repr=False)

    def mean(self, arm: str, measure: str, column: str) -> Effect:
        """Mean of a column over images, for every seed."""
        key = (arm, measure, column)
        if key not in self._cache:
            found = [self._column(arm, seed, measure, column) for seed in self.seeds]
            if len({len(values) for values in found}) != 1:
                raise InputError(f"'{column}' of {arm}: expected the same images of every seed")
            joined = torch.cat(found, dim=1)
            parts = PerSeed(joined.mean(0).numpy(), resampled_means(joined).numpy())
            self._cache[key] = Effect(parts, len(joined))
        return self._cache[key]

    def variability(self, arm: str, measure: str, images: str, metric: str, at: float | None = None) -> Effect:
        """A variability for every seed; with ``at``, at that length of the response curve (pixels)."""
        key = (arm, measure, images, metric, at)
        if key not in self._cache:
            runs = self.runs(arm, measure, images, METRICS[metric].needs, at)
            self._cache[key] = Effect(per_seed([metric], runs)[metric], len(next(iter(runs[0].values()))))
        return self._cache[key]

    def lengths_of(self, measure: str) -> list[float]:
        """Lengths of the response curve of a measure above 0 (pixels), ascending, whatever their order in the file."""
        return sorted({length for length in self.lengths.get(measure, ()) if length > 0})

    def runs(self, arm: str, measure: str, images: str, needs: Sequence[str], at: float | None = None) -> list[Run]:
        """Per-image statistics ``(N, F)`` by name, for every seed.

        On the response curve an image has two views, and their JS is the shift information; the entropy of
        predictions is that of the pairs of displacements.
        """
        of_curve = {} if at is None else {name: f"{name}@{at:g}" for name in CURVE_STATISTICS.values()}
        if at is not None:
            of_curve["shift_bits"] = of_curve[CURVE_STATISTICS["js"]]
        return [
            {need: self._column(arm, seed, measure, f"{images}|{of_curve.get(need, need)}") for need in needs}
            for seed in self.seeds
        ]

    def _column(self, arm: str, seed: int, measure: str, column: str) -> torch.Tensor:
        values = self.columns.get((arm, seed, measure), {}).get(column)
        if values is None:
            raise MissingError(f"'{column.replace('|', ' ')}' of {arm}, seed {seed}, was not measured")
        whole = torch.from_numpy(np.atleast_1d(np.asarray(values, dtype=np.float64)))
        return whole[:, None] if whole.ndim == 1 else whole

    def why_undefined(self, arm: str, measure: str, images: str) -> str:
        """Why the predictions of an arm carry too little information about atypical images; empty if they do not.

        The criterion is that of `augkit.invariance.unsaid`.
        """
        needs = METRICS["information"].needs
        if images == TYPICAL:
            return ""
        try:
            return too_little(*(self.runs(arm, measure, name, needs) for name in (images, TYPICAL)))
        except MissingError:
            return ""

    def average(self, part: Part, make: Callable[[str], Effect]) -> Effect:
        """Mean of ``make`` over those image sets of the part for which it is defined."""
        effects = [make(images) for images in part.sets]
        effects = [effect for effect in effects if math.isfinite(effect.replicates.value)] or effects
        return effects[0] if len(effects) == 1 else combine_effects(lambda *values: np.mean(values, axis=0), *effects)
