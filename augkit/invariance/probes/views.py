"""Shared parts of probes: views of images under displacements drawn per image, and the logits of these views."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from augkit.augment.resample import check_images
from augkit.core.errors import InputError
from augkit.core.pixels import as_float
from augkit.core.random_streams import stream
from augkit.invariance.network import Network, batch_slices, check_finite
from augkit.invariance.protocols import Protocol, Scene

SHIFT, DIAGONAL, ANGLE, PHASE, LAYERS = range(5)  # purposes of the streams of random numbers
BATCH = 250
Normal = Sequence[float] | None
Device = torch.device | str | None
# Maps images in [0, 1] on the device, and their numbers, to inputs of the network.
View = Callable[[Tensor, slice], Tensor]


def logits_of(
    model: nn.Module,
    images: Tensor,
    views: Sequence[View],
    mean: Normal,
    std: Normal,
    device: Device,
    batch_size: int,
    after: Callable[[int], None] = lambda view: None,
) -> Tensor:
    """Return the logits of V views, ``(N, V, K)`` in float64 on the CPU.

    ``after`` is called after each forward pass with the number of the view.
    """
    check_images(images)
    network = Network(model, mean=mean, std=std, device=device)
    network.fit_channels(images.shape[1])
    rows = []
    with network.measuring():
        for part in batch_slices(len(images), batch_size, None):
            pixels = as_float(images[part]).to(network.device, network.dtype)
            seen = []
            for number, view in enumerate(views):
                seen.append(network(view(pixels, part)))
                after(number)
            rows.append(check_finite(torch.stack(seen, dim=1), "logits", part.start))
    if not rows:
        raise InputError("images: expected at least 1, got none")
    return torch.cat(rows)


def moving(protocol: Protocol, shifts: np.ndarray) -> View:
    """Return a view that moves each image by its own whole shift ``(N, 2)``; pixels are copied."""

    def moved(pixels: Tensor, part: slice) -> Tensor:
        each = zip(pixels.split(1), shifts[part].tolist(), strict=True)
        return torch.cat([Scene(protocol, image).shift_whole(x, y) for image, (x, y) in each])

    return moved


def still_and_moved(protocol: Protocol, moves: np.ndarray) -> list[View]:
    """Return the view without a shift, then one for each of the whole shifts ``(N, draws, 2)`` of an image."""
    return [moving(protocol, shifts) for shifts in (0 * moves[:, 0], *moves.swapaxes(0, 1))]


def whole_shifts(
    count: int, draws: int, low: int, high: int, names: Sequence[int], *, still: bool = True
) -> np.ndarray:
    """Draw whole shifts ``(count, draws, 2)`` from ``low`` to ``high`` along each axis, distinct within an image.

    (0, 0) is excluded unless ``still``. There are fewer than ``draws`` where no more exist.
    """
    axis = np.arange(low, high + 1)
    places = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    places = places if still else places[places.any(1)]
    if draws < 1 or not len(places):
        raise InputError(
            f"expected at least 1 draw and shifts of at least 1 pixel, got {draws} draws of {low} to {high}"
        )
    size = min(draws, len(places))
    chosen = [stream(*names, n).choice(len(places), size, replace=False) for n in range(count)]
    return places[np.array(chosen, dtype=np.int64).reshape(count, size)]


def check_room(protocol: Protocol, images: Tensor, max_shift: int) -> None:
    """Raise InputError unless the margin of the protocol allows shifts of ``max_shift`` pixels for these images."""
    check_images(images)
    if tuple(images.shape[-2:]) != protocol.image_size:
        raise InputError(f"protocol: made for images of {protocol.image_size} pixels, got {tuple(images.shape[-2:])}")
    if max_shift > protocol.margin:
        raise InputError(f"max_shift: the protocol has a margin of {protocol.margin:g} pixels, got {max_shift}")
