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

from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from augkit import geometry, targets
from augkit.augment import Augment
from augkit.errors import InputError, InputTypeError
from augkit.random_geometry import draw
from augkit.resampling import check_images

_KEYPOINTS: type = getattr(tv_tensors, "KeyPoints", type(None))  # since torchvision 0.23


class Geometry(v2.Transform):
    """One draw for all that a sample holds: Image, Video, Mask, BoundingBoxes, KeyPoints, or a plain tensor.

    A plain tensor or Image ``(B, C, H, W)`` is a batch and each image has its own draw (torchvision's transforms
    share one); masks must then be ``(B, ..., H, W)``, and boxes and keypoints, which cannot be told apart by
    image, are refused. All frames of a Video share one draw.

    Boxes of any upright format are clipped; one that is less visible than ``min_visible_area`` becomes empty, and
    ``v2.SanitizeBoundingBoxes()``, put after, removes it with its label. Keypoints are neither clipped nor removed.

    Args:
        augment: what to apply; ``eval()`` switches the geometry off.
    """

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        self.augment = augment

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Raise where an input is no image that can be transformed, or two differ in size."""
        sizes = {_size(value) for value in flat_inputs if isinstance(value, tv_tensors.TVTensor)}
        if len(sizes) > 1:
            raise InputError(f"Geometry: expected inputs of one size (H, W), got {sorted(sizes)}; resize them before")
        if any(type(value).__module__.startswith("PIL.") for value in flat_inputs):
            raise InputTypeError("Geometry: expected tensors, got a PIL image; put v2.ToImage() before")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw ``matrix`` ``(B, 3, 3)`` and ``blur`` ``(B, 2)`` or None; ``size`` is the input's."""
        if not flat_inputs:
            raise InputError("Geometry: expected a sample with an image, got none")
        stacked = [v for v in flat_inputs if _is_image(v) and v.ndim == 4]
        batch, device = (stacked[0].shape[0] if stacked else 1), flat_inputs[0].device
        if stacked and any(isinstance(v, (tv_tensors.BoundingBoxes, _KEYPOINTS)) for v in flat_inputs):
            raise InputError("Geometry: expected one image (C, H, W) beside boxes or keypoints, got a batch of them")
        size = _size(flat_inputs[0])
        if not self._active():
            return {"matrix": geometry.identity(batch, device=device), "blur": None, "size": size}
        draws = draw(batch, self.augment.draws, device, None)
        strength = self.augment.strength
        matrix, blur = self.augment.matrix(draws, strength, size), self.augment.blur(draws, strength)
        return {"matrix": matrix, "blur": blur, "size": size}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """``inpt`` moved by ``params``, of its own type."""
        matrix, size = params["matrix"], params["size"]
        size_out = self.augment.output_size(size) if self._active() else size
        plain = inpt.as_subclass(Tensor)
        if isinstance(inpt, tv_tensors.BoundingBoxes):
            return self._boxes(inpt, matrix, size_out)
        if isinstance(inpt, _KEYPOINTS):
            moved = targets.move_points(matrix, _floating(plain).reshape(1, -1, 2)).reshape(plain.shape)
            return tv_tensors.wrap(_as(moved, plain.dtype), like=inpt, canvas_size=size_out)
        if isinstance(inpt, tv_tensors.Mask):
            return tv_tensors.wrap(self._masks(plain, matrix, size_out), like=inpt)
        moved = self._images(plain, matrix, params["blur"])
        return tv_tensors.wrap(moved, like=inpt) if isinstance(inpt, tv_tensors.TVTensor) else moved

    def _active(self) -> bool:
        return self.training and self.augment.training and len(self.augment.ops) > 0

    def _images(self, images: Tensor, matrix: Tensor, blur: Tensor | None) -> Tensor:
        batch = images.reshape(-1, *images.shape[-3:]) if images.ndim > 3 else images[None]
        check_images(batch)
        matrix = matrix.expand(batch.shape[0], 3, 3)
        blur = None if blur is None else blur.expand(batch.shape[0], 2)
        moved = self.augment.render(batch, matrix, blur) if self._active() else self.augment.finish(batch)
        return moved.reshape(*images.shape[:-2], *moved.shape[-2:])

    def _masks(self, masks: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
        batch = matrix.shape[0]
        if batch > 1 and masks.shape[0] != batch:
            raise InputError(f"Geometry: expected masks ({batch}, ..., H, W) beside a batch, got {tuple(masks.shape)}")
        if not self._active():
            return masks
        padding, aligned = self.augment.padding, self.augment.axis_aligned
        moved = targets.move_masks(
            masks.reshape(batch, -1, *masks.shape[-2:]), matrix, size, padding, axis_aligned=aligned
        )
        return moved.reshape(*masks.shape[:-2], *size)

    def _boxes(self, boxes: tv_tensors.BoundingBoxes, matrix: Tensor, size: tuple[int, int]) -> Any:
        names = tv_tensors.BoundingBoxFormat
        upright = (names.XYXY, names.XYWH, names.CXCYWH)
        if boxes.format not in upright:
            raise InputError(f"Geometry: expected boxes XYXY, XYWH or CXCYWH, got {boxes.format.name}; convert them")
        plain = _floating(boxes.as_subclass(Tensor))
        edges = v2.functional.convert_bounding_box_format(plain, old_format=boxes.format, new_format=names.XYXY)
        moved = targets.move_boxes(matrix, edges.reshape(1, -1, 4))
        clipped, valid = targets.clip_boxes(moved, size, self.augment.min_visible_area)
        clipped = torch.where(valid[..., None], clipped, torch.zeros_like(clipped)).reshape(edges.shape)
        back = v2.functional.convert_bounding_box_format(clipped, old_format=names.XYXY, new_format=boxes.format)
        return tv_tensors.wrap(_as(back, boxes.dtype), like=boxes, canvas_size=size)


def _is_image(value: Any) -> bool:
    return isinstance(value, tv_tensors.Image) or type(value) is Tensor


def _size(value: Any) -> tuple[int, int]:
    if hasattr(value, "canvas_size"):
        return int(value.canvas_size[0]), int(value.canvas_size[1])
    return int(value.shape[-2]), int(value.shape[-1])


def _floating(values: Tensor) -> Tensor:
    return values if values.is_floating_point() else values.to(torch.float32)


def _as(values: Tensor, dtype: torch.dtype) -> Tensor:
    return (values if dtype.is_floating_point else values.round()).to(dtype)
