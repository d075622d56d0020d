"""Random crop: a window of random area and aspect, resized."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size
from augkit.augment.draw_programs import CROP, DrawProgram
from augkit.augment.geometry import Axes, along_axes
from augkit.augment.op_spec import Amount, OpSettings, OpSpec, Probability
from augkit.augment.resample import check_size
from augkit.core.errors import InputError, brief, check_number


class CropSettings(OpSettings):
    """The fields of a crop in a policy."""

    min_area: Annotated[float, Amount(1.0, 0.4, "fraction of area"), Field(gt=0, le=1)] = Field(
        1.0, description="smallest window (fraction of area)"
    )
    max_ratio: Annotated[float, Amount(1.0, 1.5, "factor", searched=False), Field(ge=1, le=16)] = Field(
        1.33, description="largest aspect, either way round (factor)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")


def _make(settings: CropSettings, size: Size | None) -> RandomGeometry:
    ratio = (1 / settings.max_ratio, settings.max_ratio)
    return RandomSubpixelCrop(size, (settings.min_area, 1.0), ratio, settings.p)


def _describe(settings: CropSettings) -> str:
    aspect = f"{1 / settings.max_ratio:.2g} to {settings.max_ratio:.3g}"
    return f"window of {settings.min_area:g} to 1 of the area, aspect {aspect}"


class RandomSubpixelCrop(RandomGeometry):
    """Crop a window of random area and aspect at a sub-pixel position and resize it (Szegedy et al. 2015).

    Differences from torchvision's ``RandomResizedCrop``: the window is not rounded to pixels; the aspect is log-uniform
    over the part of its range that fits, instead of ten tries and a fallback, so that the area is exactly as drawn;
    and with probability 1 - ``p`` a sample is the whole resized image.

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
    spec = OpSpec(
        name="crop",
        title="random window, resized",
        place=30,
        settings=CropSettings,
        make=_make,
        describe=_describe,
        caption=lambda matrix: f"area {1 / (matrix[0][0] * matrix[1][1]):.2f}",
        example=lambda side: CropSettings(min_area=0.35),
        searched_by_default=True,
        dumped_if_absent=True,
    )

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
        # Aspect relative to the image's own, so that strength 0 is the whole image for any shape.
        lowest, highest = (_fitting(ratio * size[0] / size[1], log_area) for ratio in self.ratio)
        log_ratio = (lowest + (highest - lowest) * draws[:, 2:3]) * strength
        log_sides = log_area + torch.cat([log_ratio, -log_ratio], dim=1)  # twice the logarithms
        enlarged = torch.exp(log_sides * -0.5).clamp(min=1.0)  # the image's side over the window's
        out = self.output_size(size)
        resized = along_axes(out[1] / size[1], out[0] / size[0], enlarged)
        return Axes(enlarged * resized, (draws[:, 3:5] - 0.5) * (enlarged - 1) * along_axes(-out[1], -out[0], enlarged))

    def draw_program(self, strength: float, size: Size) -> DrawProgram | None:
        (low, high), out = self.area, self.output_size(size)
        ratios = (math.log(ratio * size[0] / size[1]) for ratio in self.ratio)
        resized = (out[1] / size[1], out[0] / size[0], -out[1], -out[0])
        return (CROP, self.draws, self.p, high - low, 1 - low, strength, *ratios, *resized)

    def output_size(self, size: Size) -> Size:
        return self.size or size

    def max_shrink(self, size: Size) -> float:
        return 1.0 if self.size is None else max(1.0, size[0] / self.size[0], size[1] / self.size[1])

    def max_enlarge(self) -> float:
        longest = max(self.ratio[1], 1 / self.ratio[0], 1.0)
        return math.sqrt(longest / self.area[0]) if self.area[0] < 1 else 1.0

    def extra_repr(self) -> str:
        return f"size={self.size}, area={self.area}, ratio={self.ratio}, {self._shared_repr()}"


def _fitting(ratio: float, log_area: Tensor) -> Tensor:
    """Return the logarithm of ``ratio``, limited to aspects in which a window of ``log_area`` ``(B, 1)`` fits."""
    if torch.compiler.is_compiling():  # `math.log` would bind the graph to images of one shape
        return torch.log(torch.full_like(log_area, ratio)).maximum(log_area).minimum(-log_area)
    log_ratio = math.log(ratio)
    return log_area.clamp(min=log_ratio) if log_ratio < 0 else (-log_area).clamp(max=log_ratio)


def _ordered(name: str, pair: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise InputError(f"{name}: expected (low, high), got {brief(pair)}")
    first, last = (check_number(name, value, low, high) for value in pair)
    if first > last:
        raise InputError(f"{name}: expected low <= high, got {brief(pair)}")
    return first, last
