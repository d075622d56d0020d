"""The compiled loop over the rows of outputs, through any matrices: rotation, shear and perspective among them.

The semantics are those of `augkit.augment.backends.general`. Places and weights are found once for each output pixel,
and its channels share them. Where the kernel is stretched along the axes of the input alone, or not at all, the taps of
a pixel are a product of two lines, and eight pixels are computed at once (`augkit.augment.backends.native_blocks`).
Elsewhere each tap has a weight of its own.

A row of a rotated output crosses many rows of the input, which no processor predicts: it would stall at each. So each
block prefetches the pixels that the row `_AHEAD` rows below will need there.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from augkit.augment.backends import lanes
from augkit.augment.backends.compiled import entry, inlined, part
from augkit.augment.backends.native_axes import BILINEAR, NEAREST, ZEROS, kernel_at, padded
from augkit.augment.backends.native_blocks import FOUR, edge_block, fill_edge, inside_block

_OBLIQUE = 1e-9  # the least entry off the diagonal for which taps get weights of their own
_DEPTH = 1e-6  # the least depth of a point: at the horizon of a perspective it is 0, behind it negative
_FARTHEST = 2.0**30  # pixels: places are held in 32 bits, of which a processor converts several at once
_AHEAD = 6  # rows
_MOST = 2**31 - 1  # pixels of a plane that is read eight at a time


@part
def inverted(m):
    """The map from output to input of ``m`` ``(3, 3)``, row by row; that of a perspective has a scale of its own."""
    (a, b, x), (c, d, y), (g, h, i) = m
    if g == 0 and h == 0 and i == 1:
        det = a * d - b * c
        last = (0.0, 0.0, 1.0)
        return (d / det, -b / det, (b * y - d * x) / det), (-c / det, a / det, (c * x - a * y) / det), last
    last = (c * h - d * g, b * g - a * h, a * d - b * c)
    det = g * (b * y - d * x) + h * (c * x - a * y) + i * last[2]
    size = (abs(last[0]) + abs(last[1]) + abs(last[2])) * (1.0 if det > 0 else -1.0)
    return (
        ((d * i - y * h) / size, (x * h - b * i) / size, (b * y - x * d) / size),
        ((y * g - c * i) / size, (a * i - x * g) / size, (x * c - a * y) / size),
        (last[0] / size, last[1] / size, last[2] / size),
    )


@part
def directed(a, b, c, d, shrink):
    """P as xx, xy, yy: the inverse of the root of ``J J'``, its singular values held between 1 and ``shrink``."""
    p, q, r = a * a + b * b, a * c + b * d, c * c + d * d
    area, lean = a * d - b * c, (p - r) / 2
    gap = math.sqrt(lean * lean + q * q)
    high = (p + r) / 2 + gap
    low = area * area / high if high > 0 else 0.0
    # A float32 rotation spans 1 pixel but for rounding.
    f_high = 1.0 if high < 1 + 2e-6 else max(1 / math.sqrt(high), 1 / shrink)
    f_low = 1.0 if low < 1 + 2e-6 else max(1 / math.sqrt(low), 1 / shrink)
    slope = (f_high - f_low) / (2 * gap) if gap > 0 else 0.0
    level = (f_high + f_low) / 2
    return level + slope * lean, slope * q, level - slope * lean


@inlined
def _first(place, reach, size):
    """The first tap around ``place``; a place far outside is clamped to what an index can hold."""
    limit = min(1e6 * size, _FARTHEST)
    return np.int64(np.floor(min(max(place, -limit), limit) - reach)) + 1


@part
def _fill_line(places, stretch, size, how, table, line):
    """The taps of a row's pixels along one axis: ``line`` is the first of each, the weights and the number of taps."""
    first, weight, taps = line
    kernel, _, half_width, _ = how
    step, limit = 1 / stretch, min(1e6 * size, _FARTHEST)
    if kernel == BILINEAR and taps == 2:  # as below, without its branches
        for u in range(places.size):
            at = np.floor(min(max(places[u], -limit), limit))
            first[u] = np.int32(at)
            weight[0, u], weight[1, u] = 1 - (places[u] - at), places[u] - at
        return
    for u in range(places.size):
        place = places[u]
        at = _first(place, half_width * stretch, size)
        first[u] = at
        if kernel == NEAREST:
            weight[0, u] = 1
        else:
            total = 0.0
            for t in range(taps):
                value = kernel_at((at + t - place) * step, table)
                weight[t, u] = value
                total += value
            total = 1 / total
            for t in range(taps):
                weight[t, u] *= total


