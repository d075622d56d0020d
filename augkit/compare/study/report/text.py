"""What the report of a study says, as rows of text that its page and its Markdown share."""

from __future__ import annotations

import json
from collections.abc import Mapping

from augkit.compare.study.claim_results import ClaimResult
from augkit.compare.study.report.chart_specs import DoseFigure, LayerBars, LayerFigure, PlaneFigure
from augkit.compare.study.report.numbers import count_text, estimate_text, finite, p_text
from augkit.compare.study.results import ArmResult, FlipExample, StudyResults
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.metrics import METRICS

SYMBOLS = {"supported": "✓", "refuted": "✗", "undetermined": "?", "not run": "–", "holds": "✓", "fails": "✗"}
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
OF_IMAGES = range(2, 3 + len(MEASURED))  # columns that tell of one kind of images; the others tell of the arm
VARIABILITY_NOTES = {
    "shift_information": "Shift information is the share of what the answers say that is about the shift and not about"
    " the image; JS, the Jensen-Shannon divergence between answers to two shifts, also falls where answers are less"
    " sure.",
    "js": "Measured with JS, the Jensen-Shannon divergence between answers to two shifts of an image, which also falls"
    " where answers are less sure.",
}
INVARIANCE_NOTE = (
    "Invariance is the share of variability that is gone: 1 is perfect, 0 is no change, below 0 is a change for the"
    " worse. Learned invariance compares with the same architecture trained without augmentation, architectural"
    " invariance with the plain architecture trained alike. Intervals are 95 %."
)
DOSE_LABEL = "learned invariance on typical images, share"
CARRY_CAPTION = (
    "The slope of log shift information on these images over that on typical ones, over all networks of the study: 1 is"
    " all of it, 0 nothing."
)
NAMED = 4  # arms that a title can hold


def invariance_note(results: StudyResults) -> str:
    """What variability and invariance are."""
    return f"{VARIABILITY_NOTES[results.measured_with]} {INVARIANCE_NOTE}"


def preliminary_text(results: StudyResults) -> str:
    """What to know before reading: the looks at the study, where there are several, and how it was measured of old."""
    looks = results.looks
    if results.measured_with == "js":
        return "Measured with JS, which also falls where answers are less sure, and not yet run anew."
    if looks.exploratory:
        declared, taken = (", ".join(map(str, seeds)) for seeds in (looks.declared, looks.taken))
        return f"Exploratory: looked at {taken} seeds where {declared} were declared, so that no level holds."
    if len(looks.declared) < 2:
        return ""
    declared = ", ".join(map(str, looks.declared))
    return f"Looks at {declared} seeds; this one at {looks.seeds}, level {looks.level:.4f} ({looks.rule})."


def subtitle_text(results: StudyResults) -> str:
    """Name, size, cost, and what to know before reading."""
    return f"Study {results.name}, size {results.size}. {cost_text(results)} {preliminary_text(results)}".strip()


def carry_rows(results: StudyResults) -> list[list[str]]:
    """Per atypical image set, how much of the invariance arrives, and of how many networks."""
    return [
        [
            images,
            estimate_text(found.slope) if found.slope.defined else f"undefined: {found.reason or None}",
            count_text(len(found.typical)),
        ]
        for images, found in results.carry_over.items()
    ]


CARRY_COLUMNS = ("images", "how much of the invariance gained on typical images arrives", "networks")


def verdict_text(verdict: str) -> str:
    """A verdict as symbol and word."""
    return f"{SYMBOLS.get(verdict, '')} {verdict}".strip()


def effect_text(claim: ClaimResult) -> str:
    """The effect with interval and unit; an en dash where there is none."""
    return "–" if claim.effect is None else estimate_text(claim.effect, claim.unit)


def verdict_row(claim: ClaimResult) -> list[str]:
    """The cells of `VERDICT_COLUMNS` after the claim itself."""
    needed = claim.seeds_needed if claim.verdict == "undetermined" else None
    held = claim.held
    counts = ["–" if held is None else f"{held.parts} of {held.of}"]
    counts += [count_text(claim.n_seeds), count_text(claim.n_images)]
    return [verdict_text(claim.verdict), effect_text(claim), p_text(claim.p), *counts, count_text(needed)]


