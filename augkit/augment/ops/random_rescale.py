"""Scaling about the centre."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size, check_range
from augkit.augment.geometry import Axes
from augkit.augment.op_spec import Amount, OpSettings, OpSpec, Probability


class RescaleSettings(OpSettings):
    """The fields of a rescale in a policy."""

    max_factor: Annotated[float, Amount(1.0, 1.5, "factor"), Field(ge=1, le=16)] = Field(
        1.0, description="largest factor, either way (factor)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")


class RandomRescale(RandomGeometry):
    """Scale about the centre by a factor that is log-uniform in ``[1 / max_factor, max_factor]``.

    Args:
        max_factor: largest factor; 1.25 enlarges up to 1.25 times and shrinks down to 0.8.
        p: probability that a sample is rescaled.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: ``max_factor`` below 1, ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 2
    spec = OpSpec(
        name="rescale",
        title="scale about the centre",
        place=20,
        settings=RescaleSettings,
        make=lambda settings, size: RandomRescale(settings.max_factor, settings.p),
        describe=lambda settings: f"factor {1 / settings.max_factor:.3g} to {settings.max_factor:.3g}",
        caption=lambda matrix: f"× {matrix[0][0]:.2f}",
        example=lambda side: RescaleSettings(max_factor=1.25),
        searched_by_default=True,
        dumped_if_absent=True,
    )

    def __init__(
        self,
        max_factor: float,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        self.max_factor = check_range("max_factor", max_factor, 1.0, math.inf)

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        del size
        log_factor = self.chosen(draws, (2 * draws[:, 1:2] - 1) * (math.log(self.max_factor) * strength))
        return Axes(torch.exp(log_factor), torch.zeros_like(log_factor))

    def max_shrink(self, size: Size) -> float:
        del size
        return self.max_factor

    def max_enlarge(self) -> float:
        return self.max_factor

    def extra_repr(self) -> str:
        return f"max_factor={self.max_factor}, {self._shared_repr()}"