@part
def _lines_pixel(values, begin, size, padding, lines, u):
    """One pixel from a product of two lines of taps, any of which may lie outside or read a non-finite value."""
    (first_x, weight_x, taps_x), (first_y, weight_y, taps_y) = lines
    height, width = size
    total = np.float32(0)
    for t in range(taps_y):
        y = padded(first_y[u] + t, height, padding)
        if y < 0 or weight_y[t, u] == 0:
            continue
        line = np.float32(0)
        for s in range(taps_x):
            x = padded(first_x[u] + s, width, padding)
            if x >= 0 and weight_x[s, u] != 0:
                line += weight_x[s, u] * np.float32(values[begin + y * width + x])
        total += weight_y[t, u] * line
    return total


@part
def _fill_ellipse(x, y, precision, half_width, size, table, weight):
    """The first tap, the taps along x and along y, and their weights, row by row in ``weight``."""
    xx, xy, yy = precision
    scale = xx * yy - xy * xy
    reach_x, reach_y = half_width * (yy + abs(xy)) / scale, half_width * (xx + abs(xy)) / scale
    at_x, at_y = _first(x, reach_x, size[1]), _first(y, reach_y, size[0])
    taps_x, taps_y = np.int64(math.ceil(2 * reach_x)), np.int64(math.ceil(2 * reach_y))
    total = 0.0
    for t in range(taps_y):
        dy = at_y + t - y
        for s in range(taps_x):
            dx = at_x + s - x
            value = kernel_at(xx * dx + xy * dy, table) * kernel_at(xy * dx + yy * dy, table)
            weight[t * taps_x + s] = value
            total += value
    total = 1 / total
    for k in range(taps_x * taps_y):
        weight[k] *= total
    return at_x, at_y, taps_x, taps_y


@part
def _ellipse_pixel(values, begin, size, padding, taps, weight):
    """One pixel from taps with a weight each."""
    (at_x, at_y, taps_x, taps_y), (height, width) = taps, size
    total = np.float32(0)
    inside = at_x >= 0 and at_y >= 0 and at_x + taps_x <= width and at_y + taps_y <= height
    for t in range(taps_y):
        y = at_y + t if inside else padded(at_y + t, height, padding)
        if y < 0:
            continue
        for s in range(taps_x):
            x = at_x + s if inside else padded(at_x + s, width, padding)
            w = weight[t * taps_x + s]
            if x >= 0 and w != 0:
                total += np.float32(w) * np.float32(values[begin + y * width + x])
    return total


@inlined
def _write(out, at, value, quantized):
    if quantized:
        out[at] = min(max(np.rint(value), np.float32(0)), np.float32(255))
    else:
        out[at] = value


