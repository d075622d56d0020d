"""Axis-aligned matrices from uniform draws as compiled loops, for `augkit.augment.composed_geometry`.

At 32 pixels the sixty short operations of torch that make a batch of matrices take longer than the resampling. The
loops here do the same float32 arithmetic in the same order, none of it fused, and leave logarithms and exponentials to
torch: the matrices are those of `augkit.augment.base.RandomGeometry.axes`, bit for bit.

An op takes part by its `draw_program`: a kind, then the numbers that the kind needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from augkit.augment.backends.compiled import unfused
from augkit.augment.draw_programs import CROP, FLIP, NUMBERS, RESCALE, SHIFT, DrawProgram

Size = tuple[int, int]
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


def matrices(draws: Tensor, programs: Sequence[DrawProgram], size: Size, size_out: Size) -> Tensor:
    """Return matrices ``(B, 3, 3)`` from pixels of ``size`` to those of ``size_out``, for float32 draws ``(B, n)``."""
    numbers = np.zeros((len(programs), NUMBERS), np.float32)
    for row, program in zip(numbers, programs, strict=True):
        row[: len(program)] = program
    values, batch = draws.detach().contiguous().numpy(), len(draws)
    # Each dtype is named: the default one may be half precision.
    areas = torch.empty(batch, len(programs), dtype=torch.float32)
    sides = torch.empty(batch, len(programs), 2, dtype=torch.float32)
    _fill_areas(values, numbers, areas.numpy())
    torch.log1p(areas, out=areas)
    _fill_sides(values, numbers, areas.numpy(), sides.numpy())
    torch.exp(sides, out=sides)
    out = torch.zeros(batch, 3, 3, dtype=torch.float32)
    start, end = (np.array([(w - 1) / 2, (h - 1) / 2], np.float32) for h, w in (size, size_out))
    _compose(values, numbers, sides.numpy(), start, end, out.numpy())
    return out


@unfused
def _fill_areas(checksum: int) -> Callable[..., None]:
    """See `augkit.augment.backends.compiled.entry`."""

    def fill_areas(draws, numbers, areas):
        """Write the crops' areas minus 1."""
        for b in range(draws.shape[0]):
            first = np.int64(checksum) * 0
            for k in range(numbers.shape[0]):
                kind, p, a, c, strength = numbers[k, 0], numbers[k, 2], numbers[k, 3], numbers[k, 4], numbers[k, 5]
                areas[b, k] = 0
                if kind == CROP and (p == 1 or draws[b, first] < p):
                    areas[b, k] = (draws[b, first + 1] * a - c) * strength
                first += np.int64(numbers[k, 1])

    return fill_areas


@unfused
def _fill_sides(checksum: int) -> Callable[..., None]:
    """See `augkit.augment.backends.compiled.entry`."""

    def fill_sides(draws, numbers, areas, sides):
        """The logarithms of the factors of rescales and crops; ``areas`` are the logarithms of the crops' areas."""
        for b in range(draws.shape[0]):
            first = np.int64(checksum) * 0
            for k in range(numbers.shape[0]):
                kind, p = numbers[k, 0], numbers[k, 2]
                sides[b, k, 0], sides[b, k, 1] = 0, 0
                if kind == RESCALE and (p == 1 or draws[b, first] < p):
                    sides[b, k, 0] = (_TWO * draws[b, first + 1] - _ONE) * numbers[k, 3]
                elif kind == CROP:
                    area, strength, low, high = areas[b, k], numbers[k, 5], numbers[k, 6], numbers[k, 7]
                    lowest = max(area, low) if low < 0 else min(-area, low)
                    highest = max(area, high) if high < 0 else min(-area, high)
                    ratio = (lowest + (highest - lowest) * draws[b, first + 2]) * strength
                    sides[b, k, 0], sides[b, k, 1] = (area + ratio) * -_HALF, (area - ratio) * -_HALF
                first += np.int64(numbers[k, 1])

    return fill_sides


@unfused
def _compose(checksum: int) -> Callable[..., None]:
    """See `augkit.augment.backends.compiled.entry`."""

    def compose(draws, numbers, factors, start, end, out):
        """The product of all ops' maps."""
        for b in range(draws.shape[0]):
            for axis in range(2):
                first, total, place = np.int64(checksum) * 0, _ONE, np.float32(0)
                for k in range(numbers.shape[0]):
                    kind, p = numbers[k, 0], numbers[k, 2]
                    chosen, scale, offset = p == 1 or draws[b, first] < p, _ONE, np.float32(0)
                    if kind == SHIFT and chosen:
                        offset = (_TWO * draws[b, first + 1 + axis] - _ONE) * numbers[k, 3]
                    elif kind == RESCALE:
                        scale = factors[b, k, 0]
                    elif kind == CROP:
                        enlarged = max(factors[b, k, axis], _ONE)
                        offset = (draws[b, first + 3 + axis] - _HALF) * (enlarged - _ONE) * numbers[k, 10 + axis]
                        scale = enlarged * numbers[k, 8 + axis]
                    elif kind == FLIP and axis == 0:
                        scale = -_ONE if draws[b, first] < numbers[k, 3] else _ONE
                    place = offset if k == 0 else offset + scale * place
                    total = scale if k == 0 else total * scale
                    first += np.int64(numbers[k, 1])
                out[b, axis, axis] = total
                out[b, axis, 2] = place + (total * -start[axis] + end[axis])
            out[b, 2, 2] = 1

    return compose
