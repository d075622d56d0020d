"""augkit's own random ops, one a file, and the rows that describe them.

``random_shear.py`` would hold ``RandomShear``: a module ``random_*`` in this folder, with a class of the same name, is
all that makes an op known to the package, to policies, searches and previews. Its row is the attribute ``spec`` of
the class (`augkit.augment.op_spec`); `RandomShiftBlur` has none, because a policy reaches it through ``shift``.

An op turns uniform draws into a map and does nothing else; randomness enters as data. Alone, an op is a Kornia
augmentation (`augkit.augment.base`). Inside `augkit.Augment` only its map is used. Every sample has its own parameters
and its own coin for ``p``. ``strength`` in [0, 1] scales the range of every op: 0 is the identity bit for bit, 1 the
range as written.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from augkit.core.lazy import lazy

if TYPE_CHECKING:  # for editors and type checkers, to which any other op is an unknown type
    from augkit.augment.base import RandomGeometry
    from augkit.augment.op_spec import OpSpec
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

# The module of each op by the name of its class. Only file names are read, so that `import augkit` stays light.
MODULES = {
    "".join(word.capitalize() for word in module.name.split("_")): module.name
    for module in pkgutil.iter_modules(__path__)
    if module.name.startswith("random_")
}

__getattr__, __dir__ = lazy(__name__, MODULES)


@cache
def op_classes() -> dict[str, type[RandomGeometry]]:
    """The classes of all ops, by name."""
    return {name: getattr(import_module(f"{__name__}.{module}"), name) for name, module in MODULES.items()}


@cache
def op_specs() -> dict[str, OpSpec[Any]]:
    """The rows of all ops that a policy can name, by that name, in the order in which a policy applies them."""
    specs = [made.spec for made in op_classes().values() if made.spec is not None]
    return {spec.name: spec for spec in sorted(specs, key=lambda spec: spec.place)}
