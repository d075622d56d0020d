"""A probe of max pooling: whether a pooled map changes less under a shift than the map that is pooled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augkit.core.errors import InputError
from augkit.core.random_streams import stream
from augkit.invariance.probes.views import BATCH, LAYERS, Device, Normal, check_room, logits_of, still_and_moved
from augkit.invariance.protocols import Protocol


def pooling_change(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    protocol: Protocol,
    *,
    shift: int = 1,
    max_shift: int = 1,
    draws: int = 4,
    mean: Normal = None,
    std: Normal = None,
    device: Device = None,
    batch_size: int = BATCH,
    seed: int = 0,
) -> np.ndarray:
    """Return how much less the output of the first max pool changes under a shift than its input.

    The change of a map is ``|z(T x) - z(x)| / |z(x)|``, pixel by pixel, not following the shift. The result is the log
    of the pooled map's change over the unpooled one's: below 0 where pooling removes change, 0 where it does not.

    Args:
        model: gives logits ``(B, K)`` and has an ``nn.MaxPool2d``.
        shift: pixels; every shift has this length along one axis and at most this along the other.
        max_shift: room that the protocol must have, at least ``shift``.
        draws: shifts per image.
        images, protocol, mean, std, device, batch_size, seed: as in `exactness`.

    Returns:
        ``(N,)``, means over shifts.

    Raises:
        InputError: the network has no max pool, or the protocol no room for the shift.
    """
    pool = next((module for module in model.modules() if isinstance(module, nn.MaxPool2d)), None)
    if pool is None:
        raise InputError("pooling_change: expected a network with an nn.MaxPool2d, got one without")
    check_room(protocol, images, max(shift, max_shift))
    moves = np.stack([_moves(stream(seed, LAYERS, n), shift, draws) for n in range(len(images))])
    views = still_and_moved(protocol, moves)
    kept: list[tuple[Tensor, Tensor]] = []
    changes: list[np.ndarray] = []
    still: list[tuple[Tensor, Tensor]] = []

    def keep(_module: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
        kept.append((given[0].detach().double().flatten(1).cpu(), out.detach().double().flatten(1).cpu()))

    def after(view: int) -> None:
        maps = kept.pop()
        kept.clear()
        if view == 0:
            still[:] = [maps]
            return
        before, pooled = (
            (now - then).norm(dim=1) / then.norm(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
            for now, then in zip(maps, still[0], strict=True)
        )
        changes.append((pooled / before).log().numpy())

    handle = pool.register_forward_hook(keep)
    try:
        logits_of(model, images, views, mean, std, device, batch_size, after)
    finally:
        handle.remove()
    found = np.concatenate([changes[k : k + draws] for k in range(0, len(changes), draws)], axis=1)
    return np.asarray(found.mean(0))


def _moves(rng: np.random.Generator, shift: int, draws: int) -> np.ndarray:
    """Shifts ``(draws, 2)`` of the length ``shift`` along one axis, either way."""
    out = rng.integers(-shift, shift + 1, (draws, 2))
    out[np.arange(draws), rng.integers(0, 2, draws)] = shift * rng.choice([-1, 1], draws)
    return out
