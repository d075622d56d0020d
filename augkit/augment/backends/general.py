"""Resampling through any matrix, rotation, shear and perspective among them, in torch.

Each output pixel is traced back to a point of the input and takes a square of taps there. The weight of a tap at the
distance ``d`` is the product of the kernel at the two entries of ``P d``. Where nothing shrinks, P is the identity.
Where the input shrinks along some direction, P stretches the kernel along that direction alone, by the distance that
one pixel of the output spans along it (`directed`): the shrink of a diagonal blurs that diagonal, whatever the rotation
before or after it. In an affine matrix P is one for all pixels, in a perspective each pixel has its own. For
axis-aligned matrices it is the stretch of `augkit.augment.backends.separable`.

Pixels are processed in chunks, so that memory beyond the output stays near `CHUNK` values when no gradient is recorded.
Differentiable with respect to the images and to the matrix. Coordinates are float64 (float32 on MPS).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends.separable import without_idle
from augkit.augment.backends.values import traced
from augkit.augment.kernels import FUNCTION, HALF_WIDTH, padded_index
from augkit.core.precision import widest
from augkit.core.torch_private import in_function_transform

CHUNK = 1 << 20  # gathered values at a time
NEAR = 1e-6  # the least depth of a point: at the horizon of a perspective it is 0, behind it negative


class _How(NamedTuple):
    """What all pixels of a resampling share: the size of the input, names, and the bound on the stretch."""

    size: tuple[int, int]
    kernel: str
    padding: str
    shrink: float
    finite: bool


def resample(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    kernel: str,
    padding: str,
    max_shrink: float,
    *,
    finite: bool = False,
    affine: bool = False,
) -> Tensor:
    """Resample float ``images`` ``(B, C, H, W)`` to ``size`` through ``matrix`` ``(B, 3, 3)``; see the module.

    ``max_shrink`` bounds the stretch of the kernel, and 1 switches antialiasing off. ``finite`` images are spared the
    care for taps of weight 0 (see `augkit.augment.backends.separable`). ``affine`` promises that no matrix is a
    perspective; it is cheaper, and the last row gets no gradient.
    """
    batch, channels, height, width = images.shape
    inverse = source_map(matrix, affine=affine)
    flat = images.reshape(batch, channels, height * width)
    shrink = max_shrink if kernel != "nearest" else 1.0
    how = _How((height, width), kernel, padding, shrink, finite)
    at_once = _count(how) * (max(channels, 4) if shrink == 1 else channels + 8)
    pixels = torch.arange(size[0] * size[1], device=images.device)
    parts = []
    # Traced, the number of chunks would bind the graph to one size.
    for at in [pixels] if traced() else pixels.split(max(1, CHUNK // max(1, batch * at_once))):
        point = torch.stack([at % size[1], at // size[1], torch.ones_like(at)]).to(inverse.dtype)
        if shrink == 1:
            parts.append(_squares(flat, sources(inverse, point), how))
        else:
            precision, reach = directed(*_derivative(inverse, point, affine=affine), shrink)
            parts.append(_ellipses(flat, sources(inverse, point), precision, reach, how))
    return torch.cat(parts, dim=-1).unflatten(-1, size)


def source_map(matrix: Tensor, *, affine: bool) -> Tensor:
    """The maps from output to input: ``(B, 2, 3)`` where ``affine`` is promised, else ``(B, 3, 3)``; float64."""
    # Written out: LAPACK starts threads, which hang in a forked worker.
    matrix = matrix.to(widest(matrix.device))
    if affine:
        (a, b, x), (c, d, y) = (row.unbind(-1) for row in matrix[:, :2].unbind(1))
        rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
        return (torch.stack(rows, dim=-1) / (a * d - b * c)[:, None]).unflatten(-1, (2, 3))
    inverse = geometry.adjugate(matrix) / geometry.determinant(matrix)[:, None, None]
    return inverse / inverse[:, 2:].detach().abs().sum(dim=-1, keepdim=True)  # the map does not depend on the scale


def sources(inverse: Tensor, point: Tensor) -> Tensor:
    """Map output ``point`` ``(3, n)`` by ``inverse`` of `source_map` to input places ``(B, 2, n)``, x and y.

    A point at or behind the horizon of a perspective comes out far away.
    """
    source = inverse @ point
    if inverse.shape[1] == 2:
        return source
    return source[:, :2] / source[:, 2:].clamp(min=NEAR)


def _derivative(inverse: Tensor, point: Tensor, *, affine: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The derivative of the place of the input, four entries row by row: ``(B, 1)``, in a perspective ``(B, n)``."""
    if affine:
        return inverse[:, 0, :1], inverse[:, 0, 1:2], inverse[:, 1, :1], inverse[:, 1, 1:2]
    depth, (a, b, c, d) = geometry.local_scale(inverse, point)
    square = depth.clamp(min=NEAR).square()
    return a / square, b / square, c / square, d / square


