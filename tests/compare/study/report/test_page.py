"""The HTML and Markdown reports of a study, compared with its results."""

from __future__ import annotations

import html
import math
import re

from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_study import NASTY, VERDICTS, claim, curve, lines, study
from page_reader import PageReader

from augkit.compare.study.report.markdown import study_markdown
from augkit.compare.study.report.numbers import UNDEFINED, p_text
from augkit.compare.study.report.page import study_page
from augkit.compare.study.results import StudyCost
from augkit.invariance import Estimate


def printed(text: str) -> list[float | None]:
    """The numbers of an estimate's text, with None for each "undefined"."""
    found = re.findall(r"−?\d+(?:\.\d+)?(?:e[+-]\d+)?|undefined", text.replace("\\", ""))
    return [None if word == UNDEFINED else float(word.replace("−", "-")) for word in found]


def test_the_page_is_well_formed_escaped_and_self_contained() -> None:
    page = study_page(study())
    reader = PageReader(page)
    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert "https://" not in page.replace(html.escape("https://"), "")
    assert not re.search(r"@import|url\((?!#)|<link|fetch\(", page)
    assert len(reader.ids) == len(set(reader.ids))
    assert {address[1:] for address in reader.addresses if address.startswith("#")} <= set(reader.ids)
    assert "<b>&" not in page
    assert "lanczos &lt;/pre&gt;&lt;script&gt;" in page
    assert page.count("<script>") == 2
    assert {mark["data-group"] for mark in reader.marks} == {"a", "a+b", NASTY}
    for mark in reader.marks:
        assert mark["tabindex"] == "0"
        assert mark["aria-label"] == mark["data-tip"].replace("\n", "; ") != ""


def test_page_and_markdown_contain_all_results() -> None:
    results = study()
    page, markdown = study_page(results), study_markdown(results)
    for text in (page, markdown):
        for verdict, symbol in zip(VERDICTS, "✓✗?–", strict=True):
            assert f"{symbol} {verdict}" in text
        for number in (1, 2, 3, 4):
            assert f"Claim number {number}" in text
            assert f"First sentence {number}." in text
        assert "40 training runs, 3 of them loaded from earlier ones; 812 s (13.5 min) in total." in text
        assert "0.250 [0.150, 0.350] share" in text
        assert "91.0 [89.0, 93.0]" in text
        assert "0.0200 [0.0100, 0.0300]" in text
        assert "name: made-up" in text
    assert "Second sentence 3." in page
    assert page.index("First sentence 4.") > page.index('id="not-run"')
    assert "(true: “7”) after a shift of (+1.00, +0.50) px" in page
    assert page.count("<img") == 2  # the picture at an external address is left out
    assert "````\nname: recipe" in markdown


def test_arms_have_a_row_for_each_image_set() -> None:
    table = PageReader(study_page(study())).tables[1]
    own = ["plain", "shift", "0.5", "5", "12.3"]
    assert table[1] == ["a", "91.0 [89.0, 93.0]", "typical", "–", "0.0200 [0.0100, 0.0300]", "–", "–", *own]
    assert table[2] == ["upside down", "–", "undefined", "–", "–"]
    assert table[3][5] == "0.600 [0.500, 0.700]"
    assert len(table) == 1 + 3 * 2
    assert all(len(row) == len(table[0]) for row in table[1::2])


def test_every_text_of_a_claim_is_escaped() -> None:
    texts = dict.fromkeys(("name", "claim", "source", "prediction", "unit"), "<i>&'x")
    figure = lines(curve(), title="<i>", x_label="<i>'", y_label="<i>'")
    made = [claim(k, verdict, **texts, sentences=("<i>",), figure=figure) for k, verdict in enumerate(VERDICTS)]
    page = study_page(study(claims=made, size="<i>", name="<i>", title="<i>", settings={"<i>": 1}))
    assert "<i>" not in page
    assert PageReader(page).tables[0][1][0] == "0. <i>&'x<i>&'x"  # name, then claim


def test_markdown_escapes_markup_in_texts() -> None:
    results = study(lead="# no *head* [link](http://x) <b> a|b\nand 2 < 3, [0.1, 0.2]")
    expected = "\\# no \\*head\\* [link]\\(http://x) \\<b> a\\|b and 2 < 3, [0.1, 0.2]"
    assert expected in study_markdown(results).splitlines()


def test_an_empty_study_has_a_page() -> None:
    empty = study(claims=[], arms=[], dose_response=[], plane=[], layers=[], gallery=[], cost=StudyCost(0.0, 0, 0))
    PageReader(study_page(empty))
    assert "No claims." in study_markdown(empty)


numbers = st.just(math.nan) | st.floats(-1e9, 1e9) | st.floats(-1, 1)
estimates = st.builds(Estimate, numbers, numbers, numbers)


def assert_printed(text: str, estimate: Estimate) -> None:
    found = printed(text)
    expected = [None if math.isnan(value) else value for value in vars(estimate).values()]
    largest = max((abs(value) for value in expected if value is not None), default=0.0)
    assert [value is None for value in found] == [value is None for value in expected]
    for value, truth in zip(found, expected, strict=True):
        if value is not None and truth is not None:
            assert abs(value - truth) <= 0.00501 * largest


@settings(max_examples=10)  # each renders two pages
@given(estimates, st.none() | st.floats(0, 1), st.integers(0, 99), st.none() | st.integers(1, 999))
def test_verdict_table_has_the_numbers_of_the_data(
    effect: Estimate, p: float | None, seeds: int, needed: int | None
) -> None:
    fields = {"effect": effect, "p": p, "n_seeds": seeds, "n_images": 12345, "seeds_needed": needed, "figure": None}
    results = study(claims=[claim(7, "undetermined", **fields)], plane=[], layers=[], gallery=[], dose_response=[])
    row = PageReader(study_page(results)).tables[0][1]
    line = next(line for line in study_markdown(results).splitlines() if line.startswith("| 7. "))
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == row[1:]
    shown = row[2].replace("(no interval)", "[undefined, undefined]")
    if shown == UNDEFINED:
        assert all(math.isnan(value) for value in vars(effect).values())
    else:
        assert shown.endswith(" share")
        assert_printed(shown, effect)
    assert row[3] == p_text(p)
    assert row[4:] == ["–", str(seeds), "12,345", "–" if needed is None else str(needed)]


def test_seeds_needed_are_shown_for_undetermined_claims_only() -> None:
    made = [claim(k, verdict, seeds_needed=77) for k, verdict in enumerate(VERDICTS)]
    table = PageReader(study_page(study(claims=made))).tables[0]
    assert [row[-1] for row in table[1:]] == ["–", "–", "77", "–"]
