"""The report of a study: what it says is what the data say, and its charts can be read by eye, hand and keyboard."""

from __future__ import annotations

import copy
import html
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from augkit.compare.study.report.charts import chart
from augkit.compare.study.report.marks import legend, looks
from augkit.compare.study.report.numbers import UNDEFINED, estimate_text, p_text
from augkit.compare.study.report.markdown import study_markdown
from augkit.compare.study.report.page import study_page
from augkit.compare.study.report.scales import linear, logarithmic, reachable
from augkit.core.errors import InputError

VERDICTS = ["supported", "refuted", "undetermined", "not run"]
NULL = {"value": None, "low": None, "high": None}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
NASTY = "<b>&\"'|`*"


def estimate(value: float, half: float = 0.1) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def lines(**fields: Any) -> dict[str, Any]:
    series = [{"arm": "a", "x": [0, 1, 3], "y": [estimate(0.1), estimate(0.4), estimate(0.2)]}]
    return {"kind": "lines", "title": "T", "x_label": "x, px", "y_label": "y, bits", "series": series, **fields}


def plane(points: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "plane", "title": "T", "x_label": "x", "y_label": "y", "points": points}


def rows(*values: dict[str, Any]) -> dict[str, Any]:
    made = [{"arm": "a", "label": f"row {k}", "value": value} for k, value in enumerate(values)]
    return {"kind": "points", "title": "T", "x_label": "share", "rows": made, "zero": 0.0}


def bars(*values: float | None) -> dict[str, Any]:
    groups = [f"group {k}" for k in range(len(values))]
    series = [{"arm": "a", "values": list(values)}]
    return {"kind": "bars", "title": "T", "y_label": "dB", "groups": groups, "series": series}


FIGURES = [
    lines(),
    plane([{"arm": "a+b", "kind": "both", "x": estimate(0.5), "y": estimate(0.2)}]),
    rows(estimate(0.3), NULL),
    bars(3.0, None),
]


def claim(number: int, verdict: str, **fields: Any) -> dict[str, Any]:
    made = {
        "id": number,
        "name": f"name-{number}",
        "claim": f"Claim number {number}",
        "source": "Zhang 2019",
        "prediction": "effect > 0.05",
        "verdict": verdict,
        "effect": estimate(0.5),
        "unit": "share",
        "p": 0.031,
        "n_seeds": 5,
        "n_images": 1000,
        "seeds_needed": 14 if verdict == "undetermined" else None,
        "matched": estimate(0.25),
        "sentences": [f"First sentence {number}.", f"Second sentence {number}."],
        "figure": FIGURES[number % len(FIGURES)] if verdict != "not run" else None,
    }
    return {**made, **fields}


def study(count: int = 3, **fields: Any) -> dict[str, Any]:
    names = ["a", "a+b", NASTY, *(f"arm {k}" for k in range(3, count))]
    made = {
        "name": "made-up",
        "size": "quick",
        "title": "A title & more",
        "lead": "A lead <i>.",
        "claims": [claim(k + 1, verdict) for k, verdict in enumerate(VERDICTS)],
        "arms": [
            {
                "arm": name,
                "architecture": "plain",
                "policy": "shift",
                "strength": 0.5,
                "accuracy": estimate(0.91, 0.02),
                "n_seeds": 5,
                "seconds": 12.3,
                "js": {"typical": estimate(0.02, 0.01), "upside down": NULL},
                "learned_invariance": {"typical": estimate(0.6)} if k else None,
                "architectural_invariance": None,
            }
            for k, name in enumerate(names)
        ],
        "dose_response": [{"series": n, "arm": n, "x": [0, 1], "y": [estimate(0), estimate(1)]} for n in names],
        "plane": [{"arm": names[2], "kind": "learned", "x": estimate(0.6), "y": NULL}],
        "layers": [{"arm": name, "names": ["layers.0", "head"], "db": [30.0, None]} for name in names],
        "gallery": [
            {"arm": "a", "before": PIXEL, "after": source, "said_before": "7", "said_after": NASTY, "shift": [1.0, 0.5]}
            | {"true": "7"}
            for source in (PIXEL, "https://example.org/a.png")
        ],
        "cost": {"seconds": 812.0, "runs": 40, "loaded": 3},
        "settings": {"kernel": "lanczos </pre><script>"},
        "environment": {"torch": "2.6"},
        "recipe_yaml": "name: recipe\n# ``` here",
        "study_yaml": "name: made-up",
    }
    return {**made, **fields}


