"""The taps of an axis in compiled functions: places, weights, and what the padding puts outside the image."""

from __future__ import annotations

import math

import numpy as np

from augkit.augment.backends import lanes
from augkit.augment.backends.compiled import inlined, part

TABLE_STEPS = 2048  # values of a kernel per pixel; linear between them, which is off by 1.5e-7 at most
NEAREST, BILINEAR = 0, 1  # of `augkit.augment.kernels.FUNCTION`, in its order
ZEROS, BORDER, REFLECTION, CIRCULAR = range(4)  # of `augkit.augment.kernels.PADDINGS`, in its order
NEAR, WIDE, APART = range(3)


@inlined
def kernel_at(distance, table):
    """The kernel at ``distance``, from its values at multiples of ``1 / TABLE_STEPS`` up to the end of its support."""
    place = min(abs(distance) * TABLE_STEPS, table.size - 2.0)
    at = np.int64(place)
    return table[at] + (place - at) * (table[at + 1] - table[at])


@inlined
def padded(index, size, padding):
    """As `augkit.augment.kernels.padded_index`; -1 for a pixel that ``zeros`` leaves out."""
    if 0 <= index < size:
        return index
    if padding == ZEROS:
        return -1
    if padding == CIRCULAR:
        return index % size
    if padding == REFLECTION and size > 1:
        index %= 2 * (size - 1)
        return min(index, 2 * (size - 1) - index)
    return min(max(index, 0), size - 1)


@inlined
def _nearby(place, taps, size, padding):
    """The first tap, brought near the image if far away, so that the taps read the same pixels."""
    limit = 1e6 * size  # far outside, a coordinate may exceed int64
    index = np.int64(min(max(place, -limit), limit))
    if padding in (ZEROS, BORDER):
        return min(max(index, -taps), size)
    period = size if padding == CIRCULAR else max(1, 2 * (size - 1))
    return index if -size <= index <= 2 * size else index % period


@inlined
def count_taps(scale, half_width, max_shrink):
    """The number of taps along an axis, as `fill_taps` writes them."""
    return np.int64(np.ceil(2 * half_width * min(max(1 / abs(scale), 1.0), max_shrink)))


@part
def fill_taps(scale, offset, sizes, max_shrink, how, table, first, weight):
    """Write the first tap of each output pixel to ``first`` and the weights to ``weight`` ``(taps, out)``.

    ``sizes`` are those of the input and of the output. Returns the number of taps.
    """
    kernel, padding, half_width, _ = how
    size, out = sizes
    taps = count_taps(scale, half_width, max_shrink)
    stretch = min(max(1 / abs(scale), 1.0), max_shrink)
    if kernel == BILINEAR and taps == 2:  # as below; at 32 pixels the taps cost as much as the sums
        inverse = 1 / scale
        for u in range(out):
            x = (u - offset) * inverse
            at = math.floor(x)
            weight[0, u], weight[1, u] = 1 - (x - at), x - at
            first[u] = _nearby(at, taps, size, padding)
        return taps
    shifts = scale == 1  # the same weights for every pixel
    for u in range(out):
        x = (u - offset) / scale
        if shifts and u > 0:
            at += 1
            for t in range(taps):
                weight[t, u] = weight[t, 0]
        else:
            at = math.floor(x - half_width * stretch) + 1
            _fill_weights(at - x, taps, 1 / stretch, kernel, table, weight, u)
        first[u] = _nearby(at, taps, size, padding)
    return taps


@inlined
def _fill_weights(begin, taps, step, kernel, table, weight, u):
    if kernel == NEAREST:  # one tap
        weight[0, u] = 1
        return
    total = 0.0
    for t in range(taps):
        value = kernel_at((begin + t) * step, table)
        weight[t, u] = value
        total += value
    total = 1 / total
    for t in range(taps):
        weight[t, u] *= total


@part
def fill_columns(first, out, taps, width, padding, columns):
    """Return start and length of the row buffer; write to ``columns`` where padding values come from.

    The buffer spans all pixels that the taps reach and, with padding, those that stand in for pixels outside.
    """
    low, high = first[0], first[0]
    for u in range(out):
        low, high = min(low, first[u]), max(high, first[u])
    high += taps
    if padding != ZEROS:
        left, right = low, high
        for x in range(left, right):
            if x < 0 or x >= width:
                stand_in = padded(x, width, padding)
                low, high = min(low, stand_in), max(high, stand_in + 1)
        for j in range(high - low):
            if j + low < 0 or j + low >= width:
                columns[j] = padded(j + low, width, padding) - low
    if high <= 0 or low >= width:  # zeros alone
        low, high = min(low, 0), max(high, 0)
    return low, high - low


@part
def fill_blocks(first, left, out, base, places):
    """Blocks of eight output pixels: where each begins in the row buffer, and the places of its pixels from there.

    The last block ends at the last pixel and may overlap the one before. Returns which reader of
    `augkit.augment.backends.lanes` reaches all places.
    """
    farthest = 0
    for k in range((out + lanes.COUNT - 1) // lanes.COUNT):
        start = max(0, min(lanes.COUNT * k, out - lanes.COUNT))
        low = first[start]
        for i in range(start, min(start + lanes.COUNT, out)):
            low = min(low, first[i])
        base[k] = low - left
        for i in range(lanes.COUNT):
            place = first[min(start + i, out - 1)] - low
            places[lanes.COUNT * k + i] = place
            farthest = max(farthest, place)
    if farthest < lanes.COUNT:
        return NEAR
    return WIDE if farthest < 2 * lanes.COUNT else APART
