"""Moves masks, boxes and keypoints by the matrices of their images.

All functions are pure, keep the dtype of their target and compute coordinates in float32 or wider, also under autocast.
They never synchronize with the device.

- Masks use the nearest pixel, in their own dtype: labels are never mixed or rounded.
- Boxes are ``x0, y0, x1, y1`` along the edges of pixels: ``0, 0, W, H`` is the whole image (torchvision, COCO).
- Keypoints are ``x, y`` in pixels and an integer is a pixel's center, so the image reaches from -0.5 to W - 0.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends import general
from augkit.augment.checks import check_dense, check_same_device, is_float
from augkit.augment.kernels import HALF_WIDTH, padded_index
from augkit.core.errors import InputError, InputTypeError, brief

Size = tuple[int, int]


def check_pickable(name: str, masks: Tensor, shape: str) -> None:
    """Raise unless ``masks`` is a dense tensor, floating, integer or bool; ``shape`` is the expected shape as text."""
    if not isinstance(masks, Tensor) or masks.is_complex() or (masks.is_floating_point() and not is_float(masks)):
        got = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
        raise InputTypeError(f"{name}: expected a real tensor {shape}, got {got}; convert it before")
    check_dense(name, masks, shape)


def check_masks(masks: Tensor, batch: int, size: Size, device: torch.device) -> None:
    """Raise unless ``masks`` is ``(batch, C, *size)``, floating, integer or bool, on ``device``."""
    check_pickable("masks", masks, "(B, C, H, W)")
    if masks.ndim != 4:
        hint = "; add a channel with masks[:, None]" if masks.ndim == 3 else ""
        raise InputError(f"masks: expected 4 dimensions (B, C, H, W), got {masks.ndim} {tuple(masks.shape)}{hint}")
    if (masks.shape[0], *masks.shape[-2:]) != (batch, *size):
        raise InputError(
            f"masks: expected the batch, height and width of the images {(batch, *size)}, got {tuple(masks.shape)}"
        )
    check_same_device("masks", masks, device)


def check_points(name: str, points: Tensor, batch: int, last: int, device: torch.device) -> None:
    """Raise unless ``points`` is a floating ``(batch, N, last)`` on ``device``."""
    if not isinstance(points, Tensor) or not is_float(points):
        got = points.dtype if isinstance(points, Tensor) else type(points).__name__
        raise InputTypeError(f"{name}: expected a floating tensor ({batch}, N, {last}), got {got}; use .float()")
    check_dense(name, points, f"(B, N, {last})")
    if points.ndim != 3 or points.shape[0] != batch or points.shape[2] != last:
        raise InputError(f"{name}: expected shape ({batch}, N, {last}), got {tuple(points.shape)}")
    check_same_device(name, points, device)


def check_fill(fill: float | None) -> float | None:
    """Return ``fill``, or raise InputTypeError if it is neither a number nor None."""
    if fill is None or (isinstance(fill, (int, float)) and not isinstance(fill, bool)):
        return fill
    raise InputTypeError(f"mask_fill: expected a number such as 255, or None, got {brief(fill)}")


def fill_like(masks: Tensor, fill: float) -> Tensor:
    """Return ``fill`` as a tensor without dimensions, of the dtype and device of ``masks``.

    Raises:
        InputError: the dtype has no such value.
    """
    kind = str(masks.dtype).removeprefix("torch.")
    if not masks.is_floating_point():
        low, high = (
            (0, 1) if masks.dtype == torch.bool else (torch.iinfo(masks.dtype).min, torch.iinfo(masks.dtype).max)
        )
        if not low <= fill <= high or fill != int(fill):
            raise InputError(f"mask_fill: expected a value of masks of {kind}, {low} to {high}, got {fill:g}")
    elif math.isfinite(fill) and abs(fill) > torch.finfo(masks.dtype).max:
        raise InputError(f"mask_fill: expected a finite value of masks of {kind}, got {fill:g}")
    return masks.new_full((), fill)


def move_masks(masks: Tensor, matrix: Tensor, size: Size, padding: str, *, axis_aligned: bool = False) -> Tensor:
    """Move masks ``(B, C, H, W)`` of any real dtype by ``matrix`` ``(B, 3, 3)``, with the nearest pixel.

    A point midway between two pixels takes the later one, as with the kernel ``nearest``. ``axis_aligned`` promises
    that no matrix rotates or shears, so that one index per row and per column is enough, instead of one per pixel.
    """
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    if not axis_aligned:
        return _move_freely(masks, matrix, size, padding)
    for axis, dim in ((0, -1), (1, -2)):
        scale, offset = matrix[:, axis, axis, None], matrix[:, axis, 2, None]
        u = torch.arange(size[axis - 1], device=matrix.device, dtype=matrix.dtype)
        index, inside = _nearest((u - offset) / scale, masks.shape[dim], padding)
        masks = _take(masks, index, inside, dim, padding)
    return masks


def _move_freely(masks: Tensor, matrix: Tensor, size: Size, padding: str) -> Tensor:
    at = torch.arange(size[0] * size[1], device=matrix.device)
    with torch.autocast(matrix.device.type, enabled=False):
        inverse = general.source_map(matrix, affine=False)
        point = torch.stack([at % size[1], at // size[1], torch.ones_like(at)]).to(inverse.dtype)
        source = general.sources(inverse, point)
    x, inside_x = _nearest(source[:, 0], masks.shape[-1], padding)
    y, inside_y = _nearest(source[:, 1], masks.shape[-2], padding)
    wide = masks.flatten(2)[:, :, None]  # the pixels as one long row
    taken = _take(wide, y * masks.shape[-1] + x, inside_x & inside_y, -1, padding)
    return taken.reshape(*masks.shape[:2], *size)


def _nearest(at: Tensor, length: int, padding: str) -> tuple[Tensor, Tensor]:
    """Return the pixel of an axis of ``length`` nearest to each of ``at`` ``(B, n)``, and whether it is on the axis."""
    pixel = torch.floor(at - HALF_WIDTH["nearest"]) + 1
    limit = 1e6 * length  # far outside, a coordinate may exceed int64
    return padded_index(pixel.clamp(-limit, limit).to(torch.int64), length, padding), (pixel >= 0) & (pixel < length)


def _take(masks: Tensor, index: Tensor, inside: Tensor, dim: int, padding: str) -> Tensor:
    shape = list(masks.shape)
    shape[dim] = index.shape[1]
    taken = masks.gather(dim, _along(index, dim).expand(shape))
    return torch.where(_along(inside, dim), taken, torch.zeros_like(taken)) if padding == "zeros" else taken


def _along(values: Tensor, dim: int) -> Tensor:
    return values[:, None, None, :] if dim == -1 else values[:, None, :, None]


def move_points(matrix: Tensor, points: Tensor) -> Tensor:
    """Move ``points`` ``(B, N, 2)`` in pixels by ``matrix`` ``(B, 3, 3)``."""
    precise = torch.promote_types(points.dtype, torch.float32)
    with torch.autocast(points.device.type, enabled=False):
        return geometry.apply_to_points(matrix.to(precise), points.to(precise)).to(points.dtype)


def in_front(matrix: Tensor, points: Tensor) -> Tensor:
    """Whether each of ``points`` ``(B, N, 2)`` lies in front of the horizon of its matrix, ``(B, N)`` bool."""
    precise = torch.promote_types(points.dtype, torch.float32)
    with torch.autocast(points.device.type, enabled=False):
        return geometry.depth(matrix.to(precise), points.to(precise))[..., 0] > 0


def visible(points: Tensor, size: Size) -> Tensor:
    """Whether each keypoint lies on the image, ``(B, N)`` bool: x in [-0.5, W - 0.5) and y in [-0.5, H - 0.5)."""
    x, y = points.unbind(-1)
    return (x >= -0.5) & (x < size[1] - 0.5) & (y >= -0.5) & (y < size[0] - 0.5)


def move_boxes(matrix: Tensor, boxes: Tensor) -> Tensor:
    """The upright boxes around ``boxes`` ``(B, N, 4)`` moved by ``matrix`` ``(B, 3, 3)``; not clipped.

    A box with a corner behind the horizon of a perspective has no box around it and becomes 0, 0, 0, 0, without area.
    """
    precise = torch.promote_types(boxes.dtype, torch.float32)
    with torch.autocast(boxes.device.type, enabled=False):
        moved = geometry.apply_to_boxes(matrix.to(precise), boxes.to(precise)).to(boxes.dtype)
    seen = in_front(matrix, geometry.corners(boxes)).unflatten(1, (boxes.shape[1], 4)).all(dim=2, keepdim=True)
    return torch.where(seen, moved, torch.zeros_like(moved))


def clip_boxes(boxes: Tensor, size: Size, min_visible_area: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return boxes ``(B, N, 4)`` clipped to an image of ``size``, and whether each is valid, bool ``(B, N)``.

    A box is valid if its visible area is above 0 and at least ``min_visible_area`` of its area before the clipping. A
    box without area, such as one that pads a batch, is not valid.
    """
    x, y = boxes[..., 0::2].clamp(0, size[1]), boxes[..., 1::2].clamp(0, size[0])
    clipped = torch.stack([x, y], dim=-1).flatten(-2)
    whole, left = _area(boxes), _area(clipped)
    return clipped, (left > 0) & (left >= min_visible_area * whole)


def _area(boxes: Tensor) -> Tensor:
    # In half precision the area of a large box would overflow.
    x0, y0, x1, y1 = boxes.to(torch.promote_types(boxes.dtype, torch.float32)).unbind(-1)
    return (x1 - x0).clamp(min=0) * (y1 - y0).clamp(min=0)
