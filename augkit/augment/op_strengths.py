"""Strength per op: a mapping from the names of ops to numbers, in place of one number for all.

A name is the key of the op in a policy (`augkit.augment.op_spec.OpSpec`); the blur control of a shift is a ``shift``
too, an op without a spec goes by its class, and `KORNIA` stands for all of Kornia's ops, which share one coin.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from augkit.augment.base import checked_strength
from augkit.core.errors import InputError, check_number, unknown_name

KORNIA = "ops"  # as the field of a policy that holds them

# A number or ``(B,)`` for all ops, or for each op that is named.
Strength = float | Tensor | Mapping[str, float | Tensor]


def completed(strength: Strength, names: Iterable[str], default: Strength) -> Strength:
    """``strength`` with an entry for every one of ``names`` where it is a mapping: ``default`` where it has none.

    A default that is a mapping leaves the ops that it does not name at 1.

    Raises:
        InputError: the strength of an op that is not among ``names``.

    >>> completed({"shift": 0.5}, ["shift", "rescale"], 1.0)
    {'shift': 0.5, 'rescale': 1.0}
    """
    if not isinstance(strength, Mapping):
        return strength
    known = list(names)
    for name in strength:
        if name not in known:
            raise InputError(f"strength: {unknown_name('op', name, known)}")
    return {name: strength[name] if name in strength else of_op(default, name) for name in known}


def of_op(strength: Strength, name: str) -> float | Tensor:
    """The strength of the op called ``name``: that of all ops, or its own entry, 1 without one."""
    return strength.get(name, 1.0) if isinstance(strength, Mapping) else strength


def checked_strengths(strength: Strength, batch: int, device: torch.device) -> Strength:
    """`checked_strength` of one strength for all ops, or of every entry of a mapping.

    Raises:
        InputError, InputTypeError: a strength outside [0, 1], or of another shape or kind.
    """
    if isinstance(strength, Mapping):
        return {name: checked_strength(value, batch, device, f"strength of {name}") for name, value in strength.items()}
    return checked_strength(strength, batch, device)


def constant_strength(strength: float | Mapping[str, float], names: Iterable[str]) -> float | dict[str, float]:
    """The ``strength`` of a transform's own: a number in [0, 1] for all ops, or one for each that is named."""
    if not isinstance(strength, Mapping):
        return check_number("strength", strength, 0.0, 1.0)
    completed(strength, names, 1.0)
    return {name: check_number(f"strength of {name}", value, 0.0, 1.0) for name, value in strength.items()}


def scaled(strength: Strength, factor: Tensor) -> Strength:
    """``strength`` times ``factor`` ``(B,)``, for all ops."""
    if isinstance(strength, Mapping):
        return {name: value * factor for name, value in strength.items()}
    return strength * factor