class Reader(HTMLParser):
    """Checks the nesting; collects addresses, identifiers, marks, and the cells of the first table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.ids: list[str] = []
        self.marks: list[dict[str, str]] = []
        self.tables: list[list[list[str]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        assert len(found) == len(attrs)
        self.addresses += [found[name] for name in ("src", "href", "xlink:href", "action") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if found.get("class") == "mark":
            self.marks.append(found)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += data


def places(drawn: str) -> list[tuple[float, float]]:
    """Where the marks of a chart are."""
    found = re.findall(r"class='mark'[^>]*translate\(([-\d.]+) ([-\d.]+)\)", drawn)
    return [(float(x), float(y)) for x, y in found]


def printed(text: str) -> list[float | None]:
    """The numbers of an estimate's text, with None for each "undefined"."""
    found = re.findall(r"−?\d+(?:\.\d+)?(?:e[+-]\d+)?|undefined", text.replace("\\", ""))
    return [None if word == UNDEFINED else float(word.replace("−", "-")) for word in found]


def assert_affine(data: list[float], positions: list[float]) -> None:
    """Positions are ``a + b * data`` with ``b`` other than 0, to the hundredth that is written."""
    low, high = data.index(min(data)), data.index(max(data))
    slope = (positions[high] - positions[low]) / (data[high] - data[low])
    assert abs(slope) > 0
    for value, position in zip(data, positions, strict=True):
        assert position == pytest.approx(positions[low] + slope * (value - data[low]), abs=0.021)


def test_page_is_whole_escaped_and_self_contained() -> None:
    page = study_page(study())
    reader = Reader(page)
    assert all(address.startswith(("data:image/", "#")) for address in reader.addresses)
    assert "https://" not in page.replace(html.escape("https://"), "")
    assert not re.search(r"@import|url\(|<link|fetch\(", page)
    assert len(reader.ids) == len(set(reader.ids))
    assert {address[1:] for address in reader.addresses if address.startswith("#")} <= set(reader.ids)
    assert "<b>&" not in page
    assert "lanczos &lt;/pre&gt;&lt;script&gt;" in page
    assert page.count("<script>") == 1
    assert {mark["data-arm"] for mark in reader.marks} == {"a", "a+b", NASTY}
    for mark in reader.marks:
        assert mark["tabindex"] == "0"
        assert mark["aria-label"] == mark["data-tip"].replace("\n", "; ") != ""


def test_page_and_markdown_say_everything() -> None:
    results = study()
    page, markdown = study_page(results), study_markdown(results)
    for text in (page, markdown):
        for verdict, symbol in zip(VERDICTS, "✓✗?–", strict=True):
            assert f"{symbol} {verdict}" in text
        for number in (1, 2, 3, 4):
            assert f"Claim number {number}" in text
            assert f"First sentence {number}." in text
        assert "40 training runs, 3 of them loaded from earlier ones; 812 s (13.5 min) in all." in text
        assert "0.250 [0.150, 0.350] share" in text
        assert "91.0 [89.0, 93.0]" in text
        assert "0.0200 [0.0100, 0.0300]" in text
        assert "name: made-up" in text
    assert "Second sentence 3." in page
    assert page.index("First sentence 4.") > page.index("id='not-run'")
    assert "(true: “7”) after a shift of (+1.00, +0.50) px" in page
    assert page.count("<img") == 2  # the address elsewhere is left out
    assert "````\nname: recipe" in markdown


