"""The Triton kernel for any matrix: rotation, shear and perspective, by the rule of `augkit.augment.backends.general`.

A program writes one tile of the output for up to four channels. It inverts its image's matrix, traces the pixels of the
tile back to points of the input, and adds one tap after another, whose weight serves all its channels. So the order of
the sum depends neither on the tile nor on the other images. Points and the stretch of the kernel are float64, distances
and weights float32. No memory of the size of a batch beyond the output.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from augkit.augment.backends.triton_call import How, Source
from augkit.augment.backends.triton_parts import image_of, launch, padded, rounded
from augkit.augment.kernels import FUNCTION, HALF_WIDTH, KAISER_BETA, PADDINGS

KERNELS = tuple(FUNCTION)
CHANNELS = 4  # at once: more need more registers
TILES = [
    triton.Config({"BLOCK_H": h, "BLOCK_W": w}, num_warps=warps)
    for h, w, warps in ((8, 32, 4), (16, 16, 4), (4, 32, 4), (16, 32, 4), (16, 32, 8), (8, 64, 8))
]
SMALL_TILE = {"BLOCK_H": 8, "BLOCK_W": 16}  # for the interpreter

# The Kaiser window of `sinc`, I0(beta sqrt(s)) / I0(beta), as a series in s, the last term first. All terms are
# positive, so no digits are lost; those left out are below 1e-8.
_SERIES = [(KAISER_BETA / 2) ** (2 * k) / math.factorial(k) ** 2 for k in range(40)]
_TERMS = tl.constexpr(15)
_WINDOW = tl.constexpr(tuple(term / math.fsum(_SERIES) for term in reversed(_SERIES[: _TERMS.value])))


def write(source: Source, out: Tensor, how: How) -> None:
    """Resample ``source`` into ``out`` ``(B, C, h, w)``."""
    channels, size, kernel = source.channels, how.size, how.kernel
    at_once = min(triton.next_power_of_2(channels), CHANNELS)
    groups = source.batch * triton.cdiv(channels, at_once)

    def grid(meta: dict[str, int]) -> tuple[int, int, int]:
        return groups, triton.cdiv(size[0], meta["BLOCK_H"]), triton.cdiv(size[1], meta["BLOCK_W"])

    matrix, bounds = how.matrix.detach().contiguous(), how.each(source.batch)
    launch(
        _kernel,
        _tuned,
        grid,
        (*source.arguments, out, matrix, bounds, how.factors(channels), *size),
        SMALL_TILE,
        KERNEL=KERNELS.index(kernel),
        PADDING=PADDINGS.index(how.padding),
        HALF_WIDTH=HALF_WIDTH[kernel],
        TAPS=math.ceil(2 * HALF_WIDTH[kernel]),
        STRETCHED=how.shrink > 1,
        STRAIGHT=how.affine,
        RAGGED=source.sizes is not None,
        QUANTIZE=out.dtype == torch.uint8,
        CHANNELS=at_once,
    )


@triton.jit
def _sine_over(d):
    """sin(pi d) / (pi d) for d from 0: exactly 1 at 0 and exactly 0 at every other whole number."""
    whole = tl.floor(d + 0.5)
    sine = tl.sin(3.141592653589793 * (d - whole)) / (3.141592653589793 * tl.where(d == 0, 1.0, d))
    return tl.where(d == 0, 1.0, tl.where(whole % 2 != 0, -sine, sine))


@triton.jit
def weight_at(d, KERNEL: tl.constexpr):  # noqa: N803
    """The kernel at the distance ``d``, as `augkit.augment.kernels.FUNCTION`, whose order ``KERNEL`` counts."""
    d = tl.abs(d)
    if KERNEL == 0:
        out = tl.where(d < 1, 1.0, 0.0)
    elif KERNEL == 1:
        out = tl.maximum(1 - d, 0.0)
    elif KERNEL == 2:
        near = (1.5 * d - 2.5) * d * d + 1
        far = ((2.5 - 0.5 * d) * d - 4) * d + 2
        out = tl.where(d <= 1, near, tl.where(d < 2, far, 0.0))
    elif KERNEL == 3:
        out = tl.where(d < 3, _sine_over(d) * _sine_over(d / 3), 0.0)
    else:
        square = tl.maximum(1 - (d / 8) * (d / 8), 0.0)
        window = square * _WINDOW[0] + _WINDOW[1]
        for k in tl.static_range(2, _TERMS):
            window = window * square + _WINDOW[k]
        out = tl.where(d == 0, 1.0, tl.where(d < 8, _sine_over(d) * window, 0.0))
    return out


@triton.jit
def _inverted(matrix, STRAIGHT: tl.constexpr):  # noqa: N803
    """The map from output to input of the matrix at ``matrix``, row by row; that of a perspective has its own scale."""
    a, b, x = tl.load(matrix).to(tl.float64), tl.load(matrix + 1).to(tl.float64), tl.load(matrix + 2).to(tl.float64)
    c, d, y = tl.load(matrix + 3).to(tl.float64), tl.load(matrix + 4).to(tl.float64), tl.load(matrix + 5).to(tl.float64)
    size = a * d - b * c
    ix, iy, iz = b * y - d * x, c * x - a * y, size
    if STRAIGHT:
        ax, bx, ay, by, az, bz = d, -b, -c, a, size * 0, size * 0
    else:
        g, h, i = tl.load(matrix + 6).to(tl.float64), tl.load(matrix + 7).to(tl.float64), tl.load(matrix + 8)
        i = i.to(tl.float64)
        ax, bx, ay, by, az, bz = (
            d * i - y * h,
            x * h - b * i,
            y * g - c * i,
            a * i - x * g,
            c * h - d * g,
            b * g - a * h,
        )
        positive = g * ix + h * iy + i * iz > 0
        size = (tl.abs(az) + tl.abs(bz) + tl.abs(iz)) * tl.where(positive, 1.0, -1.0)
    return ax / size, bx / size, ix / size, ay / size, by / size, iy / size, az / size, bz / size, iz / size


@triton.jit
def _directed(a, b, c, d, shrink):
    """As `augkit.augment.backends.native_general.directed`: P as xx, xy, yy."""
    p, q, r = a * a + b * b, a * c + b * d, c * c + d * d
    area, lean = a * d - b * c, (p - r) / 2
    gap = tl.sqrt(lean * lean + q * q)
    high = (p + r) / 2 + gap
    low = area * area / tl.where(high > 0, high, 1.0)
    # A float32 rotation spans 1 pixel but for rounding.
    inverse = 1 / shrink
    f_high = tl.where(high < 1 + 2e-6, 1.0, tl.maximum(1 / tl.sqrt(tl.maximum(high, 1.0)), inverse))
    f_low = tl.where(low < 1 + 2e-6, 1.0, tl.maximum(1 / tl.sqrt(tl.maximum(low, 1.0)), inverse))
    slope = tl.where(gap > 0, (f_high - f_low) / (2 * tl.where(gap > 0, gap, 1.0)), 0.0)
    level = (f_high + f_low) / 2
    return level + slope * lean, slope * q, level - slope * lean


@triton.jit
def _traced(u, v, matrix, bound, STRETCHED: tl.constexpr, STRAIGHT: tl.constexpr):  # noqa: N803
    """The points x and y of the input of the pixels ``u``, ``v``, and P as xx, xy, yy; 1, 0, 1 if not stretched."""
    ax, bx, cx, ay, by, cy, az, bz, cz = _inverted(matrix, STRAIGHT)
    x, y = ax * u + (bx * v + cx), ay * u + (by * v + cy)
    if not STRAIGHT:
        depth = tl.maximum(az * u + (bz * v + cz), 1e-6)  # at the horizon it is 0, behind it negative
        x, y = x / depth, y / depth
    xx, xy, yy = 1.0, 0.0, 1.0
    if STRETCHED:
        if not STRAIGHT:  # the derivative of each point
            ax, bx, ay, by = (ax - x * az) / depth, (bx - x * bz) / depth, (ay - y * az) / depth, (by - y * bz) / depth
        xx, xy, yy = _directed(ax, bx, ay, by, tl.load(bound))
    # Far outside, a point is brought to where an int32 holds its taps.
    x, y = tl.maximum(x, -1073741824.0), tl.maximum(y, -1073741824.0)
    return tl.minimum(x, 1073741824.0), tl.minimum(y, 1073741824.0), xx, xy, yy


@triton.jit
def _kernel(  # noqa: PLR0913, PLR0917 (a launch passes every number)
    values,
    offsets,
    sizes,
    channels,
    height,
    width,
    out,
    matrix,
    bounds,
    affine,
    out_height,
    out_width,
    KERNEL: tl.constexpr,  # noqa: N803 (Triton's habit for constants)
    PADDING: tl.constexpr,  # noqa: N803
    HALF_WIDTH: tl.constexpr,  # noqa: N803
    TAPS: tl.constexpr,  # noqa: N803
    STRETCHED: tl.constexpr,  # noqa: N803
    STRAIGHT: tl.constexpr,  # noqa: N803
    RAGGED: tl.constexpr,  # noqa: N803
    QUANTIZE: tl.constexpr,  # noqa: N803
    CHANNELS: tl.constexpr,  # noqa: N803
    BLOCK_H: tl.constexpr,  # noqa: N803
    BLOCK_W: tl.constexpr,  # noqa: N803
):
    groups = (channels + CHANNELS - 1) // CHANNELS
    sample = tl.program_id(0) // groups
    channel = (tl.program_id(0) % groups) * CHANNELS + tl.arange(0, CHANNELS)
    pixel = tl.arange(0, BLOCK_H * BLOCK_W)
    v, u = tl.program_id(1) * BLOCK_H + pixel // BLOCK_W, tl.program_id(2) * BLOCK_W + pixel % BLOCK_W
    wanted, present = (v < out_height) & (u < out_width), channel < channels
    image, height, width = image_of(values, offsets, sizes, sample, channels, height, width, RAGGED)
    plane = image + channel.to(tl.int64) * height * width
    # Pixels beyond the output repeat its last ones, so that no tap reaches further for them.
    at_u, at_v = tl.minimum(u, out_width - 1).to(tl.float64), tl.minimum(v, out_height - 1).to(tl.float64)
    x, y, xx, xy, yy = _traced(at_u, at_v, matrix + 9 * sample, bounds + sample, STRETCHED, STRAIGHT)
    reach_x, reach_y, taps_x, taps_y = HALF_WIDTH, HALF_WIDTH, TAPS, TAPS
    if STRETCHED:
        scale = xx * yy - xy * xy
        reach_x, reach_y = HALF_WIDTH * (yy + tl.abs(xy)) / scale, HALF_WIDTH * (xx + tl.abs(xy)) / scale
        taps_x, taps_y = tl.ceil(2 * reach_x).to(tl.int32), tl.ceil(2 * reach_y).to(tl.int32)
        if not STRAIGHT:  # those of the pixel that takes most; further taps of others have no weight
            taps_x, taps_y = tl.max(taps_x, axis=0), tl.max(taps_y, axis=0)
        xx, xy, yy = xx.to(tl.float32), xy.to(tl.float32), yy.to(tl.float32)
    left, top = tl.floor(x - reach_x) + 1, tl.floor(y - reach_y) + 1
    begin_x, begin_y = (left - x).to(tl.float32), (top - y).to(tl.float32)
    left, top = left.to(tl.int32), top.to(tl.int32)
    total = tl.zeros((CHANNELS, BLOCK_H * BLOCK_W), dtype=tl.float32)
    norm = tl.zeros((BLOCK_H * BLOCK_W,), dtype=tl.float32)
    for t in range(taps_y):
        row, dy = top + t, begin_y + t
        line = padded(row, height, PADDING) * width
        if not STRETCHED:
            weight_y = weight_at(dy, KERNEL)
        for s in range(taps_x):
            column, dx = left + s, begin_x + s
            if STRETCHED:
                weight = weight_at(xx * dx + xy * dy, KERNEL) * weight_at(xy * dx + yy * dy, KERNEL)
            else:
                weight = weight_y * weight_at(dx, KERNEL)
            norm += weight
            if PADDING == 0:
                inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
                weight = tl.where(inside, weight, 0.0)
            place = plane[:, None] + (line + padded(column, width, PADDING))[None, :]
            # A tap of weight 0 is skipped, because 0 times NaN or infinity would be NaN.
            value = tl.load(place, mask=present[:, None] & (weight != 0)[None, :], other=0).to(tl.float32)
            total += weight[None, :] * value
    total = tl.div_rn(total, tl.broadcast_to(norm[None, :], (CHANNELS, BLOCK_H * BLOCK_W)))  # exact where norm is 1
    gain = tl.load(affine + channel, mask=present, other=0.0)
    bias = tl.load(affine + channels + channel, mask=present, other=0.0)
    total = total * gain[:, None] + bias[:, None]
    if QUANTIZE:
        total = rounded(total)
    target = out + (sample.to(tl.int64) * channels + channel)[:, None] * out_height * out_width
    place = target + (v * out_width + u)[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=present[:, None] & wanted[None, :])


_KEY = ["out_height", "out_width", "KERNEL", "CHANNELS", "STRETCHED", "STRAIGHT", "RAGGED"]
_tuned = triton.autotune(TILES, key=_KEY)(_kernel)
