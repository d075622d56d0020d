"""TrivialAugment (Müller and Hutter 2021, https://arxiv.org/abs/2103.10158): one op at a magnitude, both at random.

The ops and their wide ranges are those of torchvision's ``TrivialAugmentWide``. Deviations: geometry is part of the one
resampling; magnitudes are continuous, not 31 levels; translations may end between pixels.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from augkit.augment.base import Size
from augkit.augment.op_spec import OpSettings, OpSpec, Probability
from augkit.augment.random_choices import COLUMNS, Choices, Chosen, RandomChoices, caption, columns

OPS = Choices(
    {
        "identity": 0.0,
        "shear_x": 0.99,
        "shear_y": 0.99,
        "translate_x": 32.0,
        "translate_y": 32.0,
        "rotate": 135.0,
        "brightness": 0.99,
        "color": 0.99,
        "contrast": 0.99,
        "sharpness": 0.99,
        "posterize": 6.0,
        "solarize": 1.0,
        "autocontrast": 1.0,
        "equalize": 1.0,
    },
    pixels=True,
)


class TrivialAugmentSettings(OpSettings):
    """The fields of TrivialAugment in a policy."""

    p: Probability = Field(1.0, description="share of samples (probability)")


class TrivialAugment(RandomChoices):
    """Apply one of 14 ops, drawn for each sample, at an amount that is uniform up to the largest.

    The largest amounts are shears by a factor of 0.99, translations by 32 pixels, rotations by 135 degrees, brightness,
    color, contrast and sharpness by a factor of 0.01 or 1.99, 6 of 8 bits cleared by posterize, all values inverted by
    solarize; ``autocontrast`` and ``equalize`` are applied in full, to a sample of strength s with probability s.

    Args:
        p: probability that a sample is changed.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 1 + COLUMNS
    spec = OpSpec(
        name="trivialaugment",
        title="TrivialAugment: one op at a magnitude, both at random",
        place=65,
        settings=TrivialAugmentSettings,
        make=lambda settings, size: TrivialAugment(settings.p),
        describe=lambda settings: f"1 of 14 ops at any magnitude, probability {settings.p:g}",
        caption=caption,
        example=lambda side: TrivialAugmentSettings(p=1.0),
    )

    def __init__(
        self, p: float = 1.0, kernel: str = "bicubic", padding: str = "zeros", *, same_on_batch: bool = False
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)

    def chosen_ops(self, draws: Tensor, strength: float | Tensor) -> list[Chosen]:
        own = columns(draws, 0)
        return [OPS.pick(own, own[:, 2], strength).only(self._coin(draws))]

    def max_shrink(self, size: Size) -> float:
        del size
        return OPS.shrink(1.0)

    def extra_repr(self) -> str:
        return self._shared_repr()
