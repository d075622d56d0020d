"""Square views of whole images of different sizes, for training with a policy that crops.

The policy is composed in the frame of evaluation, the centre square of the image at ``side`` pixels, so that pixels and
areas have the same meaning as there. A crop may lie anywhere in the whole image, not only in the centre square; a
sample that is not cropped is the centre square. Images are resampled once, from the decoded pixels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.augment.compose import Augment
from augkit.augment.op_strengths import Strength


@dataclass(frozen=True)
class WholeBatch:
    """Images ``(C, H, W)`` of different sizes, to be resampled to squares of ``side`` pixels."""

    images: Sequence[Tensor]
    side: int

    def __len__(self) -> int:
        return len(self.images)


def needed_side(augment: Augment, side: int) -> int | None:
    """Return the length of an image's shorter side from which no window must be enlarged to ``side`` pixels.

    It is None without a crop, where only the centre square is needed.

    >>> from augkit import RandomRescale, RandomSubpixelCrop
    >>> crop, rescale = RandomSubpixelCrop(area=(0.25, 1.0), ratio=(1.0, 1.0)), RandomRescale(1.5)
    >>> needed_side(Augment(crop), 32), needed_side(Augment(rescale, crop), 32), needed_side(Augment(rescale), 32)
    (64, 96, None)
    """
    if not augment.crops or augment.strength == 0:
        return None
    return math.ceil(side * math.prod(op.max_enlarge() for op in augment.geometry))


def augmented(
    augment: Augment,
    images: Tensor | WholeBatch,
    generator: torch.Generator,
    strength: Strength | None = None,
    draws: Tensor | None = None,
) -> Tensor:
    """Return a batch of augmented training images, ``(B, C, H, W)``; strength and draws as in `Augment`."""
    if isinstance(images, Tensor):
        return torch.as_tensor(augment(images, generator=generator, strength=strength, draws=draws))
    return square_views(augment, images, generator, strength, draws)


def square_views(
    augment: Augment,
    batch: WholeBatch,
    generator: torch.Generator | None = None,
    strength: Strength | None = None,
    draws: Tensor | None = None,
) -> Tensor:
    """Augment whole images to ``(B, C, side, side)``, with the same draws as for a batch of squares."""
    fitting = copy.copy(augment)
    fitting.size = (batch.side, batch.side)
    return torch.as_tensor(fitting(batch.images, generator=generator, strength=strength, draws=draws))
