"""Checks of arguments: dense tensors, floating dtypes, devices, flags, and statistics of channels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from augkit.core.errors import InputError, InputTypeError


def is_float(values: Tensor) -> bool:
    """Whether ``values`` are of a floating dtype that torch computes with, which those of 8 bits are not."""
    return values.is_floating_point() and values.dtype.itemsize > 1


def check_dense(name: str, values: Tensor, shape: str) -> None:
    """Raise where ``values`` is a sparse or a nested tensor.

    ``shape`` is the expected shape in letters, such as ``(B, C, H, W)``: numbers would bind a compiled graph to them.

    Raises:
        InputTypeError: one line.
    """
    if values.is_nested or values.layout != torch.strided:
        kind = "nested" if values.is_nested else str(values.layout).removeprefix("torch.")
        raise InputTypeError(f"{name}: expected a dense tensor {shape}, got a {kind} one; make it dense before")


def check_same_device(name: str, values: Tensor, device: torch.device) -> None:
    """Raise where ``values`` are on another device than the images, which are on ``device``.

    Raises:
        InputError: one line.
    """
    if values.device != device:
        raise InputError(
            f"{name}: expected a tensor on {device}, as the images, got one on {values.device}; move it before"
        )


def check_flag(name: str, value: Any) -> bool:
    """``value``; raises `InputTypeError` unless it is True or False: of text, "no" would count as True."""
    if not isinstance(value, bool):
        raise InputTypeError(f"{name}: expected True or False, got {value!r}")
    return value


def channel_statistics(name: str, pair: tuple[Any, Any]) -> tuple[list[float], list[float]]:
    """Mean and standard deviation per channel; raises, with ``name`` first, for anything else."""
    try:
        mean, std = (torch.as_tensor(v, dtype=torch.float64).reshape(-1) for v in pair)
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError(f"{name}: expected (mean, std), each a number or one number per channel") from None
    # As float32, in which images are normalised: there 1e-60 is 0 and 1e300 is infinite.
    values = torch.cat([mean, std]).to(torch.float32)
    if not len(mean) == len(std) > 0 or not bool((values[len(mean) :] > 0).all() and values.isfinite().all()):
        raise InputError(f"{name}: expected finite (mean, std) of equal length with std above 0, got {pair!r:.99}")
    return mean.tolist(), std.tolist()
