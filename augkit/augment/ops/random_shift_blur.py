"""The blur of a sub-pixel shift without the shift."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augkit.augment.base import Flags, RandomGeometry, Size, per_sample
from augkit.augment.blur import shift_blur_checked
from augkit.augment.geometry import Axes
from augkit.core.errors import check_number


class RandomShiftBlur(RandomGeometry):
    """Blur as a shift by up to ``max_pixels`` would, without moving: the control for `RandomSubpixelShift`.

    It draws the same displacement as the shift and applies the magnitude of its kernel's response with zero phase
    (`augkit.augment.blur`). `Augment` blurs before it resamples, with its own kernel and padding. The match is exact
    where the shift is the only geometry; with others, `Augment` resamples a shift together with them.

    Args:
        max_pixels: largest displacement whose blur is drawn, in pixels.
        p: probability that a sample is blurred.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: ``max_pixels`` below 0, ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 3

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
        self.max_pixels = check_number("max_pixels", max_pixels, 0.0, math.inf)

    @property
    def policy_name(self) -> str:
        return "shift"  # whose option ``blur_only`` makes this op

    def pixels(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        """Return the displacement ``(B, 2)`` in pixels whose blur is applied.

        Draws are ``(B, 3)``, strength is a number or ``(B,)``.
        """
        return self.chosen(draws, (2 * draws[:, 1:3] - 1) * (self.max_pixels * per_sample(strength)))

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        del strength, size
        still = torch.zeros_like(draws[:, :1])
        return Axes(torch.ones_like(still), still)

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: Flags,
        transform: Tensor | None = None,
    ) -> Tensor:
        del flags, transform
        return shift_blur_checked(input, self.pixels(*self.gated(params, input)), self.kernel, self.padding)

    def inverse_transform(
        self, input: Tensor, flags: Flags, transform: Tensor | None = None, size: Size | None = None
    ) -> Tensor:
        del flags, transform, size
        return input  # a blur has no inverse; the geometry is the identity

    def extra_repr(self) -> str:
        return f"max_pixels={self.max_pixels}, {self._shared_repr()}"
