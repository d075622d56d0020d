"""Boxes: reading them, moving them, matching them one to one, and what counts as lost or new."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from augkit.augment import geometry
from augkit.core.errors import InputError
from augkit.invariance.outputs.box_changes import DetectionSettings, compare, sums
from augkit.invariance.outputs.boxes import Detections, match, pairwise_iou, read_detections

SIZE = (40, 60)
STILL = torch.eye(3)


def detections(count: int, seed: int, *, classes: int = 2) -> Detections:
    """Random boxes on a view of `SIZE`, some of which overlap."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform([2, 2], [40, 20], (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(6, 16, (count, 2))], axis=1)
    return Detections(boxes, rng.uniform(0.1, 1, count), rng.integers(0, classes, count))


def shaken(found: Detections, seed: int, *, pixels: float = 1.5, keep: float = 0.8) -> Detections:
    """Some of the boxes, a little elsewhere and in another order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(found))[: max(1, round(keep * len(found)))]
    boxes = found.boxes[order] + rng.normal(0, pixels, (len(order), 4))
    labels = np.where(rng.random(len(order)) < 0.2, 1 - found.labels[order], found.labels[order])
    return Detections(boxes, np.clip(found.scores[order] + rng.normal(0, 0.2, len(order)), 0, 1), labels)


def as_dict(found: Detections) -> dict[str, torch.Tensor]:
    parts = (found.boxes, found.scores, found.labels)
    return dict(zip(("boxes", "scores", "labels"), map(torch.from_numpy, parts), strict=True))


def test_all_forms_read_alike() -> None:
    wanted = [detections(3, 0), detections(0, 1), detections(5, 2)]
    rows = [torch.from_numpy(np.column_stack([d.boxes, d.scores, d.labels])) for d in wanted]
    objects = [SimpleNamespace(boxes=SimpleNamespace(xyxy=r[:, :4], conf=r[:, 4], cls=r[:, 5])) for r in rows]
    padded = torch.zeros(3, 5, 6, dtype=torch.float64)
    for row, each in zip(padded, rows, strict=True):
        row[: len(each)] = each
    dicts = [as_dict(d) for d in wanted]
    for output in (dicts, rows, objects, ({"loss": torch.zeros(())}, dicts)):
        for found, true in zip(read_detections(output, 3), wanted, strict=True):
            np.testing.assert_array_equal(found.boxes, true.boxes)
            np.testing.assert_array_equal(found.scores, true.scores)
            np.testing.assert_array_equal(found.labels, true.labels)
    assert [len(found) for found in read_detections(padded, 3)] == [5, 5, 5]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(2, 5), "expected detections, got a tensor (5,) of an image"),
        (7, "expected detections, got int"),
        ([{"boxes": torch.zeros(2, 4)}] * 2, "expected detections, got dict"),
        ([as_dict(detections(2, 0))], "expected the detections of 2 images, got those of 1"),
        ([{**as_dict(detections(2, 0)), "scores": torch.zeros(3)}] * 2, "got (2, 4), (3,), (2,)"),
        ([torch.full((1, 6), torch.nan)] * 2, "expected finite boxes and scores"),
        # As x, y, width, height: half of such boxes look turned.
        ([torch.tensor([[30.0, 5.0, 8.0, 8.0, 0.9, 1.0], [3.0, 2.0, 9.0, 9.0, 0.9, 1.0]])] * 2, "got 50 % of boxes"),
    ],
)
def test_other_outputs_are_one_line(output: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_detections(output, 2)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_few_turned_boxes_of_a_detector_are_no_error() -> None:
    rows = torch.tensor([[3.0, 2.0, 9.0, 9.0, 0.9, 1.0]]).repeat(20, 1)
    rows[0, 2] = 1.0
    assert [len(found) for found in read_detections([rows, rows], 2)] == [20, 20]


def test_iou_is_that_of_torchvision() -> None:
    a, b = detections(7, 0).boxes, detections(9, 1).boxes
    np.testing.assert_allclose(pairwise_iou(a, b), box_iou(torch.tensor(a), torch.tensor(b)).numpy(), atol=1e-12)


def test_iou_on_a_torus_is_that_of_the_nearest_copy() -> None:
    a = np.array([[58.0, 4, 64, 10]])  # across the right edge of 60
    b = np.array([[-2.0, 4, 4, 10], [-2, 44, 4, 50], [10, 4, 16, 10]])
    np.testing.assert_allclose(pairwise_iou(a, b, SIZE), [[1, 1, 0]])
    assert pairwise_iou(a, b).max() == 0


def best_total(overlap: np.ndarray, allowed: np.ndarray) -> float:
    """The greatest total of a one-to-one matching, by trying all of them."""
    rows, columns = overlap.shape
    if rows > columns:
        return best_total(overlap.T, allowed.T)
    weight = np.where(allowed, overlap, 0)
    return max(weight[range(rows), list(p)].sum() for p in itertools.permutations(range(columns), rows))


@given(st.integers(1, 5), st.integers(0, 10_000))
def test_matching_has_the_greatest_total_iou_within_classes_and_then_across(count: int, seed: int) -> None:
    first = detections(count, seed)
    second = shaken(first, seed + 1)
    found = match(first, second, 0.3)
    assert len(set(found.first)) == len(found.first) == len(set(found.second))
    overlap = pairwise_iou(first.boxes, second.boxes)
    assert (found.iou >= 0.3).all()
    same = first.labels[found.first] == second.labels[found.second]
    alike = (overlap >= 0.3) & (first.labels[:, None] == second.labels)
    assert found.iou[same].sum() == pytest.approx(best_total(overlap, alike))
    rest = np.ix_(
        np.setdiff1d(range(len(first)), found.first[same]), np.setdiff1d(range(len(second)), found.second[same])
    )
    if overlap[rest].size:
        across = (overlap >= 0.3)[rest]
        assert found.iou[~same].sum() == pytest.approx(best_total(overlap[rest], across))


def test_a_box_of_its_class_is_the_partner_even_if_another_overlaps_more() -> None:
    first = Detections(np.array([[10.0, 10, 20, 20]]), np.ones(1), np.array([1]))
    second = Detections(np.array([[10.0, 10, 20, 20], [11, 10, 21, 20]]), np.ones(2), np.array([0, 1]))
    assert match(first, second).second.tolist() == [1]


@given(st.integers(0, 8), st.integers(0, 10_000))
def test_order_changes_nothing_and_swapping_views_swaps_lost_and_new(count: int, seed: int) -> None:
    first, second = detections(count, seed), shaken(detections(max(count, 1), seed), seed + 1)
    matrix = geometry.shift(torch.tensor([[1.0, -2.0]], dtype=torch.float64))[0]
    found = sums(compare(first, second, matrix, SIZE))
    rng = np.random.default_rng(seed)
    mixed = []
    for one in (first, second):
        order = rng.permutation(len(one))
        mixed.append(Detections(one.boxes[order], one.scores[order], one.labels[order]))
    assert sums(compare(*mixed, matrix, SIZE)) == pytest.approx(found)
    swapped = sums(compare(second, first, matrix.inverse(), SIZE))
    other = {"lost": "new", "vanished": "appeared", "first": "second"}
    other |= {b: a for a, b in other.items()}
    for name, value in found.items():
        assert swapped[other.get(name, name)] == pytest.approx(value), name
    assert found["vanished"] <= found["lost"] <= found["first"]


def test_a_moved_copy_changes_nothing_at_all() -> None:
    first = detections(6, 3)
    move = torch.tensor([[3.0, 1.5]], dtype=torch.float64)
    second = Detections(first.boxes + np.array([3, 1.5, 3, 1.5]), first.scores, first.labels)
    found = sums(compare(first, second, geometry.shift(move)[0], SIZE, DetectionSettings(box_score=0.0)))
    assert found["first"] == found["second"] == found["pairs"] > 0
    assert found["iou"] == pytest.approx(found["pairs"])
    for name in ("lost", "new", "vanished", "appeared", "class_changed", "score_difference", "relative"):
        assert found[name] == pytest.approx(0, abs=1e-12), name


def test_a_lost_box_vanishes_only_if_it_has_no_partner_of_any_score() -> None:
    first = Detections(np.array([[5.0, 5, 15, 15], [25, 5, 35, 15]]), np.array([0.9, 0.35]), np.array([0, 0]))
    second = Detections(np.array([[25.0, 5, 35, 15]]), np.array([0.25]), np.array([0]))
    found = compare(first, second, STILL, SIZE)
    assert found.lost.tolist() == [True, True]
    assert found.vanished.tolist() == [True, False]
    assert found.new.tolist() == [False]  # it is below the threshold
    lower = compare(first, second, STILL, SIZE, DetectionSettings(box_score=0.2))
    assert lower.lost.tolist() == lower.vanished.tolist() == [True, False]


def test_boxes_that_an_edge_cuts_in_either_view_do_not_count() -> None:
    # Moved by (4, 0): the first box leaves on the right, the second would have come in from the left.
    first = Detections(np.array([[45.0, 5, 58, 15], [20, 5, 30, 15]]), np.ones(2), np.zeros(2, dtype=int))
    second = Detections(np.array([[2.0, 5, 12, 15]]), np.ones(1), np.zeros(1, dtype=int))
    matrix = geometry.shift(torch.tensor([[4.0, 0.0]]))[0]
    found = compare(first, second, matrix, SIZE)
    assert found.counts_first.tolist() == [False, True]
    assert found.counts_second.tolist() == [False]
    assert found.lost.tolist() == [False, True]
    on_torus = compare(first, second, matrix, SIZE, torus=True)
    assert on_torus.counts_first.tolist() == [False, True]  # the seam cuts it: 49 to 62 of 60
    assert on_torus.counts_second.tolist() == [False]


def test_a_partner_needs_not_count_itself() -> None:
    first = Detections(np.array([[1.5, 5, 12, 15]]), np.ones(1), np.zeros(1, dtype=int))
    second = Detections(np.array([[0.0, 5, 12, 15]]), np.ones(1), np.zeros(1, dtype=int))
    found = compare(first, second, STILL, SIZE)
    assert found.counts_first.tolist() == [True]
    assert found.counts_second.tolist() == [False]
    assert not found.lost.any()
    assert sums(found)["pairs"] == 1


def test_equivariance_error_is_relative_to_the_box_about_its_center() -> None:
    first = Detections(np.array([[10.0, 10, 20, 30]]), np.ones(1), np.zeros(1, dtype=int))
    second = Detections(first.boxes + 1.0, first.scores, first.labels)
    found = sums(compare(first, second, STILL, SIZE))
    # Corners are 5 and 10 pixels from the center: 1 / sqrt((25 + 100) / 2).
    assert found["relative"] == pytest.approx(1 / np.sqrt(62.5))


@pytest.mark.parametrize(
    "wrong", [{"box_iou": 0.0}, {"box_iou": 1.5}, {"box_border": -1.0}, {"box_score": float("nan")}]
)
def test_settings_out_of_range_are_one_line(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))}: expected"):
        DetectionSettings(**wrong)
