"""Classes that a recipe names, by their name or their number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from augkit.core.errors import InputError, unknown_name


def class_mask(wanted: Sequence[int | str] | None, names: Sequence[str], field: str) -> Tensor | None:
    """Whether each class is among ``wanted``, ``(K,)`` bool; None where ``wanted`` is.

    Args:
        wanted: names of classes, or numbers from 0.
        names: the names of all K classes.
        field: the recipe's field, for messages.

    Raises:
        InputError: a name is not among ``names``, or a number is beyond them.

    >>> class_mask(["cat", 2], ["cat", "dog", "owl"], "policy.classes")
    tensor([ True, False,  True])
    """
    if wanted is None:
        return None
    mask = torch.zeros(len(names), dtype=torch.bool)
    for one in wanted:
        if isinstance(one, str) and one not in names:
            raise InputError(f"{field}: {unknown_name('class', one, names)}")
        if not isinstance(one, str) and not 0 <= one < len(names):
            raise InputError(f"{field}: expected numbers from 0 to {len(names) - 1}, got {one}")
        mask[list(names).index(one) if isinstance(one, str) else one] = True
    return mask
