"""Conversion of pixels from integers to floats."""

from __future__ import annotations

import torch
from torch import Tensor


def as_float(images: Tensor) -> Tensor:
    """Convert uint8 images to float32 in [0, 1]; floating images are returned unchanged.

    >>> as_float(torch.tensor([0, 51, 255], dtype=torch.uint8))
    tensor([0.0000, 0.2000, 1.0000])
    """
    return images.float() / 255 if images.dtype == torch.uint8 else images
