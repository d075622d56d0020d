"""Geometry as data: batches of 3x3 matrices that map input to output pixel coordinates.

Coordinates are ``(x, y)`` in pixels, an integer is the center of a pixel, positive x is to the right and
positive y is down; the center of an image is at ``((W - 1) / 2, (H - 1) / 2)``. Sizes are ``(H, W)``.
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
    """An axis-aligned map with the origin at the center of either image: ``x -> scale * x + offset``.

    `augkit.Augment` composes these where it can: a product costs two short operations, and scaling and mirroring about
    the center need no offset.

    Attributes:
        scale, offset: ``(B, 2)`` as (x, y), or ``(B, 1)`` where both axes are alike; offsets in pixels.
    """

    scale: Tensor
    offset: Tensor

    def then(self, after: Axes) -> Axes:
        """Return the map that applies this one first, then ``after``."""
        # Not `addcmul`, which some processors round once: compiled loops make the same matrices.
        return Axes(self.scale * after.scale, after.offset + after.scale * self.offset)

    def matrix(self, size: Size, size_out: Size) -> Tensor:
        """``(B, 3, 3)`` from pixel coordinates of an image of ``size`` to those of an image of ``size_out``.

        >>> Axes(torch.tensor([[2.0]]), torch.tensor([[0.5, 0.0]])).matrix((3, 5), (3, 5))[0, :2].tolist()
        [[2.0, 0.0, -1.5], [0.0, 2.0, -1.0]]
        """
        start, end = (along_axes((w - 1) / 2, (h - 1) / 2, self.scale) for h, w in (size, size_out))
        return self.between(start, end)

    def between(self, start: float | Tensor, end: float | Tensor) -> Tensor:
        """`matrix` between centers ``start`` and ``end`` in pixels, each a number, ``(2,)`` or ``(B, 2)`` as (x, y)."""
        entries = self.scale.new_zeros(self.scale.shape[0], 9)
        entries[:, 0:5:4] = self.scale
        # Centers first: without a scale they cancel, and the offset keeps all its digits.
        entries[:, 2:6:3] = self.offset + (self.scale * -start + end)
        entries[:, 8].fill_(1)
        return entries.view(-1, 3, 3)


def along_axes(x: float, y: float, like: Tensor) -> float | Tensor:
    """Return ``(x, y)`` ``(2,)`` on the device and in the dtype of ``like``, or a number where both are equal."""
    # Filled on the device: a copy from the host would synchronize, and cannot be part of a CUDA graph.
    # Traced, a comparison would bind the graph to square images, or to others.
    alike = not torch.compiler.is_compiling() and x == y
    return x if alike else torch.linspace(x, y, 2, device=like.device, dtype=like.dtype)


def identity(batch: int, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return ``batch`` identity matrices, ``(B, 3, 3)``."""
    return torch.eye(3, device=device, dtype=dtype).expand(batch, 3, 3)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    entries = torch.broadcast_tensors(*[entry for row in rows for entry in row])
    return torch.stack(entries, dim=-1).unflatten(-1, (3, 3))


def _affine(a: Tensor, b: Tensor, tx: Tensor, c: Tensor, d: Tensor, ty: Tensor) -> Tensor:
    zero, one = torch.zeros_like(a), torch.ones_like(a)
    return _matrix([[a, b, tx], [c, d, ty], [zero, zero, one]])


def axis_aligned(scale_x: Tensor, shift_x: Tensor, scale_y: Tensor, shift_y: Tensor) -> Tensor:
    """Return matrices ``(B, 3, 3)`` of ``x -> scale_x * x + shift_x``, ``y -> scale_y * y + shift_y``."""
    zero = torch.zeros_like(scale_x)
    return _affine(scale_x, zero, shift_x, zero, scale_y, shift_y)


def shift(pixels: Tensor) -> Tensor:
    """Return matrices ``(B, 3, 3)`` that move the content by ``pixels`` ``(B, 2)`` as ``(x, y)``.

    >>> shift(torch.tensor([[1.5, -2.0]]))[0, :2].tolist()
    [[1.0, 0.0, 1.5], [0.0, 1.0, -2.0]]
    """
    x, y = pixels.unbind(-1)
    return axis_aligned(torch.ones_like(x), x, torch.ones_like(x), y)


