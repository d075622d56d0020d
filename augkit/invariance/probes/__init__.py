"""Measurements for studies of claims about shifts, in addition to the variability of a run.

A probe is a plain function. Where possible it returns one number per image ``(N,)``, float64 on the CPU, so that images
and training seeds can be resampled later. Random numbers are drawn per image, from the seed and the number of the
image, so the batch size does not matter. Shifts are ``(x, y)`` in pixels, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from augkit.invariance.probes.layers import (
    LayerDecibels,
    LayerVariability,
    convolution_error,
    layer_loss,
    layer_variability,
)
from augkit.invariance.probes.outputs import diagonal_pixel, exactness, rotation_variability
from augkit.invariance.probes.pooling import pooling_change
from augkit.invariance.probes.sharpness import pixel_sharpness

# By name, for claims: each accepts a network, images, a protocol and plain options.
PROBES: Mapping[str, Callable[..., Any]] = {
    probe.__name__: probe
    for probe in (
        convolution_error,
        layer_loss,
        exactness,
        diagonal_pixel,
        rotation_variability,
        layer_variability,
        pixel_sharpness,
        pooling_change,
    )
}

__all__ = [
    "PROBES",
    "LayerDecibels",
    "LayerVariability",
    "convolution_error",
    "diagonal_pixel",
    "exactness",
    "layer_loss",
    "layer_variability",
    "pixel_sharpness",
    "pooling_change",
    "rotation_variability",
]
