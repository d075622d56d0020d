"""Pictures of boxes: the color of every kind, at the place of the box."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from augkit.invariance.outputs.box_changes import compare
from augkit.invariance.outputs.box_pictures import LOST, MATCHED, NEW, OTHER_CLASS, draw_changes
from augkit.invariance.outputs.boxes import Detections

SIZE = (64, 64)
PLACES = {"matched": (8, 8), "other": (40, 8), "lost": (8, 40), "new": (40, 40)}
COLORS = {"matched": MATCHED, "other": OTHER_CLASS, "lost": LOST, "new": NEW}


def detections(names: list[str], labels: list[int]) -> Detections:
    corner = np.array([PLACES[name] for name in names], dtype=float).reshape(-1, 2)
    return Detections(
        np.concatenate([corner, corner + 16], axis=1), np.full(len(names), 0.9), np.array(labels, dtype=int)
    )


@pytest.mark.parametrize("name", PLACES)
def test_a_box_is_drawn_in_its_color_where_it_is(name: str) -> None:
    first, second = (
        detections(["matched", "other", "lost"], [0, 0, 0]),
        detections(["matched", "other", "new"], [0, 1, 0]),
    )
    picture = draw_changes(torch.full((1, *SIZE), 0.5), compare(first, second, torch.eye(3), SIZE))
    factor = 4
    assert picture.shape == (3, 256, 256)
    color = (torch.tensor(COLORS[name]) / 255)[:, None, None]
    ys, xs = torch.nonzero(((picture - color).abs() < 0.01).all(0), as_tuple=True)
    x, y = (factor * v for v in PLACES[name])
    # The score above the box has the same color.
    assert (int(xs.min()), int(xs.max()), int(ys.max())) == (x, x + 16 * factor - 1, y + 16 * factor - 1)
    assert ((ys == y) & (xs > x + 20)).sum() > 30


def test_views_in_color_and_without_boxes_stay_as_they_are() -> None:
    view = torch.rand(3, 256, 256).mul(255).round() / 255
    nothing = detections([], [])
    torch.testing.assert_close(draw_changes(view, compare(nothing, nothing, torch.eye(3), (256, 256))), view)
