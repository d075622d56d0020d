"""Blur pooling: low-pass, then keep every n-th pixel.

Zhang 2019, "Making Convolutional Networks Shift-Invariant Again", https://arxiv.org/abs/1904.11486.

On the CPU both layers convert maps to ``channels_last``, where the depthwise convolution and the maximum are vectorized
over channels, and return them in their original layout. Slice sums and pairs of one-dimensional convolutions were
slower in every trial (``benchmarks/LOG.md``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.architectures.padding import pad
from augkit.core.errors import InputError, check_whole, unknown_name
from augkit.core.torch_private import in_function_transform

PADDING_MODES = {"zeros": "constant", "circular": "circular", "reflect": "reflect"}


class BlurPool2d(nn.Module):
    """Low-passes maps with a binomial filter, then keeps every ``stride``-th pixel (Zhang 2019, section 3.2).

    Maps ``(B, C, H, W)`` become ``(B, C, ceil(H / stride), ceil(W / stride))``. The filter sums to exactly 1, so
    constant maps stay constant (away from zero padding). Maps may be smaller than the filter.

    Args:
        channels: C of the maps, which are filtered separately; any C when None.
        size: taps of the filter, at least 2 (4 is "BlurPool-4": 1 3 3 1).
        stride: step of the subsampling.
        padding_mode: ``zeros``, ``circular`` or ``reflect``.

    Raises:
        InputError: the size or the stride is no whole number of at least 2 or 1, or the padding mode is unknown.
    """

    taps: Tensor

    def __init__(
        self, channels: int | None = None, size: int = 4, stride: int = 2, padding_mode: str = "zeros"
    ) -> None:
        super().__init__()
        check_whole("BlurPool2d: size", size, 2, optional=False)
        check_whole("BlurPool2d: stride", stride, 1, optional=False)
        if padding_mode not in PADDING_MODES:
            raise unknown_name("padding mode", padding_mode, PADDING_MODES)
        self.channels, self.size, self.stride, self.padding_mode = channels, size, stride, padding_mode
        row = torch.ones(1, dtype=torch.float64)
        for _ in range(size - 1):
            row = torch.cat([row, row.new_zeros(1)]) + torch.cat([row.new_zeros(1), row])
        row = row / row.sum()
        self.register_buffer("taps", row.to(torch.get_default_dtype()), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        before, after = (self.size - 1) // 2, self.size // 2
        channels = maps.shape[1]
        if self.channels not in (None, channels):
            raise InputError(f"BlurPool2d: expected {self.channels} channels, got maps of {channels}")
        work = pad(maps, (before, after, before, after), PADDING_MODES[self.padding_mode])
        taps = self.taps.to(maps.dtype)
        weight = (taps[:, None] * taps).expand(channels, 1, -1, -1)
        return _as(maps, F.conv2d(_fast(work), weight, stride=self.stride, groups=channels))

    def extra_repr(self) -> str:
        of = "" if self.channels is None else f"{self.channels}, "
        return f"{of}size={self.size}, stride={self.stride}, padding_mode={self.padding_mode!r}"


class DenseMaxPool2d(nn.Module):
    """Max pooling of stride 1 that keeps the size of the maps, for use before a layer that subsamples.

    Args:
        kernel_size: side of the windows; a window begins ``(kernel_size - 1) // 2`` pixels before its pixel.
        padding_mode: ``circular`` and ``reflect`` extend the maps; with ``zeros`` windows are cut off at the border.

    Raises:
        InputError: ``kernel_size`` is below 1, or the padding mode is unknown.
    """

    def __init__(self, kernel_size: int = 2, padding_mode: str = "zeros") -> None:
        super().__init__()
        check_whole("DenseMaxPool2d: kernel_size", kernel_size, 1, optional=False)
        if padding_mode not in PADDING_MODES:
            raise unknown_name("padding mode", padding_mode, PADDING_MODES)
        self.kernel_size, self.padding_mode = kernel_size, padding_mode

    def forward(self, maps: Tensor) -> Tensor:
        before, after = (self.kernel_size - 1) // 2, self.kernel_size // 2
        pads = (before, after, before, after)
        if self.padding_mode == "zeros":
            work = F.pad(maps, pads, value=-torch.inf)
        else:
            work = pad(maps, pads, self.padding_mode)
        return _as(maps, F.max_pool2d(_fast(work), self.kernel_size, 1))

    def extra_repr(self) -> str:
        return f"{self.kernel_size}, padding_mode={self.padding_mode!r}"


class MaxBlurPool2d(nn.Sequential):
    """Max pooling without its aliasing: the maximum at every pixel, then `BlurPool2d` (Zhang 2019, figure 2).

    A side of n pixels becomes ``ceil(n / stride)``, as with ``nn.MaxPool2d(3, 2, padding=1)``.

    Args:
        kernel_size: side of the windows of the maximum.
        stride, size, padding_mode: as in `BlurPool2d` and `DenseMaxPool2d`.

    Raises:
        InputError: as in `BlurPool2d` and `DenseMaxPool2d`.

    >>> MaxBlurPool2d(3, stride=2)(torch.rand(2, 8, 9, 12)).shape
    torch.Size([2, 8, 5, 6])
    """

    def __init__(self, kernel_size: int, stride: int = 2, size: int = 4, padding_mode: str = "zeros") -> None:
        super().__init__(
            DenseMaxPool2d(kernel_size, padding_mode), BlurPool2d(size=size, stride=stride, padding_mode=padding_mode)
        )


def _fast(maps: Tensor) -> Tensor:
    # Maps within a transform of torch.func know no memory format.
    if in_function_transform() or maps.device.type != "cpu":
        return maps
    # After padding, as circular padding always returns contiguous maps.
    return maps.contiguous(memory_format=torch.channels_last)


def _as(maps: Tensor, out: Tensor) -> Tensor:
    """Return ``out`` in the memory format of ``maps``."""
    if out.device.type != "cpu" or maps.is_contiguous(memory_format=torch.channels_last):
        return out
    return out.contiguous()
