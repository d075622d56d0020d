"""Shift, by any fraction of a pixel or by whole pixels."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size
from augkit.augment.checks import check_flag
from augkit.augment.distributions import centered, check_distribution
from augkit.augment.draw_programs import SHIFT, DrawProgram
from augkit.augment.geometry import Axes
from augkit.augment.op_spec import Amount, Matrix, OpSettings, OpSpec, Probability, per_axis
from augkit.augment.ops.random_shift_blur import RandomShiftBlur
from augkit.augment.pairs import PerAxis, as_factor, both, check_pair, shown
from augkit.core.errors import InputError

DISTRIBUTIONS = ("uniform", "normal")


class ShiftSettings(OpSettings):
    """The fields of a shift in a policy."""

    max_pixels: Annotated[PerAxis, Amount(0.0, 6.0, "pixels"), per_axis(0.0)] = Field(
        0.0, description="largest displacement, a number or a pair for x and y (pixels)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")
    blur_only: bool = Field(False, description="control: blur as the shift would, but move nothing")
    distribution: Literal["uniform", "normal"] = Field(
        "uniform", description="of the displacement; normal has half of max_pixels as its deviation and ends there"
    )
    whole: bool = Field(False, description="move by whole pixels alone, which changes no value")

    added: ClassVar[frozenset[str]] = frozenset({"distribution", "whole"})

    @model_validator(mode="after")
    def _blur_of_a_plain_shift(self) -> ShiftSettings:
        plain = not isinstance(self.max_pixels, tuple) and self.distribution == "uniform" and not self.whole
        if self.blur_only and not plain:
            raise ValueError("blur_only with one number max_pixels, distribution uniform and whole off")
        return self


def _make(settings: ShiftSettings, size: Size | None) -> RandomGeometry:
    del size
    if settings.blur_only:
        return RandomShiftBlur(both(settings.max_pixels)[0], settings.p)
    return RandomSubpixelShift(
        settings.max_pixels, settings.p, distribution=settings.distribution, whole=settings.whole
    )


def _describe(settings: ShiftSettings) -> str:
    kind = "whole pixels" if settings.whole else "pixels"
    normal = ", normally distributed" if settings.distribution == "normal" else ""
    return f"up to {shown(settings.max_pixels, f' {kind}')}{normal}"


def _caption(matrix: Matrix) -> str:
    x, y = (round(row[2], 1) + 0.0 for row in matrix[:2])  # adding 0.0 turns -0.0 into 0.0
    return f"x {x:g}, y {y:g} px".replace("-", "−")


def _example(side: int) -> ShiftSettings:
    """Return settings of 8 pixels, or of a tenth of the side of a smaller image."""
    return ShiftSettings(max_pixels=min(8.0, max(0.5, round(0.1 * side, 1))))


class RandomSubpixelShift(RandomGeometry):
    """Shift by up to ``max_pixels`` along x and along y, each on its own, by any fraction of a pixel.

    Args:
        max_pixels: largest displacement along each axis, in pixels: a number, or a pair ``(x, y)``.
        p: probability that a sample is shifted.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.
        distribution: ``uniform``, or ``normal`` with a standard deviation of half of ``max_pixels``, cut at it.
        whole: whole pixels alone, uniformly from ``-floor(max_pixels)`` to ``floor(max_pixels)``: pixels move bit for
            bit, as by `torch.roll` where the padding is ``circular``.

    Raises:
        InputError: ``max_pixels`` below 0 or no pair, ``p`` outside [0, 1], unknown kernel, padding or distribution;
            whole pixels that are normally distributed.
    """

    draws = 3
    spec = OpSpec(
        name="shift",
        title="sub-pixel shift",
        place=10,
        settings=ShiftSettings,
        make=_make,
        describe=_describe,
        caption=_caption,
        example=_example,
        searched_by_default=True,
        dumped_if_absent=True,
    )

    def __init__(
        self,
        max_pixels: PerAxis,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
        distribution: str = "uniform",
        whole: bool = False,
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        self.max_pixels = check_pair("max_pixels", max_pixels, 0.0, math.inf)
        self.distribution = check_distribution(distribution, DISTRIBUTIONS)
        self.whole = check_flag("whole", whole)
        if self.whole and self.distribution != "uniform":
            raise InputError("whole: expected distribution 'uniform' with whole pixels, got 'normal'; choose one")

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        del size
        most = as_factor(self.max_pixels, draws) * strength
        if self.whole:
            # Each whole number has a part of equal length; the clamp keeps the ends within the range.
            ends: Any = torch.floor(most) if isinstance(most, Tensor) else math.floor(most)
            whole = torch.round((2 * draws[:, 1:3] - 1) * (ends + 0.5)).clamp(-ends, ends)
            pixels = self.chosen(draws, whole + 0.0)  # adding 0.0 turns -0.0 into 0.0
        else:
            pixels = self.chosen(draws, centered(draws[:, 1:3], self.distribution) * most)
        return Axes(torch.ones_like(pixels), pixels)

    def draw_program(self, strength: float, size: Size) -> DrawProgram | None:
        del size
        if self.distribution != "uniform" or self.whole or isinstance(self.max_pixels, tuple):
            return None
        return (SHIFT, self.draws, self.p, self.max_pixels * strength)

    def extra_repr(self) -> str:
        law = "" if self.distribution == "uniform" else f", distribution={self.distribution!r}"
        return f"max_pixels={self.max_pixels}, {self._shared_repr()}{law}{', whole=True' if self.whole else ''}"
