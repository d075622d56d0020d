"""Ways to halve a feature map, from the one that aliases most to the one that aliases least.

Blur pooling: Zhang 2019, "Making Convolutional Networks Shift-Invariant Again",
https://arxiv.org/abs/1904.11486.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.errors import InputError, unknown_name

DOWNSAMPLES = ("maxpool", "stride", "blurpool")
PADDING_MODES = {"zeros": "constant", "circular": "circular", "reflect": "reflect"}


class BlurPool2d(nn.Module):
    """Low-pass with a binomial filter, then keep every ``stride``-th pixel (Zhang 2019, section 3.2).

    The filter sums to 1 exactly, so that constant maps stay constant (away from zero padding). The output of a
    map of n pixels has ``ceil(n / stride)``.

    Args:
        channels: C of the maps ``(B, C, H, W)``; each is filtered alone.
        size: taps of the filter, at least 2 (4 is "BlurPool-4": 1 3 3 1).
        stride: step of the subsampling.
        padding_mode: ``zeros``, ``circular`` or ``reflect``.

    Raises:
        InputError: a size below 2, a stride below 1 or an unknown padding mode.
    """

    taps: Tensor

    def __init__(self, channels: int, size: int = 4, stride: int = 2, padding_mode: str = "zeros") -> None:
        super().__init__()
        if size < 2 or stride < 1:
            raise InputError(f"BlurPool2d: expected size >= 2 and stride >= 1, got {size} and {stride}")
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
        pads = (before, after, before, after)
        maps = F.pad(maps, pads, mode=PADDING_MODES[self.padding_mode])
        taps = self.taps.to(maps.dtype)
        maps = F.conv2d(
            maps,
            taps.view(1, 1, 1, -1).expand(self.channels, 1, 1, -1),
            None,
            (1, self.stride),
            0,
            1,
            self.channels,
        )
        return F.conv2d(
            maps,
            taps.view(1, 1, -1, 1).expand(self.channels, 1, -1, 1),
            None,
            (self.stride, 1),
            0,
            1,
            self.channels,
        )

    def extra_repr(self) -> str:
        return f"{self.channels}, size={self.size}, stride={self.stride}, padding_mode={self.padding_mode!r}"


def downsample(method: str, channels: int, padding_mode: str) -> nn.Module:
    """What halves a map after a stride-1 convolution: ``maxpool`` or ``blurpool``; nothing for ``stride``.

    ``maxpool`` takes windows of 2; ``blurpool`` is Zhang's form of it: the maximum of every window at stride 1,
    then the blurred subsampling. With ``stride`` the convolution itself subsamples.
    """
    if method == "maxpool":
        return nn.MaxPool2d(2)
    if method == "blurpool":
        return nn.Sequential(DenseMaxPool2d(padding_mode), BlurPool2d(channels, padding_mode=padding_mode))
    if method == "stride":
        return nn.Identity()
    raise unknown_name("downsample", method, DOWNSAMPLES)


class DenseMaxPool2d(nn.Module):
    """Maximum over 2 x 2 windows at every pixel; keeps the size. One row and column are padded."""

    def __init__(self, padding_mode: str) -> None:
        super().__init__()
        self.padding_mode = padding_mode

    def forward(self, maps: Tensor) -> Tensor:
        # Zero padding of maps that a ReLU made never exceeds a true value, so it acts as no padding.
        maps = F.pad(maps, (0, 1, 0, 1), mode=PADDING_MODES[self.padding_mode])
        maps = torch.maximum(maps[..., :-1], maps[..., 1:])
        return torch.maximum(maps[..., :-1, :], maps[..., 1:, :])
