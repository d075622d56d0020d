"""Mirroring left and right."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment.base import RandomGeometry, Size
from augkit.augment.draw_programs import FLIP, DrawProgram
from augkit.augment.geometry import Axes
from augkit.augment.op_spec import Amount, OpSettings, OpSpec


class FlipSettings(OpSettings):
    """The fields of a flip in a policy."""

    p: Annotated[float, Amount(0.0, 0.5, "probability", searched=False), Field(ge=0, le=1)] = Field(
        0.5, description="share of samples (probability)"
    )


class RandomHorizontalFlip(RandomGeometry):
    """Mirror left and right with probability ``p * strength``; one draw for all with ``same_on_batch``.

    Raises:
        InputError: ``p`` outside [0, 1].
    """

    draws = 1
    spec = OpSpec(
        name="flip",
        title="mirror left and right",
        place=40,
        settings=FlipSettings,
        make=lambda settings, size: RandomHorizontalFlip(settings.p),
        describe=lambda settings: f"probability {settings.p:g} × strength",
        caption=lambda matrix: "mirrored" if matrix[0][0] < 0 else "as it is",
        example=lambda side: FlipSettings(p=0.5),
        dumped_if_absent=True,
    )

    def __init__(self, p: float = 0.5, *, same_on_batch: bool = False) -> None:
        super().__init__(p, "nearest", "zeros", same_on_batch)

    def axes(self, draws: Tensor, strength: float | Tensor, size: Size) -> Axes:
        del size
        mirrored = self.coin(draws, strength)[:, None]
        sign = torch.where(mirrored, -torch.ones_like(draws), torch.ones_like(draws))
        return Axes(torch.nn.functional.pad(sign, (0, 1), value=1.0), torch.zeros_like(sign))

    def draw_program(self, strength: float, size: Size) -> DrawProgram | None:
        del size
        return (FLIP, self.draws, self.p, self.p * strength)

    def coin(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        return (draws[:, :1] < self.p * strength)[:, 0]

    def extra_repr(self) -> str:
        return self._shared_repr().replace(", kernel='nearest'", "")
