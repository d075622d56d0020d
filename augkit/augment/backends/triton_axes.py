"""The Triton kernel for axis-aligned matrices.

The position and weight of every tap of both axes are computed in torch (a few thousand numbers). A program writes one
tile of the output, normalized and cast:

- with few taps (nearest, bilinear) each output pixel gathers its square of taps through the cache;
- with many taps, the program streams the input rows that its tile spans: the taps along x are summed once per row, and
  each row of the tile adds its weighted part of that line. A tile of h rows reads ``h / scale + taps`` lines instead of
  ``h * taps``: the separable form, without an intermediate image.

Memory beyond the output: the two axes' taps.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from augkit.augment.backends.separable import unpadded_taps
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
        tap, weight = unpadded_taps(scale, offset, size[1 - axis], how.kernel, how.shrink, each)
        if how.padding == "zeros":
            length = source.size[1 - axis] if source.sizes is None else source.sizes[:, 1 - axis, None, None]
            weight = torch.where((tap >= 0) & (tap < length), weight, 0.0)
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
        WIDE=triton.next_power_of_2(count),
        PADDING=PADDINGS.index(how.padding),
        STREAM=count >= STREAMED_FROM,
        RAGGED=source.sizes is not None,
        QUANTISE=out.dtype == torch.uint8,
    )


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
    WIDE: tl.constexpr,  # noqa: N803 (Triton's habit for constants)
    PADDING: tl.constexpr,  # noqa: N803
    STREAM: tl.constexpr,  # noqa: N803
    RAGGED: tl.constexpr,  # noqa: N803
    QUANTISE: tl.constexpr,  # noqa: N803
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
    if STREAM:
        t = tl.arange(0, WIDE)
        wanted = inside_u[:, None] & (t < taps)[None, :]
        x = padded(begin[:, None] + t[None, :], width, PADDING)
        weight = tl.load(weight_x + line_x[:, None] * taps + t[None, :], mask=wanted, other=0.0)
        wanted = weight != 0  # a tap of weight 0 is skipped, because 0 times NaN or infinity would be NaN
        for y in range(tl.min(first, axis=0), tl.max(first, axis=0) + taps):
            row = source + padded(y, height, PADDING) * width
            line = tl.sum(weight * tl.load(row + x, mask=wanted, other=0).to(tl.float32), axis=1)
            step = y - first
            factor = tl.load(weight_y + line_y * taps + step, mask=inside_v & (step >= 0) & (step < taps), other=0.0)
            total += factor[:, None] * tl.where(factor[:, None] != 0, line[None, :], 0.0)
    else:
        for ty in range(WIDE):  # one or two taps
            row = padded(first + ty, height, PADDING) * width
            factor = tl.load(weight_y + line_y * WIDE + ty, mask=inside_v, other=0.0)
            line = tl.zeros((BLOCK_H, BLOCK_W), dtype=tl.float32)
            for tx in range(WIDE):
                x = padded(begin + tx, width, PADDING)
                weight = tl.load(weight_x + line_x * WIDE + tx, mask=inside_u, other=0.0)
                value = tl.load(source + row[:, None] + x[None, :]).to(tl.float32)
                line += weight[None, :] * tl.where(weight[None, :] != 0, value, 0.0)
            total += factor[:, None] * tl.where(factor[:, None] != 0, line, 0.0)
    total = total * tl.load(affine + channel) + tl.load(affine + channels + channel)
    if QUANTISE:
        total = rounded(total)
    target = out + plane.to(tl.int64) * out_height * out_width
    place = target + v[:, None] * out_width + u[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=inside_v[:, None] & inside_u[None, :])


# The number of taps is no key, and no constant of the kernel: among images of different sizes each batch may have its
# own, and none should be compiled or tuned anew for it.
_tuned = triton.autotune(TILES, key=["out_height", "out_width", "WIDE", "RAGGED"])(_kernel)
