"""Sub-pixel shift."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size, check_range
from augkit.augment.geometry import Axes
from augkit.augment.op_spec import Amount, Matrix, OpSettings, OpSpec, Probability
from augkit.augment.ops.random_shift_blur import RandomShiftBlur


class ShiftSettings(OpSettings):
    """The fields of a shift in a policy."""

    max_pixels: Annotated[float, Amount(0.0, 6.0, "pixels"), Field(ge=0)] = Field(
        0.0, description="largest displacement (pixels)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")
    blur_only: bool = Field(False, description="control: blur as the shift would, but move nothing")


def _make(settings: ShiftSettings, size: Size | None) -> RandomGeometry:
    del size
    kind = RandomShiftBlur if settings.blur_only else RandomSubpixelShift
    return kind(settings.max_pixels, settings.p)


def _caption(matrix: Matrix) -> str:
    x, y = (round(row[2], 1) + 0.0 for row in matrix[:2])  # adding 0.0 turns -0.0 into 0.0
    return f"x {x:g}, y {y:g} px".replace("-", "−")


def _example(side: int) -> ShiftSettings:
    """Return settings of 8 pixels, or of a tenth of the side of a smaller image."""
    return ShiftSettings(max_pixels=min(8.0, max(0.5, round(0.1 * side, 1))))


class RandomSubpixelShift(RandomGeometry):
    """Shift by up to ``max_pixels`` along x and along y, uniformly and by any fraction of a pixel.

    Args:
        max_pixels: largest displacement along each axis, in pixels.
        p: probability that a sample is shifted.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: ``max_pixels`` below 0, ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 3
    spec = OpSpec(
        name="shift",
        title="sub-pixel shift",
        place=10,
        settings=ShiftSettings,
        make=_make,
        describe=lambda settings: f"up to ± {settings.max_pixels:g} pixels along x and y",
        caption=_caption,
        example=_example,
        searched_by_default=True,
        dumped_if_absent=True,
    )

    def __init__(
        self,
        max_pixels: float,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        self.max_pixels = check_range("max_pixels", max_pixels, 0.0, math.inf)

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        del size
        pixels = self.chosen(draws, (2 * draws[:, 1:3] - 1) * (self.max_pixels * strength))
        return Axes(torch.ones_like(pixels), pixels)

    def extra_repr(self) -> str:
        return f"max_pixels={self.max_pixels}, {self._shared_repr()}"
