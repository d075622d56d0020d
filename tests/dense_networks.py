"""Networks with outputs beyond logits, whose equivariance is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(inputs: int, outputs: int, stride: int = 1, padding_mode: str = "circular") -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1, padding_mode=padding_mode)


def segmenter(stride: int = 1, classes: int = 4) -> nn.Sequential:
    """Maps ``(B, classes, H / stride, W / stride)`` of gray images; equivariant on the torus at stride 1."""
    return nn.Sequential(conv(1, 6, stride), nn.ReLU(), conv(6, classes)).eval()


def autoencoder(stride: int = 1) -> nn.Module:
    """Images of gray images, through a latent map of that stride."""
    up = [nn.Conv2d(6, stride**2, 1), nn.PixelShuffle(stride)]
    return nn.Sequential(conv(1, 6, stride), nn.ReLU(), *up).eval()


def embedder(stride: int = 1, padding_mode: str = "circular") -> nn.Sequential:
    """Embeddings ``(B, 6)`` of gray images; invariant on the torus at stride 1."""
    return nn.Sequential(conv(1, 6, stride, padding_mode), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


class LowPass(nn.Module):
    """Removes the frequencies that half the pixels cannot hold, then keeps every second pixel: exact on a torus."""

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        y, x = torch.fft.fftfreq(height)[:, None].abs(), torch.fft.rfftfreq(width)[None].abs()
        kept = torch.fft.rfft2(images) * ((y < 0.24) & (x < 0.24))
        return torch.fft.irfft2(kept, s=(height, width))[..., ::2, ::2]


class Returns(nn.Module):
    """Returns whatever a function makes of the images."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> object:
        return self.function(images)  # type: ignore[operator]
