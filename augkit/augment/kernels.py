"""Interpolation kernels in one dimension, and the source of a pixel outside the image for each padding.

A kernel is a function of the distance in pixels, even, 1 at 0 and exactly 0 at every other integer, so that a
shift by whole pixels moves pixels and changes no value. Weights are normalized by their sum before use.

- ``bicubic`` is Keys 1981 with a = -0.5 (as Pillow; torch uses -0.75).
- ``lanczos3`` is the windowed sinc of Duchon 1979 with three lobes.
- ``sinc`` is a Kaiser-windowed sinc of 16 taps, beta 8: the most faithful kernel of finite support here.
- ``fourier`` is not among them: it is global (`augkit.fourier_shift`).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from augkit.core.errors import unknown_name

KAISER_BETA = 8.0


def _nearest(d: Tensor) -> Tensor:
    # A point has one tap, at most half a pixel away (midway, the pixel after it). The bound is wider than that half,
    # so that the tap counts when rounding puts it just beyond: a weight of 0 would be normalized to NaN.
    # The 0 times d keeps a gradient of 0 with respect to the position, instead of none.
    return (d.abs() < 1).to(d.dtype) + 0 * d


def _bilinear(d: Tensor) -> Tensor:
    return (1 - d.abs()).clamp(min=0)


def _bicubic(d: Tensor) -> Tensor:
    a, x = -0.5, d.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((x - 5) * x + 8) * x * a - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _sinc(d: Tensor) -> Tensor:
    # sin(pi d) through the remainder of d: exactly 0 at integers, which torch.sinc is not in float32.
    whole = torch.round(d)
    sign = 1 - 2 * torch.remainder(whole, 2)
    safe = torch.where(d == 0, torch.ones_like(d), d)
    return torch.where(d == 0, torch.ones_like(d), sign * torch.sin(math.pi * (d - whole)) / (math.pi * safe))


def _lanczos3(d: Tensor) -> Tensor:
    return torch.where(d.abs() < 3, _sinc(d) * _sinc(d / 3), torch.zeros_like(d))


def _kaiser_sinc(d: Tensor) -> Tensor:
    inside = d.abs() < 8
    # The clamp keeps the derivative of the square root finite outside the window.
    window = torch.special.i0(KAISER_BETA * torch.sqrt((1 - (d / 8) ** 2).clamp(min=1e-12)))
    # Filled on the device: a copy from the host would synchronize, and cannot be part of a CUDA graph.
    norm = torch.special.i0(torch.full((), KAISER_BETA, dtype=d.dtype, device=d.device))
    return torch.where(inside, _sinc(d) * window / norm, torch.zeros_like(d))


# `nearest` stops short of half a pixel: a point midway between two pixels takes the one after it, also when the
# rounding of a float32 matrix puts it a little before.
HALF_WIDTH = {"nearest": 0.5 - 1e-4, "bilinear": 1.0, "bicubic": 2.0, "lanczos3": 3.0, "sinc": 8.0}
FUNCTION: dict[str, Callable[[Tensor], Tensor]] = {
    "nearest": _nearest,
    "bilinear": _bilinear,
    "bicubic": _bicubic,
    "lanczos3": _lanczos3,
    "sinc": _kaiser_sinc,
}
KERNELS = (*FUNCTION, "fourier")
PADDINGS = ("zeros", "border", "reflection", "circular")


def check_names(kernel: str, padding: str) -> None:
    """Raise InputError, with the nearest known name, if the kernel or the padding is unknown."""
    if kernel not in KERNELS:
        raise unknown_name("kernel", kernel, KERNELS)
    if padding not in PADDINGS:
        raise unknown_name("padding", padding, PADDINGS)


def frequencies(size: int, like: Tensor, *, both: bool = False) -> Tensor:
    """Return the frequencies of an axis of ``size`` pixels in cycles per pixel, with the device and dtype of ``like``.

    They equal `torch.fft.rfftfreq`, or `torch.fft.fftfreq` with ``both``; these would bind a traced graph to one size.
    """
    k = torch.arange(size if both else size // 2 + 1, device=like.device)
    k = torch.remainder(k + size // 2, size) - size // 2 if both else k
    return k.to(like.dtype) / size


def padded_index(index: Tensor, size: int, padding: str) -> Tensor:
    """Return the pixel that replaces ``index`` in an axis of ``size``; for ``zeros`` the caller sets the weight to 0.

    ``reflection`` mirrors about the center of the border pixel, which is not repeated (numpy's ``reflect``,
    OpenCV's ``BORDER_REFLECT_101``).
    """
    if padding == "circular":
        return torch.remainder(index, size)
    if padding == "reflection" and size > 1:
        period = 2 * (size - 1)
        index = torch.remainder(index, period)
        return torch.minimum(index, period - index)
    return index.clamp(0, size - 1)
