"""Geometry as data: batches of 3x3 matrices that map input to output pixel coordinates.

Coordinates are ``(x, y)`` in pixels, an integer is the centre of a pixel, positive x is to the right and
positive y is down; the centre of an image is at ``((W - 1) / 2, (H - 1) / 2)``. Sizes are ``(H, W)``.
Every function here is pure and keeps the device and the dtype of its tensors. The product of several
matrices, resampled once, is the idea of Karras et al. 2020 (https://arxiv.org/abs/2006.06676, appendix B).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from augkit.core.errors import InputError

Size = tuple[int, int]


class Axes(NamedTuple):
    """An axis-aligned map with the origin at the centre of either image: ``x -> scale * x + offset``.

    `augkit.Augment` composes these where it can: a product costs two short operations, and scaling and mirroring about
    the centre need no offset.

    Attributes:
        scale, offset: ``(B, 2)`` as (x, y), or ``(B, 1)`` where both axes are alike; offsets in pixels.
    """

    scale: Tensor
    offset: Tensor

    def then(self, after: Axes) -> Axes:
        """The composed map: this one first, then ``after``."""
        return Axes(self.scale * after.scale, torch.addcmul(after.offset, after.scale, self.offset))

    def matrix(self, size: Size, size_out: Size) -> Tensor:
        """``(B, 3, 3)`` from pixel coordinates of an image of ``size`` to those of an image of ``size_out``.

        >>> Axes(torch.tensor([[2.0]]), torch.tensor([[0.5, 0.0]])).matrix((3, 5), (3, 5))[0, :2].tolist()
        [[2.0, 0.0, -1.5], [0.0, 2.0, -1.0]]
        """
        start, end = (along_axes((w - 1) / 2, (h - 1) / 2, self.scale) for h, w in (size, size_out))
        return self.between(start, end)

    def between(self, start: float | Tensor, end: float | Tensor) -> Tensor:
        """`matrix` between centres ``start`` and ``end`` in pixels, each a number, ``(2,)`` or ``(B, 2)`` as (x, y)."""
        entries = self.scale.new_zeros(self.scale.shape[0], 9)
        entries[:, 0:5:4] = self.scale
        # Centres first: without a scale they cancel, and the offset keeps all its digits.
        entries[:, 2:6:3] = self.offset + (self.scale * -start + end)
        entries[:, 8].fill_(1)
        return entries.view(-1, 3, 3)


def along_axes(x: float, y: float, like: Tensor) -> float | Tensor:
    """``(2,)`` of ``x`` and ``y`` with the device and dtype of ``like``; the number itself where both are the same."""
    # Filled on the device: a tensor of host values would wait for it, and cannot stand in a CUDA graph.
    # Traced, a comparison would bind the graph to square images, or to others.
    alike = not torch.compiler.is_compiling() and x == y
    return x if alike else torch.linspace(x, y, 2, device=like.device, dtype=like.dtype)


def identity(batch: int, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """``batch`` identity matrices, ``(B, 3, 3)``."""
    return torch.eye(3, device=device, dtype=dtype).expand(batch, 3, 3)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    entries = torch.broadcast_tensors(*[entry for row in rows for entry in row])
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def _affine(a: Tensor, b: Tensor, tx: Tensor, c: Tensor, d: Tensor, ty: Tensor) -> Tensor:
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return _matrix([[a, b, tx], [c, d, ty], [zero, zero, one]])


def axis_aligned(scale_x: Tensor, shift_x: Tensor, scale_y: Tensor, shift_y: Tensor) -> Tensor:
    """``x -> scale_x * x + shift_x``, ``y -> scale_y * y + shift_y``; four ``(B,)`` to ``(B, 3, 3)``."""
    zero = torch.zeros_like(scale_x)
    return _affine(scale_x, zero, shift_x, zero, scale_y, shift_y)


def shift(pixels: Tensor) -> Tensor:
    """Move the content by ``pixels`` ``(B, 2)`` as ``(x, y)``; ``(B, 3, 3)``.

    >>> shift(torch.tensor([[1.5, -2.0]]))[0, :2].tolist()
    [[1.0, 0.0, 1.5], [0.0, 1.0, -2.0]]
    """
    x, y = pixels.unbind(-1)
    return axis_aligned(torch.ones_like(x), x, torch.ones_like(x), y)


def rescale(factor: Tensor, size: Size) -> Tensor:
    """Scale the content by ``factor`` ``(B,)`` about the centre of an image of ``size``; 2 doubles distances."""
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return axis_aligned(factor, x * (1 - factor), factor, y * (1 - factor))


def crop(left: Tensor, top: Tensor, width: Tensor, height: Tensor, size: Size) -> Tensor:
    """Map a window onto a whole output of ``size``.

    ``left, top, width, height`` are ``(B,)`` pixels along the edges of pixels: the window ``0, 0, W, H`` is the
    whole image, so a window of that extent and the size of the image is exactly the identity.
    """
    sx, sy = size[1] / width, size[0] / height
    return axis_aligned(sx, (0.5 - left) * sx - 0.5, sy, (0.5 - top) * sy - 0.5)


def flip(mirrored: Tensor, size: Size) -> Tensor:
    """Mirror left and right where ``mirrored`` ``(B,)`` is true, in an image of ``size``."""
    sign = 1 - 2 * mirrored.to(torch.float32)
    one = torch.ones_like(sign)
    return axis_aligned(sign, (1 - sign) / 2 * (size[1] - 1), one, torch.zeros_like(sign))


def rotate(degrees: Tensor, size: Size) -> Tensor:
    """Rotate by ``degrees`` ``(B,)`` about the centre; positive is counter-clockwise on the screen."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return _affine(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def shear(factor: Tensor, size: Size) -> Tensor:
    """Shear about the centre by ``factor`` ``(B, 2)``: x moves by ``factor_x`` times y, y by ``factor_y`` times x."""
    fx, fy = factor.unbind(-1)
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    one = torch.ones_like(fx)
    return _affine(one, fx, -fx * y, fy, one, -fy * x)


