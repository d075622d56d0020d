"""Polyphase sampling: against slow loops, and the laws of shifts."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sampled import SAMPLINGS, layouts, maps_of, sampling

from augkit.architectures import (
    AdaptivePolyphaseSampling,
    AdaptivePolyphaseUpsampling,
    LearnablePolyphaseSampling,
    sample_phase,
)
from augkit.architectures.polyphase import polyphase
from augkit.core.errors import InputError, OddMapWarning

INF = float("inf")


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_components_are_the_grids_in_row_major_order(stride: int) -> None:
    maps = maps_of(2, 3, 4 * stride, 5 * stride)
    parts = polyphase(maps, stride)
    assert parts.shape == (2, stride**2, 3, 4, 5)
    for k in range(stride**2):
        assert torch.equal(parts[:, k], maps[:, :, k // stride :: stride, k % stride :: stride])
        assert torch.equal(sample_phase(maps, torch.full((2,), k), stride), parts[:, k])


@pytest.mark.parametrize("norm", [1.0, 2.0, 3.0, INF])
@pytest.mark.parametrize("stride", [2, 3])
def test_aps_agrees_with_a_loop(norm: float, stride: int) -> None:
    maps = maps_of(5, 3, 4 * stride, 3 * stride)
    out, phase = AdaptivePolyphaseSampling(stride, norm)(maps, return_phase=True)
    for n, image in enumerate(maps.numpy()):
        grids = [image[:, i::stride, j::stride] for i in range(stride) for j in range(stride)]
        norms = [np.linalg.norm(grid.ravel(), norm) for grid in grids]
        assert phase[n] == np.argmax(norms)
        np.testing.assert_array_equal(out[n].numpy(), grids[int(np.argmax(norms))])


def test_norms_of_different_order_choose_differently() -> None:
    maps = torch.zeros(1, 1, 4, 4)
    maps[0, 0, 0, 0] = 3.0  # the largest pixel
    maps[0, 0, 1::2, 1::2] = 1.0  # the largest sum
    assert [AdaptivePolyphaseSampling(norm=p).choose(maps).item() for p in (1.0, 2.0, INF)] == [3, 0, 0]


@pytest.mark.parametrize("padding_mode", ["circular", "zeros"])
@pytest.mark.parametrize("stride", [2, 3])
def test_lps_scores_each_component_by_the_same_network(stride: int, padding_mode: str) -> None:
    layer = LearnablePolyphaseSampling(3, stride, padding_mode=padding_mode).double()
    maps = maps_of(2, 3, 4 * stride, 5 * stride)
    mode = {"zeros": "constant"}.get(padding_mode, padding_mode)
    expected = []
    for part in polyphase(maps, stride).unbind(1):
        hidden = F.conv2d(F.pad(part, (1, 1, 1, 1), mode), layer.conv.weight, layer.conv.bias)
        expected.append(layer.score(torch.relu(hidden).mean((2, 3)))[:, 0])
    torch.testing.assert_close(layer.scores(maps), torch.stack(expected, 1))


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(SAMPLINGS)),
    stride=st.integers(1, 4),
    sides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    shift=st.tuples(st.integers(-9, 9), st.integers(-9, 9)),
    seed=st.integers(0, 999),
)
def test_sampling_commutes_with_shifts_up_to_a_shift_of_the_coarse_map(
    name: str, stride: int, sides: tuple[int, int], shift: tuple[int, int], seed: int
) -> None:
    layer = SAMPLINGS[name](stride).double()
    maps = maps_of(2, 3, sides[0] * stride, sides[1] * stride, seed=seed)
    out, phase = layer(maps, return_phase=True)
    moved_out, moved_phase = layer(maps.roll(shift, (-2, -1)), return_phase=True)
    for n in range(2):
        places = [int(phase[n]) // stride + shift[0], int(phase[n]) % stride + shift[1]]
        assert moved_phase[n] == places[0] % stride * stride + places[1] % stride
        coarse = [place // stride for place in places]
        assert torch.equal(moved_out[n], out[n].roll(coarse, (-2, -1)))
    upsampling = AdaptivePolyphaseUpsampling(stride)
    expected = upsampling(out, phase).roll(shift, (-2, -1))
    assert torch.equal(upsampling(moved_out, moved_phase), expected), "the two together commute with every shift"


@settings(max_examples=30, deadline=None)
@given(stride=st.integers(1, 4), norm=st.sampled_from([1.0, 1.5, 2.0, INF]), seed=st.integers(0, 999))
def test_the_component_kept_is_the_largest(stride: int, norm: float, seed: int) -> None:
    maps = maps_of(3, 2, 2 * stride, 3 * stride, seed=seed)
    out = AdaptivePolyphaseSampling(stride, norm)(maps)
    kept = torch.linalg.vector_norm(out, norm, dim=(1, 2, 3))
    assert torch.equal(kept, torch.linalg.vector_norm(polyphase(maps, stride), norm, dim=(2, 3, 4)).amax(1))


@settings(max_examples=30, deadline=None)
@given(stride=st.integers(1, 3), soft=st.booleans(), seed=st.integers(0, 999))
def test_upsampling_is_the_adjoint_of_sampling(stride: int, soft: bool, seed: int) -> None:
    fine, coarse = maps_of(3, 2, 4 * stride, 5 * stride, seed=seed), maps_of(3, 2, 4, 5, seed=seed + 1)
    phase = torch.rand(3, stride**2, dtype=torch.float64) if soft else torch.randint(stride**2, (3,))
    up = AdaptivePolyphaseUpsampling(stride)(coarse, phase)
    torch.testing.assert_close((sample_phase(fine, phase, stride) * coarse).sum(), (fine * up).sum())


@layouts
def test_upsampling_puts_pixels_back_where_they_were(layout: torch.memory_format) -> None:
    maps = maps_of(4, 3, 6, 8).contiguous(memory_format=layout)
    coarse, phase = AdaptivePolyphaseSampling()(maps, return_phase=True)
    up = AdaptivePolyphaseUpsampling()(coarse, phase)
    assert up.is_contiguous(memory_format=layout)
    for n, k in enumerate(phase.tolist()):
        expected = torch.zeros(3, 6, 8, dtype=torch.float64)
        expected[:, k // 2 :: 2, k % 2 :: 2] = maps[n, :, k // 2 :: 2, k % 2 :: 2]
        assert torch.equal(up[n], expected)


@sampling
def test_a_batch_is_its_samples_and_nothing_is_changed(name: str) -> None:
    layer = SAMPLINGS[name]().double()
    maps, state = maps_of(6, 3, 8, 4), torch.get_rng_state()
    before = maps.clone()
    out, phase = layer(maps, return_phase=True)
    assert torch.equal(out, torch.cat([layer(one) for one in maps.split(1)]))
    assert phase.dtype == torch.int64
    assert len(set(phase.tolist())) > 1, "the samples choose differently"
    AdaptivePolyphaseUpsampling()(out, phase).add_(1)
    out.zero_()
    assert torch.equal(maps, before), "the output shares no memory with the input"
    assert torch.equal(torch.get_rng_state(), state)
    assert layer(maps[:0]).shape == (0, 3, 4, 2)


@sampling
def test_a_shortcut_keeps_the_grid_of_its_branch(name: str) -> None:
    branch, shortcut = maps_of(3, 3, 8, 8), maps_of(3, 5, 8, 8, seed=1)
    out, phase = SAMPLINGS[name]().double()(branch, return_phase=True)
    kept, same = AdaptivePolyphaseSampling()(shortcut, phase, return_phase=True)
    assert same is phase
    assert torch.equal(kept, polyphase(shortcut, 2)[torch.arange(3), phase])
    assert torch.equal(SAMPLINGS[name]().double()(branch, phase), out)


# Learnable sampling in training


def test_training_weights_all_components_and_evaluation_keeps_one() -> None:
    layer, maps = LearnablePolyphaseSampling(3).double(), maps_of(4, 3, 8, 6)
    out, weights = layer(maps, return_phase=True)
    torch.testing.assert_close(weights.sum(1), torch.ones(4, dtype=torch.float64))
    assert weights.min() > 0
    torch.testing.assert_close(out, (polyphase(maps, 2) * weights[:, :, None, None, None]).sum(1))
    shortcut = AdaptivePolyphaseSampling()(maps, weights)
    assert torch.equal(shortcut, out)
    out, phase = layer.eval()(maps, return_phase=True)
    assert torch.equal(phase, layer.scores(maps).argmax(1))
    assert torch.equal(out, polyphase(maps, 2)[torch.arange(4), phase])


def test_gumbel_noise_draws_components_with_their_softmax_probabilities() -> None:
    layer, n = LearnablePolyphaseSampling(3), 20_000
    layer.score.weight.data *= 20
    maps = maps_of(1, 3, 4, 4, dtype=torch.float32)
    with torch.no_grad():
        expected = layer.scores(maps).softmax(1)[0]
        _, weights = layer(maps.expand(n, -1, -1, -1), return_phase=True)
    share = torch.bincount(weights.argmax(1), minlength=4) / n
    assert expected.max() - expected.min() > 0.1
    torch.testing.assert_close(share, expected, atol=4 * 0.5 / n**0.5, rtol=0)


def test_noise_comes_from_the_generator_per_sample_and_cools_to_one_component() -> None:
    layer, maps = LearnablePolyphaseSampling(3), maps_of(1, 3, 4, 4, dtype=torch.float32).expand(8, -1, -1, -1)
    draw = functools.partial(layer, maps, return_phase=True)
    state = torch.get_rng_state()
    first, again = (draw(generator=torch.Generator().manual_seed(3))[1] for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.get_rng_state(), state), "torch's global state is left alone"
    assert len({tuple(row) for row in first.tolist()}) == 8, "every sample has noise of its own"
    torch.manual_seed(5)
    one = draw()[1]
    torch.manual_seed(5)
    assert torch.equal(draw()[1], one)
    layer.temperature = 1e-3
    assert draw(generator=torch.Generator().manual_seed(3))[1].amax(1).min() > 0.999


def test_scores_learn_to_keep_the_component_that_matters() -> None:
    layer = LearnablePolyphaseSampling(1, hidden=4)
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    parts = torch.rand(32, 4, 1, 4, 4) + torch.tensor([0.0, 0.0, 1.0, 0.0]).view(1, 4, 1, 1, 1)
    maps = parts.view(32, 2, 2, 4, 4).permute(0, 3, 1, 4, 2).reshape(32, 1, 8, 8)
    for _ in range(60):  # the smallest output wins, so that the norm would choose wrongly
        optimizer.zero_grad()
        layer(maps).mean().backward()
        optimizer.step()
    assert (layer.eval()(maps, return_phase=True)[1] != 2).all()
    assert (AdaptivePolyphaseSampling().choose(maps) == 2).all()


# Odd maps and ties


@sampling
@pytest.mark.parametrize("size", [(5, 8), (5, 7), (1, 1), (1, 6)])
@pytest.mark.parametrize("stride", [2, 3])
def test_odd_maps_are_continued_on_the_torus(name: str, size: tuple[int, int], stride: int) -> None:
    layer, maps = SAMPLINGS[name](stride, odd="allow").double(), maps_of(2, 3, *size)
    out, phase = layer(maps, return_phase=True)
    sides = [-(-side // stride) for side in size]
    assert list(out.shape[-2:]) == sides
    rows, columns = (torch.arange(side * stride) % size[k] for k, side in enumerate(sides))
    whole = maps[:, :, rows][..., columns]
    assert torch.equal(out, layer(whole, phase))
    assert torch.equal(phase, layer(whole, return_phase=True)[1])
    up = AdaptivePolyphaseUpsampling(stride)
    assert torch.equal(up(out, phase, size), up(out, phase)[..., : size[0], : size[1]])


@sampling
def test_odd_maps_warn_once_or_raise(name: str) -> None:
    maps = maps_of(8, 3, 9, 8)
    layer = SAMPLINGS[name]().double()
    with pytest.warns(OddMapWarning, match="multiples of the stride 2, got 9 x 8.*odd='allow'") as caught:
        out, phase = layer(maps, return_phase=True)
    assert len(caught) == 1
    layer(maps)
    AdaptivePolyphaseSampling()(maps, phase)  # a shortcut: its branch has warned
    with pytest.raises(InputError, match="got 9 x 8, where no choice of grid follows shifts"):
        SAMPLINGS[name](odd="raise").double()(maps)
    moved = layer(maps.roll(1, -2))
    rolls = torch.stack([out.roll(shift, (-2, -1)) for shift in np.ndindex(5, 4)])
    follows = (moved == rolls).all((2, 3, 4)).any(0)
    assert not follows.all(), "the guarantee ends here"


def test_ties_are_broken_alike_and_do_no_harm_where_components_are_one_map() -> None:
    layer = AdaptivePolyphaseSampling()
    assert layer.choose(torch.ones(2, 3, 4, 4)).tolist() == [0, 0]
    rows = maps_of(2, 3, 1, 4).expand(-1, -1, 8, -1).repeat(1, 1, 1, 2)  # period 1 and 4: ties along columns
    out = layer(rows)
    for shift in itertools.product(range(-2, 3), repeat=2):
        moved = layer(rows.roll(shift, (-2, -1)))
        assert any(torch.equal(moved, out.roll(c, -1)) for c in range(4))
