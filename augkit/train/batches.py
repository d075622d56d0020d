"""Training batches, from the device's memory, from decoding workers, or from a custom loader.

The order of an epoch is a permutation that depends only on seed and epoch, so the number of a step determines its
images, and a run can resume within an epoch. With n processes, each takes every n-th image of each batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

from augkit.augment.external_ops import WorkerStep
from augkit.augment.ragged import Ragged
from augkit.core.errors import InputError
from augkit.core.random_streams import LOADING, ORDER, drawing, random_stream
from augkit.data import Dataset, Images, Stream, WholeImages, batches
from augkit.data.decode import Form
from augkit.data.splits import shared
from augkit.data.stream import Source
from augkit.train.build import training_images
from augkit.train.distributed import Process
from augkit.train.evaluate import labels_of
from augkit.train.loaders import check_labels, check_range, check_side, count_batches, labeled, set_epoch
from augkit.train.recipe import Recipe


class Batch(NamedTuple):
    """Images ``(B, C, H, W)``, or whole ones of different sizes, and labels ``(B,)``, on training's device.

    ``numbers`` ``(B,)`` on the CPU are the images' places in the training split; None from a loader. ``augmented``
    ``(B,)`` bool, on the device, says which images are in ``policy.share``; None where all are.
    """

    images: Tensor | Ragged
    labels: Tensor
    numbers: Tensor | None = None
    augmented: Tensor | None = None


class BatchSource(Protocol):
    """Batches of an epoch."""

    @property
    def steps(self) -> int:
        """Batches in an epoch."""

    @property
    def images_per_step(self) -> int:
        """Images in a batch, over all processes."""

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from number ``start`` on."""


@dataclass(frozen=True)
class DatasetBatches:
    """Batches of a dataset's training split, without the last, smaller batch, which would disturb batch norm.

    Attributes:
        images: images in memory on the device, or a stream; whole images if crops are drawn from them.
        labels: ``(N,)`` on the device.
        batch: images per step over all processes.
        chosen: whether the images of each class are augmented, ``(K,)`` bool on the CPU; None for all.
        shared: whether each image is in ``policy.share``, ``(N,)`` bool on the CPU; None where all are.
    """

    images: Images | WholeImages
    labels: Tensor
    batch: int
    recipe: Recipe
    device: torch.device
    process: Process
    chosen: Tensor | None = None
    shared: Tensor | None = None

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
                yield self._batch(self.images.images[places], chosen)
        elif mine:
            images, step = self.images.take(torch.cat(mine)), self._worker_step(self.images, epoch)
            data = self.recipe.data
            images = (images if step is None else images.then(step)).put_on_canvas(data.canvas, data.jitter)
            for chosen, pixels in zip(mine, batches(images, len(mine[0]), self.device), strict=True):
                yield self._batch(pixels, chosen)

    def _whole(self, images: WholeImages, mine: list[Tensor], epoch: int) -> Iterator[Batch]:
        found = images.batches(mine, self.device, self._worker_step(images.stream, epoch))
        for chosen, batch in zip(mine, found, strict=True):
            yield self._batch(batch, chosen)

    def _batch(self, pixels: Tensor | Ragged, numbers: Tensor) -> Batch:
        shared = None if self.shared is None else self.shared[numbers].to(self.device)
        return Batch(pixels, self.labels[numbers.to(self.device)], numbers, shared)

    def _worker_step(self, images: Stream, epoch: int) -> WorkerStep | None:
        chosen = None
        if (self.chosen is not None or self.shared is not None) and self.recipe.policy.worker_ops:
            labels = self.labels.cpu()
            found = torch.ones(len(labels), dtype=torch.bool) if self.chosen is None else self.chosen[labels]
            chosen = torch.zeros(int(images.indices.max()) + 1, dtype=torch.bool)
            chosen[images.indices] = found if self.shared is None else found & self.shared
        return self.recipe.policy.worker_step(self.recipe.seed, epoch, chosen)


