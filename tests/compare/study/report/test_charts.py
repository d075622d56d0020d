"""Charts of a study: positions of marks, and tooltips with arm, place and value."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_study import UNKNOWN, bars, curve, estimate, lines, plane, rows
from matplotlib.figure import Figure
from page_reader import PageReader

from augkit.compare.study.report.charts import Spec, chart, draw, reachable
from augkit.compare.study.report.looks import looks, samples
from augkit.compare.study.results import PlanePoint
from augkit.core.errors import InputError
from augkit.invariance import Estimate

distinct = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=6, unique_by=round)
few = settings(max_examples=15)


def places(figure: Figure) -> list[tuple[float, float]]:
    """Positions of the marks of a figure, in the units of its axes."""
    (axes,) = figure.axes
    found = [line for line in axes.lines if '"tip": "a' in str(line.get_gid()) or '"tip": "row' in str(line.get_gid())]
    return [tuple(float(part[0]) for part in line.get_data()) for line in found]  # type: ignore[misc]


def marks(spec: Spec) -> list[dict[str, str]]:
    return PageReader(str(chart(spec, looks(["a"])).svg)).marks


@few
@given(values=distinct)
def test_marks_are_at_their_values(values: list[float]) -> None:
    look, made = looks(["a"]), [estimate(value, 0.0) for value in values]
    both = [(value, value) for value in values]
    assert places(draw(lines(curve(values, made)), look)) == both
    assert places(draw(plane(*(PlanePoint("a", "learned", e, e) for e in made)), look)) == both
    specs: list[Spec] = [rows(*made), bars(*values)]
    for spec in specs:
        assert places(draw(spec, look)) == [(value, k) for k, value in enumerate(values)]


def test_both_axes_of_the_scatter_plot_have_the_same_scale() -> None:
    figure = draw(plane(PlanePoint("a", "both", estimate(0.5), estimate(0.2))), looks(["a"]))
    (axes,) = figure.axes
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_box_aspect() == 1


def test_a_wide_interval_is_cut_with_an_arrow() -> None:
    made = [estimate(0.1, 0.05), estimate(0.2, 0.05), estimate(0.3, 1000)]
    assert max(reachable([0.1, 0.2, 0.3], [(0.05, 0.15), (0.15, 0.25), (-999.7, 1000.3)])) == pytest.approx(0.6)
    figure = draw(rows(*made), looks(["a"]))
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    spread = [x for x, _ in places(figure)]
    assert (spread[2] - spread[0]) / (high - low) > 0.15
    assert {"<", ">"} <= {str(line.get_marker()) for line in axes.lines}
    assert "[−1000, 1000]" in marks(rows(*made))[2]["data-tip"]  # the tooltip still has the numbers


def test_a_tooltip_has_arm_place_and_value() -> None:
    assert marks(lines(curve()))[1]["data-tip"] == "a\nx, px: 1\ny, bits: 0.400 [0.300, 0.500]"
    assert marks(bars(3.0))[0]["data-tip"] == "a\ngroup 0\ndB: 3.00"
    assert all(mark["data-group"] == "a" and mark["tabindex"] == "0" for mark in marks(lines(curve())))


@pytest.mark.parametrize("value", [UNKNOWN, Estimate(1.0, math.nan, 2.0), Estimate(math.inf, 0.0, math.inf)])
def test_undefined_values_are_drawn_as_words(value: Estimate) -> None:
    undefined = value.value != 1.0
    series = curve([0, 1, math.nan, 3], [estimate(0), value, estimate(1), estimate(2)])
    point = PlanePoint("a", "learned", estimate(0), value)
    specs: list[tuple[Spec, int]] = [(lines(series), 1), (rows(value), 0), (plane(point), 0), (bars(value.value), 0)]
    for spec, extra in specs:
        texts = [text.get_text() for text in draw(spec, looks(["a"])).axes[0].texts]
        assert sum(text.endswith("undefined") for text in texts) == undefined + extra
        assert sum("undefined" in mark["data-tip"] for mark in marks(spec)) >= undefined + extra


def test_a_line_has_a_gap_where_a_value_is_undefined() -> None:
    half = Estimate(1.0, math.nan, 2.0)
    series = curve([0, 1, 2, 3, 4], [estimate(1)] * 2 + [UNKNOWN] + [half] * 2)
    figure = draw(lines(series), looks(["a"]))
    pieces = [list(line.get_xdata()) for line in figure.axes[0].lines if line.get_linewidth() == 1.6]
    assert [piece for piece in pieces if len(piece) == 2] == [[0, 1], [3, 4]]


@pytest.mark.parametrize("spec", [lines(), rows(), bars(), plane()])
def test_charts_with_few_values_are_drawn(spec: Spec) -> None:
    assert str(chart(spec, looks(["a"])).svg).startswith("<svg")


def test_arms_look_different_without_color() -> None:
    found = looks(f"arm {k}" for k in range(40))
    assert len({(look.color, look.shape, look.hollow) for look in found.values()}) == 40
    assert len({(look.dash, look.shape) for look in found.values()}) == 40
    assert len({look.shape for look in list(found.values())[:8]}) == 8
    assert len({(look.shape, look.hollow) for look in list(found.values())[:16]}) == 16
    first = looks(["a", "b"])
    assert len(set(samples(first).values())) == 2


def test_an_arm_looks_the_same_everywhere() -> None:
    look = looks(["z", "a"])
    specs: list[Spec] = [lines(curve()), rows(estimate(0)), bars(1.0)]
    for spec in specs:
        shapes = {str(line.get_marker()) for line in draw(spec, look).axes[0].lines}
        assert look["a"].shape in shapes
        assert look["z"].shape not in shapes


def test_text_with_dollar_signs_is_not_drawn_as_a_formula() -> None:
    drawn = str(chart(lines(curve(), x_label="$x^2$", y_label="$\\frac$"), looks(["a"])).svg)
    assert "$x^2$" in drawn


def test_an_arm_without_a_look_is_refused() -> None:
    with pytest.raises(InputError, match="got none for 'a'"):
        chart(lines(curve()), looks(["b"]))
