"""Every op that a policy can name and that is only a matrix, made from its spec, for tests that all ops must pass."""

from __future__ import annotations

from typing import Any

from augkit.augment.base import RandomGeometry
from augkit.augment.ops import op_classes, op_specs

RECOLORING = {made.spec.name for made in op_classes().values() if made.spec is not None and made.recolors}
NAMES = [name for name in op_specs() if name not in RECOLORING]
SIDE = 50  # pixels of the images for which the examples are chosen


def make_op(name: str, *, same_on_batch: bool = False, **settings: Any) -> RandomGeometry:
    """The op ``name`` with the settings of its example, but for ``settings``."""
    spec = op_specs()[name]
    op = spec.make(spec.example(SIDE).model_copy(update=settings), None)
    op.same_on_batch = same_on_batch
    return op
