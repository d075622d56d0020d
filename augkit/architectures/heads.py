"""From maps to logits: global average, fully connected, spatial pyramid.

The heads differ in invariance. The global average is exactly invariant to circular shifts of its maps. A fully
connected head has a weight per position, so it can only learn invariance from data. The pyramid [He et al. 2014,
"Spatial Pyramid Pooling in Deep Convolutional Networks", https://arxiv.org/abs/1406.4729] lies between: its first
level is invariant, and a bin of level n covers 1/n of each side.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.core.errors import InputError, check_whole, unknown_name

HEADS = ("gap", "fc", "spp")
PYRAMID = (1, 2, 4)


class SpatialPyramidPool2d(nn.Module):
    """The maximum of every bin of an n x n grid, for each n of ``levels`` (He 2014, section 2.2).

    Maps ``(B, C, H, W)`` of any size become ``(B, C * sum(n * n))``: level by level, channels first within a level.

    Args:
        levels: bins per side n of each level.

    Raises:
        InputError: there is no level, or a level is below 1.

    >>> SpatialPyramidPool2d((1, 2, 4))(torch.rand(2, 8, 13, 9)).shape
    torch.Size([2, 168])
    """

    def __init__(self, levels: tuple[int, ...] = PYRAMID) -> None:
        super().__init__()
        if not levels:
            raise InputError(f"SpatialPyramidPool2d: expected levels, such as (1, 2, 4), got {levels}")
        for level in levels:
            check_whole("SpatialPyramidPool2d: levels", level, 1, optional=False)
        self.levels = tuple(levels)

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(maps, level).flatten(1) for level in self.levels], 1)

    def extra_repr(self) -> str:
        return f"levels={self.levels}"


def build_head(head: str, channels: int, num_classes: int, side: int | None = None) -> nn.Sequential:
    """Return layers that map ``(B, channels, H, W)`` to logits ``(B, num_classes)``.

    Args:
        head: ``gap`` (global average), ``fc`` (flatten; fixes H and W) or ``spp`` (spatial pyramid of 1, 2 and 4
            bins a side), each followed by one linear layer.
        channels, num_classes: sizes of the maps and of the logits.
        side: H = W of the maps; only ``fc`` needs it.

    Raises:
        InputError: the head is unknown, or ``fc`` has no side.

    >>> build_head("spp", 8, 10)(torch.rand(2, 8, 5, 6)).shape
    torch.Size([2, 10])
    """
    if head == "gap":
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
    if head == "spp":
        bins = sum(level**2 for level in PYRAMID)
        return nn.Sequential(SpatialPyramidPool2d(), nn.Linear(channels * bins, num_classes))
    if head != "fc":
        raise unknown_name("head", head, HEADS)
    if side is None:
        raise InputError("head 'fc': expected input_size, the side of the images in pixels, got None")
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * side * side, num_classes))
