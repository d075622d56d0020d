"""The HTML report of a study: verdicts, claims with charts, arms, a gallery of flips, cost and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from augkit.compare.study.claim_results import ClaimResult
from augkit.compare.study.report.charts import Spec, arms_of, chart
from augkit.compare.study.report.looks import Looks, looks, samples
from augkit.compare.study.report.text import (
    ARM_COLUMNS,
    CARRY_CAPTION,
    CARRY_COLUMNS,
    NOT_RUN,
    OF_IMAGES,
    VERDICT_COLUMNS,
    arm_rows,
    carry_rows,
    cost_text,
    count_verdicts,
    dose_figure,
    effect_text,
    flip_text,
    invariance_note,
    layer_figures,
    matched_text,
    plane_figure,
    settings_texts,
    subtitle_text,
    verdict_row,
    verdict_text,
)
from augkit.compare.study.results import StudyResults
from augkit.core.figures import Chart
from augkit.core.html import Table, render

DOSE_CAPTION = "Strength 0 is training without the augmentation. Bands are 95 % intervals; a gap is an undefined value."
PLANE_CAPTION = (
    "Crosses are 95 % intervals; an arrow marks one that is cut off. On the dashed diagonal, invariance is the same on"
    " typical and atypical images; learned invariance tends to lie below. A solid ring marks architectural invariance,"
    " a dashed ring both kinds, and no ring learned invariance."
)
LAYER_CAPTION = "How exactly the maps of a layer shift with the image; the marker of the arm is at the end of its bar."
WORDS = ("images", "architecture", "policy")  # columns of text, which are aligned to the left


@dataclass(frozen=True)
class VerdictRow:
    """A row of the table of verdicts; ``others`` are the columns that are plain text."""

    claim: ClaimResult
    badge: dict[str, str]
    effect: str
    unit: str
    others: list[str]


@dataclass(frozen=True)
class ClaimSection:
    """A claim with its facts, sentences and chart."""

    claim: ClaimResult
    badge: dict[str, str]
    facts: dict[str, str]
    sentences: Sequence[str]
    matched: str
    chart: Chart | None


@dataclass(frozen=True)
class NotRunSection:
    """A claim that was not run, and why."""

    claim: ClaimResult
    badge: dict[str, str]
    why: str


@dataclass(frozen=True)
class ChartSection:
    """Charts below one caption."""

    caption: str
    charts: list[Chart]


def study_page(results: StudyResults) -> str:
    """Render the report as one self-contained HTML file."""
    drawn = looks(_arms(results))
    claims = results.claims
    ran = [claim for claim in claims if claim.verdict != NOT_RUN]
    sections = _chart_sections(results, drawn)
    carried = Table(CARRY_CAPTION, CARRY_COLUMNS, carry_rows(results), words=CARRY_COLUMNS)
    arms, gallery = [arm_rows(arm) for arm in results.arms], _gallery(results)
    settings, not_run = settings_texts(results), [claim for claim in claims if claim.verdict == NOT_RUN]
    present = {
        "Verdicts": True,
        "Claims": ran,
        "Not run": not_run,
        **sections,
        "Carry-over to atypical images": carried.rows,
        "Arms": arms,
        "Answers that a shift changed": gallery,
        "Cost": True,
        "Settings": settings,
    }
    return render(
        "compare/study/report/study.html",
        title=f"augkit: {results.title}",
        sections=[title for title, content in present.items() if content],
        results=results,
        subtitle=subtitle_text(results),
        verdict_counts=[(_badge(verdict), count) for verdict, count in count_verdicts(results).items() if count],
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


def _arms(results: StudyResults) -> list[str]:
    figures = [claim.figure for claim in results.claims] + [dose_figure(results), plane_figure(results)]
    drawn = [figure for figure in (*figures, *layer_figures(results)) if figure is not None]
    return [arm.arm for arm in results.arms] + [arm for figure in drawn for arm in arms_of(figure)]


def _badge(verdict: str) -> dict[str, str]:
    """A verdict with its symbol, and the CSS class of its color."""
    return {"text": verdict_text(verdict), "kind": verdict.lower().replace(" ", "-")}


def _verdict(claim: ClaimResult) -> VerdictRow:
    effect, *others = verdict_row(claim)[1:]
    number = effect.removesuffix(claim.unit)
    return VerdictRow(claim, _badge(claim.verdict), number, claim.unit if number != effect else "", others)


def _claim(claim: ClaimResult, drawn: Looks) -> ClaimSection:
    return ClaimSection(
        claim=claim,
        badge=_badge(claim.verdict),
        facts={"source": claim.source, "prediction": claim.prediction, "effect": effect_text(claim)},
        sentences=claim.sentences,
        matched=matched_text(claim),
        chart=None if claim.figure is None else chart(claim.figure, drawn),
    )


def _not_run(claim: ClaimResult) -> NotRunSection:
    return NotRunSection(claim, _badge(NOT_RUN), (claim.sentences or ("No reason was recorded.",))[0])


def _chart_sections(results: StudyResults, drawn: Looks) -> dict[str, ChartSection]:
    """Sections of charts by title; empty sections are left out."""
    found: Mapping[str, tuple[str, Sequence[Spec | None]]] = {
        "Dose-response": (DOSE_CAPTION, [dose_figure(results)]),
        "Learned against architectural": (PLANE_CAPTION, [plane_figure(results)]),
        "Layer by layer": (LAYER_CAPTION, layer_figures(results)),
    }
    sections = {
        title: ChartSection(caption, [chart(figure, drawn) for figure in figures if figure is not None])
        for title, (caption, figures) in found.items()
    }
    return {title: section for title, section in sections.items() if section.charts}


def _gallery(results: StudyResults) -> list[dict[str, str]]:
    """Flips whose pictures are ``data:`` URLs; others are left out, because the page would have to load them."""
    return [
        {"before": flip.before, "after": flip.after, "arm": flip.arm, "text": flip_text(flip)}
        for flip in results.gallery
        if all(picture.startswith("data:image/") for picture in (flip.before, flip.after))
    ]
