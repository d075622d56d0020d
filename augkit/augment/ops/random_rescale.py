"""Scaling about the center."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size
from augkit.augment.distributions import check_distribution
from augkit.augment.draw_programs import RESCALE, DrawProgram
from augkit.augment.geometry import Axes
from augkit.augment.op_spec import Amount, Matrix, OpSettings, OpSpec, Probability, per_axis
from augkit.augment.pairs import PerAxis, as_factor, both, check_pair

DISTRIBUTIONS = ("log-uniform", "uniform")


class RescaleSettings(OpSettings):
    """The fields of a rescale in a policy."""

    max_factor: Annotated[PerAxis, Amount(1.0, 1.5, "factor"), per_axis(1.0, 16.0)] = Field(
        1.0, description="largest factor, either way; a pair for x and y draws each on its own (factor)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")
    distribution: Literal["log-uniform", "uniform"] = Field("log-uniform", description="of the factor")

    added: ClassVar[frozenset[str]] = frozenset({"distribution"})


def _describe(settings: RescaleSettings) -> str:
    x, y = (f"{1 / most:.3g} to {most:.3g}" for most in both(settings.max_factor))
    factors = f"{x} along x, {y} along y" if isinstance(settings.max_factor, tuple) else x
    return f"factor {factors}{', uniformly' if settings.distribution == 'uniform' else ''}"


def _caption(matrix: Matrix) -> str:
    x, y = matrix[0][0], matrix[1][1]
    return f"× {x:.2f}" if x == y else f"x × {x:.2f}, y × {y:.2f}"


class RandomRescale(RandomGeometry):
    """Scale about the center by a factor in ``[1 / max_factor, max_factor]``.

    Args:
        max_factor: largest factor; 1.25 enlarges up to 1.25 times and shrinks down to 0.8. A number scales both axes
            alike; a pair ``(x, y)`` draws a factor for each axis on its own.
        p: probability that a sample is rescaled.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.
        distribution: ``log-uniform``, in which halving is as likely as doubling, or ``uniform``. Strength scales the
            logarithm of the factor, in ``uniform`` its difference from 1.

    Raises:
        InputError: ``max_factor`` below 1 or no pair, ``p`` outside [0, 1], unknown kernel, padding or distribution.
    """

    draws = 2  # 3 for a pair
    spec = OpSpec(
        name="rescale",
        title="scale about the center",
        place=20,
        settings=RescaleSettings,
        make=lambda settings, size: RandomRescale(settings.max_factor, settings.p, distribution=settings.distribution),
        describe=_describe,
        caption=_caption,
        example=lambda side: RescaleSettings(max_factor=1.25),
        searched_by_default=True,
        dumped_if_absent=True,
    )

    def __init__(
        self,
        max_factor: PerAxis,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
        distribution: str = "log-uniform",
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        self.max_factor = check_pair("max_factor", max_factor, 1.0, math.inf)
        self.distribution = check_distribution(distribution, DISTRIBUTIONS)
        self.draws = 3 if isinstance(self.max_factor, tuple) else 2

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        del size
        if self.distribution == "uniform":
            most = as_factor(self.max_factor, draws)
            change = self.chosen(draws, ((1 - draws[:, 1:]) / most + draws[:, 1:] * most - 1) * strength)
            return Axes(1 + change, torch.zeros_like(change))
        if isinstance(self.max_factor, tuple):
            most = as_factor((math.log(self.max_factor[0]), math.log(self.max_factor[1])), draws)
        else:
            most = math.log(self.max_factor)
        log_factor = self.chosen(draws, (2 * draws[:, 1:] - 1) * (most * strength))
        return Axes(torch.exp(log_factor), torch.zeros_like(log_factor))

    def draw_program(self, strength: float, size: Size) -> DrawProgram | None:
        del size
        if self.distribution == "uniform" or isinstance(self.max_factor, tuple):
            return None
        return (RESCALE, self.draws, self.p, math.log(self.max_factor) * strength)

    def max_shrink(self, size: Size) -> float:
        del size
        return max(both(self.max_factor))

    def max_enlarge(self) -> float:
        return max(both(self.max_factor))

    def extra_repr(self) -> str:
        law = "" if self.distribution == "log-uniform" else f", distribution={self.distribution!r}"
        return f"max_factor={self.max_factor}, {self._shared_repr()}{law}"