def compose(*matrices: Tensor) -> Tensor:
    """The matrix that applies ``matrices`` from left to right, as a pipeline reads.

    Raises:
        InputError: no matrix is given.
    """
    if not matrices:
        raise InputError("compose: expected at least one matrix, got none")
    total = matrices[0]
    for matrix in matrices[1:]:
        # Not `@`, which autocast and TF32 would compute with three digits.
        total = (matrix[..., :, :, None] * total[..., None, :, :]).sum(dim=-2)
    return total


def invert(matrix: Tensor) -> Tensor:
    """The matrices ``(B, 3, 3)`` that map output back to input.

    Raises:
        InputError: a matrix is singular.
    """
    inverse, info = torch.linalg.inv_ex(matrix)
    if bool(info.any()):
        raise InputError(f"invert: matrix {int(info.nonzero()[0])} of the batch is singular")
    return inverse


def apply_to_points(matrix: Tensor, points: Tensor) -> Tensor:
    """Map ``points`` ``(B, N, 2)`` in pixels through ``matrix`` ``(B, 3, 3)``, affine or a perspective."""
    depth = points @ matrix[:, 2:, :2].mT + matrix[:, None, 2:, 2]  # exactly 1 where the matrix is affine
    return (points @ matrix[:, :2, :2].mT + matrix[:, None, :2, 2]) / depth


def apply_to_boxes(matrix: Tensor, boxes: Tensor) -> Tensor:
    """The upright boxes around ``boxes`` ``(B, N, 4)`` mapped through ``matrix``.

    Boxes are ``x0, y0, x1, y1`` along the edges of pixels, as in torchvision and COCO: ``0, 0, W, H`` is the
    whole image. The result is not clipped.
    """
    x0, y0, x1, y1 = (boxes - 0.5).unbind(-1)
    corners = torch.stack([x0, y0, x1, y0, x0, y1, x1, y1], dim=-1)
    batch, count = boxes.shape[:2]
    moved = apply_to_points(matrix, corners.reshape(batch, 4 * count, 2)).reshape(batch, count, 4, 2)
    return torch.cat([moved.amin(dim=2), moved.amax(dim=2)], dim=-1) + 0.5
