"""Texts of a study's report, shared by the HTML page and the Markdown."""

from __future__ import annotations

import json
from collections.abc import Mapping

from augkit.compare.study.claim_results import ClaimResult
from augkit.compare.study.report.chart_specs import DoseFigure, LayerBars, LayerFigure, PlaneFigure
from augkit.compare.study.report.numbers import count_text, estimate_text, finite, p_text
from augkit.compare.study.results import ArmResult, FlipExample, StudyResults
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.metrics import METRICS

SYMBOLS = {
    "supported": "✓",
    "refuted": "✗",
    "undetermined": "?",
    "not run": "–",
    "pilot": "○",
    "holds": "✓",
    "fails": "✗",
}
NOT_RUN = "not run"
VERDICT_COLUMNS = ("claim", "verdict", "effect [95 % interval]", "p (Holm)", "parts", "seeds", "images", "seeds needed")
MEASURED = {
    **{name: METRICS[name].heading(METRICS[name].brief, percent=False) for name in ("shift_information", "js")},
    "learned_invariance": "learned invariance",
    "architectural_invariance": "architectural invariance",
}
ARM_COLUMNS = (
    *("arm", "accuracy, %", "images", *MEASURED.values()),
    *("architecture", "policy", "strength", "seeds", "time, s"),
)
OF_IMAGES = range(2, 3 + len(MEASURED))  # columns that differ between image sets; the others belong to the arm
VARIABILITY_NOTES = {
    "shift_information": "Shift information is the share of what the answers say that is about the shift and not about"
    " the image; JS, the Jensen-Shannon divergence between answers to two shifts, also falls where answers are less"
    " certain.",
    "js": "Measured with JS, the Jensen-Shannon divergence between answers to two shifts of an image, which also falls"
    " where answers are less certain.",
}
INVARIANCE_NOTE = (
    "Invariance is the share of variability that was removed: 1 is perfect, 0 is no change, below 0 the network is more"
    " variable. Learned invariance compares with the same architecture trained without augmentation, architectural"
    " invariance with the reference architecture trained without augmentation. Intervals are 95 %."
)
DOSE_LABEL = "learned invariance on typical images, share"
CARRY_CAPTION = (
    "Slope of log shift information on these images over that on typical ones, over all networks of the study: 1 is"
    " full carry-over, 0 none."
)
NAMED = 4  # largest number of arms that a title names


def invariance_note(results: StudyResults) -> str:
    """Explanation of variability and invariance."""
    return f"{VARIABILITY_NOTES[results.measured_with]} {INVARIANCE_NOTE}"


def preliminary_text(results: StudyResults) -> str:
    """Remarks on the interim analyses, if there are several, and on measurements of earlier versions."""
    looks = results.looks
    if results.measured_with == "js":
        return "Measured by an earlier version with JS, which also falls where answers are less certain."
    if looks.exploratory:
        declared, taken = (", ".join(map(str, seeds)) for seeds in (looks.declared, looks.taken))
        return f"Exploratory: analyzed at {taken} seeds, but declared at {declared}, so the level is not guaranteed."
    if len(looks.declared) < 2:
        return ""
    declared = ", ".join(map(str, looks.declared))
    return f"Analyses at {declared} seeds; this one at {looks.seeds}, level {looks.level:.4f} ({looks.rule})."


def subtitle_text(results: StudyResults) -> str:
    """Name, size and cost of the study, and the remarks of `preliminary_text`."""
    return f"Study {results.name}, size {results.size}. {cost_text(results)} {preliminary_text(results)}".strip()


def carry_rows(results: StudyResults) -> list[list[str]]:
    """Rows of the carry-over table: image set, slope with interval, and number of networks."""
    return [
        [
            images,
            estimate_text(found.slope) if found.slope.defined else f"undefined: {found.reason or None}",
            count_text(len(found.typical)),
        ]
        for images, found in results.carry_over.items()
    ]


CARRY_COLUMNS = ("images", "share of the invariance gained on typical images that carries over", "networks")


def verdict_text(verdict: str) -> str:
    """A verdict with its symbol."""
    return f"{SYMBOLS.get(verdict, '')} {verdict}".strip()


def effect_text(claim: ClaimResult) -> str:
    """The effect with interval and unit; an en dash if there is none."""
    return "–" if claim.effect is None else estimate_text(claim.effect, claim.unit)


def verdict_row(claim: ClaimResult) -> list[str]:
    """The cells of `VERDICT_COLUMNS` after the claim itself."""
    needed = claim.seeds_needed if claim.verdict == "undetermined" else None
    held = claim.held
    counts = ["–" if held is None else f"{held.parts} of {held.of}"]
    counts += [count_text(claim.n_seeds), count_text(claim.n_images)]
    return [verdict_text(claim.verdict), effect_text(claim), p_text(claim.p), *counts, count_text(needed)]


