"""Axis-aligned resampling in float64 numpy, one output pixel after another: slow, and plain enough to be believed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
HALF_WIDTH = {"bilinear": 1, "bicubic": 2, "lanczos3": 3, "sinc": 8}


def kernel_value(kernel: str, d: Array) -> Array:
    """The kernel at distances ``d`` in pixels."""
    x = np.abs(d)
    if kernel == "bilinear":
        return np.where(x < 1, 1 - x, 0)
    if kernel == "bicubic":  # Keys 1981, equation 4, with a = -1/2
        near = 1.5 * x**3 - 2.5 * x**2 + 1
        far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
        return np.where(x <= 1, near, np.where(x < 2, far, 0))
    if kernel == "lanczos3":
        return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)
    assert kernel == "sinc"
    window = np.i0(8 * np.sqrt(np.clip(1 - (x / 8) ** 2, 0, None))) / np.i0(8)
    return np.where(x < 8, np.sinc(x) * window, 0)


def padded(index: int, size: int, padding: str) -> int | None:
    """The pixel that stands in for ``index``; None where there is none."""
    if 0 <= index < size:
        return index
    if padding == "zeros":
        return None
    if padding == "border":
        return 0 if index < 0 else size - 1
    if padding == "circular":
        return index % size
    assert padding == "reflection"
    if size == 1:
        return 0
    # One mirror after the other, as a ray would go.
    return padded(-index if index < 0 else 2 * (size - 1) - index, size, padding)


def axis_weights(
    scale: float, offset: float, size_in: int, size_out: int, kernel: str, padding: str, antialias: bool
) -> Array:
    """``(size_out, size_in)``: how much of each input pixel stands in each output pixel."""
    weights = np.zeros((size_out, size_in))
    for u in range(size_out):
        x = (u - offset) / scale
        if kernel == "nearest":
            taps, values = [math.floor(x + 0.5)], np.ones(1)
        else:
            stretch = max(1.0, 1 / abs(scale)) if antialias else 1.0
            reach = HALF_WIDTH[kernel] * stretch
            taps = list(range(math.floor(x - reach), math.ceil(x + reach) + 1))
            values = kernel_value(kernel, (np.array(taps) - x) / stretch)
        for tap, value in zip(taps, values / values.sum(), strict=True):
            pixel = padded(tap, size_in, padding)
            if pixel is not None:
                weights[u, pixel] += value
    return weights


def resample(
    images: Array, matrix: Array, size: tuple[int, int], kernel: str, padding: str, antialias: bool = True
) -> Array:
    """``images`` ``(B, C, H, W)`` through ``matrix`` ``(B, 3, 3)``, which maps input to output coordinates."""
    out = []
    for image, m in zip(images.astype(np.float64), matrix.astype(np.float64), strict=True):
        rows = axis_weights(m[1, 1], m[1, 2], image.shape[1], size[0], kernel, padding, antialias)
        columns = axis_weights(m[0, 0], m[0, 2], image.shape[2], size[1], kernel, padding, antialias)
        out.append(np.stack([rows @ channel @ columns.T for channel in image]))
    return np.stack(out)


def resample_affine(
    images: Array, matrix: Array, size: tuple[int, int], kernel: str, padding: str, antialias: bool = True
) -> Array:
    """As `resample`, for any affine matrix: each output pixel traced back, a square of taps around the point.

    Antialias stretches the kernel along an input axis by the distance that one output pixel spans on it.
    """
    out = np.zeros((*images.shape[:2], *size))
    for b, m in enumerate(np.linalg.inv(matrix.astype(np.float64))):
        for v in range(size[0]):
            for u in range(size[1]):
                point = m @ [u, v, 1.0]
                x, y = (
                    _tap_weights(point[k], np.hypot(*m[k, :2]), images.shape[3 - k], kernel, padding, antialias)
                    for k in (0, 1)
                )
                out[b, :, v, u] = np.einsum("cyx,y,x->c", images[b].astype(np.float64), y, x)
    return out


def _tap_weights(at: float, span: float, length: int, kernel: str, padding: str, antialias: bool) -> Array:
    # The axis scaled by the span, and shifted so that output pixel 0 looks at `at`, has these very weights.
    scale = 1 / max(1.0, span) if antialias else 1.0
    return axis_weights(scale, -at * scale, length, 1, kernel, padding, antialias)[0]


def fourier_shift(signal: Array, shift: float) -> Array:
    """A signal on a circle as the sum of its waves, each moved by ``shift``; ``cos(pi * shift)`` at Nyquist."""
    n = len(signal)
    places = np.arange(n)
    out = np.zeros(n)
    for k in range(-(n // 2), (n - 1) // 2 + 1):
        coefficient = np.sum(signal * np.exp(-2j * np.pi * k * places / n)) / n
        turn = np.cos(np.pi * shift) if 2 * k == -n else np.exp(-2j * np.pi * k * shift / n)
        out += (coefficient * turn * np.exp(2j * np.pi * k * places / n)).real
    return out
