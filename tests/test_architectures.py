"""Networks and downsampling: shapes, initial weights, and what commutes with which shift (judged on logits)."""

from __future__ import annotations

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
from torch import nn

import augkit
from augkit.architectures import DOWNSAMPLES, BlurPool2d, ResNet, downsample
from augkit.errors import InputError

NETWORKS = [("small_cnn", 8), ("resnet18", 4)]


def calibrated(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """The model in evaluation mode, with batch norm statistics of the images."""
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(images)
    return model.eval()


@pytest.mark.parametrize(("name", "width"), NETWORKS)
@pytest.mark.parametrize("method", DOWNSAMPLES)
@pytest.mark.parametrize("head", ["gap", "fc"])
@pytest.mark.parametrize("side", [28, 33, 40])
def test_logits_have_the_right_shape(name: str, width: int, method: str, head: str, side: int) -> None:
    model = augkit.build_model(name, 7, 2, downsample=method, head=head, width=width, input_size=side)
    assert model(torch.rand(3, 2, side, side)).shape == (3, 7)


@pytest.mark.parametrize(("name", "width"), NETWORKS)
def test_same_seed_gives_the_same_weights_whatever_the_downsampling(name: str, width: int) -> None:
    states = [
        dict(augkit.build_model(name, 5, 1, downsample=m, width=width, seed=3).named_parameters()) for m in DOWNSAMPLES
    ]
    for first, other in itertools.combinations(states, 2):
        assert first.keys() == other.keys()
        for key in first:
            assert torch.equal(first[key], other[key]), key
    reseeded = augkit.build_model(name, 5, 1, width=width, seed=4).state_dict()
    assert not torch.equal(reseeded["head.2.weight"], states[0]["head.2.weight"])


def test_initial_weights_have_the_variance_of_he_2015() -> None:
    model = ResNet(10, 3, width=32)
    augkit.architectures.networks.initialise(model, 0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 and parameter.numel() > 5000:
            fan_in = parameter[0].numel()
            assert parameter.var().item() == pytest.approx(2 / fan_in, rel=0.1), name


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


@pytest.mark.parametrize("method", DOWNSAMPLES)
def test_networks_are_invariant_to_shifts_by_their_total_stride_on_the_torus(method: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(16, 1, 32, 32)
    model = augkit.build_model("small_cnn", 5, 1, downsample=method, padding_mode="circular", width=8, seed=0)
    model = calibrated(model, images)
    logits = model(images)
    torch.testing.assert_close(model(images.roll((8, 16), (-2, -1))), logits, atol=1e-5, rtol=0)
    assert (model(images.roll(1, -1)) - logits).abs().max() > 1e-3


def test_blur_pool_moves_logits_less_than_stride() -> None:
    images = torch.rand(8, 1, 32, 32)
    moves = {}
    for method in DOWNSAMPLES:
        model = augkit.build_model("resnet18", 5, 1, downsample=method, padding_mode="circular", width=8, seed=0)
        model = calibrated(model, images)
        logits = model(images)
        moves[method] = ((model(images.roll(1, -1)) - logits).pow(2).mean() / logits.var()).item()
    assert moves["blurpool"] < 0.5 * moves["stride"]


def test_layers_pickle_and_copy() -> None:
    layer = BlurPool2d(2, size=3)
    maps = torch.rand(1, 2, 6, 6)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(maps), layer(maps))
    assert torch.equal(copy.deepcopy(layer)(maps), layer(maps))
    assert BlurPool2d(2).state_dict() == {}, "weights of networks without blur pooling still load"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "did you mean 'resnet18'"),
        ({"downsample": "blurpol"}, "did you mean 'blurpool'"),
        ({"head": "gab"}, "did you mean 'gap'"),
        ({"padding_mode": "circul"}, "did you mean 'circular'"),
        ({"head": "fc"}, "expected input_size"),
        ({"num_classes": 0}, "num_classes: expected at least 1"),
        ({"width": 0}, "width: expected at least 1"),
    ],
)
def test_bad_arguments_get_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        augkit.build_model(**{"name": "small_cnn", "num_classes": 3, **arguments})  # type: ignore[arg-type]


def test_bad_layers_get_one_line() -> None:
    with pytest.raises(InputError, match="size >= 2 and stride >= 1"):
        BlurPool2d(3, size=1)
    with pytest.raises(InputError, match="did you mean 'reflect'"):
        BlurPool2d(3, padding_mode="reflct")
    with pytest.raises(InputError, match="did you mean 'maxpool'"):
        downsample("maxpol", 3, "zeros")
