"""Matrices from draws in compiled loops: `augkit.augment.backends.native_draws`."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import augkit
from augkit.augment import composed_geometry
from augkit.augment.geometry import Axes

pytest.importorskip("numba")
SHIFT, FLIP = augkit.RandomSubpixelShift(3.3), augkit.RandomHorizontalFlip(0.4)
PIPELINES = {
    "shift": [SHIFT],
    "sometimes": [augkit.RandomSubpixelShift(2.7, p=0.5), augkit.RandomRescale(1.3, p=0.4)],
    "all": [SHIFT, augkit.RandomRescale(1.25), augkit.RandomSubpixelCrop(p=0.8), FLIP],
    "other order": [FLIP, augkit.RandomSubpixelCrop(size=(20, 31), area=(0.2, 0.9)), SHIFT, augkit.RandomRescale(1.7)],
}


@pytest.mark.parametrize("strength", [1.0, 0.37, 0.0])
@pytest.mark.parametrize("size", [(32, 32), (21, 40)])
@pytest.mark.parametrize("name", PIPELINES)
def test_the_matrices_are_those_of_torch_bit_for_bit(
    name: str, size: tuple[int, int], strength: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    augment = augkit.Augment(*PIPELINES[name])
    draws = torch.rand(257, augment.draws)
    out = augment.matrix(draws, strength, size)
    monkeypatch.setattr(composed_geometry, "installed", lambda package: False)
    assert torch.equal(out, augment.matrix(draws, strength, size))


def test_what_has_no_recipe_is_left_to_torch() -> None:
    class Nowhere(augkit.RandomSubpixelShift):
        def axes(self, draws: Tensor, strength: float | Tensor, size: tuple[int, int]) -> Axes:
            return Axes(torch.ones_like(draws[:, 1:]), torch.zeros_like(draws[:, 1:]))

    assert torch.equal(augkit.Augment(Nowhere(4.0)).sample(3, (8, 8)), torch.eye(3).expand(3, 3, 3))
    for op in (augkit.RandomSubpixelShift((1.0, 2.0)), augkit.RandomSubpixelShift(4.0, whole=True)):
        assert augkit.Augment(op).sample(3, (8, 8)).shape == (3, 3, 3)
    matrix = augkit.Augment(SHIFT).sample(3, (8, 8), strength=torch.tensor([0.0, 0.5, 1.0]))
    assert torch.equal(matrix[0], torch.eye(3))
