"""An `augkit.Augment` inside ``torchvision.transforms.v2.Compose``, on tensors and tv_tensors.

>>> import augkit
>>> from augkit.adapters.torchvision import Geometry
>>> from torchvision import tv_tensors
>>> from torchvision.transforms import v2
>>> policy = augkit.Policy(shift={"max_pixels": 2.0}, crop={"min_area": 0.5})
>>> transform = v2.Compose([Geometry(policy.augment((16, 16))), v2.ToDtype(torch.float32, scale=True)])
>>> sample = {
...     "image": tv_tensors.Image(torch.zeros(3, 20, 30, dtype=torch.uint8)),
...     "boxes": tv_tensors.BoundingBoxes([[2.0, 3.0, 9.0, 8.0]], format="XYXY", canvas_size=(20, 30)),
... }
>>> out = transform(sample)
>>> out["image"].shape, out["boxes"].canvas_size
(torch.Size([3, 16, 16]), (16, 16))
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from augkit.adapters.batch import check_arguments
from augkit.augment import carry_targets, targets
from augkit.augment.checks import check_dense
from augkit.augment.color import Tail
from augkit.augment.compose import Augment
from augkit.augment.ragged import Ragged
from augkit.augment.resample import check_images
from augkit.core.errors import InputError, InputTypeError

_KEYPOINTS: type = getattr(tv_tensors, "KeyPoints", type(None))  # since torchvision 0.23


@dataclass(frozen=True)
class Draw:
    """One draw for a sample.

    Attributes:
        matrix: ``(B, 3, 3)``, of augkit's own ops; B is 1 unless the sample is a batch.
        blur: ``(B, 2)`` pixels, or None without a `RandomShiftBlur`.
        tail: the draw of Kornia's ops, or None without any.
        size: ``(H, W)`` of the input.
    """

    matrix: Tensor
    blur: Tensor | None
    tail: Tail | None
    size: tuple[int, int]


class Geometry(v2.Transform):
    """A torchvision transform: one draw of `Augment` for the images, masks, boxes and keypoints of a sample.

    It takes Image, Video, Mask, BoundingBoxes, KeyPoints and plain tensors. A plain tensor or Image ``(B, C, H, W)`` is
    a batch and each image has its own draw (torchvision's transforms share one); masks must then be
    ``(B, ..., H, W)``, and boxes and keypoints, which do not belong to an image of the batch, are errors. All frames of
    a Video and their masks share one draw, including that of Kornia's ops.

    Boxes of any upright format are clipped. A box that is less visible than ``min_visible_area`` becomes empty, and
    ``v2.SanitizeBoundingBoxes()`` after this transform removes it with its label. Boxes with
    ``clamping_mode=None`` are not clipped, and become empty only where ``min_visible_area`` is above 0. Keypoints are
    neither clipped nor removed. As in `Augment`, targets with ops of Kornia that have no matrix are errors, and all
    images of a batch share the draw of an op with ``same_on_batch``.

    Args:
        augment: the augmentation; in its ``eval()``, and in that of this transform, it does as `Augment` there.

    Raises:
        InputTypeError: ``augment`` is not an `augkit.Augment`.
    """

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        check_arguments("Geometry", augment)
        self.augment = augment

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Raise InputError or InputTypeError if an input is not a supported image, or if sizes differ."""
        if any(type(value).__module__.startswith("PIL.") for value in flat_inputs):
            raise InputTypeError("Geometry: expected tensors, got a PIL image; put v2.ToImage() before")
        if any(isinstance(value, Ragged) for value in flat_inputs):
            raise InputTypeError(
                "Geometry: expected one image or a batch of one size, got a Ragged; call Augment on it"
            )
        plain = [value for value in flat_inputs if type(value) is Tensor]
        wrapped = [value for value in flat_inputs if isinstance(value, tv_tensors.TVTensor)]
        if not any(isinstance(value, (tv_tensors.Image, tv_tensors.Video)) for value in wrapped) and plain:
            # torchvision takes the first plain tensor as the image; beside boxes only, it may be a label.
            if _is_image(plain[0]):
                wrapped.append(plain[0])
            elif not wrapped or any(map(_is_image, plain)):
                raise InputError(
                    f"Geometry: expected an image first, got a plain tensor {tuple(plain[0].shape)}; "
                    "wrap the image in tv_tensors.Image"
                )
        sizes = {_size(value) for value in wrapped}
        if len(sizes) > 1:
            raise InputError(f"Geometry: expected inputs of one size (H, W), got {sorted(sizes)}; resize them before")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Return the parameters of one call, which torchvision passes to `transform`: a `Draw` under ``draw``."""
        return {"draw": self._draw(flat_inputs)}

    def _draw(self, flat_inputs: list[Any]) -> Draw:
        flat_inputs = [value for value in flat_inputs if _is_moved(value)]
        if not flat_inputs:
            raise InputError("Geometry: expected a sample with an image, got none")
        images = [v for v in flat_inputs if _is_image(v)]
        stacked = [v for v in images if v.ndim == 4]
        if stacked and len({tuple(v.shape[:-3]) for v in images}) > 1:
            shapes = [tuple(v.shape) for v in images]
            raise InputError(f"Geometry: expected images of one batch, all (B, C, H, W) or all (C, H, W), got {shapes}")
        batch, device = (stacked[0].shape[0] if stacked else 1), flat_inputs[0].device
        alone = (tv_tensors.BoundingBoxes, _KEYPOINTS, tv_tensors.Video)
        if stacked and any(isinstance(v, alone) for v in flat_inputs):
            raise InputError("Geometry: expected one image (C, H, W) beside boxes, keypoints or a video, got a batch")
        size = _size(flat_inputs[0])
        if not self._moves():
            still = self.augment.still(size, torch.empty(batch, 1, device=device, dtype=torch.float32))
            return Draw(still, None, None, size)
        if not self._active():  # the ops that are applied in eval() too
            middle = self.augment.middle(batch, device)
            draws, strength = self.augment.draw_geometry(batch, 0.0, None, device, middle)
            return Draw(self.augment.matrix(draws, strength, size), None, None, size)
        if any(isinstance(v, (tv_tensors.BoundingBoxes, _KEYPOINTS, tv_tensors.Mask)) for v in flat_inputs):
            carry_targets.check_followed(self.augment.ops, "Geometry")
        draws, strength = self.augment.draw_geometry(batch, None, None, device)
        matrix, blur = self.augment.matrix(draws, strength, size), self.augment.blur(draws, strength, size)
        channels = next((v.shape[-3] for v in flat_inputs if _is_frames(v)), 3)
        like = torch.zeros((), device=device).expand(batch, channels, *size)
        return Draw(matrix, blur, self.augment.draw_tail(like, strength, draws=draws), size)

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return ``inpt`` transformed by the draw in ``params``, with the same type."""
        draw: Draw = params["draw"]
        if not _is_moved(inpt):
            return inpt
        check_dense("images", inpt, "(..., H, W)")
        plain = inpt.as_subclass(Tensor)
        if isinstance(inpt, (tv_tensors.BoundingBoxes, _KEYPOINTS)):
            targets.check_pickable(type(inpt).__name__, plain, "(N, n)")
            if plain.dtype == torch.bool:
                raise InputTypeError(f"{type(inpt).__name__}: expected numbers, got torch.bool; use .float()")
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return self._boxes(inpt, draw)
        if isinstance(inpt, _KEYPOINTS):
            points = _floating(plain).reshape(1, -1, 2)
            moved = carry_targets.moved_points(draw.matrix, points, self._own_size(draw), draw.tail)[0]
            return tv_tensors.wrap(
                _as(moved.reshape(plain.shape), plain.dtype), like=inpt, canvas_size=self._size_out(draw)
            )
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(self._masks(plain, draw), like=inpt)
        moved = self._images(plain, draw)
        return tv_tensors.wrap(moved, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else moved

    def _own_size(self, draw: Draw) -> tuple[int, int]:
        """``(H, W)`` after augkit's own ops."""
        return self.augment.output_size(draw.size) if self._moves() else self.augment.size or draw.size

    def _size_out(self, draw: Draw) -> tuple[int, int]:
        return self._own_size(draw) if draw.tail is None else draw.tail.sizes[-1]

    def _active(self) -> bool:
        return self.training and self.augment.training and len(self.augment.ops) > 0

    def _moves(self) -> bool:
        """Whether there are matrices of ops: in ``eval()`` those of resizes and central crops, as in `Augment`."""
        return self._active() or self.augment.fixed

    def _images(self, images: Tensor, draw: Draw) -> Tensor:
        batch = images.reshape(-1, *images.shape[-3:]) if images.ndim > 3 else images[None]
        check_images(batch)
        blur, tail = draw.blur, draw.tail
        matrix = draw.matrix.expand(batch.shape[0], 3, 3)
        blur = None if blur is None else blur.expand(batch.shape[0], 2)
        if self._moves():
            moved = self.augment.render(batch, matrix, blur, tail)
        elif self.augment.size is not None:
            moved = self.augment.fitted(batch, self.augment.size)[0]
        else:
            moved = self.augment.finish(batch)
        return moved.reshape(*images.shape[:-2], *moved.shape[-2:])

    def _masks(self, masks: Tensor, draw: Draw) -> Tensor:
        targets.check_pickable("masks", masks, "(..., H, W)")
        matrix, size = draw.matrix, self._own_size(draw)
        batch = matrix.shape[0]
        if batch != 1 and masks.shape[0] != batch:
            raise InputError(f"Geometry: expected masks ({batch}, ..., H, W) beside a batch, got {tuple(masks.shape)}")
        if not self._moves() and self.augment.size is None:
            return masks
        padding, aligned = self.augment.padding, self.augment.axis_aligned or not self._moves()
        flat = masks.reshape(batch, math.prod(masks.shape[:-2]) // max(batch, 1), *masks.shape[-2:])
        fill = None if self.augment.mask_fill is None else targets.fill_like(flat, self.augment.mask_fill)
        how = (matrix, size, padding, draw.tail)
        moved = carry_targets.carried_masks(flat, *how, axis_aligned=aligned, fill=fill)
        return moved.reshape(*masks.shape[:-2], *moved.shape[-2:])

    def _boxes(self, boxes: tv_tensors.BoundingBoxes, draw: Draw) -> Any:
        names = tv_tensors.BoundingBoxFormat
        upright = (names.XYXY, names.XYWH, names.CXCYWH)
        if boxes.format not in upright:
            raise InputError(f"Geometry: expected boxes XYXY, XYWH or CXCYWH, got {boxes.format.name}; convert them")
        plain = _floating(boxes.as_subclass(Tensor))
        edges = v2.functional.convert_bounding_box_format(plain, old_format=boxes.format, new_format=names.XYXY)
        kept = self._visible(edges.reshape(1, -1, 4), draw, clip=getattr(boxes, "clamping_mode", "soft") is not None)
        back = v2.functional.convert_bounding_box_format(
            kept.reshape(edges.shape), old_format=names.XYXY, new_format=boxes.format
        )
        return tv_tensors.wrap(_as(back, boxes.dtype), like=boxes, canvas_size=self._size_out(draw))

    def _visible(self, edges: Tensor, draw: Draw, clip: bool) -> Tensor:
        """Return moved boxes ``edges`` ``(1, N, 4)``, which are empty where too little of them is visible."""
        how = (draw.matrix, edges, self._own_size(draw), draw.tail)
        kept, valid = carry_targets.visible_boxes(*how, self.augment.min_visible_area)
        if not clip:
            kept = carry_targets.moved_boxes(*how, clip=False)
            valid = valid | (self.augment.min_visible_area == 0)
        return torch.where(valid[..., None], kept, torch.zeros_like(kept))


def _is_image(value: Any) -> bool:
    return isinstance(value, tv_tensors.Image) or (type(value) is Tensor and value.ndim >= 3)


def _is_frames(value: Any) -> bool:
    return _is_image(value) or isinstance(value, tv_tensors.Video)


def _is_moved(value: Any) -> bool:
    """Whether ``value`` is transformed: all values except plain tensors that are not images, such as labels."""
    return isinstance(value, tv_tensors.TVTensor) or _is_image(value)


def _size(value: Any) -> tuple[int, int]:
    if hasattr(value, "canvas_size"):
        return int(value.canvas_size[0]), int(value.canvas_size[1])
    return int(value.shape[-2]), int(value.shape[-1])


def _floating(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.to(torch.float32)


def _as(values: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype.is_floating_point:
        return values.to(dtype)
    limits = torch.iinfo(dtype)
    return values.round().clamp(limits.min, limits.max).to(dtype)
