"""The rules of other libraries' geometric ops: affine maps, crops, resizes and perspectives.

Each rule covers all three libraries; its fields select the library's variant, such as how a translation is rounded, in
which order rotation, scale and shear are applied, or which points of a pixel a resize matches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.base import Size
from augkit.augment.convert.converted_op import Parameters, check_fits, windows, within
from augkit.augment.geometry import Axes

Range = tuple[float, float]
Entries = tuple[Tensor, Tensor, Tensor, Tensor]  # a, b, c, d of the linear part [[a, b], [c, d]]
Linear = Callable[
    [Tensor, Tensor, Tensor, Tensor], Entries
]  # arguments: angle, scale (B, 2), shear x, shear y; degrees
TRIES = 10  # windows that the three libraries draw before they use a fallback


def torchvision_linear(angle: Tensor, scale: Tensor, shear_x: Tensor, shear_y: Tensor) -> Entries:
    """Shear along x, then y, then scale, then rotate clockwise."""
    turn, x, y = (torch.deg2rad(one) for one in (angle, shear_x, shear_y))
    a, c = torch.cos(turn - y) / torch.cos(y), torch.sin(turn - y) / torch.cos(y)
    b, d = -(a * torch.tan(x) + torch.sin(turn)), torch.cos(turn) - c * torch.tan(x)
    factor = scale[:, 0]
    return a * factor, b * factor, c * factor, d * factor


def kornia_linear(angle: Tensor, scale: Tensor, shear_x: Tensor, shear_y: Tensor) -> Entries:
    """Shear along x, then y, then scale per axis, then rotate clockwise."""
    turn = torch.deg2rad(angle)
    x, y = (torch.tan(torch.deg2rad(one)) for one in (shear_x, shear_y))
    cos, sin = torch.cos(turn)[:, None] * scale, torch.sin(turn)[:, None] * scale
    a, b, c, d = cos[:, 0], -sin[:, 1], sin[:, 0], cos[:, 1]
    return a - b * y, -a * x + b * (1 + x * y), c - d * y, -c * x + d * (1 + x * y)


def albumentations_linear(angle: Tensor, scale: Tensor, shear_x: Tensor, shear_y: Tensor) -> Entries:
    """Scale per axis, then rotate counter-clockwise, then shear both axes at once."""
    turn = torch.deg2rad(angle)
    x, y = (torch.tan(torch.deg2rad(-one)) for one in (shear_x, shear_y))
    cos, sin = torch.cos(turn)[:, None] * scale, torch.sin(turn)[:, None] * scale
    a, b, c, d = cos[:, 0], sin[:, 1], -sin[:, 0], cos[:, 1]
    return a + x * c, b + x * d, y * a + c, y * b + d


@dataclass(frozen=True)
class AffineRule:
    """A rotation, scale, shear and translation about the center, each uniform in its range.

    Attributes:
        degrees, shear_x, shear_y: ranges in degrees.
        shift_x, shift_y: ranges of the translation as a share of width and height; in pixels with ``pixels``.
        scale_x, scale_y: ranges of the factors; None for y takes the factor of x.
        whole: how a translation is rounded to whole pixels; ``inclusive`` draws integers and includes both ends.
        balanced: whether a scale is below or above 1 with equal probability.
        center: (x, y) in pixel coordinates; None takes the center of the image.
        linear: function that combines rotation, scale and shear in the order of the library.
    """

    name: str
    linear: Linear
    degrees: Range = (0.0, 0.0)
    shift_x: Range = (0.0, 0.0)
    shift_y: Range = (0.0, 0.0)
    scale_x: Range = (1.0, 1.0)
    scale_y: Range | None = None
    shear_x: Range = (0.0, 0.0)
    shear_y: Range = (0.0, 0.0)
    pixels: bool = False
    whole: Literal["no", "nearest", "truncated", "inclusive"] = "no"
    balanced: bool = False
    center: tuple[float, float] | None = None
    columns: int = 7
    axis_aligned: bool = False
    affine: bool = True
    fixed: bool = False

    def parameters(self, draws: Tensor, size: Size) -> Parameters:
        lengths = (1, 1) if self.pixels else (size[1], size[0])
        x, y = (
            self._shift(draws[:, 1 + k], bounds, lengths[k]) for k, bounds in enumerate((self.shift_x, self.shift_y))
        )
        scale_x = self._scale(draws[:, 3], self.scale_x)
        scale_y = scale_x if self.scale_y is None else self._scale(draws[:, 4], self.scale_y)
        return {
            "angle": within(draws[:, 0], self.degrees),
            "translate": torch.stack([x, y], dim=1),
            "scale": torch.stack([scale_x, scale_y], dim=1),
            "shear": torch.stack([within(draws[:, 5], self.shear_x), within(draws[:, 6], self.shear_y)], dim=1),
        }

    def _shift(self, draws: Tensor, bounds: Range, length: int) -> Tensor:
        if self.whole == "inclusive":
            return torch.floor(within(draws, (bounds[0], bounds[1] + 1)))
        pixels = within(draws, bounds) * length
        if self.whole == "nearest":
            return torch.round(pixels)
        return torch.trunc(pixels) if self.whole == "truncated" else pixels

    def _scale(self, draws: Tensor, bounds: Range) -> Tensor:
        if not self.balanced:
            return within(draws, bounds)
        if not bounds[0] < 1 < bounds[1]:
            return within(draws, (bounds[0], 1.0) if bounds[0] < 1 else (1.0, max(bounds[1], 1.0)))
        return torch.where(draws < 0.5, within(2 * draws, (bounds[0], 1)), within(2 * draws - 1, (1, bounds[1])))

    def matrix(self, parameters: Parameters, size: Size) -> Tensor:
        a, b, c, d = self.linear(parameters["angle"], parameters["scale"], *parameters["shear"].unbind(1))
        x, y = self.center or ((size[1] - 1) / 2, (size[0] - 1) / 2)
        tx, ty = parameters["translate"].unbind(1)
        zero, one = torch.zeros_like(a), torch.ones_like(a)
        entries = [a, b, x + tx - a * x - b * y, c, d, y + ty - c * x - d * y, zero, zero, one]
        return torch.stack(entries, dim=1).unflatten(1, (3, 3))

    def axes(self, parameters: Parameters, size: Size) -> Axes:
        raise NotImplementedError  # not axis-aligned, so `ConvertedOp` calls `matrix`

    def output_size(self, size: Size) -> Size:
        return size


class _Aligned:
    """Base of the rules for windows, which are axis-aligned."""

    axis_aligned, affine = True, True

    def matrix(self, parameters: Parameters, size: Size) -> Tensor:
        raise NotImplementedError  # axis-aligned, so `ConvertedOp` calls `axes`


@dataclass(frozen=True)
class ResizedCropRule(_Aligned):
    """A random window on whole pixels, resized; its area is uniform and its aspect ratio log-uniform.

    Windows are drawn up to ten times until one fits into the image; after that the largest possible window is used.

    Attributes:
        size: (H, W) of the output.
        area: range of the window's area, as a share of the image's.
        ratio: range of width over height.
        centered: whether the fallback window is central; else its position is random.
        corners: whether the resize matches the centers of the corner pixels.
    """

    name: str
    size: Size
    area: Range
    ratio: Range
    centered: bool = True
    corners: bool = False
    columns: int = 2 * TRIES + 2
    fixed: bool = False

    def parameters(self, draws: Tensor, size: Size) -> Parameters:
        height, width = size
        areas = within(draws[:, :TRIES], self.area) * (height * width)
        # Logarithms in the dtype of the draws, as the libraries take them; on the device, as a graph reads no values.
        low, high = (torch.log(torch.full_like(draws[:1, :1], ratio)) for ratio in self.ratio)
        ratios = torch.exp(low + (high - low) * draws[:, TRIES : 2 * TRIES])
        wide, high_ = torch.round(torch.sqrt(areas * ratios)), torch.round(torch.sqrt(areas / ratios))
        fits = (wide > 0) & (wide <= width) & (high_ > 0) & (high_ <= height)
        first, any_fits = fits.to(torch.uint8).argmax(dim=1, keepdim=True), fits.any(dim=1)
        largest = self._largest(size)
        h = torch.where(any_fits, high_.gather(1, first)[:, 0], float(largest[0]))
        w = torch.where(any_fits, wide.gather(1, first)[:, 0], float(largest[1]))
        top, left = (torch.floor(draws[:, k] * (n - m + 1)) for k, n, m in ((-2, height, h), (-1, width, w)))
        if self.centered:
            top = torch.where(any_fits, top, float((height - largest[0]) // 2))
            left = torch.where(any_fits, left, float((width - largest[1]) // 2))
        return {"top": top, "left": left, "height": h, "width": w}

    def _largest(self, size: Size) -> Size:
        height, width = size
        if width / height < min(self.ratio):
            return min(round(width / min(self.ratio)), height), width
        if width / height > max(self.ratio):
            return height, min(round(height * max(self.ratio)), width)
        return size

    def axes(self, parameters: Parameters, size: Size) -> Axes:
        return windows(parameters, size, self.size, corners=self.corners)

    def output_size(self, size: Size) -> Size:
        return self.size


@dataclass(frozen=True)
class CropRule(_Aligned):
    """A window of a fixed size on whole pixels, anywhere in the image with ``padding`` around it.

    Attributes:
        size: (H, W) of the window.
        padding: pixels at the left, top, right and bottom.
        pad_if_needed: whether to extend the padding on both sides if an image is too small.
    """

    name: str
    size: Size
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    pad_if_needed: bool = False
    columns: int = 2
    fixed: bool = False

    def parameters(self, draws: Tensor, size: Size) -> Parameters:
        left, top, right, bottom = self.padding
        padded = (size[0] + top + bottom, size[1] + left + right)
        if self.pad_if_needed:
            more = (max(0, self.size[0] - padded[0]), max(0, self.size[1] - padded[1]))
            top, left, padded = top + more[0], left + more[1], (padded[0] + 2 * more[0], padded[1] + 2 * more[1])
        check_fits(self.name, self.size, padded)
        y, x = (torch.floor(draws[:, k] * (padded[k] - self.size[k] + 1)) for k in (0, 1))
        return {"top": y - top, "left": x - left}

    def axes(self, parameters: Parameters, size: Size) -> Axes:
        height, width = (torch.full_like(parameters["top"], n) for n in self.size)
        return windows({**parameters, "width": width, "height": height}, size, self.size)

    def output_size(self, size: Size) -> Size:
        return self.size


@dataclass(frozen=True)
class CenterCropRule(_Aligned):
    """A central window on whole pixels; ``start`` gives its first pixel from the lengths of image and window."""

    name: str
    size: Size
    start: Callable[[int, int], int]
    columns: int = 0
    fixed: bool = True

    def parameters(self, draws: Tensor, size: Size) -> Parameters:
        top, left = (self.start(n, m) for n, m in zip(size, self.size, strict=True))
        return {name: draws.new_full((len(draws),), value) for name, value in (("top", top), ("left", left))}

    def axes(self, parameters: Parameters, size: Size) -> Axes:
        height, width = (torch.full_like(parameters["top"], n) for n in self.size)
        return windows({**parameters, "width": width, "height": height}, size, self.size)

    def output_size(self, size: Size) -> Size:
        return self.size


@dataclass(frozen=True)
class ResizeRule(_Aligned):
    """A resize of the whole image; ``after`` computes the output size (H, W) from the input size."""

    name: str
    after: Callable[[Size], Size]
    corners: bool = False
    columns: int = 0
    fixed: bool = True

    def parameters(self, draws: Tensor, size: Size) -> Parameters:
        return {
            name: draws.new_full((len(draws),), value)
            for name, value in (("left", 0), ("top", 0), ("width", size[1]), ("height", size[0]))
        }

    def axes(self, parameters: Parameters, size: Size) -> Axes:
        return windows(parameters, size, self.after(size), corners=self.corners)

    def output_size(self, size: Size) -> Size:
        return self.after(size)


@dataclass(frozen=True)
class PerspectiveRule:
    """A perspective that moves each corner pixel along x and y by uniform shares of ``distortion`` times half the size.

    Attributes:
        whole: whether to draw whole pixels, and apply the map to pixel edges instead of pixel centers (torchvision).
        outwards: whether corners may also move outwards (Kornia's ``area_preserving``).
    """

    name: str
    distortion: float
    whole: bool = False
    outwards: bool = False
    columns: int = 8
    axis_aligned: bool = False
    affine: bool = False
    fixed: bool = False

    def parameters(self, draws: Tensor, size: Size) -> Parameters:
        """Return how many pixels the corners go inwards, ``(B, 4, 2)``: top left, top right, bottom right and left."""
        shares, (height, width) = draws.reshape(-1, 4, 2), size
        if self.whole:
            most = shares.new_tensor([int(self.distortion * (n // 2)) + 1 for n in (width, height)])
            return {"inwards": torch.floor(shares * most)}
        half = shares.new_tensor([self.distortion * width / 2, self.distortion * height / 2])
        if self.outwards:
            signs = shares.new_tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
            return {"inwards": (2 * shares - 1) * half * signs}
        return {"inwards": shares * half}

    def matrix(self, parameters: Parameters, size: Size) -> Tensor:
        lengths = parameters["inwards"].new_tensor([max(size[1] - 1, 1), max(size[0] - 1, 1)])
        moved = geometry.corners_moved(parameters["inwards"] * 2 / lengths, size)
        if not self.whole:
            return moved
        half = torch.full((len(moved), 2), 0.5, device=moved.device, dtype=moved.dtype)
        return geometry.compose(geometry.shift(half), moved, geometry.shift(-half))

    def axes(self, parameters: Parameters, size: Size) -> Axes:
        raise NotImplementedError  # not axis-aligned, so `ConvertedOp` calls `matrix`

    def output_size(self, size: Size) -> Size:
        return size
