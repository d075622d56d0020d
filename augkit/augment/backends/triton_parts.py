"""What the Triton kernels share: where an image begins, the padding, the rounding, and the launch."""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl

# Triton reads this when it is imported; its tuner needs a GPU, its interpreter has none.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def launch(kernel: Any, tuned: Any, grid: Any, arguments: tuple[Any, ...], tile: dict[str, int], **names: Any) -> None:
    """Start ``tuned`` on the device of the first argument; in the interpreter ``kernel``, with ``tile``."""
    with torch.cuda.device_of(arguments[0]):  # Triton takes the current device, which may be another
        if INTERPRETED:
            kernel[grid](*arguments, **names, **tile)
        else:
            tuned[grid](*arguments, **names)


@triton.jit
def image_of(values, offsets, sizes, sample, channels, height, width, RAGGED: tl.constexpr):  # noqa: N803
    """Where the image of ``sample`` begins, its height and its width."""
    if RAGGED:
        begin = values + tl.load(offsets + sample)
        height = tl.load(sizes + 2 * sample).to(tl.int32)
        width = tl.load(sizes + 2 * sample + 1).to(tl.int32)
    else:
        # Images may lie beyond 2**31 values; within a plane int32 is enough.
        begin = values + sample.to(tl.int64) * channels * height * width
    return begin, height, width


@triton.jit
def padded(y, size, PADDING: tl.constexpr):  # noqa: N803
    """As `augkit.augment.kernels.padded_index`; ``zeros`` reads the border and has no weight there."""
    if PADDING == 3:
        y = ((y % size) + size) % size
    elif PADDING == 2:
        period = tl.maximum(2 * (size - 1), 1)
        y = ((y % period) + period) % period
        y = tl.minimum(y, period - y)
    return tl.minimum(tl.maximum(y, 0), size - 1)


@triton.jit
def rounded(total):
    """``total`` as a uint8 holds it: the nearest whole number, half to even as in torch, from 0 to 255."""
    whole = tl.floor(total + 0.5)
    tie = (whole - total == 0.5) & (whole % 2 != 0)
    return tl.minimum(tl.maximum(tl.where(tie, whole - 1, whole), 0.0), 255.0)
