"""A geometric op of another library inside `augkit.Augment`: the distribution of its parameters, and its matrix."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size, per_sample
from augkit.augment.geometry import Axes, along_axes
from augkit.core.errors import InputError

Parameters = dict[str, Tensor]  # parameters of an op for each sample, (B,) or (B, n), by name


class GeometryRule(Protocol):
    """How a library draws the parameters of a geometric op and computes its matrix; a frozen dataclass.

    Attributes:
        name: name of the op's class in its library.
        columns: number of uniform draws per sample.
        axis_aligned: whether the map is axis-aligned; the rule then implements `axes`, else `matrix`.
        affine: whether all matrices are affine.
        fixed: whether the op draws nothing and is applied to every sample, also in ``eval()``, such as a resize.
    """

    @property
    def name(self) -> str: ...
    @property
    def columns(self) -> int: ...
    @property
    def axis_aligned(self) -> bool: ...
    @property
    def affine(self) -> bool: ...
    @property
    def fixed(self) -> bool: ...

    def parameters(self, draws: Tensor, size: Size) -> Parameters:
        """Return the parameters for uniform draws ``(B, columns)`` and images of ``size`` (H, W)."""

    def matrix(self, parameters: Parameters, size: Size) -> Tensor:
        """Return ``(B, 3, 3)`` from input to output pixels."""

    def axes(self, parameters: Parameters, size: Size) -> Axes:
        """Return the axis-aligned map about the centers."""

    def output_size(self, size: Size) -> Size:
        """Return the size (H, W) of the output."""


class ConvertedOp(RandomGeometry):
    """A random geometric op of another library, given by its `GeometryRule`.

    The ranges of such an op have no end that changes nothing. As for Kornia's color ops, strength therefore scales the
    probability: at 0 no sample is changed (but resized if the op resizes), at 1 as many as in the source library.
    """

    def __init__(self, rule: GeometryRule, p: float = 1.0, *, same_on_batch: bool = False) -> None:
        super().__init__(p, "bilinear", "zeros", same_on_batch)
        self.rule = rule
        self.draws = 1 + rule.columns

    @property
    def policy_name(self) -> str:
        return self.rule.name

    @property
    def axis_aligned(self) -> bool:
        return self.rule.axis_aligned

    @property
    def affine(self) -> bool:
        return self.rule.affine

    @property
    def fixed(self) -> bool:
        return self.rule.fixed

    def output_size(self, size: Size) -> Size:
        return self.rule.output_size(size)

    def max_shrink(self, size: Size) -> float:
        if not self.axis_aligned:
            return math.inf  # measured from the matrices
        # Windows lie in the image, or are not resized. If corner pixels are matched, the spacing shrinks more.
        ends = [(n, max(n - 1, 1), m, max(m - 1, 1)) for n, m in zip(size, self.output_size(size), strict=True)]
        return max(1.0, *(max(n / m, spaces / left) for n, spaces, m, left in ends))

    def coin(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        chosen = draws[:, :1] < self.p * strength
        return (chosen | self.fixed)[:, 0]

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        moved = self.rule.axes(self.rule.parameters(draws[:, 1:], size), size)
        out, chosen = self.output_size(size), self.coin(draws, strength)[:, None]
        whole = along_axes(out[1] / size[1], out[0] / size[0], moved.scale)
        scale, offset = torch.broadcast_tensors(moved.scale, moved.offset)
        return Axes(torch.where(chosen, scale, whole), torch.where(chosen, offset, 0.0))

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        if self.axis_aligned:
            return self.axes(draws, per_sample(strength), size).matrix(size, self.output_size(size))
        moved = self.rule.matrix(self.rule.parameters(draws[:, 1:], size), size)
        chosen = self.coin(draws, per_sample(strength))[:, None, None]
        return torch.where(chosen, moved, torch.eye(3, device=moved.device, dtype=moved.dtype))

    def extra_repr(self) -> str:
        return f"{self.rule}, p={self.p}"


def within(draws: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Map draws in [0, 1) to ``bounds``."""
    return bounds[0] + (bounds[1] - bounds[0]) * draws


def windows(window: Parameters, size: Size, out: Size, *, corners: bool = False) -> Axes:
    """Axis-aligned maps of windows in images of ``size`` (H, W) to outputs of size ``out`` (H, W).

    ``window`` has left, top, width and height, each ``(B,)`` in pixels, measured at pixel edges. With ``corners``,
    centers of corner pixels are matched (``align_corners=True``) instead of their edges.
    """
    place = torch.stack([window["left"], window["top"]], dim=1)
    extent = torch.stack([window["width"], window["height"]], dim=1)
    ends = extent.new_tensor([out[1], out[0]])
    middle = extent.new_tensor([size[1], size[0]]) / 2 - place - extent / 2
    scale = ends / extent
    if corners:
        spaced = (ends > 1) & (extent > 1)  # an axis of a single pixel has no spacing
        scale = torch.where(spaced, (ends - 1).clamp(min=1) / (extent - 1).clamp(min=1), scale)
    return Axes(scale, scale * middle)


def check_fits(name: str, window: Size, size: Size) -> None:
    """Raise InputError unless a window (H, W) fits into an image of ``size`` (H, W)."""
    if window[0] > size[0] or window[1] > size[1]:
        raise InputError(f"{name}: expected images of at least {window}, got {size}; resize or pad before")