def matched_text(claim: ClaimResult) -> str:
    """What remains of the effect where both networks are equally accurate along their training."""
    if claim.matched is None:
        return "Effect at equal accuracy: not computed."
    return f"Effect at equal accuracy: {estimate_text(claim.matched, claim.unit)}."


def count_verdicts(results: StudyResults) -> dict[str, int]:
    """How many claims have each verdict, in the order of `SYMBOLS`."""
    found = [claim.verdict for claim in results.claims]
    return {verdict: found.count(verdict) for verdict in dict.fromkeys([*SYMBOLS, *found])}


def arm_rows(arm: ArmResult) -> list[list[str]]:
    """Rows of `ARM_COLUMNS`, one for each kind of images; only the cells in `OF_IMAGES` differ between them."""
    kinds = list(dict.fromkeys(kind for key in MEASURED for kind in measured_of(arm, key))) or ["–"]
    first = [arm.arm, estimate_text(arm.accuracy, factor=100)]
    last = [arm.architecture, arm.policy]
    last += ["–" if finite(arm.strength) is None else f"{arm.strength:g}", count_text(arm.n_seeds)]
    last += ["–" if finite(arm.seconds) is None else f"{arm.seconds:,.1f}"]
    return [[*first, kind, *(_measured(arm, key, kind) for key in MEASURED), *last] for kind in kinds]


def cost_text(results: StudyResults) -> str:
    """Runs and time in a sentence."""
    cost = results.cost
    seconds, runs, loaded = finite(cost.seconds), cost.runs, cost.loaded
    text = f"{count_text(runs)} training {'run' if runs == 1 else 'runs'}"
    text += f", {count_text(loaded)} of them loaded from earlier ones" if loaded else ""
    if seconds is not None:
        larger = next((f" ({seconds / size:.1f} {unit})" for unit, size in TIMES if seconds >= size), "")
        text += f"; {seconds:,.0f} s{larger} in all"
    failed = "; ".join(f"{cell} ({error})" for cell, error in cost.failed.items())
    return f"{text}. Failed and left out: {failed}." if failed else f"{text}."


TIMES = (("h", 3600.0), ("min", 60.0))


def flip_text(flip: FlipExample) -> str:
    """One answer that a shift changed; the shift is along x (right) and y (down), in pixels."""
    shift = ", ".join(f"{part:+.2f}".replace("-", "−") for part in flip.shift)
    return f"“{flip.said_before}” became “{flip.said_after}” (true: “{flip.true}”) after a shift of ({shift}) px"


def dose_figure(results: StudyResults) -> DoseFigure | None:
    """The dose-response as a figure of lines; ``dose_response_label`` of the results names what is measured."""
    if not results.dose_response:
        return None
    return DoseFigure(
        title="Effect of the strength",
        x_label="strength of the policy (0 is no augmentation)",
        y_label=results.dose_response_label or DOSE_LABEL,
        series=results.dose_response,
    )


def plane_figure(results: StudyResults) -> PlaneFigure | None:
    """Invariance on typical against atypical images as a figure."""
    if not results.plane:
        return None
    return PlaneFigure(
        title="Typical and atypical images",
        x_label="invariance on typical images (1 is perfect)",
        y_label="invariance on atypical images (1 is perfect)",
        points=results.plane,
    )


def layer_figures(results: StudyResults) -> list[LayerFigure]:
    """Bars of signal-to-error by layer, one figure for all arms whose layers have the same names."""
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
    """Title and text of what repeats the study: those of its files and settings that were kept."""
    plain = results.to_dict()
    found = [("Study", results.study_yaml), ("Recipe", results.recipe_yaml)]
    found += [
        (key.title(), json.dumps(plain[key], indent=2, ensure_ascii=False))
        for key in ("settings", "environment")
        if plain[key]
    ]
    return [(name, text) for name, text in found if text]


def measured_of(arm: ArmResult, key: str) -> Mapping[str, Estimate | None]:
    """One of `MEASURED` by image set, empty where the arm lacks it."""
    found: Mapping[str, Estimate | None] | None = getattr(arm, key)
    return found or {}


def _measured(arm: ArmResult, key: str, kind: str) -> str:
    found = measured_of(arm, key)
    return estimate_text(found[kind]) if kind in found else "–"
