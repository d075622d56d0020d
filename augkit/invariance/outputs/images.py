"""Images ``(B, C, H, W)`` with the channels of the input: autoencoders, restoration, super-resolution.

``psnr`` is ``10 log10(1 / mean square error)`` between ``T f(x)`` and ``f(T x)`` in the region that both views see, for
values in [0, 1]: what a network in a video would flicker by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from augkit.invariance.metrics import Means, Metric
from augkit.invariance.outputs.dense import DECIBELS, ERROR_BEFORE, RESOLUTION, DenseMeasure
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR


def _psnr(means: Means) -> Tensor:
    return -10 * torch.log10(means["square"].clamp_min(RESOLUTION**2))[..., 0]


ROWS = (
    EQUIVARIANCE_ERROR,
    Metric("psnr", "PSNR of the two views", "peak signal (1) to error between T f(x) and f(T x)", ("square",), _psnr,
           unit="dB", higher_is_better=True, low=-math.inf, high=math.inf),
    DECIBELS,
    ERROR_BEFORE,
)  # fmt: skip


class ImageMeasure(DenseMeasure):
    """Compares images."""

    rows = ROWS
    shape = "an image (B, C, H, W)"
