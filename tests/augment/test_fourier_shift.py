"""The exact shift on a torus, against a sum of waves and the laws of Fourier."""

from __future__ import annotations

import numpy as np
import pytest
import reference
import torch

from augkit.augment import geometry
from augkit.augment.resample import fourier_shift, resample


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (4, 6), (5, 7), (6, 5), (9, 8)])
@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (-1.3, 2.7), (3, -2), (101.25, -0.1)])
def test_fourier_shift_agrees_with_a_sum_of_waves(size: tuple[int, int], x: float, y: float) -> None:
    image = torch.rand(1, 1, *size, dtype=torch.float64)
    rows = np.apply_along_axis(reference.fourier_shift, 1, image[0, 0].numpy(), x)
    expected = torch.from_numpy(np.apply_along_axis(reference.fourier_shift, 0, rows, y))
    actual = fourier_shift(image, torch.tensor([x, y], dtype=torch.float64))
    torch.testing.assert_close(actual[0, 0], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        resample(
            image, geometry.shift(torch.tensor([[x, y]], dtype=torch.float64)), kernel="fourier", padding="circular"
        ),
        actual,
    )
    single = fourier_shift(image.float(), torch.tensor([x, y], dtype=torch.float64))
    torch.testing.assert_close(single[0, 0].double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_fourier_shift_by_whole_pixels_is_roll(size: tuple[int, int]) -> None:
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    moves = torch.tensor([[2, -3], [-1, 11]])
    expected = torch.stack([i.roll((int(y), int(x)), (-2, -1)) for i, (x, y) in zip(images, moves, strict=True)])
    torch.testing.assert_close(fourier_shift(images, moves), expected, rtol=0, atol=1e-12)
    coarse = (images * 255).to(torch.uint8)
    rolled = (expected * 255).to(torch.uint8)
    assert torch.equal(fourier_shift(coarse, moves), rolled)


def test_fourier_shift_keeps_the_energy_below_nyquist() -> None:
    images = torch.randn(1, 1, 8, 10, dtype=torch.float64)
    moved = fourier_shift(images, [0.37, -1.21])
    before, after = (torch.fft.fft2(x).abs() for x in (images, moved))
    below = torch.ones(8, 10, dtype=torch.bool)
    below[4], below[:, 5] = False, False
    torch.testing.assert_close(after[..., below], before[..., below])
    assert (after[..., ~below] < before[..., ~below]).all()


def test_fourier_shift_at_nyquist_follows_the_cosine() -> None:
    stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 1, 3, 8).double()
    for x in (0.25, 0.5, 1.0):
        expected = torch.tensor(np.cos(np.pi * x)) * stripes
        torch.testing.assert_close(fourier_shift(stripes, [x, 0.0]), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pixels", [(0.3, -0.7), (0.0, 0.0), (0.0, 1.5)])
def test_gradients_of_the_fourier_shift(pixels: tuple[float, float]) -> None:
    images = torch.rand(2, 1, 4, 5, dtype=torch.float64, requires_grad=True)
    shifts = torch.tensor([pixels, (1.2, 0.4)], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(fourier_shift, (images, shifts), fast_mode=True)
