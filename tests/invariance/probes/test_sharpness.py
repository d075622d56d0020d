"""The sharpness that a kernel leaves, against its response in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from augkit.core import random_streams
from augkit.invariance import probes
from augkit.invariance.probes import views

# Sharpness


def gain(kernel: str, fraction: float, frequency: np.ndarray) -> np.ndarray:
    """Squared magnitude response of a shift in one dimension."""
    tap = np.arange(-3, 5) - fraction
    if kernel == "bilinear":
        return 1 - 4 * fraction * (1 - fraction) * np.sin(np.pi * frequency) ** 2
    d = np.abs(tap)
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weight = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    if kernel == "lanczos3":
        weight = np.where(d < 3, np.sinc(d) * np.sinc(d / 3), 0.0)
        weight = weight / weight.sum()
    return np.abs(np.exp(-2j * np.pi * frequency[:, None] * np.arange(-3, 5)) @ weight) ** 2


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos3"])
def test_pixel_sharpness_of_a_point_is_the_response_of_the_kernel(kernel: str) -> None:
    """A point has all frequencies alike."""
    image = torch.zeros(2, 1, 15, 12)
    image[0, 0, 3, 4] = image[1, 0, 9, 1] = 0.7
    found = probes.pixel_sharpness(image, kernel, draws=3, seed=2)
    fy, fx = np.fft.fftfreq(15), np.fft.fftfreq(12)
    high = np.hypot(fy[:, None], fx) > 0.25
    for n in range(2):
        shifts = random_streams.stream(2, views.PHASE, n).random((3, 2))
        left = [(gain(kernel, y, fy)[:, None] * gain(kernel, x, fx))[high].mean() for x, y in shifts]
        assert found[n] == pytest.approx(np.mean(left), rel=1e-6)


def test_pixel_sharpness_orders_the_kernels_and_fourier_loses_nothing() -> None:
    images = torch.rand(8, 1, 21, 21)
    names = ["bilinear", "bicubic", "lanczos3", "fourier"]
    means = [probes.pixel_sharpness(images, name, draws=8).mean() for name in names]
    assert means == sorted(means)
    assert means[0] < 0.4
    np.testing.assert_allclose(probes.pixel_sharpness(images, "fourier"), 1, rtol=1e-9)
    assert (probes.pixel_sharpness(torch.full((2, 1, 8, 8), 0.3), "bilinear") == 1).all()
    np.testing.assert_array_equal(
        probes.pixel_sharpness(images, "bicubic", seed=3)[:5],
        probes.pixel_sharpness(images[:5], "bicubic", seed=3),
    )