@dataclass(frozen=True)
class LoaderBatches:
    """Batches of a `DataLoader`, or of any iterable with a length that yields pairs of images and labels.

    The loader's length is the number of batches of an epoch: further batches are ignored, and a loader with fewer, such
    as one that omits broken files, is started again. The global random numbers of samplers, transforms and workers
    depend only on seed, process, epoch and batch.
    """

    loader: Any
    classes: int | None
    recipe: Recipe
    device: torch.device
    process: Process

    @property
    def steps(self) -> int:
        """Batches in an epoch."""
        return count_batches(self.loader)

    @property
    def images_per_step(self) -> int:
        """Images in a batch, over all processes; 0 where it is unknown."""
        sizes = (
            getattr(each, "batch_size", None) for each in (self.loader, getattr(self.loader, "batch_sampler", None))
        )
        return next(filter(None, sizes), 0) * self.process.count

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch``; the first ``start`` are read and dropped."""
        set_epoch(self.loader, epoch)
        for number, batch in enumerate(self._drawn(epoch)):
            if number < start:
                continue
            images, labels = labeled(batch)
            check_side(images, self.recipe)
            # Reading values on another device would synchronize with it.
            if number == start or images.device.type == "cpu":
                check_range(images, self.recipe.data.mean, self.recipe.data.std)
            if self.classes is not None and (number == start or labels.device.type == "cpu"):
                check_labels(labels, self.classes)
            yield Batch(images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True))

    def _drawn(self, epoch: int) -> Iterator[Any]:
        seed, steps, rank = self.recipe.seed, self.steps, self.process.rank
        with drawing(self.device, seed, ORDER, epoch, rank):
            batches = iter(self.loader)
        for number in range(steps):
            with drawing(self.device, seed, LOADING, epoch * steps + number, rank):
                batch = next(batches, None)
                if batch is None:
                    batches = iter(self.loader)
                    batch = next(batches, None)
            if batch is None:
                raise InputError(f"loader: expected {steps} batches, as its length says, got {number} and then none")
            yield batch
        # One more call lets loaders with workers shut down; batches beyond the length are dropped.
        with drawing(self.device, seed, LOADING, (epoch + 1) * steps, rank):
            next(batches, None)


def make_batches(
    source: Any, recipe: Recipe, device: torch.device, process: Process, classes: int | None = None
) -> BatchSource:
    """Return the training batches of a dataset or a loader.

    Args:
        source: a dataset or a loader.
        recipe: order, policy and size of batches.
        device: device of the batches.
        process: this process, which takes its share of a dataset, but all of a loader.
        classes: number of classes of the network, to check the labels; not checked when None.

    Raises:
        InputError: labels are missing or exceed the classes of the network; processes cannot share a batch equally; or
            the loader has no length or no batches.
    """
    if not isinstance(source, Dataset):
        count_batches(source)
        if recipe.policy.draws == "even":
            raise InputError(
                "policy.draws: expected random with a loader of your own, whose images have no numbers, got even"
            )
        if recipe.policy.share < 1:
            raise InputError(
                "policy.share: expected 1 with a loader of your own, whose images have no numbers,"
                f" got {recipe.policy.share:g}"
            )
        return LoaderBatches(source, classes, recipe, device, process)
    found, worker_ops = training_images(recipe, source), recipe.policy.worker_step(recipe.seed, 0)
    images = found.squares if isinstance(found, WholeImages) else found
    labels = labels_of(images).to(device)
    if classes is not None:
        check_labels(labels, classes)
    if len(images) < 2:
        raise InputError(f"training: expected at least 2 images, got {len(images)}")
    batch = min(recipe.train.batch_size, len(images))
    if batch % (process.count * recipe.train.accumulate):
        parts = f"{process.count} processes x train.accumulate {recipe.train.accumulate}"
        raise InputError(f"train.batch_size: expected a multiple of {parts}, got {batch}")
    if worker_ops is not None:
        _try(worker_ops, images)
    chosen = recipe.policy.class_mask(source.classes)
    part = shared(labels.cpu(), recipe.policy.share) if recipe.policy.share < 1 else None
    if isinstance(found, WholeImages):
        return DatasetBatches(found.to(device), labels, batch, recipe, device, process, chosen, part)
    if worker_ops is not None and not isinstance(images, Stream):
        images = _as_stream(images, recipe.data.workers)
    elif not isinstance(images, Stream):
        pixels = images.on_canvas(recipe.data.canvas, recipe.data.jitter)
        images = Images(pixels.to(device), images.labels, images.background)
    return DatasetBatches(images, labels, batch, recipe, device, process, chosen, part)


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
    """Run worker ops on one image, so that a failure is one line instead of a traceback in a worker."""
    first = images.take(torch.zeros(1, dtype=torch.int64))
    pixels = (first.load() if isinstance(first, Stream) else first).images
    for number in range(8):
        step(pixels, torch.tensor([number]))
