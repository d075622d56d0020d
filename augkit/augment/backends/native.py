"""Resampling on the CPU as compiled loops (numba): one for axis-aligned matrices, one for all others.

In the first, the input rows of the taps of each output row are blended into one row that stays in the first-level
cache, the padding is written to both ends of that row, and the output is read from it along x, eight pixels at a time
(`augkit.augment.backends.lanes`). A sample whose matrix is the identity is copied; a flip is a negative scale and costs
nothing. The second is `augkit.augment.backends.native_general`. Both allocate nothing of the size of a batch beyond
the output; ``gain`` and ``bias`` fold a normalization into the last pass; coordinates and weights are computed in
float64 and used in float32.

The loops read one flat buffer and where each image begins in it, so images of one batch may differ in size.

The loops run in plain threads without the interpreter's lock, as many as `torch.get_num_threads` says. numba's
own parallel layer is not used: it compiles several times longer, and its pools abort in forked processes such as
DataLoader workers.

The first call of a loop per pair of dtypes (float32 to float32, uint8 to uint8, uint8 to float32) compiles for a
few seconds; the result is cached, and later processes load it in well under a second. There is no backward pass:
`augkit.augment.backends.choose` takes the torch path where gradients are wanted.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from augkit.augment.backends.native_axes import TABLE_STEPS
from augkit.augment.backends.native_general import rows
from augkit.augment.backends.native_planes import planes
from augkit.augment.backends.threads import spread
from augkit.augment.kernels import FUNCTION, HALF_WIDTH, PADDINGS

SMALL = 1 << 19  # taps below which a second thread costs more than it saves, GIL contention included
KERNELS = tuple(FUNCTION)


def resample(  # noqa: PLR0913 (the arguments of every backend that fuses)
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
    axis_aligned: bool = True,
) -> Tensor:
    """Resample CPU ``images`` ``(B, C, H, W)``, float32 or uint8, as `augkit.augment.backends.separable.resample` does.

    ``dtype`` is float32 or uint8, the images' own when None; uint8 is rounded and clipped. ``gain`` and ``bias``,
    ``(C,)``, give ``gain * value + bias`` and need a float32 output. Without ``axis_aligned`` the matrices may rotate,
    shear or be perspectives, as in `augkit.augment.backends.general`.
    """
    batch, channels, height, width = images.shape
    offsets, sizes = np.arange(batch) * (channels * height * width), np.empty((batch, 2), np.int64)
    sizes[:] = height, width
    source = (images.detach().contiguous().view(-1).numpy(), offsets, sizes, channels)
    return _resampled(
        source, matrix, size, (kernel, padding), max_shrink, dtype or images.dtype, (gain, bias), axis_aligned
    )


def resample_ragged(  # noqa: PLR0913 (those of `resample`, the images as three tensors)
    values: Tensor,
    offsets: Tensor,
    sizes: Tensor,
    channels: int,
    matrix: Tensor,
    size: tuple[int, int],
    kernel: str,
    padding: str,
    max_shrink: float | Tensor,
    *,
    dtype: torch.dtype | None = None,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    axis_aligned: bool = True,
) -> Tensor:
    """`resample` for images of different sizes, bit for bit as one image at a time; ``(B, C, *size)``.

    Image b is ``values[offsets[b]:][: channels * H * W]`` with ``H, W = sizes[b]``; ``offsets`` ``(B,)`` and ``sizes``
    ``(B, 2)`` are int64. ``max_shrink`` is a number, or ``(B,)`` for a bound for each image.
    """
    begin, shapes = (tensor.detach().to(torch.int64).contiguous().numpy() for tensor in (offsets, sizes))
    source = (values.detach().contiguous().numpy(), begin, shapes, channels)
    return _resampled(
        source, matrix, size, (kernel, padding), max_shrink, dtype or values.dtype, (gain, bias), axis_aligned
    )


def _resampled(
    source: tuple[NDArray[np.generic], NDArray[np.int64], NDArray[np.int64], int],
    matrix: Tensor,
    size: tuple[int, int],
    names: tuple[str, str],
    max_shrink: float | Tensor,
    dtype: torch.dtype,
    affine: tuple[Tensor | None, Tensor | None],
    axis_aligned: bool,
) -> Tensor:
    (kernel, padding), channels, batch = names, source[3], len(source[1])
    out = torch.empty((batch, channels, *size), dtype=dtype)
    if not out.numel():
        return out
    shrinks = np.empty(batch)
    shrinks[:] = 1.0 if kernel == "nearest" else max_shrink
    how = (KERNELS.index(kernel), PADDINGS.index(padding), HALF_WIDTH[kernel], dtype == torch.uint8)
    moves, factors = np.array(matrix.detach().numpy(), np.float64, order="C"), np.empty((2, channels), np.float32)
    for row, given, usual in zip(factors, affine, (1.0, 0.0), strict=True):
        row[:] = usual if given is None else given.detach().reshape(-1).numpy()
    threads = torch.get_num_threads() if out.numel() * math.ceil(2 * HALF_WIDTH[kernel]) > SMALL else 1
    arguments = (source, out.numpy(), moves, shrinks, how, kernel_table(kernel), factors)
    loop, shares = (planes, batch * channels) if axis_aligned else (rows, batch * size[0])
    spread(loop, shares, threads, arguments)
    return out


@cache
def kernel_table(kernel: str) -> NDArray[np.float64]:
    """Values of ``kernel`` at multiples of ``1 / TABLE_STEPS`` up to the end of its support, and 0 after it."""
    count = math.ceil(HALF_WIDTH[kernel]) * TABLE_STEPS + 1
    values = FUNCTION[kernel](torch.arange(count, dtype=torch.float64) / TABLE_STEPS)
    return np.append(values.numpy(), [0.0, 0.0])
