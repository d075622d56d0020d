"""Checks of arguments: dense tensors, floating dtypes, devices, flags, and statistics of channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augkit.core.errors import InputError, InputTypeError, brief


def is_float(values: Tensor) -> bool:
    """Whether ``values`` have a floating dtype that torch can compute with, which excludes those of 8 bits."""
    return values.is_floating_point() and values.dtype.itemsize > 1


def check_dense(name: str, values: Tensor, shape: str) -> None:
    """Check that ``values`` is a dense tensor.

    ``shape`` is the expected shape in letters, such as ``(B, C, H, W)``: numbers would bind a compiled graph to them.

    Raises:
        InputTypeError: the tensor is sparse or nested.
    """
    if values.is_nested or values.layout != torch.strided:
        kind = "nested" if values.is_nested else str(values.layout).removeprefix("torch.")
        raise InputTypeError(f"{name}: expected a dense tensor {shape}, got a {kind} one; make it dense before")


def check_same_device(name: str, values: Tensor, device: torch.device) -> None:
    """Check that ``values`` are on the device of the images.

    Raises:
        InputError: they are on another device.
    """
    if values.device != device:
        raise InputError(
            f"{name}: expected a tensor on {device}, as the images, got one on {values.device}; move it before"
        )


def check_flag(name: str, value: Any) -> bool:
    """Return ``value``; raise `InputTypeError` unless it is True or False, as the text "no" would count as True."""
    if not isinstance(value, bool):
        raise InputTypeError(f"{name}: expected True or False, got {brief(value)}")
    return value


def channel_statistics(name: str, pair: tuple[Any, Any]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation per channel, or raise an error that begins with ``name``."""
    try:
        mean, std = (torch.as_tensor(v, dtype=torch.float64).reshape(-1) for v in pair)
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError(f"{name}: expected (mean, std), each a number or one number per channel") from None
    # As float32, in which images are normalized: there 1e-60 is 0 and 1e300 is infinite.
    values = torch.cat([mean, std]).to(torch.float32)
    if not len(mean) == len(std) > 0 or not bool((values[len(mean) :] > 0).all() and values.isfinite().all()):
        raise InputError(f"{name}: expected finite (mean, std) of equal length with std above 0, got {pair!r:.99}")
    return mean.tolist(), std.tolist()
