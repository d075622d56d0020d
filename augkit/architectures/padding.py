"""Padding of maps that may be smaller than the padding."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.augment.kernels import padded_index

PADDED_INDEX = {"circular": "circular", "reflect": "reflection", "replicate": "border"}


def pad(maps: Tensor, pads: tuple[int, int, int, int], mode: str) -> Tensor:
    """Pad maps by (left, right, top, bottom) pixels as `torch.nn.functional.pad`, but also by more than their size.

    >>> pad(torch.tensor([[[[1.0, 2.0]]]]), (3, 0, 0, 0), "circular").tolist()
    [[[[2.0, 1.0, 2.0, 1.0, 2.0]]]]
    """
    height, width = maps.shape[-2:]
    if not any(pads):
        return maps
    own = int(mode == "reflect")  # a reflection does not repeat the border pixel
    if mode == "constant" or (max(pads[:2]) <= width - own and max(pads[2:]) <= height - own):
        return F.pad(maps, pads, mode=mode)
    for dim, side, before, after in ((-1, width, *pads[:2]), (-2, height, *pads[2:])):
        index = torch.arange(-before, side + after, device=maps.device)
        maps = maps.index_select(dim, padded_index(index, side, PADDED_INDEX[mode]))
    return maps
