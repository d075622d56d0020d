"""Several random ops as one: their draws side by side, and the product of their matrices."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from augkit.augment import geometry, op_strengths
from augkit.augment.base import RandomGeometry, Size, check_draws, draw, per_sample, shared
from augkit.augment.checks import check_flag
from augkit.augment.color import is_kornia
from augkit.augment.kernels import check_names
from augkit.augment.op_strengths import KORNIA, Strength, of_op
from augkit.augment.ops.random_shift_blur import RandomShiftBlur
from augkit.augment.ops.random_subpixel_shift import RandomSubpixelShift
from augkit.core.errors import InputError, InputTypeError


class ComposedGeometry(nn.Module):
    """The geometry of several ops as one function from uniform draws to matrices; `augkit.Augment` resamples by it.

    Args:
        *ops: augkit's own ops, then Kornia's, which take no part in the matrix.
        kernel, padding: of the resampling; `fourier` allows shifts alone.
        antialias: whether the kernel is stretched where an axis shrinks.
        strength: the strength of calls that pass none, in [0, 1]; or one for each op that a mapping names
            (`augkit.augment.op_strengths`).
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
        strength: float | Mapping[str, float],
        same_on_batch: bool | None,
    ) -> None:
        super().__init__()
        check_names(kernel, padding)
        _check_ops(ops, kernel, padding)
        self.kernel, self.padding = kernel, padding
        self.antialias = check_flag("antialias", antialias)
        self.ops = nn.ModuleList(ops)
        self.strength = op_strengths.constant_strength(strength, self.op_names)
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
        """augkit's own ops, which come before those of Kornia."""
        return [op for op in self.ops if isinstance(op, RandomGeometry)]

    @property
    def kornia_ops(self) -> list[nn.Module]:
        """Kornia's ops, which come after augkit's own."""
        return [op for op in self.ops if not isinstance(op, RandomGeometry)]

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
        """Draw ``(B, 3, 3)`` matrices for images of ``size``: all randomness, in one call."""
        device = torch.device(device or "cpu")
        return self.matrix(*self.draw_geometry(batch, strength, generator, device), size)

    def matrix(self, draws: Tensor, strength: Strength, size: Size) -> Tensor:
        """The composed ``(B, 3, 3)`` from draws ``(B, n)`` in [0, 1) and strength, a number or ``(B,)``; pure.

        As everywhere here, a strength may be a mapping of such by the names of ops; see `augkit.augment.op_strengths`.
        """
        strength = self.every_strength(strength)
        total, first, size_out, aligned = None, 0, size, self.axis_aligned
        matrices = [geometry.identity(draws.shape[0], device=draws.device)]
        for op in self.geometry:
            part, own = draws[:, first : first + op.draws], of_op(strength, op.policy_name)
            if aligned:
                axes = op.axes(part, per_sample(own), size_out)
                total = axes if total is None else total.then(axes)
            else:
                matrices.append(op.matrix(part, own, size_out))
            first, size_out = first + op.draws, op.output_size(size_out)
        return geometry.compose(*matrices) if total is None else total.matrix(size, size_out)

    @property
    def axis_aligned(self) -> bool:
        """Whether none of the ops rotates or shears (see `RandomGeometry.axis_aligned`)."""
        return all(op.axis_aligned for op in self.geometry)

    def blur(self, draws: Tensor, strength: Strength) -> Tensor | None:
        """The pixels ``(B, 2)`` whose blur is applied, from the same draws; None without a `RandomShiftBlur`."""
        first = 0
        for op in self.geometry:
            if isinstance(op, RandomShiftBlur):
                own = of_op(self.every_strength(strength), op.policy_name)
                return op.pixels(draws[:, first : first + op.draws], own)
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
