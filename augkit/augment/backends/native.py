"""Axis-aligned resampling on the CPU as a compiled loop: numba, the optional extra ``augkit[fast]``.

For each output row the input rows of its taps are blended into one row that stays in the first-level cache
(contiguous, so the compiler vectorises it), the padding is written to both ends of that row, and the output
gathers along x. Nothing of the size of a batch is allocated beyond the output. A sample whose matrix is the identity
is copied; a flip is a negative scale and costs nothing; ``gain`` and ``bias`` fold a normalisation into the last
pass. Coordinates and weights are computed in float64 and used in float32.

The loop runs in `torch.get_num_threads` plain threads without the interpreter's lock. numba's own parallel layer is
not used: it takes several times as long to compile, and its pools abort in forked processes such as DataLoader
workers.

The first call for each pair of dtypes (float32 to float32, uint8 to uint8, uint8 to float32) compiles for a few
seconds; the result is stored on disk, and later processes load it in well under a second. There is no backward pass:
`augkit.augment.backends.choose` selects torch where gradients are needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from augkit.augment.backends.threads import spread
from augkit.augment.kernels import FUNCTION, HALF_WIDTH, KAISER_BETA, PADDINGS

SMALL = 1 << 19  # taps below which a second thread costs more than it saves, including contention for the GIL
_NEAREST, _BILINEAR, _BICUBIC, _LANCZOS3, _SINC = range(5)
_ZEROS, _BORDER, _REFLECTION, _CIRCULAR = range(4)
_BESSEL_BETA = float(np.i0(KAISER_BETA))


# `contract` alone: fused multiply-adds keep infinities, signed zeros and the order of the sums.
_OPTIONS: dict[str, object] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # numba has no writable folder for its cache
        return numba.njit(**_OPTIONS)(function)


# Rows are short: in 32 pixels a call and the loops around it cost as much as the arithmetic.
_inline = numba.njit(inline="always", **_OPTIONS)


def resample(
    images: Tensor,
    matrix: Tensor,
    size: tuple[int, int],
    kernel: str,
    padding: str,
    max_shrink: float,
    *,
    dtype: torch.dtype | None = None,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """Resample CPU ``images`` ``(B, C, H, W)``, float32 or uint8, as `augkit.augment.backends.separable.resample` does.

    ``dtype`` is float32 or uint8, the images' own when None; uint8 is rounded and clipped. ``gain`` and ``bias``,
    ``(C,)``, give ``gain * value + bias`` and need a float32 output.
    """
    batch, channels = images.shape[:2]
    source, moves = images.detach().contiguous().numpy(), matrix.detach().to(torch.float64).contiguous().numpy()
    out = torch.empty((batch, channels, *size), dtype=dtype or images.dtype)
    affine = np.empty((2, channels), np.float32)
    affine[0] = 1.0 if gain is None else gain.detach().reshape(-1).numpy()
    affine[1] = 0.0 if bias is None else bias.detach().reshape(-1).numpy()
    shrink = float(max_shrink) if kernel != "nearest" else 1.0
    names = (list(FUNCTION).index(kernel), PADDINGS.index(padding))
    how = (*names, HALF_WIDTH[kernel], shrink, out.dtype == torch.uint8)
    work = out.numel() * math.ceil(2 * HALF_WIDTH[kernel])
    threads = torch.get_num_threads() if work > SMALL else 1
    spread(_planes, batch * channels, threads, (source, out.numpy(), moves, how, affine))
    return out


@_jit
def _planes(start, stop, images, out, matrix, how, affine):
    """Resample planes ``start`` to ``stop`` of the ``B * C`` in ``images`` into ``out``."""
    _, padding, _, _, quantise = how
    channels, height, width = images.shape[1:]
    out_height, out_width = out.shape[2:]
    line, integers = np.empty(max(out_width, width), np.float32), images.itemsize == 1
    of_image = -1
    for plane in range(start, stop):
        b, c = plane // channels, plane % channels
        gain, bias = affine[0, c], affine[1, c]
        if b != of_image:  # the taps are the same for all channels
            of_image = b
            sx, tx, sy, ty = matrix[b, 0, 0], matrix[b, 0, 2], matrix[b, 1, 1], matrix[b, 1, 2]
            same = sx == 1 and sy == 1 and tx == 0 and ty == 0 and height == out_height and width == out_width
            if not same:
                first_x, weight_x = _taps(sx, tx, out_width, width, how)
                first_y, weight_y = _taps(sy, ty, out_height, height, how)
                rows = _rows(first_y, weight_y, height, padding)
                left, columns = _columns(first_x, weight_x.shape[1], width, padding)
                begin = (first_x - left).astype(np.uint32)
                row = np.zeros(columns.size, np.float32)
                inside, outside = max(0, left), min(width, left + columns.size)
                inner = row[inside - left : outside - left]
                # A shift whose taps are near the image: consecutive neighbours.
                slides = sx == 1 and weight_x.shape[1] > 2 and begin[-1] - begin[0] == begin.size - 1
        if same:
            _copy(images[b, c], out[b, c], gain, bias)
            continue
        image = images[b, c]
        for v in range(out_height):
            p, q = weight_y[v, 0], weight_y[v, -1]
            if weight_y.shape[1] == 2 and p != 0 and q != 0:  # as `_blend` does, without its loop
                _add_two(inner, image, rows[v, 0], p, rows[v, 1], q, np.uint64(inside), True)
            else:
                _blend(image, inner, rows, weight_y, v, np.uint64(inside))
            if padding != _ZEROS:
                _fill_ends(row, columns, inside - left, outside - left)
            if quantise:
                _along_row(row, begin, weight_x, line, gain, bias, slides)
                _quantise(line, out[b, c, v])
            elif integers or _is_finite(inner):
                _along_row(row, begin, weight_x, out[b, c, v], gain, bias, slides)
            else:
                _gather_with_care(row, begin, weight_x, out[b, c, v], gain, bias)


@_jit
def _copy(image, out, gain, bias):
    for v in range(out.shape[0]):
        for u in range(out.shape[1]):
            # A float that keeps its value keeps its bits, the sign of a zero too; integers are written as they are.
            out[v, u] = image[v, u] if gain == 1 and bias == 0 else gain * np.float32(image[v, u]) + bias


@_jit
def _blend(image, inner, rows, weight, v, inside):
    """``inner`` becomes the weighted sum of the rows of ``image`` that output row ``v`` takes."""
    taps, fresh, t = weight.shape[1], True, 0
    while t < taps:
        one, p = rows[v, t], weight[v, t]
        t += 1
        if p == 0:  # costs nothing, and an infinity there must not count
            continue
        if t < taps and weight[v, t] != 0:  # two rows at a time: half the traffic
            _add_two(inner, image, one, p, rows[v, t], weight[v, t], inside, fresh)
            t += 1
        else:
            _add_one(inner, image, one, p, inside, fresh)
        fresh = False
    if fresh:
        inner[:] = 0


@_inline
def _add_one(inner, image, one, p, inside, fresh):
    if fresh:
        for j in range(np.uint64(inner.size)):
            inner[j] = p * np.float32(image[one, inside + j])
    else:
        for j in range(np.uint64(inner.size)):
            inner[j] += p * np.float32(image[one, inside + j])


@_inline
def _add_two(inner, image, one, p, two, q, inside, fresh):
    if fresh:
        for j in range(np.uint64(inner.size)):
            inner[j] = p * np.float32(image[one, inside + j]) + q * np.float32(image[two, inside + j])
    else:
        for j in range(np.uint64(inner.size)):
            inner[j] += p * np.float32(image[one, inside + j]) + q * np.float32(image[two, inside + j])


@_jit
def _rows(first, weight, height, padding):
    """Return the row that each tap reads; with ``zeros``, taps outside get weight 0."""
    rows = np.zeros(weight.shape, np.uint64)
    for v in range(weight.shape[0]):
        for t in range(weight.shape[1]):
            y = _padded(first[v] + t, height, padding)
            if y >= 0:
                rows[v, t] = y
            else:
                weight[v, t] = 0
    return rows


@_inline
def _along_row(row, begin, weight, line, gain, bias, slides):
    if slides:
        _slide(row, np.uint64(begin[0]), weight, line, gain, bias)
    else:
        _gather(row, begin, weight, line, gain, bias)


@_inline
def _gather(row, begin, weight, line, gain, bias):
    """``line[u]`` is the weighted sum of the taps of ``row`` from ``begin[u]``, times ``gain``, plus ``bias``."""
    taps, one = weight.shape[1], np.uint32(1)
    if taps == 1:
        for u in range(begin.size):
            line[u] = gain * row[begin[u]] + bias
    elif taps == 2:  # the weights sum to 1: one load less
        for u in range(begin.size):
            near = row[begin[u]]
            line[u] = gain * (near + weight[u, 1] * (row[begin[u] + one] - near)) + bias
    else:
        _gather_many(row, begin, weight, line, gain, bias)


@_inline
def _fill_ends(row, columns, start, stop):
    """Write the padding pixels before ``start`` and from ``stop`` on."""
    for j in range(start):
        row[j] = row[columns[j]]
    for j in range(stop, columns.size):
        row[j] = row[columns[j]]


@_inline
def _is_finite(row):
    strange = np.int32(0)  # counted as integers, which vectorises
    for j in range(np.uint64(row.size)):
        strange += np.int32(row[j] - row[j] != 0)
    return strange == 0


@_jit
def _gather_with_care(row, begin, weight, line, gain, bias):
    """`_gather` for a row with a NaN or an infinity, which a weight of 0 would turn into a NaN."""
    for u in range(begin.size):
        total, at = np.float32(0), begin[u]
        for t in range(np.uint64(weight.shape[1])):
            if weight[u, t] != 0:
                total += weight[u, t] * row[at + t]
        line[u] = gain * total + bias


@_jit
def _gather_many(row, begin, weight, line, gain, bias):
    for u in range(begin.size):
        total, at = np.float32(0), begin[u]
        for t in range(np.uint64(weight.shape[1])):
            total += weight[u, t] * row[at + t]
        line[u] = gain * total + bias


@_jit
def _slide(row, begin, weight, line, gain, bias):
    """`_gather` where all pixels have the same weights: tap after tap along the row, which vectorises."""
    size = np.uint64(weight.shape[0])  # `line` may be longer
    for t in range(np.uint64(weight.shape[1])):
        at, w = begin + t, weight[0, t]
        if t == 0:
            for u in range(size):
                line[u] = w * row[at + u]
        else:
            for u in range(size):
                line[u] += w * row[at + u]
    if gain != 1 or bias != 0:
        for u in range(size):
            line[u] = gain * line[u] + bias


@_inline
def _quantise(line, out):
    for u in range(out.size):
        out[u] = min(max(np.rint(line[u]), np.float32(0)), np.float32(255))


@_jit
def _columns(first, taps, width, padding):
    """Return the start of the row buffer, and for each of its entries the image column that fills it.

    The buffer spans all pixels that the taps reach, and the columns that fill those outside the image.
    """
    low, high = first[0], first[0]
    for u in range(first.size):
        low, high = min(low, first[u]), max(high, first[u])
    high += taps
    if padding != _ZEROS:
        left, right = low, high
        for x in range(left, right):
            if x < 0 or x >= width:
                stand_in = _padded(x, width, padding)
                low, high = min(low, stand_in), max(high, stand_in + 1)
    if high <= 0 or low >= width:  # zeros alone
        low, high = min(low, 0), max(high, 0)
    columns = np.empty(high - low, np.int64)
    for j in range(columns.size):
        columns[j] = _padded(j + low, width, padding) - low if padding != _ZEROS else j
    return low, columns


@_jit
def _padded(index, size, padding):
    """As `augkit.augment.kernels.padded_index`; -1 for a pixel outside with ``zeros``."""
    if 0 <= index < size:
        return index
    if padding == _ZEROS:
        return -1
    if padding == _CIRCULAR:
        return index % size
    if padding == _REFLECTION and size > 1:
        index = index % (2 * (size - 1))
        return min(index, 2 * (size - 1) - index)
    return min(max(index, 0), size - 1)


@_jit
def _nearby(index, taps, size, padding):
    """Return the first tap, moved close to the image if it is far away, without changing the values that taps read."""
    if padding in (_ZEROS, _BORDER):
        return min(max(index, -taps), size)
    period = size if padding == _CIRCULAR else max(1, 2 * (size - 1))
    return index if -size <= index <= 2 * size else index % period


@_jit
def _taps(scale, offset, n_out, n_in, how):
    """The first tap ``(n_out,)`` of each output pixel of an axis, and the weights ``(n_out, taps)``."""
    kernel, padding, half_width, max_shrink, _ = how
    stretch = min(max(1 / abs(scale), 1.0), max_shrink)
    reach = half_width * stretch
    taps = int(np.ceil(2 * reach))
    first = np.empty(n_out, np.int64)
    weight = np.empty((n_out, taps), np.float32)
    if kernel == _BILINEAR and taps == 2:  # as below; at 32 pixels the taps cost as much as the sums
        inverse, limit = 1 / scale, 1e6 * n_in
        for u in range(n_out):
            x = (u - offset) * inverse
            at = math.floor(x)
            weight[u, 0], weight[u, 1] = 1 - (x - at), x - at
            first[u] = _nearby(int(min(max(at, -limit), limit)), taps, n_in, padding)
        return first, weight
    value = np.empty(taps, np.float64)
    shifts = scale == 1  # the same weights for every pixel, and a sinc costs more than its sums
    for u in range(n_out):
        if shifts and u > 0:
            weight[u] = weight[0]
            first[u] = _nearby(int(min(max(at + u, -limit), limit)), taps, n_in, padding)
            continue
        x = (u - offset) / scale
        at = math.floor(x - reach) + 1
        total = 0.0
        for t in range(taps):
            value[t] = _weight((at + t - x) / stretch, kernel)
            total += value[t]
        for t in range(taps):
            weight[u, t] = value[t] / total
        limit = 1e6 * n_in
        first[u] = _nearby(int(min(max(at, -limit), limit)), taps, n_in, padding)
    return first, weight


@_jit
def _weight(d, kernel):
    """The kernels of `augkit.augment.kernels` at distance ``d``, inside their support."""
    x = abs(d)
    if kernel == _NEAREST:
        return 1.0
    if kernel == _BILINEAR:
        return max(0.0, 1 - x)
    if kernel == _BICUBIC:
        if x <= 1:
            return (1.5 * x - 2.5) * x * x + 1
        return max(0.0, 2 - x) * (1 - x) * (2 - x) * 0.5 if x < 2 else 0.0
    if kernel == _LANCZOS3:
        return _sinc(x) * _sinc(x / 3) if x < 3 else 0.0
    return _sinc(x) * _bessel(KAISER_BETA * math.sqrt(max(0.0, 1 - (x / 8) ** 2))) / _BESSEL_BETA if x < 8 else 0.0


@_jit
def _sinc(x):
    if x == 0:
        return 1.0
    whole = np.rint(x)  # sin(pi x) through the remainder: exactly 0 at integers
    sign = 1 - 2 * (whole % 2)
    return sign * math.sin(math.pi * (x - whole)) / (math.pi * x)


@_jit
def _bessel(x):
    """The modified Bessel function I0 by its power series, for x of at most 8."""
    quarter, term, total = x * x / 4, 1.0, 1.0
    for k in range(1, 32):
        term *= quarter / (k * k)
        total += term
    return total