def rescale(factor: Tensor, size: Size) -> Tensor:
    """Return matrices that scale by ``factor`` ``(B,)`` about the center of an image; 2 doubles distances."""
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return axis_aligned(factor, x * (1 - factor), factor, y * (1 - factor))


def crop(left: Tensor, top: Tensor, width: Tensor, height: Tensor, size: Size) -> Tensor:
    """Return matrices ``(B, 3, 3)`` that map a window onto a whole output of ``size``.

    ``left, top, width, height`` are ``(B,)`` pixels along the edges of pixels: the window ``0, 0, W, H`` is the
    whole image, so a window of that extent and the size of the image is exactly the identity.
    """
    sx, sy = size[1] / width, size[0] / height
    return axis_aligned(sx, (0.5 - left) * sx - 0.5, sy, (0.5 - top) * sy - 0.5)


def flip(mirrored: Tensor, size: Size) -> Tensor:
    """Return matrices that mirror an image of ``size`` left and right where ``mirrored`` ``(B,)`` is true."""
    sign = 1 - 2 * mirrored.to(torch.float32)
    one = torch.ones_like(sign)
    return axis_aligned(sign, (1 - sign) / 2 * (size[1] - 1), one, torch.zeros_like(sign))


def rotate(degrees: Tensor, size: Size) -> Tensor:
    """Return matrices that rotate by ``degrees`` ``(B,)`` about the center, counter-clockwise on the screen."""
    cos, sin = torch.cos(torch.deg2rad(degrees)), torch.sin(torch.deg2rad(degrees))
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return _affine(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def quarter_turns(turns: Tensor, size: Size) -> Tensor:
    """Turn by ``turns`` ``(B,)`` quarters, 0 to 3, counter-clockwise about the center, without a rounding."""
    even, odd = 1 - torch.remainder(turns, 2), torch.remainder(turns, 2)
    cos, sin = even * (1 - turns), odd * (2 - turns)
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    return _affine(cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y)


def corners_moved(inwards: Tensor, size: Size) -> Tensor:
    """The perspective that moves the corner pixels of an image of ``size`` by ``inwards`` ``(B, 4, 2)``.

    Corners are top left, top right, bottom right, bottom left; ``inwards`` is a fraction of half the distance between
    them, along x and along y, towards the opposite side. All zeros give exactly the identity. In closed form (Heckbert
    1989, Fundamentals of texture mapping, section 2.2.3).
    """
    across, down = max(size[1] - 1, 1), max(size[0] - 1, 1)
    dx, dy = inwards[..., 0] * (across / 2), inwards[..., 1] * (down / 2)
    x0, x1, x2, x3 = dx[:, 0], across - dx[:, 1], across - dx[:, 2], dx[:, 3]
    y0, y1, y2, y3 = dy[:, 0], dy[:, 1], down - dy[:, 2], down - dy[:, 3]
    ax, ay, bx, by = x1 - x2, y1 - y2, x3 - x2, y3 - y2
    sum_x, sum_y = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    area = ax * by - ay * bx
    g, h = (sum_x * by - sum_y * bx) / area, (ax * sum_y - ay * sum_x) / area
    rows = [
        [(x1 - x0 + g * x1) / across, (x3 - x0 + h * x3) / down, x0],
        [(y1 - y0 + g * y1) / across, (y3 - y0 + h * y3) / down, y0],
        [g / across, h / down, torch.ones_like(g)],
    ]
    return _matrix(rows)


def shear(factor: Tensor, size: Size) -> Tensor:
    """Return matrices of a shear by ``factor`` ``(B, 2)`` about the center: x moves by factor_x * y and vice versa."""
    fx, fy = factor.unbind(-1)
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    one = torch.ones_like(fx)
    return _affine(one, fx, -fx * y, fy, one, -fy * x)


def compose(*matrices: Tensor) -> Tensor:
    """Return the matrix that applies ``matrices`` from left to right, as in a pipeline.

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
    """The matrices ``(B, 3, 3)`` that map output back to input; that of a perspective has 1 or -1 in its last entry.

    Raises:
        InputError: a matrix is singular.
    """
    inverse, info = torch.linalg.inv_ex(matrix)
    if bool(info.any()):
        raise InputError(f"invert: matrix {int(info.nonzero()[0])} of the batch is singular")
    # The sign stays, so that depth is positive in front; of an affine matrix the entry is 1 already.
    last = inverse[..., 2:, 2:].detach().abs()
    return inverse / torch.where(last > 0, last, torch.ones_like(last))


def adjugate(matrix: Tensor) -> Tensor:
    """The inverses of ``(B, 3, 3)`` times their determinants.

    Written out: LAPACK starts threads, which hang in a forked process.
    """
    (a, b, c), (d, e, f), (g, h, i) = (row.unbind(-1) for row in matrix.unbind(1))
    rows = [
        (e * i - f * h, c * h - b * i, b * f - c * e),
        (f * g - d * i, a * i - c * g, c * d - a * f),
        (d * h - e * g, b * g - a * h, a * e - b * d),
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)


def determinant(matrix: Tensor) -> Tensor:
    """The determinants ``(B,)`` of ``(B, 3, 3)``; written out, as `adjugate`."""
    return (matrix[:, 0] * adjugate(matrix)[:, :, 0]).sum(dim=1)


def local_scale(inverse: Tensor, points: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Depth and numerator of the derivative of the maps ``(B, 3, 3)`` at ``points`` ``(3, ...)``, homogeneous.

    The derivative is the numerator, four entries ``(B, ...)`` row by row, over the square of the depth ``(B, ...)``.
    """
    x, y, depth = torch.einsum("bij,j...->ib...", inverse, points)
    h = inverse.reshape(inverse.shape[0], 3, 3, *[1] * (points.ndim - 1))
    rows = [(h[:, k, j] * depth - at * h[:, 2, j]) for k, at in ((0, x), (1, y)) for j in (0, 1)]
    return depth, (rows[0], rows[1], rows[2], rows[3])


def depth(matrix: Tensor, points: Tensor) -> Tensor:
    """The depth ``(B, N, 1)`` of ``points`` ``(B, N, 2)``: 1 in an affine map, not positive behind a horizon."""
    return points @ matrix[:, 2:, :2].mT + matrix[:, None, 2:, 2]


def apply_to_points(matrix: Tensor, points: Tensor) -> Tensor:
    """Map ``points`` ``(B, N, 2)`` in pixels through ``matrix`` ``(B, 3, 3)``, affine or a perspective."""
    return (points @ matrix[:, :2, :2].mT + matrix[:, None, :2, 2]) / depth(matrix, points)


def apply_to_boxes(matrix: Tensor, boxes: Tensor) -> Tensor:
    """Return the axis-aligned boxes around ``boxes`` ``(B, N, 4)`` mapped by ``matrix`` ``(B, 3, 3)``.

    Boxes are ``x0, y0, x1, y1`` along the edges of pixels, as in torchvision and COCO: ``0, 0, W, H`` is the
    whole image. The result is not clipped.
    """
    batch, count = boxes.shape[:2]
    moved = apply_to_points(matrix, corners(boxes)).reshape(batch, count, 4, 2)
    return torch.cat([moved.amin(dim=2), moved.amax(dim=2)], dim=-1) + 0.5


def corners(boxes: Tensor) -> Tensor:
    """The four corners ``(B, 4 N, 2)`` of boxes ``(B, N, 4)`` along the edges of pixels, as pixel coordinates."""
    x0, y0, x1, y1 = (boxes - 0.5).unbind(-1)
    return torch.stack([x0, y0, x1, y0, x0, y1, x1, y1], dim=-1).reshape(boxes.shape[0], 4 * boxes.shape[1], 2)


def spans(matrix: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """The smaller and the larger factor, over all directions, by which ``matrix`` stretches at homogeneous ``points``.

    ``points`` are ``(3, ...)``, the factors ``(B, ...)``.
    """
    scale, (a, b, c, d) = local_scale(matrix, points)
    largest = largest_stretch(a, b, c, d)
    smallest = (a * d - b * c).abs() / largest
    return smallest / scale.square(), largest / scale.square()


def largest_stretch(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """The larger singular value of ``[[a, b], [c, d]]``. Written out: LAPACK starts threads, which hang in a fork."""
    return (torch.hypot(a + d, b - c) + torch.hypot(a - d, b + c)) / 2
