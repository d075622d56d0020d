"""`augkit.Augment` for images of different sizes, a `Ragged` or a list, and for their targets, in lists.

Each image gets the matrix that a batch of images of its size would get from the same draws, and the pixels that it
would get alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from augkit.augment import targets
from augkit.augment.base import Size
from augkit.augment.carry_targets import check_followed, moved_fields, moved_masks
from augkit.augment.checks import check_same_device, is_float
from augkit.augment.color import Tail
from augkit.augment.matrix_checks import checked_matrix, is_axis_aligned
from augkit.augment.op_strengths import Strength, checked_strengths
from augkit.augment.ragged import Ragged, check_list, sizes_of
from augkit.augment.resample_each import Images
from augkit.core.errors import InputError, InputTypeError

if TYPE_CHECKING:
    from augkit.augment.compose import Augment

Fields = dict[str, Tensor | list[Tensor] | None]  # those of an `Augmented`, by name
_PROBES = ((64, 64), (96, 96), (64, 96))  # sizes that ops without an output size leave different


class Call(NamedTuple):
    """The arguments of a call of `Augment` beside the images; targets are lists."""

    masks: Sequence[Tensor] | None = None
    boxes: Sequence[Tensor] | None = None
    keypoints: Sequence[Tensor] | None = None
    strength: Strength | None = None
    generator: torch.Generator | None = None
    draws: Tensor | None = None
    matrix: Tensor | None = None
    blur: Tensor | None = None
    return_matrix: bool = False

    @property
    def targets(self) -> dict[str, Sequence[Tensor]]:
        """The targets that were passed, by name."""
        given = {"masks": self.masks, "boxes": self.boxes, "keypoints": self.keypoints}
        return {name: value for name, value in given.items() if value is not None}


def augment_each(augment: Augment, images: Any, call: Call) -> tuple[Tensor, Fields]:
    """Return ``(B, C, h, w)``, and the other fields of an `Augmented` where there are targets.

    Raises:
        InputError, InputTypeError: no output size, or images or targets of another kind.
    """
    if not isinstance(images, Ragged):
        check_list(images)
    size_out = output_size(augment)
    _check_targets(call.targets, images)
    if call.targets and augment.training:
        check_followed(augment.kornia_ops, "Augment")
    if not augment.training and augment.fixed:
        middle = augment.middle(len(images), images[0].device)
        call = call._replace(strength=0.0, draws=middle, matrix=None, blur=None)
    blur, tail, aligned = call.blur, None, augment.axis_aligned
    if not augment.training and not augment.fixed:
        out, matrix, blur, aligned = *augment.fit_each(images, size_out), None, True
    elif call.matrix is None:
        sizes, device = sizes_of(images), images[0].device
        draws, factors = augment.draw_geometry(len(images), call.strength, call.generator, device, call.draws)
        matrix, blur = augment.matrices(draws, factors, sizes), augment.blur(draws, factors, sizes)
        tail = augment.draw_tail(_alike(images), factors, call.generator, draws)
        out = augment.render_each(images, matrix, blur, tail)
    else:
        like = _alike(images)
        factors = checked_strengths(augment.every_strength(call.strength), len(images), like.device)
        matrix = checked_matrix(call.matrix, like)
        if isinstance(blur, Tensor) and blur.shape != (len(images), 2):
            raise InputError(f"blur: expected shape ({len(images)}, 2), as the images, got {tuple(blur.shape)}")
        tail = augment.draw_tail(like, factors, call.generator)
        out, aligned = augment.render_each(images, matrix, blur, tail, checked=True), is_axis_aligned(matrix)
    if not call.targets and not call.return_matrix:
        return out, {}
    fields: Fields = {"matrix": matrix, "blur": blur}
    if call.masks is not None:
        fields["masks"] = _moved_masks(augment, call.masks, matrix, size_out, tail, axis_aligned=aligned)
    return out, fields | _moved_points(call, matrix, size_out, tail, augment.min_visible_area)


def output_size(augment: Augment) -> Size:
    """The size that ``augment`` gives images of any size.

    Raises:
        InputError: it depends on the size of the image.
    """
    found = {augment.output_size(probe) for probe in _PROBES}
    if len(found) > 1:
        raise InputError(
            "images: expected a batch (B, C, H, W), or an output size for images of different sizes; "
            "use Augment(..., size=(h, w)) or RandomSubpixelCrop(size=(h, w))"
        )
    return found.pop()


def _alike(images: Images) -> Tensor:
    """A view of the shape ``(B, C, H, W)`` of the first image, for draws that need channels, dtype and device."""
    return images[0][None].expand(len(images), -1, -1, -1)


def _moved_masks(
    augment: Augment, masks: Sequence[Tensor], matrix: Tensor, size: Size, tail: Tail | None, *, axis_aligned: bool
) -> list[Tensor]:
    """Move one mask for each image, as `augkit.augment.carry_targets.carried_masks`."""

    def moved(kept: Sequence[Tensor], padding: str) -> Tensor:
        pairs = zip(kept, matrix.split(1), strict=True)
        own = [targets.move_masks(mask[None], m, size, padding, axis_aligned=axis_aligned) for mask, m in pairs]
        return moved_masks(torch.cat(own), tail)

    found = moved(masks, augment.padding)
    if augment.mask_fill is not None:
        inside = moved([torch.ones_like(mask[:1], dtype=torch.bool) for mask in masks], "zeros")
        found = torch.where(inside, found, targets.fill_like(found, augment.mask_fill))
    return list(found)


def _moved_points(call: Call, matrix: Tensor, size: Size, tail: Tail | None, least: float) -> Fields:
    """Moved boxes and keypoints and their flags, as lists."""
    given = {name: list(value) for name, value in call.targets.items() if name != "masks"}
    # Padded to the longest, so that all move in one call: image by image would take many small ones.
    padded = {name: pad_sequence(points, batch_first=True) for name, points in given.items()}
    moved = moved_fields(padded.get("boxes"), padded.get("keypoints"), matrix, size, tail, least)
    lists: Fields = {}
    for name, value in moved.items():
        own = given.get(name.partition("_")[0], [])  # boxes and boxes_valid, say
        lists[name] = None if value is None else [row[: len(points)] for row, points in zip(value, own, strict=True)]
    return lists


def _check_targets(given: Mapping[str, Any], images: Images) -> None:
    """Raise unless each target is a list with one tensor for each image."""
    device = images[0].device
    for name, value in given.items():
        shape = {"masks": "(C, H, W)", "boxes": "(N, 4)", "keypoints": "(N, 2)"}[name]
        if isinstance(value, (str, bytes)) or not isinstance(value, (Sequence, Ragged)):
            got = f"{type(value).__name__}; use list({name})" if isinstance(value, Tensor) else type(value).__name__
            raise InputTypeError(f"{name}: expected a list with a tensor {shape} for each image, got a {got}")
        if len(value) != len(images):
            raise InputError(f"{name}: expected a list of {len(images)}, as the images, got {len(value)}")
        for k, (target, size) in enumerate(zip(value, sizes_of(images), strict=True)):
            if name == "masks":
                _check_mask(f"masks[{k}]", target, size, value[0])
            else:
                _check_points(f"{name}[{k}]", target, shape, value[0])
            check_same_device(f"{name}[{k}]", target, device)


def _check_mask(name: str, mask: Any, size: Size, first: Tensor) -> None:
    targets.check_pickable(name, mask, "(C, H, W)")
    expected = (first.shape[0], *size) if first.ndim == 3 else ("C", *size)
    if mask.shape != expected or mask.dtype != first.dtype:
        hint = f"; add a channel with {name}[None]" if mask.shape == size else ""
        shape = "({}, {}, {})".format(*expected)
        raise InputError(f"{name}: expected {shape} and {first.dtype}, got {tuple(mask.shape)} and {mask.dtype}{hint}")


def _check_points(name: str, points: Any, shape: str, first: Tensor) -> None:
    if not isinstance(points, Tensor) or not is_float(points):
        got = points.dtype if isinstance(points, Tensor) else type(points).__name__
        raise InputTypeError(f"{name}: expected a floating tensor {shape}, got {got}; use .float()")
    if points.ndim != 2 or points.shape[1] != int(shape[4]) or points.dtype != first.dtype:
        raise InputError(f"{name}: expected {shape} and {first.dtype}, got {tuple(points.shape)} and {points.dtype}")
