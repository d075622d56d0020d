"""Matrices against hand calculations, and the laws that they must obey."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from augkit.augment import geometry
from augkit.core.errors import InputError

SIZE = (6, 9)  # (H, W); the center is at x = 4, y = 2.5


def vector(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def moved(matrix: Tensor, x: float, y: float) -> list[float]:
    return geometry.apply_to_points(matrix, vector(x, y)[None, None]).flatten().tolist()


HAND = [
    ("identity", geometry.identity(1, dtype=torch.float64), (3, 1), (3, 1)),
    ("shift", geometry.shift(vector(1.5, -2)[None]), (3, 1), (4.5, -1)),
    ("axis_aligned", geometry.axis_aligned(vector(2), vector(1), vector(3), vector(-4)), (3, 1), (7, -1)),
    ("rescale keeps the center", geometry.rescale(vector(2), SIZE), (4, 2.5), (4, 2.5)),
    ("rescale doubles distances", geometry.rescale(vector(2), SIZE), (5, 1.5), (6, 0.5)),
    # The window from edge 3 to edge 6 of x and 2 to 4 of y, shown at 6 x 9: three times as large.
    ("crop, first edge", geometry.crop(vector(3), vector(2), vector(3), vector(2), SIZE), (2.5, 1.5), (-0.5, -0.5)),
    ("crop, last edge", geometry.crop(vector(3), vector(2), vector(3), vector(2), SIZE), (5.5, 3.5), (8.5, 5.5)),
    ("flip", geometry.flip(torch.tensor([True]), SIZE).double(), (1, 5), (7, 5)),
    ("no flip", geometry.flip(torch.tensor([False]), SIZE).double(), (1, 5), (1, 5)),
    ("rotate keeps the center", geometry.rotate(vector(33), SIZE), (4, 2.5), (4, 2.5)),
    ("rotate goes up on the right", geometry.rotate(vector(90), SIZE), (6, 2.5), (4, 0.5)),
    ("rotate by 30", geometry.rotate(vector(30), SIZE), (6, 2.5), (4 + math.sqrt(3), 1.5)),
    ("shear along x", geometry.shear(vector(0.5, 0)[None], SIZE), (3, 4.5), (4, 4.5)),
    ("shear along y", geometry.shear(vector(0, 0.5)[None], SIZE), (6, 1.5), (6, 2.5)),
    ("shear keeps the center", geometry.shear(vector(0.3, 0.7)[None], SIZE), (4, 2.5), (4, 2.5)),
]


@pytest.mark.parametrize(("matrix", "point", "expected"), [row[1:] for row in HAND], ids=[row[0] for row in HAND])
def test_points_move_as_calculated_by_hand(
    matrix: Tensor, point: tuple[float, float], expected: tuple[float, float]
) -> None:
    assert matrix.shape == (1, 3, 3)
    assert matrix.dtype == torch.float64
    assert moved(matrix, *point) == pytest.approx(expected, abs=1e-12)


def test_every_sample_has_its_own_matrix() -> None:
    matrix = geometry.rescale(torch.tensor([1.0, 2.0, 0.5]), SIZE)
    points = geometry.apply_to_points(matrix, torch.tensor([[[5.0, 2.5], [4.0, 3.5]]]).expand(3, 2, 2))
    assert points.tolist() == [[[5, 2.5], [4, 3.5]], [[6, 2.5], [4, 4.5]], [[4.5, 2.5], [4, 3.0]]]


@pytest.mark.parametrize(
    ("matrix", "box", "expected"),
    [
        (geometry.shift(vector(3, -2)[None]), (0, 0, 9, 6), (3, -2, 12, 4)),
        (geometry.rescale(vector(2), SIZE), (0, 0, 9, 6), (-4.5, -3, 13.5, 9)),
        (geometry.flip(torch.tensor([True]), SIZE).double(), (0, 0, 9, 6), (0, 0, 9, 6)),
        (geometry.flip(torch.tensor([True]), SIZE).double(), (1, 2, 3, 5), (6, 2, 8, 5)),
        (geometry.crop(vector(3), vector(2), vector(3), vector(2), SIZE), (3, 2, 6, 4), (0, 0, 9, 6)),
        (geometry.rotate(vector(90), SIZE), (0, 0, 9, 6), (1.5, -1.5, 7.5, 7.5)),
        (geometry.rotate(vector(45), (4, 4)), (0, 0, 4, 4), (2 - 8**0.5, 2 - 8**0.5, 2 + 8**0.5, 2 + 8**0.5)),
        (geometry.shear(vector(0.5, 0)[None], SIZE), (0, 0, 9, 6), (-1.5, 0, 10.5, 6)),
    ],
    ids=["shift", "rescale", "flip all", "flip part", "crop", "rotate 90", "rotate 45", "shear"],
)
def test_boxes_move_as_calculated_by_hand(matrix: Tensor, box: tuple[float, ...], expected: tuple[float, ...]) -> None:
    out = geometry.apply_to_boxes(matrix, vector(*box)[None, None])
    assert out.flatten().tolist() == pytest.approx(expected, abs=1e-12)


def test_boxes_keep_their_order_in_a_batch() -> None:
    boxes = torch.arange(24.0).reshape(2, 3, 4)
    out = geometry.apply_to_boxes(geometry.shift(torch.tensor([[1.0, 2.0], [-3.0, 4.0]])), boxes)
    steps = torch.tensor([[[1.0, 2.0, 1.0, 2.0]], [[-3.0, 4.0, -3.0, 4.0]]])
    torch.testing.assert_close(out, boxes + steps)


def test_rotation_by_90_agrees_with_rot90() -> None:
    n = 5
    numbers = torch.arange(n * n).reshape(n, n)
    turned = torch.rot90(numbers)
    y, x = numbers.flatten() // n, numbers.flatten() % n
    points = geometry.apply_to_points(geometry.rotate(vector(90), (n, n)), torch.stack([x, y], dim=-1)[None].double())
    x, y = points[0].round().long().unbind(-1)
    assert torch.equal(turned[y, x], numbers.flatten())


coordinate = st.floats(-50, 50)
factor = st.floats(0.2, 5)
size = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Any of the matrices that the module builds."""
    hw = draw(size)
    return draw(
        st.one_of(
            st.builds(lambda x, y: geometry.shift(vector(x, y)[None]), coordinate, coordinate),
            st.builds(lambda f: geometry.rescale(vector(f), hw), factor),
            st.builds(
                lambda x, y, w, h: geometry.crop(vector(x), vector(y), vector(w), vector(h), hw),
                *(coordinate, coordinate, st.floats(1, 40), st.floats(1, 40)),
            ),
            st.builds(lambda on: geometry.flip(torch.tensor([on]), hw).double(), st.booleans()),
            st.builds(lambda a: geometry.rotate(vector(a), hw), st.floats(-360, 360)),
            st.builds(lambda f: geometry.shear(vector(f, 0)[None], hw), st.floats(-2, 2)),
        )
    )


