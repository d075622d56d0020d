"""The shapes, the decoding and the matching of accuracy of benchmarks/flicker.py, and what its results say."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parent.parent.parent / "benchmarks"
RESULTS: dict[str, Any] = json.loads((BENCHMARKS / "results" / "flicker.json").read_text())


@pytest.fixture(scope="module")
def modules() -> dict[str, Any]:
    sys.path.insert(0, str(BENCHMARKS))
    try:
        names = ("shapes", "networks", "report")
        return {name: importlib.import_module(f"flicker_{name}") for name in names}
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_boxes_are_those_of_the_drawn_shapes(modules: dict[str, Any]) -> None:
    found = modules["shapes"].draw(6, 80, torch.Generator().manual_seed(0))
    side = 80 // modules["shapes"].CELLS
    seen = 0
    for n in range(6):
        for k, (box, label) in enumerate(zip(found.boxes[n], found.labels[n].tolist(), strict=True)):
            top, left = side * (k // 2), side * (k % 2)
            cell = found.classes[n, top : top + side, left : left + side]
            if label < 0:
                assert not cell.any()
                continue
            y, x = torch.nonzero(cell, as_tuple=True)
            assert set(cell[y, x].tolist()) == {label + 1}
            edges = torch.stack([x.min() + left, y.min() + top, x.max() + left + 1, y.max() + top + 1])
            # A corner fills few pixels by half, so the mask may end before the box does.
            assert ((edges - box) * torch.tensor([1, 1, -1, -1]) > -0.6).all()
            assert (edges - box).abs().max() < 2.5
            seen += 1
    assert seen > 8


def test_maps_that_are_right_decode_to_the_true_boxes(modules: dict[str, Any]) -> None:
    networks = modules["networks"]
    box = torch.tensor([18.3, 21.0, 34.3, 41.0])
    maps = torch.full((1, 7, 16, 16), -6.0)
    center = networks.cells(maps)[0]
    middle = (box[:2] + box[2:]) / 2
    maps[0, 1] = 4 - 0.1 * ((center - middle[:, None, None]) ** 2).sum(0)
    sides = torch.cat([center - box[:2, None, None], box[2:, None, None] - center]) / networks.STRIDE
    maps[0, 3:] = torch.log(torch.expm1(sides.clamp(min=1e-3)))  # the inverse of softplus
    [found] = networks.decode(maps)
    assert found["labels"][0] == 1
    torch.testing.assert_close(found["boxes"][0], box, atol=1e-3, rtol=0)


def test_blur_pooling_is_the_only_difference_between_the_networks(modules: dict[str, Any]) -> None:
    a, b = (modules["networks"].Detector(kind) for kind in modules["networks"].POOLS)
    assert [p.shape for p in a.parameters()] == [p.shape for p in b.parameters()]
    images = torch.rand(2, 1, 32, 32)
    assert a(images).shape == b(images).shape == (2, 7, 8, 8)


def test_numbers_are_read_between_checkpoints(modules: dict[str, Any]) -> None:
    rows = [{"accuracy": a, "lost": v, "new": v} for a, v in ((0.5, 0.4), (0.7, 0.2), (0.9, 0.1))]
    at = modules["report"].at_accuracy
    assert at(rows, 0.8, "flicker") == (pytest.approx(0.15), True)
    assert at(rows, 0.7, "flicker")[0] == pytest.approx(0.2)
    assert at(rows, 0.3, "flicker") == (0.4, False)


def test_the_table_is_that_of_the_rows(modules: dict[str, Any]) -> None:
    assert modules["report"].markdown(RESULTS) == (BENCHMARKS / "results" / "flicker.md").read_text()
    both = (modules["report"].summary(RESULTS["rows"]), RESULTS["summary"])
    flicker = [found["detector"]["shifts"]["1"]["flicker"]["difference"]["value"] for found in both]
    assert flicker[0] == pytest.approx(flicker[1])
    assert RESULTS["seeds"] >= 5


def test_blur_pooling_removes_most_of_the_flicker_and_not_all(modules: dict[str, Any]) -> None:
    for task, name in (("detector", "flicker"), ("segmenter", "pixel_top1_change")):
        for found in (RESULTS["summary"][task]["shifts"]["1"][name], RESULTS["summary"][task]["matched"][name]):
            assert found["difference"]["high"] < 0, task
            assert found["blurpool"]["low"] > 0, task
