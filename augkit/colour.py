"""Kornia's ops after the geometry of `augkit.Augment`: what they see, and how strength reaches them.

They see images in [0, 1] after the one resampling and before ``normalize``. Interpolation can overshoot; what
they see is clamped, because colour spaces end at 0 and at 1. They have no strength of their own: a sample of
strength s is coloured with probability s (times the op's own ``p``), so that 0 changes no bit and 1 always does.

Kornia 0.9 draws from torch's global state alone and ignores a generator in silence
(https://github.com/kornia/kornia/issues/4427); with one, the global state is seeded from it for the time of the ops
and then put back. Reading that seed waits for the device.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from augkit.errors import InputError


def is_colour(op: Any) -> bool:
    """Whether ``op`` is one of Kornia's augmentations that leave the geometry alone, such as ``ColorJitter``."""
    from kornia.augmentation import IntensityAugmentationBase2D

    return isinstance(op, IntensityAugmentationBase2D)


def is_kornia(op: Any) -> bool:
    """Whether ``op`` is any of Kornia's augmentations of images, those that move pixels included."""
    from kornia.augmentation import AugmentationBase2D

    return isinstance(op, AugmentationBase2D)


def apply_colour(
    ops: Sequence[nn.Module], images: Tensor, strength: float | Tensor, generator: torch.Generator | None
) -> Tensor:
    """Floating ``images`` ``(B, C, H, W)`` in [0, 1] through ``ops``; strength is a number or ``(B,)``."""
    with _seeded(generator, images.device):
        always = not isinstance(strength, Tensor) and strength == 1
        coin = None if always else torch.rand(len(images), device=images.device) < strength
        coloured = images.clamp(0, 1)
        for op in ops:
            coloured = _applied(op, coloured)
    return coloured if coin is None else torch.where(coin[:, None, None, None], coloured, images)


def _applied(op: nn.Module, images: Tensor) -> Tensor:
    try:
        out: Tensor = op(images)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Kornia checks many arguments only here, with errors of its own
        reason, shape = " ".join(str(error).split())[:160], tuple(images.shape)
        raise InputError(f"Augment: Kornia's {type(op).__name__} fails on images {shape} ({reason})") from error
    return out


@contextlib.contextmanager
def _seeded(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    if generator is None:
        yield
        return
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
