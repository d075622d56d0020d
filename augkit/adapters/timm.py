"""Augment what a timm loader yields, on the device to which its prefetcher brought it; needs the extra ``timm``.

>>> import augkit
>>> from augkit.adapters.timm import AugmentedLoader
>>> loader = [(torch.rand(4, 3, 16, 16), torch.arange(4))]  # timm.data.create_loader(..., no_aug=True)
>>> for images, labels in AugmentedLoader(loader, augkit.Augment(augkit.RandomSubpixelShift(2.0))):
...     print(images.shape, labels.tolist())
torch.Size([4, 3, 16, 16]) [0, 1, 2, 3]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from augkit.adapters.batch import IMAGES_FIRST, Keys, augmented, replaced
from augkit.augment import Augment


class AugmentedLoader:
    """A timm loader whose batches are augmented; everything else about it (``sampler``, ...) is the loader's.

    Build the loader with ``no_aug=True`` so that timm only resizes. timm's prefetcher has normalised the images by
    then, so give `Augment` no ``normalize``, and note that padding ``zeros`` is the mean colour.

    Args:
        loader: from ``timm.data.create_loader``, with or without its prefetcher.
        augment: what to apply; it is moved to the images' device.
        keys: where images and targets are in a batch; the first entry by default.
    """

    def __init__(self, loader: Any, augment: Augment, keys: Keys = IMAGES_FIRST) -> None:
        self.loader, self.augment, self.keys = loader, augment, keys

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            self.augment.to(batch[self.keys.images].device)
            yield replaced(batch, augmented(self.augment, batch, self.keys))

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name == "loader":  # before __init__, as when unpickling
            raise AttributeError(name)
        return getattr(self.loader, name)

    # timm's training script assigns this to switch mixup off near the end.
    @property
    def mixup_enabled(self) -> bool:
        return bool(self.loader.mixup_enabled)

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self.loader.mixup_enabled = value
