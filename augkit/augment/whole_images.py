"""Square views of whole images of different sizes, for training with a policy that crops.

The policy is composed in the frame of the center square, whose whole side has ``side`` pixels: areas are shares of it,
whatever share of it evaluation shows. A crop may lie anywhere in the whole image, not only in the center square; a
sample that is not cropped is the center square. Images are resampled once, from the decoded pixels.
"""

from __future__ import annotations

import copy
import math

from augkit.augment.compose import Augment


def needed_side(augment: Augment, side: int) -> int | None:
    """Return the length of an image's shorter side from which no window must be enlarged to ``side`` pixels.

    It is None without a crop, where only the center square is needed.

    >>> from augkit import RandomRescale, RandomSubpixelCrop
    >>> crop, rescale = RandomSubpixelCrop(area=(0.25, 1.0), ratio=(1.0, 1.0)), RandomRescale(1.5)
    >>> needed_side(Augment(crop), 32), needed_side(Augment(rescale, crop), 32), needed_side(Augment(rescale), 32)
    (64, 96, None)
    """
    if not augment.crops or augment.strength == 0:
        return None
    return math.ceil(side * math.prod(op.max_enlarge() for op in augment.geometry))


def square_views(augment: Augment, side: int) -> Augment:
    """Return ``augment``, with the same ops, for images of any size: ``(B, C, side, side)`` of a `Ragged`.

    It has the same draws as for a batch of squares.
    """
    fitting = copy.copy(augment)
    fitting.size = (side, side)
    return fitting
