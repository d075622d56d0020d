"""Figures as inline SVG: their marks can be hovered, focused and read, and none disturbs another."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import PageReader

from augkit.core.figures import chart, describe, mark, new_figure, svg

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=12)


@settings(max_examples=15)
@given(tip=TEXTS, group=TEXTS)
def test_a_mark_carries_its_text_whatever_that_holds(tip: str, group: str) -> None:
    figure, axes = new_figure(2.0, 1.5)
    describe(axes.plot([0.5], [0.5], "o")[0], tip, group)
    (found,) = PageReader(svg(figure)).marks
    # Newlines of other systems are newlines in HTML.
    assert found["data-tip"].splitlines() == tip.splitlines()
    assert found["data-group"].splitlines() == group.splitlines()
    assert (found["tabindex"], found["role"]) == ("0", "img")


def test_a_mark_has_a_title_and_room_for_a_finger() -> None:
    figure, axes = new_figure(2.0, 1.5)
    mark(axes, 0.5, 0.5, "one\ntwo")
    drawn = svg(figure, "a chart")
    assert "<title>one\ntwo</title>" in drawn
    assert 'aria-label="one; two"' in drawn
    (found,) = re.findall(
        r'class="mark".*?<use [^>]*x="([\d.]+)" y="([\d.]+)".*?<circle cx="(.*?)" cy="(.*?)"', drawn, re.S
    )
    assert found[:2] == found[2:]


def test_a_mark_without_a_tip_is_hidden_with_its_group_and_not_focused() -> None:
    figure, axes = new_figure(2.0, 1.5)
    describe(axes.plot([0, 1], [0, 1])[0], group="arm")
    drawn = svg(figure, "a chart")
    assert 'data-group="arm"' in drawn
    assert PageReader(drawn).marks == []


@pytest.mark.parametrize("marked", [False, True])
def test_a_chart_with_marks_is_a_group_and_another_an_image(marked: bool) -> None:
    figure, axes = new_figure(2.0, 1.5)
    if marked:
        mark(axes, 0.5, 0.5, "tip")
    assert f'role="{"group" if marked else "img"}" aria-label="named"' in svg(figure, "named")
    assert 'aria-hidden="true"' in svg(figure)


def test_a_mark_does_not_move_the_axes() -> None:
    _, axes = new_figure(2.0, 1.5)
    axes.plot([0, 1], [0, 1])
    before = axes.get_xlim(), axes.get_ylim()
    mark(axes, 9.0, 9.0, "far")
    assert (axes.get_xlim(), axes.get_ylim()) == before


def test_identifiers_differ_between_charts_and_all_references_are_met() -> None:
    drawn = []
    for k in range(2):
        figure, axes = new_figure(2.0, 1.5)
        axes.plot([0, 1], [0, k], "o-")
        axes.imshow(np.eye(2))
        drawn.append(svg(figure, f"chart {k}"))
    ids = PageReader("".join(drawn)).ids
    assert len(ids) == len(set(ids))
    used = re.findall(r'(?:href="#|url\(#)([^")]+)', "".join(drawn))
    assert set(used) == set(ids)
    assert drawn[0].count('href="data:image/png;base64,') == 1  # an image is no reference


def test_letters_are_text_and_a_chart_knows_its_width() -> None:
    figure, axes = new_figure(2.0, 1.5)
    axes.set_title("letters\x0b")  # XML has no such character
    found = chart("title", figure, "caption")
    assert re.search(r"<text[^>]*>letters</text>", found.svg)
    assert 72 < found.width < 2 * 72 + 20
    assert "viewBox" in found.svg
    assert not re.match(r"<svg[^>]* width=", found.svg)


def test_the_same_figure_gives_the_same_text() -> None:
    def drawn() -> str:
        figure, axes = new_figure(2.0, 1.5)
        axes.plot([0, 1], [0, 1], "o-")
        return svg(figure, "name")

    assert drawn() == drawn()
