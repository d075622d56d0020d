"""Iterates batches of images in memory or of a stream."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import torch
from torch import Tensor

from augkit.augment.ragged import Ragged
from augkit.core.errors import check_whole
from augkit.data.images import Images
from augkit.data.stream import Stream

Pixels = TypeVar("Pixels", Tensor, Ragged)


def batches(images: Images, batch_size: int, device: torch.device | str | None = None) -> Iterator[Tensor]:
    """Yield the images in order as batches ``(b, C, H, W)`` uint8 on ``device``; only the last may be smaller.

    The workers of a `Stream` decode in the background. Batches for a CUDA device are copied from pinned memory on a
    separate CUDA stream, one batch ahead.

    Raises:
        InputError: the batch size is below 1, or an image of a stream cannot be used; the message names it.

    >>> images = Images(torch.zeros(5, 1, 2, 2, dtype=torch.uint8), None)
    >>> [len(batch) for batch in batches(images, 2)]
    [2, 2, 1]
    """
    check_whole("batch size", batch_size, 1, optional=False)
    target = None if device is None else torch.device(device)
    cuda = target is not None and target.type == "cuda"
    if isinstance(images, Stream):
        found = _batched(images, batch_size, pinned=cuda)
    else:
        found = iter(images.images.split(batch_size)) if len(images) else iter(())
    return ahead(found, target)


def _batched(stream: Stream, batch_size: int, *, pinned: bool) -> Iterator[Tensor]:
    """Join the decoded chunks of the workers into batches."""
    left, filled = len(stream), 0
    batch = torch.empty(0)
    for pixels in stream.pixels():
        start = 0
        while start < len(pixels):
            if filled == 0:
                count = min(batch_size, left)
                batch = torch.empty(count, *stream.shape, dtype=torch.uint8, pin_memory=pinned)
            stop = min(len(pixels), start + len(batch) - filled)
            batch[filled : filled + stop - start] = pixels[start:stop]
            filled, start = filled + stop - start, stop
            if filled == len(batch):
                left, filled = left - filled, 0
                yield batch


def ahead(found: Iterator[Pixels], device: torch.device | None) -> Iterator[Pixels]:
    """Yield batches on ``device``, where they are when None; the next goes to a GPU while the current one is used."""
    if device is None or device.type != "cuda":
        yield from found if device is None else (batch.to(device) for batch in found)
        return
    copying = torch.cuda.Stream(device)

    def copied() -> tuple[Pixels, torch.cuda.Event] | None:
        batch = next(found, None)
        if batch is None:
            return None
        pinned = batch.pin_memory() if isinstance(batch, Ragged) else batch  # tensors of a stream were made so
        with torch.cuda.stream(copying):
            return pinned.to(device, non_blocking=True), copying.record_event()

    following = copied()
    while following is not None:
        batch, done = following
        following = copied()
        using = torch.cuda.current_stream(device)
        using.wait_event(done)
        values = batch.values if isinstance(batch, Ragged) else batch
        values.record_stream(using)  # keeps its memory from reuse by the next copy until this stream has used it
        yield batch
