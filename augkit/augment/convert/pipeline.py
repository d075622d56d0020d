"""The ops of a pipeline as they are converted, and the resulting arguments of `augkit.Augment`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from augkit.augment.base import RandomGeometry, Size
from augkit.core.errors import InputError

Options = Mapping[str, Any]  # arguments of `augkit.Augment`
# From the coarsest to the finest; the single resampling uses the finest kernel of all ops.
KERNELS = ("nearest", "bilinear", "bicubic", "lanczos3")
_PROBES = ((8, 8), (8, 4096), (4096, 8))  # sizes of images that differ in all that a resize may depend on
_FLIPS = ("RandomHorizontalFlip", "RandomVerticalFlip")


@dataclass
class ConvertedPipeline:
    """The converted ops of a pipeline, in order, and how they resample.

    Attributes:
        call: name of the method, for errors.
        options: arguments of `augkit.Augment` from the caller; they take precedence over those of the pipeline.
        geometry: converted geometric ops.
        colors: converted color ops.
        kernels, paddings: kernels and paddings of all geometric ops.
        beyond: whether an op without a padding of its own may show what lies beyond the image, as 0.
        antialias: whether an op resizes with antialias.
        dtype: dtype of the output; None keeps that of the input.
        normalize: mean and standard deviation; None without normalization.
        same_on_batch: whether all samples share their draws; None if no op sets it.
        refused: ops that cannot be converted, each with the reason.
    """

    call: str
    options: Options
    geometry: list[RandomGeometry] = field(default_factory=list)
    colors: list[nn.Module] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    paddings: set[str] = field(default_factory=set)
    beyond: bool = False
    antialias: bool = False
    dtype: torch.dtype | None = None
    normalize: tuple[Any, Any] | None = None
    same_on_batch: bool | None = None
    refused: list[str] = field(default_factory=list)
    _local: list[str] = field(default_factory=list)  # color ops that depend on neighboring pixels or positions

    def refuse(self, name: str, reason: str) -> None:
        """Record an op that cannot be converted."""
        self.refused.append(f"{name} ({reason})")

    def move(self, op: RandomGeometry, kernel: str | None = None, padding: str | None = None) -> None:
        """Add a geometric op; ``kernel`` or ``padding`` is None if the op does not need it."""
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
        """Add a color op of Kornia; a ``local`` op depends on neighboring pixels and does not commute with geometry."""
        name = type(op).__name__
        if self.normalize is not None:
            self.refuse(name, "after Normalize; put Normalize last")
        self.colors.append(op)
        if local:
            self._local.append(name)

    def normalized(self, mean: Any, std: Any) -> None:
        """Record a normalization, which `augkit.Augment` applies last."""
        if self.normalize is not None:
            self.refuse("Normalize", "twice")
        self.normalize = (mean, std)

    def fills(self, window: Size) -> bool:
        """Whether images of any size are at least as large as ``window`` after the ops so far."""
        for probe in _PROBES:
            height, width = probe
            for op in self.geometry:
                height, width = op.output_size((height, width))
            if height < window[0] or width < window[1]:
                return False
        return True

    def arguments(self) -> tuple[list[nn.Module], Options]:
        """Return the ops and keyword arguments of `augkit.Augment`.

        Raises:
            InputError: some ops cannot be converted; the message names them all.
        """
        if len(self.paddings) > 1 and "padding" not in self.options:
            self.refuse("different paddings", f"{', '.join(sorted(self.paddings))}; choose one with padding=...")
        if self.refused:
            raise InputError(
                f"{self.call}: cannot convert {', '.join(dict.fromkeys(self.refused))}; remove them, or apply them"
                " separately, such as in the workers before Augment"
            )
        # The libraries' resizes repeat the pixels of the border, where zeros would make a dark rim.
        outside = "border" if self.kernels and not self.beyond else "zeros"
        own: Options = {
            "kernel": max(self.kernels, key=KERNELS.index, default="bilinear"),
            "padding": next(iter(self.paddings), outside),
            "antialias": self.antialias,
            "normalize": self.normalize,
            "dtype": self.dtype,
            "same_on_batch": self.same_on_batch,
        }
        return [*self.geometry, *self.colors], {**own, **self.options}
