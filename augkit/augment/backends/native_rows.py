"""Rows of an image in compiled functions: several blended into one, and one resampled along x.

Addresses are those of `augkit.augment.backends.lanes`. Buffers are `SLACK` longer than the part in use.
"""

from __future__ import annotations

import numpy as np

from augkit.augment.backends import lanes
from augkit.augment.backends.compiled import inlined, part
from augkit.augment.backends.native_axes import APART, NEAR, WIDE

SLACK = 2 * lanes.COUNT  # numbers that a wide read may reach beyond the last one that counts
_FOUR = np.uint64(4)
_BLOCK = np.uint64(4 * lanes.COUNT)


@inlined
def _load(address, integers):
    return lanes.load_bytes(address) if integers else lanes.load(address)


@inlined
def _stops(size):
    """Blocks of eight numbers among ``size``, and the place of the last one, which may overlap the one before."""
    return np.uint64((size + lanes.COUNT - 1) // lanes.COUNT), np.uint64(size - lanes.COUNT)


@inlined
def clear(numbers, size):
    """Set the first ``size`` numbers to 0; numba takes five seconds to compile the assignment of a slice."""
    for k in range(size):
        numbers[k] = 0


@inlined
def blend(values, at, factors, count, size, inner):
    """``inner[:size]`` becomes the sum of ``count`` rows of ``values`` from ``at`` times ``factors``.

    Returns whether all of it is finite. No factor may be 0: callers omit such rows, and infinities in them.
    """
    if count == 0:
        clear(inner, size)
        return True
    if size < lanes.COUNT:
        return _blend_few(values, at, factors, count, size, inner)
    integers, item = values.itemsize == 1, np.uint64(values.itemsize)
    begin, target = np.uint64(values.ctypes.data), np.uint64(inner.ctypes.data)
    blocks, last = _stops(size)
    zero = lanes.splat(np.float32(0))
    strange = zero
    one, p = begin + item * np.uint64(at[0]), lanes.splat(factors[0])
    two, q = begin + item * np.uint64(at[count - 1]), lanes.splat(factors[count - 1])
    for k in range(blocks):
        j = min(np.uint64(lanes.COUNT) * k, last)
        total = lanes.multiply(p, _load(one + item * j, integers))
        for t in range(1, count - 1):
            row = begin + item * (np.uint64(at[t]) + j)
            total = lanes.add_product(lanes.splat(factors[t]), _load(row, integers), total)
        if count > 1:
            total = lanes.add_product(q, _load(two + item * j, integers), total)
        lanes.store(target + _FOUR * j, total)
        strange = lanes.add_product(total, zero, strange)
    return integers or not lanes.has_nan(strange)


@inlined
def _blend_few(values, at, factors, count, size, inner):
    finite = True
    for j in range(size):
        total = np.float32(0)
        for t in range(count):
            total += factors[t] * np.float32(values[at[t] + j])
        inner[j] = total
        finite &= total - total == 0
    return finite


@inlined
def fill_ends(row, columns, start, stop, size):
    """Write the padding of a row: before ``start``, and from ``stop`` to ``size``."""
    for j in range(start):
        row[j] = row[columns[j]]
    for j in range(stop, size):
        row[j] = row[columns[j]]


@inlined
def along_row(reader, row, taps, weight, blocks, out, target, affine):
    """Resample ``row`` to the ``out`` numbers at the address ``target``.

    ``blocks`` is what `augkit.augment.backends.native_axes.fill_blocks` writes, ``affine`` a factor and a summand.
    """
    if reader == NEAR:
        _along(NEAR, row, taps, weight, blocks, out, target, affine)
    elif reader == WIDE:
        _along(WIDE, row, taps, weight, blocks, out, target, affine)
    else:
        _along(APART, row, taps, weight, blocks, out, target, affine)


@inlined
def _read(reader, address, places):
    if reader == NEAR:
        return lanes.near(address, places)
    if reader == WIDE:
        return lanes.wide(address, places)
    return lanes.apart(address, places)


@inlined
def _along(reader, row, taps, weight, blocks, out, target, affine):
    base, places = blocks
    begin, order, factors = np.uint64(row.ctypes.data), np.uint64(places.ctypes.data), np.uint64(weight.ctypes.data)
    stride = _FOUR * np.uint64(weight.shape[1])
    stops, last = _stops(max(out, lanes.COUNT))
    gains, biases = lanes.splat(affine[0]), lanes.splat(affine[1])
    for k in range(stops):
        j = _FOUR * min(np.uint64(lanes.COUNT) * k, last)
        at, here = begin + _FOUR * np.uint64(base[k]), lanes.load_places(order + _BLOCK * k)
        total = _read(reader, at, here)
        if taps == 2:  # the weights sum to 1: one product less
            far = _read(reader, at + _FOUR, here)
            total = lanes.add_product(lanes.subtract(far, total), lanes.load(factors + stride + j), total)
        elif taps > 2:
            total = lanes.multiply(total, lanes.load(factors + j))
            for t in range(np.uint64(1), np.uint64(taps)):
                total = lanes.add_product(
                    _read(reader, at + _FOUR * t, here), lanes.load(factors + stride * t + j), total
                )
        lanes.store(target + j, lanes.add_product(total, gains, biases))


@part
def along_with_care(row, begin, left, taps, weight, out, line, affine):
    """`along_row` for a row with a NaN or an infinity, which a weight of 0 would turn into a NaN."""
    for u in range(out):
        total, at = np.float32(0), begin[u] - left
        for t in range(taps):
            if weight[t, u] != 0:
                total += weight[t, u] * row[at + t]
        line[u] = affine[0] * total + affine[1]


@inlined
def quantize(line, out):
    """Write ``line`` rounded and clipped to uint8."""
    for u in range(out.size):
        out[u] = min(max(np.rint(line[u]), np.float32(0)), np.float32(255))


@inlined
def copy(values, out, gain, bias):
    """Write ``gain * values + bias`` of as many values as ``out`` has."""
    # A float that keeps its value keeps its bits, the sign of a zero too; integers are written as they are.
    if gain == 1 and bias == 0:
        for u in range(out.size):
            out[u] = values[u]
    else:
        for u in range(out.size):
            out[u] = gain * np.float32(values[u]) + bias
