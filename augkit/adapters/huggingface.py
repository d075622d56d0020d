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
import torch
from torch import Tensor

from augkit.augment import Augment
from augkit.errors import InputError, InputTypeError


class DatasetTransform:
    """A function of rows for ``datasets.Dataset.set_transform``: each image is augmented when it is read.

    Args:
        augment: what to apply. Give it a crop with a ``size`` where images differ in size.
        column: the column of images: PIL, numpy ``(H, W)`` or ``(H, W, C)``, or tensors ``(C, H, W)``.
        output: the column that takes the result, a list of tensors ``(C, H, W)``; ``column`` leaves.
        mode: what PIL images are converted to; None keeps their own.
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
        if hasattr(image, "convert"):
            image = np.array(image.convert(self.mode) if self.mode else image)
        if not isinstance(image, np.ndarray) or image.ndim not in (2, 3):
            raise InputTypeError(f"DatasetTransform: expected a PIL image, array or tensor, got {type(image).__name__}")
        return torch.from_numpy(image if image.ndim == 3 else image[..., None]).permute(2, 0, 1)
