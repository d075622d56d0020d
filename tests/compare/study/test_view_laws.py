"""Properties of displacements and of stored answers at the limits of the allowed values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from augkit.compare.study.claims import Part
from augkit.compare.study.effects import half_length, probe_measure
from augkit.core.errors import InputError
from augkit.invariance.accumulator import smallest_integer
from augkit.invariance.flips import Flip
from augkit.invariance.plan import Pairs, Plan, draws, line_path, square_grid


@pytest.mark.parametrize(
    "plan",
    [
        Plan(pairs=Pairs(2, -3.0, 2.0)),
        Plan(pairs=Pairs(1, -1.0, 1.0, step=(0.5, -2.0))),
        Plan(pairs=Pairs(1, -1.0, 1.0), grid=((4.0, -5.0),)),
        Plan(pairs=Pairs(2, -2.0, 3.0), fractions=(0.0, 0.5)),
        Plan(pairs=Pairs(2, -2.0, 3.0), directions=(0.0, 135.0, 270.0)),
        Plan(pairs=Pairs(2, -2.0, 3.0), lengths=(0.0, 2.5)),
        Plan("scale", Pairs(2, 0.5, 3.0), grid=(0.25, 1.0), scales=(2.0,)),
    ],
)
def test_no_view_exceeds_the_largest_displacement_of_the_plan(plan: Plan) -> None:
    drawn = plan.displacements(3, 0, 4000).double()
    assert float(drawn[..., :2].abs().max()) <= plan.max_shift + 1e-6
    assert float(drawn[..., :2].abs().max()) >= 0.98 * plan.max_shift
    low, high = plan.factors
    assert low - 1e-6 <= float(drawn[..., 2].min()) <= 1.02 * low
    assert high / 1.02 <= float(drawn[..., 2].max()) <= high + 1e-6


def test_whole_pixels_cover_their_range_and_stay_within_it() -> None:
    """Even with an added fraction of nearly one pixel, no pair leaves the range."""
    plan = Plan(pairs=Pairs(1, -2.0, 3.0), fractions=(0.0, 0.5))
    columns = plan.layout.columns
    at = [k for k, column in enumerate(columns) if column.source == "fraction"]
    drawn = plan.displacements(0, 0, 3000)[:, at, :2]
    assert sorted(drawn[:, 0].unique().tolist()) == [-2, -1, 0, 1, 2]
    assert torch.equal(drawn[:, 1], drawn[:, 0] + 0.5)


def test_quanta_are_uniform_up_to_both_ends() -> None:
    drawn = Plan(pairs=Pairs(1, -1.0, 1.0, quantum=0.25)).displacements(1, 0, 9000)[:, 1, 0]
    values, counts = drawn.unique(return_counts=True)
    assert values.tolist() == np.arange(-1, 1.01, 0.25).tolist()
    assert (counts.double() / 1000 - 1).abs().max() < 0.15


def test_factors_are_uniform_on_a_log_scale() -> None:
    drawn = Plan("scale", Pairs(1, 0.25, 4.0)).displacements(1, 0, 8000)[:, 1, 2].double().log() / math.log(4)
    assert float(drawn.mean()) == pytest.approx(0, abs=0.03)
    assert float(drawn.var()) == pytest.approx(1 / 3, abs=0.02)  # the variance of a uniform number in [-1, 1]


@pytest.mark.parametrize("columns", [1, 3, 4, 5, 8, 9])
def test_no_image_shares_a_draw_with_another(columns: int) -> None:
    found = draws(7, 1, 0, 50, columns)
    assert found.shape == (50, columns)
    assert len(np.unique(found)) == found.size
    for start in (1, 13, 49):
        assert np.array_equal(draws(7, 1, start, 1, columns)[0], found[start])


def test_values_at_the_limit_are_accepted_and_those_beyond_are_refused() -> None:
    Plan(pairs=Pairs(1, 0.0, 1.0), fractions=(0.0, 0.999))
    Plan(pairs=Pairs(1, -2.0, 2.0, quantum=0.5), blur_control=True)
    Plan(lengths=(0.0,), scales=(1e-3,))
    for make in (
        lambda: Plan(pairs=Pairs(1, 0.1, 1.9), fractions=(0.5,)),
        lambda: Plan(pairs=Pairs(1, -2.0, 2.0), fractions=(1.0,)),
        lambda: Plan(pairs=Pairs(1, -2.0, 2.0, quantum=2.0), blur_control=True),
        lambda: Plan(lengths=(-1e-9,)),
        lambda: Plan(scales=(0.0,)),
        lambda: Plan("scale", Pairs(1, 0.5, 2.0), grid=(0.0,)),
        lambda: Plan("scale", Pairs(1, 0.5, 2.0, quantum=0.5)),
        lambda: Plan("scale", Pairs(1, 0.5, 2.0), blur_control=True),
        lambda: square_grid(0.0, 1.0),
        lambda: square_grid(1.0, -0.1),
    ):
        with pytest.raises(InputError):
            make()


@pytest.mark.parametrize(("step", "extent"), [(1.0, 0.0), (0.1, 0.3), (0.5, 1.2), (2.0, 4.0)])
def test_a_grid_is_all_multiples_within_its_extent(step: float, extent: float) -> None:
    line = [k * step for k in range(-99, 100) if abs(k * step) <= extent + 1e-9]
    assert set(square_grid(step, extent)) == {(x, y) for x in line for y in line}


@pytest.mark.parametrize("length", [0, 1, 2, 5, 8])
def test_a_path_takes_its_steps_through_the_unshifted_image(length: int) -> None:
    path = np.array(line_path(length, (0.5, -2.0)))
    assert path.shape == (length + 1, 2)
    assert (np.diff(path, axis=0) == (0.5, -2.0)).all()
    assert (path == 0).all(1).sum() == 1
    assert np.abs(path.sum(0) / (0.5, -2.0)).max() <= (length + 1) / 2


@pytest.mark.parametrize("classes", [2, 255, 256, 257, 32768, 32769])
def test_the_last_class_fits_its_integer_and_no_smaller_one(classes: int) -> None:
    dtype = smallest_integer(classes)
    assert int(torch.tensor(classes - 1).to(dtype)) == classes - 1
    smaller = {torch.int16: torch.uint8, torch.int32: torch.int16}.get(dtype)
    assert smaller is None or torch.iinfo(smaller).max < classes - 1


def test_flips_are_ranked_by_the_less_certain_answer_then_by_the_image() -> None:
    def flip(image: int, *probabilities: float) -> Flip:
        return Flip(image, None, ((0.0, 0.0, 1.0),) * 2, (0, 1), probabilities)

    flips = [flip(4, 0.99, 0.4), flip(3, 0.6, 0.6), flip(9, 0.6, 0.9), flip(1, 0.5, 0.5)]
    assert [f.image for f in sorted(flips, key=lambda f: f.rank)] == [3, 9, 1, 4]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 50.0])
def test_a_half_life_has_the_unit_of_lengths_and_none_of_the_values(scale: float) -> None:
    lengths, values = np.array([0.0, 1.0, 2.5, 4.0]), np.array([[0.1], [0.5], [0.6]])
    found = half_length(lengths, values)
    assert half_length(lengths, scale * values) == pytest.approx(found)
    assert half_length(scale * lengths, values) == pytest.approx(scale * found)
    # A curve that is constant 0 has no half; the result is the first length and not an extrapolation.
    assert half_length(lengths, np.zeros((3, 1))).tolist() == [1.0]


def test_probes_with_other_options_or_images_have_other_names() -> None:
    def name(**fields: object) -> str:
        part = {"statistic": "probe", "probe": "p", "key": "k", "prediction": "positive", **fields}
        return probe_measure(Part.model_validate(part))

    names = [name(), name(options={"a": 1}), name(options={"a": 2}), name(options={"a": 1, "b": 2})]
    assert len(set(names)) == len(names)
    assert name(options={"b": 2, "a": 1}) == names[-1]
