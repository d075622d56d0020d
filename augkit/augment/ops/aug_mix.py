"""AugMix (Hendrycks et al. 2020, https://arxiv.org/abs/1912.02781): an image mixed with several chains of small ops.

Ranges are those of the authors' code (https://github.com/google-research/augmix) and of torchvision's ``AugMix``; the
weights come from Dirichlet(1, ..., 1) and Beta(1, 1), as in the paper. Deviations: each chain is resampled once, from
the input, together with the ops before AugMix, and its colors change afterwards; translations may end between pixels.
The paper leaves out color, contrast, brightness and sharpness, which its test on corrupted images has; ``all_ops``
adds them, as torchvision does.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.base import Size, View
from augkit.augment.checks import check_flag
from augkit.augment.op_spec import Amount, OpSettings, OpSpec, Probability
from augkit.augment.random_choices import COLUMNS, Choices, Chosen, RandomChoices, columns
from augkit.core.errors import check_number, check_whole

LEVELS = 10.0
LEAST = 0.1  # of the levels that are drawn
MOST_CHAINS, MOST_DEPTH = 8, 8
ALL_OPS = Choices(
    {
        "shear_x": 0.3,
        "shear_y": 0.3,
        "translate_x": 1 / 3,
        "translate_y": 1 / 3,
        "rotate": 30.0,
        "posterize": 8.0,
        "solarize": 1.0,
        "autocontrast": 1.0,
        "equalize": 1.0,
        "brightness": 0.9,
        "color": 0.9,
        "contrast": 0.9,
        "sharpness": 0.9,
    },
    lowest={"posterize": 4.0},
)
OPS = ALL_OPS.without("brightness", "color", "contrast", "sharpness")


class AugMixSettings(OpSettings):
    """The fields of AugMix in a policy."""

    severity: Annotated[float, Amount(0.0, LEVELS, "of 10 levels"), Field(ge=0, le=LEVELS)] = Field(
        3.0, description="the highest level of an op (of 10 levels)"
    )
    width: int = Field(3, ge=1, le=MOST_CHAINS, description="chains that are mixed")
    depth: int = Field(3, ge=1, le=MOST_DEPTH, description="most ops of a chain; from 1 on, each number as likely")
    all_ops: bool = Field(False, description="brightness, color, contrast and sharpness too")
    js_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the divergence between an image and two views of it, 12 in the paper; 0 trains on one"
        " view",
    )
    p: Probability = Field(1.0, description="share of samples (probability)")


class AugMix(RandomChoices):
    """Mix each image with ``width`` chains of 1 to ``depth`` random ops, at random weights.

    The result is ``(1 - m) x + m (w_1 c_1 + ... + w_n c_n)`` with m uniform in [0, 1) and weights w that are uniform
    among those with the sum 1. The level of each op is uniform up to ``severity``; at level 10 shears are by 0.3,
    translations by a third of the side, rotations by 30 degrees. The strength scales m. Masks, boxes and keypoints
    stay with x, which the ops before AugMix move.

    Each chain is one more resampling of the input, and comes after all other geometry of an `augkit.Augment`.

    Args:
        severity: the highest level of an op, in [0, 10].
        width: number of chains, from 1 to 8.
        depth: most ops of a chain, from 1 to 8.
        p: probability that a sample is mixed.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        all_ops: brightness, color, contrast and sharpness too.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: a number outside of its range, unknown kernel or padding.

    >>> AugMix(severity=3)(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 3, 32, 32])
    """

    spec = OpSpec(
        name="augmix",
        title="AugMix: the image mixed with chains of small ops",
        place=70,
        settings=AugMixSettings,
        make=lambda settings, size: AugMix(
            settings.severity, settings.width, settings.depth, settings.p, all_ops=settings.all_ops
        ),
        describe=lambda settings: (
            f"{settings.width} chains of 1 to {settings.depth} ops up to severity {settings.severity:g} of 10"
        ),
        caption=lambda matrix: "mixed",
        example=lambda side: AugMixSettings(severity=5.0),
    )

    def __init__(
        self,
        severity: float = 3.0,
        width: int = 3,
        depth: int = 3,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        all_ops: bool = False,
        same_on_batch: bool = False,
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        for name, value, most in (("width", width, MOST_CHAINS), ("depth", depth, MOST_DEPTH)):
            check_whole(name, value, 1)
            check_number(name, int(value), 1, most)
        self.severity = check_number("severity", severity, 0.0, LEVELS)
        self.width, self.depth = int(width), int(depth)
        self.all_ops = check_flag("all_ops", all_ops)
        self._columns = 1 + self.depth * COLUMNS  # of one chain: its depth, then its ops
        self.draws = 2 + self.width + self.width * self._columns

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        """The identity: an image that is mixed stays where it is."""
        del strength, size
        return geometry.identity(len(draws), device=draws.device)

    def share(self, draws: Tensor, strength: float | Tensor) -> Tensor:
        """The share ``(B,)`` of the chains in each image; strength is a number or ``(B,)``."""
        return torch.where(self._coin(draws) & (self.severity > 0), draws[:, 1], 0.0) * strength

    def weights(self, draws: Tensor) -> Tensor:
        """The weights ``(B, width)`` of the chains, with the sum 1."""
        drawn = -torch.log1p(-draws[:, 2 : 2 + self.width])  # exponential, so that their shares are Dirichlet(1)
        drawn = drawn.clamp(min=torch.finfo(drawn.dtype).tiny)
        return drawn / drawn.sum(dim=1, keepdim=True)

    def chains(self, draws: Tensor) -> list[list[Chosen]]:
        """The ops of each chain, one after the other, from draws ``(B, n)``."""
        ops, found, least = ALL_OPS if self.all_ops else OPS, [], min(LEAST, self.severity)
        for chain in range(self.width):
            first = 2 + self.width + chain * self._columns
            length, steps = 1 + torch.floor(self.depth * draws[:, first]), []
            for step in range(self.depth):
                own = columns(draws, step, first + 1)
                level = (least + (self.severity - least) * own[:, 2]) / LEVELS
                steps.append(ops.pick(own, level, 1.0).only(step < length))
            found.append(steps)
        return found

    def recolored(self, images: Tensor, draws: Tensor, strength: float | Tensor, view: View) -> Tensor:
        size, share = (images.shape[-2], images.shape[-1]), self.share(draws, strength)
        mixed = torch.zeros_like(images)
        for steps, weight in zip(self.chains(draws), self.weights(draws).unbind(1), strict=True):
            seen = view(geometry.compose(*(chosen.matrix(size) for chosen in steps))).clamp(0, 1).to(images.dtype)
            for chosen in steps:
                seen = chosen.colors(seen, in_place=True)  # `clamp` has made a copy
            mixed = mixed + weight.to(images.dtype)[:, None, None, None] * seen
        weight = share.to(images.dtype)[:, None, None, None]
        return torch.where(weight > 0, torch.lerp(images.clamp(0, 1), mixed, weight), images)

    def max_shrink(self, size: Size) -> float:
        del size
        return OPS.shrink(self.severity / LEVELS) ** self.depth

    def extra_repr(self) -> str:
        numbers = f"severity={self.severity}, width={self.width}, depth={self.depth}"
        return f"{numbers}{', all_ops=True' if self.all_ops else ''}, {self._shared_repr()}"
