"""Moves masks, boxes and keypoints with their images: by the matrix of augkit's ops, then by Kornia's ops.

`Augment`, `augkit.adapters.torchvision` and `augkit.adapters.albumentations` all move targets with these functions.
Targets cannot follow an op without a matrix, such as an elastic map, which raises an error.

- Masks are moved by Kornia's op itself, set to the nearest pixel.
- Boxes are clipped to the image between augkit's ops and Kornia's, like its content, and enclosed once at the end.
- Keypoints are visible where they lie on the image both before and after Kornia's ops.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from augkit.augment import targets
from augkit.augment.color import Params, Tail, has_matrix, is_color, named
from augkit.core.errors import InputError

Size = tuple[int, int]


def check_followed(ops: Iterable[nn.Module], caller: str) -> None:
    """Raise InputError if targets cannot follow one of ``ops``; the message begins with ``caller``."""
    for op in ops:
        if not is_color(op) and not has_matrix(op):
            raise InputError(
                f"{caller}: masks, boxes and keypoints cannot follow Kornia's {type(op).__name__}, which has no "
                "matrix; leave it out"
            )


def moved_masks(masks: Tensor, tail: Tail | None) -> Tensor:
    """Move ``masks`` ``(B, C, H, W)`` of any dtype, already moved by augkit's ops, by Kornia's ops."""
    if tail is None or not tail.moves:
        return masks
    moved = masks
    for op, params, size in zip(tail.ops, tail.params, tail.sizes, strict=False):
        if has_matrix(op):
            moved = _picked(moved, _sources(op, params, size, masks.device))
    return tail.reached(moved, masks)


def carried_masks(
    masks: Tensor,
    matrix: Tensor,
    size: Size,
    padding: str,
    tail: Tail | None,
    *,
    axis_aligned: bool,
    fill: Tensor | None = None,
) -> Tensor:
    """Move ``masks`` ``(B, C, H, W)`` of any dtype by augkit's ops, then by Kornia's.

    ``fill``, a tensor without dimensions of their dtype, is the value of pixels from outside of the input, whatever the
    padding; None leaves them to the padding, and to 0 in Kornia's ops.
    """
    moved = moved_masks(targets.move_masks(masks, matrix, size, padding, axis_aligned=axis_aligned), tail)
    if fill is None:
        return moved
    whole = torch.ones_like(masks[:, :1], dtype=torch.bool)
    inside = moved_masks(targets.move_masks(whole, matrix, size, "zeros", axis_aligned=axis_aligned), tail)
    return torch.where(inside, moved, fill)


def moved_boxes(matrix: Tensor, boxes: Tensor, size: Size, tail: Tail | None, *, clip: bool = True) -> Tensor:
    """Move ``boxes`` ``(B, N, 4)`` along pixel edges by augkit's ops, then by Kornia's, without clipping to the output.

    ``size`` is the size of the image between the two; ``clip`` clips the boxes to it.
    """
    moved = targets.move_boxes(matrix, boxes)
    if tail is None or not tail.moves:
        return moved
    if clip:
        moved = targets.clip_boxes(moved, size)[0]
    return targets.move_boxes(tail.matrix(moved.device), moved)


def visible_boxes(
    matrix: Tensor, boxes: Tensor, size: Size, tail: Tail | None, min_visible_area: float
) -> tuple[Tensor, Tensor]:
    """Return `moved_boxes` clipped to the output, and whether each is valid ``(B, N)``; see `targets.clip_boxes`."""
    moved = moved_boxes(matrix, boxes, size, tail)
    if tail is None or not tail.moves:
        return targets.clip_boxes(moved, size, min_visible_area)
    before = targets.move_boxes(matrix, boxes)
    inner, valid = targets.clip_boxes(before, size)
    clipped, still_valid = targets.clip_boxes(moved, tail.sizes[-1])
    share = _share(inner, before) * _share(clipped, moved)
    return clipped, valid & still_valid & (share >= min_visible_area)


def moved_points(matrix: Tensor, points: Tensor, size: Size, tail: Tail | None) -> tuple[Tensor, Tensor]:
    """Return keypoints ``(B, N, 2)`` in pixels moved by all ops, unclipped, and whether each is visible ``(B, N)``."""
    moved = targets.move_points(matrix, points)
    seen = targets.visible(moved, size) & targets.in_front(matrix, points)
    if tail is None or not tail.moves:
        return moved, seen
    moved = targets.move_points(tail.matrix(moved.device), moved)
    return moved, seen & targets.visible(moved, tail.sizes[-1])


def moved_fields(
    boxes: Tensor | None, keypoints: Tensor | None, matrix: Tensor, size: Size, tail: Tail | None, least: float
) -> dict[str, Tensor | None]:
    """Return moved boxes and keypoints by the names of the fields of `augkit.augment.compose.Augmented`.

    ``size`` is the size after augkit's own ops; ``least`` is the smallest visible share of its area of a valid box.

    Raises:
        InputError, InputTypeError: boxes or keypoints of another shape or dtype than `augkit.Augment` takes.
    """
    found: dict[str, Tensor | None] = {"boxes": None, "keypoints": None}
    if boxes is not None:
        targets.check_points("boxes", boxes, matrix.shape[0], 4, matrix.device)
        found["boxes"], found["boxes_valid"] = visible_boxes(matrix, boxes, size, tail, least)
    if keypoints is not None:
        targets.check_points("keypoints", keypoints, matrix.shape[0], 2, matrix.device)
        found["keypoints"], found["keypoints_visible"] = moved_points(matrix, keypoints, size, tail)
    return found


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """Return the area of each box of ``part`` over that of its box in ``whole``; 0 for a box without area."""
    x0, y0, x1, y1 = part.to(torch.promote_types(part.dtype, torch.float32)).unbind(-1)
    u0, v0, u1, v1 = whole.to(torch.promote_types(whole.dtype, torch.float32)).unbind(-1)
    area, of = (x1 - x0) * (y1 - y0), (u1 - u0) * (v1 - v0)
    return torch.where(of > 0, area / of.clamp(min=torch.finfo(of.dtype).tiny), torch.zeros_like(of))


def _sources(op: Any, params: Params, size: Size, device: torch.device) -> Tensor:
    """Return the source of each output pixel, ``(B, 2, H, W)`` int64 as x + 1, y + 1; 0 for one outside the image.

    The op transforms an image that holds its own coordinates, so its own padding and rounding apply.
    """
    from kornia.constants import Resample, SamplePadding

    # Not `transform_masks`, which does the same but fails on flips before Kornia 0.9.
    wanted: dict[str, object] = {"resample": Resample.NEAREST, "antialias": False}
    wanted |= {"fill": 0, "pad_value": 0}  # pixels outside are 0 here, whatever their color in the image
    if getattr(op.flags.get("padding_mode"), "name", None) == "FILL":  # not in every version of Kornia
        wanted["padding_mode"] = SamplePadding.ZEROS
    rows, columns = (torch.arange(1, n + 1, device=device, dtype=torch.float32) for n in size)
    image = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
    images = image.expand(params["batch_prob"].shape[0], 2, *size)
    with torch.autocast(device.type, enabled=False), named(op, images.shape):
        found = op(images, params=params, **{name: wanted[name] for name in wanted if name in op.flags})
    return found.round().to(torch.int64)


def _picked(masks: Tensor, sources: Tensor) -> Tensor:
    x, y = sources.unbind(1)  # (B, H, W)
    height, width = masks.shape[-2:]
    index = (y - 1).clamp(0, height - 1) * width + (x - 1).clamp(0, width - 1)
    taken = masks.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, masks.shape[1], -1))
    taken = taken.reshape(*masks.shape[:2], *index.shape[1:])
    inside = ((x > 0) & (y > 0))[:, None]
    return torch.where(inside, taken, torch.zeros_like(taken))
