"""Probes for a study of claims about shifts: what a run and its measured variability do not tell.

Each is one plain function. Where it can, it gives one number per image ``(N,)``, float64 on the CPU, so that images
and training seeds can be resampled afterwards. All that is drawn is drawn per image, from the seed and the number
of the image: the batch size does not matter. Shifts are ``(x, y)`` in pixels, x to the right and y down.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from augkit.experiments.answers import diagonal_pixel, exactness, rotation_variability
from augkit.experiments.curves import half_life, pixel_sharpness
from augkit.experiments.layers import (
    LayerDecibels,
    LayerVariability,
    convolution_error,
    layer_loss,
    layer_variability,
)
from augkit.experiments.location import locate

PROBES: Mapping[str, Callable[..., Any]] = {
    probe.__name__: probe
    for probe in (
        convolution_error,
        layer_loss,
        exactness,
        half_life,
        diagonal_pixel,
        rotation_variability,
        locate,
        layer_variability,
        pixel_sharpness,
    )
}

__all__ = [
    "PROBES",
    "LayerDecibels",
    "LayerVariability",
    "convolution_error",
    "diagonal_pixel",
    "exactness",
    "half_life",
    "layer_loss",
    "layer_variability",
    "locate",
    "pixel_sharpness",
    "rotation_variability",
]
