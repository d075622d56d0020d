"""Networks with polyphase sampling keep their logits under shifts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from sampled import Block
from torch import nn

from augkit.architectures import (
    AdaptivePolyphaseSampling,
    BlurPool2d,
    LearnablePolyphaseSampling,
)

NETWORKS: dict[str, Callable[[int], nn.Module] | None] = {
    "stride": None,
    "aps": lambda channels: AdaptivePolyphaseSampling(odd="allow"),
    "lps": lambda channels: LearnablePolyphaseSampling(channels, odd="allow"),
}


def move(name: str, side: int, dtype: torch.dtype, blur: bool = False) -> float:
    """The largest change of a logit under shifts, over the standard deviation of the logits."""
    torch.manual_seed(0)
    widths = [(3, 8), (8, 8), (8, 16), (16, 16)]
    blocks: list[nn.Module] = [Block(*width, NETWORKS[name]) for width in widths]
    if blur:
        blocks = [m for block in blocks for m in (BlurPool2d(block.conv1.in_channels, 3, 1, "circular"), block)]
    network = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).to(dtype)
    images = torch.rand(8, 3, side, side, dtype=dtype)
    with torch.no_grad():
        for _ in range(3):  # statistics of batch norm
            network(images)
        network.eval()
        logits = network(images)
        shifts = [(1, 0), (0, 1), (3, -5), (7, 11), (side // 2 + 1, 2)]
        moves = [(network(images.roll(shift, (-2, -1))) - logits).abs().max() for shift in shifts]
    return float(torch.stack(moves).max() / logits.std())


@pytest.mark.parametrize("name", ["aps", "lps"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_logits_do_not_move_at_sizes_that_halve_evenly_and_do_at_others(
    name: str, dtype: torch.dtype, bound: float
) -> None:
    assert move(name, 32, dtype) < bound
    assert move(name, 48, dtype) < bound
    assert move(name, 36, dtype) > 0.01, "36, 18, 9: an odd map"


def test_logits_of_a_strided_network_move_and_blur_keeps_the_guarantee() -> None:
    assert move("stride", 32, torch.float64) > 0.1
    assert move("aps", 32, torch.float64, blur=True) < 1e-12
