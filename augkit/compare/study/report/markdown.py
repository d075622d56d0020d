"""The report of a study as Markdown, without the charts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from augkit.compare.study.report.text import (
    ARM_COLUMNS,
    CARRY_CAPTION,
    CARRY_COLUMNS,
    NOT_RUN,
    VERDICT_COLUMNS,
    arm_rows,
    carry_rows,
    cost_text,
    count_verdicts,
    effect_text,
    invariance_note,
    matched_text,
    settings_texts,
    subtitle_text,
    verdict_row,
    verdict_text,
)
from augkit.compare.study.results import StudyResults

SPECIAL = str.maketrans({c: f"\\{c}" for c in "\\`*_|~"} | {"\n": " ", "\r": " "})


def study_markdown(results: StudyResults) -> str:
    """Render the report as Markdown, without the figures."""
    claims = results.claims
    counts = ", ".join(f"{count} {verdict}" for verdict, count in count_verdicts(results).items() if count)
    rows = [[f"{claim.id}. {_md(claim.claim)}", *map(_md, verdict_row(claim))] for claim in claims]
    parts = [
        f"# {_md(results.title)}",
        _md(subtitle_text(results)),
        _md(results.lead),
        "## Verdicts",
        f"{counts or 'No claims'}.",
        _md_table(VERDICT_COLUMNS, rows),
        "## Claims",
    ]
    for claim in claims:
        parts.append(f"### {claim.id}. {_md(claim.name)}: {_md(verdict_text(claim.verdict))}")
        facts = [f"Claim: {_md(claim.claim)} ({_md(claim.source)})", f"Prediction: {_md(claim.prediction)}"]
        if claim.verdict != NOT_RUN:
            facts += [f"Effect: {_md(effect_text(claim))}", _md(matched_text(claim)).rstrip(".")]
        parts += ["\n".join(f"- {fact}" for fact in facts), *map(_md, claim.sentences)]
    arms = [[_md(cell) for cell in row] for arm in results.arms for row in arm_rows(arm)]
    parts += ["## Arms", _md_table(ARM_COLUMNS, arms), invariance_note(results)]
    carried = [[_md(cell) for cell in row] for row in carry_rows(results)]
    parts += ["## Carry-over to atypical images", _md_table(CARRY_COLUMNS, carried), CARRY_CAPTION] if carried else []
    parts += ["## Cost", _md(cost_text(results)), "## Settings"]
    for name, text in settings_texts(results):
        parts += [f"### {name}", _fenced(text)]
    return "\n\n".join(parts) + "\n"


def _md(text: Any) -> str:
    """Escape text for Markdown, on one line; brackets of intervals are not escaped."""
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
