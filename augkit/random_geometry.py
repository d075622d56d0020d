"""The base of all random ops, its place in Kornia, and the draws that feed it.

Inside ``kornia.augmentation.AugmentationSequential`` an op moves images, masks (nearest pixel), boxes and
keypoints, and ``inverse`` takes them back. Two conventions are Kornia's there: nothing is clipped, and a
``bbox_xyxy`` is two corners at the centres of pixels (the whole image is ``0, 0, W - 1, H - 1``), moved as points.
Boxes along the edges of pixels, as `augkit.Augment` takes them, are right when moved by half a pixel:

>>> import augkit, kornia.augmentation
>>> ops = kornia.augmentation.AugmentationSequential(
...     augkit.RandomSubpixelShift(2.0), augkit.RandomHorizontalFlip(p=1.0), data_keys=["input", "bbox_xyxy"]
... )
>>> images, boxes = torch.rand(1, 3, 8, 10), torch.tensor([[[0.0, 0.0, 10.0, 8.0]]])
>>> out, moved = ops(images, boxes - 0.5)
>>> moved = moved + 0.5
>>> (moved[..., 2:] - moved[..., :2]).round().tolist()
[[[10.0, 8.0]]]
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from kornia.augmentation import GeometricAugmentationBase2D
from torch import Tensor

from augkit import targets
from augkit.errors import InputError, InputTypeError
from augkit.geometry import Axes
from augkit.interpolation import check_names
from augkit.ranks import draws_of_rank, place_among_processes
from augkit.resampling import check_images, resample, resample_checked

Size = tuple[int, int]


class RandomGeometry(GeometricAugmentationBase2D):
    """Base of the ops. A subclass says how many uniform draws it takes and what map they make.

    Column 0 of the draws is the coin for ``p``: a sample not chosen gets the identity.
    """

    draws: ClassVar[int]

    def __init__(self, p: float, kernel: str, padding: str) -> None:
        # Kornia's own coin stays at 1: it would compute and blend every sample, and refuses crops.
        super().__init__(p=1.0)
        self.probability = check_range("p", p, 0.0, 1.0)
        check_names(kernel, padding)
        self.kernel, self.padding = kernel, padding

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        """The map of an input of ``size`` from draws ``(B, n)`` in [0, 1) and strength, a number or ``(B, 1)``."""
        raise NotImplementedError  # abstract: every op defines it

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        """`axes` as matrices ``(B, 3, 3)`` from input to output pixels; strength is a number or ``(B,)``."""
        return self.axes(draws, per_sample(strength), size).matrix(size, self.output_size(size))

    def output_size(self, size: Size) -> Size:
        """The size that an input of ``size`` leaves with."""
        return size

    def max_shrink(self, size: Size) -> float:
        """The most that the op shrinks an axis of an input of ``size``, at least 1: bounds the antialias taps."""
        del size
        return 1.0

    def chosen(self, draws: Tensor, values: Tensor) -> Tensor:
        """``values`` ``(B, n)`` where the coin fell on the op, 0 elsewhere: 0 is the identity of every parameter."""
        return values if self.probability == 1 else torch.where(draws[:, :1] < self.probability, values, 0.0)

    def forward(
        self,
        input: Tensor,
        params: dict[str, Tensor] | None = None,
        *,
        strength: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        data_keys: Any = None,
    ) -> Tensor:
        """Transform ``input`` ``(B, C, H, W)``; replay with ``params=op._params`` as in Kornia.

        ``data_keys`` is what Kornia's containers pass along; it is not used.
        """
        del data_keys
        check_images(input)
        if not input.is_floating_point():
            raise InputTypeError(f"images: expected a floating dtype (only Augment takes uint8), got {input.dtype}")
        if params is None:
            # Not through `forward_parameters`, which would draw from torch's global state as well.
            params = {
                "draws": draw(input.shape[0], self.draws, input.device, generator),
                "strength": strengths(strength, input.shape[0], input.device),
                "batch_prob": torch.ones(input.shape[0], device=input.device),
                "forward_input_shape": torch.tensor(input.shape),
            }
        return super().forward(input, params)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        draws = torch.rand(batch_shape[0], self.draws, device=self.device)
        return {"draws": draws, "strength": torch.ones(batch_shape[0], device=self.device)}

    def generate_transformation_matrix(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        # Kornia's would round the matrix to the images' dtype under autocast.
        return self.compute_transformation(input, params, flags)

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        del flags
        draws, strength = params["draws"].to(input.device), params["strength"].to(input.device)
        return self.matrix(draws, strength, (input.shape[-2], input.shape[-1]))

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        if transform is None:
            transform = self.compute_transformation(input, params, flags)
        size = (input.shape[-2], input.shape[-1])
        kernel = flags.get("kernel", self.kernel)
        return resample_checked(input, transform, self.output_size(size), kernel, self.padding, self.max_shrink(size))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        if transform is None:
            transform = self.compute_transformation(input, params, flags)
        size = self.output_size((input.shape[-2], input.shape[-1]))
        return targets.move_masks(input, transform, size, self.padding)

    def inverse_transform(
        self, input: Tensor, flags: dict[str, Any], transform: Tensor | None = None, size: Size | None = None
    ) -> Tensor:
        assert transform is not None  # Kornia always passes the inverted matrix
        if flags.get("kernel") == "nearest":
            return targets.move_masks(input, transform, size or (input.shape[-2], input.shape[-1]), self.padding)
        return resample(input, transform, size, kernel=self.kernel, padding=self.padding)

    def inverse_masks(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return super().inverse_masks(input, params, {**flags, "kernel": "nearest"}, transform, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def _shared_repr(self) -> str:
        kernel = "" if self.kernel == "bicubic" else f", kernel={self.kernel!r}"
        padding = "" if self.padding == "zeros" else f", padding={self.padding!r}"
        return f"p={self.probability}{kernel}{padding}"


def draw(batch: int, columns: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Uniform draws ``(batch, columns)`` in [0, 1) on ``device``, float32.

    Without a generator they come from torch's global state, and each of several processes has draws of its own.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputTypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != device.type:
        raise InputError(f"generator: expected one on {device}, got one on {generator.device}")
    draws = torch.rand(batch, columns, device=device, generator=generator, dtype=torch.float32)
    return draws if generator is not None else draws_of_rank(draws, place_among_processes()[0])


def checked_strength(strength: float | Tensor, batch: int, device: torch.device) -> float | Tensor:
    """``strength`` as a number, or as ``(batch,)`` float32 on ``device`` where a tensor came.

    Raises:
        InputError: a scalar outside [0, 1] or a tensor of another shape. Values of a tensor on an accelerator
            or in a compiled graph are clamped instead of checked, because a check would wait for the device.
    """
    if not isinstance(strength, Tensor):
        return check_range("strength", strength, 0.0, 1.0)
    if strength.shape not in {(), (batch,)}:
        raise InputError(f"strength: expected a scalar or shape ({batch},), got {tuple(strength.shape)}")
    checked = strength.device.type == "cpu" and not torch.compiler.is_compiling()
    if checked and not bool(((strength >= 0) & (strength <= 1)).all()):
        raise InputError("strength: expected values in [0, 1], got a tensor with values outside")
    return strength.to(device=device, dtype=torch.float32).clamp(0, 1).expand(batch)


def strengths(strength: float | Tensor, batch: int, device: torch.device) -> Tensor:
    """As `checked_strength`, always as ``(batch,)``."""
    checked = checked_strength(strength, batch, device)
    return checked if isinstance(checked, Tensor) else torch.full((batch,), checked, device=device)


def per_sample(strength: float | Tensor) -> float | Tensor:
    """A number as it is, ``(B,)`` as ``(B, 1)``."""
    return strength[:, None] if isinstance(strength, Tensor) else strength


def check_range(name: str, value: float, low: float, high: float) -> float:
    """``value`` as a float; raises where it is not a number in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputTypeError(f"{name}: expected a number, got {value!r}")
    if not low <= value <= high or value == math.inf:
        bounds = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise InputError(f"{name}: expected a number {bounds}, got {value:g}")
    return float(value)
