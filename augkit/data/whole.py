"""Whole images of a stream, each of its own size, for crops from the full image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from augkit.data.decode import Fault, header_size, reduced_size
from augkit.data.images import Step
from augkit.data.stream import Decoder, Stream, skip_or_raise

PROBES = 32  # evenly spaced images from which the memory of all is estimated


@dataclass(frozen=True)
class WholeImages:
    """Images ``(C, H, W)`` uint8 of different sizes.

    Attributes:
        stream: the source, which decodes whole images.
        size: estimated bytes per image, the mean of a few.
        held: all images if they fit in memory, else None.
    """

    stream: Stream
    size: int
    held: list[Tensor] | None = None

    def __len__(self) -> int:
        return len(self.stream)

    def batches(self, places: Sequence[Tensor], step: Step | None = None) -> Iterator[list[Tensor]]:
        """Yield the images at each of ``places``, after ``step``, which gets one image and its number at a time.

        Raises:
            InputError: an image cannot be used; the message names it.
        """
        if self.held is not None and step is None:
            yield from ([self.held[k] for k in chosen.tolist()] for chosen in places)
            return
        stream = self.stream.take(torch.cat(list(places))) if len(places) else self.stream.take(torch.arange(0))
        found = _images(stream if step is None else stream.then(step), self.size)
        for chosen in places:
            yield [next(found) for _ in chosen]


def whole_images(stream: Stream, shorter: int, memory: int) -> WholeImages:
    """Return whole images of ``stream`` with a shorter side of at most ``shorter``, in ``memory`` bytes if they fit."""
    whole = replace(stream, form=replace(stream.form, whole=shorter))
    size = _size(whole, shorter)
    held = list(_images(whole, size)) if size * len(whole) <= memory else None
    return WholeImages(whole, size, held)


class _WholeDecoder(Decoder):
    """Maps positions to images of different sizes."""

    def __getitem__(self, places: Tensor) -> tuple[list[Tensor], Tensor, list[Fault]]:  # type: ignore[override]
        numbers = self.indices[places]
        found, kept, faults = self.decoded(numbers)
        images = [torch.from_numpy(image.copy()) for image in found]
        for step in self.steps:
            images = [step(image[None], number[None])[0] for image, number in zip(images, numbers[kept], strict=True)]
        return images, places[kept], faults


def _images(stream: Stream, size: int) -> Iterator[Tensor]:
    for images, _, faults in stream.parts(_WholeDecoder(stream), size):
        skip_or_raise(faults, None)
        yield from images


def _size(stream: Stream, shorter: int) -> int:
    """Return the estimated bytes of an image, from the headers of a few."""
    looked_at = stream.indices[torch.linspace(0, len(stream) - 1, min(PROBES, len(stream))).long()].tolist()
    sizes = [header_size(partial(stream.source.open, index), stream.form.max_megapixels) for index in looked_at]
    areas = [math.prod(reduced_size(size, shorter)) for size in sizes if size is not None]
    return stream.form.channels * round(sum(areas) / max(1, len(areas)))