@given(matrices(), matrices(), matrices(), coordinate, coordinate)
@settings(max_examples=60, deadline=None)
def test_compose_applies_from_left_to_right(a: Tensor, b: Tensor, c: Tensor, x: float, y: float) -> None:
    one_by_one = moved(c, *moved(b, *moved(a, x, y)))
    assert moved(geometry.compose(a, b, c), x, y) == pytest.approx(one_by_one, rel=1e-9, abs=1e-6)


@given(matrices(), matrices(), coordinate, coordinate)
@settings(max_examples=60, deadline=None)
def test_invert_leads_back(a: Tensor, b: Tensor, x: float, y: float) -> None:
    there = geometry.compose(a, b)
    assert moved(geometry.invert(there), *moved(there, x, y)) == pytest.approx((x, y), abs=1e-6)
    backwards = geometry.compose(geometry.invert(b), geometry.invert(a))
    torch.testing.assert_close(geometry.invert(there), backwards, rtol=1e-7, atol=1e-6)


@given(size)
@settings(max_examples=60, deadline=None)
def test_the_whole_image_at_its_own_size_is_exactly_the_identity(hw: tuple[int, int]) -> None:
    zero, width, height = torch.zeros(1), torch.tensor([float(hw[1])]), torch.tensor([float(hw[0])])
    assert torch.equal(geometry.crop(zero, zero, width, height, hw), torch.eye(3)[None])
    assert torch.equal(geometry.rescale(torch.ones(1), hw), torch.eye(3)[None])


@given(size)
@settings(max_examples=60, deadline=None)
def test_two_flips_are_exactly_the_identity(hw: tuple[int, int]) -> None:
    flip = geometry.flip(torch.tensor([True]), hw)
    assert not torch.equal(flip, torch.eye(3)[None])
    assert torch.equal(geometry.compose(flip, flip), torch.eye(3)[None])


@given(factor, factor, size)
@settings(max_examples=40, deadline=None)
def test_factors_multiply_and_angles_add(f: float, g: float, hw: tuple[int, int]) -> None:
    twice = geometry.compose(geometry.rescale(vector(f), hw), geometry.rescale(vector(g), hw))
    torch.testing.assert_close(twice, geometry.rescale(vector(f * g), hw))
    turned = geometry.compose(geometry.rotate(vector(50 * f), hw), geometry.rotate(vector(-20 * g), hw))
    torch.testing.assert_close(turned, geometry.rotate(vector(50 * f - 20 * g), hw))


def test_upright_boxes_come_back_through_the_inverse() -> None:
    matrix = geometry.compose(geometry.rescale(vector(1.7), SIZE), geometry.shift(vector(0.3, -2.2)[None]))
    box = vector(1, 2, 5, 4)[None, None]
    there = geometry.apply_to_boxes(matrix, box)
    assert not torch.allclose(there, box)
    torch.testing.assert_close(geometry.apply_to_boxes(geometry.invert(matrix), there), box)


def test_singular_matrices_are_named() -> None:
    batch = torch.eye(3).repeat(3, 1, 1)
    batch[1, 0, 0] = 0
    with pytest.raises(InputError, match="matrix 1 of the batch is singular"):
        geometry.invert(batch)


def test_compose_needs_a_matrix() -> None:
    with pytest.raises(InputError, match="at least one matrix"):
        geometry.compose()


def test_axes_as_a_matrix_agree_with_a_calculation_by_hand() -> None:
    """Centers are at (3, 1) before and at (2, 5) after: x -> 2 (x - 3) + 0.5 + 2, y -> -3 (y - 1) + 4 + 5."""
    axes = geometry.Axes(vector(2, -3)[None].repeat(2, 1), vector(0.5, 4)[None].repeat(2, 1))
    matrix = axes.matrix((3, 7), (11, 5))
    assert matrix.dtype == torch.float64
    assert matrix.tolist() == [[[2, 0, -3.5], [0, -3, 12], [0, 0, 1]]] * 2
    alike = geometry.Axes(vector(2)[None], vector(1)[None])
    assert alike.matrix((5, 5), (5, 5)).tolist() == [[[2, 0, -1], [0, 2, -1], [0, 0, 1]]]
