"""Where the images and the targets of a batch are, whoever made it; what the adapters share."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from typing import Any

from torch import Tensor

from augkit.augment.compose import Augment
from augkit.core.errors import InputError, InputTypeError

Key = int | str


@dataclass(frozen=True)
class Keys:
    """The places in a batch: positions where it is a sequence, names where it is a mapping; None where absent."""

    images: Key = 0
    masks: Key | None = None
    boxes: Key | None = None
    keypoints: Key | None = None

    def __post_init__(self) -> None:
        places = list(self.present().values())
        if "images" not in self.present() or len(set(places)) != len(places):
            raise InputError(f"Keys: expected a place for images, and no place twice, got {self}")

    def present(self) -> dict[str, Key]:
        """Targets and images that have a place, under the names of `Augment`."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: key for name, key in pairs if key is not None}


IMAGES_FIRST = Keys()


def check_door(door: str, augment: Any, keys: Any = IMAGES_FIRST) -> None:
    """Raise where ``augment`` cannot be called, as a policy cannot, or ``keys`` are none; ``door`` begins the line."""
    if not callable(augment):
        kind = type(augment).__name__
        raise InputTypeError(f"{door}: expected an augkit.Augment, got {kind}; of a policy use policy.augment(size)")
    if not isinstance(keys, Keys):
        raise InputTypeError(f"{door}: expected keys as Keys(images=...), got {keys!r}")


def augmented(augment: Augment, batch: Any, keys: Keys, strength: float | Tensor | None = None) -> dict[Key, Tensor]:
    """Augment what ``keys`` names in ``batch``: the new value of each place.

    Raises:
        InputError: the batch has no such place.
        InputTypeError: what is there is no tensor.
    """
    found = {name: entry(batch, key) for name, key in keys.present().items()}
    images = found.pop("images")
    out = augment(images, **found, strength=strength)
    if not found:
        return {keys.images: out}
    return {key: getattr(out, name) for name, key in keys.present().items()}


def replaced(batch: Any, values: dict[Key, Tensor]) -> Any:
    """A copy of ``batch``, of the same type, with ``values`` in their places."""
    if isinstance(batch, Tensor):
        return values[0]
    if isinstance(batch, MutableMapping):
        other = copy.copy(batch)  # not its constructor, which need not take a mapping: a defaultdict's does not
        other.update(values)
        return other
    if isinstance(batch, Mapping):
        return type(batch)({**batch, **values})  # type: ignore[call-arg]
    entries = list(batch)
    for place, value in values.items():
        entries[place] = value  # type: ignore[index]  # counted from the end where negative
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
