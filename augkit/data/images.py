"""Images in memory: uint8 pixels and optional labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augkit.augment.kernels import padded_index
from augkit.core.errors import InputError
from augkit.core.random_streams import stream

SLICE = 256  # images per call of a step, to bound its memory
JITTER = 6  # purpose of this stream of random numbers; `augkit.data.localization` has 5

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)

# A transform of decoded pixels: ``(B, C, H, W)`` uint8 and the number ``(B,)`` of each image to uint8 pixels.
Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Canvas:
    """The step that puts images on a square canvas.

    Attributes:
        side: side of the canvas (pixels).
        background: its pixels: a gray value in [0, 1], ``mean``, the image's mean color, or ``reflection``, the image
            mirrored about its border pixels.
        jitter: each image lies up to this many whole pixels from the center along each axis. The place depends on the
            number of the image alone, so it is the same in every epoch and for every seed of training.
    """

    side: int
    background: float | str = 0.0
    jitter: int = 0

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 to ``(B, C, side, side)``; ``numbers`` matter with ``jitter`` alone.

        Raises:
            InputError: the canvas has no room for the images at all of their places.
        """
        least = max(pixels.shape[-2:]) + 2 * self.jitter
        if self.side < least:
            room = f" for images of {max(pixels.shape[-2:])} and data.jitter {self.jitter}" if self.jitter else ""
            raise InputError(f"data.canvas: expected at least {least} pixels{room}, got {self.side}")
        if not self._places_differ or pixels.is_meta or not len(pixels):
            return self._placed(pixels, 0, 0)
        moves = [self._move(number) for number in numbers.tolist()]
        return torch.cat([self._placed(p[None], x, y) for p, (x, y) in zip(pixels, moves, strict=True)])

    @property
    def _places_differ(self) -> bool:
        return self.jitter > 0

    def _placed(self, pixels: Tensor, right: int, down: int) -> Tensor:
        """Images moved by ``right`` and ``down`` pixels from the center of the canvas."""
        count, channels, height, width = pixels.shape
        top, left = (self.side - height) // 2 + down, (self.side - width) // 2 + right
        if self.background == "reflection":
            rows, columns = (
                padded_index(torch.arange(self.side) - start, size, "reflection")
                for start, size in ((top, height), (left, width))
            )
            return pixels[:, :, rows.to(pixels.device)][:, :, :, columns.to(pixels.device)]
        canvas = pixels.new_empty((count, channels, self.side, self.side))
        canvas[:] = self._color(pixels)
        canvas[:, :, top : top + height, left : left + width] = pixels
        return canvas

    def _color(self, pixels: Tensor) -> Tensor | int:
        if isinstance(self.background, str):
            return pixels.to(torch.float64).mean((-2, -1), keepdim=True).round().to(pixels.dtype)
        return round(255 * self.background)

    def _move(self, number: int) -> tuple[int, int]:
        x, y = stream(0, JITTER, number).integers(-self.jitter, self.jitter + 1, size=2)
        return int(x), int(y)


@dataclass(frozen=True)
class Images:
    """Images ``(N, C, H, W)`` uint8 with labels ``(N,)`` int64 or None.

    ``background`` is that of their canvas, see `Canvas`. `augkit.data.batches` iterates these as well as a
    `Stream`, whose pixels are not in memory.
    """

    images: Tensor
    labels: Tensor | None
    background: float | str = 0.0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of each image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, indices: Tensor) -> Images:
        """Return the images at ``indices`` ``(n,)``, in that order."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, images=self.images[indices], labels=labels)

    def relabeled(self, mapping: Tensor) -> Images:
        """Return the images with label k replaced by ``mapping[k]``."""
        return self if self.labels is None else replace(self, labels=mapping[self.labels])

    def with_channels(self, channels: int) -> Images:
        """Return the images with 1 or 3 channels: gray repeated, or color weighted as Pillow's mode L (BT.601)."""
        if channels == self.shape[0]:
            return self
        if channels == 3:
            return replace(self, images=self.images.expand(-1, 3, -1, -1).contiguous())
        parts = [
            (part.double() * LUMA).sum(1, keepdim=True).round().to(torch.uint8) for part in self.images.split(SLICE)
        ]
        return replace(self, images=torch.cat(parts))

    def then(self, step: Step) -> Images:
        """Return the images after ``step``, which keeps their shape; image numbers are their indices."""
        numbers = torch.arange(len(self))
        parts = [step(p, n) for p, n in zip(self.images.split(SLICE), numbers.split(SLICE), strict=True)]
        return replace(self, images=torch.cat(parts)) if len(self) else self

    def put_on_canvas(self, side: int | None, jitter: int = 0) -> Images:
        """Return the images on a square canvas of ``side`` pixels, see `Canvas`; unchanged when None."""
        return replace(self, images=self.on_canvas(side, jitter))

    def on_canvas(self, side: int | None, jitter: int = 0) -> Tensor:
        """Return the pixels on a square canvas of ``side`` pixels, see `Canvas`; unchanged when None."""
        if side is None:
            return self.images
        return Canvas(side, self.background, jitter)(self.images, torch.arange(len(self)))
