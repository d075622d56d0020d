"""Embeddings and detections as metrics of torchmetrics: uneven batches give the numbers of measure_outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measured import photo_like
from torch import Tensor, nn
from torchmetrics import MetricCollection

import augkit
from augkit.adapters.torchmetrics_outputs import DetectionChange, EmbeddingCosine, NeighborChange
from augkit.core.errors import InputError, InputTypeError
from augkit.invariance.plan import Pairs, Plan

STEP = (1.0, -2.0)
PLAN = Plan(pairs=Pairs(1, 0, 0, step=STEP))
IMAGES = photo_like(7, 36)
VIEWS = IMAGES[..., 2:34, 2:34], IMAGES[..., 4:36, 1:33]
BATCHES = (slice(0, 2), slice(2, 7))


def embedder() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 6, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()).eval()


class Detector(nn.Module):
    """Boxes at the brightest pixels of a coarse map, which jump by its stride."""

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        coarse = images[:, 0, ::3, ::3].flatten(1)
        scores, places = coarse.topk(6)
        width = -(-images.shape[-1] // 3)
        corners = torch.stack([places % width, places // width], dim=-1) * 3.0
        boxes = torch.cat([corners - 4, corners + 4 + scores[..., None]], dim=-1)
        found = zip(boxes, scores, places % 2 + 1, strict=True)
        return [{"boxes": box, "scores": score, "labels": label} for box, score, label in found]


def test_uneven_batches_of_embeddings_give_the_numbers_of_measure_outputs() -> None:
    network, gallery = embedder(), torch.rand(9, 24)
    report = augkit.measure_outputs(network, IMAGES, plan=PLAN, gallery=gallery, neighbors=1, output="embedding")
    metrics = MetricCollection({"cosine": EmbeddingCosine(), "change": NeighborChange(gallery)})
    with torch.no_grad():
        for rows in BATCHES:
            metrics.update(*(network(view[rows]) for view in VIEWS))
    found = metrics.compute()
    assert found["cosine"].item() == pytest.approx(report.cosine.value, rel=1e-5)
    assert found["change"].item() == pytest.approx(report.neighbour_change.value)
    assert report.cosine.value < 0.9999


@pytest.mark.parametrize("options", [{}, {"box_score": 0.4, "box_iou": 0.2, "box_border": 2.0}])
def test_uneven_batches_of_detections_give_the_numbers_of_measure_outputs(options: dict[str, float]) -> None:
    report = augkit.measure_outputs(Detector(), IMAGES, plan=PLAN, **options)
    assert report.kind == "detections"
    metric = DetectionChange((32, 32), **options)
    for rows in BATCHES:
        moves = torch.tensor([STEP]).expand(7, 2)[rows]
        metric.update(*(Detector()(view[rows]) for view in VIEWS), moves)
    found = metric.compute()
    assert set(found) == set(report.numbers) >= {"lost", "new", "class_change", "box_iou"}
    for name in found:
        assert found[name].item() == pytest.approx(report.numbers[name].value, rel=1e-6, nan_ok=True), name
    assert found["lost"] + found["class_change"] > 0


def test_a_detector_that_finds_nothing_has_no_numbers_and_still_boxes_no_change() -> None:
    metric = DetectionChange((32, 32), circular=True)
    nothing = [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}]
    metric.update(nothing, nothing, torch.zeros(1, 2))
    assert all(value.isnan() for value in metric.compute().values())
    boxes = Detector()(VIEWS[0])
    metric.update(boxes, boxes, torch.zeros(7, 2))
    found = metric.compute()
    assert (found["lost"], found["new"], found["box_iou"], found["equivariance_error"]) == (0, 0, 1, 0)
    metric.reset()
    metric.update(nothing, nothing, torch.zeros(1, 2))
    assert metric.compute()["lost"].isnan()


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((torch.rand(3, 4), torch.rand(2, 4)), InputError, "expected embeddings of one shape"),
        ((torch.rand(3, 4, 2), torch.rand(3, 4, 2)), InputTypeError, r"expected floating embeddings \(B, D\)"),
        ((torch.ones(3, 4).long(), torch.rand(3, 4)), InputTypeError, "int64"),
        ((torch.rand(3, 4) / 0, torch.rand(3, 4)), InputError, "expected finite values"),
        ((torch.rand(3, 5), torch.rand(3, 5)), InputError, "expected 4 dimensions, got 5"),
    ],
)
def test_bad_embeddings_are_one_line(given: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        NeighborChange(torch.rand(3, 4)).update(*given)


def test_bad_galleries_boxes_and_moves_are_one_line() -> None:
    with pytest.raises(InputTypeError, match=r"gallery: expected floating embeddings \(G, D\)"):
        NeighborChange(torch.rand(1, 4))
    with pytest.raises(InputError, match="box_iou: expected a number in"):
        DetectionChange((8, 8), box_iou=2.0)
    metric = DetectionChange((32, 32))
    with pytest.raises(InputError, match="pixels: expected finite values"):
        metric.update([], [], torch.full((1, 2), torch.nan))
    with pytest.raises(InputTypeError, match=r"pixels: expected floating \(B, 2\), got torch.float32 \(7,\)"):
        metric.update([], [], torch.zeros(7))
    with pytest.raises(InputError):
        metric.update(Detector()(VIEWS[0]), Detector()(VIEWS[1]), torch.zeros(6, 2))
