"""Figures of a search: the dominated volume against two other computations, and the geometry of each figure."""

from __future__ import annotations

import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.text import Text

from augkit.compare.study.report.figures import plane
from augkit.compare.study.results import PlanePoint
from augkit.core.figures import BLUE, GRAY, svg
from augkit.invariance import Estimate
from augkit.tune import search_figures as figures
from augkit.tune.results import SearchTrial
from augkit.tune.space import Range

UNIT = st.floats(0, 1, allow_nan=False)
FINE = settings(max_examples=60, deadline=None, derandomize=True)
LR = Range(low=1e-4, high=1.0, log=True, default=0.1)
SPACE = {
    "shift.max_pixels": Range(low=0.0, high=4.0, unit="px", default=1.0),
    "train.lr": LR,
    "train.epochs": Range(kind="int", low=2, high=10, default=4),
    "blur.kind": Range(kind="choice", choices=["none", "gaussian", "binomial"], default="none"),
}


def points(dimensions: int, most: int = 6) -> st.SearchStrategy[list[list[float]]]:
    # Few distinct values make ties and duplicates common.
    value = st.one_of(UNIT, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
    return st.lists(st.lists(value, min_size=dimensions, max_size=dimensions), max_size=most)


SETS = st.sampled_from([2, 3]).flatmap(lambda d: points(d).map(lambda found: (d, found)))


def inclusion_exclusion(found: list[list[float]], reference: list[float]) -> float:
    """Volume by inclusion and exclusion; the intersection of boxes is the box of their smallest sides."""
    sides = np.clip(np.array(found).reshape(-1, len(reference)) - reference, 0, None)
    return sum(
        (-1) ** (size + 1) * float(np.prod(sides[list(chosen)].min(0)))
        for size in range(1, len(sides) + 1)
        for chosen in itertools.combinations(range(len(sides)), size)
    )


def trial(number: int, values: Any, **more: Any) -> SearchTrial:
    plain = {"control": False, "state": "complete", "accuracy": None, "learned_invariance": None, "parameters": {}}
    plain |= {"front": False, "chosen": False, "feasible": True, "curve": {}}
    return SearchTrial(number=number, values=values, **{**plain, **more})


def with_curve(state: str, curve: dict[Any, Any], **more: Any) -> SearchTrial:
    return trial(0, None, state=state, curve=curve, **more)


def with_parameters(number: int, value: float, **more: Any) -> SearchTrial:
    parameters = {"shift.max_pixels": 1.0, "train.lr": 0.01, "train.epochs": 4, "blur.kind": "gaussian"}
    return trial(number, [value, 0.5], parameters=parameters, **more)


def texts(figure: Figure) -> list[str]:
    """All text of the first axes except tick labels."""
    return [text.get_text() for text in figure.axes[0].texts]


def legend(figure: Figure) -> list[str]:
    found = figure.axes[0].get_legend()
    return [text.get_text() for text in found.get_texts()] if found else []


def overlapping(figure: Figure, shown: list[Text]) -> list[tuple[str, str]]:
    """Pairs of texts whose boxes overlap in the drawn figure."""
    figure.savefig(io.BytesIO(), format="png")
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown if text.get_text()]
    return [(a, b) for (a, p), (b, q) in itertools.combinations(boxes, 2) if p.overlaps(q)]


@FINE
@given(SETS, st.floats(-0.5, 0.5))
def test_volume_equals_inclusion_and_exclusion(case: tuple[int, list[list[float]]], corner: float) -> None:
    dimensions, found = case
    expected = inclusion_exclusion(found, [corner] * dimensions)
    assert figures.dominated_volume(found, [corner] * dimensions) == pytest.approx(expected, abs=1e-9)


