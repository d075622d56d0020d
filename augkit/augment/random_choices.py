"""Ops that are chosen at random for each sample, some of which move pixels and others change colors.

The geometry of all that a sample chose is one matrix, which `augkit.Augment` composes with that of its other ops, so
that pixels are resampled once, with its kernel. The color ops follow on the resampled image. So a color op that was
chosen before a geometric one sees moved pixels and the padding; the published code instead resamples for each op, by
the nearest pixel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.base import Flags, RandomGeometry, Size, View
from augkit.augment.color_changes import change_colors

if TYPE_CHECKING:
    from augkit.augment.op_spec import Matrix

SIGNED = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color", "contrast", "sharpness")
WITHOUT_AMOUNT = ("identity", "autocontrast", "equalize")
COLUMNS = 3  # draws of one choice: which op, its sign or coin, its level


@dataclass(frozen=True)
class Choices:
    """Ops to choose from, equally likely, with the amount of each at the highest level.

    Attributes:
        amounts: by name: ``shear_x`` and ``shear_y`` (factor, about the upper left corner), ``translate_x`` and
            ``translate_y`` (share of the width and height, or pixels), ``rotate`` (degrees), and the color ops
            in the units of `augkit.augment.color_changes`.
        pixels: whether translations are in pixels.
        lowest: the amount at level 0, where it is not 0.
    """

    amounts: Mapping[str, float]
    pixels: bool = False
    lowest: Mapping[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The ops in the order of a choice."""
        return tuple(self.amounts)

    def without(self, *names: str) -> Choices:
        """Return the same without some ops."""
        return replace(self, amounts={name: most for name, most in self.amounts.items() if name not in names})

    def shrink(self, level: float) -> float:
        """The most that one op shrinks or enlarges any direction, at ``level`` in [0, 1]."""
        shear = max(self.amounts.get(name, 0.0) for name in ("shear_x", "shear_y")) * level
        return (math.hypot(2, shear) + shear) / 2

    def pick(self, draws: Tensor, level: float | Tensor, strength: float | Tensor) -> Chosen:
        """Return what samples choose by ``draws`` ``(B, COLUMNS)``; level and strength are a number or ``(B,)``.

        An op without an amount is applied to a sample with the probability ``strength``.
        """
        count = len(self.amounts)
        choice = torch.floor(draws[:, 0] * count).long().clamp(max=count - 1)
        sign = torch.where(draws[:, 1] < 0.5, -1.0, 1.0)
        applied = (draws[:, 1] < strength).to(draws.dtype)  # the same column, for ops without a sign
        level = torch.ones_like(sign) * level
        amount = torch.zeros_like(sign)
        for k, (name, most) in enumerate(self.amounts.items()):  # not by a table, which would be a copy to the device
            low = self.lowest.get(name, 0.0)
            own = most * applied if name in WITHOUT_AMOUNT else (low + (most - low) * level) * strength
            amount = torch.where(choice == k, sign * own if name in SIGNED else own, amount)
        return Chosen(self, choice, amount)


@dataclass(frozen=True)
class Chosen:
    """What each sample chose: the number of the op, ``(B,)`` int64, and its amount ``(B,)``; 0 changes nothing."""

    choices: Choices
    choice: Tensor
    amount: Tensor

    def only(self, applied: Tensor) -> Chosen:
        """Return the same with nothing for samples where ``applied`` ``(B,)`` is false."""
        return replace(self, amount=torch.where(applied, self.amount, 0.0))

    def matrix(self, size: Size) -> Tensor:
        """The matrices ``(B, 3, 3)`` of what moves pixels, for images of ``size``."""
        shear_x, shear_y, translate_x, translate_y, turn = map(self._amount_of, SIGNED[:5])
        one, height, width = torch.ones_like(turn), *((1, 1) if self.choices.pixels else size)
        # Shears about the upper left corner of the image, half a pixel from the center of its first pixel, as in PIL.
        rows = [
            [one, -shear_x, translate_x * width - shear_x / 2],
            [-shear_y, one, translate_y * height - shear_y / 2],
            [0 * one, 0 * one, one],
        ]
        moved = torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)
        # A sample has one op, so one of the two factors is the identity.
        return geometry.compose(moved, geometry.rotate(turn, size))

    def colors(self, images: Tensor, *, in_place: bool = False) -> Tensor:
        """Apply what changes colors to floating ``images`` ``(B, C, H, W)`` in [0, 1], which may be ``in_place``."""
        return change_colors(images, self.choices.names, self.choice, self.amount, in_place=in_place)

    def _amount_of(self, name: str) -> Tensor:
        if name not in self.choices.amounts:
            return torch.zeros_like(self.amount)
        return torch.where(self.choice == self.choices.names.index(name), self.amount, 0.0)


class RandomChoices(RandomGeometry):
    """Base class of ops that also change colors: `matrix` is their geometry, `recolored` the rest.

    They compile with ``fullgraph=True``; a compiled graph computes every color op for all samples and selects, where
    eager code computes the chosen ones.
    """

    affine = True
    recolors = True

    def chosen_ops(self, draws: Tensor, strength: float | Tensor) -> list[Chosen]:
        """What each sample chose, one after the other; strength is a number or ``(B,)``."""
        raise NotImplementedError  # abstract: `RandAugment` and `TrivialAugment` define it

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        return geometry.compose(*(chosen.matrix(size) for chosen in self.chosen_ops(draws, strength)))

    def recolored(self, images: Tensor, draws: Tensor, strength: float | Tensor, view: View) -> Tensor:
        """Change the colors of floating ``images`` ``(B, C, H, W)`` that were moved by `matrix`, of the same draws.

        ``view`` gives the images after further geometry. Samples whose colors stay are returned bit for bit.
        """
        del view
        out = images
        for chosen in self.chosen_ops(draws, strength):
            out = chosen.colors(out, in_place=out is not images)  # the first op that changes anything makes the copy
        return out

    def max_enlarge(self) -> float:
        return self.max_shrink((1, 1))

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: Flags, transform: Tensor | None = None
    ) -> Tensor:
        if transform is None:
            transform = self.compute_transformation(input, params, flags)
        moved = super().apply_transform(input, params, flags, transform)

        def view(extra: Tensor) -> Tensor:
            return super(RandomChoices, self).apply_transform(input, params, flags, geometry.compose(transform, extra))

        work = moved.to(torch.promote_types(moved.dtype, torch.float32))
        return self.recolored(work, *self.gated(params, input), view).to(moved.dtype)

    def _coin(self, draws: Tensor) -> Tensor:
        return draws[:, 0] < self.p


def columns(draws: Tensor, slot: int, first: int = 1) -> Tensor:
    """The draws ``(B, COLUMNS)`` of one choice; column 0 is the coin of the whole op."""
    return draws[:, first + slot * COLUMNS : first + (slot + 1) * COLUMNS]


def caption(matrix: Matrix) -> str:
    """The geometry of one draw as text; its colors are not in the matrix."""
    (a, b, x), (c, d, y) = matrix[0], matrix[1]
    if (a, b, c, d, x, y) == (1, 0, 0, 1, 0, 0):
        return "colors or nothing"
    if a == d == 1 and not (b or c):
        return f"shift {x:.1f}, {y:.1f} px".replace("-", "−")
    if b == -c:
        return f"{math.degrees(math.atan2(b, a)):.1f}°".replace("-", "−")
    return f"shear {b:.2f}, {c:.2f}".replace("-", "−")
