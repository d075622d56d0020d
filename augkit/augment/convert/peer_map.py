"""One geometric op of another library inside `augkit.Augment`: its distribution, and its matrix."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size, per_sample
from augkit.augment.geometry import Axes, along_axes
from augkit.core.errors import InputError

Parameters = dict[str, Tensor]  # parameters of a peer's op for each sample, (B,) or (B, n), by the peer's names


class Law(Protocol):
    """How another library draws the parameters of an op, and which matrix it makes of them; a frozen dataclass.

    Attributes:
        name: the op's class in its library.
        columns: how many uniform draws a sample's parameters take.
        axis_aligned: whether the op keeps the axes apart; the law then has `axes`, else `matrix`.
        affine: whether no matrix is a perspective.
        fixed: whether the op draws nothing and is applied to every sample, in ``eval()`` too, such as a resize.
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
        """Return the axis-aligned map about the centres."""

    def output_size(self, size: Size) -> Size:
        """Return the size (H, W) of the output."""


class PeerMap(RandomGeometry):
    """A random geometric op of another library, described by its `Law`.

    The ranges of a peer's op have no end at which they do nothing, so a strength is the share of the samples that are
    changed, as for Kornia's color ops: 0 changes none (but resizes where the op does), 1 as many as the peer.
    """

    def __init__(self, law: Law, p: float = 1.0, *, same_on_batch: bool = False) -> None:
        super().__init__(p, "bilinear", "zeros", same_on_batch)
        self.law = law
        self.draws = 1 + law.columns

    @property
    def policy_name(self) -> str:
        return self.law.name

    @property
    def axis_aligned(self) -> bool:
        return self.law.axis_aligned

    @property
    def affine(self) -> bool:
        return self.law.affine

    @property
    def fixed(self) -> bool:
        return self.law.fixed

    def output_size(self, size: Size) -> Size:
        return self.law.output_size(size)

    def max_shrink(self, size: Size) -> float:
        if not self.axis_aligned:
            return math.inf  # measured from the matrices
        # Windows lie in the image, or are not resized. Where corner pixels are matched, spacings shrink the most.
        ends = [(n, max(n - 1, 1), m, max(m - 1, 1)) for n, m in zip(size, self.output_size(size), strict=True)]
        return max(1.0, *(max(n / m, spaces / left) for n, spaces, m, left in ends))

    def coin(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        chosen = draws[:, :1] < self.p * strength
        return (chosen | self.fixed)[:, 0]

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        moved = self.law.axes(self.law.parameters(draws[:, 1:], size), size)
        out, chosen = self.output_size(size), self.coin(draws, strength)[:, None]
        whole = along_axes(out[1] / size[1], out[0] / size[0], moved.scale)
        scale, offset = torch.broadcast_tensors(moved.scale, moved.offset)
        return Axes(torch.where(chosen, scale, whole), torch.where(chosen, offset, 0.0))

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        if self.axis_aligned:
            return self.axes(draws, per_sample(strength), size).matrix(size, self.output_size(size))
        moved = self.law.matrix(self.law.parameters(draws[:, 1:], size), size)
        chosen = self.coin(draws, per_sample(strength))[:, None, None]
        return torch.where(chosen, moved, torch.eye(3, device=moved.device, dtype=moved.dtype))

    def extra_repr(self) -> str:
        return f"{self.law}, p={self.p}"


def within(draws: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Draws in [0, 1) as values in ``bounds``."""
    return bounds[0] + (bounds[1] - bounds[0]) * draws


def windows(window: Parameters, size: Size, out: Size, *, corners: bool = False) -> Axes:
    """The maps of a window of an image of ``size`` to all of an output of size ``out``.

    ``window`` has left, top, width and height, each ``(B,)`` in pixels along the edges of pixels. With ``corners`` the
    centres of the corner pixels are matched (``align_corners=True``), not their edges.
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
    """Raise InputError unless a window (H, W) lies in an image of ``size``."""
    if window[0] > size[0] or window[1] > size[1]:
        raise InputError(f"{name}: expected images of at least {window}, got {size}; resize or pad before")
