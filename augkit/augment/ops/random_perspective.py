"""Perspective: the corners of the image move on their own."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.base import RandomGeometry, Size
from augkit.augment.op_spec import Amount, Matrix, OpSettings, OpSpec, Probability
from augkit.core.errors import check_number

SQUARE, WIDE = (224, 224), (224, 448)
GRID = 9  # places along a side where the strongest shrink is looked for; it lies in a corner
LARGEST = 0.6  # at 2/3 three corners can lie on one line, and a corner shrinks without bound


class PerspectiveSettings(OpSettings):
    """The fields of a perspective in a policy."""

    max_distortion: Annotated[float, Amount(0.0, 0.4, "fraction of half a side"), Field(ge=0, le=LARGEST)] = Field(
        0.0, description="farthest that a corner moves inwards (fraction of half a side)"
    )
    p: Probability = Field(1.0, description="share of samples (probability)")


def _caption(matrix: Matrix) -> str:
    x, y = (round(row[2], 1) + 0.0 for row in matrix[:2])
    return f"top left x {x:g}, y {y:g} px".replace("-", "−")


class RandomPerspective(RandomGeometry):
    """Move each corner of the image inwards, along x and along y by up to ``max_distortion`` of half a side.

    Like ``RandomPerspective(distortion_scale)`` of torchvision and Kornia, but corners do not move by whole pixels.
    Corners are the centers of the corner pixels. The image stays in view as a whole; the padding fills the rest.

    Args:
        max_distortion: fraction of half a side, uniform from 0 to this for each corner and axis; at most 0.6. Beyond
            0.4 the strongest draws shrink a corner so much that the wide kernel takes long, on a GPU above all.
        p: probability that a sample is distorted.
        kernel, padding: used when the op stands alone; `Augment` has its own.
        same_on_batch: one draw for all samples of a batch.

    Raises:
        InputError: ``max_distortion`` outside [0, 0.6], ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 9
    spec = OpSpec(
        name="perspective",
        title="move the corners",
        place=28,
        settings=PerspectiveSettings,
        make=lambda settings, size: RandomPerspective(settings.max_distortion, settings.p),
        describe=lambda settings: f"corners inwards by up to {settings.max_distortion:g} of half a side",
        caption=_caption,
        example=lambda side: PerspectiveSettings(max_distortion=0.4),
    )

    def __init__(
        self,
        max_distortion: float,
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
        *,
        same_on_batch: bool = False,
    ) -> None:
        super().__init__(p, kernel, padding, same_on_batch)
        self.max_distortion = check_number("max_distortion", max_distortion, 0.0, LARGEST)
        self._enlarged = _extremes(self.max_distortion, SQUARE)[1]
        self._shrunk_in_graphs = _extremes(self.max_distortion, WIDE)[0]

    def matrix(self, draws: Tensor, strength: float | Tensor, size: Size) -> Tensor:
        most = self.max_distortion * (strength[:, None] if isinstance(strength, Tensor) else strength)
        inwards = self.chosen(draws, draws[:, 1:9] * most).unflatten(1, (4, 2))
        return geometry.corners_moved(inwards, size)

    def max_shrink(self, size: Size) -> float:
        # The exact value would bind a graph to one size.
        return self._shrunk_in_graphs if torch.compiler.is_compiling() else _extremes(self.max_distortion, size)[0]

    def max_enlarge(self) -> float:
        return self._enlarged

    def extra_repr(self) -> str:
        return f"max_distortion={self.max_distortion}, {self._shared_repr()}"


@lru_cache(maxsize=64)
def _extremes(distortion: float, size: Size) -> tuple[float, float]:
    """How far a pixel shrinks and grows at most, along any direction and anywhere in an image of ``size``.

    Taken over the draws in which every corner moves by all or nothing along each axis, which are the extreme ones.
    """
    inwards = torch.tensor(list(itertools.product((0.0, distortion), repeat=8)), dtype=torch.float64)
    matrix = geometry.corners_moved(inwards.unflatten(1, (4, 2)), size)
    # In the image, not in the output, whose margin shows the padding.
    right, bottom = (torch.linspace(0, n - 1, GRID, dtype=torch.float64) for n in (size[1], size[0]))
    points = torch.stack(torch.broadcast_tensors(right[None], bottom[:, None], torch.ones((), dtype=torch.float64)))
    smallest, largest = geometry.spans(matrix, points)
    return max(1.0, float(1 / smallest.min())), max(1.0, float(largest.max()))
