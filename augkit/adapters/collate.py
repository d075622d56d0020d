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
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import default_collate

from augkit.adapters.batch import IMAGES_FIRST, Keys, augmented, check_arguments, replaced
from augkit.augment.compose import Augment
from augkit.core.errors import InputError


class Collate:
    """A ``collate_fn`` that collates, then augments.

    Args:
        augment: the augmentation; in ``eval()`` it keeps the geometry.
        keys: keys of images and targets in a collated batch; the first entry by default.
        collate_fn: collates samples to a batch; torch's own by default.

    Raises:
        InputError, InputTypeError: torch cannot collate the samples, or the batch has no such entries.
    """

    def __init__(
        self, augment: Augment, keys: Keys = IMAGES_FIRST, collate_fn: Callable[[list[Any]], Any] = default_collate
    ) -> None:
        check_arguments("Collate", augment, keys)
        self.augment, self.keys, self.collate_fn = augment, keys, collate_fn

    def __call__(self, samples: list[Any]) -> Any:
        try:
            batch = self.collate_fn(samples)
        except (RuntimeError, TypeError) as error:
            if self.collate_fn is not default_collate:
                raise
            reason = str(error).partition(": <class")[0][:200]
            raise InputError(
                f"Collate: expected samples of tensors or arrays of one shape ({reason}); resize or convert them in "
                "the dataset, or give a collate_fn of your own"
            ) from error
        return replaced(batch, augmented(self.augment, batch, self.keys))
