"""Probes of the output of a network: under whole shifts, one pixel along the diagonal, and rotations."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from augkit.augment import geometry
from augkit.augment.resample import check_images, resample
from augkit.core.precision import moved_to
from augkit.core.random_streams import stream
from augkit.invariance.metrics import jensen_shannon, top1_change
from augkit.invariance.probes.views import (
    ANGLE,
    BATCH,
    DIAGONAL,
    SHIFT,
    Device,
    Normal,
    View,
    check_room,
    logits_of,
    moving,
    still_and_moved,
    whole_shifts,
)
from augkit.invariance.protocols import Protocol


def exactness(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    protocol: Protocol,
    *,
    max_shift: int = 8,
    draws: int = 16,
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> np.ndarray:
    """Return how far whole shifts move the logits: the largest change over the standard deviation of the logits.

    On the torus an exactly invariant network has only rounding errors; the same network under ``embed`` or ``crop``
    shows the effect of real borders. Pixels are copied and not resampled. The standard deviation is over classes and
    all unshifted images. Where it is 0, the result is 0 without a change and infinite otherwise.

    Args:
        model: gives logits ``(B, K)``; the precision is that of its weights.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        protocol: see `augkit.invariance.make_protocol`.
        max_shift: pixels; ``draws`` distinct shifts other than 0 per image within it, or all if there are fewer.
        mean, std, device, batch_size: as in `augkit.measure_invariance`.
        seed: seed of the shifts.

    Returns:
        ``(N,)``, the largest change over shifts and classes.
    """
    check_room(protocol, images, max_shift)
    moves = whole_shifts(len(images), draws, -max_shift, max_shift, [seed, SHIFT], still=False)
    views = still_and_moved(protocol, moves)
    logits = logits_of(model, images, views, mean, std, device, batch_size)
    change = (logits[:, 1:] - logits[:, :1]).abs().amax((1, 2)).numpy()
    scale = float(logits[:, 0].std(correction=0))
    return np.divide(change, scale, out=np.where(change > 0, math.inf, 0.0), where=scale > 0)


def diagonal_pixel(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    protocol: Protocol,
    *,
    max_shift: int = 8,
    placements: int = 8,
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> np.ndarray:
    """Return how often a shift by one pixel along the diagonal, ``(x + 1, y + 1)``, changes the top-1 answer.

    P(top-1 change) of Azulay & Weiss 2019 (https://jmlr.org/papers/v20/19-519.html). Pixels are copied.

    Args:
        max_shift: pixels; both places of a pair lie within it.
        placements: distinct pairs per image, drawn from ``seed``; all if there are fewer.
        model, images, protocol, mean, std, device, batch_size: as in `exactness`.

    Returns:
        ``(N,)``, the share of pairs whose answers differ.
    """
    check_room(protocol, images, max_shift)
    moves = whole_shifts(len(images), placements, -max_shift, max_shift - 1, [seed, DIAGONAL])
    views = [moving(protocol, shifts + step) for shifts in moves.swapaxes(0, 1) for step in (0, 1)]
    logits = logits_of(model, images, views, mean, std, device, batch_size)
    changed: np.ndarray = top1_change(logits[:, 0::2], logits[:, 1::2]).mean(1).numpy()
    return changed


def rotation_probabilities(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    *,
    max_degrees: float = 180.0,
    draws: int = 4,
    background: float = 0.0,
    kernel: str = "lanczos3",
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> Tensor:
    """Return class probabilities of each image and of the image rotated about its center.

    Before the rotation, pixels outside the inscribed disc are set to ``background``, so that no corner reveals the
    angle. The edge of the disc is two pixels wide, because a sharp edge would ring.

    Args:
        max_degrees: ``draws`` angles per image are uniform in ``[-max_degrees, max_degrees]``.
        background: gray value in [0, 1].
        kernel: interpolation kernel, see `augkit.resample`.
        model, images, mean, std, device, batch_size, seed: as in `exactness`.

    Returns:
        Probabilities ``(N, 1 + draws, K)``; those of the image without rotation come first.
    """
    check_images(images)
    size = (images.shape[-2], images.shape[-1])
    degrees = np.stack([stream(seed, ANGLE, n).uniform(-max_degrees, max_degrees, draws) for n in range(len(images))])

    def view(k: int | None) -> View:
        def rotated(pixels: Tensor, part: slice) -> Tensor:
            masked = (pixels - background) * disc(size).to(pixels)
            if k is not None:
                # The angle and the matrix in float64: the rounding of float32 would add a rotation.
                matrix = moved_to(geometry.rotate(torch.from_numpy(degrees[part, k]), size), pixels.device)
                masked = resample(masked, matrix, kernel=kernel, padding="zeros")
            return masked + background

        return rotated

    views = [view(None), *(view(k) for k in range(draws))]
    return logits_of(model, images, views, mean, std, device, batch_size).softmax(-1)


def rotation_variability(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    *,
    max_degrees: float = 180.0,
    draws: int = 4,
    background: float = 0.0,
    kernel: str = "lanczos3",
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> np.ndarray:
    """Return the Jensen-Shannon divergence in bits of the answers to each image and to its rotations about its center.

    Args:
        model, images, max_degrees, draws, background, kernel, mean, std, device, batch_size, seed: as in
            `rotation_probabilities`.

    Returns:
        ``(N,)``, means over angles.
    """
    p = rotation_probabilities(
        model,
        images,
        max_degrees=max_degrees,
        draws=draws,
        background=background,
        kernel=kernel,
        mean=mean,
        std=std,
        device=device,
        batch_size=batch_size,
        seed=seed,
    )
    bits: np.ndarray = jensen_shannon(p[:, :1].expand_as(p[:, 1:]), p[:, 1:]).mean(1).numpy()
    return bits


def disc(size: geometry.Size) -> Tensor:
    """Return ``(H, W)`` in float64: 1 within the disc inscribed in ``size``, 0 outside, a cosine edge of two pixels."""
    (y, x) = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in size)
    inside = (min(size) / 2 - torch.hypot(y[:, None], x)).clamp(0, 2) / 2
    return (1 - torch.cos(math.pi * inside)) / 2