def test_arms_have_a_row_for_each_kind_of_images() -> None:
    table = Reader(study_page(study())).tables[1]
    own = ["plain", "shift", "0.5", "5", "12.3"]
    assert table[1] == ["a", "91.0 [89.0, 93.0]", "typical", "–", "0.0200 [0.0100, 0.0300]", "–", "–", *own]
    assert table[2] == ["upside down", "–", "undefined", "–", "–"]
    assert table[3][5] == "0.600 [0.500, 0.700]"
    assert len(table) == 1 + 3 * 2
    assert all(len(row) == len(table[0]) for row in table[1::2])


def test_every_text_of_a_claim_is_escaped() -> None:
    texts = dict.fromkeys(("name", "claim", "source", "prediction", "unit"), "<i>&'x")
    figure = {**lines(), "title": "<i>", "x_label": "<i>'", "y_label": "<i>'"}
    made = [claim(k, verdict, **texts, sentences=["<i>"], figure=figure) for k, verdict in enumerate(VERDICTS)]
    page = study_page(study(claims=made, size="<i>", name="<i>", title="<i>", settings={"<i>": 1}))
    assert "<i>" not in page
    assert Reader(page).tables[0][1][0] == "0. <i>&'x<i>&'x"  # name, then claim


def test_markdown_takes_text_for_text() -> None:
    results = study(lead="# no *head* [link](http://x) <b> a|b\nand 2 < 3, [0.1, 0.2]")
    expected = "\\# no \\*head\\* [link]\\(http://x) \\<b> a\\|b and 2 < 3, [0.1, 0.2]"
    assert expected in study_markdown(results).splitlines()


def test_an_empty_study_has_a_page() -> None:
    empty = study(claims=[], arms=[], dose_response=[], plane=[], layers=[], gallery=[], cost={})
    Reader(study_page(empty))
    assert "No claims." in study_markdown(empty)


numbers = st.none() | st.floats(-1e9, 1e9) | st.floats(-1, 1)
estimates = st.fixed_dictionaries({"value": numbers, "low": numbers, "high": numbers})


def assert_printed(text: str, expected: list[float | None]) -> None:
    found = printed(text)
    largest = max((abs(value) for value in expected if value is not None), default=0.0)
    assert [value is None for value in found] == [value is None for value in expected]
    for value, truth in zip(found, expected, strict=True):
        if value is not None and truth is not None:
            assert abs(value - truth) <= 0.00501 * largest


@settings(max_examples=60)
@given(estimates, st.none() | st.floats(0, 1), st.integers(0, 99), st.none() | st.integers(1, 999))
def test_verdict_table_has_the_numbers_of_the_data(
    effect: dict[str, Any], p: float | None, seeds: int, needed: int | None
) -> None:
    fields = {"effect": effect, "p": p, "n_seeds": seeds, "n_images": 12345, "seeds_needed": needed, "figure": None}
    results = study(claims=[claim(7, "undetermined", **fields)])
    row = Reader(study_page(results)).tables[0][1]
    line = next(line for line in study_markdown(results).splitlines() if line.startswith("| 7. "))
    assert [cell.strip() for cell in line.strip("|").split("|")][1:] == row[1:]
    shown = row[2].replace("(no interval)", "[undefined, undefined]")
    if shown == UNDEFINED:
        assert effect == NULL
    else:
        assert shown.endswith(" share")
        assert_printed(shown, [effect["value"], effect["low"], effect["high"]])
    assert row[3] == p_text(p)
    assert row[4:] == ["–", str(seeds), "12,345", "–" if needed is None else str(needed)]


