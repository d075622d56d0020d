"""Double precision, which Apple's GPU (``mps``) lacks, both in tensors and in copies to the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = ("mps",)  # types of devices without float64


def widest(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on a device without it."""
    return torch.float32 if device.type in NARROW else torch.float64


def wide_device(device: torch.device) -> torch.device:
    """Return the device, or the CPU in the place of one without float64."""
    return torch.device("cpu") if device.type in NARROW else device


def moved_to(values: Tensor, device: torch.device) -> Tensor:
    """Return values of any shape on a device; float64 becomes float32 where the device has none."""
    dtype = widest(device) if values.dtype == torch.float64 else values.dtype
    return values.to(dtype).to(device)


def exactly(values: Tensor) -> Tensor:
    """Return values of any shape in float64, on their device, or on the CPU where the device has no float64."""
    return (values.cpu() if values.device.type in NARROW else values).double()


def on_cpu(values: Tensor) -> Tensor:
    """Return values of any shape in float64 on the CPU; they are copied first, because the device may lack float64."""
    return values.cpu().double()