@FINE
@given(st.sampled_from([2, 3]).flatmap(lambda d: points(d, 25).map(lambda found: (d, found))))
def test_volume_equals_that_of_optuna(case: tuple[int, list[list[float]]]) -> None:
    theirs = pytest.importorskip("optuna._hypervolume").compute_hypervolume
    dimensions, found = case
    losses = -np.array(found).reshape(-1, dimensions)
    expected = theirs(losses, np.zeros(dimensions))
    assert figures.dominated_volume(found, [0.0] * dimensions) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_volume_is_the_share_of_random_points_that_are_dominated(dimensions: int) -> None:
    rng = np.random.default_rng(3)
    found = rng.random((8, dimensions))
    dots = rng.random((100_000, dimensions))
    share = (dots[:, None] <= found).all(2).any(1).mean()
    assert figures.dominated_volume(found.tolist(), [0.0] * dimensions) == pytest.approx(share, abs=0.006)


@FINE
@given(SETS, st.randoms(use_true_random=False))
def test_order_and_duplicates_do_not_matter(case: tuple[int, list[list[float]]], random: Any) -> None:
    dimensions, found = case
    again = found + found[:2]
    random.shuffle(again)
    volume = figures.dominated_volume(found, [0.1] * dimensions)
    assert figures.dominated_volume(again, [0.1] * dimensions) == pytest.approx(volume, abs=1e-12)


@FINE
@given(SETS)
def test_more_points_never_dominate_less(case: tuple[int, list[list[float]]]) -> None:
    dimensions, found = case
    grown = [figures.dominated_volume(found[:k], [0.1] * dimensions) for k in range(len(found) + 1)]
    assert all(later >= earlier - 1e-12 for earlier, later in itertools.pairwise(grown))


def test_points_below_the_reference_or_not_finite_add_nothing() -> None:
    assert figures.dominated_volume([[9, 0.5], [0.5, 9], [1, 5]], [1, 1]) == 0
    assert figures.dominated_volume([[2, 3], [math.nan, 9], [math.inf, 9]], [1, 1]) == 2
    assert figures.dominated_volume([], [0, 0, 0]) == 0