def test_texts_of_numbers() -> None:
    assert estimate_text(None) == estimate_text({}) == estimate_text({"value": math.nan}) == UNDEFINED
    assert estimate_text({"value": 18.04, "low": 17.99, "high": 18.1}, "dB") == "18.04 [17.99, 18.10] dB"
    assert estimate_text({"value": -1e-9, "low": None, "high": None}) == "−1.00e-09 (no interval)"
    assert estimate_text({"value": 0.0, "low": 0.0, "high": 0.0}) == "0 [0, 0]"
    assert [p_text(p) for p in (None, 0.0, 0.00099, 0.001, 1.0)] == ["–", "< 0.001", "< 0.001", "0.001", "1.000"]


def test_seeds_needed_are_told_of_what_is_undetermined_only() -> None:
    made = [claim(k, verdict, seeds_needed=77) for k, verdict in enumerate(VERDICTS)]
    table = Reader(study_page(study(claims=made))).tables[0]
    assert [row[-1] for row in table[1:]] == ["–", "–", "77", "–"]


distinct = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=6, unique_by=round)


@settings(max_examples=40)
@given(values=distinct)
def test_positions_are_affine_in_the_data(values: list[float]) -> None:
    look, made = looks(["a"]), [estimate(value, 0.0) for value in values]
    drawn = {
        "lines": chart(lines(series=[{"arm": "a", "x": values, "y": made}]), look),
        "plane": chart(plane([{"arm": "a", "kind": "learned", "x": e, "y": e} for e in made]), look),
    }
    for text in drawn.values():
        for axis in (0, 1):
            assert_affine(values, [place[axis] for place in places(text)])
    for text in (chart(rows(*made), look), chart(bars(*values), look)):
        assert_affine(values, [x for x, _ in places(text)])
        heights = [y for _, y in places(text)]
        assert heights == sorted(set(heights))
    side = [places(drawn["plane"])[k] for k in (0, 1)]
    dx, dy = (side[1][k] - side[0][k] for k in (0, 1))
    assert dx == pytest.approx(-dy, abs=0.03)  # the diagonal is one: a unit is as long on both axes


@settings(max_examples=40)
@given(powers=st.lists(st.floats(-8, 8), min_size=3, max_size=6, unique_by=lambda value: round(value, 1)))
def test_positions_are_affine_in_the_logarithm(powers: list[float]) -> None:
    values = [10**power for power in powers]
    series = [{"arm": "a", "x": values, "y": [estimate(value, 0.0) for value in values]}]
    found = places(chart(lines(series=series, log_x=True, log_y=True), looks(["a"])))
    for axis in (0, 1):
        assert_affine(powers, [place[axis] for place in found])


@given(low=st.floats(-1e6, 1e6), width=st.floats(0, 1e6))
@example(low=997001.0, width=2500.0)
def test_linear_ticks_are_round_and_hold_the_data(low: float, width: float) -> None:
    scale = linear([low, low + width], 0, 100)
    assert scale.inside(low)
    assert scale.inside(low + width)
    assert 3 <= len(scale.ticks) <= 9
    step = (scale.high - scale.low) / (len(scale.ticks) - 1)
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(mantissa - nice) for nice in (1, 2, 2.5, 5)) < 1e-5
    labels = [scale.label(tick) for tick in scale.ticks]
    assert len(set(labels)) == len(labels)
    if max(map(abs, scale.ticks)) < 1e6:
        for label, tick in zip(labels, scale.ticks, strict=True):
            assert float(label.replace("−", "-")) == pytest.approx(tick, abs=1e-3 * step)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.03, 20], ["0.1", "1", "10"]),
        ([1, 100], ["1", "10", "100"]),
        ([3, 4], ["1", "2", "5", "10"]),
        ([1e-7, 1e7, -1, 0], ["10⁻⁷", "10⁻⁵", "10⁻³", "10⁻¹", "10¹", "10³", "10⁵", "10⁷"]),
    ],
)
def test_logarithmic_ticks_are_powers_of_ten(values: list[float], labels: list[str]) -> None:
    scale = logarithmic(values, 0, 1)
    assert [scale.label(tick) for tick in scale.ticks] == labels
    assert scale.low <= min(value for value in values if value > 0)


