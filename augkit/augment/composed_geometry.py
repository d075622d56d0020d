"""Several random ops as one: their draws side by side, and the product of their matrices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from augkit.augment import geometry, op_strengths
from augkit.augment.backends import installed
from augkit.augment.backends.values import recorded
from augkit.augment.base import RandomGeometry, Size, check_draws, draw, per_sample, shared
from augkit.augment.checks import check_flag
from augkit.augment.color import Recoloring
from augkit.augment.draw_programs import DrawProgram, has_own_program
from augkit.augment.fit import Fit, center, fit, fit_shrink
from augkit.augment.kernels import check_names
from augkit.augment.op_list import OpList, Rules
from augkit.augment.op_strengths import KORNIA, Strength, of_op
from augkit.augment.ops.random_shift_blur import RandomShiftBlur
from augkit.augment.ops.random_subpixel_crop import RandomSubpixelCrop
from augkit.augment.resample import check_size


class ComposedGeometry(nn.Module):
    """The geometry of several ops as one function from uniform draws to matrices; `augkit.Augment` resamples by it.

    Args:
        *ops: augkit's own ops, then Kornia's, which take no part in the matrix.
        kernel, padding: of the resampling; `fourier` allows shifts alone.
        antialias: whether the kernel is stretched where an axis shrinks.
        strength: the strength of calls that pass none, in [0, 1]; or one for each op that a mapping names
            (`augkit.augment.op_strengths`).
        same_on_batch: set on every op where it is not None.
        size: ``(H, W)`` to which images are fitted before the ops, which then act in that frame (`augkit.augment.fit`);
            the images' own when None. A crop takes its window from anywhere in the image, not from the frame alone.

    Raises:
        InputError, InputTypeError: an op of another library, a color op before geometry, unknown names, a size beside
            an op that has one of its own.
    """

    ops: OpList

    def __init__(
        self,
        *ops: nn.Module,
        kernel: str,
        padding: str,
        antialias: bool,
        strength: float | Mapping[str, float],
        same_on_batch: bool | None,
        size: Size | None = None,
    ) -> None:
        super().__init__()
        check_names(kernel, padding)
        self.kernel, self.padding = kernel, padding
        self.antialias = check_flag("antialias", antialias)
        self.size = None if size is None else check_size(size)
        self.ops = ops  # type: ignore[assignment]
        self.strength = op_strengths.constant_strength(strength, self.op_names)
        self.same_on_batch = same_on_batch

    @classmethod
    def from_kornia(cls, module: nn.Module, **options: Any) -> Self:
        """Make a transform of Kornia's augmentations: one, a container or an ``nn.Sequential`` of several.

        The geometry is drawn from the same distribution, with the same matrices, and resampled once; color ops follow.
        ``options`` are arguments of `augkit.Augment`, such as ``kernel``, that come before the pipeline's own. A
        strength is a share of samples. In ``eval()`` only resizes, central crops and the normalization remain.

        Raises:
            InputError: some ops cannot be converted; the message names them all, with reasons.

        >>> import augkit, kornia.augmentation as K
        >>> pipeline = nn.Sequential(K.RandomAffine(10.0, p=1.0), K.ColorJitter(0.2))
        >>> augkit.Augment.from_kornia(pipeline)(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
        """
        from augkit.augment.convert.kornia import convert

        ops, own = convert(module, options).arguments()
        return cls(*ops, **own)

    @classmethod
    def from_torchvision(cls, transform: Any, **options: Any) -> Self:
        """Make a transform of torchvision's, v1 or v2, one or a ``Compose``; otherwise as `from_kornia`.

        Conversions from PIL images are left out, since images are tensors already; those to floats set ``dtype``.

        >>> import augkit, torchvision.transforms.v2 as v2
        >>> pipeline = v2.Compose([v2.RandomResizedCrop(24), v2.RandomRotation(10, v2.InterpolationMode.BILINEAR)])
        >>> augkit.Augment.from_torchvision(pipeline)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3, 24, 24])
        """
        from augkit.augment.convert.torchvision import convert

        ops, own = convert(transform, options).arguments()
        return cls(*ops, **own)

    @classmethod
    def from_albumentations(cls, transform: Any, **options: Any) -> Self:
        """Make a transform of albumentations', one or a ``Compose``; otherwise as `from_kornia`.

        ``ToTensorV2`` is left out, since images are tensors already.

        >>> import albumentations as A, augkit
        >>> pipeline = A.Compose([A.Affine(rotate=(-10, 10)), A.HorizontalFlip()])
        >>> augkit.Augment.from_albumentations(pipeline)(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
        """
        from augkit.augment.convert.albumentations import convert

        ops, own = convert(transform, options).arguments()
        return cls(*ops, **own)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "ops":
            same = getattr(self, "ops", OpList()).same_on_batch
            value = OpList(value, Rules(self.kernel, self.padding, self.size), same)
            self._own, self._later = value.own, value.later  # the lists themselves, see `OpList`
        super().__setattr__(name, value)

    @property
    def fixed(self) -> bool:
        """Whether any op is applied in ``eval()`` too (see `RandomGeometry.fixed`)."""
        return any(op.fixed for op in self._own)

    def middle(self, batch: int, device: torch.device) -> Tensor:
        """Draws ``(batch, n)`` without randomness, for ``eval()`` with ops that are applied there."""
        return torch.full((batch, self.draws), 0.5, device=device, dtype=torch.float32)

    @property
    def same_on_batch(self) -> bool | None:
        """The value that was set on every op; None where each keeps its own."""
        return self.ops.same_on_batch

    @same_on_batch.setter
    def same_on_batch(self, same: bool | None) -> None:
        self.ops.share(None if same is None else check_flag("same_on_batch", same))

    @property
    def geometry(self) -> list[RandomGeometry]:
        """augkit's own ops, which are applied before Kornia's."""
        return self._own

    @property
    def kornia_ops(self) -> list[nn.Module]:
        """Kornia's ops, which are applied after augkit's own."""
        return self._later

    @property
    def recoloring_ops(self) -> list[RandomGeometry]:
        """augkit's own ops that change colors after the geometry, too."""
        return [op for op in self._own if op.recolors]

    def recolorings(self, draws: Tensor, strength: Strength) -> tuple[Recoloring, ...]:
        """What `recoloring_ops` do to the colors by ``draws`` ``(B, n)`` of all ops."""
        parts = draws.split([op.draws for op in self._own], dim=1)
        strength = self.every_strength(strength)
        own = [(op, part, of_op(strength, op.policy_name)) for op, part in zip(self._own, parts, strict=True)]
        return tuple(Recoloring(*one) for one in own if one[0].recolors and not _is_zero(one[2]))

    @property
    def op_names(self) -> list[str]:
        """The names by which a strength per op knows the ops."""
        return [*(op.policy_name for op in self.geometry), *([KORNIA] if self.kornia_ops else [])]

    @property
    def draws(self) -> int:
        """The number of uniform draws per sample."""
        return sum(op.draws for op in self.geometry)

    def sample(
        self,
        batch: int,
        size: Size,
        *,
        strength: Strength | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw matrices ``(B, 3, 3)`` for images of ``size`` (H, W), with all randomness in one call."""
        device = torch.device(device or "cpu")
        return self.matrix(*self.draw_geometry(batch, strength, generator, device), size)

    def matrix(self, draws: Tensor, strength: Strength, size: Size) -> Tensor:
        """Return composed matrices ``(B, 3, 3)`` for draws ``(B, n)`` in [0, 1) and strength, a number or ``(B,)``.

        As everywhere here, a strength may also map op names to strengths; see `augkit.augment.op_strengths`.
        """
        if self.size is None:
            return self._composed(draws, strength, size)
        return self._composed(draws, strength, self.size, self._fit(draws, strength, size))

    def still(self, size: Size, like: Tensor) -> Tensor:
        """Return the matrices ``(B, 3, 3)`` of evaluation, with the batch, dtype and device of ``like`` ``(B, n)``."""
        if self.size is None:
            return geometry.identity(len(like), device=like.device)
        return fit(size, self.size, like).matrix(self.size)

    def matrices(self, draws: Tensor, strength: Strength, sizes: list[Size]) -> Tensor:
        """Return matrices as `matrix` does, each for an image of its own size (H, W) in ``sizes``."""
        if self.size is not None:
            return self._composed(draws, strength, self.size, self._fit(draws, strength, sizes))
        of_size = {size: self.matrix(draws, strength, size) for size in dict.fromkeys(sizes)}
        return torch.stack([of_size[size][k] for k, size in enumerate(sizes)])

    def _composed(self, draws: Tensor, strength: Strength, frame: Size, fitted: Fit | None = None) -> Tensor:
        """Return the product of the ops' maps in ``frame``, after the map to that frame where there is one."""
        strength = self.every_strength(strength)
        first, size_out, aligned = 0, frame, self.axis_aligned
        programs = self._programs(draws, strength, frame) if aligned and fitted is None else None
        if programs:
            from augkit.augment.backends import native_draws

            return native_draws.matrices(draws, programs, frame, self.output_size(frame))
        total = None if fitted is None else fitted.axes
        matrices = []
        if not aligned or total is None:
            still = geometry.identity(draws.shape[0], device=draws.device)
            matrices = [still if fitted is None else fitted.matrix(frame)]
        for op in self.geometry:
            part, own = draws[:, first : first + op.draws], of_op(strength, op.policy_name)
            if aligned:
                axes = op.axes(part, per_sample(own), size_out)
                total = axes if total is None else total.then(axes)
            else:
                matrices.append(op.matrix(part, own, size_out))
            first, size_out = first + op.draws, op.output_size(size_out)
        if total is None or not aligned:
            return geometry.compose(*matrices)
        start = center(frame, total.scale) if fitted is None else fitted.start
        return total.between(start, center(size_out, total.scale))

    def _programs(self, draws: Tensor, strength: Strength, size: Size) -> list[DrawProgram] | None:
        """The ops' programs, where all have one and the compiled loops can take these draws."""
        plain = draws.device.type == "cpu" and draws.dtype == torch.float32 and type(draws) is Tensor
        if not plain or recorded(draws) or not installed("numba"):
            return None
        programs = []
        for op in self._own:
            own = of_op(strength, op.policy_name)
            if isinstance(own, Tensor) or not has_own_program(type(op)):  # type: ignore[arg-type]
                return None
            program = op.draw_program(own, size)
            if program is None:
                return None
            programs.append(program)
            size = op.output_size(size)
        return programs

    def _fit(self, draws: Tensor, strength: Strength, size: Size | list[Size]) -> Fit:
        """The images in the frame of the ops, with the window of a crop anywhere along the whole image."""
        assert self.size is not None
        for column, crop in self.crops.items():
            # The draws that place the window in the frame, so that its place is uniform over the whole image.
            own = draws[:, column : column + crop.draws]
            strength = of_op(self.every_strength(strength), crop.policy_name)
            place = crop.chosen(own, own[:, 3:5] - 0.5) * per_sample(strength)
            return fit(size, self.size, draws, place)
        return fit(size, self.size, draws)

    @property
    def crops(self) -> dict[int, RandomSubpixelCrop]:
        """The crops whose window can be smaller than the image, by the column of their first draw."""
        found, column = {}, 0
        for op in self.geometry:
            if isinstance(op, RandomSubpixelCrop) and op.area[0] < 1:
                found[column] = op
            column += op.draws
        return found

    @property
    def axis_aligned(self) -> bool:
        """Whether none of the ops rotates or shears (see `RandomGeometry.axis_aligned`)."""
        return all(op.axis_aligned for op in self.geometry)

    @property
    def affine(self) -> bool:
        """Whether none of the ops is a perspective (see `RandomGeometry.affine`)."""
        return all(op.affine for op in self.geometry)

    def blur(self, draws: Tensor, strength: Strength, sizes: Size | list[Size]) -> Tensor | None:
        """Return the shifts ``(B, 2)`` in pixels whose blur is applied, from the same draws; None without the op.

        ``sizes`` is that of all images, or a list with that of each: the blur is in the images' own pixels.
        """
        first = 0
        for op in self.geometry:
            if isinstance(op, RandomShiftBlur):
                own = of_op(self.every_strength(strength), op.policy_name)
                pixels = op.pixels(draws[:, first : first + op.draws], own)
                return pixels if self.size is None else pixels / fit(sizes, self.size, draws).axes.scale
            first += op.draws
        return None

    def output_size(self, size: Size) -> Size:
        """The size of the output for images of ``size``."""
        size = self.size or size
        for op in self.geometry:
            size = op.output_size(size)
        return size

    def max_shrink(self, size: Size) -> float | None:
        """The most that an image of ``size`` shrinks along an axis; None where nothing is antialiased."""
        if not self.antialias:
            return None
        shrink = 1.0
        if self.size is not None:
            shrink, size = fit_shrink(size, self.size), self.size
        for op in self.geometry:
            shrink, size = shrink * op.max_shrink(size), op.output_size(size)
        return shrink

    def every_strength(self, strength: Strength | None) -> Strength:
        """``strength`` with an entry for every op where it names some: the transform's own for the others."""
        if strength is None:
            strength = self.strength
        named = isinstance(strength, Mapping)
        return op_strengths.completed(strength, self.op_names, self.strength) if named else strength

    def draw_geometry(
        self,
        batch: int,
        strength: Strength | None,
        generator: torch.Generator | None,
        device: torch.device,
        draws: Tensor | None = None,
    ) -> tuple[Tensor, Strength]:
        """One draw of augkit's own ops: draws ``(batch, n)`` in [0, 1), and the strength, a number or ``(batch,)``.

        ``draws`` that are given take the place of random ones, but for ops whose draws are shared.
        """
        draws = draw(batch, self.draws, device, generator) if draws is None else check_draws(draws, batch, self.draws)
        draws = draws.to(device)
        if any(op.same_on_batch for op in self.geometry):
            parts = draws.split([op.draws for op in self.geometry], dim=1)
            own = zip(self.geometry, parts, strict=True)
            draws = torch.cat([shared(part) if op.same_on_batch else part for op, part in own], dim=1)
        return draws, op_strengths.checked_strengths(self.every_strength(strength), batch, device)


def _is_zero(strength: float | Tensor) -> bool:
    return not isinstance(strength, Tensor) and strength == 0
