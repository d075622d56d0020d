"""Shear about the center."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.base import RandomGeometry, Size, per_sample
from augkit.augment.op_spec import Amount, Matrix, OpSettings, OpSpec, Probability, per_axis
from augkit.augment.pairs import PerAxis, as_factor, both, check_pair, shown

LARGEST = 40.0  # degrees; at 45 along both axes every image would collapse onto its diagonal


class ShearSettings(OpSettings):
    """The fields of a shear in a policy."""

    max_degrees: Annotated[PerAxis, Amount(0.0, 15.0, "degrees"), per_axis(0.0, LARGEST)] = Field(
        0.0, description="largest angle along each axis, a number or a pair for x and y (degrees)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")


def _caption(matrix: Matrix) -> str:
    x, y = (round(math.degrees(math.atan(factor)), 1) + 0.0 for factor in (matrix[0][1], matrix[1][0]))
    return f"x {x:g}°, y {y:g}°".replace("-", "−")


class RandomShear(RandomGeometry):
    """Shear about the center by up to ``max_degrees`` along x and along y, each uniform and independent.

    A pixel moves along x by the tangent of one angle times its height below the center, and along y by the tangent of
    the other angle times its distance right of the center. A single angle equals torchvision's ``v2.functional.affine``
    with ``shear=[-degrees, 0]`` or ``[0, -degrees]``; two angles are a product of matrices there, so the order matters.

    Args:
        max_degrees: largest angle along each axis, in degrees, at most 40: a number, or a pair ``(x, y)``.
        p: probability that a sample is sheared.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: ``max_degrees`` outside [0, 40] or no pair, ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 3
    affine = True
    spec = OpSpec(
        name="shear",
        title="shear about the center",
        place=25,
        settings=ShearSettings,
        make=lambda settings, size: RandomShear(settings.max_degrees, settings.p),
        describe=lambda settings: f"up to {shown(settings.max_degrees, '°')}",
        caption=_caption,
        example=lambda side: ShearSettings(max_degrees=15.0),
    )

    def __init__(
        self,
        max_degrees: PerAxis,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        self.max_degrees = check_pair("max_degrees", max_degrees, 0.0, LARGEST)

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        most = as_factor(self.max_degrees, draws) * (math.pi / 180) * per_sample(strength)
        return geometry.shear(torch.tan(self.chosen(draws, (2 * draws[:, 1:3] - 1) * most)), size)

    def max_shrink(self, size: Size) -> float:
        del size
        x, y = self._factors()
        return self.max_enlarge() / (1 - x * y)

    def max_enlarge(self) -> float:
        x, y = self._factors()
        return (math.hypot(2, x - y) + (x + y)) / 2  # the larger singular value, at the largest angle of both axes

    def _factors(self) -> tuple[float, float]:
        x, y = (math.tan(math.radians(degrees)) for degrees in both(self.max_degrees))
        return x, y

    def extra_repr(self) -> str:
        return f"max_degrees={self.max_degrees}, {self._shared_repr()}"
