"""Augmentation: geometry, kernels, resampling, random ops, policies, and their CPU twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.augment.ops import MODULES as OPS
from augkit.core.lazy import lazy

if TYPE_CHECKING:
    from augkit.augment.blur import shift_blur as shift_blur
    from augkit.augment.compose import Augment as Augment
    from augkit.augment.ops import AugMix as AugMix
    from augkit.augment.ops import RandAugment as RandAugment
    from augkit.augment.ops import RandomHorizontalFlip as RandomHorizontalFlip
    from augkit.augment.ops import RandomPerspective as RandomPerspective
    from augkit.augment.ops import RandomQuarterTurn as RandomQuarterTurn
    from augkit.augment.ops import RandomRescale as RandomRescale
    from augkit.augment.ops import RandomRotation as RandomRotation
    from augkit.augment.ops import RandomShear as RandomShear
    from augkit.augment.ops import RandomShiftBlur as RandomShiftBlur
    from augkit.augment.ops import RandomSubpixelCrop as RandomSubpixelCrop
    from augkit.augment.ops import RandomSubpixelShift as RandomSubpixelShift
    from augkit.augment.ops import RandomVerticalFlip as RandomVerticalFlip
    from augkit.augment.ops import TrivialAugment as TrivialAugment
    from augkit.augment.policy import Policy as Policy
    from augkit.augment.ragged import Ragged as Ragged
    from augkit.augment.resample import fourier_shift as fourier_shift
    from augkit.augment.resample import resample as resample

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Augment": "compose",
        "Policy": "policy",
        "Ragged": "ragged",
        "fourier_shift": "resample",
        "resample": "resample",
        "shift_blur": "blur",
        **dict.fromkeys(OPS, "ops"),
    },
)
