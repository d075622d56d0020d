"""Reading and replacing the images and targets of a batch, for all adapters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from augkit.augment.compose import Augment
from augkit.augment.op_strengths import Strength
from augkit.core.errors import InputError, InputTypeError

Key = int | str


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
    """Raise unless ``augment`` can be called and ``keys`` is a `Keys`; the name of the adapter begins the message."""
    if not callable(augment):
        kind = type(augment).__name__
        raise InputTypeError(f"{adapter}: expected an augkit.Augment, got {kind}; of a policy use policy.augment(size)")
    if not isinstance(keys, Keys):
        raise InputTypeError(f"{adapter}: expected keys as Keys(images=...), got {keys!r}")


def augmented(augment: Augment, batch: Any, keys: Keys, strength: Strength | None = None) -> dict[Key, Tensor]:
    """The augmented values of the entries of ``batch`` that ``keys`` names, by key.

    Raises:
        InputError: the batch has no such entry.
        InputTypeError: the entry is no tensor.
    """
    found = {name: entry(batch, key) for name, key in keys.present().items()}
    images = found.pop("images")
    out = augment(images, **found, strength=strength)
    if not found:
        return {keys.images: out}
    return {key: getattr(out, name) for name, key in keys.present().items()}


def replaced(batch: Any, values: dict[Key, Tensor]) -> Any:
    """A shallow copy of ``batch``, of the same type, with the entries in ``values`` replaced."""
    if isinstance(batch, Tensor):
        return values[0]
    if isinstance(batch, MutableMapping):
        other = copy.copy(batch)  # its constructor may not take a mapping: that of a defaultdict does not
        other.update(values)
        return other
    if isinstance(batch, Mapping):
        return type(batch)({**batch, **values})  # type: ignore[call-arg]
    entries = list(batch)
    for place, value in values.items():
        entries[place] = value  # type: ignore[index]  # a negative place counts from the end
    return type(batch)(*entries) if hasattr(batch, "_fields") else type(batch)(entries)


def entry(batch: Any, key: Key) -> Tensor:
    """The tensor at ``key`` of ``batch``; raises as `augmented` does."""
    if isinstance(batch, Tensor) and key == 0:
        return batch
    try:
        value = batch[key]
    except (KeyError, IndexError, TypeError):
        names = list(batch) if isinstance(batch, Mapping) else f"{type(batch).__name__} of positions"
        raise InputError(f"batch: expected an entry {key!r}, got {names}; name the place with Keys(...)") from None
    if not isinstance(value, Tensor):
        raise InputTypeError(f"batch[{key!r}]: expected a tensor, got {type(value).__name__}; convert it before")
    return value
