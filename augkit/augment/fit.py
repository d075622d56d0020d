"""Fits images of any size to one size: the shorter side fits, the center stays.

The one definition for `augkit.Augment`, for training on whole images and for the images that are decoded for
evaluation. With a ``crop_share`` below 1 the image is fitted to ``frame / crop_share`` and the center cut out of that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from augkit.augment.geometry import Axes, along_axes

Size = tuple[int, int]


class Fit(NamedTuple):
    """Images fitted to a frame.

    Attributes:
        axes: the maps, about the centers of the image and of the frame.
        start: the center of each image as (x, y): a number or ``(2,)`` where all have one size, else ``(B, 2)``.
    """

    axes: Axes
    start: float | Tensor

    def matrix(self, frame: Size) -> Tensor:
        """``(B, 3, 3)`` from the pixels of the images to those of the frame."""
        return self.axes.between(self.start, center(frame, self.axes.scale))


def fit_scale(size: Size, frame: Size, crop_share: float = 1.0) -> float:
    """How much an image of ``size`` is enlarged to fill ``frame``.

    >>> fit_scale((300, 400), (224, 224)) == 224 / 300
    True
    """
    # Traced, Python's max would bind the graph to upright images, or to others.
    scale: Any = torch.sym_max(frame[0] / size[0], frame[1] / size[1])
    enlarged: float = scale / crop_share
    return enlarged


def fit_shrink(size: Size, frame: Size, crop_share: float = 1.0) -> float:
    """How much an image of ``size`` shrinks to fill ``frame``, at least 1: bounds the antialias taps."""
    shrink: Any = torch.sym_max(1.0, 1 / fit_scale(size, frame, crop_share))
    bound: float = shrink
    return bound


def fit_box(size: Size, frame: Size, crop_share: float = 1.0) -> tuple[float, float, float, float]:
    """The part of an image of ``size`` that is seen, as x0, y0, x1, y1 along the edges of pixels.

    >>> fit_box((300, 400), (224, 224)), fit_box((100, 100), (80, 40), 0.5)
    ((50.0, 0.0, 350.0, 300.0), (37.5, 25.0, 62.5, 75.0))
    """
    (height, width), (rows, columns) = size, frame
    # Whole numbers are compared and the longer side is derived, so that the box never leaves the image by a rounding.
    if height * columns <= width * rows:
        seen = (height * crop_share, min(width, height * columns / rows) * crop_share)
    else:
        seen = (min(height, width * rows / columns) * crop_share, width * crop_share)
    left, top = (width - seen[1]) / 2, (height - seen[0]) / 2
    return left, top, width - left, height - top


def decode_size_problem(decode_size: int | None, image_size: int | None, crop_share: float) -> str:
    """Return what is expected of these settings, and what came, or "" where they fit together.

    >>> decode_size_problem(224, 224, 0.875)
    'at least image_size / crop_share, 256 pixels, got 224'
    """
    if decode_size is None:
        return ""
    if image_size is None:
        return "an image_size with it, got none; set data.image_size"
    least = math.ceil(image_size / crop_share)
    return "" if decode_size >= least else f"at least image_size / crop_share, {least} pixels, got {decode_size}"


def fit(
    size: Size | Sequence[Size],
    frame: Size,
    like: Tensor,
    place: Tensor | None = None,
    crop_share: float = 1.0,
) -> Fit:
    """Images of one ``size``, or each of its own, fitted to ``frame``.

    Args:
        size: (H, W) of all images, or a list with that of each.
        frame: (H, W).
        like: ``(B, n)``, gives batch, dtype and device.
        place: ``(B, 2)`` as (x, y), which part of what does not fit is seen: 0 is the center, -0.5 and 0.5 the ends.
        crop_share: see the module.
    """
    if isinstance(size, tuple):
        scale, room, start = _fit_one(size, frame, crop_share)
        scales = torch.full((len(like), 1), scale, dtype=like.dtype, device=like.device)
        rooms, starts = along_axes(*room, like), along_axes(*start, like)
    else:
        each = [_fit_one(own, frame, crop_share) for own in size]
        scales, rooms, starts = (like.new_tensor(column) for column in zip(*each, strict=True))
        scales = scales[:, None]
    offset = torch.zeros_like(scales) if place is None else place * rooms
    return Fit(Axes(scales, offset), starts)


def center(size: Size, like: Tensor) -> float | Tensor:
    """The center of an image of ``size`` in its pixels as (x, y), with the device and dtype of ``like``."""
    return along_axes((size[1] - 1) / 2, (size[0] - 1) / 2, like)


def _fit_one(size: Size, frame: Size, crop_share: float) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """The scale; the room for other windows, as negative pixels of the frame, and the image's center, as (x, y)."""
    (height, width), scale = size, fit_scale(size, frame, crop_share)
    room = (frame[1] - width * scale, frame[0] - height * scale)
    return scale, room, ((width - 1) / 2, (height - 1) / 2)
