"""Pictures of the worst cases: both views with the network's output drawn on them, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# Okabe & Ito 2008, distinguishable for color-blind readers; further classes take them again, darker.
PALETTE = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66))
RED = (0.9, 0.1, 0.1)
COVER = 0.55  # opacity of what is drawn on an image
SIDE = 256  # pixels; larger views are made smaller


@dataclass(frozen=True)
class WorstPicture:
    """One of the worst cases.

    Attributes:
        title: number of the image, and how much the outputs differ.
        pictures: with captions: the two views, and what the kind adds, such as neighbors or the difference.
    """

    title: str
    pictures: list[tuple[Image.Image, str]]


def small(image: Tensor) -> Tensor:
    """Return an image ``(C, H, W)`` on the CPU, of at most `SIDE` pixels a side."""
    image = image.detach().cpu().float()
    factor = -(-max(image.shape[-2:]) // SIDE)
    return F.avg_pool2d(image[None], factor)[0] if factor > 1 else image


def in_color(image: Tensor) -> Tensor:
    """Return an image ``(C, H, W)`` as red, green and blue, ``(3, H, W)`` on the CPU in [0, 1]."""
    image = image.detach().cpu().float().clamp(0, 1)
    return image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)


def fitted(values: Tensor, size: Sequence[int]) -> Tensor:
    """Return a map ``(C, h, w)`` with pixels repeated to the size ``(H, W)`` of a view."""
    return F.interpolate(values[None].cpu().float(), (size[0], size[1]), mode="nearest")[0]


def with_classes(image: Tensor, classes: Tensor) -> Tensor:
    """Return an image ``(C, H, W)`` covered by the colors of its pixels' classes ``(h, w)``."""
    count = len(PALETTE)
    turns = torch.arange(int(classes.max()) // count + 1)
    colors = torch.tensor(PALETTE)[None] / 255 * (0.7**turns)[:, None, None]
    cover = colors.flatten(0, 1)[classes.cpu().long()].movedim(-1, 0)
    base = in_color(image)
    return (1 - COVER) * base.mean(0, keepdim=True) + COVER * fitted(cover, base.shape[-2:])


def with_mask(image: Tensor, mask: Tensor, outside: Tensor | None = None) -> Tensor:
    """Return a gray version of an image with the pixels of ``mask`` ``(h, w)`` in red, and ``outside`` dark."""
    base = 0.3 + 0.5 * in_color(image).mean(0, keepdim=True).expand(3, -1, -1)
    size = base.shape[-2:]
    red = torch.tensor(RED)[:, None, None]
    out = torch.where(fitted(mask[None].float(), size) > 0.5, red, base)
    return out if outside is None else out * (1 - 0.7 * fitted(outside[None].float(), size))


def as_gray(values: Tensor, size: Sequence[int], low: float, high: float) -> Tensor:
    """Return a map ``(h, w)`` as a gray picture of a view's size, from ``low`` (black) to ``high`` (white)."""
    scaled = (values.cpu().float() - low) / max(high - low, 1e-12)
    return fitted(scaled.clamp(0, 1)[None], size).expand(3, -1, -1)


Fetch = Callable[[list[int]], Tensor]  # images (N, C, H, W) by their numbers
