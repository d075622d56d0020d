"""Views of whole images of different sizes: of a policy that crops, for training, and of their centres, for evaluation.

The policy is composed in the frame of the centre square, whose whole side has ``side`` pixels: areas are shares of it,
whatever share of it evaluation shows. A crop may lie anywhere in the whole image, not only in the centre square; a
sample that is not cropped is the centre square. Images are resampled once, from the decoded pixels.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from augkit.augment.compose import Augment
from augkit.augment.fit import fit, fit_shrink
from augkit.augment.ragged import Ragged, Size, sizes_of
from augkit.augment.resample import NO_FINISH
from augkit.augment.resample_each import Way, resample_each


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


def square_views(augment: Augment, side: int) -> Augment:
    """Return ``augment``, with the same ops, for images of any size: ``(B, C, side, side)`` of a `Ragged`.

    It has the same draws as for a batch of squares.
    """
    fitting = copy.copy(augment)
    fitting.size = (side, side)
    return fitting


def centres(images: Ragged, size: Size, crop_share: float = 1.0) -> Tensor:
    """Return the centres ``(B, C, h, w)`` of images of any size, as evaluation sees those of files.

    Each is fitted to ``size / crop_share`` and cut, in one resampling; the dtype stays.

    >>> centres(Ragged.from_list([torch.rand(3, 30, 40), torch.rand(3, 50, 25)]), (24, 24)).shape
    torch.Size([2, 3, 24, 24])
    """
    sizes = sizes_of(images)
    like = torch.empty(len(sizes), 1, device=images.device, dtype=torch.float32)
    matrix = fit(sizes, size, like, crop_share=crop_share).matrix(size)
    bounds: list[float | None] = [fit_shrink(own, size, crop_share) for own in sizes]
    return resample_each(images, matrix, None, Way(size, "lanczos3", "border", bounds, NO_FINISH), axis_aligned=True)
