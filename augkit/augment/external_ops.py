"""Ops of other packages in a policy, by class name and arguments: Kornia's on the device, albumentations' in workers.

A policy can name only classes of ``kornia.augmentation``, ``albumentations`` and augkit itself, so that a recipe from
another source cannot run other code. Arguments are checked against the signature, because Kornia silently ignores some
unknown arguments and albumentations only warns.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError, model_serializer
from torch import Tensor, nn

from augkit.augment.color import RESIZING
from augkit.core.errors import InputError, unknown_name
from augkit.core.schema import Data

REFUSED = ("Normalize", "Denormalize")  # `data.mean` and `data.std` of a recipe normalize


class Op(Data):
    """An op of a policy: the name of its class, and its arguments."""

    model_config = ConfigDict(extra="allow")

    op: str = Field(min_length=1, description="class name; all further keys are its arguments")

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments, with lists converted to tuples, which YAML lacks."""
        return {key: _tuples(value) for key, value in (self.model_extra or {}).items()}

    @model_serializer
    def _whole(self) -> dict[str, object]:
        """Keep arguments that are None under ``exclude_none``, because None differs from an absent argument."""
        return {"op": self.op, **(self.model_extra or {})}

    def __str__(self) -> str:
        values = ", ".join(f"{key} {value}" for key, value in (self.model_extra or {}).items())
        return f"{self.op} ({values})" if values else self.op


def device_op(op: Op) -> nn.Module:
    """Return the op as a module that augments batches on the device.

    Raises:
        ValueError: the class or an argument is unknown, or the class rejects a value.
    """
    import kornia.augmentation

    from augkit.augment.ops import op_classes

    own = {name: made for name, made in op_classes().items() if made.spec is not None}
    base = kornia.augmentation.AugmentationBase2D
    known = _classes(kornia.augmentation, base, (*RESIZING, *REFUSED))
    # Some names exist in both; arguments that only Kornia's class takes, such as `degrees`, tell them apart.
    if op.op in own and (_takes(own[op.op], op) or not (op.op in known and _takes(known[op.op], op))):
        return _made(own[op.op], op)
    return _made(_named(op.op, known, list(own), "kornia.augmentation"), op)


def worker_op(op: Op) -> Any:
    """Return the op as a transform of albumentations; errors as in `device_op`."""
    import albumentations

    bases = (albumentations.ImageOnlyTransform, albumentations.DualTransform)
    known = _classes(albumentations, bases, ("Lambda", "Normalize", "ToFloat", "ToTensorV2", "ToTensor3D"))
    return _made(_named(op.op, known, (), "albumentations"), op)


@dataclass(frozen=True)
class WorkerStep:
    """Ops of albumentations on decoded images, drawn from seed, epoch and image number (`augkit.data.images.Step`).

    The result depends neither on the batch, nor on the order, nor on the number of workers. ``chosen`` ``(N,)`` bool
    says which images, by their numbers, the ops are for; all when None.
    """

    ops: Sequence[Op]
    strength: float
    seed: int
    epoch: int
    chosen: Tensor | None = field(default=None, compare=False)
    _built: list[Any] = field(default_factory=list, repr=False, compare=False)  # the pipeline, made once per process

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_built": []}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """Augment ``pixels`` ``(B, C, H, W)`` uint8 of the images ``numbers`` ``(B,)``; the shape stays the same.

        Raises:
            InputError: an op fails, or changes the size or the dtype.
        """
        out = torch.empty_like(pixels)
        for k, number in enumerate(numbers.tolist()):
            meant = self.chosen is None or bool(self.chosen[number])
            out[k] = self._apply(pixels[k], number) if meant else pixels[k]
        return out

    def _apply(self, image: Tensor, number: int) -> Tensor:
        import albumentations

        if not self._built:
            self._built.append(albumentations.Compose([worker_op(op) for op in self.ops]))
        mixed = np.random.SeedSequence([self.seed, self.epoch, number])
        coin, seed = mixed.generate_state(2).tolist()
        if coin >= self.strength * 2**32:
            return image
        compose, array = self._built[0], image.permute(1, 2, 0).contiguous().numpy()
        # One generator for all ops: `set_random_seed` would give each op a generator with the same draws.
        compose.set_random_state(np.random.default_rng(mixed), random.Random(seed))
        names = ", ".join(op.op for op in self.ops)
        try:
            found = compose(image=array)["image"]
        except Exception as error:  # ops raise many kinds of errors
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise InputError(f"policy.worker_ops: {names} fails on an image {array.shape} ({reason[:160]})") from None
        found = found[..., None] if found.ndim == 2 else found
        if found.shape != array.shape or found.dtype != np.uint8:
            kept, got = f"uint8 {array.shape}", f"{found.dtype} {found.shape}"
            raise InputError(f"policy.worker_ops: expected {names} to keep {kept}, got {got}")
        return torch.from_numpy(np.ascontiguousarray(found)).permute(2, 0, 1)


def _classes(module: Any, bases: Any, without: Sequence[str]) -> dict[str, type]:
    found = {name: getattr(module, name) for name in dir(module) if inspect.isclass(getattr(module, name))}
    return {
        name: value
        for name, value in found.items()
        if issubclass(value, bases) and "Base" not in name and value not in _several(bases) and name not in without
    }


def _several(bases: Any) -> tuple[type, ...]:
    return bases if isinstance(bases, tuple) else (bases,)


def _named(name: str, known: Mapping[str, type], more: Sequence[str], package: str) -> type:
    if name not in known:
        raise ValueError(f"a class of {package} that keeps the size; {unknown_name('op', name, [*known, *more])}")
    return known[name]


def _arguments(make: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(make).parameters.values()
    return [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]


def _takes(make: Callable[..., Any], op: Op) -> bool:
    return set(op.arguments) <= set(_arguments(make))


def _made(make: Callable[..., Any], op: Op) -> Any:
    known = _arguments(make)
    for key in op.arguments:
        if key not in known:
            raise ValueError(f"arguments of {op.op}; {unknown_name('argument', key, known)}")
    try:
        return make(**op.arguments)
    except Exception as error:  # classes raise many kinds of errors
        raise ValueError(f"arguments that {op.op} takes ({_reason(error)[:160]})") from None


def _reason(error: Exception) -> str:
    cause = error if isinstance(error, ValidationError) else error.__cause__ or error.__context__
    if not isinstance(cause, ValidationError):
        return " ".join(str(error).split())
    first = cause.errors()[0]  # of albumentations, whose whole message has several lines and a URL
    return ": ".join([*map(str, first["loc"]), first["msg"].removeprefix("Value error, ")])


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
