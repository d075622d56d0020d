"""augkit: data augmentation for PyTorch, judged by the invariance that a network learns.

Names are imported when first used, so that ``import augkit`` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from augkit.augment.ops import MODULES as _OPS
from augkit.core.lazy import lazy

__version__ = "0.1.0"

_HOME = {
    "Augment": "augment.compose",
    "Policy": "augment.policy",
    "Ragged": "augment.ragged",
    "Recipe": "train.recipe",
    "antialias": "architectures",
    "architectural_invariance": "invariance",
    "build_model": "architectures",
    "certify": "invariance",
    "compare_policies": "compare.policies",
    "fit": "train.loop",
    "fourier_shift": "augment.resample",
    "learned_invariance": "invariance",
    "load_dataset": "data",
    "load_run": "train.loaded_run",
    "measure_invariance": "invariance",
    "measure_outputs": "invariance.outputs",
    "push_to_hub": "train.hub",
    "resample": "augment.resample",
    "shift_averaged": "architectures",
    "shift_blur": "augment.blur",
    "transfer": "invariance",
    "tune_policy": "tune.policy_search",
    **dict.fromkeys(_OPS, "augment.ops"),
}

__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604 (the keys are strings)

if TYPE_CHECKING:
    from augkit.architectures import antialias as antialias
    from augkit.architectures import build_model as build_model
    from augkit.architectures import shift_averaged as shift_averaged
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
    from augkit.compare.policies import compare_policies as compare_policies
    from augkit.data import load_dataset as load_dataset
    from augkit.invariance import architectural_invariance as architectural_invariance
    from augkit.invariance import certify as certify
    from augkit.invariance import learned_invariance as learned_invariance
    from augkit.invariance import measure_invariance as measure_invariance
    from augkit.invariance import transfer as transfer
    from augkit.invariance.outputs import measure_outputs as measure_outputs
    from augkit.train.hub import push_to_hub as push_to_hub
    from augkit.train.loaded_run import load_run as load_run
    from augkit.train.loop import fit as fit
    from augkit.train.recipe import Recipe as Recipe
    from augkit.tune.policy_search import tune_policy as tune_policy

__getattr__, _ = lazy(__name__, _HOME)


def __dir__() -> list[str]:
    return __all__