@pytest.mark.parametrize(
    ("found", "corner", "word"), [([[1]], [0], "2 or 3"), ([[1, 2]], [0, 0, 0], "3 values"), ([], [0, math.nan], "fin")]
)
def test_bad_points_give_an_error_that_names_what_was_expected(found: Any, corner: Any, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        figures.dominated_volume(found, corner)


def test_volumes_are_in_order_of_trial_numbers_without_control_and_unfinished_trials() -> None:
    trials = [
        trial(4, [1.0, 2.0]),
        trial(0, [5.0, 5.0], control=True),
        trial(1, [2.0, 1.0]),
        trial(2, [3.0, 3.0], feasible=False),
        trial(3, [None, 0.5]),
        trial(5, None),
        trial(6, [1.0, math.nan]),
        trial(7, [0.5, 0.5]),
    ]
    assert figures.volumes(trials, [0, 0]) == [2, 2, 3, 3]  # numbers 1, 2, 4 and 7
    figure = figures.volume_over_trials(trials, [0, 0])
    line, *marks = figure.axes[0].lines
    assert len(marks) == 4
    assert line.get_drawstyle() == "steps-post"
    assert np.array(line.get_xydata()).tolist() == [[0, 0], [1, 2], [2, 2], [3, 3], [4, 3]]
    grew, barred = figure.axes[0].collections
    assert np.array(grew.get_offsets()).tolist() == [[1, 2], [3, 3]]
    assert np.array(barred.get_offsets()).tolist() == [[2, 2]]
    assert legend(figure) == ["volume grew", "not feasible"]


@FINE
@given(points(3, 12))
def test_volumes_equal_those_of_the_trials_so_far(found: list[list[float]]) -> None:
    made = figures.volumes([trial(k, values) for k, values in enumerate(found)], [0.1] * 3)
    expected = [figures.dominated_volume(found[: k + 1], [0.1] * 3) for k in range(len(found))]
    assert made == pytest.approx(expected, abs=1e-12)


def test_parallel_lines_pass_through_their_values() -> None:
    rows = [with_parameters(0, 0.25), with_parameters(1, 0.75, chosen=True), with_parameters(2, 0.5)]
    rows[0].parameters.update({"shift.max_pixels": 4.0, "train.lr": 1e-4, "train.epochs": 10, "blur.kind": "none"})
    figure = figures.parallel_coordinates(rows, SPACE, "learned_invariance")
    lines = figure.axes[0].lines  # from the lowest to the highest objective, so that the best are drawn on top
    assert [line.get_xdata().tolist() for line in map(_arrays, lines)] == [[0, 1, 2, 3, 4]] * 3
    assert np.allclose(_arrays(lines[0]).get_ydata(), [1, 0, 1, 0, 0])
    assert np.allclose(_arrays(lines[2]).get_ydata(), [0.25, 0.5, 0.25, 0.5, 1])
    assert [line.get_linewidth() > 2 for line in lines] == [False, False, True]
    assert legend(figure) == ["chosen"]
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == ["shift\nmax pixels\n(px)", "train\nlr", "train\nepochs", "blur\nkind", "learned invariance"]


def test_parallel_colors_follow_the_first_objective() -> None:
    rows = [with_parameters(k, value) for k, value in enumerate([0.1, 0.5, 0.9])]
    figure = figures.parallel_coordinates(rows, SPACE, ["learned_invariance", "accuracy"])
    main, bar = figure.axes
    assert bar.get_ylabel() == "learned invariance"
    assert bar.get_ylim() == pytest.approx((0.1, 0.9))
    light = [np.dot(to_rgba(line.get_color())[:3], [0.2126, 0.7152, 0.0722]) for line in main.lines]
    assert light == sorted(light, reverse=True)  # the best is the darkest
    assert len(set(light)) == 3
    assert len(main.get_xticks()) == len(SPACE) + 2


def test_parallel_ticks_are_at_ends_round_numbers_and_choices() -> None:
    figure = figures.parallel_coordinates([with_parameters(0, 0.5)], SPACE, "accuracy")
    found = {(text.get_text(), round(text.get_position()[0]), text.get_position()[1]) for text in figure.axes[0].texts}
    assert {("0.0001", 1, 0.0), ("0.01", 1, 0.5), ("1", 1, 1.0)} <= found
    assert {("none", 3, 0.0), ("gaussian", 3, 0.5), ("binomial", 3, 1.0)} <= found
    assert {("2", 2, 0.0), ("10", 2, 1.0)} <= found
    assert ("0.5", 4, 0.5) in found  # the only value


@pytest.mark.parametrize(("low", "high"), [(1e-5, 1e-1), (16, 256), (1.0, 1.6), (1e-12, 1.0), (9e-5, 0.011)])
def test_log_axes_have_ticks_between_their_ends(low: float, high: float) -> None:
    space = {"a.b": Range(low=low, high=high, log=True, default=low)}
    middle = math.sqrt(low * high)
    figure = figures.parallel_coordinates([trial(0, [1.0], parameters={"a.b": middle})], space, "accuracy")
    heights = sorted(text.get_position()[1] for text in figure.axes[0].texts if text.get_position()[0] < 0)
    assert 4 <= len(heights) <= 12
    assert heights[0] == 0
    assert heights[-1] == 1
    assert overlapping(figure, list(figure.axes[0].texts)) == []
    assert _arrays(figure.axes[0].lines[0]).get_ydata()[0] == pytest.approx(0.5)


def test_twelve_parallel_axes_stay_legible() -> None:
    space = {f"operation{k}.max_magnitude": LR.model_copy(update={"unit": "px"}) for k in range(8)}
    space |= {
        f"kind{k}.of": Range(kind="choice", choices=["none", "a very long name", "x"], default="x") for k in range(4)
    }
    parameters = {name: "x" if name.startswith("kind") else 0.1 for name in space}
    rows = [trial(k, [k / 10, 0.5], parameters=parameters) for k in range(5)]
    figure = figures.parallel_coordinates(rows, space, "learned_invariance")
    labels = figure.axes[0].get_xticklabels()
    assert len(labels) == 13
    assert all(0 < label.get_rotation() < 90 for label in labels)
    assert "a very long…" in texts(figure)
    assert overlapping(figure, list(figure.axes[0].texts)) == []


def test_horizontal_names_of_parallel_axes_do_not_overlap() -> None:
    space = {f"operation{k}.max_magnitude_of": LR.model_copy(update={"unit": "px"}) for k in range(7)}
    figure = figures.parallel_coordinates([], space, "learned_invariance")
    labels = figure.axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {0}
    assert overlapping(figure, list(labels)) == []


def test_parallel_lines_skip_missing_values() -> None:
    rows = [with_parameters(0, 0.25), with_parameters(1, math.nan), with_parameters(2, 0.5), trial(3, None)]
    rows[0].parameters.update({"shift.max_pixels": None, "train.lr": 0.0, "blur.kind": "unheard of"})
    del rows[2].parameters["train.epochs"]
    figure = figures.parallel_coordinates(rows, SPACE, "accuracy")
    heights = [_arrays(line).get_ydata() for line in figure.axes[0].lines]
    assert [np.isnan(line).tolist() for line in heights] == [[1, 1, 0, 1, 0], [0, 0, 1, 0, 0]]


def test_a_parallel_axis_covers_all_its_trials() -> None:
    rows = [with_parameters(0, 0.25), with_parameters(1, 0.5, control=True), with_parameters(2, 0.75, feasible=False)]
    rows[1].parameters["shift.max_pixels"] = -4.0
    figure = figures.parallel_coordinates(rows, SPACE, "accuracy")
    heights = [_arrays(line).get_ydata()[0] for line in figure.axes[0].lines]
    assert heights == pytest.approx([0.625, 0, 0.625])
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["-", "--", ":"]
    assert legend(figure) == ["control", "not feasible"]


def test_learning_curves_are_styled_by_state() -> None:
    rows = [
        with_curve("complete", {"10": 0.9, "2": 0.5, "1": 0.25}),  # keys are strings in JSON, in any order
        with_curve("pruned", {1: 0.2, 2: None, 3: 0.3}),
        with_curve("failed", {1: 0.1, 2: 0.2}),
        with_curve("complete", {1: 0.5, 10: 0.95}, chosen=True),
        with_curve("complete", {1: math.nan}),
        with_curve("failed", {}),
    ]
    figure = figures.learning_curves(rows, 10)
    complete, pruned, failed, chosen = figure.axes[0].lines
    assert np.array(complete.get_xydata()) == pytest.approx(np.array([[1, 25], [2, 50], [10, 90]]))
    assert np.array(pruned.get_xydata()) == pytest.approx(np.array([[1, 20], [3, 30]]))
    assert (pruned.get_marker(), pruned.get_markevery(), pruned.get_color()) == ("x", [-1], GRAY)
    assert complete.get_color() == chosen.get_color() == BLUE
    assert chosen.get_linewidth() > 2 * complete.get_linewidth()
    assert chosen.get_zorder() > max(line.get_zorder() for line in (complete, pruned, failed))
    assert legend(figure) == ["complete (1)", "pruned (1)", "failed (1)", "chosen"]
    assert figure.axes[0].get_xlim() == (0, 10)
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("epochs", "validation accuracy, %")


def test_a_curve_of_one_epoch_is_a_dot_and_a_longer_one_widens_the_axis() -> None:
    rows = [with_curve("complete", {1: 0.5}), with_curve("pruned", {3: 0.5})]
    rows += [with_curve("complete", {1: 0.2, 8: 0.4})]
    figure = figures.learning_curves(rows, 5)
    assert [line.get_marker() for line in figure.axes[0].lines] == ["o", "x", ""]
    assert figure.axes[0].get_xlim() == (0, 8)


def test_cost_is_one_stacked_bar_to_scale() -> None:
    figure = figures.cost({"search": 600.0, "out_of_distribution": 150.0, "control": 30.0, "report": 0.0})
    bars = [(bar.get_x(), bar.get_width()) for bar in figure.axes[0].patches]
    assert np.array(bars) == pytest.approx(np.array([[0, 10], [10, 2.5], [12.5, 0.5]]))
    assert texts(figure) == ["search\n10 min", "out of distribution\n2.5 min", "control\n30 s"]
    assert figure.axes[0].get_xlabel() == "minutes, 13 min in total"
    assert figure.axes[0].get_xlim() == (0, 13)


@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_labels_of_tiny_phases_stay_apart_and_in_order(where: str) -> None:
    tiny = {f"measurement_{k}": 0.1 * (k + 1) for k in range(8)}
    parts = list(tiny.items())
    cut = {"first": 8, "middle": 4, "last": 0}[where]
    figure = figures.cost(dict([*parts[:cut], ("search", 3600.0), *parts[cut:]]))
    shown = list(figure.axes[0].texts)
    assert overlapping(figure, shown) == []
    places = [text.get_position()[0] for text in shown]
    assert places == sorted(places)
    frame = figure.axes[0].get_window_extent()
    assert all(frame.x0 - 1 <= text.get_window_extent().x0 for text in shown)
    assert all(text.get_window_extent().x1 <= frame.x1 + 1 for text in shown)
    assert len({bar.get_facecolor() for bar in figure.axes[0].patches[:7]}) == 7
    assert all(bar.get_linewidth() > 0 for bar in figure.axes[0].patches)  # narrower than a pixel but visible


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.05, "0.05 s"), (9.96, "10 s"), (119.4, "119 s"), (120, "2 min"), (20_000, "333 min")]
)
def test_durations_are_shown_with_a_unit(seconds: float, text: str) -> None:
    assert texts(figures.cost({"search": seconds})) == [f"search\n{text}"]


