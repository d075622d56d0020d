"""Predictions on augmented images, mapped back to the images that were augmented."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from augkit.augment import geometry, targets
from augkit.augment.matrix_checks import check_invertible, check_values, checked_matrix, is_axis_aligned
from augkit.augment.resample import check_images, check_size, resample
from augkit.core.errors import InputError, InputTypeError
from augkit.core.precision import widest

Size = tuple[int, int]


class Inverted(NamedTuple):
    """Images and targets in the pixels of the input; fields of what was not passed are None.

    What the output did not show is 0 in ``images`` and ``masks``; shifted on the torus, by the kernel ``fourier``, it
    showed all. Boxes and keypoints are not clipped; a box with a corner behind the horizon of a perspective is
    0, 0, 0, 0.
    """

    images: Tensor | None
    masks: Tensor | None
    boxes: Tensor | None
    keypoints: Tensor | None


def inverted(
    matrix: Tensor,
    *,
    images: Tensor | None,
    masks: Tensor | None,
    boxes: Tensor | None,
    keypoints: Tensor | None,
    size: Size | None,
    kernel: str,
    antialias: bool,
) -> Inverted:
    """`augkit.Augment.inverse`, with the kernel and the antialias of the transform."""
    named = {"images": images, "masks": masks, "boxes": boxes, "keypoints": keypoints}
    others = [f"{name} as a {type(one).__name__}" for name, one in named.items() if not isinstance(one, Tensor | None)]
    if others:
        raise InputTypeError(f"inverse: expected tensors of one size, got {others[0]}; map one image at a time")
    given = [one for one in named.values() if isinstance(one, Tensor)]
    if not given:
        raise InputError("inverse: expected images, masks, boxes or keypoints as tensors, got none")
    if size is not None:
        check_size(size)
    matrix = checked_matrix(matrix, given[0])
    check_invertible(matrix)
    back = _inverse(matrix)
    batch, aligned = len(back), masks is not None and is_axis_aligned(back)
    padding = "circular" if kernel == "fourier" else "zeros"
    if images is not None:
        check_images(images)
        images = resample(images, back, _size(size, images), kernel=kernel, padding=padding, antialias=antialias)
    if masks is not None:
        targets.check_masks(masks, batch, (masks.shape[-2], masks.shape[-1]), back.device)
        check_values(back, _size(size, masks))
        masks = targets.move_masks(masks, back, _size(size, masks), padding, axis_aligned=aligned)
    if boxes is not None:
        targets.check_points("boxes", boxes, batch, 4, back.device)
        boxes = targets.move_boxes(back, boxes)
    if keypoints is not None:
        targets.check_points("keypoints", keypoints, batch, 2, back.device)
        keypoints = targets.move_points(back, keypoints)
    return Inverted(images, masks, boxes, keypoints)


def _size(size: Size | None, like: Tensor) -> Size:
    return check_size((like.shape[-2], like.shape[-1]) if size is None else size)


def _inverse(matrix: Tensor) -> Tensor:
    """In float64 where there is one: float32 would move a point by a thousandth of a pixel."""
    precise = matrix.to(widest(matrix.device))
    return geometry.adjugate(precise) / geometry.determinant(precise)[:, None, None]
