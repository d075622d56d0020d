"""Square views of whole images of different sizes, for training with a policy that crops.

The policy is composed in the frame of evaluation, the centre square of the image at ``side`` pixels, so that pixels and
areas have the same meaning as there. A crop may lie anywhere in the whole image, not only in the centre square; a
sample that is not cropped is the centre square. Images are resampled once, from the decoded pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.augment.compose import Augment
from augkit.augment.geometry import Axes
from augkit.augment.ops.random_subpixel_crop import RandomSubpixelCrop


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

    >>> from augkit import RandomRescale
    >>> crop, rescale = RandomSubpixelCrop(area=(0.25, 1.0), ratio=(1.0, 1.0)), RandomRescale(1.5)
    >>> needed_side(Augment(crop), 32), needed_side(Augment(rescale, crop), 32), needed_side(Augment(rescale), 32)
    (64, 96, None)
    """
    if not _crops(augment) or augment.strength == 0:
        return None
    return math.ceil(side * math.prod(op.max_enlarge() for op in augment.geometry))


def augmented(augment: Augment, images: Tensor | WholeBatch, generator: torch.Generator) -> Tensor:
    """Return a batch of augmented training images, ``(B, C, H, W)``."""
    if isinstance(images, Tensor):
        return torch.as_tensor(augment(images, generator=generator))
    return square_views(augment, images, generator)


def square_views(augment: Augment, batch: WholeBatch, generator: torch.Generator | None = None) -> Tensor:
    """Augment whole images to ``(B, C, side, side)``, with the same draws as for a batch of squares."""
    square = (batch.side, batch.side)
    strength = augment.strength
    draws, _ = augment.draw_geometry(len(batch), strength, generator, batch.images[0].device)
    roamed = _placement(augment, draws) * strength
    matrices, shrinks, scales = [], [], []
    for image, share in zip(batch.images, roamed.split(1), strict=True):
        height, width = image.shape[-2:]
        shorter = min(height, width)
        scale = batch.side / shorter
        room = torch.tensor([[shorter - width, shorter - height]], dtype=share.dtype, device=share.device)
        frame = Axes(torch.full_like(share, scale), share * room * scale)
        matrices.append(frame.matrix((height, width), square))
        shrinks.append(max(1.0, 1 / scale))
        scales.append(scale)
    matrix, blur = augment.matrix(draws, strength, square) @ torch.cat(matrices), augment.blur(draws, strength)
    if blur is not None:
        blur = blur / torch.tensor(scales, device=blur.device)[:, None]
    # Kornia's ops get squares, for images of any size.
    like = batch.images[0].new_zeros(()).expand(len(batch), batch.images[0].shape[0], *square)
    tail = augment.draw_tail(like, strength, generator)
    return augment.render_each(batch.images, matrix, square, shrinks, blur, tail)


def _crops(augment: Augment) -> dict[int, RandomSubpixelCrop]:
    """Return the crops whose window can be smaller than the image, by the column of their first draw."""
    found, column = {}, 0
    for op in augment.geometry:
        if isinstance(op, RandomSubpixelCrop) and op.area[0] < 1:
            found[column] = op
        column += op.draws
    return found


def _placement(augment: Augment, draws: Tensor) -> Tensor:
    """Return the position of each window in the whole image, ``(B, 2)`` from -0.5 to 0.5; 0 (the middle) if uncropped.

    The same draws position the window in the square, so that its position is uniform over the whole image.
    """
    for column, crop in _crops(augment).items():
        own = draws[:, column : column + crop.draws]
        return crop.chosen(own, own[:, 3:5] - 0.5)
    return draws.new_zeros(len(draws), 2)
