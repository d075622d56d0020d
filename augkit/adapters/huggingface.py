"""Augment a Hugging Face dataset with ``set_transform``; the tests need the extra ``huggingface``.

>>> import augkit
>>> from augkit.adapters.huggingface import DatasetTransform
>>> augment = augkit.Augment(augkit.RandomSubpixelCrop(size=(16, 16)), dtype=torch.float32)
>>> transform = DatasetTransform(augment)  # dataset.set_transform(transform)
>>> rows = {"image": [torch.zeros(3, 20, 30), torch.zeros(3, 24, 24)], "label": [0, 1]}
>>> out = transform(rows)
>>> [image.shape for image in out["pixel_values"]], out["label"]
([torch.Size([3, 16, 16]), torch.Size([3, 16, 16])], [0, 1])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor

from augkit.augment.arrays import to_tensor
from augkit.augment.compose import Augment
from augkit.core.errors import InputError, InputTypeError
from augkit.data.decode import ALPHA_MODES, in_mode, upright

_KEPT = frozenset({"LA", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"})  # channels of 8 bits beside those of `upright`


class DatasetTransform:
    """A function of rows for ``datasets.Dataset.set_transform``: each image is augmented when it is read.

    Args:
        augment: what to apply. Give it a crop with a ``size`` where images differ in size.
        column: the column of images: PIL, numpy ``(H, W)`` or ``(H, W, C)``, or tensors ``(C, H, W)``.
        output: the column that takes the result, a list of tensors ``(C, H, W)``; ``column`` leaves.
        mode: what PIL images are converted to, as `augkit.data` decodes its own: upright, 16 bits rounded to 8, and
            what is transparent on white unless the mode has an alpha channel. None keeps the channels of each image;
            palettes become RGB, and 1, 16 and 32 bits become grey.
    """

    def __init__(
        self, augment: Augment, column: str = "image", output: str = "pixel_values", mode: str | None = "RGB"
    ) -> None:
        self.augment, self.column, self.output, self.mode = augment, column, output, mode

    def __call__(self, rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        if self.column not in rows:
            raise InputError(f"DatasetTransform: expected a column '{self.column}', got {list(rows)}; name it: column=")
        images = [self.augment(self._tensor(image)[None])[0] for image in rows[self.column]]
        return {**{name: values for name, values in rows.items() if name != self.column}, self.output: images}

    def _tensor(self, image: Any) -> Tensor:
        if isinstance(image, Tensor):
            return image
        if isinstance(image, PIL.Image.Image):
            image = np.asarray(self._picture(image))
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise InputTypeError(f"DatasetTransform: expected a PIL image, array or tensor, got {type(image).__name__}")
        return to_tensor(image)[0]

    def _picture(self, image: PIL.Image.Image) -> PIL.Image.Image:
        shallow = not image.mode.startswith(("I", "F"))
        if self.mode is None and image.mode in _KEPT:
            return image
        if self.mode in ALPHA_MODES and shallow:
            return in_mode(image, self.mode)
        try:
            decoded = upright(image.copy())  # which belongs to the dataset
        except ValueError as error:
            raise InputError(f"DatasetTransform: {error}; convert it before") from None
        return decoded if self.mode is None else in_mode(decoded, self.mode)
