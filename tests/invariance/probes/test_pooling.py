"""How much less a pooled map changes under a shift, against a loop in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from augkit.core.errors import InputError
from augkit.invariance.probes import pooling_change
from augkit.invariance.protocols import make_protocol

IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CIRCLE = make_protocol("circular", (8, 8), max_shift=4.0)


def network() -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))


def change(shift: tuple[int, int]) -> np.ndarray:
    """Log of the relative change of the pooled over that of the unpooled pixels, by hand."""
    out = []
    for image in IMAGES[:, 0].double().numpy():
        moved = np.roll(image, shift[::-1], (0, 1))
        pooled, after = (np.max(z.reshape(4, 2, 4, 2), axis=(1, 3)) for z in (image, moved))
        sizes = [np.linalg.norm(b - a) / np.linalg.norm(a) for a, b in ((image, moved), (pooled, after))]
        out.append(np.log(sizes[1] / sizes[0]))
    return np.array(out)


def test_one_shift_of_each_image_agrees_with_numpy() -> None:
    found = pooling_change(network(), IMAGES, CIRCLE, shift=1, draws=1, seed=3)
    shifts = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1) if max(abs(x), abs(y)) == 1]
    by_hand = np.stack([change(shift) for shift in shifts])
    assert (np.abs(by_hand - found).min(axis=0) < 1e-5).all()  # each is one of the eight shifts of a pixel


def test_a_blob_wider_than_the_window_changes_less_when_it_is_pooled() -> None:
    """A plateau keeps its maximum where it still covers the window; noise does not."""
    grid = torch.arange(32.0)
    blob = torch.exp(-((grid - 15.0) ** 2) / 40)
    images = (blob[:, None] * blob)[None, None].repeat(3, 1, 1, 1)
    circle = make_protocol("circular", (32, 32), max_shift=8.0)
    assert abs(pooling_change(network(), images, circle, shift=8).mean()) < 0.1
    white = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    near, far = (pooling_change(network(), white, circle, shift=shift).mean() for shift in (1, 8))
    assert near < far - 0.1


def test_results_do_not_depend_on_the_batch_and_need_a_pool_and_room() -> None:
    whole, parts = (pooling_change(network(), IMAGES, CIRCLE, batch_size=size) for size in (4, 3))
    np.testing.assert_allclose(whole, parts, rtol=1e-5)
    with pytest.raises(InputError, match="expected a network with an nn\\.MaxPool2d"):
        pooling_change(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), IMAGES, CIRCLE)
    with pytest.raises(InputError, match="max_shift"):
        pooling_change(network(), IMAGES, make_protocol("crop", (8, 8), max_shift=1.0), shift=3)