def directed(
    a: Tensor, b: Tensor, c: Tensor, d: Tensor, shrink: float
) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """P as its entries xx, xy, yy, and how far the stretched kernel of half-width 1 reaches along x and along y.

    With the derivative J = [[a, b], [c, d]] of the input's place along the output, P is the inverse of the square root
    of ``J J'`` with singular values below 1 raised to 1, and those above ``shrink`` lowered to it: the identity where
    nothing shrinks, and symmetric, so that a rotation of the output changes nothing.
    """
    p, q, r = a * a + b * b, a * c + b * d, c * c + d * d  # of J J'
    area = (a * d - b * c).abs()
    middle, lean = (p + r) / 2, (p - r) / 2
    squared = lean * lean + q * q
    alike = squared == 0  # where the root has no derivative
    gap = torch.sqrt(torch.where(alike, 1.0, squared))
    gap = torch.where(alike, 0.0, gap)
    high = middle + gap
    low = area * area / torch.where(high > 0, high, 1.0)  # not middle - gap, which loses its digits
    # All between the bounds: the square root of a matrix of two rows in closed form, smooth where both are equal.
    free = (low >= 1) & (high <= shrink * shrink * (1 + 1e-6))
    trace = torch.sqrt(torch.where(free, p + r + 2 * area, 4.0))
    root = torch.where(free, area, 1.0)
    # Else one of them at least is at a bound: P = f(J J') from its values at the two eigenvalues.
    f_high, f_low = _inverse_root(high, shrink), _inverse_root(low, shrink)
    slope = torch.where(alike, 0.0, (f_high - f_low) / torch.where(alike, 1.0, 2 * gap))
    level = (f_high + f_low) / 2
    precision = (
        torch.where(free, (r + root) / (trace * root), level + slope * lean),
        torch.where(free, -q / (trace * root), slope * q),
        torch.where(free, (p + root) / (trace * root), level - slope * lean),
    )
    xx, xy, yy = (entry.detach() for entry in precision)
    scale = xx * yy - xy * xy
    return precision, ((yy + xy.abs()) / scale, (xx + xy.abs()) / scale)


def _inverse_root(square: Tensor, shrink: float) -> Tensor:
    inside = (square > 1) & (square < shrink * shrink)
    root = torch.rsqrt(torch.where(inside, square, 1.0))
    return torch.where(inside, root, torch.where(square <= 1, 1.0, 1 / shrink))


def _count(how: _How, reach: Tensor | None = None) -> int:
    """How many taps along an axis cover every kernel; ``reach``, their extent, is read where that needs no wait."""
    width = 2 * HALF_WIDTH[how.kernel]
    if how.shrink == 1:
        return math.ceil(width)
    # A stretched kernel that lies oblique reaches further than one along the axis.
    most = ((1 + math.sqrt(2)) * how.shrink + 1 - math.sqrt(2)) / 2
    if (
        reach is not None
        and reach.device.type == "cpu"
        and reach.numel()
        and not traced()
        and not in_function_transform()
    ):
        most = min(most, float(reach.max()))
    return math.ceil(width * most) + 1


