"""A small resampling by one backend against a float64 reference that shares no code with it, for `augkit doctor`.

`augkit.augment.backends.self_check` guards the Triton kernels at every kind of call; this checks that a backend works
at all on a machine: that its compiler runs, and that it gives the right numbers.
"""

from __future__ import annotations

import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends import general, installed, separable
from augkit.augment.backends.triton_call import How, Source

TOLERANCE = 1e-5  # of images in [0, 1]; float32 rounds coordinates of a few pixels to 1e-6
SIZE_IN, SIZE_OUT = (13, 10), (14, 12)
KERNEL, PADDING = "bilinear", "zeros"
Backend = Literal["separable", "general", "native", "cuda_triton"]


def available(device: torch.device) -> list[Backend]:
    """Return the backends that resample on a device, by what is installed."""
    names: list[Backend] = ["separable", "general"]
    if device.type == "cpu" and installed("numba"):
        names.append("native")
    if device.type == "cuda" and installed("triton"):
        names.append("cuda_triton")
    return names


def largest_difference(backend: Backend, device: torch.device) -> float:
    """Return the largest difference between a backend and the reference over two images; infinity if it is not used.

    ``separable`` is given shifts and factors alone, the others rotations too. Images are float32 in [0, 1].
    """
    images = torch.rand((2, 3, *SIZE_IN), generator=torch.Generator().manual_seed(0), dtype=torch.float32)
    one = torch.ones(2)
    matrix = geometry.axis_aligned(1.1 * one, torch.tensor([1.3, -2.4]), 1.2 * one, torch.tensor([-0.6, 0.8]))
    aligned = backend == "separable"
    if not aligned:
        matrix = geometry.compose(geometry.rotate(torch.tensor([25.0, -110.0]), SIZE_IN), matrix)
    out = _resampled(backend, images.to(device), matrix.to(device), aligned=aligned)
    if out is None:
        return math.inf
    return float((out.cpu().double() - bilinear(images.double(), matrix.double(), SIZE_OUT)).abs().max())


def bilinear(images: Tensor, matrix: Tensor, size: tuple[int, int]) -> Tensor:
    """Resample ``(B, C, H, W)`` by ``matrix`` ``(B, 3, 3)`` with zeros outside: the definition, pixel times pixel.

    Every output pixel is the sum over all input pixels of their values times ``max(0, 1 - |dx|) max(0, 1 - |dy|)``,
    where ``dx`` and ``dy`` are their distances from the pixel's source point.
    """
    y, x = torch.meshgrid(*(torch.arange(n, dtype=matrix.dtype) for n in size), indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # (3, P)
    sources = torch.linalg.inv(matrix) @ places
    height, width = images.shape[-2:]
    near_x, near_y = (
        (1 - (sources[:, axis, :, None] - torch.arange(n, dtype=matrix.dtype)).abs()).clamp_min(0)
        for axis, n in ((0, width), (1, height))
    )
    return torch.einsum("bchw,bph,bpw->bcp", images, near_y, near_x).unflatten(2, size)


def _resampled(backend: Backend, images: Tensor, matrix: Tensor, *, aligned: bool) -> Tensor | None:
    how = (matrix, SIZE_OUT, KERNEL, PADDING, 1.0)
    if backend == "separable":
        return separable.resample(images, *how, finite=True)
    if backend == "general":
        return general.resample(images, *how, finite=True, affine=True)
    if backend == "native":
        from augkit.augment.backends import native

        return native.resample(images, *how, dtype=torch.float32, gain=None, bias=None, axis_aligned=aligned)
    from augkit.augment.backends import self_check

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a return value of None reports the failure
        wanted = How(matrix, SIZE_OUT, KERNEL, PADDING, [1.0], torch.float32, None, None, aligned, True)
        return self_check.resample(Source.of(images), wanted)
