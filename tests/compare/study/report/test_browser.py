"""The report of a study in a real browser: tooltips, focus, the legend, and the width of a phone."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from made_up_study import NASTY, study
from page_reader import PageReader

from augkit.compare.study.report.page import study_page

PROBE = """
<script>window.problems = []; window.onerror = (m) => { problems.push(String(m)); };</script>
"""
ACT = """
<pre id='outcome'></pre><script>
const out = {}, all = (query) => [...document.querySelectorAll(query)], tip = document.getElementById('tip');
const visible = (arm) => all('svg .mark').filter((m) => m.dataset.group === arm && m.getClientRects().length).length;
const send = (node, kind) => node.dispatchEvent(new PointerEvent(kind, {bubbles: true}));
out.hiddenAtFirst = tip.hidden;
const marks = all('svg .mark');
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
const arm = NAME, button = all('.legend button').find((b) => b.dataset.group === arm);
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
    """Results of `ACT` on the page in a window of that width.

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


@pytest.mark.integration
@pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_works_in_a_browser(width: int, tmp_path: Path) -> None:
    results = study(12)
    first = dataclasses.replace(results.claims[0], claim="An unbroken" + "word" * 40)
    page = study_page(dataclasses.replace(results, claims=[first, *results.claims[1:]]))
    outcome = acted(page, width, tmp_path)
    marks = PageReader(page).marks
    own, other = (sum(mark["data-group"] == arm for mark in marks) for arm in (NASTY, "a"))
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
