"""Rotation about the center."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.base import RandomGeometry, Size
from augkit.augment.distributions import centered, check_distribution
from augkit.augment.op_spec import Amount, Matrix, OpSettings, OpSpec, Probability
from augkit.core.errors import check_number

DISTRIBUTIONS = ("uniform", "normal")


class RotationSettings(OpSettings):
    """The fields of a rotation in a policy."""

    max_degrees: Annotated[float, Amount(0.0, 30.0, "degrees"), Field(ge=0, le=180)] = Field(
        0.0, description="largest angle, either way (degrees)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")
    distribution: Literal["uniform", "normal"] = Field(
        "uniform", description="of the angle; normal has half of max_degrees as its deviation and ends there"
    )

    added: ClassVar[frozenset[str]] = frozenset({"distribution"})


def _describe(settings: RotationSettings) -> str:
    return f"up to ± {settings.max_degrees:g}°{', normally distributed' if settings.distribution == 'normal' else ''}"


def _caption(matrix: Matrix) -> str:
    return f"{round(math.degrees(math.atan2(matrix[0][1], matrix[0][0])), 1) + 0.0:g}°".replace("-", "−")


class RandomRotation(RandomGeometry):
    """Rotate about the center by an angle of up to ``max_degrees``, either way; positive is counter-clockwise.

    The size of the image stays; its corners are cut off, and the padding fills what comes into view.

    Args:
        max_degrees: largest angle, in degrees, at most 180.
        p: probability that a sample is rotated.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.
        distribution: ``uniform``, or ``normal`` with a standard deviation of half of ``max_degrees``, cut at it.

    Raises:
        InputError: ``max_degrees`` outside [0, 180], ``p`` outside [0, 1], unknown kernel, padding or distribution.
    """

    draws = 2
    affine = True
    spec = OpSpec(
        name="rotate",
        title="rotate about the center",
        place=15,
        settings=RotationSettings,
        make=lambda settings, size: RandomRotation(
            settings.max_degrees, settings.p, distribution=settings.distribution
        ),
        describe=_describe,
        caption=_caption,
        example=lambda side: RotationSettings(max_degrees=30.0),
    )

    def __init__(
        self,
        max_degrees: float,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
        distribution: str = "uniform",
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        self.max_degrees = check_number("max_degrees", max_degrees, 0.0, 180.0)
        self.distribution = check_distribution(distribution, DISTRIBUTIONS)

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        most = self.max_degrees * (strength[:, None] if isinstance(strength, Tensor) else strength)
        return geometry.rotate(self.chosen(draws, centered(draws[:, 1:2], self.distribution) * most)[:, 0], size)

    def max_shrink(self, size: Size) -> float:
        del size
        return 1.0

    def extra_repr(self) -> str:
        law = "" if self.distribution == "uniform" else f", distribution={self.distribution!r}"
        return f"max_degrees={self.max_degrees}, {self._shared_repr()}{law}"
