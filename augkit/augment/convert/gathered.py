"""What a conversion has read of a pipeline, and the arguments of `augkit.Augment` that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from augkit.augment.base import RandomGeometry
from augkit.core.errors import InputError

Options = Mapping[str, Any]  # arguments of `augkit.Augment`
# From the coarsest kernel to the finest: one resampling has one, that of its most careful op.
KERNELS = ("nearest", "bilinear", "bicubic", "lanczos3")
_FLIPS = ("RandomHorizontalFlip", "RandomVerticalFlip")


@dataclass
class Gathered:
    """The ops of a pipeline, in order, and how they resample.

    Attributes:
        call: the name of the method, for errors.
        options: arguments of `augkit.Augment` that the caller has given and that come before the pipeline's own.
        refused: what cannot be taken, each with its reason.
    """

    call: str
    options: Options
    geometry: list[RandomGeometry] = field(default_factory=list)
    colors: list[nn.Module] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    paddings: set[str] = field(default_factory=set)
    antialias: bool = False
    dtype: torch.dtype | None = None
    normalize: tuple[Any, Any] | None = None
    same_on_batch: bool | None = None
    refused: list[str] = field(default_factory=list)
    _local: list[str] = field(default_factory=list)  # color ops that look at neighbours or places

    def refuse(self, name: str, reason: str) -> None:
        """Note that an op cannot be taken."""
        self.refused.append(f"{name} ({reason})")

    def move(self, op: RandomGeometry, kernel: str | None = None, padding: str | None = None) -> None:
        """Add geometry; ``kernel`` and ``padding`` are None where the op moves whole pixels, or sees none outside."""
        self.geometry.append(op)
        name = type(op).__name__
        for local in self._local if name not in _FLIPS else ():
            self.refuse(local, f"before {op.policy_name}; put it after all geometry")
            self._local.remove(local)
        if self.normalize is not None and padding is not None:
            self.refuse("Normalize", f"before {op.policy_name}, which fills with 0; put it last")
        if kernel is not None:
            self.kernels.add(kernel)
        if padding is not None:
            self.paddings.add(padding)

    def color(self, op: nn.Module, *, local: bool = False) -> None:
        """Add a color op of Kornia's; ``local`` ones look at neighbours, and do not commute with a resize."""
        name = type(op).__name__
        if self.normalize is not None:
            self.refuse(name, "after Normalize; put Normalize last")
        self.colors.append(op)
        if local:
            self._local.append(name)

    def normalized(self, mean: Any, std: Any) -> None:
        """Note a normalisation, which `augkit.Augment` applies last."""
        if self.normalize is not None:
            self.refuse("Normalize", "twice")
        self.normalize = (mean, std)

    def arguments(self) -> tuple[list[nn.Module], Options]:
        """Return ops and keyword arguments of `augkit.Augment`.

        Raises:
            InputError: one line that names all that cannot be taken.
        """
        if len(self.paddings) > 1 and "padding" not in self.options:
            self.refuse("different paddings", f"{', '.join(sorted(self.paddings))}; choose one with padding=...")
        if self.refused:
            raise InputError(
                f"{self.call}: cannot take {', '.join(dict.fromkeys(self.refused))}; leave them out, or apply them"
                " apart, such as in the workers before Augment"
            )
        own: Options = {
            "kernel": max(self.kernels, key=KERNELS.index, default="bilinear"),
            "padding": next(iter(self.paddings), "zeros"),
            "antialias": self.antialias,
            "normalize": self.normalize,
            "dtype": self.dtype,
            "same_on_batch": self.same_on_batch,
        }
        return [*self.geometry, *self.colors], {**own, **self.options}
