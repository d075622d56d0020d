"""Augment the batches of a timm loader, on the device of its prefetcher; needs the extra ``timm``.

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

import torch
from torch import Tensor

from augkit.adapters.batch import IMAGES_FIRST, Keys, augmented, check_arguments, images_at, replaced
from augkit.augment.checks import channel_statistics
from augkit.augment.compose import Augment
from augkit.augment.ragged import Ragged
from augkit.augment.resample import check_images
from augkit.core.errors import InputError


class AugmentedLoader:
    """A timm loader whose batches are augmented; all other attributes (``sampler``, ...) are those of the loader.

    Build the loader with ``no_aug=True`` so that timm only resizes. timm normalizes images in its prefetcher or in the
    dataset's transform. The adapter undoes that before `Augment`, which expects images in [0, 1], and normalizes again
    afterwards, unless `Augment` has its own ``normalize``. Images of different sizes come as an `augkit.Ragged` or a
    list, from a ``collate_fn`` of your own.

    Args:
        loader: a loader of ``timm.data.create_loader``, with or without its prefetcher.
        augment: the augmentation; it is moved to the images' device.
        keys: keys of images and targets in a batch; the first entry by default.
        normalized: ``(mean, std)`` per channel, for images in [0, 1], with which the loader normalizes its images.
            When None, it is read from timm's loader.
    """

    def __init__(
        self, loader: Any, augment: Augment, keys: Keys = IMAGES_FIRST, normalized: tuple[Any, Any] | None = None
    ) -> None:
        check_arguments("AugmentedLoader", augment, keys)
        self.loader, self.augment, self.keys, self.normalized = loader, augment, keys, normalized

    def __iter__(self) -> Iterator[Any]:
        statistics = _statistics(self.normalized) if self.normalized is not None else _normalized_by(self.loader)
        for batch in self.loader:
            images = images_at(batch, self.keys.images)
            self.augment.to(images.device)
            idle = isinstance(images, Tensor) and self._idle((images.shape[-2], images.shape[-1]))
            if statistics is None or not images.dtype.is_floating_point or idle:
                yield replaced(batch, augmented(self.augment, batch, self.keys))
                continue
            if isinstance(images, Tensor):
                check_images(images)  # before they become float32, which would let float8 pass
            mean, std = (values.to(images.device) for values in _of_channels(statistics, images))
            if isinstance(images, Tensor):
                undone: Any = images.float() * std + mean
            else:
                undone = [one.float() * std + mean for one in images]
            plain = replaced(batch, {self.keys.images: undone})
            values = augmented(self.augment, plain, self.keys)
            values[self.keys.images] = self._normal(values[self.keys.images], mean, std, images.dtype)
            yield replaced(batch, values)

    def _idle(self, size: tuple[int, int]) -> bool:
        """Whether `Augment` leaves every image of ``size`` bitwise as it is, so that its padding does not matter."""
        augment = self.augment
        changes = augment.training and len(augment.ops) > 0 and augment.strength != 0
        resizes = augment.size not in (None, size) or any(op.output_size(size) != size for op in augment.geometry)
        return not changes and not resizes and augment.normalize is None

    def _normal(self, images: Tensor, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
        if self.augment.normalize is None:
            images = (images - mean) / std
        return images.to(self.augment.out_dtype or dtype)

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


def _statistics(pair: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation as ``(C, 1, 1)``, float32."""
    mean, std = (torch.tensor(v, dtype=torch.float32) for v in channel_statistics("normalized", pair))
    return mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)


def _of_channels(statistics: tuple[Tensor, Tensor], images: Tensor | Ragged) -> tuple[Tensor, Tensor]:
    """``statistics``, checked to be for one channel or for each channel of ``images``."""
    count = len(statistics[0])
    channels = images.channels if isinstance(images, Ragged) else images.shape[1]
    if count not in (1, channels):
        got = images if isinstance(images, Ragged) else tuple(images.shape)
        raise InputError(f"normalized: expected images (B, {count}, H, W), got {got}")
    return statistics


def _normalized_by(loader: Any) -> tuple[Tensor, Tensor] | None:
    """Mean and std of timm's prefetcher, or of the last ``Normalize`` in the dataset's transform; else None."""
    if type(loader).__module__.startswith("timm."):  # whose statistics are for images up to 255
        mean, std = getattr(loader, "mean", None), getattr(loader, "std", None)
        if isinstance(mean, Tensor) and isinstance(std, Tensor):
            return _statistics((mean.float().cpu() / 255, std.float().cpu() / 255))
    transform = getattr(getattr(loader, "dataset", None), "transform", None)
    steps = [step for step in getattr(transform, "transforms", [transform]) if type(step).__name__ == "Normalize"]
    return _statistics((steps[-1].mean, steps[-1].std)) if steps else None
