"""Probes for a study, against numpy loops, closed forms, and networks whose invariance is known."""

from __future__ import annotations

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit.architectures import build_model
from augkit.core import random_streams
from augkit.core.errors import InputError
from augkit.data import Dataset, Images, localization
from augkit.invariance import make_protocol, probes
from augkit.invariance.probes import outputs, views
from augkit.train.evaluate import evaluate
from augkit.train.recipe import Recipe

NETWORK_PROBES = ["exactness", "diagonal_pixel", "rotation_variability"]


def pictures(count: int = 6, side: int = 16, channels: int = 1) -> Tensor:
    """Smooth blobs on black, all different."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:side, :side]
    images = np.zeros((count, channels, side, side))
    for index in np.ndindex(count, channels, 3):
        (cy, cx), width = rng.uniform(side / 4, 3 * side / 4, 2), rng.uniform(1, 2)
        images[index[:2]] += rng.uniform(0.2, 0.5) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 2 / width**2)
    return torch.from_numpy(images).float().clamp(0, 1)


def small(**style: Any) -> nn.Module:
    return build_model("small_cnn", 5, 1, width=4, seed=0, **style).eval()


class Constant(nn.Module):
    """The same logits whatever comes."""

    def forward(self, images: Tensor) -> Tensor:
        return torch.tensor([1.0, 2.0, 4.0]).expand(len(images), 3)


class OnePixel(nn.Module):
    """Logits ``(v, 1 - v)`` of the value v of one pixel."""

    def __init__(self, y: int, x: int) -> None:
        super().__init__()
        self.y, self.x = y, x

    def forward(self, images: Tensor) -> Tensor:
        value = images[:, 0, self.y, self.x]
        return torch.stack([value, 1 - value], dim=1)


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


# Answers


def test_each_image_has_shifts_of_its_own_to_the_right_and_down() -> None:
    shifts = views.whole_shifts(20, 6, -3, 3, [0, 1], still=False)
    assert shifts.shape == (20, 6, 2)
    assert len({tuple(image.flatten()) for image in shifts}) == 20
    assert (np.abs(shifts) <= 3).all()
    assert shifts.any(-1).all()
    assert all(len(np.unique(image, axis=0)) == 6 for image in shifts)
    images, moves = pictures(4), np.array([[1, 0], [0, 2], [-3, 1], [0, 0]])
    seen = views.moving(make_protocol("circular", (16, 16)), moves)(images[1:3], slice(1, 3))
    expected = torch.stack([images[1].roll(2, -2), images[2].roll((1, -3), (-2, -1))])
    assert torch.equal(seen, expected)


def test_exactness_of_an_exact_network_ends_at_real_borders() -> None:
    images, net = pictures(), small(downsample="aps", padding_mode="circular").double()
    torus, real = make_protocol("circular", (16, 16)), make_protocol("embed", (16, 16), input_size=24, max_shift=4)
    assert (probes.exactness(net, images, torus) < 1e-12).all()
    assert (probes.exactness(small(downsample="aps"), images, torus) > 1e-3).all()  # zeros
    crop = make_protocol("crop", (24, 24), input_size=16, max_shift=4)
    borders = [probes.exactness(net, images, real, max_shift=4)]
    borders.append(probes.exactness(net, pictures(side=24), crop, max_shift=4))
    # A black border of 4 px hides the seam of a torus; a crop, into which content enters, cannot.
    assert (borders[0] < 1e-12).all()
    assert (borders[1] > 1e-3).all()


def test_exactness_of_one_pixel_is_the_largest_difference_that_a_shift_brings_there() -> None:
    images = pictures(5, 7)
    found = probes.exactness(OnePixel(3, 2), images, make_protocol("circular", (7, 7)), max_shift=1, draws=99)
    pixels = images[:, 0].double().numpy()
    scale = np.stack([pixels[:, 3, 2], 1 - pixels[:, 3, 2]]).std()
    around = np.abs(pixels[:, 2:5, 1:4] - pixels[:, 3:4, 2:3]).max((1, 2))
    np.testing.assert_allclose(found, around / scale, rtol=1e-5)


def test_diagonal_pixel_is_the_change_along_the_diagonal() -> None:
    images = pictures(5, 9)
    found = probes.diagonal_pixel(OnePixel(4, 4), images, make_protocol("circular", (9, 9)), max_shift=2, placements=99)
    above = images[:, 0].numpy() > 0.5
    expected = []
    for image in above:
        # The pixel that a shift by (x, y) brings to (4, 4) stood at (4 - y, 4 - x).
        pairs = [(4 - y, 4 - x) for y in range(-2, 2) for x in range(-2, 2)]
        expected.append(np.mean([image[y, x] != image[y - 1, x - 1] for y, x in pairs]))
    np.testing.assert_allclose(found, expected)
    assert 0 < np.mean(expected) < 1


def test_constant_network_never_varies() -> None:
    images, torus = pictures(), make_protocol("circular", (16, 16))
    assert (probes.exactness(Constant(), images, torus) == 0).all()
    assert (probes.diagonal_pixel(Constant(), images, torus) == 0).all()
    assert (probes.rotation_variability(Constant(), images) == 0).all()


def test_exactness_without_a_scale_is_infinite_where_logits_move() -> None:
    images = torch.zeros(1, 1, 8, 8)
    images[0, 0, 4, 4] = 1.0  # the pixel next to it is black: logits 0.5 and 0.5 unshifted

    class Half(OnePixel):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) * torch.tensor([1.0, 0.0])

    torus = make_protocol("circular", (8, 8))
    assert np.isinf(probes.exactness(Half(4, 3), images, torus, max_shift=1, draws=99)).all()
    assert (probes.exactness(Half(0, 0), images, torus, max_shift=1, draws=99) == 0).all()


class Radial(nn.Module):
    """What any rotation leaves: moments about the centre. Or, with ``direction``, the centroid."""

    def __init__(self, direction: bool) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, images: Tensor) -> Tensor:
        y, x = (torch.arange(n, dtype=images.dtype) - (n - 1) / 2 for n in images.shape[-2:])
        weights = [x.expand(len(y), -1)] * 2 if self.direction else [torch.hypot(y[:, None], x)] * 2
        values = [(images[:, 0] * weight).sum((1, 2)) for weight in weights]
        return torch.stack([values[0], -values[1]], dim=1)


def test_rotation_leaves_radial_moments_alone_and_turns_the_centroid() -> None:
    images = pictures(8, 33)
    still = probes.rotation_variability(Radial(direction=False), images, mean=[0.0], std=[50.0])
    turned = probes.rotation_variability(Radial(direction=True), images, mean=[0.0], std=[20.0])
    assert still.shape == turned.shape == (8,)
    assert (still < 1e-4).all()
    assert turned.mean() > 0.02
    assert (probes.rotation_variability(Radial(direction=True), images, max_degrees=0.0) < 1e-12).all()


def test_rotation_sees_no_corner() -> None:
    """Content outside of the disc changes nothing, and no content leaves it."""
    images = pictures(3, 20)
    painted = images.clone()
    outside = outputs.disc((20, 20)) == 0
    assert 0.2 < outside.double().mean() < 0.45  # 1 - pi / 4, and the end of the disc
    painted[:, :, outside] = 1.0
    for background in (0.0, 0.3):
        found = [probes.rotation_variability(small(), x, background=background) for x in (images, painted)]
        np.testing.assert_array_equal(*found)
    blank = torch.full((2, 1, 20, 20), 0.3)
    assert (probes.rotation_variability(small(), blank, background=0.3) < 1e-9).all()
    assert (probes.rotation_variability(small(), 1 - blank, background=0.3, max_degrees=180) < 1e-2).all()


def probed(name: str, images: Tensor, **options: Any) -> np.ndarray:
    torus = () if name == "rotation_variability" else (make_protocol("embed", (16, 16), input_size=24, max_shift=4),)
    options |= {} if name == "rotation_variability" else {"max_shift": 4}
    return probes.PROBES[name](small(), images, *torus, mean=[0.1], std=[0.3], **options)


@pytest.mark.parametrize("name", NETWORK_PROBES)
def test_batch_size_does_not_matter_and_seeds_repeat(name: str) -> None:
    images = pictures(7)
    whole = probed(name, images)
    assert whole.shape == (7,)
    assert whole.dtype == np.float64
    for size in (1, 3):
        np.testing.assert_allclose(probed(name, images, batch_size=size), whole, rtol=1e-4, atol=1e-8)
    np.testing.assert_array_equal(probed(name, images), whole)
    if name != "diagonal_pixel":
        assert not np.array_equal(probed(name, images, seed=1), whole)
        # An image keeps its draws whatever comes after it; the scale of exactness is that of all images.
        first = probed(name, images[:5])
        np.testing.assert_allclose(first / first[0], whole[:5] / whole[0], rtol=1e-3)


def test_nothing_is_changed_in_place_and_the_mode_comes_back() -> None:
    images, net = (255 * pictures()).byte(), small().train()
    kept, state = images.clone(), {k: v.clone() for k, v in net.state_dict().items()}
    protocol, random = make_protocol("circular", (16, 16)), torch.get_rng_state()
    probes.convolution_error("zeros", images)
    probes.layer_loss(net, images[:1], draws=1)
    probes.layer_variability(net, images, protocol)
    probes.exactness(net, images, protocol)
    probes.diagonal_pixel(net, images, protocol)
    probes.rotation_variability(net, images)
    probes.pixel_sharpness(images, "bicubic")
    assert torch.equal(images, kept)
    assert net.training
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module._forward_hooks for module in net.modules())


def test_uint8_and_floats_agree() -> None:
    images = (255 * pictures()).byte()
    for name in NETWORK_PROBES:
        np.testing.assert_allclose(probed(name, images), probed(name, images.float() / 255), rtol=1e-5)
    for kernel in ("bilinear", "fourier"):
        sharp = [probes.pixel_sharpness(x, kernel) for x in (images, images.float() / 255)]
        np.testing.assert_allclose(*sharp, rtol=1e-6)


def test_shifts_beyond_the_margin_and_other_sizes_are_refused() -> None:
    real = make_protocol("embed", (16, 16), input_size=24, max_shift=4)
    for probe in (probes.exactness, probes.diagonal_pixel, probes.layer_variability):
        with pytest.raises(InputError, match="margin of 4 pixels, got 5"):
            probe(small(), pictures(), real, max_shift=5)
        with pytest.raises(InputError, match="made for images of"):
            probe(small(), pictures(side=17), real, max_shift=2)
        with pytest.raises(InputError, match="at least 1 draw"):
            probe(small(), pictures(), real, max_shift=0)


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


# Localisation


class Watched(Dataset):
    """Notes when its test split is opened."""

    opened = 0

    def open_test(self, limit: int | None = None, *, seed: int = 0) -> Images:
        self.opened += 1
        return super().open_test(limit, seed=seed)


def watched(digits: Dataset) -> Watched:
    source = Watched.__new__(Watched)
    source.__dict__.update(digits.__dict__)
    return source


def test_located_images_lie_where_their_labels_say(digits: Dataset) -> None:
    source = watched(digits)
    task = probes.locate(source, canvas=19, cells=3, seed=5)
    kept = source.train.images.clone()
    parts = [(task.train, source.train), (task.validation, source.validation)]
    assert source.opened == 0
    parts.append((task.open_test(), digits.open_test()))
    assert source.opened == 1
    for placed, original in parts:
        assert placed.images.shape == (len(original), 1, 19, 19)
        assert placed.images.dtype == torch.uint8
        seen = set()
        for image, label, digit in zip(placed.images, placed.labels.tolist(), original.images, strict=True):
            windows = image[0].unfold(0, 8, 1).unfold(1, 8, 1)
            found = (windows == digit[0]).all(-1).all(-1) & (image.sum() == digit.sum())
            # 12 places along an axis in 3 cells of 4; a digit with empty borders fits at several.
            places = found.nonzero()
            assert any(3 * (y // 4) + x // 4 == label for y, x in places.tolist())
            seen.update(map(tuple, places.tolist()) if len(places) == 1 else ())
        if original is source.train:
            assert len(seen) > 100  # of 144
    assert torch.equal(source.train.images, kept)


def test_located_labels_are_balanced_whatever_the_class(digits: Dataset) -> None:
    task = probes.locate(digits, canvas=16, cells=2)
    assert len(task.classes) == 4
    for placed, original in ((task.train, digits.train), (task.open_test(), digits.open_test())):
        counts = torch.bincount(placed.labels, minlength=4)
        assert counts.max() - counts.min() <= 1
        for digit in range(10):
            inside = torch.bincount(placed.labels[original.labels == digit], minlength=4)
            assert inside.max() - inside.min() <= 1
    again, other = (
        probes.locate(digits, canvas=16, cells=2),
        probes.locate(digits, canvas=16, cells=2, seed=1),
    )
    assert torch.equal(again.train.images, task.train.images)
    assert torch.equal(again.train.labels, task.train.labels)
    assert not torch.equal(other.train.labels, task.train.labels)
    assert len(task.open_test(20)) == 20


def test_splits_are_placed_independently(digits: Dataset) -> None:
    class Twice(Dataset):
        @property
        def validation(self) -> Images:
            return self.train

    source = Twice.__new__(Twice)
    source.__dict__.update(digits.__dict__)
    task = probes.locate(source, canvas=16)
    assert (task.train.labels == task.validation.labels).double().mean() < 0.2


def test_uneven_cells_take_every_place_once() -> None:
    """13 places in 4 cells: 4, 3, 3 and 3 of them, all used, and no label but its own."""
    pixels = torch.zeros(4000, 1, 4, 4, dtype=torch.uint8)
    pixels[:, :, 0, 0] = 200
    placed = localization._place(Images(pixels, None), 16, 4, np.random.default_rng(0))
    y, x = (placed.images[:, 0] == 200).nonzero()[:, 1:].T
    assert torch.equal(placed.labels, (y * 4 // 13) * 4 + x * 4 // 13)
    assert sorted(set(y.tolist())) == sorted(set(x.tolist())) == list(range(13))


def test_a_canvas_without_room_is_refused(digits: Dataset) -> None:
    probes.locate(digits, canvas=11, cells=4)
    for canvas in (7, 10):
        with pytest.raises(InputError, match="canvas of 11 pixels or more"):
            probes.locate(digits, canvas=canvas, cells=4)


def test_a_located_dataset_is_trained_on_and_evaluated(digits: Dataset, tiny: Recipe) -> None:
    """A fully connected head learns places; one that averages over a torus cannot know them."""
    task = probes.locate(digits, canvas=16, cells=2)
    accuracy = {}
    for head, padding in (("fc", "zeros"), ("gap", "circular")):
        recipe = tiny.replaced(
            data={**tiny.data.model_dump(), "limit": None},
            model={"name": "small_cnn", "width": 4, "head": head, "padding_mode": padding, "downsample": "aps"},
            policy={},
            train={"epochs": 6, "batch_size": 32},
        )
        run = augkit.fit(recipe, dataset=task, device="cpu")
        accuracy[head] = evaluate(run.model, task.open_test(), recipe, torch.device("cpu")).accuracy
    assert accuracy["fc"] > 0.8
    assert accuracy["gap"] < 0.4


def test_located_streams_are_those_of_images_at_hand(digits: Dataset) -> None:
    from augkit.data import batches
    from augkit.train.batches import _as_stream

    images = digits.train.take(torch.arange(40))
    order = torch.arange(39, -1, -1)
    placed = localization._place(images.take(order), 16, 4, np.random.default_rng(0))
    streamed = localization._place(_as_stream(images, 0).take(order), 16, 4, np.random.default_rng(0))
    assert torch.equal(torch.cat(list(batches(streamed, 16))), placed.images)
    assert torch.equal(streamed.labels, placed.labels)


def test_every_probe_is_listed() -> None:
    named = {name for name in probes.__all__ if name[0].islower()}
    assert set(probes.PROBES) == named - {"locate"}
    given = {"model", "images", "protocol"}
    for name, probe in probes.PROBES.items():
        needed = {key for key, value in inspect.signature(probe).parameters.items() if value.default is value.empty}
        assert needed - given <= {"padding_mode", "kernel"}, f"{name} needs what the options of a claim cannot hold"
