"""Random geometric transforms: one op a class; `augkit.Augment` composes them and resamples once.

Each op turns uniform draws into a map and does nothing else; randomness enters as data. Alone, an op is a
Kornia augmentation (it also runs inside ``kornia.augmentation.AugmentationSequential``, see
`augkit.augment.base`). Inside `Augment` only its map is used. Every sample has its own parameters and its
own coin for ``p``.

``strength`` in [0, 1] scales the range of every op: 0 is the identity bit for bit, 1 the range as written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size, check_range, per_sample
from augkit.augment.blur import shift_blur_checked
from augkit.augment.geometry import Axes, along_axes
from augkit.augment.resample import check_size
from augkit.core.errors import InputError


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


class RandomShiftBlur(RandomGeometry):
    """Blur as a shift by up to ``max_pixels`` would, and move nothing: the control of `RandomSubpixelShift`.

    Draws the same displacement as the shift and applies the magnitude of its kernel's response with zero phase
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
        self.max_pixels = check_range("max_pixels", max_pixels, 0.0, math.inf)

    def pixels(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        """The displacement ``(B, 2)`` whose blur is applied; draws ``(B, 3)``, strength a number or ``(B,)``."""
        return self.chosen(draws, (2 * draws[:, 1:3] - 1) * (self.max_pixels * per_sample(strength)))

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        del strength, size
        still = torch.zeros_like(draws[:, :1])
        return Axes(torch.ones_like(still), still)

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        del flags, transform
        return shift_blur_checked(input, self.pixels(*self.gated(params, input)), self.kernel, self.padding)

    def inverse_transform(
        self, input: Tensor, flags: dict[str, Any], transform: Tensor | None = None, size: Size | None = None
    ) -> Tensor:
        del flags, transform, size
        return input  # a blur has no inverse; the geometry is the identity

    def extra_repr(self) -> str:
        return f"max_pixels={self.max_pixels}, {self._shared_repr()}"


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

    def extra_repr(self) -> str:
        return f"max_factor={self.max_factor}, {self._shared_repr()}"


class RandomSubpixelCrop(RandomGeometry):
    """Cut a window of random area and aspect at a sub-pixel place and resize it (Szegedy et al. 2015).

    Differs from torchvision's ``RandomResizedCrop``: the window is not rounded to pixels; instead of ten tries
    and a fallback, the aspect is log-uniform over the part of its range that fits, so that the area is always
    exactly the one drawn; a sample that ``p`` spares shows the whole image.

    Args:
        size: ``(H, W)`` of the output; the input's when None.
        area: range of the window's area, as a fraction of the image's.
        ratio: range of the window's width over its height, in pixels.
        p: probability that a sample is cropped.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: a range that is empty or out of bounds, ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 5

    def __init__(
        self,
        size: Size | None = None,
        area: tuple[float, float] = (0.35, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        self.size = check_size(size) if size is not None else None
        self.area = _ordered("area", area, 1e-6, 1.0)
        self.ratio = _ordered("ratio", ratio, 1e-6, math.inf)

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        low, high = self.area
        log_area = torch.log1p(self.chosen(draws, (draws[:, 1:2] * (high - low) - (1 - low)) * strength))
        # Aspect relative to the image's own, so that strength 0 is the whole image whatever its shape.
        lowest, highest = (_fitting(ratio * size[0] / size[1], log_area) for ratio in self.ratio)
        log_ratio = torch.lerp(lowest, highest, draws[:, 2:3]) * strength
        log_sides = log_area + torch.cat([log_ratio, -log_ratio], dim=1)  # twice the logarithms
        enlarged = torch.exp(log_sides * -0.5).clamp(min=1.0)  # the image's side over the window's
        out = self.output_size(size)
        resized = along_axes(out[1] / size[1], out[0] / size[0], enlarged)
        return Axes(enlarged * resized, (draws[:, 3:5] - 0.5) * (enlarged - 1) * along_axes(-out[1], -out[0], enlarged))

    def output_size(self, size: Size) -> Size:
        return self.size or size

    def max_shrink(self, size: Size) -> float:
        return 1.0 if self.size is None else max(1.0, size[0] / self.size[0], size[1] / self.size[1])

    def extra_repr(self) -> str:
        return f"size={self.size}, area={self.area}, ratio={self.ratio}, {self._shared_repr()}"


class RandomHorizontalFlip(RandomGeometry):
    """Mirror left and right with probability ``p * strength``; one draw for all with ``same_on_batch``.

    Raises:
        InputError: ``p`` outside [0, 1].
    """

    draws = 1

    def __init__(self, p: float = 0.5, *, same_on_batch: bool = False) -> None:
        super().__init__(p, "nearest", "zeros", same_on_batch)

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        del size
        mirrored = self.coin(draws, strength)[:, None]
        sign = torch.where(mirrored, -torch.ones_like(draws), torch.ones_like(draws))
        return Axes(torch.nn.functional.pad(sign, (0, 1), value=1.0), torch.zeros_like(sign))

    def coin(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        return (draws[:, :1] < self.p * strength)[:, 0]

    def extra_repr(self) -> str:
        return self._shared_repr().replace(", kernel='nearest'", "")


def _fitting(ratio: float, log_area: Tensor) -> Tensor:
    """The logarithm of ``ratio``, or the nearest of an aspect in which a window of ``log_area`` ``(B, 1)`` fits."""
    if torch.compiler.is_compiling():  # `math.log` would bind the graph to images of one shape
        return torch.log(torch.full_like(log_area, ratio)).maximum(log_area).minimum(-log_area)
    log_ratio = math.log(ratio)
    return log_area.clamp(min=log_ratio) if log_ratio < 0 else (-log_area).clamp(max=log_ratio)


def _ordered(name: str, pair: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise InputError(f"{name}: expected (low, high), got {pair!r}")
    first, last = (check_range(name, value, low, high) for value in pair)
    if first > last:
        raise InputError(f"{name}: expected low <= high, got {pair!r}")
    return first, last
