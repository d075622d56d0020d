"""Pictures and small networks for the tests of probes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augkit.architectures import build_model


def pictures(count: int = 6, side: int = 16, channels: int = 1) -> Tensor:
    """Smooth blobs on black, all different."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    images = np.zeros((count, channels, side, side))
    for index in np.ndindex(count, channels, 3):
        (cy, cx), width = rng.uniform(side / 4, 3 * side / 4, 2), rng.uniform(1, 2)
        images[index[:2]] += rng.uniform(0.2, 0.5) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2 / width**2)
    return torch.from_numpy(images).float().clamp(0, 1)


def small(**style: Any) -> nn.Module:
    return build_model("small_cnn", 5, 1, width=4, seed=0, **style).eval()
