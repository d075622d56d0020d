"""The base class of augkit's random ops, which are Kornia augmentations, and their uniform draws.

Inside ``kornia.augmentation.AugmentationSequential`` an op moves images, masks (nearest pixel), boxes and
keypoints, and ``inverse`` moves them back. Kornia's conventions hold there: nothing is clipped, and a ``bbox_xyxy``
is two corners at the centers of pixels (the whole image is ``0, 0, W - 1, H - 1``), moved as points. To pass boxes
along the edges of pixels, as `augkit.Augment` takes them, subtract half a pixel before and add it after:

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
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from kornia.augmentation import GeometricAugmentationBase2D
from kornia.constants import Resample
from torch import Tensor

from augkit.augment import targets
from augkit.augment.checks import check_dense, check_flag, is_float
from augkit.augment.draw_programs import DrawProgram
from augkit.augment.geometry import Axes
from augkit.augment.kernels import check_names
from augkit.augment.op_spec import OpSpec
from augkit.augment.resample import check_images, resample, resample_checked
from augkit.core.errors import InputError, InputTypeError, check_number
from augkit.core.ranks import draws_of_rank, place_among_processes

Size = tuple[int, int]
View = Callable[[Tensor], Tensor]  # from further matrices (B, 3, 3) to the images, resampled once
Flags = Mapping[str, object]  # Kornia's settings of an op, which Kornia's containers may override


class RandomGeometry(GeometricAugmentationBase2D):
    """Base class of the ops: a map of pixel coordinates as a function of uniform draws.

    A subclass sets ``draws``, the number of uniform draws per sample, and defines `axes`, or `matrix` where its maps
    rotate, shear or are perspectives. Column 0 of the draws decides with probability ``p`` whether the op is applied to
    the sample; otherwise the sample gets the identity. With ``same_on_batch`` all samples of a batch share the first
    one's draws.
    """

    draws: int
    recolors: ClassVar[bool] = False  # whether `recolored` changes the images after the resampling
    spec: ClassVar[OpSpec[Any] | None] = None  # of the ops that a policy can name

    def __init__(self, p: float, kernel: str, padding: str, same_on_batch: bool = False) -> None:
        super().__init__(p=check_number("p", p, 0.0, 1.0), same_on_batch=check_flag("same_on_batch", same_on_batch))
        check_names(kernel, padding)
        self.kernel, self.padding = kernel, padding

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        """Return the map of an input of ``size`` for draws ``(B, n)`` in [0, 1); strength is a number or ``(B, 1)``."""
        raise NotImplementedError  # abstract: every op defines it, or `matrix`

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        """Return `axes` as matrices ``(B, 3, 3)`` from input to output pixels; strength is a number or ``(B,)``."""
        return self.axes(draws, per_sample(strength), size).matrix(size, self.output_size(size))

    @property
    def policy_name(self) -> str:
        """The name of the op in a policy and in a strength per op: that of its spec, or of its class without one."""
        spec = type(self).spec  # not `self.spec`, which torch.compile of torch 2.7 cannot read
        return type(self).__name__ if spec is None else spec.name

    @property
    def axis_aligned(self) -> bool:
        """Whether every matrix of the op keeps the axes apart: true where `axes` makes them.

        An op that defines `matrix` itself may set a class attribute of this name to True.
        """
        made = (type(self).matrix, type(self).compute_transformation)
        return made == (RandomGeometry.matrix, RandomGeometry.compute_transformation)

    @property
    def affine(self) -> bool:
        """Whether no matrix of the op is a perspective: true where `axes` makes them.

        An op that defines `matrix` itself may set a class attribute of this name to True, which is cheaper.
        """
        return self.axis_aligned

    @property
    def fixed(self) -> bool:
        """Whether the op draws nothing and applies to every sample at any strength, in ``eval()`` too (resizes)."""
        return False

    def draw_program(self, strength: float, size: Size) -> DrawProgram | None:
        """`axes` as numbers that `augkit.augment.backends.native_draws` compiles; None where it cannot."""
        del strength, size
        return None

    def output_size(self, size: Size) -> Size:
        """Return the size (H, W) of the output for an input of ``size``."""
        return size

    def max_shrink(self, size: Size) -> float:
        """Return the largest factor by which the op shrinks any direction of an input of ``size``, at least 1.

        It bounds the number of antialias taps. ``inf`` means unknown: the factor is then measured from the matrices,
        which synchronizes with the device.
        """
        del size
        return 1.0 if self.axis_aligned else math.inf

    def max_enlarge(self) -> float:
        """Return the largest factor by which the op enlarges content, at least 1; 1 where it is not known."""
        return 1.0

    def coin(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        """Whether the op is applied to each sample, ``(B,)`` bool; strength is a number or ``(B, 1)``."""
        del strength
        return draws[:, 0] < self.p

    def recolored(self, images: Tensor, draws: Tensor, strength: float | Tensor, view: View) -> Tensor:
        """Change floating ``images`` ``(B, C, H, W)`` in [0, 1] after the resampling by `matrix`, of the same draws.

        Strength is a number or ``(B,)``. ``view`` gives the images as they are after further matrices. Used only where
        `recolors` is true.
        """
        del draws, strength, view
        return images

    def chosen(self, draws: Tensor, values: Tensor) -> Tensor:
        """Return ``values`` ``(B, n)`` where the op is applied, else 0, which is the identity of every parameter."""
        return values if self.p == 1 else torch.where(draws[:, :1] < self.p, values, 0.0)

    def forward(
        self,
        input: Tensor,
        params: dict[str, Tensor] | None = None,
        *,
        strength: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        data_keys: Any = None,
        resample: Any = None,
        align_corners: bool | None = None,
    ) -> Tensor:
        """Transform ``input`` ``(B, C, H, W)``; replay with ``params=op._params`` as in Kornia.

        Kornia's containers pass the other arguments, from their ``extra_args`` for images: ``resample`` is another
        kernel for this call; ``data_keys`` and ``align_corners`` are not used.
        """
        del data_keys, align_corners
        check_images(input)
        if not input.is_floating_point():
            raise InputTypeError(f"images: expected a floating dtype (only Augment takes uint8), got {input.dtype}")
        if params is None:
            params = self._drawn(tuple(input.shape), input.device, strength, generator)
        _check_params(params, input.shape[0])
        return super().forward(input, params, **({} if resample is None else {"resample": resample}))

    def forward_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        # Kornia's version would draw `batch_prob` again; here it is computed from the draws.
        return self._drawn(batch_shape, self.device)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        params = self._drawn(batch_shape, self.device)
        return {name: params[name] for name in ("draws", "strength")}

    def _drawn(
        self,
        shape: tuple[int, ...],
        device: torch.device,
        strength: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        batch = shape[0]
        draws, factors = draw(batch, self.draws, device, generator), strengths(strength, batch, device)
        draws = shared(draws) if self.same_on_batch else draws
        applied = self.coin(draws, factors[:, None])
        if self.p_batch != 1:  # Kornia's coin for the whole batch
            applied = applied & (draw(1, 1, device, generator)[0] < self.p_batch)
        lengths = torch.tensor(shape)
        return {
            "draws": draws,
            "strength": factors,
            "batch_prob": applied.to(torch.float32),
            "forward_input_shape": lengths,
        }

    def gated(self, params: dict[str, Tensor], like: Tensor) -> tuple[Tensor, Tensor]:
        """Draws ``(B, n)`` and strengths ``(B,)`` of ``params`` on the device of ``like``, in float32 at least.

        Where ``p`` is below 1, ``batch_prob`` decides which samples change, as in Kornia.
        """
        dtype = torch.promote_types(like.dtype, torch.float32)
        draws, strength = (params[name].to(like.device, dtype) for name in ("draws", "strength"))
        if self.p == 1 and self.p_batch == 1:
            return draws, strength
        # Below every probability, even 0, or above all.
        coin = torch.where(params["batch_prob"].to(like.device) > 0.5, -1.0, 1.0).to(draws.dtype)
        return torch.cat([coin.expand(draws.shape[0])[:, None], draws[:, 1:]], dim=1), strength

    def _gate(self, params: dict[str, Tensor]) -> Tensor:
        # Overrides a private method of Kornia, which has no public one: it blends moved masks, boxes and keypoints with
        # unmoved ones, and fails where an op changes the size. Here the matrix of a sample that is not chosen is the
        # identity, so there is nothing to blend.
        return torch.ones_like(torch.atleast_1d(params["batch_prob"]), dtype=torch.bool)

    def transform_inputs(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: Flags,
        transform: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        # For the same reason: Kornia's version would compute both and blend.
        return self.apply_transform(input, params, {**flags, **kwargs}, transform)

    def generate_transformation_matrix(self, input: Tensor, params: dict[str, Tensor], flags: Flags) -> Tensor:
        # Kornia's version rounds the matrix to the images' dtype under autocast.
        return self.compute_transformation(input, params, flags)

    def get_transformation_matrix(
        self, input: Tensor, params: dict[str, Tensor] | None = None, flags: Flags | None = None
    ) -> Tensor:
        # Kornia's version rounds the matrix of half-precision images.
        known = self.transform_matrix if params is None else None
        if known is not None:
            return known
        return self.compute_transformation(input, params or self.forward_parameters(tuple(input.shape)), flags or {})

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: Flags) -> Tensor:
        """The matrices ``(B, 3, 3)`` of ``params``, in the dtype of the images but in float32 at least."""
        del flags
        return self.matrix(*self.gated(params, input), (input.shape[-2], input.shape[-1]))

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: Flags,
        transform: Tensor | None = None,
    ) -> Tensor:
        if transform is None:
            transform = self.compute_transformation(input, params, flags)
        return self._resampled(input, transform, requested_kernel(flags) or self.kernel)

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: Flags, transform: Tensor | None = None
    ) -> Tensor:
        if transform is None:
            transform = self.compute_transformation(input, params, flags)
        kernel = requested_kernel(flags) or "nearest"
        if kernel != "nearest":
            return self._resampled(input, transform, kernel)
        size = self.output_size((input.shape[-2], input.shape[-1]))
        return targets.move_masks(input, transform, size, self.padding, axis_aligned=self.axis_aligned)

    def _resampled(self, input: Tensor, transform: Tensor, kernel: str) -> Tensor:
        size, aligned = (input.shape[-2], input.shape[-1]), self.axis_aligned
        how = (self.output_size(size), kernel, self.padding, self.max_shrink(size))
        return resample_checked(input, transform, *how, axis_aligned=aligned, affine=self.affine)

    def inverse_transform(
        self, input: Tensor, flags: Flags, transform: Tensor | None = None, size: Size | None = None
    ) -> Tensor:
        assert transform is not None  # Kornia always passes the inverted matrix
        kernel = requested_kernel(flags)
        if kernel == "nearest":
            size = size or (input.shape[-2], input.shape[-1])
            return targets.move_masks(input, transform, size, self.padding, axis_aligned=self.axis_aligned)
        return resample(input, transform, size, kernel=kernel or self.kernel, padding=self.padding)

    def inverse_masks(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: Flags,
        transform: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        return super().inverse_masks(input, params, {**flags, "resample": "nearest"}, transform, **kwargs)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"

    def _shared_repr(self) -> str:
        kernel = "" if self.kernel == "bicubic" else f", kernel={self.kernel!r}"
        padding = "" if self.padding == "zeros" else f", padding={self.padding!r}"
        same = ", same_on_batch=True" if self.same_on_batch else ""
        return f"p={self.p}{kernel}{padding}{same}"


def _check_params(params: Any, batch: int) -> None:
    """Raise unless an op of augkit drew ``params`` for ``batch`` images: a loop would read beyond shorter ones."""
    names = ("draws", "strength", "batch_prob")
    if not isinstance(params, dict) or not all(isinstance(params.get(name), Tensor) for name in names):
        raise InputTypeError("params: expected those that the op drew; pass params=op._params after a call")
    for name in names:
        if params[name].shape[0] != batch:
            raise InputError(
                f"params: expected {name} for a batch of {batch}, got them for {params[name].shape[0]}; "
                "replay on a batch of the same length"
            )


def requested_kernel(flags: Flags) -> str | None:
    """Return the kernel in ``extra_args`` of a Kornia container (``resample``, a name or Kornia's enum), or None."""
    value = flags.get("resample")
    if value is None:
        return None
    kernel = value.lower() if isinstance(value, str) else Resample.get(value).name.lower()
    check_names(kernel, "zeros")
    return kernel


def draw(batch: int, columns: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Uniform draws ``(batch, columns)`` in [0, 1) on ``device``, float32.

    Without a generator they come from torch's global state, and each of several processes has draws of its own.
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputTypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != device.type:
        raise InputError(f"generator: expected one on {device}, got one on {generator.device}")
    # Written twice: with sizes that vary, torch.compile cannot trace the call that takes a generator.
    if generator is None:
        draws = torch.rand(batch, columns, device=device, dtype=torch.float32)
        return draws_of_rank(draws, place_among_processes()[0])
    return torch.rand(batch, columns, device=device, dtype=torch.float32, generator=generator)


def check_draws(draws: Tensor, batch: int, columns: int) -> Tensor:
    """``draws`` ``(batch, columns)``; raises for another shape or dtype, and on the CPU for values outside [0, 1)."""
    if not isinstance(draws, Tensor) or draws.dtype != torch.float32:
        raise InputTypeError(f"draws: expected a float32 tensor, got {getattr(draws, 'dtype', type(draws).__name__)}")
    if draws.shape != (batch, columns):
        raise InputError(f"draws: expected ({batch}, {columns}), one column a draw, got {tuple(draws.shape)}")
    checked = draws.device.type == "cpu" and not torch.compiler.is_compiling()
    if checked and not bool(((draws >= 0) & (draws < 1)).all()):
        raise InputError("draws: expected values in [0, 1), got values outside")
    return draws


def shared(draws: Tensor) -> Tensor:
    """Return draws ``(B, n)`` that repeat those of the first sample."""
    return draws[:1].expand(draws.shape[0], -1)


def checked_strength(
    strength: float | Tensor, batch: int, device: torch.device, name: str = "strength"
) -> float | Tensor:
    """Return ``strength`` as a number, or for a tensor as ``(batch,)`` float32 on ``device``.

    Raises:
        InputError, InputTypeError: a scalar outside [0, 1], or a tensor of another shape or kind. Values of a tensor
            on an accelerator or in a compiled graph are clamped instead of checked, because a check would wait for the
            device.
    """
    if not isinstance(strength, Tensor):
        return check_number(name, strength, 0.0, 1.0)
    if strength.is_complex() or (strength.is_floating_point() and not is_float(strength)):
        raise InputTypeError(f"{name}: expected a number or a real tensor ({batch},), got {strength.dtype}")
    check_dense(name, strength, "(B,)")
    if strength.shape not in ((), (batch,)):
        raise InputError(f"{name}: expected a scalar or shape ({batch},), got {tuple(strength.shape)}")
    checked = strength.device.type == "cpu" and not torch.compiler.is_compiling()
    known = strength.double() if checked else strength  # torch cannot compare unsigned integers other than uint8
    if checked and not bool(((known >= 0) & (known <= 1)).all()):
        raise InputError(f"{name}: expected values in [0, 1], got a tensor with values outside")
    return strength.to(device=device, dtype=torch.float32).clamp(0, 1).expand(batch)


def strengths(strength: float | Tensor, batch: int, device: torch.device) -> Tensor:
    """As `checked_strength`, always as ``(batch,)``."""
    checked = checked_strength(strength, batch, device)
    return checked if isinstance(checked, Tensor) else torch.full((batch,), checked, device=device, dtype=torch.float32)


def per_sample(strength: float | Tensor) -> float | Tensor:
    """Return a number unchanged, and ``(B,)`` as ``(B, 1)``."""
    return strength[:, None] if isinstance(strength, Tensor) else strength