def matched_text(claim: ClaimResult) -> str:
    """Sentence on the effect at equal accuracy of both networks."""
    if claim.matched is None:
        return "Effect at equal accuracy: not computed."
    return f"Effect at equal accuracy: {estimate_text(claim.matched, claim.unit)}."


def count_verdicts(results: StudyResults) -> dict[str, int]:
    """Number of claims by verdict, in the order of `SYMBOLS`."""
    found = [claim.verdict for claim in results.claims]
    return {verdict: found.count(verdict) for verdict in dict.fromkeys([*SYMBOLS, *found])}


def arm_rows(arm: ArmResult) -> list[list[str]]:
    """Rows of `ARM_COLUMNS` for an arm, one per image set; only the cells in `OF_IMAGES` differ between them."""
    kinds = list(dict.fromkeys(kind for key in MEASURED for kind in measured_of(arm, key))) or ["–"]
    first = [arm.arm, estimate_text(arm.accuracy, factor=100)]
    last = [arm.architecture, arm.policy]
    last += ["–" if finite(arm.strength) is None else f"{arm.strength:g}", count_text(arm.n_seeds)]
    last += ["–" if finite(arm.seconds) is None else f"{arm.seconds:,.1f}"]
    return [[*first, kind, *(_measured(arm, key, kind) for key in MEASURED), *last] for kind in kinds]


def cost_text(results: StudyResults) -> str:
    """Sentence on the number of runs and their time."""
    cost = results.cost
    seconds, runs, loaded = finite(cost.seconds), cost.runs, cost.loaded
    text = f"{count_text(runs)} training {'run' if runs == 1 else 'runs'}"
    text += f", {count_text(loaded)} of them loaded from earlier ones" if loaded else ""
    if seconds is not None:
        larger = next((f" ({seconds / size:.1f} {unit})" for unit, size in TIMES if seconds >= size), "")
        text += f"; {seconds:,.0f} s{larger} in total"
    failed = "; ".join(f"{cell} ({error})" for cell, error in cost.failed.items())
    return f"{text}. Failed and left out: {failed}." if failed else f"{text}."


TIMES = (("h", 3600.0), ("min", 60.0))


def flip_text(flip: FlipExample) -> str:
    """Sentence on an answer that a shift changed; the shift is along x (right) and y (down), in pixels."""
    shift = ", ".join(f"{part:+.2f}".replace("-", "−") for part in flip.shift)
    return f"“{flip.said_before}” became “{flip.said_after}” (true: “{flip.true}”) after a shift of ({shift}) px"


def dose_figure(results: StudyResults) -> DoseFigure | None:
    """Data of the dose-response figure; its y axis has the label ``dose_response_label``."""
    if not results.dose_response:
        return None
    return DoseFigure(
        title="Effect of the strength",
        x_label="strength of the policy (0 is no augmentation)",
        y_label=results.dose_response_label or DOSE_LABEL,
        series=results.dose_response,
    )


def plane_figure(results: StudyResults) -> PlaneFigure | None:
    """Data of the figure of invariance on typical against atypical images."""
    if not results.plane:
        return None
    return PlaneFigure(
        title="Typical and atypical images",
        x_label="invariance on typical images (1 is perfect)",
        y_label="invariance on atypical images (1 is perfect)",
        points=results.plane,
    )


def layer_figures(results: StudyResults) -> list[LayerFigure]:
    """Data of the bar charts of signal-to-error ratio by layer, one for all arms with the same layer names."""
    together: dict[tuple[str, ...], list[LayerBars]] = {}
    for row in results.layers:
        together.setdefault(tuple(row.names), []).append(LayerBars(row.arm, row.db))
    label = "signal-to-error ratio under a shift, dB (more is better)"
    figures = []
    for names, series in together.items():
        title = ", ".join(row.arm for row in series) if len(series) <= NAMED else f"{len(series)} arms"
        figures.append(LayerFigure(title, label, list(names), series))
    return figures


def settings_texts(results: StudyResults) -> list[tuple[str, str]]:
    """Titles and texts of the stored files and settings with which the study can be reproduced."""
    plain = results.to_dict()
    found = [("Study", results.study_yaml), ("Recipe", results.recipe_yaml)]
    found += [
        (key.title(), json.dumps(plain[key], indent=2, ensure_ascii=False))
        for key in ("settings", "environment")
        if plain[key]
    ]
    return [(name, text) for name, text in found if text]


def measured_of(arm: ArmResult, key: str) -> Mapping[str, Estimate | None]:
    """One of `MEASURED` by image set; empty if the arm does not have it."""
    found: Mapping[str, Estimate | None] | None = getattr(arm, key)
    return found or {}


def _measured(arm: ArmResult, key: str, kind: str) -> str:
    found = measured_of(arm, key)
    return estimate_text(found[kind]) if kind in found else "–"
