"""Shift averaging: the mean of a network's outputs over shifts of its input.

A network with a total stride of ``s`` gives equal outputs under shifts by ``s`` pixels, and others for the ``s**2``
phases between them. The mean over one shift of each phase does not depend on the phase: on the torus it is
exactly invariant to whole pixels, for any network that commutes with shifts by ``s`` (circular padding, strides, a head
that does not depend on the place). Elsewhere it only averages differences. It needs no training, and costs one pass
per shift.

What is averaged is the output itself, logits by default: the mean is then linear, so that it holds for embeddings too,
and equals the normalized geometric mean of the probabilities. ``average="probabilities"`` is the mean of the softmax,
in which no single view can outvote the others by large logits; the wrapper returns its logarithm, so that a softmax
gives it back.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from augkit.architectures.modes import check_network
from augkit.architectures.outputs import logits_in
from augkit.augment import geometry
from augkit.augment.kernels import check_names, padded_index
from augkit.augment.resample import as_size, resample
from augkit.core.errors import InputError, unknown_name

AVERAGES = ("logits", "probabilities")


class ShiftAveraged(nn.Module):
    """A network behind shifts of its input, whose outputs it averages; create it with `shift_averaged`.

    Attributes:
        model: the network.
        shifts: (x, y) in pixels.
        kernel, padding: of the resampling.
        size: (H, W) of the views; None for that of the images.
        average: ``logits`` or ``probabilities``.
    """

    def __init__(
        self,
        model: nn.Module,
        shifts: tuple[tuple[float, float], ...],
        kernel: str,
        padding: str,
        size: tuple[int, int] | None,
        average: str,
    ) -> None:
        super().__init__()
        self.model, self.shifts = model, shifts
        self.kernel, self.padding, self.size, self.average = kernel, padding, size, average

    def forward(self, images: Tensor) -> Tensor:
        """Return the mean output for images ``(B, C, H, W)``, in one pass over ``B * len(shifts)`` views."""
        count = len(self.shifts)
        output: Any = logits_in(self.model(self.views(images)))
        if not isinstance(output, Tensor) or len(output) != count * len(images):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(f"shift_averaged: expected one output for each of {count * len(images)} views, got {got}")
        output = output.unflatten(0, (len(images), count))
        if self.average == "logits":
            return output.mean(1)
        return output.log_softmax(-1).logsumexp(1) - math.log(count)

    def views(self, images: Tensor) -> Tensor:
        """Return the views ``(B * len(shifts), C, *size)``, all those of an image in a row."""
        if images.ndim != 4:
            raise InputError(f"shift_averaged: expected images (B, C, H, W), got shape {tuple(images.shape)}")
        H, W = images.shape[-2:]
        height, width = (H, W) if self.size is None else self.size
        if height > H or width > W:
            raise InputError(f"shift_averaged: expected images of at least {height} x {width} pixels, got {H} x {W}")
        if self._whole:
            return self._copied(images, height, width)
        corner = torch.tensor([(W - width) // 2, (H - height) // 2], dtype=torch.float32, device=images.device)
        pixels = torch.tensor(self.shifts, dtype=torch.float32, device=images.device) - corner
        matrix = geometry.shift(pixels).repeat(len(images), 1, 1)
        repeated = images.repeat_interleave(len(self.shifts), 0)
        return resample(repeated, matrix, (height, width), kernel=self.kernel, padding=self.padding)

    @property
    def _whole(self) -> bool:
        """Whether views are copies of pixels, which is much cheaper than resampling and gives the same values."""
        return self.padding != "zeros" and all(value == int(value) for pair in self.shifts for value in pair)

    def _copied(self, images: Tensor, height: int, width: int) -> Tensor:
        H, W = images.shape[-2:]
        across, down = torch.tensor(self.shifts, dtype=torch.int64, device=images.device).T
        y = torch.arange(height, device=images.device) + (H - height) // 2 - down[:, None]
        x = torch.arange(width, device=images.device) + (W - width) // 2 - across[:, None]
        rows, columns = padded_index(y, H, self.padding), padded_index(x, W, self.padding)
        return images[:, :, rows[:, :, None], columns[:, None]].transpose(1, 2).flatten(0, 1)

    def extra_repr(self) -> str:
        how = f"kernel={self.kernel!r}, padding={self.padding!r}, average={self.average!r}"
        return f"{len(self.shifts)} shifts, {how}" + ("" if self.size is None else f", size={self.size}")


def shift_averaged(
    model: nn.Module,
    shifts: int | Sequence[tuple[float, float]],
    *,
    kernel: str = "sinc",
    padding: str = "circular",
    size: int | tuple[int, int] | None = None,
    average: str = "logits",
) -> ShiftAveraged:
    """Wrap a network so that it averages its outputs over shifts of its input.

    The network is not copied: it stays the attribute ``model`` of the wrapper and shares its weights.

    Args:
        model: maps images ``(B, C, H, W)`` to logits ``(B, K)``, or to another output with one row per image.
        shifts: pairs (x, y) of pixels, x to the right and y down, whole or not; or a number n, for all ``n**2`` shifts
            by n whole pixels in a row around 0 along each axis (-4 to 3 for 8). On the torus n equal to the total
            stride of a network makes it exactly invariant to whole pixels.
        kernel: of shifts by fractions of a pixel, see `augkit.resample`; ``fourier`` needs circular padding and no
            ``size``. Whole pixels change no value.
        padding: what moves in at the border: ``circular``, ``zeros``, ``border`` or ``reflection``. With a ``size`` it
            matters only beyond the margin.
        size: side, or (H, W), of views that are cut from the center of larger images, so that content moves in at the
            border as when a camera moves.
        average: ``logits``, the mean of the outputs; or ``probabilities``, the logarithm of the mean softmax.

    Returns:
        The wrapper, in the mode of the network.

    Raises:
        InputTypeError: the model is not a module.
        InputError: there is no shift, or one is not two finite numbers; or a name or the size is not known.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 2, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> images = torch.rand(3, 1, 8, 8)
    >>> averaged = shift_averaged(net, 2)
    >>> bool((averaged(images) - averaged(images.roll((3, 1), (2, 3)))).abs().max() < 1e-6)
    True
    """
    check_network(model)
    check_names(kernel, padding)
    if average not in AVERAGES:
        raise unknown_name("average", average, AVERAGES)
    pairs = _pairs(shifts)
    if size is not None:
        size = as_size(size)
    if kernel == "fourier" and (padding != "circular" or size is not None):
        raise InputError("shift_averaged: kernel 'fourier' moves a torus; padding='circular' and no size")
    return ShiftAveraged(model, pairs, kernel, padding, size, average).train(model.training)


def _pairs(shifts: Any) -> tuple[tuple[float, float], ...]:
    if isinstance(shifts, SupportsIndex) and not isinstance(shifts, (bool, Tensor)):  # NumPy's integers too
        count = operator.index(shifts)
        if count < 1:
            raise InputError(f"shifts: expected at least 1, the whole pixels along each axis, got {count}")
        along = [float(value - count // 2) for value in range(count)]
        return tuple((x, y) for y in along for x in along)
    try:
        pairs = tuple((float(x), float(y)) for x, y in shifts)
    except (TypeError, ValueError):
        raise InputError(f"shifts: expected a number or pairs (x, y) in pixels, got {shifts!r:.80}") from None
    if not pairs or not all(math.isfinite(value) for pair in pairs for value in pair):
        raise InputError(f"shifts: expected at least one pair of finite numbers, got {shifts!r:.80}")
    return pairs
