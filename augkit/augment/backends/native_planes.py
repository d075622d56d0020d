"""The compiled loop over the planes of images of one size or of many, through axis-aligned matrices."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from augkit.augment.backends import lanes
from augkit.augment.backends.compiled import entry, inlined, part
from augkit.augment.backends.native_axes import ZEROS, count_taps, fill_blocks, fill_columns, fill_taps, padded
from augkit.augment.backends.native_rows import (
    SLACK,
    along_row,
    along_with_care,
    blend,
    clear,
    copy,
    fill_ends,
    quantize,
)


@part
def _room(first, last, sizes, matrix, shrinks, half_width):
    """The longest row and the most taps along x and along y of the images ``first`` to ``last``."""
    width, taps_x, taps_y = np.int64(1), np.int64(1), np.int64(1)
    for b in range(first, last):
        width = max(width, sizes[b, 1])
        taps_x = max(taps_x, count_taps(matrix[b, 0, 0], half_width, shrinks[b]))
        taps_y = max(taps_y, count_taps(matrix[b, 1, 1], half_width, shrinks[b]))
    return width, taps_x, taps_y


@inlined
def _sources(v, first, weight, taps, height, padding, begin, width, found):
    """Write the starts of the rows that output row ``v`` reads, and their weights, except rows of weight 0."""
    (at, factors), count = found, 0
    for t in range(taps):
        y = padded(first[v] + t, height, padding)
        if y >= 0 and weight[t, v] != 0:
            at[count], factors[count] = begin + y * width, weight[t, v]
            count += 1
    return count


@entry
def planes(checksum: int) -> Callable[..., None]:
    """See `augkit.augment.backends.compiled.entry`."""

    def planes(start, stop, source, out, matrix, shrinks, how, table, affine):
        """Resample planes ``start`` to ``stop`` of the ``B * C`` in ``source`` into ``out`` ``(B, C, h, w)``.

        ``source`` is the values of all images one after the other, the place of the first value of each, their sizes
        ``(B, 2)`` and the number of channels.
        """
        values, offsets, sizes, channels = source
        _, padding, half_width, quantized = how
        out_height, out_width = out.shape[2:]
        widest, most_x, most_y = _room(start // channels, -(-stop // channels), sizes, matrix, shrinks, half_width)
        of_image = np.int64(checksum) * 0 - 1
        # All buffers of an image beside its output; the row reaches as far as `native_axes._nearby` lets taps lie.
        longest = 3 * widest + 2 * most_x + SLACK
        row, columns = np.empty(longest, np.float32), np.empty(longest, np.int64)
        line = np.empty(out_width + SLACK, np.float32)
        first_x, weight_x = np.empty(out_width, np.int64), np.empty((most_x, out_width + SLACK), np.float32)
        first_y, weight_y = np.empty(out_height, np.int64), np.empty((most_y, out_height), np.float32)
        out_begin, line_begin = np.uint64(out.ctypes.data), np.uint64(line.ctypes.data)
        base, places = np.empty(out_width // 8 + 1, np.int64), np.empty(out_width + SLACK, np.int32)
        at, factors = np.empty(most_y, np.int64), np.empty(most_y, np.float32)
        for plane in range(start, stop):
            b, c = plane // channels, plane % channels
            gain, bias = affine[0, c], affine[1, c]
            height, width = sizes[b]
            if b != of_image:  # the taps are the same for all channels
                of_image = b
                sx, tx, sy, ty = matrix[b, 0, 0], matrix[b, 0, 2], matrix[b, 1, 1], matrix[b, 1, 2]
                same = sx == 1 and sy == 1 and tx == 0 and ty == 0 and height == out_height and width == out_width
                if not same:
                    taps_x = fill_taps(sx, tx, (width, out_width), shrinks[b], how, table, first_x, weight_x)
                    taps_y = fill_taps(sy, ty, (height, out_height), shrinks[b], how, table, first_y, weight_y)
                    left, length = fill_columns(first_x, out_width, taps_x, width, padding, columns)
                    reader = fill_blocks(first_x, left, out_width, base, places)
                    clear(row, length + SLACK)
                    inside, outside = max(0, left), min(width, left + length)
                    inner = row[inside - left :]
            begin = offsets[b] + c * height * width
            if same:
                copy(values[begin : begin + height * width], out[b, c].reshape(-1), gain, bias)
                continue
            for v in range(out_height):
                count = _sources(v, first_y, weight_y, taps_y, height, padding, begin + inside, width, (at, factors))
                finite = blend(values, at, factors, count, outside - inside, inner)
                if padding != ZEROS:
                    fill_ends(row, columns, inside - left, outside - left, length)
                direct = finite and not quantized and out_width >= lanes.COUNT
                if finite:
                    row_out = out_begin + np.uint64(4 * ((plane * out_height + v) * out_width))
                    target = row_out if direct else line_begin
                    along_row(reader, row, taps_x, weight_x, (base, places), out_width, target, (gain, bias))
                else:
                    along_with_care(row, first_x, left, taps_x, weight_x, out_width, line, (gain, bias))
                if quantized:
                    quantize(line, out[b, c, v])
                elif not direct:
                    copy(line, out[b, c, v], np.float32(1), np.float32(0))

    return planes
