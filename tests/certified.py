"""Networks whose invariance is certified, and how far their logits move."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from augkit.architectures.polyphase import (
    AdaptivePolyphaseSampling,
    LearnablePolyphaseSampling,
)

C = 4  # channels everywhere


def conv(inputs: int = C, size: int = 3, mode: str = "circular", **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, C, size, padding="same", padding_mode=mode, **kwargs)  # type: ignore[arg-type]


def head(classes: int = 5) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, classes)]


def net(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv(3), *layers, *head())


class Do(nn.Module):
    """A function between layers: ``Do(lambda maps, conv: ..., conv)``."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, maps: Tensor) -> Any:
        return self.function(maps, *self.layers)


class Block(nn.Module):
    """A residual block; where it halves, the shortcut keeps the phase of the branch or chooses its own."""

    def __init__(self, inputs: int, out: int, sampling: Callable[[int], nn.Module] | None, shared: bool = True) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, out, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.pool = sampling(out) if sampling else None
        self.shortcut_pool = AdaptivePolyphaseSampling(odd="allow") if sampling else None
        self.shortcut = nn.Conv2d(inputs, out, 1) if inputs != out else nn.Identity()
        self.shared = shared

    def forward(self, maps: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(maps)))
        if self.pool is not None:
            out, phase = self.pool(out, return_phase=True)
            maps = self.shortcut_pool(maps, phase) if self.shared else self.shortcut_pool(maps)  # type: ignore[misc]
        out = self.norm2(self.conv2(out))
        out += self.shortcut(maps)
        return self.relu(out)


def aps(_: int) -> nn.Module:
    return AdaptivePolyphaseSampling(odd="allow")


def lps(channels: int) -> nn.Module:
    return LearnablePolyphaseSampling(channels, odd="allow")