@inlined
def _fill_two_taps(step, offset, size, line):
    """`_fill_line` for two bilinear taps at the places ``step * u + offset``, eight pixels at a time."""
    first, weight, _ = line
    limit, last = min(1e6 * size, _FARTHEST), max(0, weight.shape[1] - lanes.COUNT)
    to_first, to_weight = np.uint64(first.ctypes.data), np.uint64(weight.ctypes.data)
    to_second = to_weight + FOUR * np.uint64(weight.shape[1])
    for k in range((weight.shape[1] + lanes.COUNT - 1) // lanes.COUNT):
        u = min(lanes.COUNT * k, last)
        here = FOUR * np.uint64(u)
        lanes.store_two_taps(to_first + here, (to_weight + here, to_second + here), u, step, offset, limit)


@inlined
def _trace(v, inverse, xs, ys):
    """Write the input positions of the pixels of output row ``v``."""
    (ax, bx, cx), (ay, by, cy), (az, bz, cz) = inverse
    for u in range(xs.size):
        xs[u], ys[u] = ax * u + (bx * v + cx), ay * u + (by * v + cy)
    if az != 0 or bz != 0:
        for u in range(xs.size):
            depth = max(az * u + (bz * v + cz), _DEPTH)
            xs[u], ys[u] = xs[u] / depth, ys[u] / depth


@part
def _ellipses_row(v, inverse, shrink, source, goal, how, table, places, weight):
    """A row of pixels whose taps have a weight each; in a perspective each pixel has a P of its own."""
    (ax, bx, _), (ay, by, _), (az, bz, cz) = inverse
    (values, begin, size, channels), (out, to, stride, affine) = source, goal
    (_, padding, half_width, quantized), (xs, ys) = how, places
    precision = directed(ax, bx, ay, by, shrink)
    for u in range(xs.size):
        x, y = xs[u], ys[u]
        if az != 0 or bz != 0:
            depth = max(az * u + (bz * v + cz), _DEPTH)
            j = (ax - x * az) / depth, (bx - x * bz) / depth, (ay - y * az) / depth, (by - y * bz) / depth
            precision = directed(j[0], j[1], j[2], j[3], shrink)
        taps = _fill_ellipse(x, y, precision, half_width, size, table, weight)
        for c in range(channels):
            value = _ellipse_pixel(values, begin + c * size[0] * size[1], size, padding, taps, weight)
            _write(out, to + c * stride + u, affine[0, c] * value + affine[1, c], quantized)


@inlined
def _where(lines, size, start, margin):
    """Whether all taps of the block from ``start`` on lie in the image of ``size``, and whether all lie beyond.

    Along a row, places are monotonic, so the two ends suffice; in a perspective, up to rounding (``margin``).
    """
    (first_x, _, taps_x), (first_y, _, taps_y) = lines
    last = min(start + lanes.COUNT, first_x.size) - 1
    left, right = min(first_x[start], first_x[last]) - margin, max(first_x[start], first_x[last]) + taps_x + margin
    top, bottom = min(first_y[start], first_y[last]) - margin, max(first_y[start], first_y[last]) + taps_y + margin
    inside = left >= 0 and top >= 0 and right <= size[1] and bottom <= size[0]
    return inside, right <= 0 or bottom <= 0 or left >= size[1] or top >= size[0]


@inlined
def _write_block(out, at, total, factors, quantized):
    total = lanes.add_product(total, lanes.splat(factors[0]), lanes.splat(factors[1]))
    if quantized:
        lanes.store_bytes(np.uint64(out.ctypes.data) + np.uint64(at), total)
    else:
        lanes.store(np.uint64(out.ctypes.data) + FOUR * np.uint64(at), total)


@inlined
def _first_pixel(k, count):
    """The first pixel of block ``k``; the last block ends at the last pixel and may overlap the one before."""
    return max(0, min(lanes.COUNT * k, count - lanes.COUNT))


@inlined
def _step(pixels, size):
    """``pixels`` truncated, within ``± size``."""
    return np.int64(min(max(pixels, -np.float64(size)), np.float64(size)))


@part
def _inside_blocks(blocks, source, goal, quantized, lines, ahead):
    """Write the ``blocks`` of a row, whose taps all lie in the image; returns whether a sum is NaN or infinite."""
    (values, begin, size, channels), (out, to, stride, affine) = source, goal
    (first_x, _, _), (first_y, _, _) = lines
    count, item = first_x.size, np.uint64(values.itemsize)
    plane, strange = item * np.uint64(size[0] * size[1]), lanes.splat(np.float32(0))
    image, soon = np.uint64(values.ctypes.data) + item * np.uint64(begin), item * np.uint64(ahead)
    down, along = np.uint64(first_y.ctypes.data), np.uint64(first_x.ctypes.data)
    # Eight pixels of a turned row lie in several rows of the input: two of them stand for all.
    half = item * np.uint64(np.int64(first_y[4] - first_y[0]) * size[1] + first_x[4] - first_x[0])
    for k in range(blocks[0], blocks[1]):
        start = _first_pixel(k, count)
        here = FOUR * np.uint64(start)
        order = lanes.load_flat_places(down + here, along + here, np.int32(size[1]))
        near = np.uint64(np.int64(first_y[start]) * size[1] + first_x[start]) * item + soon
        for c in range(np.uint64(channels)):
            address = image + plane * c
            lanes.prefetch(address + near)
            lanes.prefetch(address + near + half)
            total = inside_block(address, order, source, lines, start)
            strange = lanes.add_product(total, lanes.splat(np.float32(0)), strange)
            _write_block(out, to + np.int64(c) * stride + start, total, (affine[0, c], affine[1, c]), quantized)
    return lanes.has_nan(strange)


@part
def _lines_row(source, goal, how, lines, margin, edge, ahead):
    """A row of pixels whose taps are products of two lines, eight at a time."""
    (values, begin, size, channels), (out, to, stride, affine) = source, goal
    (_, padding, _, quantized) = how
    count, item, integers = lines[0][0].size, np.uint64(values.itemsize), values.itemsize == 1
    whole, blocks = count >= lanes.COUNT and size[0] * size[1] <= _MOST, (count + lanes.COUNT - 1) // lanes.COUNT
    left, right = 0, blocks if whole else 0
    while left < right and not _where(lines, size, _first_pixel(left, count), margin)[0]:
        left += 1
    while left < right and not _where(lines, size, _first_pixel(right - 1, count), margin)[0]:
        right -= 1
    if left < right and _inside_blocks((left, right), source, goal, quantized, lines, ahead):
        left, right = 0, 0  # a weight of 0 makes a NaN of an infinity
    image, plane = np.uint64(values.ctypes.data) + item * np.uint64(begin), item * np.uint64(size[0] * size[1])
    for k in range(blocks):
        if left <= k < right:
            continue
        start = _first_pixel(k, count)
        stop = min(start + lanes.COUNT, count)
        beyond = padding == ZEROS and _where(lines, size, start, margin)[1]
        if whole and not beyond:
            fill_edge(lines, start, size, padding, edge)
        for c in range(channels):
            factors, at, total = (affine[0, c], affine[1, c]), to + c * stride + start, lanes.splat(np.float32(0))
            if whole and not beyond:
                total = edge_block(image + plane * np.uint64(c), integers, lines, edge)
            if whole and (integers or not lanes.has_nan(total)):
                _write_block(out, at, total, factors, quantized)
                continue
            for u in range(start, stop):
                value = _lines_pixel(values, begin + c * size[0] * size[1], size, padding, lines, u)
                _write(out, at + u - start, factors[0] * value + factors[1], quantized)


@entry
def rows(checksum: int) -> Callable[..., None]:
    """See `augkit.augment.backends.compiled.entry`."""

    def rows(start, stop, source, out, matrix, shrinks, how, table, affine):
        """Resample rows ``start`` to ``stop`` of the ``B * h`` of ``out`` ``(B, C, h, w)``.

        The arguments are those of `augkit.augment.backends.native_planes.planes`.
        """
        values, offsets, sizes, channels = source
        half_width, (height, width) = how[2], out.shape[2:]
        most = np.int64(checksum) * 0 + 1
        for b in range(start // height, -(-stop // height)):  # an oblique kernel reaches further than one along an axis
            most = max(most, np.int64(2 * half_width * (1.2072 * shrinks[b])) + 3)
        xs, ys, weight = np.empty(width), np.empty(width), np.empty(most * most)
        first_x, weight_x = np.empty(width, np.int32), np.empty((most, width), np.float32)
        first_y, weight_y = np.empty(width, np.int32), np.empty((most, width), np.float32)
        columns, along = np.empty((most, lanes.COUNT), np.int32), np.empty((most, lanes.COUNT), np.float32)
        edge = columns, along, np.empty_like(columns), np.empty_like(along)
        flat, of_image = out.reshape(-1), np.int64(-1)
        for unit in range(start, stop):
            b, v = unit // height, unit % height
            if b != of_image:
                of_image, size, shrink = b, (sizes[b, 0], sizes[b, 1]), shrinks[b]
                image = (values, offsets[b], size, channels)
                inverse = inverted(matrix[b])
                straight, precision = inverse[2][0] == 0 and inverse[2][1] == 0, (1.0, 0.0, 1.0)
                if straight:
                    precision = directed(inverse[0][0], inverse[0][1], inverse[1][0], inverse[1][1], shrink)
                by_lines = abs(precision[1]) < _OBLIQUE and (straight or shrink == 1)
                stretch_x, stretch_y = 1 / precision[0], 1 / precision[2]
                taps_x = np.int64(math.ceil(2 * half_width * stretch_x))
                taps_y = np.int64(math.ceil(2 * half_width * stretch_y))
                lines = (first_x, weight_x, taps_x), (first_y, weight_y, taps_y)
            goal = (flat, (b * channels * height + v) * width, height * width, affine)
            (ax, bx, cx), (ay, by, cy), _ = inverse
            two = taps_x == 2 and taps_y == 2 and how[0] == BILINEAR and straight and width >= lanes.COUNT
            if by_lines and two:
                _fill_two_taps(ax, bx * v + cx, size[1], lines[0])
                _fill_two_taps(ay, by * v + cy, size[0], lines[1])
            else:
                _trace(v, inverse, xs, ys)
            if by_lines:
                if not two:
                    _fill_line(xs, stretch_x, size[1], how, table, lines[0])
                    _fill_line(ys, stretch_y, size[0], how, table, lines[1])
                ahead = _step(_AHEAD * bx, size[1]) + _step(_AHEAD * by + np.sign(by), size[0]) * size[1]
                _lines_row(image, goal, how, lines, 0 if straight else 1, edge, ahead)
            else:
                _ellipses_row(v, inverse, shrink, image, goal, how, table, (xs, ys), weight)

    return rows
