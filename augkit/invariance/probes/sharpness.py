"""A probe that needs no network: the sharpness of images after resampling with a kernel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.resample import check_images, resample
from augkit.core.pixels import as_float
from augkit.core.random_streams import stream
from augkit.invariance.probes.views import PHASE


def pixel_sharpness(images: Tensor, kernel: str, *, draws: int = 4, seed: int = 0) -> np.ndarray:
    """Return the share of high-frequency energy that remains after a shift by a random fraction of a pixel.

    High frequencies are above half of Nyquist, a quarter of a cycle per pixel, in any direction. The shift is on the
    torus and in float64, so that the loss is the blur of the kernel only. The share is 1 for an image without such
    energy.

    Args:
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1].
        kernel: see `augkit.resample`; ``fourier`` loses nothing but a part of the Nyquist frequency of an even side.
        draws: shifts per image, uniform in [0, 1) along each axis.

    Returns:
        ``(N,)``, means over shifts.
    """
    check_images(images)
    pixels = as_float(images).double()
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
