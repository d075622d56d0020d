"""Probes of outputs, on networks whose invariance is known."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from probed import pictures, small
from torch import Tensor, nn

from augkit.core.errors import InputError
from augkit.invariance import make_protocol, probes
from augkit.invariance.probes import outputs, views

NETWORK_PROBES = ["exactness", "diagonal_pixel", "rotation_variability"]


class Constant(nn.Module):
    """Returns the same logits for every image."""

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
    """Returns moments about the center, which rotations keep, or, with ``direction``, the centroid."""

    def __init__(self, direction: bool) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, images: Tensor) -> Tensor:
        y, x = (torch.arange(n, dtype=images.dtype) - (n - 1) / 2 for n in images.shape[-2:])
        weights = [x.expand(len(y), -1)] * 2 if self.direction else [torch.hypot(y[:, None], x)] * 2
        values = [(images[:, 0] * weight).sum((1, 2)) for weight in weights]
        return torch.stack([values[0], -values[1]], dim=1)


def test_rotation_keeps_radial_moments_and_rotates_the_centroid() -> None:
    images = pictures(8, 33)
    still = probes.rotation_variability(Radial(direction=False), images, mean=[0.0], std=[50.0])
    turned = probes.rotation_variability(Radial(direction=True), images, mean=[0.0], std=[20.0])
    assert still.shape == turned.shape == (8,)
    assert (still < 1e-4).all()
    assert turned.mean() > 0.02
    assert (probes.rotation_variability(Radial(direction=True), images, max_degrees=0.0) < 1e-12).all()


def test_rotation_does_not_depend_on_corners() -> None:
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


def test_every_probe_is_listed() -> None:
    named = {name for name in probes.__all__ if name[0].islower()}
    assert set(probes.PROBES) == named
    given = {"model", "images", "protocol"}
    for name, probe in probes.PROBES.items():
        needed = {key for key, value in inspect.signature(probe).parameters.items() if value.default is value.empty}
        assert needed - given <= {"padding_mode", "kernel"}, f"{name} needs what the options of a claim cannot hold"
