"""Numbers without a network: the half-life of a response curve, and what a kernel leaves of sharpness."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from augkit import geometry
from augkit.errors import InputError
from augkit.experiments.asking import PHASE, stream, unit
from augkit.resampling import resample


def half_life(
    lengths: Sequence[float] | np.ndarray,
    variability: np.ndarray,
    *,
    plateau: float | np.ndarray | None = None,
    tail: int = 3,
) -> np.ndarray:
    """The length of a shift at which a response curve first reaches half of its plateau, linear between points.

    A curve starts from 0 at length 0. It should have levelled off at its end: of one that still rises, half of what
    it has reached so far is taken.

    Args:
        lengths: ``(P,)`` pixels, rising.
        variability: ``(..., P)``, such as bootstrap replicates ``(R, P)``.
        plateau: ``(...)``; the mean of the last ``tail`` points when None.

    Returns:
        ``(...)`` pixels; NaN where half of the plateau is never reached, or the plateau is 0.

    >>> half_life([1, 2, 4, 8], np.array([0.1, 0.3, 0.4, 0.4]), tail=2).item()
    1.5
    """
    x, v = np.asarray(lengths, dtype=np.float64), np.asarray(variability, dtype=np.float64)
    if x.ndim != 1 or not len(x) or v.shape[-1:] != x.shape or x[0] < 0 or (np.diff(x) <= 0).any() or tail < 1:
        raise InputError(f"half_life: expected rising lengths (P,) and variability (..., P), got {x.shape}, {v.shape}")
    top = np.broadcast_to(v[..., -tail:].mean(-1) if plateau is None else plateau, v.shape[:-1])
    if x[0] > 0:
        x, v = np.append(0.0, x), np.concatenate([np.zeros((*v.shape[:-1], 1)), v], -1)
    half = top[..., None] / 2
    reached = (v >= half) & (half > 0)
    first = np.maximum(reached.argmax(-1), 1)[..., None]
    low, high = (np.take_along_axis(v, k, -1) for k in (first - 1, first))
    share = np.divide(half - low, high - low, out=np.zeros_like(low), where=high != low).clip(min=0)
    found = (x[first - 1] + share * (x[first] - x[first - 1]))[..., 0]
    return np.where(reached.any(-1), found, math.nan)


def pixel_sharpness(images: Tensor, kernel: str, *, draws: int = 4, seed: int = 0) -> np.ndarray:
    """The share of high-frequency energy that a shift by a random fraction of a pixel leaves: 1 is as sharp as before.

    High is above half Nyquist, a quarter of a cycle per pixel, in any direction. On the torus, in float64, so that
    it is the blur of the kernel alone. An image without such energy loses none.

    Args:
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        kernel: see `augkit.resample`; ``fourier`` loses nothing but a part of the Nyquist frequency of an even side.
        draws: shifts per image, uniform in [0, 1) along each axis.

    Returns:
        ``(N,)``, means over shifts.
    """
    pixels = unit(images).double()
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64) for side in images.shape[-2:])
    high = torch.hypot(rows[:, None], columns) > 0.25
    left = np.ones((len(images), draws))
    for n, image in enumerate(pixels.split(1)):
        before = _energy(image, high)
        if before > torch.finfo(image.dtype).eps * float(image.square().sum()):
            shifts = torch.from_numpy(stream(seed, PHASE, n).random((draws, 2)))
            moved = resample(image.expand(draws, -1, -1, -1), geometry.shift(shifts), kernel=kernel, padding="circular")
            left[n] = [_energy(each, high) / before for each in moved]
    return left.mean(1)


def _energy(images: Tensor, frequencies: Tensor) -> float:
    return float((torch.fft.fft2(images).abs().square() * frequencies).sum() / frequencies.numel())
