"""Resampling through any affine matrix, rotation and shear among them, in torch.

Each output pixel is mapped back to a point of the input and uses the product of two one-dimensional kernels there, a
square of taps. When an axis of the input shrinks, the kernel is stretched along that axis by the distance that one
pixel of the output spans on it: the norm of the row of the inverse's linear part. For axis-aligned matrices that is
the factor of `augkit.augment.backends.separable`, for a rotation it is 1. It is not exact for a strong shear or
a shrink along a diagonal, whose footprint is not axis-aligned.

Pixels are processed in chunks, so that memory beyond the output stays near `CHUNK` values when no gradient is recorded.
Differentiable with respect to the images and to the matrix. Coordinates are float64 (float32 on MPS).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augkit.augment.backends.separable import without_idle
from augkit.augment.kernels import FUNCTION, HALF_WIDTH, padded_index

CHUNK = 1 << 20  # gathered values at a time


def resample(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    kernel: str,
    padding: str,
    max_shrink: float,
    *,
    finite: bool = False,
) -> Tensor:
    """Resample float ``images`` ``(B, C, H, W)`` to ``size`` through ``matrix`` ``(B, 3, 3)``; see the module.

    ``max_shrink`` bounds the stretch of the kernel, and 1 switches antialiasing off. For ``finite`` images taps of
    weight 0 need no special handling (see `augkit.augment.backends.separable`).
    """
    batch, channels, height, width = images.shape
    inverse = _inverse(matrix.to(torch.float32 if matrix.device.type == "mps" else torch.float64))
    flat = images.reshape(batch, channels, height * width)
    shrink = max_shrink if kernel != "nearest" else 1.0
    taps = math.ceil(2 * HALF_WIDTH[kernel] * shrink) + (shrink > 1)
    pixels = torch.arange(size[0] * size[1], device=images.device)
    step = max(1, CHUNK // max(1, batch * max(channels, 4) * taps))
    parts = []
    for at in pixels.split(step):
        point = torch.stack([at % size[1], at // size[1], torch.ones_like(at)]).to(inverse.dtype)
        source = inverse @ point  # (B, 2, n): x and y of the input
        x, weight_x = _axis(source[:, 0], inverse[:, 0], width, kernel, padding, (taps, shrink))
        y, weight_y = _axis(source[:, 1], inverse[:, 1], height, kernel, padding, (taps, shrink))
        weights = (weight_x.to(images.dtype), weight_y.to(images.dtype))
        parts.append(_weighted(flat, x, y * width, *weights, finite=finite))
    return torch.cat(parts, dim=-1).unflatten(-1, size)


def _inverse(matrix: Tensor) -> Tensor:
    """Return the first two rows of the inverses, ``(B, 2, 3)``, without LAPACK (see `augkit.augment.resample`)."""
    (a, b, x), (c, d, y) = (row.unbind(-1) for row in matrix[:, :2].unbind(1))
    rows = [d, -b, b * y - d * x, -c, a, c * x - a * y]
    return (torch.stack(rows, dim=-1) / (a * d - b * c)[:, None]).unflatten(-1, (2, 3))


def _axis(
    at: Tensor, row: Tensor, length: int, kernel: str, padding: str, taps: tuple[int, float]
) -> tuple[Tensor, Tensor]:
    """Return index and weight ``(B, n, T)`` of the taps around the points ``at`` ``(B, n)`` of an axis."""
    count, shrink = taps
    span = torch.linalg.vector_norm(row[:, :2], dim=-1)
    # A plain clamp would have no gradient at the bound itself, where the strongest shrink of a batch lies.
    bounded = torch.where((span > 1) & (span <= shrink), span, span.detach().clamp(1.0, shrink))
    stretch = bounded[:, None, None]
    first = torch.floor(at - HALF_WIDTH[kernel] * stretch[..., 0]) + 1
    tap = first[..., None] + torch.arange(count, device=at.device, dtype=at.dtype)
    weight = FUNCTION[kernel]((tap - at[..., None]) / stretch)
    weight = weight / weight.sum(dim=-1, keepdim=True)
    if padding == "zeros":
        weight = torch.where((tap >= 0) & (tap < length), weight, torch.zeros_like(weight))
    limit = 1e6 * length  # far outside, a coordinate may exceed int64
    return padded_index(tap.clamp(-limit, limit).to(torch.int64), length, padding), weight


def _weighted(flat: Tensor, x: Tensor, row: Tensor, weight_x: Tensor, weight_y: Tensor, *, finite: bool) -> Tensor:
    """Return ``(B, C, n)``, the weighted sum of the taps of each pixel, accumulated row by row."""
    batch, pixels, taps = x.shape
    shape = (batch, flat.shape[1], pixels * taps)
    total = flat.new_zeros(batch, flat.shape[1], pixels)
    for t in range(taps):
        index = (row[:, :, t, None] + x).flatten(1)[:, None].expand(shape)
        values = flat.gather(2, index).unflatten(2, (pixels, taps))
        values = values if finite else without_idle(values, weight_x[:, None])
        line, factor = torch.einsum("bcpt,bpt->bcp", values, weight_x), weight_y[:, None, :, t]
        total = total + (line if finite else without_idle(line, factor)) * factor
    return total
