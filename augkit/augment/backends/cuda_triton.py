"""Axis-aligned resampling on CUDA in one launch, by Triton (which comes with torch on Linux).

The position and weight of every tap of both axes are computed in torch (a few thousand numbers). A program writes one
tile of the output, normalised and cast:

- with few taps (nearest, bilinear) each output pixel gathers its square of taps through the cache;
- with many taps, the program streams the input rows that its tile spans: the taps along x are summed once per row, and
  each row of the tile adds its weighted part of that line. A tile of h rows reads ``h / scale + taps`` lines instead of
  ``h * taps``: the separable form, without an intermediate image.

Tile and warps are tuned by Triton at the first call for each size and number of taps. Indices are int32 within a
plane. Memory beyond the output: the two axes' taps. There is no backward pass: `augkit.augment.backends.choose` selects
torch where gradients are needed. Without Triton `augkit.augment.backends.separable` is used; torch.compile is no
alternative, since its own CUDA code is Triton.

State: both forms are tested on the CPU by Triton's interpreter; neither has been run, timed or tuned on a GPU yet. So
`augkit.augment.backends.self_check` compares them with torch before they are used on a device.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from augkit.augment.backends.separable import axis_taps, unpadded_taps
from augkit.augment.kernels import PADDINGS

STREAMED_FROM = 3  # taps along y
# Triton reads this when it is imported; its tuner needs a GPU, its interpreter has none.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
TILES = [
    triton.Config({"BLOCK_H": h, "BLOCK_W": w}, num_warps=warps)
    for h, w, warps in ((8, 128, 4), (4, 128, 4), (16, 64, 4), (16, 128, 4), (32, 64, 4), (32, 128, 8), (32, 32, 4))
]


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
    """Resample ``images`` ``(B, C, H, W)``, floating or uint8, as `augkit.augment.backends.native.resample` does.

    ``dtype`` is any floating dtype, or uint8 (rounded and clipped); the images' own when None.
    """
    batch, channels, height, width = images.shape
    out = torch.empty((batch, channels, *size), dtype=dtype or images.dtype, device=images.device)
    if out.numel() == 0:
        return out
    (scale_x, offset_x), (scale_y, offset_y) = ((matrix[:, k, k], matrix[:, k, 2]) for k in (0, 1))
    column, weight_x = axis_taps(scale_x, offset_x, (width, size[1]), kernel, padding, max_shrink)
    tap, weight_y = unpadded_taps(scale_y, offset_y, size[0], kernel, max_shrink)
    if padding == "zeros":
        weight_y = torch.where((tap >= 0) & (tap < height), weight_y, 0.0)
    first_row = tap[..., 0].clamp(-(2**30), 2**30).to(torch.int32).contiguous()
    affine = torch.ones(2, channels, device=images.device, dtype=torch.float32)
    affine[0] = 1.0 if gain is None else gain.reshape(-1)
    affine[1] = 0.0 if bias is None else bias.reshape(-1)
    tile: dict[str, int] = TILES[0].kwargs if INTERPRETED else {}
    _launcher()[lambda meta: _grid(batch * channels, size, meta)](
        images.contiguous(),
        out,
        column.to(torch.int32).contiguous(),
        weight_x.float().contiguous(),
        first_row,
        weight_y.float().contiguous(),
        affine,
        channels,
        height,
        width,
        *size,
        TAPS_X=column.shape[-1],
        TAPS_Y=tap.shape[-1],
        WIDE=triton.next_power_of_2(column.shape[-1]),
        PADDING=PADDINGS.index(padding),
        STREAM=tap.shape[-1] >= STREAMED_FROM,
        QUANTISE=out.dtype == torch.uint8,
        **tile,
    )
    return out


def _grid(planes: int, size: tuple[int, int], meta: dict[str, int]) -> tuple[int, int, int]:
    return planes, triton.cdiv(size[0], meta["BLOCK_H"]), triton.cdiv(size[1], meta["BLOCK_W"])


@triton.jit
def _padded(y, size, PADDING: tl.constexpr):  # noqa: N803
    """As `augkit.augment.kernels.padded_index`; ``zeros`` reads the border and has no weight there."""
    if PADDING == 3:
        y = ((y % size) + size) % size
    elif PADDING == 2:
        period = tl.maximum(2 * (size - 1), 1)
        y = ((y % period) + period) % period
        y = tl.minimum(y, period - y)
    return tl.minimum(tl.maximum(y, 0), size - 1)


@triton.jit
def _kernel(  # noqa: PLR0913, PLR0917 (a launch passes every number)
    images,
    out,
    column,
    weight_x,
    first_row,
    weight_y,
    affine,
    channels,
    height,
    width,
    out_height,
    out_width,
    TAPS_X: tl.constexpr,  # noqa: N803 (Triton's habit for constants)
    TAPS_Y: tl.constexpr,  # noqa: N803
    WIDE: tl.constexpr,  # noqa: N803
    PADDING: tl.constexpr,  # noqa: N803
    STREAM: tl.constexpr,  # noqa: N803
    QUANTISE: tl.constexpr,  # noqa: N803
    BLOCK_H: tl.constexpr,  # noqa: N803
    BLOCK_W: tl.constexpr,  # noqa: N803
):
    plane = tl.program_id(0)
    sample, channel = plane // channels, plane % channels
    v = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    u = tl.program_id(2) * BLOCK_W + tl.arange(0, BLOCK_W)
    inside_v, inside_u = v < out_height, u < out_width
    # Planes may lie beyond 2**31 values; within one, int32 is enough.
    source = images + plane.to(tl.int64) * height * width
    at_y, at_x = (sample * out_height + v) * TAPS_Y, (sample * out_width + u) * TAPS_X
    # Rows beyond the image repeat its last one, so that they widen no range below.
    first = tl.load(first_row + sample * out_height + tl.minimum(v, out_height - 1))
    total = tl.zeros((BLOCK_H, BLOCK_W), dtype=tl.float32)
    if STREAM:
        t = tl.arange(0, WIDE)
        wanted = inside_u[:, None] & (t < TAPS_X)[None, :]
        x = tl.load(column + at_x[:, None] + t[None, :], mask=wanted, other=0)
        weight = tl.load(weight_x + at_x[:, None] + t[None, :], mask=wanted, other=0.0)
        for y in range(tl.min(first, axis=0), tl.max(first, axis=0) + TAPS_Y):
            row = source + _padded(y, height, PADDING) * width
            value = tl.load(row + x, mask=wanted, other=0).to(tl.float32)
            # A tap of weight 0 is skipped, because 0 times NaN or infinity would be NaN.
            line = tl.sum(weight * tl.where(weight != 0, value, 0.0), axis=1)
            step = y - first
            factor = tl.load(weight_y + at_y + step, mask=inside_v & (step >= 0) & (step < TAPS_Y), other=0.0)
            total += factor[:, None] * tl.where(factor[:, None] != 0, line[None, :], 0.0)
    else:
        for ty in range(TAPS_Y):
            row = _padded(first + ty, height, PADDING) * width
            factor = tl.load(weight_y + at_y + ty, mask=inside_v, other=0.0)
            line = tl.zeros((BLOCK_H, BLOCK_W), dtype=tl.float32)
            for tx in range(TAPS_X):
                x = tl.load(column + at_x + tx, mask=inside_u, other=0)
                weight = tl.load(weight_x + at_x + tx, mask=inside_u, other=0.0)
                value = tl.load(source + row[:, None] + x[None, :]).to(tl.float32)
                line += weight[None, :] * tl.where(weight[None, :] != 0, value, 0.0)
            total += factor[:, None] * tl.where(factor[:, None] != 0, line, 0.0)
    total = total * tl.load(affine + channel) + tl.load(affine + channels + channel)
    if QUANTISE:
        rounded = tl.floor(total + 0.5)
        tie = (rounded - total == 0.5) & (rounded % 2 != 0)  # half to even, as torch
        total = tl.minimum(tl.maximum(tl.where(tie, rounded - 1, rounded), 0.0), 255.0)
    target = out + plane.to(tl.int64) * out_height * out_width
    place = target + v[:, None] * out_width + u[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=inside_v[:, None] & inside_u[None, :])


_TUNED = triton.autotune(TILES, key=["out_height", "out_width", "TAPS_X", "TAPS_Y"])(_kernel)


def _launcher() -> Any:
    return _kernel if INTERPRETED else _TUNED
