"""The Triton kernel for axis-aligned matrices.

The position and weight of every tap of both axes are computed in torch (a few thousand numbers). A program writes one
tile of the output, normalized and cast. It adds one tap after another, first along x, then along y, and divides by the
sums of the weights, so the order of the sums depends neither on the tile nor on the other images, which may take more
taps: an image has the same bits in a batch and alone.

- with few taps (nearest, bilinear) each output pixel gathers its square of taps through the cache;
- with many taps, the program streams the input rows that its tile spans: the taps along x are added once per row, and
  each row of the tile adds its weighted part of that line. A tile of h rows reads ``h / scale + taps`` lines instead of
  ``h * taps``: the separable form, without an intermediate image.

Memory beyond the output: the two axes' taps.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from augkit.augment.backends.separable import unscaled_taps
from augkit.augment.backends.triton_call import How, Source
from augkit.augment.backends.triton_parts import image_of, launch, padded, rounded
from augkit.augment.kernels import PADDINGS

STREAMED_FROM = 3  # taps along an axis
TILES = [
    triton.Config({"BLOCK_H": h, "BLOCK_W": w}, num_warps=warps)
    for h, w, warps in ((8, 128, 4), (4, 128, 4), (16, 64, 4), (16, 128, 4), (32, 64, 4), (32, 128, 8), (32, 32, 4))
]
SMALL_TILE = {"BLOCK_H": 16, "BLOCK_W": 16}  # for the interpreter


def write(source: Source, out: Tensor, how: How) -> None:
    """Resample ``source`` into ``out`` ``(B, C, h, w)``."""
    channels, size, matrix, taps = source.channels, how.size, how.matrix.detach(), []
    each = how.each(source.batch) if len(how.bounds) > 1 else None
    for axis in (0, 1):
        scale, offset = matrix[:, axis, axis], matrix[:, axis, 2]
        tap, weight = unscaled_taps(scale, offset, size[1 - axis], how.kernel, how.shrink, each)
        first = tap[..., 0].clamp(-(2**30), 2**30).to(torch.int32)
        taps += [first.contiguous(), weight.float().contiguous()]
    count = tap.shape[-1]

    def grid(meta: dict[str, int]) -> tuple[int, int, int]:
        return len(out) * channels, triton.cdiv(size[0], meta["BLOCK_H"]), triton.cdiv(size[1], meta["BLOCK_W"])

    launch(
        _kernel,
        _tuned,
        grid,
        (*source.arguments, out, *taps, how.factors(channels), *size, count),
        SMALL_TILE,
        PADDING=PADDINGS.index(how.padding),
        STREAM=count >= STREAMED_FROM,
        RAGGED=source.sizes is not None,
        QUANTIZE=out.dtype == torch.uint8,
    )


@triton.jit
def _used(weight, place, length, PADDING: tl.constexpr):  # noqa: N803
    """The weight of a tap at ``place``; with the padding ``zeros`` a tap outside the image has none."""
    if PADDING == 0:
        weight = tl.where((place >= 0) & (place < length), weight, 0.0)
    return weight


@triton.jit
def _kernel(  # noqa: PLR0913, PLR0917 (a launch passes every number)
    values,
    offsets,
    sizes,
    channels,
    height,
    width,
    out,
    first_column,
    weight_x,
    first_row,
    weight_y,
    affine,
    out_height,
    out_width,
    taps,
    PADDING: tl.constexpr,  # noqa: N803 (Triton's habit for constants)
    STREAM: tl.constexpr,  # noqa: N803
    RAGGED: tl.constexpr,  # noqa: N803
    QUANTIZE: tl.constexpr,  # noqa: N803
    BLOCK_H: tl.constexpr,  # noqa: N803
    BLOCK_W: tl.constexpr,  # noqa: N803
):
    plane = tl.program_id(0)
    sample, channel = plane // channels, plane % channels
    v = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    u = tl.program_id(2) * BLOCK_W + tl.arange(0, BLOCK_W)
    inside_v, inside_u = v < out_height, u < out_width
    image, height, width = image_of(values, offsets, sizes, sample, channels, height, width, RAGGED)
    source = image + channel.to(tl.int64) * height * width
    line_y, line_x = sample * out_height + v, sample * out_width + u
    # Rows beyond the image repeat its last one, so that they widen no range below.
    first = tl.load(first_row + sample * out_height + tl.minimum(v, out_height - 1))
    begin = tl.load(first_column + line_x, mask=inside_u, other=0)
    total = tl.zeros((BLOCK_H, BLOCK_W), dtype=tl.float32)
    sum_x, sum_y = tl.zeros((BLOCK_W,), dtype=tl.float32), tl.zeros((BLOCK_H,), dtype=tl.float32)
    for tx in range(taps):
        sum_x += tl.load(weight_x + line_x * taps + tx, mask=inside_u, other=1.0)
    # A tap of weight 0 is skipped, because 0 times NaN or infinity would be NaN.
    if STREAM:
        for y in range(tl.min(first, axis=0), tl.max(first, axis=0) + taps):
            row = source + padded(y, height, PADDING) * width
            line = tl.zeros((BLOCK_W,), dtype=tl.float32)
            for tx in range(taps):
                x = begin + tx
                weight = _used(tl.load(weight_x + line_x * taps + tx, mask=inside_u, other=0.0), x, width, PADDING)
                value = tl.load(row + padded(x, width, PADDING), mask=weight != 0, other=0).to(tl.float32)
                line += weight * value
            step = y - first
            factor = tl.load(weight_y + line_y * taps + step, mask=inside_v & (step >= 0) & (step < taps), other=0.0)
            sum_y += factor
            factor = _used(factor, y, height, PADDING)
            total += factor[:, None] * tl.where(factor[:, None] != 0, line[None, :], 0.0)
    else:
        for ty in range(taps):  # one or two
            y = first + ty
            row = padded(y, height, PADDING) * width
            factor = tl.load(weight_y + line_y * taps + ty, mask=inside_v, other=0.0)
            sum_y += factor
            factor = _used(factor, y, height, PADDING)
            line = tl.zeros((BLOCK_H, BLOCK_W), dtype=tl.float32)
            for tx in range(taps):
                x = begin + tx
                weight = _used(tl.load(weight_x + line_x * taps + tx, mask=inside_u, other=0.0), x, width, PADDING)
                value = tl.load(source + row[:, None] + padded(x, width, PADDING)[None, :]).to(tl.float32)
                line += weight[None, :] * tl.where(weight[None, :] != 0, value, 0.0)
            total += factor[:, None] * tl.where(factor[:, None] != 0, line, 0.0)
    total = tl.div_rn(total, tl.where(inside_v, sum_y, 1.0)[:, None] * sum_x[None, :])  # exact where the sums are 1
    total = total * tl.load(affine + channel) + tl.load(affine + channels + channel)
    if QUANTIZE:
        total = rounded(total)
    target = out + plane.to(tl.int64) * out_height * out_width
    place = target + v[:, None] * out_width + u[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=inside_v[:, None] & inside_u[None, :])


# The number of taps is neither a tuning key nor a constexpr: with images of different sizes it may differ from batch to
# batch, which should not recompile or retune it.
_tuned = triton.autotune(TILES, key=["out_height", "out_width", "STREAM", "RAGGED"])(_kernel)