def test_a_wide_interval_is_cut_with_an_arrow() -> None:
    made = [estimate(0.1, 0.05), estimate(0.2, 0.05), estimate(0.3, 1000)]
    assert max(reachable([0.1, 0.2, 0.3], [(0.05, 0.15), (0.15, 0.25), (-999.7, 1000.3)])) == pytest.approx(0.6)
    drawn = chart(rows(*made), looks(["a"]))
    spread = [x for x, _ in places(drawn)]
    assert spread[2] - spread[0] > 40
    assert "[−1000, 1000]" in drawn  # the tip has the numbers all the same


def test_a_tip_says_arm_place_and_value() -> None:
    tips = [mark["data-tip"] for mark in Reader(chart(lines(), looks(["a"]))).marks]
    assert tips[1] == "a\nx, px: 1\ny, bits: 0.400 [0.300, 0.500]"
    assert Reader(chart(bars(3.0), looks(["a"]))).marks[0]["data-tip"] == "a\ngroup 0\ndB: 3.00"


def test_undefined_values_are_words() -> None:
    look = looks(["a"])
    half = {"value": 1.0, "low": None, "high": 2.0}
    infinite = {"value": math.inf, "low": 0.0, "high": math.nan}
    for e in (NULL, half, infinite):
        undefined = e is not half
        series = [{"arm": "a", "x": [0, 1, None, 3], "y": [estimate(0), e, estimate(1), estimate(2)]}]
        point = {"arm": "a", "kind": "learned", "x": estimate(0), "y": e}
        for figure, extra in ((lines(series=series), 1), (rows(e), 0), (plane([point]), 0), (bars(e["value"]), 0)):
            drawn = chart(figure, look)
            assert len(re.findall(r"<text class='small'[^>]*>[^<]*undefined</text>", drawn)) == undefined + extra
            assert "nan" not in drawn
            assert ">inf" not in drawn
    gap = chart(lines(series=[{"arm": "a", "x": [0, 1, 2, 3, 4], "y": [estimate(1)] * 2 + [NULL] + [half] * 2}]), look)
    assert gap.count(look["a"].line()) == 2
    assert chart(lines(log_y=True), look)  # an interval that reaches below 0
    assert chart(lines(series=[]), look)
    assert chart(rows(), look)


def test_arms_look_different_without_colour() -> None:
    found = looks(f"arm {k}" for k in range(40))
    assert len({(look.colour, look.shape, look.hollow) for look in found.values()}) == 40
    assert len({(look.dash, look.shape) for look in found.values()}) == 40
    assert len({look.shape for look in list(found.values())[:8]}) == 8
    assert len({(look.shape, look.hollow) for look in list(found.values())[:16]}) == 16
    keys = Reader("<table><tr><td>" + legend(found) + "</td></tr></table>").tables[0][0][0]
    assert all(f"arm {k}" in keys for k in range(40))


def test_an_arm_looks_the_same_everywhere() -> None:
    look = looks(["z", "a"])
    for figure in (lines(), rows(estimate(0)), bars(1.0)):
        drawn = chart(figure, look)
        assert look["a"].shape in drawn
        assert look["a"].colour in drawn
        assert look["z"].shape not in drawn


def test_wrong_figures_are_refused() -> None:
    with pytest.raises(InputError, match="kind lines, points, bars, plane; got 'pie'"):
        chart({"kind": "pie"}, {})
    with pytest.raises(InputError, match="got none for 'a'"):
        chart(lines(), looks(["b"]))


