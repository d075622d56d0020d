"""Certificates of maps: what is exact at which shifts, and which layer ends it; the measurement agrees."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from dense_networks import Returns, conv
from measured import photo_like
from torch import nn

from augkit.architectures.aliasfree import AliasFreeActivation
from augkit.core.errors import InputError
from augkit.invariance.outputs import certify_map, measure_outputs


def test_a_fully_convolutional_circular_network_is_certified_at_every_pixel() -> None:
    found = certify_map(nn.Sequential(conv(1, 4), nn.ReLU(), conv(4, 2)), 12)
    assert (found.verdict, found.step, found.layer, found.type) == ("integer", 1, "1", "ReLU")
    assert found.error <= found.tolerance
    assert "moves exactly with the image by whole pixels" in str(found)


def test_a_linear_one_is_certified_at_every_fraction() -> None:
    found = certify_map(nn.Sequential(conv(1, 4), conv(4, 2)), (9, 12))
    assert (found.verdict, found.step, found.layer) == ("fractional", 1, None)
    smooth = certify_map(nn.Sequential(conv(1, 4), AliasFreeActivation(), conv(4, 2)), 9)
    assert (smooth.verdict, smooth.layer) == ("fractional", None)


@pytest.mark.parametrize("last", [nn.Identity(), nn.Upsample(scale_factor=2), nn.PixelShuffle(2)])
def test_a_strided_one_is_certified_at_its_stride_and_the_measurement_agrees(last: nn.Module) -> None:
    network = nn.Sequential(conv(1, 4, 2), nn.ReLU(), conv(4, 8, 2), last)
    found = certify_map(network, 16)
    assert (found.verdict, found.step, found.layer, found.type) == ("stride", 4, "0", "Conv2d")
    assert "stride 2 keeps every second pixel" in found.reason
    assert "by multiples of 4 pixels, not by others" in str(found)
    report = measure_outputs(network, photo_like(4, 16), output="map", protocol="circular", quantum=4.0)
    assert report.equivariance_error.value <= 1e-5
    other = measure_outputs(network, photo_like(4, 16), output="map", protocol="circular", quantum=1.0)
    assert other.equivariance_error.value > 1e-3


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_an_upsampling_that_repeats_the_border_is_named(mode: str) -> None:
    found = certify_map(nn.Sequential(conv(1, 4, 2), nn.ReLU(), nn.Upsample(scale_factor=2, mode=mode)), 16)
    assert (found.verdict, found.step, found.layer, found.type) == ("none", None, "2", "Upsample")
    assert found.reason == f"{mode} interpolation repeats the border instead of wrapping around"
    assert found.remedy == found.mend == "mode='nearest'"
    assert found.error > found.tolerance


def test_zero_padding_is_named_whatever_the_stride() -> None:
    found = certify_map(nn.Sequential(conv(1, 4, 2), nn.Conv2d(4, 2, 3, padding=1)), 16)
    assert (found.verdict, found.layer) == ("none", "1")
    assert "zero padding" in found.reason


def test_a_map_of_zeros_is_judged_by_its_layers() -> None:
    network = nn.Sequential(conv(1, 4), nn.ReLU(), nn.Conv2d(4, 2, 1))  # a last layer that starts at zero
    for parameter in network[-1].parameters():
        nn.init.zeros_(parameter)
    found = certify_map(network, 12)
    assert (found.verdict, found.error) == ("integer", 0.0)


@pytest.mark.parametrize("wrap", [lambda y: {"out": y}, lambda y: (y, None)])
def test_a_map_within_an_output_is_judged_alike(wrap: Callable[[torch.Tensor], object]) -> None:
    class Wrapped(nn.Sequential):
        def forward(self, images: torch.Tensor) -> object:
            return wrap(super().forward(images))

    layers = (conv(1, 4), nn.ReLU(), conv(4, 2))
    plain, found = certify_map(nn.Sequential(*layers), 12), certify_map(Wrapped(*layers), 12)
    assert (found.verdict, found.type, len(found.walk)) == ("integer", plain.type, len(plain.walk))


def test_what_cannot_be_judged_is_refused() -> None:
    class Hidden(nn.Module):
        """The trace, whose values are no tensors, takes another path."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images * (1.0 if isinstance(images, torch.Tensor) else 2.0)

    class Unknown(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.special.erf(images.cumsum(-1))

    for network in (nn.Sequential(conv(1, 2), Unknown()), nn.Sequential(conv(1, 2), Hidden())):
        found = certify_map(network, 8)
        assert (found.verdict, found.step) == ("refused", None)
        assert "cannot be judged" in str(found)


def test_bad_input_is_one_line() -> None:
    for network, size, message in (
        (nn.Sequential(conv(1, 2), nn.Flatten()), 8, r"expected a map \(B, C, h, w\)"),
        (nn.Conv2d(1, 2, 4), 8, "expected a map whose size divides"),
        (Returns(lambda x: x), 8, "pass it, such as in_channels=3"),
        (nn.Sequential(conv(1, 2), Returns(lambda x: x / 0)), 8, "expected a finite map"),
    ):
        with pytest.raises(InputError, match=message):
            certify_map(network, size)
