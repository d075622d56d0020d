"""augkit: data augmentation for PyTorch, judged by the invariance that a network learns.

Names are imported when first used, so that ``import augkit`` stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

_HOME = {
    "Augment": "augment",
    "RandomHorizontalFlip": "transforms",
    "RandomRescale": "transforms",
    "RandomShiftBlur": "transforms",
    "RandomSubpixelCrop": "transforms",
    "RandomSubpixelShift": "transforms",
    "Policy": "policy",
    "Recipe": "recipe",
    "antialias": "architectures",
    "architectural_invariance": "invariance",
    "build_model": "architectures",
    "certify": "invariance",
    "fit": "training",
    "fourier_shift": "resampling",
    "learned_invariance": "invariance",
    "load_dataset": "data",
    "measure_invariance": "invariance",
    "resample": "resampling",
    "shift_blur": "blur",
    "transfer": "invariance",
}

__all__ = [*sorted(_HOME), "__version__"]  # noqa: PLE0604 (the keys are strings)

if TYPE_CHECKING:
    from augkit.architectures import antialias as antialias
    from augkit.architectures import build_model as build_model
    from augkit.augment import Augment as Augment
    from augkit.blur import shift_blur as shift_blur
    from augkit.data import load_dataset as load_dataset
    from augkit.invariance import architectural_invariance as architectural_invariance
    from augkit.invariance import certify as certify
    from augkit.invariance import learned_invariance as learned_invariance
    from augkit.invariance import measure_invariance as measure_invariance
    from augkit.invariance import transfer as transfer
    from augkit.policy import Policy as Policy
    from augkit.recipe import Recipe as Recipe
    from augkit.resampling import fourier_shift as fourier_shift
    from augkit.resampling import resample as resample
    from augkit.training import fit as fit
    from augkit.transforms import RandomHorizontalFlip as RandomHorizontalFlip
    from augkit.transforms import RandomRescale as RandomRescale
    from augkit.transforms import RandomShiftBlur as RandomShiftBlur
    from augkit.transforms import RandomSubpixelCrop as RandomSubpixelCrop
    from augkit.transforms import RandomSubpixelShift as RandomSubpixelShift


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'augkit' has no attribute '{name}'")
    return getattr(import_module(f"augkit.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
