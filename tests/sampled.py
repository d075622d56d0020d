"""Layers of polyphase sampling and maps for their tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from augkit.architectures import (
    AdaptivePolyphaseSampling,
    LearnablePolyphaseSampling,
)

SAMPLINGS: dict[str, Callable[..., nn.Module]] = {
    "aps": lambda stride=2, **options: AdaptivePolyphaseSampling(stride, **options),
    "lps": lambda stride=2, **options: LearnablePolyphaseSampling(3, stride, **options).eval(),
}
sampling = pytest.mark.parametrize("name", SAMPLINGS)
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def maps_of(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


# Logits of a network


class Block(nn.Module):
    """A residual block that halves its maps, its two branches on one grid."""

    def __init__(self, channels: int, out: int, make: Callable[[int], nn.Module] | None) -> None:
        super().__init__()
        stride = 2 if make is None else 1
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False, padding_mode="circular")
        self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False, padding_mode="circular")
        self.shortcut = nn.Conv2d(channels, out, 1, stride, bias=False)
        self.sampling = None if make is None else make(out)
        self.same = AdaptivePolyphaseSampling(odd="allow")

    def forward(self, maps: Tensor) -> Tensor:
        out = torch.relu(self.norm1(self.conv1(maps)))
        if self.sampling is not None:
            out, phase = self.sampling(out, return_phase=True)
            maps = self.same(maps, phase)
        return torch.relu(self.norm2(self.conv2(out)) + self.shortcut(maps))
