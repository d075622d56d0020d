"""Blur pooling: against a loop, and what commutes with which shift."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from augkit.architectures import BlurPool2d
from augkit.errors import InputError


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect"])
def test_blur_pool_agrees_with_a_loop(size: int, padding_mode: str) -> None:
    maps = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    layer = BlurPool2d(3, size=size, padding_mode=padding_mode).double()
    taps = np.array([1.0])
    for _ in range(size - 1):
        taps = np.convolve(taps, [1, 1])
    taps = np.outer(taps, taps) / taps.sum() ** 2
    before, after = (size - 1) // 2, size // 2
    mode = {"zeros": "constant", "circular": "wrap", "reflect": "reflect"}[padding_mode]
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (before, after), (before, after)), mode=mode)
    expected = np.zeros((2, 3, 5, 6))
    for i, j in np.ndindex(5, 6):
        expected[:, :, i, j] = (padded[:, :, 2 * i : 2 * i + size, 2 * j : 2 * j + size] * taps).sum((-2, -1))
    np.testing.assert_allclose(layer(maps).numpy(), expected, atol=1e-12)


def test_blur_pool_keeps_constants_and_commutes_with_its_stride_alone() -> None:
    layer = BlurPool2d(4, padding_mode="circular")
    assert torch.equal(layer(torch.full((1, 4, 8, 8), 0.7)), torch.full((1, 4, 4, 4), 0.7))
    maps = torch.rand(1, 4, 16, 16)
    torch.testing.assert_close(layer(maps.roll(2, -1)), layer(maps).roll(1, -1))
    assert (layer(maps.roll(1, -1)) - layer(maps)).abs().max() > 0.01


def test_layers_pickle_and_copy() -> None:
    layer = BlurPool2d(2, size=3)
    maps = torch.rand(1, 2, 6, 6)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(maps), layer(maps))
    assert torch.equal(copy.deepcopy(layer)(maps), layer(maps))
    assert BlurPool2d(2).state_dict() == {}, "weights of networks without blur pooling still load"


def test_bad_layers_get_one_line() -> None:
    with pytest.raises(InputError, match="size >= 2 and stride >= 1"):
        BlurPool2d(3, size=1)
    with pytest.raises(InputError, match="did you mean 'reflect'"):
        BlurPool2d(3, padding_mode="reflct")
