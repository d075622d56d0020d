"""Reading and replacing the images and targets of a batch, for all adapters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from torch import Tensor

from augkit.augment.compose import Augment
from augkit.augment.op_strengths import Strength
from augkit.augment.ragged import Ragged
from augkit.core.errors import InputError, InputTypeError, brief

Key = int | str
ALONE = (Tensor, Ragged, np.ndarray)  # a batch or sample that is its images; an array only as a sample


@dataclass(frozen=True)
class Keys:
    """The keys of images and targets in a batch: positions in a sequence, names in a mapping; None where absent."""

    images: Key = 0
    masks: Key | None = None
    boxes: Key | None = None
    keypoints: Key | None = None

    def __post_init__(self) -> None:
        places = list(self.present().values())
        if "images" not in self.present() or len(set(places)) != len(places):
            raise InputError(f"Keys: expected a place for images, and no place twice, got {self}")

    def present(self) -> dict[str, Key]:
        """The keys that are not None, by the argument of `Augment`."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: key for name, key in pairs if key is not None}


IMAGES_FIRST = Keys()


def check_arguments(adapter: str, augment: Any, keys: Any = IMAGES_FIRST) -> None:
    """Raise unless ``augment`` can be called and ``keys`` is a `Keys`; messages begin with the adapter's name."""
    if not callable(augment):
        kind = type(augment).__name__
        raise InputTypeError(f"{adapter}: expected an augkit.Augment, got {kind}; of a policy use policy.augment(size)")
    if not isinstance(keys, Keys):
        raise InputTypeError(f"{adapter}: expected keys as Keys(images=...), got {brief(keys)}")


def augmented(augment: Augment, batch: Any, keys: Keys, strength: Strength | None = None) -> dict[Key, Any]:
    """Return the augmented values of the entries ``keys`` of ``batch``, by key.

    Entries are tensors, or an `augkit.Ragged` or list of images with lists of targets, as `Augment` takes them.

    Raises:
        InputError: the batch has no such entry.
        InputTypeError: the entry is not a tensor.
    """
    found = {name: _tensors(batch, key) for name, key in keys.present().items()}
    images = found.pop("images")
    out = augment(images, **found, strength=strength)
    if not found:
        return {keys.images: out}
    return {key: getattr(out, name) for name, key in keys.present().items()}


def replaced(batch: Any, values: dict[Key, Any]) -> Any:
    """Return a shallow copy of ``batch``, of the same type, with the entries in ``values`` replaced."""
    if isinstance(batch, ALONE):
        return values[0]
    if isinstance(batch, MutableMapping):
        other = copy.copy(batch)  # its constructor may not accept a mapping, as that of a defaultdict
        other.update(values)
        return other
    if isinstance(batch, Mapping):
        return type(batch)({**batch, **values})  # type: ignore[call-arg]
    entries = list(batch)
    for place, value in values.items():
        entries[place] = value  # type: ignore[index]  # a negative place counts from the end
    return type(batch)(*entries) if hasattr(batch, "_fields") else type(batch)(entries)


def entry(batch: Any, key: Key) -> Tensor:
    """Return the tensor at ``key`` of ``batch``; errors as in `augmented`."""
    value = value_at(batch, key)
    if not isinstance(value, Tensor):
        raise InputTypeError(f"batch[{key!r}]: expected a tensor, got {type(value).__name__}; convert it before")
    return value


def has_sizes(batch: Any, key: Key) -> bool:
    """Whether images of different sizes, a `Ragged` or a list of tensors, stand at ``key`` of ``batch``."""
    found = batch if isinstance(batch, Ragged) else _found(batch, key)
    return isinstance(found, Ragged) or (isinstance(found, list) and bool(found) and all(map(_is_image, found)))


def images_at(batch: Any, key: Key) -> Tensor | Ragged:
    """Return the images at ``key`` of ``batch``, those of a list as a `Ragged`; errors as in `augmented`."""
    value = _tensors(batch, key)
    return Ragged.from_list(value) if isinstance(value, list) else value


def value_at(batch: Any, key: Key) -> Any:
    """Whatever stands at ``key`` of a batch, or of a sample; images alone are their own entry 0."""
    if isinstance(batch, ALONE) and key == 0:
        return batch
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError):
        names = list(batch) if isinstance(batch, Mapping) else f"{type(batch).__name__} of positions"
        raise InputError(f"batch: expected an entry {key!r}, got {names}; name the place with Keys(...)") from None


def _tensors(batch: Any, key: Key) -> Any:
    """The tensor at ``key``, or those of images of different sizes and of their targets."""
    value = value_at(batch, key)
    if isinstance(value, Ragged) or (isinstance(value, list) and all(isinstance(one, Tensor) for one in value)):
        return value
    return entry(batch, key)


def _found(batch: Any, key: Key) -> Any:
    try:
        return batch[key]
    except (KeyError, IndexError, TypeError):
        return None


def _is_image(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim == 3
