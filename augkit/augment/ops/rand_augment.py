"""RandAugment (Cubuk et al. 2020, https://arxiv.org/abs/1909.13719): a few ops at random, all at one magnitude.

The ops and their ranges are those of torchvision's ``RandAugment``, with the paper's scale of 30 levels. Deviations:
the geometry of a sample is one matrix, resampled once, before its colors change; translations may end between pixels;
at magnitude 0 nothing changes, not even by ``autocontrast`` and ``equalize``, which have no magnitude.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor

from augkit.augment.base import Size
from augkit.augment.op_spec import Amount, OpSettings, OpSpec, Probability
from augkit.augment.random_choices import COLUMNS, Choices, Chosen, RandomChoices, caption, columns
from augkit.core.errors import check_number, check_whole

LEVELS = 30.0
MOST_OPS = 8
OPS = Choices(
    {
        "identity": 0.0,
        "shear_x": 0.3,
        "shear_y": 0.3,
        "translate_x": 150 / 331,
        "translate_y": 150 / 331,
        "rotate": 30.0,
        "brightness": 0.9,
        "color": 0.9,
        "contrast": 0.9,
        "sharpness": 0.9,
        "posterize": 4.0,
        "solarize": 1.0,
        "autocontrast": 1.0,
        "equalize": 1.0,
    }
)


class RandAugmentSettings(OpSettings):
    """The fields of RandAugment in a policy."""

    num_ops: int = Field(2, ge=1, le=MOST_OPS, description="ops of a sample")
    magnitude: Annotated[float, Amount(0.0, LEVELS, "of 30 levels"), Field(ge=0, le=LEVELS)] = Field(
        9.0, description="of every op (of 30 levels)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")


class RandAugment(RandomChoices):
    """Apply ``num_ops`` of 14 ops, drawn for each sample with replacement, at one magnitude.

    At magnitude 30: shears by a factor of 0.3, translations by 45 % of the side, rotations by 30 degrees; brightness,
    color, contrast and sharpness by a factor of 0.1 or 1.9; 4 of 8 bits cleared by posterize; all values inverted by
    solarize. Amounts are proportional to the magnitude and to the strength, and signs are random. ``autocontrast`` and
    ``equalize`` are applied in full, to a sample of strength s with probability s. Masks, boxes and keypoints follow
    what moves pixels. Images are floating in [0, 1], or uint8 inside `Augment`.

    Args:
        num_ops: ops of a sample, from 1 to 8.
        magnitude: of every op, in [0, 30]; the paper has 9 for ResNet-50 on ImageNet.
        p: probability that a sample is changed.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: a number outside of its range, unknown kernel or padding.

    >>> import torch
    >>> RandAugment(num_ops=2, magnitude=9)(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 3, 32, 32])
    """

    spec = OpSpec(
        name="randaugment",
        title="RandAugment: a few ops at random, at one magnitude",
        place=60,
        settings=RandAugmentSettings,
        make=lambda settings, size: RandAugment(settings.num_ops, settings.magnitude, settings.p),
        describe=lambda settings: f"{settings.num_ops} of 14 ops at magnitude {settings.magnitude:g} of 30",
        caption=caption,
        example=lambda side: RandAugmentSettings(magnitude=15.0),
    )

    def __init__(
        self,
        num_ops: int = 2,
        magnitude: float = 9.0,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        check_whole("num_ops", num_ops, 1)
        self.num_ops = int(check_number("num_ops", num_ops, 1, MOST_OPS))
        self.magnitude = check_number("magnitude", magnitude, 0.0, LEVELS)
        self.draws = 1 + COLUMNS * self.num_ops

    def chosen_ops(self, draws: Tensor, strength: float | Tensor) -> list[Chosen]:
        applied, level = self._coin(draws) & (self.magnitude > 0), self.magnitude / LEVELS
        return [OPS.pick(columns(draws, k), level, strength).only(applied) for k in range(self.num_ops)]

    def max_shrink(self, size: Size) -> float:
        del size
        return OPS.shrink(self.magnitude / LEVELS) ** self.num_ops

    def extra_repr(self) -> str:
        return f"num_ops={self.num_ops}, magnitude={self.magnitude}, {self._shared_repr()}"
