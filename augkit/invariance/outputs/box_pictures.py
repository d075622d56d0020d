"""Pictures of boxes: lost ones in red, new ones in orange, matched ones in green, those of another class in violet."""

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

LOST, NEW, MATCHED, OTHER_CLASS = (213, 0, 0), (255, 145, 0), (0, 200, 83), (213, 0, 249)
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
                place, text = (x0, y0 - 11 if y0 > 11 else y1), f"{score:.2f}"
                pen.rectangle(pen.textbbox(place, text), fill=color)
                pen.text(place, text, fill=(255, 255, 255))
    return torch.from_numpy(np.array(picture)).movedim(-1, 0).float() / 255


def draw_changes(view: Tensor, changes: BoxChanges) -> Tensor:
    """Return the second view ``(C, H, W)`` with its boxes that count, and those of the first that are lost, moved."""
    pairs = changes.pairs_count()
    first, second = changes.pairs.first[pairs], changes.pairs.second[pairs]
    other = changes.moved.labels[first] != changes.fixed.labels[second]
    return draw_boxes(
        view,
        [
            Drawn(changes.fixed, second[~other], MATCHED),
            Drawn(changes.fixed, second[other], OTHER_CLASS),
            Drawn(changes.fixed, changes.new, NEW),
            Drawn(changes.moved, changes.lost, LOST),
        ],
    )
