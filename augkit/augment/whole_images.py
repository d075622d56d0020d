"""Square views of whole images of different sizes, for training with a policy that crops.

The policy is composed in the frame of evaluation, the centre square of the image at ``side`` pixels, so that its pixels
and areas mean the same as there. A crop may lie anywhere in the whole image, not in the centre square alone; a sample
that is not cropped shows the centre square. Everything is resampled once, from the decoded pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.augment.base import per_sample
from augkit.augment.compose import Augment
from augkit.augment.geometry import Axes
from augkit.augment.op_strengths import Strength, of_op
from augkit.augment.ops.random_subpixel_crop import RandomSubpixelCrop


@dataclass(frozen=True)
class WholeBatch:
    """Images ``(C, H, W)`` of different sizes, to be resampled to squares of ``side`` pixels."""

    images: Sequence[Tensor]
    side: int

    def __len__(self) -> int:
        return len(self.images)


def needed_side(augment: Augment, side: int) -> int | None:
    """The length of an image's shorter side from which no window must be enlarged to ``side`` pixels.

    None where no op crops, so that only the centre square is needed.

    >>> from augkit import RandomRescale
    >>> crop, rescale = RandomSubpixelCrop(area=(0.25, 1.0), ratio=(1.0, 1.0)), RandomRescale(1.5)
    >>> needed_side(Augment(crop), 32), needed_side(Augment(rescale, crop), 32), needed_side(Augment(rescale), 32)
    (64, 96, None)
    """
    if not _crops(augment) or augment.strength == 0:
        return None
    return math.ceil(side * math.prod(op.max_enlarge() for op in augment.geometry))


def augmented(
    augment: Augment,
    images: Tensor | WholeBatch,
    generator: torch.Generator,
    strength: Strength | None = None,
    draws: Tensor | None = None,
) -> Tensor:
    """A batch of augmented training images, ``(B, C, H, W)``; strength and draws as in `Augment`."""
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
    """``augment`` of whole images, ``(B, C, side, side)``, with the draws that a batch of squares would get."""
    square = (batch.side, batch.side)
    draws, strength = augment.draw_geometry(len(batch), strength, generator, batch.images[0].device, draws)
    roamed = _placement(augment, draws, strength)
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
    # Kornia's ops get the squares, whatever the sizes of the images.
    like = batch.images[0].new_zeros(()).expand(len(batch), batch.images[0].shape[0], *square)
    tail = augment.draw_tail(like, strength, generator)
    return augment.render_each(batch.images, matrix, square, shrinks, blur, tail)


def _crops(augment: Augment) -> dict[int, RandomSubpixelCrop]:
    """The crops whose window can be smaller than the image, by the column of their first draw."""
    found, column = {}, 0
    for op in augment.geometry:
        if isinstance(op, RandomSubpixelCrop) and op.area[0] < 1:
            found[column] = op
        column += op.draws
    return found


def _placement(augment: Augment, draws: Tensor, strength: Strength) -> Tensor:
    """The place of each window along the whole image, ``(B, 2)`` from -0.5 to 0.5; 0, the middle, without a crop.

    The same draws place the window in the square, so that its place is uniform over the whole image.
    """
    for column, crop in _crops(augment).items():
        own = draws[:, column : column + crop.draws]
        return crop.chosen(own, own[:, 3:5] - 0.5) * per_sample(of_op(strength, crop.policy_name))
    return draws.new_zeros(len(draws), 2)
