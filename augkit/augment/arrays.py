"""Conversion of numpy images of any dtype, byte order and strides to tensors and back."""

from __future__ import annotations

import numpy as np
import torch

from augkit.core.errors import InputError, InputTypeError


def unit_of(dtype: np.dtype) -> float:
    """Return the value that represents 1 in an image of ``dtype``: the largest integer, or 1 for floats and uint8.

    uint8 is not scaled because `Augment` accepts it.
    """
    integer = dtype.kind in "iu" and dtype != np.uint8
    return float(np.iinfo(dtype).max) if integer else 1.0


def check_array(image: np.ndarray, name: str = "image") -> None:
    """Raise InputError or InputTypeError unless ``image`` is ``(H, W[, C])`` of real numbers of at most 64 bits."""
    if image.dtype.kind not in "biuf" or image.dtype.itemsize > 8:
        raise InputTypeError(f"{name}: expected an array of numbers of at most 64 bits, got {image.dtype}")
    if image.ndim not in (2, 3):
        raise InputError(f"{name}: expected (H, W) or (H, W, C), got {image.shape}")


def working(image: np.ndarray, unit: float) -> np.ndarray:
    """Return ``image`` in a dtype for `Augment`: uint8 and floats unchanged, others as floats divided by ``unit``."""
    if image.dtype == np.uint8 or image.dtype.kind == "f":
        return image
    exact = np.dtype(np.float32 if image.dtype.itemsize <= 2 else np.float64)
    return image.astype(exact) / exact.type(unit)


def restored(image: np.ndarray, dtype: np.dtype, unit: float) -> np.ndarray:
    """Undo `working`: round to the nearest integer, halves to even, and clip to the range of ``dtype``."""
    if image.dtype == dtype:
        return image
    if dtype.kind == "f":  # of another byte order
        return image.astype(dtype)
    if dtype.kind == "b":
        return image > 0.5
    limits, whole = np.iinfo(dtype), np.rint(image * image.dtype.type(unit))
    top = whole.dtype.type(limits.max)
    if int(top) > limits.max:  # the largest 64-bit integers have no exact float, and the next larger float overflows
        top = np.nextafter(top, whole.dtype.type(0))
    inside = np.clip(whole, limits.min, top).astype(dtype)
    return np.where(whole > top, dtype.type(limits.max), inside).astype(dtype, copy=False)


def to_tensor(image: np.ndarray) -> torch.Tensor:
    """Return an image ``(H, W)`` or ``(H, W, C)`` as ``(1, C, H, W)``, without a copy where torch allows it.

    Raises:
        InputError, InputTypeError: as `check_array`, such as for an array of objects.
    """
    check_array(image)
    native = image if image.dtype.isnative else image.astype(image.dtype.newbyteorder("="))
    # Torch does not support negative strides, and warns about read-only arrays.
    tensor = torch.from_numpy(np.require(native, requirements=["C", "W"]))
    return tensor[None, None] if image.ndim == 2 else tensor.permute(2, 0, 1)[None]


def from_tensor(images: torch.Tensor, ndim: int) -> np.ndarray:
    """Return ``(1, C, H, W)`` as ``(H, W, C)``, or as ``(H, W)`` where ``ndim`` is 2."""
    return images[0, 0].numpy() if ndim == 2 else images[0].permute(1, 2, 0).contiguous().numpy()
