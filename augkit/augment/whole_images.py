"""Square views of whole images, each of its own size: what training sees where a policy has a crop.

An image stands in the frame of its evaluation, the centre square at ``side`` pixels, and the policy is composed in it,
so that its pixels and areas mean what they mean there. A window that a crop draws may lie anywhere in the whole image
instead of the centre square alone; an image that no crop takes shows the centre square. Everything is resampled once,
from the pixels as they were decoded.
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
    """Images ``(C, H, W)`` of sizes of their own, to be seen as squares of ``side`` pixels."""

    images: Sequence[Tensor]
    side: int

    def __len__(self) -> int:
        return len(self.images)


def needed_side(augment: Augment, side: int) -> int | None:
    """The pixels of an image's shorter side that its smallest window needs, so as not to be enlarged to ``side``.

    None where no op crops, so that the centre square is all that is seen.

    >>> from augkit import RandomRescale
    >>> crop, rescale = RandomSubpixelCrop(area=(0.25, 1.0), ratio=(1.0, 1.0)), RandomRescale(1.5)
    >>> needed_side(Augment(crop), 32), needed_side(Augment(rescale, crop), 32), needed_side(Augment(rescale), 32)
    (64, 96, None)
    """
    if not _crops(augment) or augment.strength == 0:
        return None
    return math.ceil(side * math.prod(op.max_enlarge() for op in augment.geometry))


def augmented(augment: Augment, images: Tensor | WholeBatch, generator: torch.Generator) -> Tensor:
    """A batch as training sees it, ``(B, C, H, W)``."""
    if isinstance(images, Tensor):
        return torch.as_tensor(augment(images, generator=generator))
    return square_views(augment, images, generator)


def square_views(augment: Augment, batch: WholeBatch, generator: torch.Generator | None = None) -> Tensor:
    """``augment`` of whole images, ``(B, C, side, side)``, drawn as it draws for a batch of squares."""
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
    # Kornia's ops see the squares, whatever the images were.
    like = batch.images[0].new_zeros(()).expand(len(batch), batch.images[0].shape[0], *square)
    tail = augment.draw_tail(like, strength, generator)
    return augment.render_each(batch.images, matrix, square, shrinks, blur, tail)


def _crops(augment: Augment) -> dict[int, RandomSubpixelCrop]:
    """The crops that cut anything, by the column of their first draw."""
    found, column = {}, 0
    for op in augment.geometry:
        if isinstance(op, RandomSubpixelCrop) and op.area[0] < 1:
            found[column] = op
        column += op.draws
    return found


def _placement(augment: Augment, draws: Tensor) -> Tensor:
    """Where windows lie along the whole image, ``(B, 2)`` from -0.5 to 0.5; 0, the middle, for those not cropped.

    It is what places the window in the square, so that the two together are uniform over the whole image.
    """
    for column, crop in _crops(augment).items():
        own = draws[:, column : column + crop.draws]
        return crop.chosen(own, own[:, 3:5] - 0.5)
    return draws.new_zeros(len(draws), 2)
