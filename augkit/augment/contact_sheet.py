"""A contact sheet: one picture of images beside random augmentations of them."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from augkit.augment.policy import Policy

GAP = 2


def contact_sheet(policy: Policy, images: Tensor, *, draws: int = 9, seed: int = 0, zoom: int = 2) -> Image.Image:
    """Draw one row per image ``(N, C, H, W)`` uint8: the image, then ``draws`` random augmentations of it."""
    augment = policy.augment()
    rows = []
    for k in range(len(images)):
        copies = images[k : k + 1].expand(draws, -1, -1, -1).contiguous()
        out = augment(copies, generator=torch.Generator().manual_seed(seed + k))
        rows.append(torch.cat([images[k : k + 1], out]))
    return grid(torch.stack(rows), zoom)


def grid(tiles: Tensor, zoom: int = 1) -> Image.Image:
    """Draw tiles ``(rows, columns, C, H, W)`` uint8 with a gap between them, which is wider after the first column."""
    rows, columns, channels, height, width = tiles.shape
    sheet = torch.full((channels, rows * (height + GAP), columns * (width + GAP) + 2 * GAP), 255, dtype=torch.uint8)
    for r in range(rows):
        for c in range(columns):
            top, left = r * (height + GAP), c * (width + GAP) + (2 * GAP if c else 0)
            sheet[:, top : top + height, left : left + width] = tiles[r, c]
    array = sheet.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array[..., 0] if channels == 1 else array)
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)
