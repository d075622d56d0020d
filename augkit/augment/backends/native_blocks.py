"""Eight output pixels at once, whose taps are products of two lines: `augkit.augment.backends.native_general`.

A ``line`` is what the pixels of a row take along one axis: the first tap of each, the weights ``(taps, width)`` and
the number of taps. Eight pixels share the places of their taps among all channels. Inside the image those are found by
an addition. At its edges what the padding puts in is found once for the eight pixels, in an ``edge``: for each axis the
places of the taps and their weights, ``(taps, 8)``, which are 0 for what ``zeros`` leaves out.
"""

from __future__ import annotations

import numpy as np

from augkit.augment.backends import lanes
from augkit.augment.backends.compiled import inlined, part
from augkit.augment.backends.native_axes import padded

FOUR = np.uint64(4)


@inlined
def _read(address, places, integers):
    return lanes.apart_bytes(address, places) if integers else lanes.apart(address, places)


@inlined
def _pairs(address, places, integers):
    return lanes.pairs_of_bytes(address, places) if integers else lanes.pairs(address, places)


@inlined
def inside_block(address, places, source, lines, u):
    """The pixels from ``u`` on, whose taps all lie in the image; ``address`` is that of its plane."""
    (_, weight_x, taps_x), (_, weight_y, taps_y) = lines
    values, _, (_, width), _ = source
    integers, item = values.itemsize == 1, np.uint64(values.itemsize)
    below, start = item * np.uint64(width), FOUR * np.uint64(u)
    along, down = np.uint64(weight_x.ctypes.data) + start, np.uint64(weight_y.ctypes.data) + start
    stride = FOUR * np.uint64(weight_x.shape[1])
    if taps_x == 2 and taps_y == 2:  # the weights sum to 1: one product less for each pair
        right = lanes.load(along + stride)
        one, beside = _pairs(address, places, integers)
        one = lanes.add_product(lanes.subtract(beside, one), right, one)
        two, beside = _pairs(address + below, places, integers)
        two = lanes.add_product(lanes.subtract(beside, two), right, two)
        return lanes.add_product(lanes.subtract(two, one), lanes.load(down + stride), one)
    total = lanes.splat(np.float32(0))
    for t in range(np.uint64(taps_y)):
        row, line = address + below * t, lanes.splat(np.float32(0))
        for s in range(np.uint64(taps_x)):
            line = lanes.add_product(_read(row + item * s, places, integers), lanes.load(along + stride * s), line)
        total = lanes.add_product(line, lanes.load(down + stride * t), total)
    return total


@inlined
def _fill_edge_of_axis(line, u, size, padding, stride, places, weights):
    first, weight, taps = line
    for t in range(taps):
        for i in range(lanes.COUNT):
            at = padded(first[u + i] + t, size, padding)
            places[t, i] = max(at, 0) * stride
            weights[t, i] = weight[t, u + i] if at >= 0 else np.float32(0)


@part
def fill_edge(lines, u, size, padding, edge):
    """Write to ``edge`` the taps of the block at ``u``, some of which are outside the image."""
    _fill_edge_of_axis(lines[0], u, size[1], padding, np.int64(1), edge[0], edge[1])
    _fill_edge_of_axis(lines[1], u, size[0], padding, size[1], edge[2], edge[3])


@inlined
def edge_block(address, integers, lines, edge):
    """The pixels whose taps `fill_edge` wrote to ``edge``; ``address`` is that of the plane."""
    columns, along = np.uint64(edge[0].ctypes.data), np.uint64(edge[1].ctypes.data)
    rows, down = np.uint64(edge[2].ctypes.data), np.uint64(edge[3].ctypes.data)
    total, step = lanes.splat(np.float32(0)), FOUR * np.uint64(lanes.COUNT)
    for t in range(np.uint64(lines[1][2])):
        line = lanes.splat(np.float32(0))
        for s in range(np.uint64(lines[0][2])):
            places = lanes.load_flat_places(rows + step * t, columns + step * s, np.int32(1))
            line = lanes.add_product(_read(address, places, integers), lanes.load(along + step * s), line)
        total = lanes.add_product(line, lanes.load(down + step * t), total)
    return total
