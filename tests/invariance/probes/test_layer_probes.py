"""Probes of layers, against numpy loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from probed import pictures, small
from torch import nn

from augkit.architectures import build_model
from augkit.core import random_streams
from augkit.core.errors import InputError
from augkit.invariance import make_protocol, probes
from augkit.invariance.probes import views

# Convolution


def numpy_convolution(image: np.ndarray, weight: np.ndarray, mode: str) -> np.ndarray:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode={"circular": "wrap", "zeros": "constant"}[mode])
    height, width = image.shape[1:]
    out = np.zeros((len(weight), height, width))
    for dy in range(3):
        for dx in range(3):
            out += np.einsum("oc,chw->ohw", weight[:, :, dy, dx], padded[:, dy : dy + height, dx : dx + width])
    return out


@pytest.mark.parametrize("mode", ["circular", "zeros"])
def test_convolution_error_agrees_with_numpy(mode: str) -> None:
    images = torch.rand(3, 2, 7, 9, dtype=torch.float64)
    found = probes.convolution_error(mode, images, channels=3, draws=62, seed=4)
    weight = np.random.default_rng(4).standard_normal((3, 2, 3, 3))
    for n, image in enumerate(images.numpy()):
        still = numpy_convolution(image, weight, mode)
        errors = []
        for y in range(7):
            for x in range(9):
                moved = numpy_convolution(np.roll(image, (y, x), (1, 2)), weight, mode)
                errors.append(np.linalg.norm(moved - np.roll(still, (y, x), (1, 2))) / np.linalg.norm(still))
        # 62 draws with replacement from the 62 shifts that are not 0.
        expected, spread = np.mean(errors[1:]), np.std(errors[1:]) / math.sqrt(62)
        assert abs(found[n] - expected) < 4 * spread + 1e-14
    assert (found < 1e-14).all() if mode == "circular" else (found > 0.05).all()


def test_convolution_error_is_0_for_circular_padding_alone() -> None:
    for mode in ("zeros", "reflect", "replicate"):
        assert (probes.convolution_error(mode, pictures() + 0.5) > 0.01).all()
    assert (probes.convolution_error("circular", pictures(side=15)) < 1e-14).all()
    assert (probes.convolution_error("circular", torch.zeros(2, 1, 5, 5)) == 0).all()
    # Far from the border black pictures do not see it either, in the unshifted frame; but shifts wrap content over it.
    assert (probes.convolution_error("zeros", torch.zeros(2, 1, 5, 5)) == 0).all()
    with pytest.raises(InputError, match="unknown padding mode 'circle'"):
        probes.convolution_error("circle", pictures())


# Layers


@pytest.mark.parametrize(
    ("downsample", "names"),
    [
        ("maxpool", ["features.0.pool", "features.1.pool", "features.2.pool"]),
        ("stride", ["features.1.conv", "features.2.conv"]),
        ("blurpool", [f"features.{k}.pool.1" for k in range(3)]),
        ("lps", [f"features.{k}.pool.1" for k in range(3)]),
    ],
)
def test_layer_loss_is_across_the_whole_pool(downsample: str, names: list[str]) -> None:
    found = probes.layer_loss(small(downsample=downsample), pictures(3, 32), max_shift=3.0, draws=2)
    assert list(found.losses) == names
    assert found.decibels.shape == (3, len(found.names))
    column = dict(zip(found.names, found.decibels.T, strict=True))
    for k, name in enumerate(names):
        before = f"features.{k}" if downsample == "stride" else f"features.{k}.act"
        np.testing.assert_array_equal(found.losses[name], column[before] - column[name])
    assert found.names[-2:] == ["penultimate", "logits"]


def test_layer_loss_of_a_block_with_a_shortcut_is_that_of_each_branch() -> None:
    net = build_model("resnet18", 5, 1, downsample="stride", width=2, seed=0)
    found = probes.layer_loss(net, pictures(2, 16), draws=1)
    assert list(found.losses) == [f"layers.{k}.{name}" for k in (2, 4, 6) for name in ("conv1", "shortcut.conv")]
    column = dict(zip(found.names, found.decibels.T, strict=True))
    np.testing.assert_array_equal(
        found.losses["layers.4.shortcut.conv"], column["layers.3"] - column["layers.4.shortcut.conv"]
    )


def test_layer_loss_against_energies_of_a_subsampling_in_numpy() -> None:
    """A circular convolution loses nothing; keeping every second pixel loses what aliases."""
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular", bias=False), nn.AvgPool2d(1, 2), nn.Flatten(),
        nn.Linear(2 * 64, 3),
    ).double()  # fmt: skip
    image = torch.rand(1, 1, 16, 16, dtype=torch.float64)
    found = probes.layer_loss(net, image, draws=1, max_shift=2.0, seed=9)
    x, y = random_streams.stream(9, views.LAYERS, 0).uniform(-2, 2, (1, 2))[0]

    def numpy_shift(maps: np.ndarray, y: float, x: float) -> np.ndarray:
        height, width = maps.shape[-2:]
        phases = [np.exp(-2j * np.pi * np.fft.fftfreq(n) * s) for n, s in ((height, y), (width, x))]
        for phase, shift in zip(phases, (y, x), strict=True):
            phase[len(phase) // 2] = np.cos(np.pi * shift)
        return np.fft.ifft2(np.fft.fft2(maps) * phases[0][:, None] * phases[1]).real

    def sampled(pixels: np.ndarray) -> np.ndarray:
        return numpy_convolution(pixels, net[0].weight.detach().numpy(), "circular")[:, ::2, ::2]

    pixels = image[0].numpy()
    signal = sampled(numpy_shift(pixels, y, x))
    error = signal - numpy_shift(sampled(pixels), y / 2, x / 2)
    decibels = 10 * math.log10((signal**2).sum() / (error**2).sum())
    assert found.names[:2] == ["0", "1"]
    assert found.decibels[0, 0] > 280
    assert found.decibels[0, 1] == pytest.approx(decibels, rel=1e-9)
    assert found.losses["1"][0] == pytest.approx(found.decibels[0, 0] - decibels, rel=1e-9)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_pool_loses_equivariance_off_its_grid_alone(factor: int) -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="circular"), nn.MaxPool2d(factor),
        nn.Conv2d(2, 2, 3, padding=1, padding_mode="circular"), nn.MaxPool2d(2), nn.Flatten(),
        nn.LazyLinear(3),
    ).double()  # fmt: skip
    images = torch.rand(4, 1, 6 * factor, 6 * factor, dtype=torch.float64)
    net(images)
    on, off = (probes.layer_loss(net, images, draws=6, grid=grid) for grid in ("aligned", "unaligned"))
    assert on.names == off.names == list(on.losses) == ["1", "3"]
    for k, name in enumerate(on.names):
        assert (on.decibels[:, k] > 280).all(), "the map moves exactly with the image"
        assert (off.losses[name] > 250).all(), "and here the map before does, but not this one"
    with pytest.raises(InputError, match="unknown grid 'alined': did you mean 'aligned'"):
        probes.layer_loss(net, images, grid="alined")  # type: ignore[arg-type]


def test_shifts_on_a_grid_are_multiples_of_the_stride_and_those_off_it_are_not() -> None:
    random = np.random.default_rng(0)
    for before, after in (((1, 1), (2, 2)), ((2, 2), (4, 4)), ((3, 1), (9, 4)), ((4, 2), (4, 4))):
        layer = probes.layers.Downsampling("conv", before, after)
        on, off = (probes.layers._grid_shifts(layer, grid, 50, random) for grid in ("aligned", "unaligned"))
        assert (on % np.array(after) == 0).all()
        assert (np.abs(on) > 0).all()
        assert (off % np.array(before) == 0).all()
        coarser = np.array(after) > np.array(before)
        assert (off[:, coarser] % np.array(after)[coarser] != 0).all()
        assert len(np.unique(off[:, 1])) == 4


def test_layer_variability_agrees_with_a_loop() -> None:
    images, net, torus = pictures(4), small().double(), make_protocol("circular", (16, 16))
    found = probes.layer_variability(net, images, torus, max_shift=2, draws=24)
    assert found.names == ["features.0", "features.1", "features.2", "head.2"]
    assert found.moved.shape == found.apart.shape == (4, 4)
    layers = [net.features[:1], net.features[:2], net.features]
    shifts = [(y, x) for y in range(-2, 3) for x in range(-2, 3) if (y, x) != (0, 0)]  # 24: all there are
    with torch.no_grad():
        for k, layer in enumerate(layers):
            z = [layer(image[None].double()).mean((0, 2, 3)).numpy() for image in images]
            for n, image in enumerate(images.double()):
                moved = [layer(image.roll(s, (-2, -1))[None]).mean((0, 2, 3)).numpy() - z[n] for s in shifts]
                assert found.moved[n, k] == pytest.approx(np.mean([np.linalg.norm(v) for v in moved]), rel=1e-9)
                apart = np.mean([np.linalg.norm(z[n] - z[m]) for m in range(4) if m != n])
                assert found.apart[n, k] == pytest.approx(apart, rel=1e-9)
    np.testing.assert_allclose(found.values, found.moved.mean(0) / found.apart.mean(0))


def test_layer_variability_of_exact_and_of_constant_features() -> None:
    torus = make_protocol("circular", (16, 16))
    exact = small(downsample="aps", padding_mode="circular").double()
    assert (probes.layer_variability(exact, pictures(), torus).values < 1e-12).all()
    assert (probes.layer_variability(small(), pictures(), torus).values > 1e-3).all()
    dead = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    nn.init.ones_(dead[0].bias)
    for weight in (0.0, 3e-7):  # constant, and constant but for the last place
        nn.init.constant_(dead[0].weight, weight)
        assert np.isnan(probes.layer_variability(dead, pictures(), torus).values).all()
    with pytest.raises(InputError, match="at least 2 images"):
        probes.layer_variability(exact, pictures(1), torus)


def test_layer_variability_does_not_depend_on_the_batch() -> None:
    torus = make_protocol("circular", (16, 16))
    whole = probes.layer_variability(small().double(), pictures(7), torus)
    for size in (1, 3):
        found = probes.layer_variability(small().double(), pictures(7), torus, batch_size=size)
        np.testing.assert_allclose(found.moved, whole.moved, rtol=1e-9)
        np.testing.assert_allclose(found.apart, whole.apart, rtol=1e-9)
