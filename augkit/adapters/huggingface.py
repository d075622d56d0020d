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

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import PIL.Image
from torch import Tensor

from augkit.adapters.batch import check_arguments
from augkit.augment.arrays import to_tensor
from augkit.augment.compose import Augment
from augkit.augment.ragged import Ragged
from augkit.core.errors import InputError, InputTypeError, unknown_name
from augkit.data.decode import ALPHA_MODES, in_mode, upright

_KEPT = frozenset({"LA", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"})  # channels of 8 bits beside those of `upright`
_MODES = _KEPT | {"L", "RGB", "RGBX", "RGBa"}  # brightness in 8 bits: no palette, and no 1, 16 or 32 bits


class DatasetTransform:
    """A function of rows for ``datasets.Dataset.set_transform``: each image is augmented when it is read.

    Args:
        augment: the augmentation. It needs a crop with a ``size`` if images differ in size.
        column: the column of images: PIL, numpy ``(H, W)`` or ``(H, W, C)``, or tensors ``(C, H, W)``.
        output: the column for the result, a list of tensors ``(C, H, W)``; it replaces ``column``.
        mode: the mode to which PIL images are converted, as `augkit.data` decodes: upright, 16 bits rounded to 8, and
            transparent pixels on white unless the mode has an alpha channel. None keeps the channels of each image;
            palettes become RGB, and 1, 16 and 32 bits become gray.

    Raises:
        InputError, InputTypeError: the mode is not an 8-bit one, a column or an image has another type, or the rows
            have a column ``output`` already.
    """

    def __init__(
        self, augment: Augment, column: str = "image", output: str = "pixel_values", mode: str | None = "RGB"
    ) -> None:
        check_arguments("DatasetTransform", augment)
        if mode is not None and not (isinstance(mode, str) and mode in _MODES):
            raise unknown_name("mode", mode, _MODES)
        self.augment, self.column, self.output, self.mode = augment, column, output, mode

    def __call__(self, rows: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        if not isinstance(rows, Mapping):
            kind = type(rows).__name__
            raise InputTypeError(f"DatasetTransform: expected columns by name, as set_transform gives them, got {kind}")
        if self.column not in rows:
            raise InputError(f"DatasetTransform: expected a column '{self.column}', got {list(rows)}; name it: column=")
        if self.output != self.column and self.output in rows:
            raise InputError(f"DatasetTransform: output: expected the name of a new column, '{self.output}' is there")
        column = rows[self.column]
        stacked = isinstance(column, Ragged) or (isinstance(column, (np.ndarray, Tensor)) and column.ndim > 2)
        if not stacked and (not isinstance(column, Sequence) or isinstance(column, (str, bytes))):
            kind = type(column).__name__
            raise InputTypeError(f"DatasetTransform: expected a list of images in '{self.column}', got {kind}")
        images = [self.augment(self._tensor(image)[None])[0] for image in column]
        return {**{name: values for name, values in rows.items() if name != self.column}, self.output: images}

    def _tensor(self, image: Any) -> Tensor:
        if isinstance(image, Tensor):
            return image
        if isinstance(image, PIL.Image.Image):
            image = np.asarray(self._picture(image))
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise InputTypeError(f"DatasetTransform: expected a PIL image, array or tensor, got {type(image).__name__}")
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] > 4:
            raise InputError(
                f"DatasetTransform: expected an array (H, W) or (H, W, C), got {image.shape}, which looks like "
                "(C, H, W); pass it as a tensor"
            )
        return to_tensor(image)[0]

    def _picture(self, image: PIL.Image.Image) -> PIL.Image.Image:
        shallow = not image.mode.startswith(("I", "F"))
        if self.mode is None and image.mode in _KEPT:
            return image
        try:
            if self.mode in ALPHA_MODES and shallow:
                return in_mode(image, self.mode)
            decoded = upright(image.copy())  # the image belongs to the dataset
            return decoded if self.mode is None else in_mode(decoded, self.mode)
        except ValueError as error:
            raise InputError(f"DatasetTransform: {error}; convert it before") from None
