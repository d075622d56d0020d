"""Several random ops as one: their draws side by side, and the product of their matrices."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from augkit.augment import geometry
from augkit.augment.backends import installed
from augkit.augment.backends.values import recorded
from augkit.augment.base import RandomGeometry, Size, check_range, checked_strength, draw, per_sample, shared
from augkit.augment.checks import check_flag
from augkit.augment.color import is_kornia
from augkit.augment.kernels import check_names
from augkit.augment.ops.random_shift_blur import RandomShiftBlur
from augkit.augment.ops.random_subpixel_shift import RandomSubpixelShift
from augkit.augment.recipes import Recipe, own_recipe
from augkit.core.errors import InputError, InputTypeError


class ComposedGeometry(nn.Module):
    """The geometry of several ops as one function from uniform draws to matrices; `augkit.Augment` resamples by it.

    Args:
        *ops: augkit's own ops, then Kornia's, which take no part in the matrix.
        kernel, padding: of the resampling; `fourier` allows shifts alone.
        antialias: whether the kernel is stretched where an axis shrinks.
        strength: the strength of calls that pass none, in [0, 1].
        same_on_batch: set on every op where it is not None.

    Raises:
        InputError, InputTypeError: an op of another library, a color op before geometry, unknown names.
    """

    def __init__(
        self,
        *ops: nn.Module,
        kernel: str,
        padding: str,
        antialias: bool,
        strength: float,
        same_on_batch: bool | None,
    ) -> None:
        super().__init__()
        check_names(kernel, padding)
        _check_ops(ops, kernel, padding)
        self.kernel, self.padding = kernel, padding
        self.antialias = check_flag("antialias", antialias)
        self.strength = check_range("strength", strength, 0.0, 1.0)
        self.ops = nn.ModuleList(ops)
        # Plain lists beside the modules: each call asks for them a dozen times, which at 32 pixels is felt.
        self._own = [op for op in ops if isinstance(op, RandomGeometry)]
        self._later = [op for op in ops if not isinstance(op, RandomGeometry)]
        self.same_on_batch = same_on_batch

    @property
    def same_on_batch(self) -> bool | None:
        """The value that was set on every op; None where each keeps its own."""
        return self._same_on_batch

    @same_on_batch.setter
    def same_on_batch(self, same: bool | None) -> None:
        self._same_on_batch = None if same is None else check_flag("same_on_batch", same)
        for op in self.ops if same is not None else ():
            op.same_on_batch = same  # type: ignore[assignment]

    @property
    def geometry(self) -> list[RandomGeometry]:
        """augkit's own ops, which are applied before Kornia's."""
        return self._own

    @property
    def kornia_ops(self) -> list[nn.Module]:
        """Kornia's ops, which are applied after augkit's own."""
        return self._later

    @property
    def draws(self) -> int:
        """The number of uniform draws per sample."""
        return sum(op.draws for op in self.geometry)

    def sample(
        self,
        batch: int,
        size: Size,
        *,
        strength: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw matrices ``(B, 3, 3)`` for images of ``size`` (H, W), with all randomness in one call."""
        device = torch.device(device or "cpu")
        return self.matrix(*self.draw_geometry(batch, strength, generator, device), size)

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        """Return composed matrices ``(B, 3, 3)`` for draws ``(B, n)`` in [0, 1) and strength, a number or ``(B,)``."""
        total, first, size_out, aligned = None, 0, size, self.axis_aligned
        recipes = self._recipes(draws, strength, size) if aligned else None
        if recipes:
            from augkit.augment.backends import native_draws

            return native_draws.matrices(draws, recipes, size, self.output_size(size))
        matrices = [] if aligned else [geometry.identity(draws.shape[0], device=draws.device)]
        for op in self.geometry:
            part = draws[:, first : first + op.draws]
            if aligned:
                axes = op.axes(part, per_sample(strength), size_out)
                total = axes if total is None else total.then(axes)
            else:
                matrices.append(op.matrix(part, strength, size_out))
            first, size_out = first + op.draws, op.output_size(size_out)
        if total is not None:
            return total.matrix(size, size_out)
        return geometry.compose(*matrices) if matrices else geometry.identity(draws.shape[0], device=draws.device)

    def _recipes(self, draws: Tensor, strength: float | Tensor, size: Size) -> list[Recipe] | None:
        """The ops' recipes, where all have one and the compiled loops can take these draws."""
        plain = draws.device.type == "cpu" and draws.dtype == torch.float32 and type(draws) is Tensor
        if isinstance(strength, Tensor) or not plain or recorded(draws) or not installed("numba"):
            return None
        recipes = []
        for op in self._own:
            recipe = op.recipe(strength, size) if own_recipe(type(op)) else None  # type: ignore[arg-type]
            if recipe is None:
                return None
            recipes.append(recipe)
            size = op.output_size(size)
        return recipes

    @property
    def axis_aligned(self) -> bool:
        """Whether none of the ops rotates or shears (see `RandomGeometry.axis_aligned`)."""
        return all(op.axis_aligned for op in self.geometry)

    @property
    def affine(self) -> bool:
        """Whether none of the ops is a perspective (see `RandomGeometry.affine`)."""
        return all(op.affine for op in self.geometry)

    def blur(self, draws: Tensor, strength: float | Tensor) -> Tensor | None:
        """Return the shifts ``(B, 2)`` in pixels whose blur is applied, from the same draws; None without the op."""
        first = 0
        for op in self.geometry:
            if isinstance(op, RandomShiftBlur):
                return op.pixels(draws[:, first : first + op.draws], strength)
            first += op.draws
        return None

    def output_size(self, size: Size) -> Size:
        """The size of the output for images of ``size``."""
        for op in self.geometry:
            size = op.output_size(size)
        return size

    def _max_shrink(self, size: Size) -> float | None:
        if not self.antialias:
            return None
        shrink = 1.0
        for op in self.geometry:
            shrink, size = shrink * op.max_shrink(size), op.output_size(size)
        return shrink

    def draw_geometry(
        self, batch: int, strength: float | Tensor | None, generator: torch.Generator | None, device: torch.device
    ) -> tuple[Tensor, float | Tensor]:
        """One draw of augkit's own ops: draws ``(batch, n)`` in [0, 1), and the strength, a number or ``(batch,)``."""
        strength = self.strength if strength is None else strength
        draws = draw(batch, self.draws, device, generator)
        if any(op.same_on_batch for op in self.geometry):
            parts = draws.split([op.draws for op in self.geometry], dim=1)
            own = zip(self.geometry, parts, strict=True)
            draws = torch.cat([shared(part) if op.same_on_batch else part for op, part in own], dim=1)
        return draws, checked_strength(strength, batch, device)


def _check_ops(ops: tuple[nn.Module, ...], kernel: str, padding: str) -> None:
    moving = [op for op in ops if isinstance(op, RandomGeometry)]
    for op in ops:
        if not isinstance(op, RandomGeometry) and not is_kornia(op):
            raise InputTypeError(
                "Augment: expected augkit ops such as RandomSubpixelShift, then Kornia's ops such as "
                f"ColorJitter, got {type(op).__name__}"
            )
    if any(isinstance(op, RandomGeometry) for op in ops[len(moving) :]):
        raise InputError("Augment: expected all geometry before the first color op; put the color ops last")
    if sum(isinstance(op, RandomShiftBlur) for op in moving) > 1:
        raise InputError("Augment: expected one RandomShiftBlur at most, got several; blurs do not add up")
    shifts = all(isinstance(op, (RandomSubpixelShift, RandomShiftBlur)) and op.axis_aligned for op in moving)
    if kernel == "fourier" and not (padding == "circular" and shifts):
        raise InputError("kernel 'fourier' expects padding 'circular' and RandomSubpixelShift ops alone")