def _taps(at: Tensor, reach: Tensor | None, how: _How) -> Tensor:
    """The places ``(B, n, T)`` of the taps around the points ``at`` ``(B, n)`` of an axis."""
    first = torch.floor(at - HALF_WIDTH[how.kernel] * (1.0 if reach is None else reach)) + 1
    return first[..., None] + torch.arange(_count(how, reach), device=at.device, dtype=at.dtype)


def _index(tap: Tensor, length: int, padding: str) -> tuple[Tensor, Tensor | None]:
    """The pixel that each tap reads in an axis of ``length``, and whether it counts; None where all do."""
    limit = 1e6 * length  # far outside, a coordinate may exceed int64
    index = padded_index(tap.clamp(-limit, limit).to(torch.int64), length, padding)
    return index, (tap >= 0) & (tap < length) if padding == "zeros" else None


def _squares(flat: Tensor, source: Tensor, how: _How) -> Tensor:
    """``(B, C, n)`` where no kernel is stretched: the weights of a pixel are a product of those along its axes."""
    x, y = source.unbind(1)
    along = []
    for at, length in ((x, how.size[1]), (y, how.size[0])):
        tap = _taps(at, None, how)
        weight = FUNCTION[how.kernel](tap - at[..., None])
        weight = weight / weight.sum(dim=-1, keepdim=True)
        index, counts = _index(tap, length, how.padding)
        weight = weight if counts is None else torch.where(counts, weight, 0.0)
        along += [index, weight.to(flat.dtype)]
    column, weight_x, row, weight_y = along
    total = flat.new_zeros(*flat.shape[:2], x.shape[1])
    for t in range(row.shape[-1]):
        line = _line(flat, row[:, :, t, None] * how.size[1] + column, weight_x, how)
        factor = weight_y[:, None, :, t]
        total = total + (line if how.finite else without_idle(line, factor)) * factor
    return total


def _ellipses(
    flat: Tensor,
    source: Tensor,
    precision: tuple[Tensor, Tensor, Tensor],
    reach: tuple[Tensor, Tensor],
    how: _How,
) -> Tensor:
    """``(B, C, n)``: one row of taps after another, each tap with a weight of its own."""
    x, y = source.unbind(1)
    xx, xy, yy = (entry[..., None] for entry in precision)
    taps, rows = _taps(x, reach[0], how), _taps(y, reach[1], how)
    (column, column_counts), (row, row_counts) = (
        _index(taps, how.size[1], how.padding),
        _index(rows, how.size[0], how.padding),
    )
    dx, dy = taps - x[..., None], rows - y[..., None]
    kernel, (u, v) = FUNCTION[how.kernel], (xx * dx, xy * dx)
    total, norm = flat.new_zeros(*flat.shape[:2], x.shape[1]), torch.zeros_like(x)
    for t in range(rows.shape[-1]):
        off = dy[..., t, None]
        weight = kernel(u + xy * off) * kernel(v + yy * off)
        norm = norm + weight.sum(dim=-1)
        if column_counts is not None and row_counts is not None:
            weight = torch.where(column_counts & row_counts[..., t, None], weight, 0.0)
        total = total + _line(flat, row[..., t, None] * how.size[1] + column, weight.to(flat.dtype), how)
    return total / norm.to(flat.dtype)[:, None]


def _line(flat: Tensor, index: Tensor, weight: Tensor, how: _How) -> Tensor:
    """``(B, C, n)``: the pixels ``index`` ``(B, n, T)`` times their weights."""
    pixels, taps = index.shape[1:]
    values = flat.gather(2, index.flatten(1)[:, None].expand(-1, flat.shape[1], -1)).unflatten(2, (pixels, taps))
    values = values if how.finite else without_idle(values, weight[:, None])
    return torch.einsum("bcpt,bpt->bcp", values, weight)
