"""Synthetic shapes for ``flicker.py``: disks, squares and triangles at sub-pixel places, on a background with clutter.

Shapes are drawn from signed distances, anti-aliased over one pixel, so that a place between pixels means something.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES = ("disk", "square", "triangle")
CELLS = 2  # shapes lie in a grid of cells, at most one in each, and do not overlap
BARS = 3  # thin bars per image: clutter that a detector has to learn to ignore
RADIUS = (5.0, 9.0)  # of the circle around a shape, pixels
PRESENT = 0.75  # share of cells with a shape
CONTRAST = (0.12, 0.5)
NOISE = 0.03


class Shapes(NamedTuple):
    """A batch of images with what is on them.

    Attributes:
        images: ``(B, 1, H, W)`` in [0, 1].
        classes: ``(B, H, W)`` int64; 0 is the background, 1 + k is class k.
        boxes: ``(B, N, 4)`` as x0, y0, x1, y1 along the edges of pixels.
        labels: ``(B, N)`` int64; -1 where a cell is empty.
    """

    images: Tensor
    classes: Tensor
    boxes: Tensor
    labels: Tensor


def draw(count: int, side: int, generator: torch.Generator) -> Shapes:
    """Draw ``count`` images of ``side`` pixels."""
    cells, shape = CELLS * CELLS, (count, CELLS * CELLS)
    kind = torch.randint(len(CLASSES), shape, generator=generator)
    radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * torch.rand(shape, generator=generator)
    angle = 2 * math.pi * torch.rand(shape, generator=generator)
    width = side / CELLS
    corner = torch.stack([torch.arange(cells) % CELLS, torch.arange(cells) // CELLS], dim=-1) * width - 0.5
    room = (width - 2 * radius - 1)[..., None]
    center = corner + radius[..., None] + 0.5 + room * torch.rand(*shape, 2, generator=generator)
    present = torch.rand(shape, generator=generator) < PRESENT
    cover, boxes = _shape(kind, center, radius, angle, side)
    cover = cover * present[..., None, None]
    strength = CONTRAST[0] + (CONTRAST[1] - CONTRAST[0]) * torch.rand(shape, generator=generator)
    sign = torch.where(torch.rand(shape, generator=generator) < 0.5, -1.0, 1.0)
    images = _background(count, side, generator) + (cover * (strength * sign)[..., None, None]).sum(1)
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    most, which = cover.max(1)
    classes = torch.where(most > 0.5, 1 + kind.gather(1, which.flatten(1)).view_as(which), 0)
    labels = torch.where(present, kind, -1)
    return Shapes(images.clamp(0, 1)[:, None], classes, boxes, labels)


def crop(shapes: Shapes, left: int, top: int, side: int) -> Shapes:
    """The window of ``side`` pixels whose first pixel is ``left, top``."""
    rows, columns = slice(top, top + side), slice(left, left + side)
    moved = shapes.boxes - torch.tensor([left, top, left, top])
    return Shapes(shapes.images[..., rows, columns], shapes.classes[:, rows, columns], moved, shapes.labels)


def _grid(side: int) -> Tensor:
    at = torch.arange(side, dtype=torch.float32)
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x, y], dim=-1)


def _turned(center: Tensor, angle: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Coordinates of all pixels in the frame of each shape, each ``(B, N, H, W)``."""
    away = _grid(side) - center[:, :, None, None]
    cos, sin = torch.cos(angle)[..., None, None], torch.sin(angle)[..., None, None]
    return away[..., 0] * cos + away[..., 1] * sin, away[..., 1] * cos - away[..., 0] * sin


def _shape(kind: Tensor, center: Tensor, radius: Tensor, angle: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Cover ``(B, N, H, W)`` in [0, 1] and boxes ``(B, N, 4)`` of shapes whose corners lie on their circles."""
    u, v = _turned(center, angle, side)
    r = radius[..., None, None]
    disk = (u * u + v * v).sqrt() - r
    square = torch.maximum(u.abs(), v.abs()) - r / math.sqrt(2)
    thirds = [2 * math.pi * k / 3 for k in range(3)]
    triangle = torch.stack([u * math.cos(a) + v * math.sin(a) for a in thirds]).amax(0) - r / 2
    distance = torch.where(kind[..., None, None] == 0, disk, torch.where(kind[..., None, None] == 1, square, triangle))
    # The corners of a triangle lie opposite its sides, at half a turn from their normals.
    reach = torch.stack([_reach(angle, 4, math.pi / 4), _reach(angle, 3, math.pi)])
    sides = torch.where((kind == 1)[..., None], reach[0], reach[1])
    sides = torch.where((kind == 0)[..., None], torch.tensor([-1.0, -1.0, 1.0, 1.0]), sides)
    boxes = torch.cat([center, center], dim=-1) + 0.5 + radius[..., None] * sides
    return (0.5 - distance).clamp(0, 1), boxes


def _reach(angle: Tensor, corners: int, first: float) -> Tensor:
    """Extremes x0, y0, x1, y1 of the corners of a polygon on the unit circle, turned by ``angle``: ``(B, N, 4)``."""
    at = angle[..., None] + first + 2 * math.pi / corners * torch.arange(corners)
    x, y = torch.cos(at), torch.sin(at)
    return torch.stack([x.amin(-1), y.amin(-1), x.amax(-1), y.amax(-1)], dim=-1)


def _background(count: int, side: int, generator: torch.Generator) -> Tensor:
    """Smooth random gray with thin bars, ``(count, side, side)``."""
    coarse = 0.5 + 0.12 * torch.randn(count, 1, 6, 6, generator=generator)
    gray = F.interpolate(coarse, size=(side, side), mode="bicubic", align_corners=False)[:, 0]
    shape = (count, BARS)
    center = side * torch.rand(*shape, 2, generator=generator)
    u, v = _turned(center, math.pi * torch.rand(shape, generator=generator), side)
    length = (4 + 8 * torch.rand(shape, generator=generator))[..., None, None]
    bars = (0.5 - torch.maximum(u.abs() - length, v.abs() - 0.8)).clamp(0, 1)
    strength = 0.5 * torch.rand(shape, generator=generator) - 0.25
    return gray + (bars * strength[..., None, None]).sum(1)
