"""Mixup and cutmix: laws, a slow reference, and the distribution of what is drawn."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from augkit.train.mixup import draw, mix, mix_batch

SETTINGS = [(0.4, 0.0), (0.0, 1.0), (0.2, 1.0)]


def slow(
    images: np.ndarray, targets: np.ndarray, share: np.ndarray, window: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    mixed, wanted = images.copy(), targets.copy()
    for i in range(len(images)):
        left, top, right, bottom = window[i]
        if right > 0:
            mixed[i][:, top:bottom, left:right] = images[i - 1][:, top:bottom, left:right]
        else:
            mixed[i] = share[i] * images[i] + (1 - share[i]) * images[i - 1]
        wanted[i] = share[i] * targets[i] + (1 - share[i]) * targets[i - 1]
    return mixed, wanted


@given(setting=st.sampled_from(SETTINGS), seed=st.integers(0, 99), height=st.integers(1, 9), width=st.integers(1, 9))
def test_equals_a_loop_over_images(setting: tuple[float, float], seed: int, height: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(5, 2, height, width, generator=generator, dtype=torch.float64)
    targets = torch.eye(5, dtype=torch.float64)
    before = images.clone()
    share, window = draw(*setting, (5, height, width), [seed])
    mixed, wanted = mix(images, targets, share, window)
    expected = slow(images.numpy(), targets.numpy(), share.double().numpy(), window.numpy())
    np.testing.assert_allclose(mixed.numpy(), expected[0], atol=1e-12)
    np.testing.assert_allclose(wanted.numpy(), expected[1], atol=1e-12)
    assert torch.equal(images, before)
    torch.testing.assert_close(wanted.sum(1), torch.ones(5, dtype=torch.float64))


def test_share_of_a_window_is_the_area_that_it_leaves() -> None:
    share, window = draw(0.0, 1.0, (4000, 12, 20), [0])
    area = (window[:, 2] - window[:, 0]) * (window[:, 3] - window[:, 1])
    torch.testing.assert_close(share, 1 - area / 240)
    assert bool((window >= 0).all())
    assert int(window[:, 2].max()) <= 20
    assert int(window[:, 3].max()) <= 12


def test_mixup_draws_from_beta() -> None:
    share, window = draw(0.4, 0.0, (4000, 8, 8), [1])
    assert int(window.abs().sum()) == 0
    assert scipy.stats.kstest(share.numpy(), "beta", args=(0.4, 0.4)).pvalue > 0.01


def test_both_take_half_each_and_samples_differ() -> None:
    _, window = draw(0.2, 1.0, (4000, 32, 32), [2])
    pasted = int((window[:, 2] > 0).sum())
    assert 1750 < pasted < 2100  # a few windows are too small to paste a pixel
    assert len(window.unique(dim=0)) > 1000


def test_same_seed_same_draw() -> None:
    for a, b in zip(draw(0.2, 1.0, (8, 8, 8), [3, 1]), draw(0.2, 1.0, (8, 8, 8), [3, 1]), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(draw(0.2, 0.0, (8, 8, 8), [3, 1])[0], draw(0.2, 0.0, (8, 8, 8), [3, 2])[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keeps_dtype_and_memory_of_whole_samples(dtype: torch.dtype) -> None:
    images = torch.rand(3, 1, 4, 4).to(dtype)
    same, _ = mix(images, torch.eye(3), torch.ones(3), torch.zeros(3, 4, dtype=torch.int64))
    assert same.dtype == dtype
    assert torch.equal(same, images)


def test_a_cutmix_window_covers_the_share_that_is_drawn() -> None:
    """Away from the border: half sides of sqrt(1 - lam) / 2, so that its area is 1 - lam, which is uniform."""
    size = 2_000
    share, window = draw(0.0, 1.0, (20_000, size, 2 * size), [4])
    left, top, right, bottom = window.double().unbind(1)
    inside = (left > 0) & (top > 0) & (right < 2 * size) & (bottom < size)
    width, height = right - left, bottom - top
    assert torch.allclose(width[inside], 2 * height[inside], atol=3)  # the shape of the image
    assert float(width[inside].max()) > 1.6 * size  # a window of nearly the whole image fits
    assert torch.allclose(share.double(), 1 - width * height / (2 * size * size), atol=1e-6)

    # Along x a center c and a half side h, both in widths, are in [0, 1]: E[area] by scipy's quadrature.
    def covered(h: float) -> float:
        return float(scipy.integrate.quad(lambda c: min(c + h, 1) - max(c - h, 0), 0, 1, points=sorted({h, 1 - h}))[0])

    expected = scipy.integrate.quad(lambda lam: covered(np.sqrt(1 - lam) / 2) ** 2, 0, 1)[0]
    assert float((1 - share.double()).mean()) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_off_is_never_drawn(setting: tuple[float, float]) -> None:
    windows = (draw(*setting, (400, 50, 50), [1])[1][:, 2] > 0).double().mean()
    assert float(windows) == pytest.approx({(0.4, 0.0): 0, (0.0, 1.0): 1, (0.2, 1.0): 0.5}[setting], abs=0.08)


def test_a_batch_is_mixed_with_labels_as_numbers_or_as_shares() -> None:
    images, labels = torch.rand(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    seed = [3, 1, 4]
    mixed, targets = mix_batch(images, labels, 3, 0.8, 0.0, seed)
    assert targets.shape == (6, 3)
    torch.testing.assert_close(targets.sum(1), torch.ones(6))
    soft = torch.nn.functional.one_hot(labels, 3).float()
    again, from_shares = mix_batch(images, soft, 3, 0.8, 0.0, seed)
    assert torch.equal(mixed, again)
    torch.testing.assert_close(targets, from_shares)
    assert not torch.equal(targets, soft)