@pytest.mark.parametrize(
    "figure",
    [
        figures.volume_over_trials([], [0, 0]),
        figures.volume_over_trials([trial(0, [1, 1], control=True), trial(1, None)], [0, 0]),
        figures.parallel_coordinates([], SPACE, "accuracy"),
        figures.parallel_coordinates([], {}, "accuracy"),
        figures.learning_curves([], 5),
        figures.learning_curves([with_curve("running", {1: 0.5})], 5),
        figures.cost({}),
        figures.cost({"search": 0.0, "report": math.nan}),
    ],
)
def test_figures_without_data_say_so(figure: Figure) -> None:
    assert "nothing to show" in texts(figure)
    assert svg(figure).startswith("<svg")


@pytest.mark.integration
@pytest.mark.parametrize("many", [1, 5])
def test_one_trial_and_constant_values_are_drawn(many: int) -> None:
    rows = [with_parameters(k, 0.5, state="complete", curve={1: 0.5, 2: 0.5}, chosen=k == 0) for k in range(many)]
    fixed = {
        "shift.max_pixels": Range(kind="int", low=1, high=1, default=1),
        "a.b": Range(kind="choice", choices=["x"], default="x"),
    }
    for figure, lines in (
        (figures.volume_over_trials(rows, [0, 0]), 1 + many),  # the step curve and one mark per trial
        (figures.volume_over_trials(rows, [1, 1]), 1 + many),  # all below the reference
        (figures.parallel_coordinates(rows, SPACE, "accuracy"), many),
        (figures.parallel_coordinates(rows, fixed, "accuracy"), many),
        (figures.learning_curves(rows, 2), many),
    ):
        assert len(figure.axes[0].lines) == lines
        assert svg(figure).startswith("<svg")


