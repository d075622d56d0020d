"""A network whose invariance is known, and smooth images."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CircularNet(nn.Module):
    """Exactly invariant on the torus: stride-1 circular convolution and global average pooling."""

    def __init__(self, stride: int = 1, padding_mode: str = "circular") -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, stride, 1, padding_mode=padding_mode)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).square().mean((-2, -1)))


def photo_like(count: int, side: int, seed: int = 0) -> Tensor:
    """Smooth random images in [0, 1]: noise with most of its energy at low frequencies."""
    noise = torch.rand(count, 1, side, side, generator=torch.Generator().manual_seed(seed))
    for _ in range(3):
        noise = (noise + noise.roll(1, -1) + noise.roll(1, -2)) / 3
    low, high = noise.amin(), noise.amax()
    return (noise - low) / (high - low)
