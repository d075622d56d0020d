"""The page of a study: verdicts, claims with their charts, arms, a gallery of changed answers, cost and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from augkit.compare.study.report.charts import arms_of, chart
from augkit.compare.study.report.looks import Looks, looks, samples
from augkit.compare.study.report.text import (
    ARM_COLUMNS,
    CARRY_CAPTION,
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
    settings_texts,
    subtitle_text,
    tally,
    verdict_row,
    verdict_text,
)
from augkit.core.html import Table, render

DOSE_CAPTION = "Strength 0 is training without the augmentation. Bands are 95 % intervals; a gap is an undefined value."
PLANE_CAPTION = (
    "Crosses are 95 % intervals; an arrow marks one that goes on. On the dashed diagonal, invariance is the same on"
    " images like those of training and on others; what is learned from images tends to fall below. A drawn ring marks"
    " an invariance that is architectural, a dashed ring one that is both; no ring, learned."
)
LAYER_CAPTION = "How far the maps of a layer shift with the image; the sign of the arm is at the end of its bar."
WORDS = ("images", "architecture", "policy")  # columns of words, which stand to the left


def study_page(results: Results) -> str:
    """One HTML file that needs nothing else; ``results`` is what ``results.json`` of a study holds."""
    drawn = looks(_arms(results))
    claims = results.get("claims") or ()
    ran = [claim for claim in claims if claim["verdict"] != NOT_RUN]
    sections = _chart_sections(results, drawn)
    carried = Table(CARRY_CAPTION, CARRY_COLUMNS, carry_rows(results), words=CARRY_COLUMNS)
    arms, gallery = [arm_rows(arm) for arm in results.get("arms") or ()], _gallery(results)
    settings, not_run = settings_texts(results), [claim for claim in claims if claim["verdict"] == NOT_RUN]
    present = {
        "Verdicts": True,
        "Claims": ran,
        "Not run": not_run,
        **sections,
        "How much arrives elsewhere": carried.rows,
        "Arms": arms,
        "Answers that a shift changed": gallery,
        "Cost": True,
        "Settings": settings,
    }
    return render(
        "compare/study/report/study.html",
        title=f"augkit: {results['title']}",
        sections=[title for title, content in present.items() if content],
        results=results,
        subtitle=subtitle_text(results),
        tally=[(_badge(verdict), count) for verdict, count in tally(results).items() if count],
        samples=samples(drawn),
        keys=samples(drawn, "key"),
        verdict_columns=VERDICT_COLUMNS,
        verdicts=[_verdict(claim) for claim in claims],
        claims=[_claim(claim, drawn) for claim in ran],
        not_run=[_not_run(claim) for claim in not_run],
        chart_sections=sections,
        carried=carried,
        arm_columns=ARM_COLUMNS,
        arms=arms,
        arms_caption=invariance_note(results),
        of_images=OF_IMAGES,
        words=WORDS,
        gallery=gallery,
        cost=cost_text(results),
        settings=settings,
    )


def _arms(results: Results) -> list[str]:
    figures = [claim["figure"] for claim in results.get("claims") or () if claim.get("figure")]
    figures += [figure for figure in (dose_figure(results), plane_figure(results)) if figure]
    figures += layer_figures(results)
    return [str(arm["arm"]) for arm in results.get("arms") or ()] + [arm for f in figures for arm in arms_of(f)]


def _badge(verdict: str) -> dict[str, str]:
    """A verdict with its symbol, and the class by which it is colored."""
    return {"text": verdict_text(verdict), "kind": verdict.lower().replace(" ", "-")}


def _verdict(claim: Claim) -> dict[str, Any]:
    """A row of the table of verdicts: what stands before the columns that are text alone, and those."""
    effect, *others = verdict_row(claim)[1:]
    unit = str(claim.get("unit") or "")
    number = effect.removesuffix(unit)
    below = unit if number != effect else ""
    return {"claim": claim, "badge": _badge(claim["verdict"]), "effect": number, "unit": below, "others": others}


def _claim(claim: Claim, drawn: Looks) -> dict[str, Any]:
    facts = {"source": claim["source"], "prediction": claim["prediction"], "effect": effect_text(claim)}
    return {
        "claim": claim,
        "badge": _badge(claim["verdict"]),
        "facts": facts,
        "sentences": claim.get("sentences") or (),
        "matched": matched_text(claim),
        "chart": chart(claim["figure"], drawn) if claim.get("figure") else None,
    }


def _not_run(claim: Claim) -> dict[str, Any]:
    why = (claim.get("sentences") or ["No reason is recorded."])[0]
    return {"claim": claim, "badge": _badge(NOT_RUN), "why": why}


def _chart_sections(results: Results, drawn: Looks) -> dict[str, dict[str, Any]]:
    """Caption and charts by title; a section without charts is left out."""
    found: Mapping[str, tuple[str, Sequence[dict[str, Any] | None]]] = {
        "Dose-response": (DOSE_CAPTION, [dose_figure(results)]),
        "Learned against architectural": (PLANE_CAPTION, [plane_figure(results)]),
        "Layer by layer": (LAYER_CAPTION, layer_figures(results)),
    }
    sections = {
        title: {"caption": caption, "charts": [chart(figure, drawn) for figure in figures if figure]}
        for title, (caption, figures) in found.items()
    }
    return {title: section for title, section in sections.items() if section["charts"]}


def _gallery(results: Results) -> list[dict[str, str]]:
    """Flips with pictures that the page itself holds: any other would be fetched from elsewhere."""
    return [
        {"before": str(flip["before"]), "after": str(flip["after"]), "arm": str(flip["arm"]), "text": flip_text(flip)}
        for flip in results.get("gallery") or ()
        if all(str(flip[key]).startswith("data:image/") for key in ("before", "after"))
    ]
