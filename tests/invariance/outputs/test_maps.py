"""Maps: laws, a slow float64 reference, the upsampling as a cause, torchvision's segmenters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from dense_networks import LowPass, Returns, conv, segmenter
from hypothesis import given, settings
from hypothesis import strategies as st
from measured import photo_like
from scipy.ndimage import distance_transform_cdt
from torch import nn

from augkit.core.errors import InputError
from augkit.invariance.information import shift_information
from augkit.invariance.outputs import measure_outputs
from augkit.invariance.outputs.layers import layers_of_map
from augkit.invariance.outputs.maps import boundary_ranges, mean_iou, top_class
from augkit.invariance.plan import Pairs, Plan

IMAGES = photo_like(6, 16)


def test_a_circular_network_of_stride_1_moves_with_the_image_and_a_strided_one_does_not() -> None:
    exact, strided = (measure_outputs(segmenter(stride), IMAGES, protocol="circular") for stride in (1, 2))
    assert exact.kind == strided.kind == "map"
    assert exact.equivariance_error.value <= 1e-5
    assert exact.pixel_top1_change.value == 0
    assert exact.miou_consistency.value == 1
    assert exact.shift_information.value < 1e-6
    assert exact.decibels.value > 100
    assert strided.equivariance_error.low > 0.01
    assert strided.settings.of_kind["stride"] == [2.0, 2.0]
    assert strided.curves["by_fraction"].x == ["0", "to 1/2"]
    at_multiples, between = strided.curves["by_fraction"].numbers["equivariance_error"]
    assert at_multiples.value <= 1e-5
    assert between.value > 0.01


def test_a_linear_circular_network_is_exact_at_fractions_of_a_pixel_and_relu_is_not() -> None:
    linear, bent = nn.Sequential(conv(1, 3), conv(3, 2)), nn.Sequential(conv(1, 3), nn.ReLU(), conv(3, 2))
    errors = [
        measure_outputs(network, IMAGES, protocol="circular", quantum=None).equivariance_error.value
        for network in (linear, bent)
    ]
    assert errors[0] <= 1e-5
    assert errors[1] > 1e-3


@pytest.mark.parametrize("protocol", ["crop", "embed", "circular"])
def test_no_shift_gives_no_error(protocol: str) -> None:
    report = measure_outputs(segmenter(2), IMAGES, protocol=protocol, max_shift=0.0)
    assert report.equivariance_error.value == 0
    assert report.pixel_top1_change.value == 0
    assert report.worst == ()


def test_numbers_do_not_depend_on_the_batch_size() -> None:
    network = segmenter(2)
    whole, parts = (measure_outputs(network, IMAGES, max_shift=2.0, batch_size=size) for size in (6, 4))
    for name, found in whole.numbers.items():
        assert getattr(parts, name).value == pytest.approx(found.value, rel=1e-4), name
    assert [case.image for case in whole.worst] == [case.image for case in parts.worst]


def test_a_slow_loop_in_float64_gives_the_same_numbers() -> None:
    network, images = segmenter(1, classes=3).double(), photo_like(3, 14).double()
    network[0].padding_mode = network[2].padding_mode = "zeros"
    shifts = [(2, -1), (-2, 0)]  # the same for all images, as a plan with a step
    for x, y in shifts:
        report = measure_outputs(network, images, plan=Plan(pairs=Pairs(1, 0, 0, step=(float(x), float(y)))))
        found = {name: [] for name in ("errors", "changed", "ious", "signals", "noises")}
        for image in images:
            margin = 2
            first, second = (
                network(image[None, :, margin - b : 14 - margin - b, margin - a : 14 - margin - a])[0].detach().numpy()
                for a, b in ((0, 0), (x, y))
            )
            pairs = [
                (first[:, row - y, column - x], second[:, row, column])
                for row in range(10)
                for column in range(10)
                if 0 <= row - y < 10 and 0 <= column - x < 10
            ]
            expected, seen = (np.array(part) for part in zip(*pairs, strict=True))
            noise = np.mean((expected - seen) ** 2)
            signal = np.mean((expected - expected.mean(0)) ** 2)
            a, b = expected.argmax(1), seen.argmax(1)
            present = [k for k in range(3) if (a == k).any() or (b == k).any()]
            found["errors"].append(math.sqrt(noise / signal))
            found["changed"].append(np.mean(a != b))
            found["ious"].append(np.mean([((a == k) & (b == k)).sum() / ((a == k) | (b == k)).sum() for k in present]))
            found["signals"].append(signal)
            found["noises"].append(noise)
        assert report.equivariance_error.value == pytest.approx(np.mean(found["errors"]), rel=1e-9)
        assert report.pixel_top1_change.value == pytest.approx(np.mean(found["changed"]), abs=1e-12)
        assert report.miou_consistency.value == pytest.approx(np.mean(found["ious"]), rel=1e-9)
        wanted = 10 * math.log10(np.mean(found["signals"]) / np.mean(found["noises"]))
        assert report.decibels.value == pytest.approx(wanted, rel=1e-9)
        assert max(found["errors"]) > 0


def test_distances_to_a_boundary_are_those_of_scipy() -> None:
    classes = torch.randint(0, 2, (3, 5, 6)).repeat_interleave(5, 1).repeat_interleave(4, 2)
    ranges = torch.stack(boundary_ranges(classes))
    assert bool((ranges.sum(0) == 1).all())
    ends = np.array([1, 2, 4, 8, np.inf])
    for number, image in enumerate(classes.numpy()):
        inside = [distance_transform_cdt(image == k, metric="chessboard") for k in (0, 1)]
        wanted = np.searchsorted(ends, np.where(image == 0, *inside))
        assert (ranges[:, number].int().argmax(0).numpy() == wanted).all()


def test_shift_information_is_that_of_pixels_in_the_place_of_images() -> None:
    network, images = segmenter(1, classes=3).double(), IMAGES.double()
    network[0].padding_mode = "zeros"
    plan = Plan(pairs=Pairs(1, 0, 0, step=(3.0, 0.0)))
    report = measure_outputs(network, images, plan=plan, protocol="circular")
    with torch.no_grad():
        views = [network(images).roll(3, -1), network(images.roll(3, -1))]
    p = torch.stack([view.softmax(1).movedim(1, -1).flatten(0, 2) for view in views], dim=1)
    assert report.shift_information.value == pytest.approx(shift_information(p).item(), rel=1e-9)
    assert report.shift_information.value > 1e-6


@given(st.integers(1, 70), st.booleans())
@settings(max_examples=20)
def test_the_class_of_a_pixel_is_the_first_of_the_highest_scores(channels: int, equal: bool) -> None:
    scores = torch.randint(0, 3, (2, channels, 3, 4)).float() if equal else torch.randn(2, channels, 3, 4)
    wanted = (scores == scores.amax(1, keepdim=True)).int().argmax(1)
    assert torch.equal(top_class(scores), wanted)


def test_changes_are_most_frequent_at_boundaries() -> None:
    """A map whose halves are safe: what changes lies at the edge between them."""
    steps = torch.linspace(0, 1, 32).expand(4, 1, 32, 32) + 0.01 * photo_like(4, 32)
    network = Returns(lambda images: torch.cat([images, 1 - images], 1)[..., ::2, ::2])
    report = measure_outputs(network, steps, protocol="embed", max_shift=3.0)
    near, *_, far = report.curves["by_distance"].numbers["pixel_top1_change"]
    assert near.value > 0.005
    assert far.value < near.value / 5


def test_the_mean_intersection_over_union_counts_classes_of_either_map() -> None:
    first, second = torch.tensor([[[0, 0, 1, 3]]]), torch.tensor([[[0, 1, 1, 3]]])
    mask = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]]).double()
    assert mean_iou(first, second, mask, 5).tolist() == [0.5]


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling_is_named_where_it_is_the_cause(mode: str) -> None:
    images = photo_like(4, 16) + 0.2 * torch.rand(4, 1, 16, 16)
    caused = nn.Sequential(LowPass(), nn.Conv2d(1, 2, 1), nn.Upsample(scale_factor=2, mode=mode))
    report = measure_outputs(caused, images, protocol="circular")
    assert report.error_before_upsampling.value <= 1e-5
    assert report.equivariance_error.low > 0.01
    after = f"{report.equivariance_error.value:.3g} after it"
    assert report.notes[0].endswith(f"{mode} upsampling by 2 x 2 at the end, {after}: the upsampling is the cause")
    elsewhere = nn.Sequential(conv(1, 2, 2), nn.Upsample(scale_factor=2, mode=mode))
    report = measure_outputs(elsewhere, images, protocol="circular")
    assert report.notes[0].endswith("the layers before it are the cause")


def test_an_upsampling_before_other_layers_is_not_the_one_at_the_end() -> None:
    network = nn.Sequential(conv(1, 2, 2), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 1))
    report = measure_outputs(network, IMAGES, protocol="circular")
    assert "error_before_upsampling" not in report.numbers
    assert report.notes == ()


@pytest.mark.parametrize("side", [8, 32])
def test_what_is_kept_of_a_map_does_not_grow_with_its_size(side: int) -> None:
    report = measure_outputs(segmenter(1), photo_like(2, side), max_shift=1.0)
    assert sum(column.shape[1] for column in report.statistics.values()) < 50


def test_a_network_without_upsampling_has_no_such_number() -> None:
    assert "error_before_upsampling" not in measure_outputs(segmenter(2), IMAGES, max_shift=2.0).numbers


def test_constant_maps_are_undefined() -> None:
    report = measure_outputs(Returns(lambda x: torch.full((len(x), 2, 8, 8), 3.0)), IMAGES, protocol="circular")
    assert not report.equivariance_error.defined
    assert not report.decibels.defined
    assert not report.shift_information.defined


def test_maps_that_are_no_scores_have_no_classes() -> None:
    report = measure_outputs(segmenter(2), IMAGES, max_shift=2.0, scores=False)
    assert set(report.numbers) == {"equivariance_error", "decibels"}


def test_patches_on_a_grid_are_a_map() -> None:
    patches = nn.Sequential(nn.Conv2d(1, 5, 4, 4), nn.Flatten(2), Returns(lambda x: x.transpose(1, 2)))
    grid = nn.Conv2d(1, 5, 4, 4)
    grid.load_state_dict(patches[0].state_dict())
    as_map, as_patches = (
        measure_outputs(network, IMAGES, protocol="circular", output="map") for network in (grid, patches)
    )
    assert as_patches.numbers == as_map.numbers
    assert as_patches.settings.of_kind["stride"] == [4.0, 4.0]


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "fcn_resnet50"])
@pytest.mark.integration
def test_segmenters_of_torchvision_run(name: str) -> None:
    from torchvision.models import get_model

    network = get_model(name, weights=None, weights_backbone=None, num_classes=3)
    report = measure_outputs(network, torch.rand(2, 3, 72, 72), max_shift=4.0, pairs=1)
    assert report.kind == "image"  # three channels, as the input: they have to be named
    report = measure_outputs(network, torch.rand(2, 3, 72, 72), max_shift=4.0, pairs=1, output="map")
    assert report.equivariance_error.value > 0
    assert report.settings.of_kind["upsampling"] == "bilinear"


@pytest.mark.integration
def test_a_segmenter_of_torchvision_of_two_classes_is_a_map_and_its_upsampling_is_seen() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=2)
    report = measure_outputs(network, torch.rand(1, 3, 68, 68), max_shift=2.0, pairs=1)
    assert report.kind == "map"
    assert report.settings.of_kind["upsampled_by"] == "8 x 8"
    assert report.settings.of_kind["network_stride"] == 16


def test_views_that_share_no_pixel_are_an_error() -> None:
    with pytest.raises(InputError, match="share no pixel"):
        measure_outputs(segmenter(4), IMAGES, max_shift=4.0, map_kernel="sinc")


def test_layers_of_a_map_find_the_strided_one() -> None:
    found = {layer.name: layer for layer in layers_of_map(segmenter(2), IMAGES, max_shift=4.0, seed=1)}
    whole = {
        layer.name: layer
        for layer in layers_of_map(segmenter(1), IMAGES, shifts=torch.tensor([[1.0, 2.0], [-3.0, 0.0]]))
    }
    assert list(found) == list(whole) == ["0", "1", "2"]
    assert found["0"].stride == (2.0, 2.0)
    assert found["0"].decibels.value < 40
    assert min(layer.decibels.value for layer in whole.values()) > 100


def test_layers_of_a_network_of_its_own_class_end_with_its_output() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = conv(1, 2)

        def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": self.inner(images).relu(), "aux": images}

    assert [layer.name for layer in layers_of_map(Own(), IMAGES)] == ["inner"]
    assert [layer.name for layer in layers_of_map(Returns(lambda x: x), IMAGES)] == ["output"]
