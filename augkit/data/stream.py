"""Streams of images that worker processes decode on demand, in a fixed order, without keeping all in memory."""

from __future__ import annotations

import itertools
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from augkit.augment.fit import decode_size_problem
from augkit.core.errors import InputError, brief, check_whole
from augkit.data.decode import Fault, Form, decode, decode_upright, is_gray, wrong_size
from augkit.data.images import Canvas, Images, Step

# Bytes that a worker returns at a time: small, as containers often have 64 MiB of shared memory.
CHUNK = 2 * 2**20
# Below this many decoded bytes, starting workers takes longer than decoding.
WORTH_WORKERS = 64 * 2**20
MEMORY = 2 * 2**30
PROBES = 32  # evenly spaced images that determine size and channels


class Source(ABC):
    """Encoded images by index. It can be pickled and read from several processes."""

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @abstractmethod
    def name(self, index: int) -> str:
        """Name of the image in error messages, such as its path in quotes."""

    @abstractmethod
    def open(self, index: int) -> Image.Image:
        """The image, opened by Pillow, whose errors pass through."""


@dataclass(frozen=True)
class Reading:
    """Settings for reading encoded images.

    Attributes:
        image_size: side in pixels to which images are fitted by resizing the shorter side and cropping the center. When
            None all must have the size of the first.
        channels: 1 or 3, to which all are converted. When None, 1 if 32 evenly spaced images are gray (a color image is
            then an error), else 3.
        skip_corrupt: omit files that cannot be read, and list them in `Dataset.skipped`.
        workers: processes that decode; 0 decodes in this process, None uses one per core, at most 8, if there are
            enough images.
        memory: decoded bytes up to which images are kept in memory; more are streamed.
        crop_share: share of the shorter side that the cropped center shows, in (0, 1]: the image is resized to
            ``image_size / crop_share`` and cropped, in one resampling.
        decode_size: shorter side in pixels to which whole images, of which a policy shows crops, are reduced; as many
            as the smallest crop needs when None. A JPEG file that keeps as many at a half, a quarter or an eighth of
            its size is decoded at that; needs an ``image_size``.
        max_megapixels: larger images are an error, as they may be designed to exhaust the memory; Pillow's limit, 179,
            when None.
        mixed_size: the ``image_size`` if that is None and the inspected images have several sizes.
    """

    image_size: int | None = None
    channels: int | None = None
    skip_corrupt: bool = False
    workers: int | None = None
    memory: int = MEMORY
    max_megapixels: int | None = None
    crop_share: float = 1.0
    decode_size: int | None = None
    mixed_size: int | None = None

    def __post_init__(self) -> None:
        """Raise InputError for a setting that is not a whole number or is too small."""
        share = self.crop_share
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise InputError(f"data.crop_share: expected a number above 0 and at most 1, got {brief(share)}")
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels: expected 1 or 3, got {brief(self.channels)}")
        for name, least in (
            ("image_size", 1),
            ("workers", 0),
            ("memory", 0),
            ("max_megapixels", 1),
            ("decode_size", 1),
            ("mixed_size", 1),
        ):
            check_whole(f"data.{name}", getattr(self, name), least)
        problem = decode_size_problem(self.decode_size, self.image_size, share)
        if problem:
            raise InputError(f"data.decode_size: expected {problem}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Stream(Images):
    """Images of a source, decoded when they are iterated.

    ``images`` has the shape ``(N, C, H, W)`` of all of them and no pixels: it is a tensor on the device ``meta``.

    Attributes:
        source: the encoded images.
        indices: ``(N,)`` int64, the indices of the images in the source, in order.
        form: size and channels after decoding.
        workers: as in `Reading`.
        steps: transforms of decoded pixels, applied in the workers.
    """

    source: Source
    indices: Tensor
    form: Form
    workers: int | None = None
    steps: tuple[Step, ...] = ()

    def take(self, indices: Tensor) -> Stream:
        """Return the images at ``indices`` ``(n,)``, in that order, without decoding."""
        labels = None if self.labels is None else self.labels[indices]
        images = self.images.new_empty(len(indices), *self.shape)
        return replace(self, images=images, labels=labels, indices=self.indices[indices])

    def beside(self, others: Sequence[Stream]) -> Stream:
        """Return these images and those of other streams of the same source, in the order of the source."""
        indices = torch.cat([self.indices, *(other.indices for other in others)])
        labels = [labels for part in (self, *others) if (labels := part.labels) is not None]
        images = self.images.new_empty(len(indices), *self.shape)
        whole = torch.cat(labels) if len(labels) == 1 + len(others) else None
        return replace(self, images=images, labels=whole, indices=indices).take(indices.argsort())

    def with_channels(self, channels: int) -> Stream:
        """Return the images decoded to 1 or 3 channels; only before any step."""
        if channels == self.form.channels:
            return self
        images = self.images.new_empty(len(self), channels, *self.shape[1:])
        return replace(self, images=images, form=replace(self.form, channels=channels))

    def then(self, step: Step) -> Stream:
        """Return the images after ``step``, which keeps their shape; image numbers are indices in the source."""
        return replace(self, steps=(*self.steps, step))

    def put_on_canvas(self, side: int | None, jitter: int = 0) -> Stream:
        """Return the images on a square canvas of ``side`` pixels, see `Canvas`; unchanged when None."""
        if side is None:
            return self
        step = Canvas(side, self.background, jitter)
        return replace(self.then(step), images=step(self.images, self.indices))

    def on_canvas(self, side: int | None, jitter: int = 0) -> Tensor:
        """Raise InputError, because the pixels are not in memory; `put_on_canvas` returns a stream.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"these {len(self):,} images are {self.images.nbytes / 2**30:.2f} GiB decoded and are streamed, where "
            "images in memory are needed: set a lower limit or image_size, or a higher memory"
        )

    def chunks(self) -> Iterator[tuple[Tensor, Tensor, list[Fault]]]:
        """Yield pixels ``(b, C, H, W)``, the positions ``(b,)`` of these images in the stream, and the failed images.

        Chunks are in order and have a few MiB each.
        """
        yield from self.parts(Decoder(self), math.prod(self.shape))

    def parts(self, decoder: TorchDataset[Any], size: int) -> Iterator[Any]:
        """Yield the outputs of ``decoder`` for all images, in order; an image has ``size`` bytes."""
        places = torch.arange(len(self)).split(max(1, CHUNK // max(1, size))) if len(self) else ()
        workers = min(self._workers(), len(places))
        # The loader treats chunks of positions as single items. It draws the workers' seeds from its own generator, so
        # that the global one does not change.
        yield from DataLoader(
            decoder, sampler=places, batch_size=None, num_workers=workers, generator=torch.Generator()
        )

    def pixels(self) -> Iterator[Tensor]:
        """Yield all images in order, ``(b, C, H, W)`` uint8, a few MiB at a time.

        Raises:
            InputError: an image cannot be used; the message names it.
        """
        for part, _, faults in self.chunks():
            skip_or_raise(faults, None)
            yield part

    def load(self, skipped: dict[str, str] | None = None) -> Images:
        """Decode all images; broken ones are omitted and added to ``skipped`` if it is given.

        Raises:
            InputError: an image is broken and ``skipped`` is None, or an image has another size.
        """
        pixels = torch.empty(self.images.shape, dtype=torch.uint8)
        kept = [torch.empty(0, dtype=torch.int64)]
        start = 0
        for part, places, faults in self.chunks():
            skip_or_raise(faults, skipped)
            pixels[start : start + len(part)] = part
            start += len(part)
            kept.append(places)
        found = torch.cat(kept)
        labels = None if self.labels is None else self.labels[found]
        return Images(pixels[: len(found)], labels, self.background)

    def readable(self, skipped: dict[str, str]) -> Stream:
        """Return the stream without the images that cannot be decoded, which are added to ``skipped``; decodes all."""
        kept = [torch.empty(0, dtype=torch.int64)]
        for _, places, faults in self.chunks():
            skip_or_raise(faults, skipped)
            kept.append(places)
        return self.take(torch.cat(kept))

    def _workers(self) -> int:
        if self.workers is not None:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(8, cores) if self.images.nbytes >= WORTH_WORKERS else 0


class Decoder(TorchDataset[tuple[Tensor, Tensor, list[Fault]]]):
    """The part of a stream that a worker needs: it maps positions to pixels."""

    def __init__(self, stream: Stream) -> None:
        self.source, self.form, self.steps = stream.source, stream.form, stream.steps
        self.indices = stream.indices

    def decoded(self, numbers: Tensor) -> tuple[list[np.ndarray], list[int], list[Fault]]:
        """Return the images with these numbers in the source, their positions in ``numbers``, and the other faults."""
        found, kept, faults = [], [], []
        for k, index in enumerate(numbers.tolist()):
            image = decode(partial(self.source.open, index), self.form)
            if isinstance(image, Fault):
                faults.append(replace(image, name=self.source.name(index)))
            else:
                found.append(image)
                kept.append(k)
        return found, kept, faults

    def __getitem__(self, places: Tensor) -> tuple[Tensor, Tensor, list[Fault]]:
        form, numbers = self.form, self.indices[places]
        found, kept, faults = self.decoded(numbers)
        array = np.stack(found) if found else np.empty((0, form.channels, form.height, form.width), dtype=np.uint8)
        pixels, numbers, places = torch.from_numpy(array), numbers[kept], places[kept]
        for step in self.steps:
            pixels = step(pixels, numbers)
        return pixels, places, faults


def skip_or_raise(faults: list[Fault], skipped: dict[str, str] | None) -> None:
    """Add broken images to ``skipped``; raise InputError if it is None, or for a fault of another kind."""
    for fault in faults:
        if not fault.corrupt or skipped is None:
            raise broken(fault)
        skipped[fault.name] = fault.reason


def broken(fault: Fault) -> InputError:
    """Return the error for an image that cannot be used, with its name."""
    remedy = (
        "; repair or remove it, or leave out broken files (--skip-corrupt, or data.skip_corrupt of a recipe)"
        if fault.corrupt
        else ""
    )
    return InputError(f"{fault.name}: {fault.reason}{remedy}")


def stream_of(source: Source, labels: Tensor | None, reading: Reading) -> Stream:
    """Return a stream of all images of ``source``, at least one, in order; ``labels`` are ``(N,)`` int64 or None.

    Raises:
        InputError: one of the few inspected images is broken, or no image can be read.
    """
    seen = _look(source, reading)
    like, first = next(iter(seen.items()))
    if reading.image_size is None and len({look.size for look in seen.values()}) > 1:
        reading = replace(reading, image_size=reading.mixed_size)
    width, height = first.size if reading.image_size is None else (reading.image_size, reading.image_size)
    channels = reading.channels or (1 if all(look.gray for look in seen.values()) else 3)
    fit, convert = reading.image_size is not None, reading.channels is not None
    form = Form(
        height,
        width,
        channels,
        fit=fit,
        convert=convert,
        like=like,
        max_megapixels=reading.max_megapixels,
        crop_share=reading.crop_share,
        decode_size=reading.decode_size,
    )
    for name, look in seen.items():
        if not fit and look.size != (width, height):
            raise broken(replace(wrong_size(look.size, form), name=name))
    pixels = torch.empty(len(source), channels, height, width, dtype=torch.uint8, device="meta")
    everything = torch.arange(len(source))
    return Stream(images=pixels, labels=labels, source=source, indices=everything, form=form, workers=reading.workers)


class _Look(NamedTuple):
    """Size and color of an inspected image, without its pixels, as 32 photographs may take a gigabyte."""

    size: tuple[int, int]
    gray: bool


def _look(source: Source, reading: Reading) -> dict[str, _Look]:
    """Inspect a few evenly spaced images, by name; if all are broken and may be skipped, the first readable image."""
    spread = sorted({round(k * (len(source) - 1) / (PROBES - 1)) for k in range(PROBES)})
    seen: dict[str, _Look] = {}
    rest = (index for index in range(len(source)) if index not in spread)
    for count, index in enumerate(itertools.chain(spread, rest)):
        if count >= len(spread) and (seen or not reading.skip_corrupt):
            break
        picture = decode_upright(partial(source.open, index), reading.max_megapixels, reading.decode_size)
        if isinstance(picture, Image.Image):
            seen[source.name(index)] = _Look(picture.size, is_gray(picture))
        elif not (reading.skip_corrupt and picture.corrupt):
            raise broken(replace(picture, name=source.name(index)))
    if not seen:
        raise InputError(f"expected images, none of {len(source)} can be read, such as {source.name(0)}")
    return seen
