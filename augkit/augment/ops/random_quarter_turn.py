"""Turns by quarters, which move pixels and change none."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.base import RandomGeometry, Size, per_sample
from augkit.augment.op_spec import Amount, Matrix, OpSettings, OpSpec


class QuarterTurnSettings(OpSettings):
    """The fields of a quarter turn in a policy."""

    p: Annotated[float, Amount(0.0, 0.75, "probability", searched=False), Field(ge=0, le=1)] = Field(
        0.75, description="share of samples (probability)"
    )


def _caption(matrix: Matrix) -> str:
    turns = {(1, 0): "as it is", (0, 1): "90°", (-1, 0): "180°", (0, -1): "270°"}
    return turns[round(matrix[0][0]), round(matrix[0][1])]


class RandomQuarterTurn(RandomGeometry):
    """Turn a square image by 90, 180 or 270 degrees counter-clockwise, equally likely, bit for bit as `torch.rot90`.

    An image that is not square is turned by 180 degrees alone, so that its size stays and nothing is cut off: all
    images of a batch have one size, and a quarter turn would exchange height and width. Turn the images of such a data
    set before they are put into a batch where the other turns are wanted too.

    Args:
        p: share of samples that are turned, times the strength; at 0.75 all positions of a square are equally likely.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: ``p`` outside [0, 1].
    """

    draws = 2
    affine = True
    spec = OpSpec(
        name="quarter_turn",
        title="turn by 90, 180 or 270 degrees",
        place=50,
        settings=QuarterTurnSettings,
        make=lambda settings, size: RandomQuarterTurn(settings.p),
        describe=lambda settings: f"probability {settings.p:g} × strength",
        caption=_caption,
        example=lambda side: QuarterTurnSettings(p=0.75),
    )

    def __init__(self, p: float = 0.75, *, same_on_batch: bool = False) -> None:
        super().__init__(p, "nearest", "zeros", same_on_batch)

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        turned = self.coin(draws, per_sample(strength))
        # Compared on the device: in Python, a graph would serve squares alone, or all others.
        square = torch.full_like(draws[:, 1], size[0] - size[1]) == 0
        turns = torch.where(square, 1 + torch.floor(3 * draws[:, 1]).clamp(max=2), 2.0)
        return geometry.quarter_turns(torch.where(turned, turns, 0.0), size)

    def coin(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        return (draws[:, :1] < self.p * strength)[:, 0]

    def max_shrink(self, size: Size) -> float:
        del size
        return 1.0

    def extra_repr(self) -> str:
        return self._shared_repr().replace(", kernel='nearest'", "")
