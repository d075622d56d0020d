"""Exactness of the networks, on logits: benchmarks/exactness.py at small widths, where the law is the same."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit.architectures import BlurPool2d

FILE = Path(__file__).parent.parent.parent / "benchmarks" / "exactness.py"


def load_benchmark():
    spec = importlib.util.spec_from_file_location("exactness_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


exactness = load_benchmark()
EXACT = [case for case in exactness.CASES if case.exact]
INEXACT = [case for case in exactness.CASES if not case.exact]
FEW = {"integer": [(1, 0), (-3, 5)], "half": [(0.5, -1.5)], "third": [(-1 / 3, 2 / 3)]}
named = {"ids": lambda value: getattr(value, "label", str(value))}


@pytest.fixture(autouse=True)
def _few_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exactness, "SHIFTS", FEW)


def measured(case, side: int, dtype: torch.dtype) -> dict[str, float]:
    rows = exactness.measure(case, side, dtype, width=4, images=2)
    return {row["shift"]: row["move"] for row in rows}


def check(case, side: int, dtype: torch.dtype) -> None:
    for kind, move in measured(case, side, dtype).items():
        if kind in case.exact:
            assert move < case.bounds[dtype], kind
        else:
            assert move > case.moves, f"{kind}: no guarantee is claimed, and there is none"


@pytest.mark.integration
@pytest.mark.parametrize("dtype", exactness.DTYPES, **named)
@pytest.mark.parametrize("side", [64, 96])
@pytest.mark.parametrize("case", [case for case in EXACT if case.kernel == "fourier"], **named)
def test_logits_do_not_move(case, side: int, dtype: torch.dtype) -> None:
    check(case, side, dtype)


@pytest.mark.parametrize("dtype", exactness.DTYPES, **named)
@pytest.mark.parametrize("side", [56, 72])
@pytest.mark.parametrize("label", ["ResNet-18, alias-free", "ConvNeXt, alias-free"])
def test_alias_free_networks_need_no_even_sizes(label: str, side: int, dtype: torch.dtype) -> None:
    check(next(case for case in EXACT if case.label == label), side, dtype)


def test_bilinear_fractions_of_a_pixel_are_no_shifts() -> None:
    (case,) = (case for case in EXACT if case.kernel == "bilinear")
    check(case, 64, torch.float64)


@pytest.mark.parametrize("case", [case for case in EXACT if case.odd_breaks], **named)
def test_logits_move_where_a_map_becomes_odd(case) -> None:
    assert min(measured(case, 72, torch.float64).values()) > case.moves  # 72, 36, 18, 9


@pytest.mark.parametrize("case", INEXACT, **named)
def test_logits_of_other_networks_move(case) -> None:
    assert min(measured(case, 64, torch.float32).values()) > case.moves


@pytest.mark.parametrize("stride", [2, 3])
def test_blur_pool_commutes_with_its_stride_and_not_with_one(stride: int) -> None:
    layer, images = BlurPool2d(3, 3, stride, "circular").double(), exactness.pictures(2, 24, 0)
    out = layer(images)
    for axis in (-2, -1):
        for k in (1, 5):
            torch.testing.assert_close(layer(images.roll(k * stride, axis)), out.roll(k, axis), atol=1e-13, rtol=0)
        moved = layer(images.roll(1, axis))
        nearest = min((moved - out.roll(k, axis)).abs().max().item() for k in range(out.shape[axis]))
        assert nearest > 0.05


# The measure itself


class FirstPixel(nn.Module):
    """Logits that are the first pixel of each channel, by way of a parameter that tells the dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, images: Tensor) -> Tensor:
        return images[..., 0, 0] * self.scale


def test_a_move_is_the_largest_change_in_units_of_the_spread() -> None:
    images = exactness.pictures(4, 12, 0)
    moves = exactness.moves(FirstPixel(), images, [(0, 0), (2, -3), (0.5, 0)])
    first = images[..., 0, 0]
    expected = [0.0, ((images[..., 3, -2] - first).abs().max() / first.std()).item()]
    assert moves[:2].tolist() == pytest.approx(expected)
    half = augkit.fourier_shift(images, torch.tensor([0.5, 0.0], dtype=torch.float64))[..., 0, 0]
    assert moves[2] == pytest.approx(((half - first).abs().max() / first.std()).item())


@pytest.mark.parametrize("side", [12, 15])
def test_pictures_have_no_frequency_that_a_fraction_of_a_pixel_would_lose(side: int) -> None:
    images = exactness.pictures(2, side, 0)
    assert images.std().item() == pytest.approx(1)
    there = exactness.shifted(images, (1 / 3, 0.5), "fourier")
    assert there.square().mean().item() == pytest.approx(images.square().mean().item())
    twice = exactness.shifted(exactness.shifted(there, (2 / 3, 0.5), "fourier"), (-1, -1), "fourier")
    torch.testing.assert_close(twice, images, atol=1e-12, rtol=0)
    assert (
        exactness.shifted(images, (0.5, 0), "bilinear") - exactness.shifted(images, (0.5, 0), "fourier")
    ).std() > 0.01


def test_calibration_gives_maps_of_unit_variance() -> None:
    images = exactness.pictures(8, 16, 0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)).double()
    out = exactness.calibrate(model, images)(images)
    assert not model.training
    torch.testing.assert_close(out.var((0, 2, 3), correction=0), torch.ones(4, dtype=torch.float64), atol=0.01, rtol=0)


def test_the_table_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(exactness, "CASES", EXACT[:1])
    monkeypatch.setattr(exactness, "SIZES", (32,))
    monkeypatch.setattr(exactness, "SHIFTS", {"integer": [(1, 0), (3, 2)]})
    exactness.main(["--quick", "--output", str(tmp_path)])
    results = json.loads((tmp_path / "exactness.json").read_text())
    assert {"command", "versions", "machine", "width", "shifts", "rows"} <= results.keys()
    assert [row["dtype"] for row in results["rows"]] == ["float32", "float64"]
    table = (tmp_path / "exactness.md").read_text()
    assert table.startswith("| network | shift | 32 px, float32 | 32 px, float64 |")
    assert EXACT[0].label in table
    assert table in capsys.readouterr().out
