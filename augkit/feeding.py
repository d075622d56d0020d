"""Training batches: from the device's memory, from workers that decode, or from a loader of the user's own.

The order of an epoch is a permutation that seed and epoch name alone, so the number of a step says which images it
takes, and a run can go on within an epoch. With several processes each takes every n-th image of each batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from augkit.data import Dataset, Images, Stream, WholeImages, batches
from augkit.data.decode import Form
from augkit.data.stream import Source
from augkit.distributed import Process
from augkit.errors import InputError
from augkit.evaluation import labels_of
from augkit.policy_ops import WorkerStep
from augkit.recipe import Recipe
from augkit.reproducible import ORDER, random_stream
from augkit.views import WholeBatch, needed_side

Batch = tuple[Tensor | WholeBatch, Tensor]


class Feed(Protocol):
    """Batches of an epoch: images ``(B, C, H, W)``, or a `WholeBatch`, and labels ``(B,)``, on training's device."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def images_per_step(self) -> int:
        """Images in a batch, over all processes."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``start`` on."""


@dataclass(frozen=True)
class DatasetFeed:
    """Batches of a dataset's training split; the last, smaller batch is left out, as it would upset batch norm.

    Attributes:
        images: at hand on the device, or a stream; whole ones where crops are drawn from them.
        labels: ``(N,)`` on the device.
        batch: images per step over all processes.
    """

    images: Images | WholeImages
    labels: Tensor
    batch: int
    recipe: Recipe
    device: torch.device
    process: Process

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.images) // self.batch

    @property
    def images_per_step(self) -> int:
        """Images in a batch, over all processes."""
        return self.batch

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``start`` on."""
        generator = torch.Generator().manual_seed(random_stream(self.recipe.seed, ORDER, epoch))
        order = torch.randperm(len(self.images), generator=generator)
        mine = [self.process.share(part) for part in order.split(self.batch)[start : self.steps]]
        if isinstance(self.images, WholeImages):
            yield from self._whole(self.images, mine, epoch)
        elif not isinstance(self.images, Stream):
            for chosen in mine:
                places = chosen.to(self.device)
                yield self.images.images[places], self.labels[places]
        elif mine:
            images, step = self.images.take(torch.cat(mine)), self.recipe.policy.worker_step(self.recipe.seed, epoch)
            images = (images if step is None else images.then(step)).put_on_canvas(self.recipe.data.canvas)
            for chosen, pixels in zip(mine, batches(images, len(mine[0]), self.device), strict=True):
                yield pixels, self.labels[chosen.to(self.device)]

    def _whole(self, images: WholeImages, mine: list[Tensor], epoch: int) -> Iterator[Batch]:
        side, step = self.recipe.data.image_size, self.recipe.policy.worker_step(self.recipe.seed, epoch)
        assert side is not None  # else there is nothing that the images would have to be fitted to
        for chosen, batch in zip(mine, images.batches(mine, step), strict=True):
            there = [image.to(self.device, non_blocking=True) for image in batch]
            yield WholeBatch(there, side), self.labels[chosen.to(self.device)]


@dataclass(frozen=True)
class LoaderFeed:
    """Batches of a `DataLoader`, or of anything with a length that gives pairs of images and labels."""

    loader: Any
    device: torch.device
    process: Process

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return len(self.loader)

    @property
    def images_per_step(self) -> int:
        """Images in a batch, over all processes; 0 where the loader does not say."""
        return (getattr(self.loader, "batch_size", None) or 0) * self.process.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch``; the first ``start`` are read and dropped."""
        sampler = getattr(self.loader, "sampler", None)
        if sampler is not None and hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        number = -1
        for number, batch in enumerate(self.loader):
            images, labels = _pair(batch)
            if number >= start:
                yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True)
        if number + 1 < self.steps:
            raise InputError(f"loader: expected {self.steps} batches, as its length says, got {number + 1}")


def make_feed(source: Any, recipe: Recipe, device: torch.device, process: Process) -> Feed:
    """The training batches of a dataset, or of a loader.

    Raises:
        InputError: no labels; batches that several processes cannot share; a loader without a length.
    """
    if not isinstance(source, Dataset):
        if not hasattr(source, "__len__"):
            raise InputError(f"loader: expected one with a length, such as a DataLoader, got {type(source).__name__}")
        return LoaderFeed(source, device, process)
    images, worker_ops = source.train, recipe.policy.worker_step(recipe.seed, 0)
    labels = labels_of(images).to(device)
    if len(images) < 2:
        raise InputError(f"training: expected at least 2 images, got {len(images)}")
    batch = min(recipe.train.batch_size, len(images))
    if batch % (process.count * recipe.train.accumulate):
        parts = f"{process.count} processes x train.accumulate {recipe.train.accumulate}"
        raise InputError(f"train.batch_size: expected a multiple of {parts}, got {batch}")
    if worker_ops is not None:
        _try(worker_ops, images)
    whole = _whole_images(source, recipe)
    if whole is not None:
        return DatasetFeed(whole, labels, batch, recipe, device, process)
    if worker_ops is not None and not isinstance(images, Stream):
        images = _as_stream(images, recipe.data.workers)
    elif not isinstance(images, Stream):
        images = Images(images.on_canvas(recipe.data.canvas).to(device), images.labels, images.background)
    return DatasetFeed(images, labels, batch, recipe, device, process)


def _whole_images(source: Dataset, recipe: Recipe) -> WholeImages | None:
    """The training images whole, where the policy crops and `Dataset.train` has the centre squares alone."""
    data = recipe.data
    if data.image_size is None or data.canvas is not None:
        return None
    shorter = needed_side(recipe.policy.augment(), data.image_size)
    return None if shorter is None else source.whole_train(shorter)


@dataclass(frozen=True)
class _Pixels(Source):
    """Images in memory, for workers that augment them."""

    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"image {index}"

    def open(self, index: int) -> Image.Image:
        pixels = self.images[index].permute(1, 2, 0).numpy()
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _as_stream(images: Images, workers: int | None) -> Stream:
    count, (channels, height, width) = len(images), images.shape
    return Stream(
        images=torch.empty(count, channels, height, width, dtype=torch.uint8, device="meta"),
        labels=images.labels,
        background=images.background,
        source=_Pixels(images.images),
        indices=torch.arange(count),
        form=Form(height, width, channels),
        workers=workers,
    )


def _try(step: WorkerStep, images: Images) -> None:
    """Ops that fail do so here, in one line, and not in a worker."""
    first = images.take(torch.zeros(1, dtype=torch.int64))
    pixels = (first.load() if isinstance(first, Stream) else first).images
    for number in range(8):
        step(pixels, torch.tensor([number]))


def _pair(batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, (tuple, list)) and len(batch) == 2 and all(isinstance(v, Tensor) for v in batch):
        return batch[0], batch[1]
    got = f"{len(batch)} values" if isinstance(batch, (tuple, list)) else type(batch).__name__
    raise InputError(f"loader: expected batches of (images, labels), two tensors, got {got}")
