"""The report of a study: a self-contained page, and the same as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from augkit.compare.study.report.charts import arms_of, chart
from augkit.compare.study.report.marks import Looks, legend, looks
from augkit.compare.study.report.script import CHART_SCRIPT, CHART_STYLE
from augkit.compare.study.report.text import (
    ARM_COLUMNS,
    CARRY_COLUMNS,
    NOT_RUN,
    OF_IMAGES,
    VERDICT_COLUMNS,
    Claim,
    Results,
    arm_rows,
    carry_rows,
    cost_text,
    dose_figure,
    effect_text,
    flip_text,
    invariance_note,
    layer_figures,
    matched_text,
    plane_figure,
    preliminary_text,
    tally,
    verdict_row,
    verdict_text,
)
from augkit.core.html import document

STUDY_STYLE = """
h3 { font-size: 1.02rem; margin: 0 0 .3rem; } nav { margin: .8rem 0; font-size: .92rem; } nav a { margin-right: 1rem;
  white-space: nowrap; display: inline-block; padding: .15rem 0; } a { color: #005a8e; }
h1, h2, h3, p, figcaption, dd { overflow-wrap: anywhere; }
h2, .claim, #not-run > p { scroll-margin-top: 4.5rem; }
td { vertical-align: top; } td.words { text-align: left; white-space: normal; min-width: 13rem; max-width: 26rem; }
td.words small { display: block; } small.unit { display: block; white-space: normal; max-width: 15rem;
  margin-left: auto; } .scroll:focus-visible { outline: 2px solid #111; }
.verdict { display: inline-block; padding: .05rem .55rem; border-radius: .3rem; border: 1px solid; font-size: .9rem;
  font-weight: 600; white-space: nowrap; }
.supported, .holds { color: #00583f; background: #e3f5ee; } .refuted, .fails { color: #8f3300; background: #fdeee5; }
.undetermined { color: #444; background: #f3f3f3; border-style: dashed; } .not-run { color: #666; background: #fff;
  border-style: dotted; } .tally { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0; }
.claim { border-top: 1px solid #ddd; padding: 1.1rem 0 .6rem; display: grid; gap: .2rem 2.5rem;
  grid-template-columns: minmax(0, 1fr); }
.claim figure { margin: .4rem 0; } .claim dl { margin: .3rem 0; display: grid; grid-template-columns: auto 1fr;
  gap: .1rem .8rem; } dt { color: #555; font-size: .9rem; } dd { margin: 0; }
@media (min-width: 60rem) { .claim.drawn { grid-template-columns: minmax(0, 27rem) minmax(0, 1fr); } }
.charts { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr)); }
.gallery figure { margin: 0; break-inside: avoid; } .gallery .pair { display: flex; align-items: center; gap: .3rem; }
.gallery img { width: 44%; max-width: 5.5rem; aspect-ratio: 1;
  image-rendering: pixelated; object-fit: contain; border: 1px solid #ddd; }
[aria-label="Arms of the study"] thead th:is(:nth-child(3), :nth-child(8), :nth-child(9)) { text-align: left; }
[aria-label="Arms of the study"] thead th:nth-child(2) { text-align: right; }
tbody.arm { border-top: 1px solid #aaa; } tbody.arm td, tbody.arm th { border-bottom-color: #f0f0f0; }
tbody.arm th { font-weight: 600; vertical-align: top; white-space: normal; min-width: 7rem; }
pre { max-width: 100%; box-sizing: border-box; }
@media print { nav { display: none; } .claim { break-inside: avoid; } pre { white-space: pre-wrap; }
  .scroll { overflow: visible; } table { font-size: .72rem; } thead th { font-size: .7rem; }
  th, td { white-space: normal; padding: .2rem .3rem; } td.words { min-width: 5rem; }
  td .verdict { font-size: .72rem; padding: 0 .3rem; }
  [aria-label="Arms of the study"] :is(td, th) { font-size: .58rem; padding: .15rem .2rem; min-width: 0; } }
@media screen and (max-width: 600px) { td.words { min-width: 10.5rem; } }
"""
WORDS = ("images", "architecture", "policy")  # columns of words, which stand to the left
SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_|~"} | {"\n": " ", "\r": " "})


def study_page(results: Results) -> str:
    """One HTML file that needs nothing else; ``results`` is what ``results.json`` of a study holds."""
    drawn = looks(_arms(results))
    claims = results.get("claims") or ()
    ran = [claim for claim in claims if claim["verdict"] != NOT_RUN]
    sections = [
        ("Verdicts", _verdict_table(claims) + _keys(drawn)),
        ("Claims", "".join(_claim(claim, drawn) for claim in ran)),
        ("Not run", "".join(_not_run(claim) for claim in claims if claim["verdict"] == NOT_RUN)),
        ("Dose-response", _drawn([dose_figure(results)], drawn, DOSE_CAPTION)),
        ("Learned against architectural", _drawn([plane_figure(results)], drawn, PLANE_CAPTION)),
        ("How much arrives elsewhere", _carried(results)),
        ("Layer by layer", _drawn(layer_figures(results), drawn, LAYER_CAPTION)),
        ("Arms", _arm_table(results)),
        ("Answers that a shift changed", _gallery(results)),
        ("Cost", f"<p>{escape(cost_text(results))}</p>"),
        ("Settings", "".join(f"<h3>{name}</h3><pre>{escape(text)}</pre>" for name, text in _settings(results))),
    ]
    present = [(title, _anchor(title), body) for title, body in sections if body]
    links = "".join(f"<a href='#{anchor}'>{title}</a>" for title, anchor, _ in present)
    parts = [
        f"<h1>{escape(str(results['title']))}</h1>",
        f"<p class='note'>{escape(_subtitle(results))}</p>",
        f"<p class='lead'>{escape(str(results['lead']))}</p>",
        _tally(results),
        f"<nav aria-label='Sections'>{links}</nav>",
        # No element around a section: the legend sticks to the top for as long as its parent, the body, goes on.
        *(f"<h2 id='{anchor}'>{title}</h2>{body}" for title, anchor, body in present),
        f"<script>{CHART_SCRIPT}</script>",
    ]
    return document(f"augkit: {results['title']}", parts, CHART_STYLE + STUDY_STYLE)


def study_markdown(results: Results) -> str:
    """The same content as Markdown, without the figures."""
    claims = results.get("claims") or ()
    counts = ", ".join(f"{count} {verdict}" for verdict, count in tally(results).items() if count)
    rows = [[f"{claim['id']}. {_md(claim['claim'])}", *map(_md, verdict_row(claim))] for claim in claims]
    parts = [
        f"# {_md(results['title'])}",
        _md(_subtitle(results)),
        _md(results["lead"]),
        "## Verdicts",
        f"{counts or 'No claims'}.",
        _md_table(VERDICT_COLUMNS, rows),
        "## Claims",
    ]
    for claim in claims:
        parts.append(f"### {claim['id']}. {_md(claim['name'])}: {_md(verdict_text(claim['verdict']))}")
        facts = [f"Claim: {_md(claim['claim'])} ({_md(claim['source'])})", f"Prediction: {_md(claim['prediction'])}"]
        if claim["verdict"] != NOT_RUN:
            facts += [f"Effect: {_md(effect_text(claim))}", _md(matched_text(claim)).rstrip(".")]
        parts += ["\n".join(f"- {fact}" for fact in facts), *map(_md, claim.get("sentences") or ())]
    arms = [[_md(cell) for cell in row] for arm in results.get("arms") or () for row in arm_rows(arm)]
    parts += ["## Arms", _md_table(ARM_COLUMNS, arms), invariance_note(results)]
    carried = [[_md(cell) for cell in row] for row in carry_rows(results)]
    parts += ["## How much arrives elsewhere", _md_table(CARRY_COLUMNS, carried), CARRY_CAPTION] if carried else []
    parts += ["## Cost", _md(cost_text(results)), "## Settings"]
    for name, text in _settings(results):
        parts += [f"### {name}", _fenced(text)]
    return "\n\n".join(parts) + "\n"


DOSE_CAPTION = "Strength 0 is training without the augmentation. Bands are 95 % intervals; a gap is an undefined value."
CARRY_CAPTION = (
    "The slope of log shift information on these images over that on typical ones, over all networks of the study: 1 is"
    " all of it, 0 nothing."
)
PLANE_CAPTION = (
    "Crosses are 95 % intervals; an arrow marks one that goes on. On the dashed diagonal, invariance is the same on"
    " images like those of training and on others; what is learned from images tends to fall below. A drawn ring marks"
    " an invariance that is architectural, a dashed ring one that is both; no ring, learned."
)
LAYER_CAPTION = "How far the maps of a layer shift with the image; the sign of the arm is at the end of its bar."


def _arms(results: Results) -> list[str]:
    figures = [claim["figure"] for claim in results.get("claims") or () if claim.get("figure")]
    figures += [figure for figure in (dose_figure(results), plane_figure(results)) if figure]
    figures += layer_figures(results)
    return [str(arm["arm"]) for arm in results.get("arms") or ()] + [arm for f in figures for arm in arms_of(f)]


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _subtitle(results: Results) -> str:
    return f"Study {results['name']}, size {results['size']}. {cost_text(results)} {preliminary_text(results)}".strip()


def _badge(verdict: str) -> str:
    return f"<span class='verdict {_anchor(escape(verdict, quote=True))}'>{escape(verdict_text(verdict))}</span>"


def _tally(results: Results) -> str:
    counts = [f"<span>{_badge(verdict)} {count}</span>" for verdict, count in tally(results).items() if count]
    return f"<div class='tally'>{' '.join(counts)}</div>"


def _keys(drawn: Looks) -> str:
    hint = "Point at a mark, or step to it with Tab, to read its value. A button hides an arm in all charts."
    return f"<p class='note hint'>{hint}</p>{legend(drawn)}" if drawn else ""


def _scrolled(label: str, table: str) -> str:
    """A table that scrolls by itself, also by keyboard."""
    return f"<div class='scroll' tabindex='0' role='region' aria-label='{label}'><table>{table}</table></div>"


def _head(columns: Sequence[str]) -> str:
    cells = "".join(f"<th scope='col'>{escape(name)}</th>" for name in columns)
    return f"<thead><tr>{cells}</tr></thead>"


def _verdict_table(claims: Sequence[Claim]) -> str:
    body = ""
    for claim in claims:
        link = f"<a href='#claim-{_id(claim)}'>{_numbered(claim, 'name')}</a>"
        words = f"<td class='words'>{link}<small>{escape(claim['claim'])}</small></td>"
        effect, *others = verdict_row(claim)[1:]
        unit = str(claim.get("unit") or "")
        number = effect.removesuffix(unit)
        below = f"<small class='unit'>{escape(unit)}</small>" if number != effect else ""
        shown = f"<td>{escape(number)}{below}</td>"
        cells = shown + "".join(f"<td>{escape(cell)}</td>" for cell in others)
        body += f"<tr>{words}<td class='name'>{_badge(claim['verdict'])}</td>{cells}</tr>"
    return _scrolled("Verdicts", f"{_head(VERDICT_COLUMNS)}<tbody>{body}</tbody>")


def _id(claim: Claim) -> str:
    return escape(str(claim["id"]), quote=True)


def _numbered(claim: Claim, key: str) -> str:
    return escape(f"{claim['id']}. {claim[key]}")


def _claim(claim: Claim, drawn: Looks) -> str:
    facts = {"source": claim["source"], "prediction": claim["prediction"], "effect": effect_text(claim)}
    listed = "".join(f"<dt>{key}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items())
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in claim.get("sentences") or ())
    figure = chart(claim["figure"], drawn) if claim.get("figure") else ""
    return (
        f"<section class='claim{' drawn' if figure else ''}' id='claim-{_id(claim)}'><div>"
        f"<h3>{_numbered(claim, 'claim')}</h3>"
        f"{_badge(claim['verdict'])}<dl>{listed}</dl>{said}<p class='note'>{escape(matched_text(claim))}</p></div>"
        f"<div>{figure}</div></section>"
    )


def _not_run(claim: Claim) -> str:
    why = (claim.get("sentences") or ["No reason is recorded."])[0]
    facts = f"{claim['source']}. Prediction: {claim['prediction']}."
    return (
        f"<section class='claim' id='claim-{_id(claim)}'><div><h3>{_numbered(claim, 'claim')}</h3>{_badge(NOT_RUN)}"
        f"<p>{escape(why)}</p><p class='note'>{escape(facts)}</p></div></section>"
    )


def _drawn(figures: Sequence[dict[str, Any] | None], drawn: Looks, caption: str) -> str:
    charts = "".join(chart(figure, drawn) for figure in figures if figure)
    return f"<p class='note'>{escape(caption)}</p><div class='charts'>{charts}</div>" if charts else ""


def _carried(results: Results) -> str:
    rows = "".join(
        f"<tr>{''.join(f'<td class=name>{escape(cell)}</td>' for cell in row)}</tr>" for row in carry_rows(results)
    )
    table = _scrolled("How much arrives elsewhere", f"{_head(CARRY_COLUMNS)}<tbody>{rows}</tbody>")
    return rows and f"{table}<p class='note'>{escape(CARRY_CAPTION)}</p>"


def _arm_table(results: Results) -> str:
    body = ""
    for arm in results.get("arms") or ():
        rows = arm_rows(arm)
        lines = [
            "".join(_arm_cell(c, row, 0 if k else len(rows)) for c in range(len(row))) for k, row in enumerate(rows)
        ]
        body += "<tbody class='arm'>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</tbody>"
    table = _scrolled("Arms of the study", _head(ARM_COLUMNS) + body)
    return body and f"{table}<p class='note'>{escape(invariance_note(results))}</p>"


def _arm_cell(column: int, row: Sequence[str], span: int) -> str:
    """A cell of the arms' table; what tells of the whole arm spans ``span`` rows, and is left out where that is 0."""
    kind = " class='name'" if ARM_COLUMNS[column] in WORDS else ""
    text = escape(row[column])
    if column in OF_IMAGES:
        return f"<td{kind}>{text}</td>"
    if not span:
        return ""
    return (
        f"<th scope='rowgroup' rowspan='{span}'>{text}</th>"
        if column == 0
        else f"<td{kind} rowspan='{span}'>{text}</td>"
    )


def _gallery(results: Results) -> str:
    shown = ""
    for flip in results.get("gallery") or ():
        sources = [str(flip[key]) for key in ("before", "after")]
        if not all(source.startswith("data:image/") for source in sources):
            continue  # anything else would be fetched from elsewhere, and the page is to be whole
        before, after = (
            f"<img src='{escape(source, quote=True)}' alt='{word}'>"
            for source, word in zip(sources, ("before the shift", "after the shift"), strict=True)
        )
        words = f"<figcaption><b>{escape(str(flip['arm']))}</b>: {escape(flip_text(flip))}</figcaption>"
        shown += f"<figure><div class='pair'>{before}<span aria-hidden='true'>→</span>{after}</div>{words}</figure>"
    return shown and f"<div class='gallery'>{shown}</div>"


def _settings(results: Results) -> list[tuple[str, str]]:
    found = [("Study", results.get("study_yaml")), ("Recipe", results.get("recipe_yaml"))]
    found += [(key.title(), _json(results[key])) for key in ("settings", "environment") if results.get(key)]
    return [(name, str(text)) for name, text in found if text]


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _md(text: Any) -> str:
    """Text that Markdown does not take for markup, on one line; brackets of intervals stay as they are."""
    plain = re.sub(r"(?<=\])(?=\()|(?=<[A-Za-z/!?])", r"\\", str(text).translate(SPECIAL))
    return f"\\{plain}" if plain.startswith(("#", ">", "-", "+")) else plain


def _md_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _fenced(text: str) -> str:
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text.rstrip()}\n{fence}"
