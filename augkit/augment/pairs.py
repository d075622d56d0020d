"""Ranges per axis: a number for both axes, or a pair ``(x, y)``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from augkit.augment.geometry import along_axes
from augkit.core.errors import InputError, brief, check_number

PerAxis = float | tuple[float, float]


def check_pair(name: str, value: Any, low: float, high: float) -> PerAxis:
    """``value`` as a float or a pair of floats, each in ``[low, high]``.

    Raises:
        InputError: neither a number nor a pair, or out of bounds.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        number: Any = value
        return check_number(name, number, low, high)
    if len(value) != 2:
        raise InputError(f"{name}: expected a number or a pair (x, y), got {brief(value)}")
    x, y = (check_number(name, one, low, high) for one in value)
    return x, y


def both(value: PerAxis) -> tuple[float, float]:
    """The values along x and along y."""
    return value if isinstance(value, tuple) else (value, value)


def as_factor(value: PerAxis, like: Tensor) -> float | Tensor:
    """A number as it is, a pair as ``(2,)`` with the device and dtype of ``like``."""
    return along_axes(*value, like) if isinstance(value, tuple) else value


def shown(value: PerAxis, unit: str = "") -> str:
    """``value`` as text: ``± 3°`` for a number, ``± 3° along x, ± 1° along y`` for a pair."""
    if isinstance(value, tuple):
        return f"± {value[0]:g}{unit} along x, ± {value[1]:g}{unit} along y"
    return f"± {value:g}{unit} along x and y"