def test_names_with_dollar_signs_are_not_drawn_as_formulas() -> None:
    space = {"a$.b$": Range(kind="choice", choices=["$x", "$y^$"], default="$x")}
    rows = [trial(0, [1.0], parameters={"a$.b$": "$x"})]
    assert "$y^$" in svg(figures.parallel_coordinates(rows, space, "accuracy"))
    assert "$b^$" in svg(figures.cost({"$b^$": 3.0}))


def _arrays(line: Any) -> Any:
    """A line whose data are arrays."""
    line.set_data(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()))
    return line


def test_the_scatter_plot_names_every_arm_and_keeps_far_points_at_its_edge() -> None:
    def estimate(value: float) -> Estimate:
        return Estimate(value, value - 0.1, value + 0.1)

    points = [
        PlanePoint("maxpool+shift", "learned", x=estimate(0.7), y=estimate(0.3)),
        PlanePoint("fc+none", "architectural", x=estimate(-5.5), y=estimate(-3.6)),
    ]
    axes = plane(points).axes[0]
    places = [tuple(map(float, dots.get_offsets()[0])) for dots in axes.collections]
    assert places == [(pytest.approx(70), pytest.approx(30)), (-100.0, -100.0)]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == ["1 maxpool+shift", "2 fc+none (-550 | -360 %)"]
