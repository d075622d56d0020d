"""Images in memory: uint8 pixels and optional labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from augkit.core.errors import InputError

SLICE = 256  # images per call of a step, to bound its memory

LUMA = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64).view(3, 1, 1)

# A transform of decoded pixels: ``(B, C, H, W)`` uint8 and the number ``(B,)`` of each image to uint8 pixels.
Step = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Canvas:
    """The step that puts images in the center of a square of ``side`` pixels filled with ``fill`` (0 to 255)."""

    side: int
    fill: int

    def __call__(self, pixels: Tensor, numbers: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C, side, side)``; all ``numbers`` alike."""
        count, channels, height, width = pixels.shape
        if self.side < max(height, width):
            raise InputError(f"data.canvas: expected at least {max(height, width)} pixels, got {self.side}")
        canvas = pixels.new_full((count, channels, self.side, self.side), self.fill)
        top, left = (self.side - height) // 2, (self.side - width) // 2
        canvas[:, :, top : top + height, left : left + width] = pixels
        return canvas


@dataclass(frozen=True)
class Images:
    """Images ``(N, C, H, W)`` uint8 with labels ``(N,)`` int64 or None.

    ``background`` is the gray value in [0, 1] of their canvas. `augkit.data.batches` iterates these as well as a
    `Stream`, whose pixels are not in memory.
    """

    images: Tensor
    labels: Tensor | None
    background: float = 0.0

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

    def relabelled(self, mapping: Tensor) -> Images:
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

    def put_on_canvas(self, side: int | None) -> Images:
        """Return the images in the center of a square canvas of ``side`` pixels; unchanged when None."""
        return replace(self, images=self.on_canvas(side))

    def on_canvas(self, side: int | None) -> Tensor:
        """Return the pixels in the center of a square canvas of ``side`` pixels; unchanged when None."""
        if side is None:
            return self.images
        return Canvas(side, round(255 * self.background))(self.images, torch.empty(0))