PROBE = """
<script>window.problems = []; window.onerror = (m) => { problems.push(String(m)); };</script>
"""
ACT = """
<pre id='outcome'></pre><script>
const out = {}, all = (query) => [...document.querySelectorAll(query)], tip = document.getElementById('tip');
const visible = (arm) => all('.chart .mark').filter((m) => m.dataset.arm === arm && m.getClientRects().length).length;
const send = (node, kind) => node.dispatchEvent(new PointerEvent(kind, {bubbles: true}));
out.hiddenAtFirst = tip.hidden;
const marks = all('.chart .mark');
out.tips = marks.filter((mark) => {
  send(mark.lastElementChild, 'pointerover');
  return !tip.hidden && tip.textContent === mark.dataset.tip && getComputedStyle(tip).display !== 'none';
}).length;
out.marks = marks.length;
out.text = tip.textContent;
send(document.body, 'pointerover');
out.hiddenAfter = tip.hidden;
out.faded = all('.faded').length;
marks[0].focus();
out.focused = !tip.hidden && tip.textContent === marks[0].dataset.tip;
const box = tip.getBoundingClientRect();
out.tipInside = box.left >= 0 && box.right <= innerWidth;
document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}));
out.escaped = tip.hidden;
const arm = NAME, button = all('.legend button').find((b) => b.dataset.arm === arm);
const counts = () => [visible(arm), visible('a')];
out.before = counts();
button.click();
out.off = counts().concat(button.getAttribute('aria-pressed'));
button.click();
out.on = counts().concat(button.getAttribute('aria-pressed'));
document.querySelector('[data-all=false]').click();
out.none = counts();
document.querySelector('[data-all=true]').click();
out.again = counts();
out.key = getComputedStyle(document.querySelector('.key')).display;
out.width = innerWidth;
out.scrollWidth = document.documentElement.scrollWidth;
out.problems = problems;
document.getElementById('outcome').textContent = JSON.stringify(out);
</script>"""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def acted(page: str, width: int, folder: Path) -> dict[str, Any]:
    """What `ACT` found on the page in a window of that width.

    A headless window is at least 500 px wide, so the page is framed; the frame's width is its ``innerWidth``.
    """
    head, body = page.split("<body>", 1)
    (folder / "page.html").write_text(
        head + PROBE + "<body>" + body.replace("</body>", ACT.replace("NAME", json.dumps(NASTY)) + "</body>")
    )
    frame = "frame.contentDocument.getElementById('outcome').textContent"
    (folder / "outer.html").write_text(
        f"<iframe id='frame' src='page.html' style='width:{width}px;height:800px;border:0'></iframe><pre id='found'>"
        f"</pre><script>window.onload = () => {{ document.getElementById('found').textContent = {frame}; }}</script>"
    )
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    command += ["--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1500,900", "--dump-dom"]
    done = subprocess.run(
        [*command, (folder / "outer.html").as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    found = re.search(r"<pre id=.found.>(.*?)</pre>", done.stdout, re.DOTALL)
    assert found, done.stdout[-500:]
    outcome: dict[str, Any] = json.loads(html.unescape(found[1]))
    return outcome


@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(width: int, tmp_path: Path) -> None:
    results = study(12)
    results["claims"][0]["claim"] = "An unbroken" + "word" * 40
    page = study_page(copy.deepcopy(results))
    outcome = acted(page, width, tmp_path)
    marks = Reader(page).marks
    own, other = (sum(mark["data-arm"] == arm for mark in marks) for arm in (NASTY, "a"))
    assert outcome["problems"] == []
    assert outcome["width"] == width
    assert outcome["scrollWidth"] <= width
    assert outcome["tips"] == outcome["marks"] == len(marks)
    assert outcome["text"] == marks[-1]["data-tip"]
    assert outcome["hiddenAtFirst"]
    assert outcome["hiddenAfter"]
    assert outcome["faded"] == 0
    assert outcome["focused"]
    assert outcome["tipInside"]
    assert outcome["escaped"]
    assert outcome["before"] == [own, other]
    assert outcome["off"] == [0, other, "false"]
    assert outcome["on"] == [own, other, "true"]
    assert outcome["none"] == [0, 0]
    assert outcome["again"] == [own, other]
    assert outcome["key"] == "none"
