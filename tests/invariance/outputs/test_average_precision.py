"""Average precision against a slow reference, against COCO's own code where it is installed, and by its laws."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from augkit.core.errors import InputError
from augkit.invariance.outputs.average_precision import IOUS, Targets, ViewScores, over_views, read_targets
from augkit.invariance.outputs.boxes import Detections

SIZE = (80, 80)
Scene = tuple[Detections, Targets]


def scenes(count: int, seed: int = 0) -> list[Scene]:
    """True boxes of 3 classes, and detections: some near them, some of another class, some anywhere."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        corner = rng.uniform(1, 50, (rng.integers(0, 5), 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 28, corner.shape)], axis=1)
        labels = rng.integers(0, 3, len(boxes))
        again = rng.integers(0, max(len(boxes), 1), 6 if len(boxes) else 0)
        near = boxes[again] + rng.normal(0, 2, (len(again), 4))
        anywhere = rng.uniform(0, 40, (2, 2))
        found = np.concatenate([near, np.concatenate([anywhere, anywhere + 20], axis=1)])
        classes = np.where(rng.random(len(found)) < 0.2, rng.integers(0, 3, len(found)), [*labels[again], 0, 1])
        out.append((Detections(found, rng.random(len(found)).round(3), classes), Targets(boxes, labels)))
    return out


def view(of: list[Scene]) -> ViewScores:
    out = ViewScores()
    for image, (found, targets) in enumerate(of):
        out.add(image, found, targets, SIZE)
    return out


def slow_precision(of: list[Scene], least: float) -> float:
    """AP at one IoU, written down as it is defined: plain lists, one detection after the other."""
    per_class = []
    for label in range(3):
        total = sum(int(label == each) for _, targets in of for each in targets.labels)
        if not total:
            continue
        rows = [
            (score, image, box)
            for image, (found, _) in enumerate(of)
            for score, box, own in zip(found.scores, found.boxes, found.labels, strict=True)
            if own == label
        ]
        taken: set[tuple[int, int]] = set()
        right: list[bool] = []
        for _, image, box in sorted(rows, key=lambda row: -row[0]):
            targets = of[image][1]
            best, which = least, -1
            for g, (true, own) in enumerate(zip(targets.boxes, targets.labels, strict=True)):
                iou = float(box_iou(torch.tensor(box)[None], torch.tensor(true)[None]))
                if own == label and (image, g) not in taken and iou >= best:
                    best, which = iou, g
            right.append(which >= 0)
            taken |= {(image, which)} if which >= 0 else set()
        points = []
        for k in range(len(right)):
            hits = sum(right[: k + 1])
            points.append((hits / total, hits / (k + 1)))
        at = [max((p for r, p in points if r >= recall), default=0.0) for recall in np.linspace(0, 1, 101)]
        per_class.append(sum(at) / 101)
    return sum(per_class) / len(per_class)


def test_against_the_definition() -> None:
    of = scenes(12)
    found = view(of).precision(np.ones((1, 12)))[0]
    for k in (0, 4, 9):
        assert found[k] == pytest.approx(slow_precision(of, IOUS[k]), abs=1e-12)
    assert 0.2 < found[0] < 0.9
    assert (np.diff(found) <= 1e-12).all()


@pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="needs pycocotools")
def test_against_coco() -> None:
    from torchmetrics.detection import MeanAveragePrecision

    of, metric = scenes(60, 1), MeanAveragePrecision()
    for found, targets in of:
        boxes, scores, labels = map(torch.from_numpy, (found.boxes, found.scores, found.labels))
        true = {"boxes": torch.from_numpy(targets.boxes), "labels": torch.from_numpy(targets.labels)}
        metric.update([{"boxes": boxes.float(), "scores": scores.float(), "labels": labels}], [true])
    wanted, found = metric.compute(), over_views([view(of)], np.ones((1, 60)))
    assert found["ap50"][0] == pytest.approx(float(wanted["map_50"]), abs=1e-5)
    assert found["ap"][0] == pytest.approx(float(wanted["map"]), abs=1e-5)


def test_a_weight_of_two_is_an_image_twice() -> None:
    of = scenes(6, 2)
    weights = np.array([[2.0, 0, 1, 1, 0, 2]])
    # The copies share their scores, so all copies of a detection must come in a row, as they do by weight.
    repeated = [of[k] for k in (0, 0, 2, 3, 5, 5)]
    found = view(of).precision(weights)
    np.testing.assert_allclose(found, view(repeated).precision(np.ones((1, 6))), atol=0.02)
    np.testing.assert_allclose(view(of).precision(np.eye(6))[2], view([of[2]]).precision(np.ones((1, 1)))[0])


def test_perfect_detections_score_one_and_none_score_zero() -> None:
    of = scenes(5, 3)
    perfect = [(Detections(t.boxes, np.ones(len(t.labels)), t.labels), t) for _, t in of]
    nothing = [(Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, dtype=np.int64)), t) for _, t in of]
    assert view(perfect).precision(np.ones((1, 5))) == pytest.approx(1)
    assert view(nothing).precision(np.ones((1, 5))) == pytest.approx(0)
    without = [(found, Targets(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))) for found, _ in of]
    assert np.isnan(view(without).precision(np.ones((1, 5)))).all()


def test_a_detection_on_a_target_that_the_edge_cuts_counts_neither_way() -> None:
    whole, cut = np.array([10.0, 10, 30, 30]), np.array([70.0, 10, 90, 30])
    targets = Targets(np.stack([whole, cut]), np.zeros(2, dtype=np.int64))
    labels = np.zeros(2, dtype=np.int64)
    on_cut = Detections(np.stack([[70.0, 10, 80, 30], whole]), np.array([0.9, 0.8]), labels)
    elsewhere = Detections(np.stack([[50.0, 50, 60, 60], whole]), np.array([0.9, 0.8]), labels)
    scores = {}
    for name, found in (("cut", on_cut), ("elsewhere", elsewhere)):
        scores[name] = view([(found, targets)]).precision(np.ones((1, 1)))[0, 0]
    assert scores == pytest.approx({"cut": 1.0, "elsewhere": 0.5})


def test_spread_is_between_views() -> None:
    of = scenes(8, 4)
    worse = [(Detections(found.boxes + 6, found.scores, found.labels), targets) for found, targets in of]
    views = [view(of), view(worse)]
    each = [one.precision(np.ones((1, 8)))[0] for one in views]
    found = over_views(views, np.ones((1, 8)))
    assert found["ap50_spread"][0] == pytest.approx(abs(each[0][0] - each[1][0]))
    assert found["ap"][0] == pytest.approx(np.mean(each))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(2), "got Tensor"),
        ([{}], "got 1"),
        ([{"boxes": torch.zeros(1, 4)}] * 2, "got dict"),
        ([{"boxes": torch.zeros(1, 4), "labels": torch.zeros(2)}] * 2, "got (1, 4) and (2,)"),
        ([{"boxes": torch.full((1, 4), torch.inf), "labels": torch.zeros(1)}] * 2, "finite boxes"),
        ([{"boxes": torch.tensor([[30.0, 5, 8, 8]]), "labels": torch.zeros(1)}] * 2, "x0, y0, x1, y1 with x0 <= x1"),
    ],
)
def test_other_labels_are_one_line(labels: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_targets(labels, 2)
    assert message in str(caught.value)


def test_targets_without_boxes_are_read() -> None:
    found = read_targets([{"boxes": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}], 1)
    assert found[0].boxes.shape == (0, 4)
