"""Layers on maps smaller than their window, against numpy's padding and a plain loop."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from augkit.architectures import AdaptivePolyphaseSampling, BlurPool2d, LearnablePolyphaseSampling, MaxBlurPool2d
from augkit.architectures.aliasfree import FORMS, AliasFreeActivation, AliasFreeDownsample2d, IdealLowpass2d
from augkit.architectures.downsampling import DenseMaxPool2d
from augkit.architectures.harmonic import CenteredBlurPool2d
from augkit.architectures.padding import pad
from augkit.architectures.strided import Blur2d

SIDES = list(itertools.product((1, 2, 3, 4, 7), (1, 2, 5)))
NUMPY = {"zeros": "constant", "circular": "wrap", "reflect": "reflect", "replicate": "edge", "constant": "constant"}


def maps(height: int, width: int) -> Tensor:
    return torch.rand(2, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height * width))


def padded(values: np.ndarray, before: int, after: int, mode: str) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, 0), (before, after), (before, after)), mode=NUMPY[mode])


@pytest.mark.parametrize("mode", ["constant", "circular", "reflect", "replicate"])
def test_pads_longer_than_the_map_are_those_of_numpy(mode: str) -> None:
    for (height, width), (before, after) in itertools.product(SIDES, [(0, 1), (3, 2), (5, 9)]):
        given = maps(height, width)
        got = pad(given, (before, after, before, after), mode)
        np.testing.assert_array_equal(got.numpy(), padded(given.numpy(), before, after, mode))


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_blur_pools(size: int, mode: str) -> None:
    taps = np.array([math.comb(size - 1, k) for k in range(size)], float) / 2 ** (size - 1)
    for (height, width), stride in itertools.product(SIDES, (1, 2, 3)):
        given = maps(height, width)
        wide = padded(given.numpy(), (size - 1) // 2, size // 2, mode)
        expected = np.zeros((2, 3, -(-height // stride), -(-width // stride)))
        for y, x in np.ndindex(*expected.shape[2:]):
            window = wide[:, :, y * stride : y * stride + size, x * stride : x * stride + size]
            expected[:, :, y, x] = np.einsum("bcyx,y,x->bc", window, taps, taps)
        got = BlurPool2d(size=size, stride=stride, padding_mode=mode).double()(given)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_dense_maxima(size: int, mode: str) -> None:
    for height, width in SIDES:
        given = maps(height, width)
        wide = padded(given.numpy(), (size - 1) // 2, size // 2, mode)  # values are above 0, that of the padding
        expected = np.lib.stride_tricks.sliding_window_view(wide, (size, size), (2, 3)).max((-2, -1))
        np.testing.assert_array_equal(DenseMaxPool2d(size, mode)(given).numpy(), expected)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    **{f"max blur {mode}": lambda mode=mode: MaxBlurPool2d(3, padding_mode=mode) for mode in ("zeros", "reflect")},
    **{f"centered {mode}": lambda mode=mode: CenteredBlurPool2d(mode) for mode in ("zeros", "circular", "reflect")},
    **{f"Blur2d {mode}": lambda mode=mode: Blur2d(4, (2, 2), (2, 2), mode) for mode in ("circular", "reflect")},
    "aps": AdaptivePolyphaseSampling,
    "lps": lambda: LearnablePolyphaseSampling(3),
    "lps zeros": lambda: LearnablePolyphaseSampling(3, padding_mode="zeros"),
    "aliasfree": lambda: AliasFreeDownsample2d(2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_halved_maps_have_half_of_their_pixels_rounded_up(name: str) -> None:
    layer = LAYERS[name]().double()
    for height, width in SIDES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd sides, which end a guarantee
            out = layer(maps(height, width))
        assert out.shape == (2, 3, -(-height // 2), -(-width // 2))
        assert out.isfinite().all()


def test_constant_maps_stay_constant_however_small() -> None:
    for (height, width), mode in itertools.product(SIDES, ("circular", "reflect")):
        ones = torch.ones(1, 3, height, width, dtype=torch.float64)
        for layer in (BlurPool2d(size=5, padding_mode=mode), CenteredBlurPool2d(mode), Blur2d(7, (4, 4), (4, 4), mode)):
            out = layer.double()(ones)
            torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("form", FORMS)
def test_alias_free_layers(form: str) -> None:
    for height, width in SIDES:
        given = maps(height, width)
        for layer in (AliasFreeActivation(form), IdealLowpass2d(0.5)):
            out = layer(given)
            assert out.shape == given.shape
            assert out.isfinite().all()
