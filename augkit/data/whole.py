"""Whole images of a stream, each of its own size, for crops from the full image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from augkit.augment.ragged import Ragged
from augkit.data.batches import ahead
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
    held: Ragged | None = None

    def __len__(self) -> int:
        return len(self.stream)

    @property
    def squares(self) -> Stream:
        """The same images as the center squares of `Dataset.train`, decoded when they are iterated."""
        return replace(self.stream, form=replace(self.stream.form, whole=None))

    def to(self, device: torch.device) -> WholeImages:
        """The same images; those in memory lie on ``device``."""
        return self if self.held is None else replace(self, held=self.held.to(device))

    def batches(
        self, places: Sequence[Tensor], device: torch.device | None = None, step: Step | None = None
    ) -> Iterator[Ragged]:
        """Yield the images at each of ``places`` on ``device``, after ``step``.

        Images in memory are not copied. The workers of a stream decode in the background, and batches for a CUDA
        device are copied from pinned memory, one ahead.

        Args:
            places: the numbers of the images of each batch.
            device: device of the batches; that of the images when None.
            step: gets one image and its number at a time.

        Raises:
            InputError: an image cannot be used; the message names it.
        """
        if self.held is not None and step is None:
            held = self.held if device is None else self.held.to(device)
            yield from (held[chosen] for chosen in places)
        elif places:
            stream = self.stream.take(torch.cat(list(places)))
            found = _parts(stream if step is None else stream.then(step), self.size)
            yield from ahead(_batched(found, [len(chosen) for chosen in places]), device)


def whole_images(stream: Stream, shorter: int, memory: int, skipped: dict[str, str] | None = None) -> WholeImages:
    """Return whole images of ``stream`` with a shorter side of at most ``shorter``, in ``memory`` bytes if they fit.

    Of images in memory, broken ones are left out and added to ``skipped`` if it is given; else they are errors.
    """
    whole = replace(stream, form=replace(stream.form, whole=shorter))
    size = _size(whole, shorter)
    if size * len(whole) > memory:
        return WholeImages(whole, size)
    kept: list[Tensor] = [torch.empty(0, dtype=torch.int64)]
    held = _joined(_parts(whole, size, skipped, kept), size * len(whole))
    return WholeImages(whole.take(torch.cat(kept)), size, held)


class _WholeDecoder(Decoder):
    """Maps positions to images of different sizes; None where none of them can be decoded."""

    def __getitem__(self, places: Tensor) -> tuple[Ragged | None, Tensor, list[Fault]]:  # type: ignore[override]
        numbers = self.indices[places]
        found, kept, faults = self.decoded(numbers)
        images = [torch.from_numpy(image.copy()) for image in found]
        for step in self.steps:
            images = [step(image[None], number[None])[0] for image, number in zip(images, numbers[kept], strict=True)]
        return Ragged.from_list(images) if images else None, places[kept], faults


def _parts(
    stream: Stream, size: int, skipped: dict[str, str] | None = None, kept: list[Tensor] | None = None
) -> Iterator[Ragged]:
    """Yield all images in order, a few MiB at a time, and append their places in the stream to ``kept``."""
    for images, places, faults in stream.parts(_WholeDecoder(stream), size):
        skip_or_raise(faults, skipped)
        if kept is not None:
            kept.append(places)
        if images is not None:
            yield images


def _batched(parts: Iterator[Ragged], counts: Sequence[int]) -> Iterator[Ragged]:
    """Join the decoded chunks of the workers into batches of these numbers of images."""
    images = (image for part in parts for image in part)
    for count in counts:
        yield Ragged.from_list([next(images) for _ in range(count)])


def _joined(parts: Iterator[Ragged], expected: int) -> Ragged | None:
    """Return the images of all ``parts`` in one buffer; None if empty; ``expected`` bytes may be too few."""
    values = torch.empty(expected + expected // 8, dtype=torch.uint8)  # the system gives no memory to unused pages
    sizes, channels, filled = [], 1, 0
    for part in parts:
        end = filled + len(part.values)
        if end > len(values):
            values.resize_(end + end // 8)
        values[filled:end] = part.values
        sizes.append(part.sizes)
        channels, filled = part.channels, end
    if not sizes:
        return None
    every = torch.cat(sizes)
    lengths = channels * every.prod(dim=1)
    return Ragged(values[:filled], lengths.cumsum(0) - lengths, every, channels)


def _size(stream: Stream, shorter: int) -> int:
    """Return the estimated bytes of an image, from the headers of a few."""
    looked_at = stream.indices[torch.linspace(0, len(stream) - 1, min(PROBES, len(stream))).long()].tolist()
    sizes = [header_size(partial(stream.source.open, index), stream.form.max_megapixels) for index in looked_at]
    areas = [math.prod(reduced_size(size, shorter)) for size in sizes if size is not None]
    return stream.form.channels * round(sum(areas) / max(1, len(areas)))
