"""Resampling in float64 numpy, one output pixel after another: slow, and plain enough to be believed."""

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


def resample_any(
    images: Array, matrix: Array, size: tuple[int, int], kernel: str, padding: str, antialias: bool = True
) -> Array:
    """As `resample`, for any matrix: each output pixel traced back, and every tap around the point weighed by itself.

    Antialias stretches the kernel along each principal direction of the local map by the distance that one output
    pixel spans along it.
    """
    out = np.zeros((*images.shape[:2], *size))
    for b, inverse in enumerate(np.linalg.inv(matrix.astype(np.float64))):
        for v in range(size[0]):
            for u in range(size[1]):
                *numerator, depth = inverse @ [u, v, 1.0]
                place = np.array(numerator) / depth
                derivative = (inverse[:2, :2] - np.outer(place, inverse[2, :2])) / depth
                left, spans, _ = np.linalg.svd(derivative)
                spans = np.maximum(spans, 1.0) if antialias and kernel != "nearest" else np.ones(2)
                out[b, :, v, u] = _blended(images[b].astype(np.float64), place, left, spans, kernel, padding)
    return out


def _blended(image: Array, place: Array, directions: Array, spans: Array, kernel: str, padding: str) -> Array:
    if kernel == "nearest":
        columns, rows, weights = [math.floor(place[0] + 0.5)], [math.floor(place[1] + 0.5)], np.ones((1, 1))
    else:
        reach = HALF_WIDTH[kernel] * spans.max() * math.sqrt(2)  # the corner of a square, stretched
        columns, rows = (list(range(math.floor(at - reach), math.ceil(at + reach) + 1)) for at in place)
        away = np.stack(np.meshgrid(np.array(columns) - place[0], np.array(rows) - place[1]))
        across, along = np.einsum("ij,jyx->iyx", directions @ np.diag(1 / spans) @ directions.T, away)
        weights = kernel_value(kernel, across) * kernel_value(kernel, along)
    # Pixel after pixel of the axes, as in `axis_weights`, so that every padding is the plain one.
    of_column, of_row = (
        np.array([[float(padded(tap, n, padding) == k) for k in range(n)] for tap in taps])
        for taps, n in ((columns, image.shape[2]), (rows, image.shape[1]))
    )
    return np.einsum("cyx,yx->c", image, of_row.T @ (weights / weights.sum()) @ of_column)


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
