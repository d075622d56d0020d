"""augkit's own random ops, one per file, and their specs.

A new op needs only a module ``random_*`` in this folder with a class of the same name (``random_shear.py`` holds
``RandomShear``; published policies have their own names, such as ``rand_augment.py``); the package, policies, searches
and previews find it there. Its spec is the attribute ``spec`` of the class (`augkit.augment.op_spec`).
`RandomShiftBlur` has none, because a policy uses it through ``shift``.

An op is a pure function from uniform draws to a map. Alone, an op is a Kornia augmentation (`augkit.augment.base`).
Inside `augkit.Augment` only its map is used, and what it does to colors (`RandomGeometry.recolored`). Every sample has
its own parameters and is changed with probability ``p``.
``strength`` in [0, 1] scales the range of every op: 0 is bitwise the identity, 1 is the full range.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from augkit.core.lazy import lazy

if TYPE_CHECKING:  # for editors and type checkers, which cannot find the ops at run time
    from augkit.augment.base import RandomGeometry
    from augkit.augment.op_spec import OpSpec
    from augkit.augment.ops.aug_mix import AugMix as AugMix
    from augkit.augment.ops.rand_augment import RandAugment as RandAugment
    from augkit.augment.ops.random_horizontal_flip import RandomHorizontalFlip as RandomHorizontalFlip
    from augkit.augment.ops.random_perspective import RandomPerspective as RandomPerspective
    from augkit.augment.ops.random_quarter_turn import RandomQuarterTurn as RandomQuarterTurn
    from augkit.augment.ops.random_rescale import RandomRescale as RandomRescale
    from augkit.augment.ops.random_rotation import RandomRotation as RandomRotation
    from augkit.augment.ops.random_shear import RandomShear as RandomShear
    from augkit.augment.ops.random_shift_blur import RandomShiftBlur as RandomShiftBlur
    from augkit.augment.ops.random_subpixel_crop import RandomSubpixelCrop as RandomSubpixelCrop
    from augkit.augment.ops.random_subpixel_shift import RandomSubpixelShift as RandomSubpixelShift
    from augkit.augment.ops.random_vertical_flip import RandomVerticalFlip as RandomVerticalFlip
    from augkit.augment.ops.trivial_augment import TrivialAugment as TrivialAugment

PUBLISHED = ("aug_mix", "rand_augment", "trivial_augment")  # of several ops; their names do not begin with random

# The module of each op by the name of its class. Only file names are read, so that `import augkit` stays light.
MODULES = {
    "".join(word.capitalize() for word in module.name.split("_")): module.name
    for module in pkgutil.iter_modules(__path__)
    if module.name.startswith("random_") or module.name in PUBLISHED
}

__getattr__, __dir__ = lazy(__name__, MODULES)


@cache
def op_classes() -> dict[str, type[RandomGeometry]]:
    """Return the classes of all ops, by name."""
    return {name: getattr(import_module(f"{__name__}.{module}"), name) for name, module in MODULES.items()}


@cache
def op_specs() -> dict[str, OpSpec[Any]]:
    """Return the specs of all ops of a policy by name, in the order in which a policy applies them."""
    specs = [made.spec for made in op_classes().values() if made.spec is not None]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.place)}
