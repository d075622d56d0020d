"""What the Triton kernels are asked for: the images that they read, and how these are resampled."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Source(NamedTuple):
    """Images on a device in one flat buffer, all of ``size``, or each of its own.

    Attributes:
        values: ``(n,)``, floating or uint8.
        batch: the number of images.
        channels: of each image.
        size: (H, W) of all images; (0, 0) where each has its own.
        offsets: ``(B,)`` int64, where each image begins; None where they follow each other.
        sizes: ``(B, 2)`` int64 as (H, W); None where all have ``size``.
    """

    values: Tensor
    batch: int
    channels: int
    size: tuple[int, int]
    offsets: Tensor | None = None
    sizes: Tensor | None = None

    @classmethod
    def of(cls, images: Tensor) -> Source:
        """A batch ``(B, C, H, W)``."""
        batch, channels, height, width = images.shape
        return cls(images.detach().reshape(-1), batch, channels, (height, width))

    @classmethod
    def ragged(cls, values: Tensor, offsets: Tensor, sizes: Tensor, channels: int) -> Source:
        """Images of different sizes, laid out as in `augkit.Ragged`."""
        begin, shapes = (index.to(values.device, non_blocking=True).contiguous() for index in (offsets, sizes))
        return cls(values.detach().contiguous(), len(offsets), channels, (0, 0), begin, shapes)

    @property
    def arguments(self) -> tuple[Any, ...]:
        """The kernel arguments that `augkit.augment.backends.triton_parts.image_of` takes.

        ``values`` stands in for an index that the kernel does not read.
        """
        offsets, sizes = (self.values if index is None else index for index in (self.offsets, self.sizes))
        return self.values, offsets, sizes, self.channels, *self.size


class How(NamedTuple):
    """How images are resampled.

    Attributes:
        matrix: ``(B, 3, 3)``, floating.
        size: (H, W) of the output.
        kernel, padding: see `augkit.resample`.
        bounds: on the shrink, which sets how far a kernel is stretched: one for all images, or one for each.
        dtype: of the output, floating or uint8, which is rounded and clipped.
        gain, bias: ``(C,)``, for ``gain * value + bias``.
        axis_aligned: a promise that no matrix rotates, shears or is a perspective.
        affine: a promise that no matrix is a perspective.
    """

    matrix: Tensor
    size: tuple[int, int]
    kernel: str
    padding: str
    bounds: list[float]
    dtype: torch.dtype
    gain: Tensor | None = None
    bias: Tensor | None = None
    axis_aligned: bool = True
    affine: bool = False

    @property
    def shrink(self) -> float:
        """The largest of the bounds; 1 where the kernel is never stretched."""
        return 1.0 if self.kernel == "nearest" else max(self.bounds, default=1.0)

    def each(self, batch: int) -> Tensor:
        """The bounds as ``(B,)`` float64."""
        device = self.matrix.device
        if len(self.bounds) == 1:  # filled on the device: a copy from the host cannot be part of a CUDA graph
            return torch.full((batch,), self.bounds[0], device=device, dtype=torch.float64)
        return torch.tensor(self.bounds, device=device, dtype=torch.float64)

    def factors(self, channels: int) -> Tensor:
        """``gain`` and ``bias`` as ``(2, channels)`` float32, 1 and 0 where there are none."""
        out = torch.ones(2, channels, device=self.matrix.device, dtype=torch.float32)
        out[0] = 1.0 if self.gain is None else self.gain.reshape(-1)
        out[1] = 0.0 if self.bias is None else self.bias.reshape(-1)
        return out
