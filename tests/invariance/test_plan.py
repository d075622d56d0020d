"""Plans: draws, shared columns, and invalid plans."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.core.errors import InputError
from augkit.invariance import Pairs, Plan
from augkit.invariance.plan import draws, full_plan, line_path, one_shift, square_grid

FULL = Plan(
    pairs=Pairs(3, -4.0, 4.0),
    grid=square_grid(1.0, 1.0),
    lengths=(0.0, 1.0, 2.5),
    fractions=(0.0, 0.25, 0.5),
    directions=(0.0, 90.0, 135.0),
    scales=(0.8, 1.0, 1.25),
    path=line_path(4),
    blur_control=True,
)


@given(st.integers(0, 1 << 40), st.integers(0, 50), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_displacements_depend_on_seed_and_image_alone(seed: int, start: int, count: int) -> None:
    whole = FULL.displacements(seed, 0, 70)
    assert torch.equal(FULL.displacements(seed, start, count), whole[start : start + count])
    assert not torch.equal(FULL.displacements(seed + 1, start, count), whole[start : start + count])


def test_pairs_do_not_depend_on_the_rest_of_the_plan() -> None:
    alone = Plan(pairs=FULL.pairs)
    columns = [k for k, c in enumerate(FULL.layout.columns) if c.source in ("first", "second") and not c.blurred]
    assert torch.equal(alone.displacements(3, 0, 5)[:, 1:], FULL.displacements(3, 0, 5)[:, columns])


def test_draws_are_uniform_and_streams_differ() -> None:
    numbers = draws(0, 0, 0, 20_000, 3)
    assert numbers.mean() == pytest.approx(0.5, abs=0.01)
    assert np.abs(np.corrcoef(numbers.T) - np.eye(3)).max() < 0.03
    assert abs(np.corrcoef(numbers[:, 0], draws(0, 1, 0, 20_000, 1)[:, 0])[0, 1]) < 0.03


def test_displacements_are_those_of_the_plan() -> None:
    layout, moved = FULL.layout, FULL.displacements(0, 0, 400).double()
    assert moved[:, 0].tolist() == [[0.0, 0.0, 1.0]] * 400
    for pair in layout.pairs:
        assert moved[:, pair, :2].abs().max() <= 4
        assert moved[:, pair, :2].std() == pytest.approx(8 / math.sqrt(12), rel=0.1)
    for length, column in layout.curves["length"].items():
        assert torch.allclose(moved[:, column, :2].norm(dim=-1), torch.tensor(length).double(), atol=1e-6)
    angle = torch.atan2(moved[:, layout.curves["length"][1.0], 1], moved[:, layout.curves["length"][1.0], 0])
    assert angle.std() == pytest.approx(2 * math.pi / math.sqrt(12), rel=0.1)
    whole = moved[:, layout.curves["fraction"][0.0], :2]
    assert sorted(whole.unique().tolist()) == list(range(-4, 4))
    assert torch.allclose(moved[:, layout.curves["fraction"][0.25], :2], whole + 0.25)
    assert torch.allclose(
        moved[0, layout.curves["direction"][135.0], :2], torch.tensor([-1.0, 1.0]).double() * math.sqrt(8), atol=1e-6
    )
    assert moved[0, layout.curves["scale"][1.25]].tolist() == [0.0, 0.0, 1.25]
    assert FULL.max_shift == 4.0
    assert FULL.factors == (0.8, 1.25)


def test_no_view_is_taken_twice() -> None:
    layout = FULL.layout
    assert len(set(layout.columns)) == len(layout.columns)
    zero = [layout.grid[4], layout.path[2], layout.curves["length"][0.0], layout.curves["scale"][1.0]]
    assert zero == [0, 0, 0, 0]
    assert layout.path[1] == layout.grid[3]
    # 1, then 3 pairs with a blurred view each, 8 places, 2 lengths, 3 fractions, 3 directions, 2 scales, 2 of the path.
    assert len(layout.columns) == 1 + 9 + 8 + 2 + 3 + 3 + 2 + 2
    moved = FULL.displacements(0, 0, 1)[0]
    assert torch.equal(moved[3], moved[1])
    assert layout.columns[3].blurred


def test_quanta_steps_and_anchors() -> None:
    whole = Plan(pairs=Pairs(4, -3.0, 2.0, quantum=1.0)).displacements(0, 0, 300)[:, 1:, :2]
    assert sorted(whole.unique().tolist()) == [-3, -2, -1, 0, 1, 2]
    half = Plan(pairs=Pairs(4, 0.0, 1.0, quantum=0.5)).displacements(0, 0, 100)[:, 1:, :2]
    assert sorted(half.unique().tolist()) == [0, 0.5, 1]
    step = Plan(pairs=Pairs(8, -2.0, 2.0, quantum=1.0, step=(1.0, 1.0)))
    moved = step.displacements(0, 0, 20)
    for first, second in step.layout.pairs:
        assert torch.equal(moved[:, second, :2], moved[:, first, :2] + 1)
    assert step.max_shift == 3.0
    anchored = Plan(pairs=Pairs(2, 1.0, 31.0, quantum=1.0, anchored=True))
    assert anchored.layout.pairs == ((0, 1), (0, 2))
    assert anchored.displacements(0, 0, 500)[:, 1, :2].min() == 1


def test_one_shift_against_none() -> None:
    plan = one_shift(1.5, -0.0)
    assert plan.layout.pairs == ((0, 1),)
    assert plan.displacements(5, 0, 2)[:, 1].tolist() == [[1.5, 0.0, 1.0]] * 2
    assert one_shift(0.0, 0.0).layout.pairs == ((0, 0),)
    assert one_shift(0.5, 0.0).max_shift == 0.5


def test_scale_is_an_axis_of_its_own() -> None:
    plan = Plan("scale", Pairs(4, 0.8, 1.25), grid=(0.8, 1.0, 1.25), scales=(0.9, 1.1))
    moved = plan.displacements(0, 0, 500)
    assert (moved[..., :2] == 0).all()
    logs = moved[:, 1:9, 2].log()
    assert logs.min() >= math.log(0.8) - 1e-6
    assert logs.mean() == pytest.approx(0.0, abs=0.01)
    assert plan.layout.grid[1] == 0
    assert plan.factors == (0.8, 1.25)
    assert plan.max_shift == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Pairs(0), "pairs: expected a whole number of 1 or more"),
        (lambda: Pairs(1, 2.0, 1.0), "low <= high"),
        (lambda: Pairs(1, 0.0, math.nan), "low <= high"),
        (lambda: Pairs(quantum=0.0), "quantum above 0"),
        (lambda: Pairs(anchored=True, step=(1.0, 1.0)), "got both"),
        (lambda: Plan("rotate"), "unknown axis 'rotate'"),
        (lambda: Plan("scale", Pairs(1, 0.8, 1.2), lengths=(1.0,)), "belong to axis 'shift'"),
        (lambda: Plan("scale"), "factors above 0"),
        (lambda: Plan(grid=(1.0,)), "places"),
        (lambda: Plan(lengths=(-1.0,)), "at least 0"),
        (lambda: Plan(lengths=(math.inf,)), "finite"),
        (lambda: Plan(fractions=(1.0,)), "in \\[0, 1\\)"),
        (lambda: Plan(pairs=Pairs(1, 0.0, 0.5), fractions=(0.5,)), "at least one pixel"),
        (lambda: Plan(pairs=Pairs(quantum=1.0), blur_control=True), "blur nothing"),
        (lambda: Plan(scales=(0.0,)), "above 0"),
        (lambda: square_grid(0.0, 1.0), "step above 0"),
    ],
)
def test_plans_that_make_no_sense_are_refused(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(("most", "steps"), [(0.5, 1), (1.0, 2), (2.4, 4), (4.0, 8), (9.0, 8)])
def test_a_full_plan_of_shifts_by_hand(most: float, steps: int) -> None:
    plan = full_plan("shift", most, 3)
    assert (plan.pairs.count, plan.pairs.low, plan.pairs.high) == (3, -most, most)
    assert plan.lengths == pytest.approx([most / 6, most / 3, most / 2, most * 2 / 3, most * 5 / 6, most])
    assert plan.fractions == ((0.0, 0.125, 0.25, 0.375, 0.5) if most >= 1 else ())
    assert plan.directions == (0, 45, 90, 135, 180, 225, 270, 315)
    assert len(plan.path) == 2 * math.floor(most) + 1 if most < 4 else len(plan.path) == 9
    assert len(plan.path) == steps + 1 or most < 1
    unit = min(1.0, most)
    assert set(plan.grid) == {(x, y) for x in (-unit, 0.0, unit) for y in (-unit, 0.0, unit)}
    assert plan.scales == ()
    assert plan.blur_control


def test_a_full_plan_of_factors_by_hand() -> None:
    plan = full_plan("scale", 16.0, 5)
    assert (plan.pairs.count, plan.pairs.low, plan.pairs.high) == (5, 1 / 16, 16)
    assert plan.scales == plan.grid == pytest.approx([1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16])
    for most in (1.0, 0.5, math.inf):
        with pytest.raises(InputError, match="max_scale: expected a factor above 1"):
            full_plan("scale", most, 5)
