"""Heads: shapes, a reference loop, and invariance to position."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.architectures import HEADS, SpatialPyramidPool2d, build_head
from augkit.core.errors import InputError


@pytest.mark.parametrize("head", HEADS)
def test_heads_give_logits(head: str) -> None:
    assert build_head(head, 6, 5, side=7)(torch.rand(3, 6, 7, 7)).shape == (3, 5)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 13), width=st.integers(1, 13), levels=st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_pyramid_agrees_with_a_loop_at_any_size(height: int, width: int, levels: list[int]) -> None:
    maps = torch.rand(2, 3, height, width)
    expected = []
    for level in levels:
        bins = np.zeros((2, 3, level, level))
        for i, j in np.ndindex(level, level):
            rows = slice(i * height // level, math.ceil((i + 1) * height / level))
            columns = slice(j * width // level, math.ceil((j + 1) * width / level))
            bins[:, :, i, j] = maps[:, :, rows, columns].numpy().max((-2, -1))
        expected.append(bins.reshape(2, -1))
    out = SpatialPyramidPool2d(tuple(levels))(maps)
    np.testing.assert_allclose(out.numpy(), np.concatenate(expected, 1), rtol=1e-6)


def test_global_average_forgets_places_and_the_others_keep_them() -> None:
    maps = torch.rand(2, 6, 8, 8)
    moved = {}
    for head in HEADS:
        layers = build_head(head, 6, 5, side=8)
        moved[head] = (layers(maps.roll((3, 1), (-2, -1))) - layers(maps)).abs().max()
    assert moved["gap"] < 1e-6
    assert moved["fc"] > 1e-2
    assert moved["spp"] > 1e-2
    first_level = SpatialPyramidPool2d((1, 2))
    assert torch.equal(first_level(maps.roll(3, -1))[:, :6], first_level(maps)[:, :6])


def test_bad_heads_get_one_line() -> None:
    with pytest.raises(InputError, match="did you mean 'spp'"):
        build_head("sppp", 3, 2)
    with pytest.raises(InputError, match="expected input_size"):
        build_head("fc", 3, 2)
    with pytest.raises(InputError, match="levels: expected a whole number of 1 or more"):
        SpatialPyramidPool2d((1, 0))
