"""The compiled comparison of maps gives the numbers of torch's, in float64 too."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dense_networks import Returns
from measured import photo_like

from augkit.architectures.folding import folded
from augkit.invariance import Network, Pairs, Plan
from augkit.invariance.outputs import OutputMeasurement, dense, measure_outputs
from augkit.invariance.outputs.map_loop import compare, exp_of, log_of, planar
from augkit.invariance.outputs.maps import MapMeasure
from augkit.invariance.outputs.regions import rectangles, shared
from augkit.invariance.protocols import ProtocolOptions


@pytest.mark.integration
def test_exponentials_and_logarithms_are_those_of_numpy_within_rounding() -> None:
    below = -np.concatenate([np.linspace(0, 1, 999), np.geomspace(1, 80, 999)]).astype(np.float32)
    wanted = np.exp(below.astype(np.float64))
    assert np.abs(np.array([exp_of(x) for x in below]) / wanted - 1).max() < 2e-7
    assert exp_of(np.float32(-1e30)) == pytest.approx(np.exp(-87.0), rel=1e-6)
    above = np.concatenate([np.geomspace(1.2e-38, 3e38, 2999), np.linspace(0.5, 2, 999)]).astype(np.float32)
    wanted = np.log(above.astype(np.float64))
    assert (np.abs(np.array([log_of(x) for x in above]) - wanted) <= 1e-7 + 2e-7 * np.abs(wanted)).all()


CASES = {
    "crop": {"protocol": "crop", "max_shift": 3.0},
    "circular": {"protocol": "circular", "max_shift": 3.0},
    "fractions": {"protocol": "crop", "max_shift": 2.0, "quantum": None, "border": 1.0},
    "values": {"protocol": "crop", "max_shift": 3.0, "scores": False},
}


@pytest.mark.integration
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("channels", [2, 7])
def test_the_loop_gives_the_numbers_of_torch_in_float64(
    case: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(channels)
    layer = torch.nn.Conv2d(1, channels, 3, padding=1)
    network = torch.nn.Sequential(layer, Returns(lambda x: 5 * x.relu() + 3)).eval()
    images = photo_like(3, 40) + 0.1 * torch.rand(3, 1, 40, 40)
    monkeypatch.setattr(dense, "LOOP_FROM", 1)
    calls = []
    by_loop = MapMeasure._by_loop
    monkeypatch.setattr(MapMeasure, "_by_loop", lambda *given: calls.append(1) or by_loop(*given))
    looped = measure_outputs(network, images, output="map", pairs=2, **CASES[case])
    assert calls
    calls.clear()
    exact = measure_outputs(network.double(), images.double(), output="map", pairs=2, **CASES[case])
    assert not calls
    assert set(looped.statistics) == set(exact.statistics)
    for name, wanted in exact.statistics.items():
        torch.testing.assert_close(looped.statistics[name], wanted, rtol=2e-4, atol=2e-5, msg=name)
    for name, wanted in exact.numbers.items():
        assert looped.numbers[name].value == pytest.approx(wanted.value, rel=1e-3, abs=1e-4), name
    assert [case.image for case in looped.worst] == [case.image for case in exact.worst]


@pytest.mark.integration
def test_maps_that_vary_little_about_a_large_value_keep_their_digits_and_empty_regions_count_nothing() -> None:
    maps = 1000 + 0.01 * torch.rand(2, 2, 12, 9)
    moves, places = torch.zeros(2, 2, dtype=torch.int64), torch.tensor([[0, 12, 0, 9], [3, 3, 0, 9]])
    found = compare(maps, maps + 0.5, moves, places, classes=True)
    assert found.energies[0, 0] == pytest.approx(0.25, rel=1e-4)
    wanted = maps[0].double().flatten(1).var(1, correction=0).mean()
    assert found.energies[0, 1] == pytest.approx(float(wanted), rel=1e-5)
    assert all(not bool(values[1].any()) for values in found)


def test_the_rectangle_of_a_region_is_where_its_pixels_are() -> None:
    moves = torch.tensor([[2.0, -1.0], [0.0, 0.0], [-7.0, 0.0], [0.5, 1.5]])
    masks = shared((8, 7), moves, "bicubic")
    for mask, (top, bottom, left, right) in zip(masks, rectangles(masks).tolist(), strict=True):
        wanted = torch.zeros(8, 7, dtype=torch.bool)
        wanted[top:bottom, left:right] = True
        assert torch.equal(mask, wanted)


@pytest.mark.integration
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 21, 64, 65), (3, 1, 4, 4), (2, 4, 1, 9), (0, 3, 4, 4)])
def test_planar_maps_have_the_same_values(shape: tuple[int, ...]) -> None:
    maps = torch.rand(shape)
    last = maps.contiguous(memory_format=torch.channels_last)
    wider = torch.rand(*shape[:3], shape[3] + 2).contiguous(memory_format=torch.channels_last)
    for given in (maps, last, wider[..., 1:-1], wider.transpose(2, 3)):
        found = planar(given)
        assert found.is_contiguous()
        assert torch.equal(found, given)
    assert planar(maps) is maps


@pytest.mark.integration
def test_a_network_that_runs_channels_last_with_folded_norms_has_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.BatchNorm2d(6), torch.nn.ReLU(), torch.nn.Conv2d(6, 5, 1)
    layers[1].running_var.fill_(0.3)
    monkeypatch.setattr(dense, "LOOP_FROM", 1)
    images, found, folds = photo_like(3, 40) + 0.1 * torch.rand(3, 1, 40, 40), [], list[int]()
    monkeypatch.setattr("augkit.invariance.network.folded", lambda pairs: folds.append(len(pairs)) or folded(pairs))
    for memory_format, fold in (("contiguous", False), ("channels_last", True)):
        network = Network(torch.nn.Sequential(*layers))
        network.use_memory_format(memory_format)
        network.use_folding(fold)
        measurement = OutputMeasurement(network, Plan(pairs=Pairs(2, -3.0, 3.0, quantum=1.0)), ProtocolOptions("crop"))
        measurement.run([(images, None)])
        found.append(measurement.report())
        assert found[-1].settings.folded is fold
    assert folds == [1]  # though hooks watch the layers while the kind of output is found
    for name, wanted in found[0].statistics.items():
        torch.testing.assert_close(found[1].statistics[name], wanted, rtol=2e-4, atol=2e-5, msg=name)
