"""Rescaled images: ``T f(x)`` against ``f(T x)`` for factors about the center of the input, by matrices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import Tensor, nn

from augkit import measure_invariance, measure_outputs
from augkit.augment import geometry
from augkit.augment.resample import resample
from augkit.core.errors import InputError
from augkit.invariance.network import Network
from augkit.invariance.outputs import OutputMeasurement, dense
from augkit.invariance.outputs.regions import default_kernel, moved, shared
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.protocols import ProtocolOptions, Scene, make_protocol
from tests.dense_networks import Returns, embedder

NOISE = torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))


def blobs(side: int = 64) -> Tensor:
    """Images ``(4, 3, side, side)`` with one Gaussian blob in each channel."""
    drawn = torch.rand(3, 4, 3, 1, 1, generator=torch.Generator().manual_seed(1))
    x, y = (side * (0.4 + 0.2 * part) for part in drawn[:2])
    grid, width = torch.arange(float(side)), 2 + 2 * drawn[2]
    return torch.exp(-((grid - x) ** 2 + (grid[:, None] - y) ** 2) / (2 * width**2))


class Moments(nn.Module):
    """The centers of the blobs, ``(B, 3, 2)``, or boxes of as many standard deviations around them."""

    def __init__(self, reach: float = 0.0, *, fixed: bool = False) -> None:
        super().__init__()
        self.reach, self.fixed = reach, fixed

    def forward(self, images: Tensor) -> object:
        mass = images / images.sum((-2, -1), keepdim=True)
        grids = [torch.arange(float(n)) for n in images.shape[-1:-3:-1]]
        lines = [mass.sum(-2), mass.sum(-1)]
        centers = torch.stack([line @ grid for line, grid in zip(lines, grids, strict=True)], -1)
        if not self.reach:
            return centers
        spread = torch.stack([line @ grid**2 for line, grid in zip(lines, grids, strict=True)], -1) - centers**2
        reach = self.reach * (torch.full_like(spread, 3.0) if self.fixed else spread.sqrt())
        boxes = torch.cat([centers - reach, centers + reach], -1) + 0.5  # along the edges of pixels
        return [{"boxes": one, "scores": torch.ones(3), "labels": torch.arange(3)} for one in boxes]


@pytest.mark.parametrize("output", ["map", "image"])
def test_a_linear_network_of_single_pixels_is_equivariant(output: str) -> None:
    """The same kernel rescales images and maps, so only rounding is left."""
    report = measure_outputs(nn.Conv2d(1, 1 if output == "image" else 3, 1), NOISE, output=output, axis="scale")
    assert report.kind == output
    assert report.settings.of_kind["map_kernel"] == report.settings.kernel == "sinc"
    assert report.equivariance_error.high < 1e-4
    assert report.curves["by_factor"].x == ["0.8 to 0.894", "0.894 to 1", "1 to 1.12", "1.12 to 1.25"]
    assert (report.settings.axis, report.settings.max_scale, report.settings.max_shift) == ("scale", 1.25, 0.0)


@pytest.mark.integration
def test_the_compiled_loop_compares_rescaled_maps_too(monkeypatch: pytest.MonkeyPatch) -> None:
    network, found = nn.Conv2d(1, 3, 3, 2, 1), []
    for values in (1, 1 << 20):
        monkeypatch.setattr(dense, "LOOP_FROM", values)
        found.append(measure_outputs(network, NOISE, output="map", axis="scale", input_size=48, pairs=1))
    for name, one in found[0].numbers.items():
        assert one.value == pytest.approx(found[1].numbers[name].value, rel=1e-4, abs=1e-7), name


def test_on_smooth_images_a_nonlinear_one_nearly_is_and_a_convolution_is_not() -> None:
    def error(*layers: nn.Module) -> float:
        found = measure_outputs(nn.Sequential(*layers), blobs(), output="map", axis="scale", max_scale=1.5)
        return found.equivariance_error.value

    torch.manual_seed(0)
    assert error(nn.Conv2d(3, 4, 1), nn.Tanh()) < 1e-2
    assert error(nn.Conv2d(3, 4, 9, padding=4, padding_mode="reflect")) > 0.05


@pytest.mark.parametrize("factor", [1.2, 1.6])
def test_the_error_is_that_of_another_interpolation(factor: float) -> None:
    """A map of stride 2, enlarged by scipy in float64, pixel by pixel where its neighbors lie on the map."""
    protocol = make_protocol("crop", (64, 64), factors=(1.0, factor), input_size=32)
    scene, pool = Scene(protocol, NOISE), nn.AvgPool2d(2)
    first, second = (pool(v)[:, 0].double().numpy() for v in (scene.unshifted(), scene.rescale(_f(factor), factor)))
    at = 7.5 + (np.arange(16) - 7.5) / factor
    expected = np.stack([map_coordinates(m, np.meshgrid(at, at, indexing="ij"), order=1) for m in first])
    error = np.square(expected - second).mean((1, 2))  # enlarged, so every pixel's neighbors lie on the map
    wanted = np.sqrt(error / expected.var((1, 2))).mean()
    plan = Plan("scale", Pairs(1, factor, factor, anchored=True))
    found = measure_outputs(pool, NOISE, output="map", plan=plan, map_kernel="bilinear", input_size=32)
    assert found.equivariance_error.value == pytest.approx(wanted, rel=1e-4)


def _f(factor: float) -> Tensor:
    return torch.full((len(NOISE),), factor)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["sinc", "lanczos3", "bicubic", "bilinear"]), st.floats(0.5, 2))
def test_pixels_of_the_region_depend_on_the_map_alone(kernel: str, factor: float) -> None:
    """What an infinite scene has around the map does not change the pixels of the region."""
    scene, by = torch.rand(1, 1, 100, 100, dtype=torch.float64), torch.tensor([factor], dtype=torch.float64)
    wanted = resample(scene, geometry.rescale(by, (100, 100)), kernel=kernel, padding="zeros")[..., 30:70, 30:70]
    found = moved(scene[..., 30:70, 30:70], torch.zeros(1, 2), kernel, circular=False, factor=by)
    mask = shared((40, 40), torch.zeros(1, 2), kernel, factor=by)
    assert torch.allclose(found[0, 0][mask[0]], wanted[0, 0][mask[0]], atol=1e-7)
    assert bool(mask.any()) or kernel == "sinc"


def test_a_smaller_map_leaves_less_room_for_a_wide_kernel() -> None:
    how = {"circular": False, "whole": False}
    found = [default_kernel((32, 32), (1, 1), 0.0, **how, smallest=smallest) for smallest in (1, 0.8, 0.6)]
    assert found == ["sinc", "lanczos3", "bicubic"]


def test_boxes_that_scale_with_the_image_are_kept() -> None:
    true = [{"boxes": one["boxes"], "labels": one["labels"]} for one in Moments(2.0)(blobs())]  # type: ignore[attr-defined]
    report = measure_outputs(Moments(2.0), blobs(), true, axis="scale", max_scale=1.3, kernel="lanczos3")
    assert report.kind == "detections"
    for name in ("lost", "new", "vanished", "appeared", "class_change"):
        assert getattr(report, name).value == 0, name
    assert report.box_iou.low > 0.99
    assert report.ap50.value == pytest.approx(1)
    assert report.statistics["first"].sum() == 12  # a mean over 4 pairs, so all of them counted
    fixed = measure_outputs(Moments(2.0, fixed=True), blobs(), axis="scale", max_scale=1.3)
    assert fixed.box_iou.high < 0.9


def test_keypoints_that_scale_with_the_image_have_no_error() -> None:
    report = measure_outputs(Moments(), blobs(), axis="scale", max_scale=1.3)
    assert report.kind == "keypoints"
    assert report.error.high < 0.02
    still = torch.tensor([[20.0, 30.0], [40.0, 31.0]])
    plan = Plan("scale", Pairs(1, 1.2, 1.2, anchored=True))
    found = measure_outputs(Returns(lambda x: still.expand(len(x), 2, 2)), NOISE, plan=plan, input_size=48)
    away = (still - 23.5).norm(dim=-1) * 0.2  # keypoints that never move
    assert found.error.value == pytest.approx(float(away.mean()), rel=1e-5)


@pytest.mark.parametrize("anchored", [True, False])
def test_embeddings_and_logits_are_compared_as_they_are(anchored: bool) -> None:
    plan = Plan("scale", Pairs(2, 1 / 1.5, 1.5, anchored=anchored))
    network = embedder(2)
    wanted = measure_invariance(network, NOISE, plan=plan)
    found = measure_outputs(network, NOISE, output="logits", plan=plan)
    assert found.js.value == pytest.approx(wanted.js.value)
    cosine = measure_outputs(network, NOISE, plan=plan).cosine
    assert 0 < cosine.value < 1


def test_factors_between_two_rescaled_views_are_their_ratio() -> None:
    plan = Plan("scale", Pairs(3, 1 / 1.2, 1.2))
    report = measure_outputs(nn.Conv2d(1, 3, 1), NOISE, output="map", plan=plan, map_kernel="bicubic", input_size=48)
    assert report.curves["by_factor"].x[0].startswith("0.694 to")  # 1 / 1.2 ** 2
    assert report.equivariance_error.value < 0.7, "interpolated twice, but at the same places"
    assert report.worst[0].factors[0] != 1 != report.worst[0].factors[1]


@pytest.mark.parametrize("output", ["map", "embedding", "detections", "keypoints"])
def test_a_stopped_measurement_goes_on_at_its_factors(output: str, tmp_path: Path) -> None:
    networks: dict[str, nn.Module] = {
        "map": nn.Conv2d(3, 3, 3, 2, 1),
        "embedding": nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "detections": Moments(2.0),
        "keypoints": Moments(),
    }
    plan = Plan("scale", Pairs(2, 0.8, 1.25, anchored=True))

    def begun() -> OutputMeasurement:
        made = OutputMeasurement(Network(networks[output]), plan, ProtocolOptions("crop", input_size=48), output=output)
        made.begin(blobs()[:1])
        return made

    halves = [(part, None) for part in blobs().split(2)]
    whole, stopped, resumed = begun(), begun(), begun()
    whole.run(halves)
    stopped.run(halves[:1])
    torch.save(stopped.state(), tmp_path / "state.pt")
    resumed.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    resumed.run(halves)
    assert resumed.report().to_dict() == whole.report().to_dict()
    assert whole.report().worst[0].factors[1] != 1


def test_a_factor_of_1_changes_nothing() -> None:
    report = measure_outputs(
        nn.Conv2d(1, 3, 3, 2, 1), NOISE, output="map", plan=Plan("scale", Pairs(2, 1.0, 1.0, anchored=True))
    )
    assert report.equivariance_error.value < 1e-5
    assert len(report.curves["by_factor"].x) == 1


def test_the_worst_case_is_drawn_at_its_factors() -> None:
    plan = Plan("scale", Pairs(2, 1 / 1.5, 1.5, anchored=True))
    network, protocol = Network(nn.Conv2d(1, 3, 3, 2, 1)), ProtocolOptions("crop", input_size=40)
    measurement = OutputMeasurement(network, plan, protocol, output="map")
    measurement.run([(NOISE, None)])
    worst = measurement.report().worst[:1]
    [picture] = measurement.pictures(worst, lambda numbers: NOISE[numbers])
    assert [caption for _, caption in picture.pictures][:2] == ["as it is", f"× {worst[0].factors[1]:.3g}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axis": "scal"}, "unknown axis 'scal'"),
        ({"axis": "scale", "max_scale": 1.0}, "max_scale: expected a factor above 1, got 1"),
        ({"axis": "scale", "quantum": None}, "max_shift and quantum belong to axis 'shift'"),
        ({"axis": "scale", "protocol": "circular"}, "a torus cannot be rescaled"),
        ({"axis": "scale", "max_scale": 9.0}, "max_scale: two views share no pixel of a map of"),
        ({"plan": Plan("scale", Pairs(2, 0.5, 2), scales=(2.0,))}, "plan: outputs are compared in pairs"),
    ],
)
def test_bad_input_is_one_line(options: dict[str, object], message: str) -> None:
    network: Callable[[Tensor], object] = lambda x: x  # noqa: E731
    with pytest.raises(InputError, match=message) as found:
        measure_outputs(Returns(network), NOISE, **options)  # type: ignore[arg-type]
    assert len(str(found.value).splitlines()) == 1
