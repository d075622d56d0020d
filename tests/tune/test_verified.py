"""The verified front: the retrained trials beside what the search showed, on made-up results."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex

from augkit.core.figures import GREEN
from augkit.invariance import Estimate
from augkit.tune import figures
from augkit.tune.results import SearchTrial
from augkit.tune.selection import FinalistRow
from augkit.tune.tables import print_verified
from augkit.tune.verified import VerifiedFront, verified_front

NAN = float("nan")
UNDEFINED = Estimate(NAN, NAN, NAN)
SHARE = st.sampled_from([0.1, 0.25, 0.5, 0.75, 0.9])
PAIR = st.tuples(SHARE, SHARE)


def estimate(value: float, half: float = 0.02) -> Estimate:
    return Estimate(value, value - half, value + half)


def trial(number: int, accuracy: float, learned: float, **more: Any) -> SearchTrial:
    plain = {"control": False, "state": "complete", "values": [accuracy, learned], "parameters": {}, "front": False}
    plain |= {"chosen": False, "feasible": True, "curve": {}}
    return SearchTrial(number=number, accuracy=accuracy, learned_invariance=learned, **{**plain, **more})


def verify(
    searched: list[tuple[float, float]], landed: list[tuple[float, float] | None], **settings: int
) -> VerifiedFront:
    """Trials 1, 2, ... with their results in the search and after it; None where learned invariance is undefined."""
    rows = [FinalistRow("control", None, estimate(0.9), None)]
    for k, point in enumerate(landed, 1):
        means = (0.9, None) if point is None else point
        learned = UNDEFINED if means[1] is None else estimate(means[1])
        rows.append(FinalistRow(f"trial{k}", k, estimate(means[0]), learned, chosen=k == 1))
    trials = [trial(k, *pair) for k, pair in enumerate(searched, 1)]
    return verified_front(rows, trials, **{"trial_epochs": 2, "epochs": 7, "seeds": 3, **settings})


@given(st.lists(st.tuples(PAIR, PAIR), min_size=1, max_size=6))
def test_shifts_are_means_and_the_front_is_what_nothing_dominates(
    pairs: list[tuple[tuple[float, float], tuple[float, float]]],
) -> None:
    found = verify([searched for searched, _ in pairs], [landed for _, landed in pairs])
    assert found.accuracy_shift == pytest.approx(sum(b[0] - a[0] for a, b in pairs) / len(pairs))
    assert found.learned_invariance_shift == pytest.approx(sum(b[1] - a[1] for a, b in pairs) / len(pairs))
    means = {(p.accuracy.value, p.learned_invariance.value): p.front for p in found.points}
    for point, front in means.items():
        better = [other for other in means if other[0] >= point[0] and other[1] >= point[1] and other != point]
        assert front == (not better)
    assert [p.accuracy.value for p in found.points] == sorted((p.accuracy.value for p in found.points), reverse=True)
    again = verify([landed for _, landed in pairs], [landed for _, landed in pairs])
    assert "showed accuracy as it is and learned invariance as it is" in again.sentence


def test_the_sentence_says_how_optimistic_the_search_was() -> None:
    found = verify([(0.90, 0.70), (0.92, 0.60)], [(0.93, 0.65), (0.95, 0.61)])
    assert found.sentence == (
        "Against the retrained networks (7 epochs, 3 fresh seeds), the search (at most 2 epochs, one seed) showed"
        " accuracy 3.0 points too low and learned invariance 2.0 points too high, on average over 2 retrained trials."
    )
    one = verify([(0.90, 0.70)], [(0.80, 0.65)], trial_epochs=1, seeds=1, fork=True).sentence
    assert "(7 epochs, 1 fresh seed), the search (at most 1 epoch from the control, one seed)" in one
    assert "accuracy 10.0 points too high" in one
    assert one.endswith("on average over one retrained trial.")


def test_undefined_learned_invariance_is_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = verify([(0.9, 0.7), (0.9, 0.6)], [None, (0.8, 0.5)])
    assert found.learned_invariance_shift == pytest.approx(-0.1)
    assert [(p.number, p.front) for p in found.points] == [(1, False), (2, True)]
    alone = verify([(0.9, 0.7)], [None])
    assert alone.learned_invariance_shift is None
    assert "learned invariance not defined" in alone.sentence
    print_verified(alone)
    assert "undefined" in capsys.readouterr().out
    assert figures.pareto([trial(1, 0.9, 0.7)], alone) is not None


def test_the_terminal_names_each_retrained_trial(capsys: pytest.CaptureFixture[str]) -> None:
    found = verify([(0.90, 0.70), (0.92, 0.60)], [(0.93, 0.65), (0.92, 0.61)])
    print_verified(found)
    lines = capsys.readouterr().out.strip().splitlines()
    said = "trial 1: front, chosen accuracy 90.0 -> 93.0 [91.0, 95.0] learned invariance 70.0 -> 65.0 [63.0, 67.0]"
    assert " ".join(lines[1].split()) == said
    assert lines[2].strip().startswith("trial 2  ")
    assert " ".join(lines[3:]) == found.sentence


def test_the_figure_connects_the_search_with_where_the_retrained_networks_landed() -> None:
    searched, landed = [(0.90, 0.70), (0.92, 0.60)], [(0.93, 0.65), (0.92, 0.61)]
    found = verify(searched, landed)
    axes = figures.pareto([trial(k, *pair) for k, pair in enumerate(searched, 1)], found).axes[0]
    arrows = [text for text in axes.texts if text.get_text() == ""]
    ends = {(tuple(arrow.xyann), tuple(arrow.xy)) for arrow in arrows}
    expected = {((100 * a[0], 100 * a[1]), (100 * b[0], 100 * b[1])) for a, b in zip(searched, landed, strict=True)}
    assert sorted(ends) == [tuple(pytest.approx(end) for end in pair) for pair in sorted(expected)]
    diamonds = [
        scatter
        for scatter in axes.collections
        if isinstance(scatter, PathCollection) and to_hex(scatter.get_edgecolors()[0]) == GREEN.lower()
    ]
    filled = {tuple(scatter.get_offsets()[0]): to_hex(scatter.get_facecolors()[0]) for scatter in diamonds}
    assert list(filled.values()) == [GREEN.lower(), "#ffffff"], "filled on the verified front"
    assert "retrained, 95 % interval" in [text.get_text() for text in axes.get_legend().get_texts()]
    plain = figures.pareto([trial(1, 0.9, 0.7)]).axes[0]
    assert "retrained, 95 % interval" not in [text.get_text() for text in plain.get_legend().get_texts()]
