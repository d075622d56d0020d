"""Images: autoencoders and super-resolution."""

from __future__ import annotations

import math

import pytest
import torch
from dense_networks import Returns, autoencoder, conv
from measured import photo_like
from torch import nn

from augkit.invariance.outputs import measure_outputs

IMAGES = photo_like(5, 16)


def test_an_autoencoder_loses_between_the_multiples_of_its_stride() -> None:
    report = measure_outputs(autoencoder(4), IMAGES, protocol="circular", pairs=12)
    assert report.kind == "image"
    assert report.settings.of_kind["network_stride"] == 4
    curve = report.curves["by_fraction"]
    decibels = dict(zip(curve.x, (found.value for found in curve.numbers["decibels"]), strict=True))
    assert set(decibels) == {"0", "to 1/4", "to 1/2"}
    assert decibels.pop("0") > 100
    assert max(decibels.values()) < 30


def test_the_psnr_is_that_of_the_mean_square_error() -> None:
    """A network that adds 0.05 for each pixel to the right differs from its moved self by that of the shift."""
    network = Returns(lambda images: images * 0.01 + 0.05 * torch.arange(images.shape[-1]))
    shifted = measure_outputs(network, torch.rand(3, 1, 12, 12), max_shift=2.0, pairs=1)
    moves = torch.tensor([case.shifts[1][0] for case in sorted(shifted.worst, key=lambda case: case.image)])
    wanted = -10 * math.log10((0.05 * moves).square().mean())
    assert shifted.psnr.value == pytest.approx(wanted, abs=1e-3)


def test_super_resolution_is_an_image_of_a_fraction_of_the_stride() -> None:
    exact = nn.Sequential(conv(1, 4), nn.PixelShuffle(2))
    report = measure_outputs(exact, IMAGES, protocol="circular")
    assert report.kind == "image"
    assert report.settings.of_kind["stride"] == [0.5, 0.5]
    assert report.equivariance_error.value <= 1e-5
    padded = nn.Sequential(conv(1, 4, padding_mode="zeros"), nn.PixelShuffle(2))
    assert measure_outputs(padded, IMAGES, max_shift=2.0).equivariance_error.value > 1e-3
    assert measure_outputs(padded, IMAGES, max_shift=2.0, border=1.0).equivariance_error.value <= 1e-5


def test_gray_images_repeated_for_a_network_of_color_give_images_of_color() -> None:
    network = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")
    report = measure_outputs(network, IMAGES, protocol="circular")
    assert (report.kind, report.settings.channels) == ("image", "1 repeated to 3")
    assert report.equivariance_error.value <= 1e-5
