"""Backends that resample, with one signature, and the function that chooses one."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from augkit.augment.backends.values import recorded

# Dtypes that the fused backends support. Torch cannot record them, and a subclass of Tensor needs torch's functions.
FUSED = (torch.float32, torch.float16, torch.bfloat16, torch.uint8)


def choose(images: Tensor, matrix: Tensor, *, axis_aligned: bool) -> str:
    """Return the name of the module of `augkit.augment.backends` that resamples ``images`` by ``matrix``.

    ======================  =========  ==============================================================
    backend                 matrices   when
    ======================  =========  ==============================================================
    ``native``              any        CPU, not float64, no gradient, not traced; numba installed
    ``cuda_triton``         any        CUDA, not float64, no gradient, not traced; Triton installed
    ``separable``           aligned    everything else; torch, differentiable, every device
    ``general``             any        everything else; torch, differentiable, every device
    ======================  =========  ==============================================================
    """
    fused = images.dtype in FUSED and type(images) is Tensor and not recorded(images, matrix)
    if fused and images.device.type == "cpu" and installed("numba"):
        return "native"
    if fused and images.device.type == "cuda" and installed("triton"):
        return "cuda_triton"
    return "separable" if axis_aligned else "general"


@cache
def installed(package: str) -> bool:
    """Whether ``package`` can be imported, without importing it."""
    return find_spec(package) is not None
