"""Laws of even draws: strata in every column, pairs of parameters, independence, names, float32 in [0, 1)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

import augkit
from augkit.augment.even_draws import LEVELS, even_draws
from augkit.core.errors import InputError

COUNTS = (3, 2, 5, 1)  # shift, rescale, crop, flip
EPOCHS, IMAGES = 64, 400


def drawn(epochs: int = EPOCHS, images: int = IMAGES, seed: int = 5, start: int = 0) -> Tensor:
    """``(epochs, images, 11)``."""
    numbers = torch.arange(images)
    return torch.stack([even_draws(COUNTS, numbers, epoch, seed) for epoch in range(start, start + epochs)])


def star_discrepancy(values: np.ndarray) -> float:
    """Of points ``(N,)`` in [0, 1), exactly (Niederreiter 1992, theorem 2.6)."""
    ordered, n = np.sort(values), len(values)
    return float(1 / (2 * n) + np.abs(ordered - (2 * np.arange(1, n + 1) - 1) / (2 * n)).max())


def test_draws_are_float32_in_0_to_1() -> None:
    draws = drawn()
    assert draws.dtype == torch.float32
    assert draws.shape == (EPOCHS, IMAGES, 11)
    assert 0 <= float(draws.min()) < 1e-3
    assert 0.999 < float(draws.max()) < 1


@pytest.mark.parametrize("count", [2, 4, 16, 64])
def test_each_stratum_has_one_of_as_many_epochs(count: int) -> None:
    for block in drawn().split(count):
        strata = (block * count).long().sort(dim=0).values
        assert (strata == torch.arange(count)[:, None, None]).all()


@pytest.mark.parametrize(
    ("start", "count", "most"),
    [(0, 8, 0.5), (0, 10, 0.62), (3, 8, 0.75), (5, 30, 0.5), (17, 16, 0.56), (0, 50, 0.36), (64, 64, 0.17)],
)
def test_any_epochs_in_a_row_are_more_even_than_random_ones(start: int, count: int, most: float) -> None:
    draws = drawn(count, 40, start=start).flatten(1).numpy().T
    even = np.mean([star_discrepancy(one) for one in draws])
    random = np.mean([star_discrepancy(one) for one in np.random.default_rng(0).random(draws.shape)])
    assert even < most * random


@pytest.mark.parametrize(("x", "y"), [(1, 2), (6, 7), (8, 9)])
def test_pairs_of_parameters_fill_the_plane(x: int, y: int) -> None:
    for block in drawn().split(16):
        for wide, high in ((4, 4), (2, 8), (8, 2), (16, 1)):
            cells = (block[..., x] * wide).long() * high + (block[..., y] * high).long()
            assert (cells.sort(dim=0).values == torch.arange(16)[:, None]).all()


def test_one_epoch_is_uniform_over_images() -> None:
    smallest = [
        stats.kstest(even_draws(COUNTS, torch.arange(2000), epoch).numpy()[:, column], "uniform").pvalue
        for epoch in (0, 1, 9)
        for column in range(11)
    ]
    assert min(smallest) > 0.001


def test_columns_and_images_are_independent() -> None:
    draws = drawn(32, 2000).numpy()
    between = np.corrcoef(draws.reshape(-1, 11).T) - np.eye(11)
    assert np.abs(between).max() < 5 / np.sqrt(draws[..., 0].size)
    images = np.corrcoef(draws[:, :200, 1].T)[~np.eye(200, dtype=bool)]
    assert abs(images.mean()) < 0.01
    assert images.std() < 1.4 / np.sqrt(32)
    # The half of the range says nothing about the half of another column, over pairs of epochs either.
    halves = draws > 0.5
    same = (halves[..., :, None] == halves[..., None, :]).reshape(-1, 11, 11).mean(0)
    assert np.abs(same - 0.5)[~np.eye(11, dtype=bool)].max() < 0.012


def test_epochs_of_an_image_come_in_no_fixed_order() -> None:
    steps = drawn(8, 500)[:, :, 1].diff(dim=0)
    assert float(steps.std()) > 0.3
    assert len(torch.unique((drawn(8, 500)[:, :, 1] * 8).long(), dim=1).T) > 400


def test_draws_are_named_by_seed_image_and_epoch_alone() -> None:
    numbers = torch.tensor([5, 2, 900, 0, 77])
    whole = even_draws(COUNTS, numbers, 3, 1)
    order = torch.tensor([4, 0, 3, 1, 2])
    assert torch.equal(even_draws(COUNTS, numbers[order], 3, 1), whole[order])
    assert torch.equal(torch.cat([even_draws(COUNTS, one[None], 3, 1) for one in numbers]), whole)
    for epoch, seed in ((4, 1), (3, 2)):
        assert not (even_draws(COUNTS, numbers, epoch, seed) == whole).any()
    assert torch.equal(even_draws(COUNTS[:2], numbers, 3, 1), whole[:, :5])  # an op after them changes nothing


def test_a_new_sequence_begins_after_all_strata() -> None:
    numbers, first = torch.arange(50), 2**LEVELS
    assert not torch.equal(even_draws([3], numbers, first), even_draws([3], numbers, 0))
    strata = torch.stack([even_draws([3], numbers, first + k) for k in range(8)])
    assert ((strata * 8).long().sort(dim=0).values == torch.arange(8)[:, None, None]).all()


def test_the_numbers_do_not_change_between_versions() -> None:
    expected = [[0.0810609, 0.1938594, 0.8843437]]
    assert torch.allclose(even_draws([3], torch.tensor([7]), 2, 1), torch.tensor(expected), atol=1e-6)


def test_no_ops_take_no_draws() -> None:
    assert even_draws([], torch.arange(3), 0).shape == (3, 0)
    assert even_draws([3], torch.arange(0), 0).shape == (0, 3)


def test_a_flip_alternates() -> None:
    flip = augkit.Augment(augkit.RandomHorizontalFlip(0.5))
    mirrored = torch.stack(
        [flip.matrix(even_draws([1], torch.arange(100), epoch), 1.0, (8, 8))[:, 0, 0] < 0 for epoch in range(12)]
    )
    assert (mirrored[0::2] != mirrored[1::2]).all()
    assert 30 < int(mirrored[0].sum()) < 70


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([3], torch.arange(3), -1), "epoch: expected a whole number of 0 or more, got -1"),
        (([3], torch.arange(3), 0, -1), "seed: expected a whole number of 0 or more, got -1"),
        (([3], [1, 2], 0), r"numbers: expected an integer tensor \(B,\), got list"),
        (([3], torch.rand(3), 0), r"numbers: expected integers \(B,\), got torch.float32 \(3,\)"),
        (
            ([3], torch.zeros(3, 1, dtype=torch.int64), 0),
            r"numbers: expected integers \(B,\), got torch.int64 \(3, 1\)",
        ),
    ],
)
def test_wrong_names_are_one_line(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        even_draws(*arguments)  # type: ignore[arg-type]
