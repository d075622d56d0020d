"""Augment inside ``collate_fn``: on whole batches, in the DataLoader's workers.

The draws come from torch's global state, which torch seeds for each worker and epoch.

>>> import augkit
>>> from augkit.adapters.collate import Collate
>>> from torch.utils.data import DataLoader
>>> samples = [(torch.rand(3, 16, 16), label) for label in range(8)]
>>> collate = Collate(augkit.Augment(augkit.RandomSubpixelShift(2.0)))
>>> images, labels = next(iter(DataLoader(samples, batch_size=4, collate_fn=collate)))
>>> images.shape, labels.tolist()
(torch.Size([4, 3, 16, 16]), [0, 1, 2, 3])

Images of different sizes are put into an `augkit.Ragged`, and their masks, boxes and keypoints into lists:

>>> samples = [(torch.rand(3, 16 + label, 20), label) for label in range(8)]
>>> collate = Collate(augkit.Augment(augkit.RandomSubpixelShift(2.0), size=(16, 16)))
>>> next(iter(DataLoader(samples, batch_size=4, collate_fn=collate)))[0].shape
torch.Size([4, 3, 16, 16])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate

from augkit.adapters.batch import IMAGES_FIRST, Keys, augmented, check_arguments, replaced, value_at
from augkit.augment.checks import check_flag
from augkit.augment.compose import Augment
from augkit.augment.ragged import Ragged
from augkit.core.errors import InputError, InputTypeError

ARRAYS = (torch.Tensor, np.ndarray)
CHANNELS = 4  # of an array that is no wider, more channels than this are rows


class Collate:
    """A ``collate_fn`` that collates, then augments.

    Args:
        augment: the augmentation; in ``eval()`` it keeps the geometry, except that it fits images to its ``size``.
        keys: keys of images and targets in a collated batch; the first entry by default.
        collate_fn: collates samples to a batch; torch's own by default.
        ragged: always put images into an `augkit.Ragged` and their targets into lists; with False, only where torch's
            ``collate_fn`` would have to stack images or targets of different shapes.

    Raises:
        InputError, InputTypeError: torch cannot collate the samples, or the batch has no such entries.
    """

    def __init__(
        self,
        augment: Augment,
        keys: Keys = IMAGES_FIRST,
        collate_fn: Callable[[list[Any]], Any] = default_collate,
        *,
        ragged: bool = False,
    ) -> None:
        check_arguments("Collate", augment, keys)
        self.augment, self.keys, self.collate_fn = augment, keys, collate_fn
        self.ragged = check_flag("ragged", ragged)

    def __call__(self, samples: list[Any]) -> Any:
        if not samples:
            raise InputError("Collate: expected at least one sample, got none")
        self._check_layout(samples[0])
        batch = self._ragged(samples) if self.ragged or self._differ(samples) else self._collated(samples)
        return replaced(batch, augmented(self.augment, batch, self.keys))

    def _check_layout(self, sample: Any) -> None:
        """Raise InputError if the image is an array whose channels come last, as other libraries have them."""
        if self.collate_fn is not default_collate:
            return
        image = value_at(sample, self.keys.images)
        if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] > CHANNELS >= image.shape[2]:
            raise InputError(
                f"Collate: expected an array (C, H, W), got {image.shape}, which looks like (H, W, C); transpose it in"
                " the dataset by image.transpose(2, 0, 1)"
            )

    def _differ(self, samples: list[Any]) -> bool:
        """Whether images, or targets, of ``samples`` have several shapes, and torch would have to stack them."""
        if self.collate_fn is not default_collate:
            return False
        values = [[value_at(sample, key) for sample in samples] for key in self.keys.present().values()]
        shapes = [{tuple(value.shape) for value in column if isinstance(value, ARRAYS)} for column in values]
        return any(len(found) > 1 for found in shapes)

    def _ragged(self, samples: list[Any]) -> Any:
        """The batch with a `Ragged` of the images and lists of the targets; the other entries collated."""
        keys = self.keys.present()
        columns: dict[Any, Any] = {}
        for key in keys.values():
            columns[key] = [_as_tensor(value_at(sample, key), key) for sample in samples]
        rest = self._collated([replaced(sample, dict.fromkeys(columns, 0)) for sample in samples])
        return replaced(rest, {**columns, self.keys.images: Ragged.from_list(columns[self.keys.images])})

    def _collated(self, samples: list[Any]) -> Any:
        try:
            return self.collate_fn(samples)
        except (RuntimeError, TypeError) as error:
            if self.collate_fn is not default_collate:
                raise
            reason = str(error).partition(": <class")[0][:200]
            raise InputError(
                f"Collate: expected samples of tensors or arrays of one shape ({reason}); resize or convert them in "
                "the dataset, or give a collate_fn of your own"
            ) from error


def _as_tensor(value: Any, key: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "biufc":
        raise InputTypeError(f"Collate: expected arrays of numbers at {key!r}, got one of {value.dtype}")
    return torch.from_numpy(value)
