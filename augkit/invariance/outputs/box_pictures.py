"""Pictures of boxes: lost ones in red, new ones in orange, matched ones in green."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from augkit.invariance.outputs.box_changes import BoxChanges
from augkit.invariance.outputs.boxes import Detections
from augkit.invariance.outputs.pictures import SIDE, in_color

LOST, NEW, MATCHED, OUT = (213, 0, 0), (255, 145, 0), (0, 200, 83), (150, 150, 150)
PLAIN = (41, 182, 246)
WIDTH = 2  # of a line, pixels of the picture


class Drawn(NamedTuple):
    """Some boxes and their color; ``which`` are indices or bool ``(N,)``."""

    boxes: Detections
    which: np.ndarray
    color: tuple[int, int, int]


def draw_boxes(view: Tensor, drawn: Iterable[Drawn]) -> Tensor:
    """Return a view ``(C, H, W)`` in [0, 1], enlarged by a whole factor if it is small, with boxes and their scores."""
    factor = max(1, SIDE // max(view.shape[-2:]))
    pixels = in_color(view).repeat_interleave(factor, -1).repeat_interleave(factor, -2)
    picture = Image.fromarray((pixels * 255).round().byte().movedim(0, -1).contiguous().numpy())
    pen = ImageDraw.Draw(picture)
    for boxes, which, color in drawn:
        for box, score in zip(boxes.boxes[which], boxes.scores[which], strict=True):
            x0, y0, x1, y1 = (float(v) * factor for v in box)
            if x1 > x0 and y1 > y0:
                pen.rectangle((x0, y0, x1 - 1, y1 - 1), outline=color, width=WIDTH)
                pen.text((x0 + 1, y0 - 11 if y0 > 11 else y1 + 1), f"{score:.2f}", fill=color)
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255


def draw_detections(first: Tensor, second: Tensor, changes: BoxChanges, back: BoxChanges) -> tuple[Tensor, Tensor]:
    """Return both views ``(C, H, W)`` of an image with their boxes.

    Lost boxes are red and stand in both views, in the second where they would be; new ones are orange, likewise;
    matched ones are green. Boxes that do not count are left out.

    Args:
        first, second: the views.
        changes: from the first to the second view.
        back: from the second to the first.
    """
    return draw_changes(first, back, swapped=True), draw_changes(second, changes)


def draw_changes(view: Tensor, changes: BoxChanges, *, swapped: bool = False) -> Tensor:
    """Return the second view ``(C, H, W)`` with its boxes and those of the first that are lost, moved into it.

    Args:
        view: the second view.
        changes: from the first view to this one.
        swapped: the second view is the earlier one, so that lost and new change places.
    """
    lost, new = (NEW, LOST) if swapped else (LOST, NEW)
    pairs = changes.pairs.second[changes.pairs_count()]
    return draw_boxes(
        view,
        [
            Drawn(changes.fixed, pairs, MATCHED),
            Drawn(changes.fixed, changes.new, new),
            Drawn(changes.moved, changes.lost, lost),
        ],
    )
