"""The comparison of two maps on a CPU as one compiled loop (numba), which reads each map once.

Torch needs some forty passes over a map for the same numbers, which take longer than a small segmenter. The loop goes
row by row, so that what it computes of a row stays in the cache. It compares float32 maps within rectangles: a region
that two views share is one (`augkit.invariance.outputs.regions`). Sums are float32 within a row and float64 over rows.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from augkit.augment.backends.compiled import OPTIONS, kept, part
from augkit.augment.backends.threads import spread

SMALL = 1 << 18  # values below which a second thread costs more than it saves
RANGES = 5  # of distances: 1, 2, 3 to 4, 5 to 8, more
_FAR = 9  # a distance beyond all ranges but the last
_ONE, _HALF, _TINY, _LEAST = (np.float32(v) for v in (1, 0.5, 1e-37, -87))
_LOG2_E, _LN2_HIGH, _LN2_LOW = (np.float32(v) for v in (1.44269504088896341, 0.693359375, 2.12194440e-4))
_ROOT_HALF = np.int32(0x3F3504F3)  # the bits of sqrt(1/2)
# Coefficients of the polynomials, the lowest power first.
_E0, _E1, _E2, _E3, _E4, _E5 = (
    np.float32(v)
    for v in (5.0000001201e-1, 1.6666665459e-1, 4.1665795894e-2, 8.3334519073e-3, 1.3981999507e-3, 1.9875691500e-4)
)
_L0, _L1, _L2, _L3, _L4 = (
    np.float32(v) for v in (3.3333331174e-1, -2.4999993993e-1, 2.0000714765e-1, -1.6668057665e-1, 1.4249322787e-1)
)
_L5, _L6, _L7, _L8 = (np.float32(v) for v in (-1.2420140846e-1, 1.1676998740e-1, -1.1514610310e-1, 7.0376836292e-2))


class Sums(NamedTuple):
    """What the loop found for B pairs of maps of C channels, as means over the compared pixels.

    Attributes:
        energies: ``(B, 3)``: square of the difference, variance of a channel, square of a channel's mean; each the mean
            over channels.
        classes: ``(B, 4)``: share of pixels whose class differs, intersection over union, entropy of the mean answer
            beyond the mean entropy, mean entropy (both in bits); empty without classes.
        near: ``(B, 2, RANGES)``: share of pixels by the distance to another class, those that change and all.
        answer: ``(B, C)``, mean probabilities.
    """

    energies: Tensor
    classes: Tensor
    near: Tensor
    answer: Tensor


def compare(first: Tensor, second: Tensor, moves: Tensor, rectangles: Tensor, *, classes: bool) -> Sums:
    """Compare maps ``(B, C, h, w)``, float32 on the CPU.

    Args:
        first, second: the maps; pixel ``(y, x)`` of the second is compared with ``(y - dy, x - dx)`` of the first.
        moves: ``(B, 2)`` int64, (dy, dx).
        rectangles: ``(B, 4)`` int64, the compared pixels of the second: first row, end, first column, end. None is
            empty.
        classes: whether channels are scores of classes, which are compared too.
    """
    batch, channels = first.shape[:2]
    found = tuple(np.zeros(shape) for shape in ((batch, 3), (batch, 4), (batch, 2, RANGES), (batch, channels)))
    maps = tuple(planar(each.detach()).numpy() for each in (first, second))
    places = tuple(each.contiguous().numpy() for each in (moves, rectangles))
    threads = torch.get_num_threads() if first.numel() > SMALL else 1
    spread(_COMPARE, batch, threads, (maps, places, classes, found))
    return Sums(*map(torch.from_numpy, found))


def planar(maps: Tensor) -> Tensor:
    """Return maps ``(B, C, h, w)``, float32 on the CPU, contiguous: from channels last in half of the time of torch."""
    if maps.is_contiguous() or not maps.is_contiguous(memory_format=torch.channels_last):
        return maps.contiguous()
    out = torch.empty(maps.shape)
    threads = torch.get_num_threads() if maps.numel() > SMALL else 1
    spread(_TO_PLANAR, len(maps), threads, (maps.permute(0, 2, 3, 1).numpy(), out.numpy()))
    return out


# Sums in any order, so that eight or sixteen of their terms are added at once.
_SUMMING: dict[str, object] = {**OPTIONS, "fastmath": {"contract", "reassoc"}}
summing = numba.njit(**_SUMMING)


@part
def exp_of(x):
    """``exp(x)`` for float32 x of at most 0, within 2e-7 of itself (Moshier's Cephes, ``expf``)."""
    x = max(np.float32(x), _LEAST)
    n = np.int32(x * _LOG2_E - _HALF)  # the nearest, as it is cut towards 0
    r = (x - np.float32(n) * _LN2_HIGH) + np.float32(n) * _LN2_LOW
    z = _E5 * r + _E4
    z = z * r + _E3
    z = z * r + _E2
    z = z * r + _E1
    z = z * r + _E0
    power = np.int32(np.int32(n + np.int32(127)) << np.int32(23)).view(np.float32)
    return (z * r * r + r + _ONE) * power


@part
def log_of(x):
    """``log(x)`` for normal float32 x above 0, within 2e-7 of itself and 1e-7 (Moshier's Cephes, ``logf``)."""
    bits = np.int32(np.float32(x).view(np.int32) - _ROOT_HALF)  # so that the mantissa lies in [sqrt(1/2), sqrt(2))
    n = np.float32(np.int32(bits >> np.int32(23)))
    r = np.int32(np.int32(bits & np.int32(0x7FFFFF)) + _ROOT_HALF).view(np.float32) - _ONE
    square = r * r
    z = _L8 * r + _L7
    z = z * r + _L6
    z = z * r + _L5
    z = z * r + _L4
    z = z * r + _L3
    z = z * r + _L2
    z = z * r + _L1
    z = z * r + _L0
    z = (z * r * square - _LN2_LOW * n) - _HALF * square
    return (r + z) + _LN2_HIGH * n


@part
def _top(image, y, left, best, top):
    """Write the highest scores ``(n,)`` at pixels ``left`` on of row ``y``, and the first channel of each.

    Slices of ``image`` ``(C, h, w)`` are taken channel by channel, as numba knows these to be contiguous.
    """
    scores = image[0, y, left : left + best.shape[0]]
    for x in range(best.shape[0]):
        best[x], top[x] = scores[x], 0
    for c in range(1, image.shape[0]):
        scores, channel = image[c, y, left : left + best.shape[0]], np.int32(c)
        for x in range(best.shape[0]):
            higher = scores[x] > best[x]
            best[x] = scores[x] if higher else best[x]
            top[x] = channel if higher else top[x]


@part
def _exponentials(image, y, left, best, p, scale, entropy):
    """Write e to the power of the scores of `_top`, ``(C, n)``, and the factors ``(n,)`` that give probabilities.

    Both are relative to the highest score. Also write the entropy of the probabilities, in nats, ``(n,)``.
    """
    count = best.shape[0]
    product = np.zeros(count, np.float32)
    scale[:] = 0
    for c in range(image.shape[0]):
        scores, out = image[c, y, left : left + count], p[c]
        for x in range(count):
            out[x] = exp_of(scores[x] - best[x])
        for x in range(count):  # not in the loop above: there are too few registers for both
            scale[x] += out[x]
            product[x] += out[x] * (scores[x] - best[x])
    for x in range(count):
        entropy[x] = log_of(scale[x]) + product[x] / -scale[x]
        scale[x] = _ONE / scale[x]


@summing
def _mean_answer(p, q, scales, answer, entropy):
    """Add the mean of both probabilities to ``answer`` ``(C,)``, and write its entropy in nats ``(n,)``.

    The probabilities are ``p``, ``q`` ``(C, n)`` times the ``scales`` ``(2, n)``.
    """
    a, b = scales[0], scales[1]
    entropy[:] = 0
    for c in range(p.shape[0]):
        one, other, total = p[c], q[c], np.float32(0)
        for x in range(entropy.shape[0]):
            mean = (one[x] * a[x] + other[x] * b[x]) * _HALF
            total += mean
            entropy[x] -= mean * log_of(max(mean, _TINY))
        answer[c] += total


@part
def _mark(row, other, differs):
    """Set ``differs`` ``(w,)`` where a pixel's class in ``row`` is not that of one of its neighbors in ``other``."""
    last = row.shape[0] - 1
    for x in range(1, last):
        differs[x] |= (row[x] != other[x - 1]) | (row[x] != other[x]) | (row[x] != other[x + 1])
    for x in (0, last):
        for u in range(max(0, x - 1), min(last, x + 1) + 1):
            differs[x] |= row[x] != other[u]


@part
def _distances(classes):
    """Return chessboard distances ``(h, w)`` to the nearest pixel of another class, `_FAR` where it is not nearer."""
    height, width = classes.shape
    out, differs = np.empty((height, width), np.int32), np.empty(width, np.bool_)
    for y in range(height):
        differs[:] = False
        for v in range(max(0, y - 1), min(height, y + 2)):
            _mark(classes[y], classes[v], differs)
        for x in range(width):
            out[y, x] = 1 if differs[x] else _FAR
    for y in range(height):  # from above and from the left
        if y > 0:
            _nearer(out[y], out[y - 1])
        for x in range(1, width):
            out[y, x] = min(out[y, x], out[y, x - 1] + 1)
    for y in range(height - 1, -1, -1):  # from below and from the right
        if y + 1 < height:
            _nearer(out[y], out[y + 1])
        for x in range(width - 2, -1, -1):
            out[y, x] = min(out[y, x], out[y, x + 1] + 1)
    return out


@part
def _nearer(row, other):
    """Lower distances ``(w,)`` to at most 1 more than the least of the neighbors in ``other``."""
    last = row.shape[0] - 1
    for x in range(1, last):
        row[x] = min(row[x], min(other[x], other[x - 1], other[x + 1]) + 1)
    for x in (0, last):
        for u in range(max(0, x - 1), min(last, x + 1) + 1):
            row[x] = min(row[x], other[u] + 1)


@part
def _by_class(first, second, channels, classes, near):
    """Write the share of changed classes ``(h, w)``, the mean intersection over union, and changes by distance."""
    height, width = first.shape
    areas, same = np.zeros((2, channels), np.int64), np.zeros(channels, np.int64)
    by_distance, changes = np.zeros(_FAR + 1, np.int64), np.zeros(_FAR + 1, np.int64)
    distances, changed = _distances(first), 0
    for y in range(height):
        for x in range(width):
            a, b, d = first[y, x], second[y, x], distances[y, x]
            by_distance[d] += 1
            areas[0, a] += 1
            areas[1, b] += 1
            if a == b:
                same[a] += 1
            else:
                changed += 1
                changes[d] += 1
    overlap, present = 0.0, 0
    for c in range(channels):
        union = areas[0, c] + areas[1, c] - same[c]
        if union > 0:
            overlap += same[c] / union
            present += 1
    pixels = height * width
    classes[0], classes[1] = changed / pixels, overlap / present
    for d in range(1, _FAR + 1):
        which = 0 if d == 1 else 1 if d == 2 else 2 if d <= 4 else 3 if d <= 8 else 4
        near[0, which] += changes[d] / pixels
        near[1, which] += by_distance[d] / pixels


def _compare(start, stop, maps, places, with_classes, found):
    """Compare maps ``start`` to ``stop`` and write the fields of `Sums`; see `compare`."""
    (first, second), (moves, rectangles), (energies, classes, near, answer) = maps, places, found
    channels = first.shape[1]
    for b in range(start, stop):
        (dy, dx), (top, bottom, left, right) = moves[b], rectangles[b]
        height, width = bottom - top, right - left
        pixels = height * width
        if pixels == 0:
            continue
        sums, squares, difference = np.zeros(channels), np.zeros(channels), 0.0
        p, q = np.empty((channels, width), np.float32), np.empty((channels, width), np.float32)
        rows = np.empty((7, width), np.float32)
        best, scales, mixed = rows[:2], rows[2:4], rows[4:]
        tops = np.empty((2, height, width), np.int32)
        shift_bits, bits = 0.0, 0.0
        for y in range(height):
            above, before = top + y - dy, left - dx
            for c in range(channels):
                one, other = first[b, c, above, before : before + width], second[b, c, top + y, left:right]
                # About a value of the channel, so that little is lost where a map varies little about a large mean.
                pivot = first[b, c, top - dy, left - dx]
                s, s2, d2 = np.float32(0), np.float32(0), np.float32(0)
                for x in range(width):
                    value, gap = one[x] - pivot, one[x] - other[x]
                    s += value
                    s2 += value * value
                    d2 += gap * gap
                sums[c] += s
                squares[c] += s2
                difference += float(d2)
            if with_classes:
                _top(first[b], above, before, best[0], tops[0, y])
                _top(second[b], top + y, left, best[1], tops[1, y])
                _exponentials(first[b], above, before, best[0], p, scales[0], mixed[0])
                _exponentials(second[b], top + y, left, best[1], q, scales[1], mixed[1])
                _mean_answer(p, q, scales, answer[b], mixed[2])
                for x in range(width):
                    mean = (mixed[0, x] + mixed[1, x]) * _HALF
                    bits += mean
                    shift_bits += max(mixed[2, x] - mean, np.float32(0))
        energies[b, 0] = difference / (pixels * channels)
        for c in range(channels):
            mean = sums[c] / pixels
            energies[b, 1] += max(squares[c] / pixels - mean * mean, 0.0) / channels
            energies[b, 2] += (first[b, c, top - dy, left - dx] + mean) ** 2 / channels
        if with_classes:
            _by_class(tops[0], tops[1], channels, classes[b], near[b])
            classes[b, 2], classes[b, 3] = shift_bits / pixels / math.log(2), bits / pixels / math.log(2)
            answer[b] /= pixels


def _to_planar(start, stop, last, out):
    """Write maps ``start`` to ``stop`` of ``last`` ``(B, h, w, C)`` to ``out`` ``(B, C, h, w)``, row by row."""
    for b in range(start, stop):
        for y in range(last.shape[1]):
            for c in range(last.shape[3]):
                for x in range(last.shape[2]):
                    out[b, c, y, x] = last[b, y, x, c]


_COMPARE = kept(_compare, _SUMMING)
_TO_PLANAR = kept(_to_planar, _SUMMING)
