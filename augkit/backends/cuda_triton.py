"""Axis-aligned resampling on CUDA in one launch, by Triton (which comes with torch on Linux).

The index and weight of every tap of both axes are computed in torch (a few thousand numbers); the kernel reads them,
gathers the square of taps of each output pixel through the cache, and writes once, normalised and cast. Indices are
int32 within a plane. Memory beyond the output: the two axes' taps.

State: the arithmetic is tested on the CPU by Triton's interpreter and the kernel compiles for sm_90, but it has not
been timed or tuned on a GPU. Taps are not shared between neighbouring pixels other than by the cache, so that kernels
with many taps are bound by loads. There is no backward: `augkit.backends.choose` takes torch where one is wanted.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from augkit.backends.separable import axis_taps

BLOCK = (4, 128)  # rows and columns of the output that one program writes


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
    """Resample ``images`` ``(B, C, H, W)``, floating or uint8, as `augkit.backends.native.resample` does.

    ``dtype`` is any floating dtype, or uint8 (rounded and clipped); the images' own when None.
    """
    batch, channels, height, width = images.shape
    out = torch.empty((batch, channels, *size), dtype=dtype or images.dtype, device=images.device)
    if out.numel() == 0:
        return out
    taps = []
    for axis, length in ((0, width), (1, height)):
        scale, offset = matrix[:, axis, axis].contiguous(), matrix[:, axis, 2].contiguous()
        index, weight = axis_taps(scale, offset, (length, size[1 - axis]), kernel, padding, max_shrink)
        taps += [index.to(torch.int32).contiguous(), weight.to(torch.float32).contiguous()]
    affine = torch.ones(2, channels, device=images.device)
    affine[0] = 1.0 if gain is None else gain.reshape(-1)
    affine[1] = 0.0 if bias is None else bias.reshape(-1)
    grid = (batch * channels, triton.cdiv(size[0], BLOCK[0]), triton.cdiv(size[1], BLOCK[1]))
    _kernel[grid](
        images.contiguous(),
        out,
        *taps,
        affine,
        channels,
        height,
        width,
        *size,
        TAPS_X=taps[0].shape[-1],
        TAPS_Y=taps[2].shape[-1],
        BLOCK_H=BLOCK[0],
        BLOCK_W=BLOCK[1],
        QUANTISE=out.dtype == torch.uint8,
    )
    return out


@triton.jit
def _kernel(  # noqa: PLR0913, PLR0917 (a launch passes every number)
    images,
    out,
    index_x,
    weight_x,
    index_y,
    weight_y,
    affine,
    channels,
    height,
    width,
    out_height,
    out_width,
    TAPS_X: tl.constexpr,  # noqa: N803 (Triton's habit for constants)
    TAPS_Y: tl.constexpr,  # noqa: N803
    BLOCK_H: tl.constexpr,  # noqa: N803
    BLOCK_W: tl.constexpr,  # noqa: N803
    QUANTISE: tl.constexpr,  # noqa: N803
):
    plane = tl.program_id(0)
    sample, channel = plane // channels, plane % channels
    v = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
    u = tl.program_id(2) * BLOCK_W + tl.arange(0, BLOCK_W)
    inside_v, inside_u = v < out_height, u < out_width
    # Planes may lie beyond 2**31 values; within one, int32 is enough.
    source = images + plane.to(tl.int64) * height * width
    at_y, at_x = (sample * out_height + v) * TAPS_Y, (sample * out_width + u) * TAPS_X
    total = tl.zeros((BLOCK_H, BLOCK_W), dtype=tl.float32)
    for ty in range(TAPS_Y):
        y = tl.load(index_y + at_y + ty, mask=inside_v, other=0)
        factor = tl.load(weight_y + at_y + ty, mask=inside_v, other=0.0)
        line = tl.zeros((BLOCK_H, BLOCK_W), dtype=tl.float32)
        for tx in range(TAPS_X):
            x = tl.load(index_x + at_x + tx, mask=inside_u, other=0)
            weight = tl.load(weight_x + at_x + tx, mask=inside_u, other=0.0)
            line += weight[None, :] * tl.load(source + y[:, None] * width + x[None, :]).to(tl.float32)
        total += factor[:, None] * line
    total = total * tl.load(affine + channel) + tl.load(affine + channels + channel)
    if QUANTISE:
        rounded = tl.floor(total + 0.5)
        tie = (rounded - total == 0.5) & (rounded % 2 != 0)  # half to even, as torch
        total = tl.minimum(tl.maximum(tl.where(tie, rounded - 1, rounded), 0.0), 255.0)
    target = out + plane.to(tl.int64) * out_height * out_width
    place = target + v[:, None] * out_width + u[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=inside_v[:, None] & inside_u[None, :])
