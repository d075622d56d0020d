"""What the report of a study says, as rows of text that its page and its Markdown share.

``results`` is the plain JSON data of a study; an estimate in it is ``{"value", "low", "high"}``, any of them null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from augkit.compare.study.report.numbers import count_text, estimate_text, finite, p_text
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
Results = Mapping[str, Any]
Claim = Mapping[str, Any]


def invariance_note(results: Results) -> str:
    """What variability and invariance are; a study of before `measured_with` was kept was measured with JS."""
    return f"{VARIABILITY_NOTES[results.get('measured_with', 'js')]} {INVARIANCE_NOTE}"


def preliminary_text(results: Results) -> str:
    """What to know before reading: the looks at the study, where there are several, and how it was measured of old."""
    looks = results.get("looks") or {}
    if results.get("measured_with") == "js":
        return "Measured with JS, which also falls where answers are less sure, and not yet run anew."
    if looks.get("exploratory"):
        declared, taken = (", ".join(map(str, looks[key])) for key in ("declared", "taken"))
        return f"Exploratory: looked at {taken} seeds where {declared} were declared, so that no level holds."
    if len(looks.get("declared", ())) < 2:
        return ""
    declared = ", ".join(map(str, looks["declared"]))
    return f"Looks at {declared} seeds; this one at {looks['seeds']}, level {looks['level']:.4f} ({looks['rule']})."


def subtitle_text(results: Results) -> str:
    """Name, size, cost, and what to know before reading."""
    return f"Study {results['name']}, size {results['size']}. {cost_text(results)} {preliminary_text(results)}".strip()


def carry_rows(results: Results) -> list[list[str]]:
    """Per atypical image set, how much of the invariance arrives, and of how many networks."""
    rows = []
    for images, found in (results.get("carry_over") or {}).items():
        known = (found["slope"] or {}).get("value") is not None
        rows.append(
            [
                images,
                estimate_text(found["slope"]) if known else f"undefined: {found['reason']}",
                count_text(found["networks"]),
            ]
        )
    return rows


CARRY_COLUMNS = ("images", "how much of the invariance gained on typical images arrives", "networks")


def verdict_text(verdict: str) -> str:
    """A verdict as symbol and word."""
    return f"{SYMBOLS.get(verdict, '')} {verdict}".strip()


def effect_text(claim: Claim) -> str:
    """The effect with interval and unit; an en dash where there is none."""
    return "–" if claim.get("effect") is None else estimate_text(claim["effect"], claim.get("unit") or "")


def verdict_row(claim: Claim) -> list[str]:
    """The cells of `VERDICT_COLUMNS` after the claim itself."""
    needed = claim.get("seeds_needed") if claim["verdict"] == "undetermined" else None
    held = claim.get("held")
    counts = ["–" if held is None else f"{held['parts']} of {held['of']}"]
    counts += [count_text(claim.get("n_seeds")), count_text(claim.get("n_images"))]
    return [verdict_text(claim["verdict"]), effect_text(claim), p_text(claim.get("p")), *counts, count_text(needed)]


def matched_text(claim: Claim) -> str:
    """What remains of the effect where both networks are equally accurate along their training.

    Studies of before `held` was kept matched accuracies by regression over finished networks.
    """
    how = "equal accuracy" if "held" in claim else "matched accuracy (by regression)"
    if claim.get("matched") is None:
        return f"Effect at {how}: not computed."
    return f"Effect at {how}: {estimate_text(claim['matched'], claim.get('unit') or '')}."


def tally(results: Results) -> dict[str, int]:
    """How many claims have each verdict, in the order of `SYMBOLS`."""
    found = [claim["verdict"] for claim in results.get("claims") or ()]
    return {verdict: found.count(verdict) for verdict in dict.fromkeys([*SYMBOLS, *found])}


def arm_rows(arm: Mapping[str, Any]) -> list[list[str]]:
    """Rows of `ARM_COLUMNS`, one for each kind of images; only the cells in `OF_IMAGES` differ between them."""
    kinds = list(dict.fromkeys(kind for key in MEASURED for kind in arm.get(key) or {})) or ["–"]
    first = [str(arm["arm"]), estimate_text(arm.get("accuracy"), factor=100)]
    last = [str(arm.get("architecture", "–")), str(arm.get("policy", "–"))]
    last += ["–" if finite(arm.get("strength")) is None else f"{arm['strength']:g}", count_text(arm.get("n_seeds"))]
    last += ["–" if finite(arm.get("seconds")) is None else f"{arm['seconds']:,.1f}"]
    return [[*first, kind, *(_measured(arm, key, kind) for key in MEASURED), *last] for kind in kinds]


def cost_text(results: Results) -> str:
    """Runs and time in a sentence."""
    cost = results.get("cost") or {}
    seconds = finite(cost.get("seconds"))
    runs, loaded = cost.get("runs"), cost.get("loaded") or 0
    text = f"{count_text(runs)} training {'run' if runs == 1 else 'runs'}"
    text += f", {count_text(loaded)} of them loaded from earlier ones" if loaded else ""
    if seconds is not None:
        larger = next((f" ({seconds / size:.1f} {unit})" for unit, size in TIMES if seconds >= size), "")
        text += f"; {seconds:,.0f} s{larger} in all"
    failed = "; ".join(f"{cell} ({error})" for cell, error in (cost.get("failed") or {}).items())
    return f"{text}. Failed and left out: {failed}." if failed else f"{text}."


TIMES = (("h", 3600.0), ("min", 60.0))


def flip_text(flip: Mapping[str, Any]) -> str:
    """One answer that a shift changed; the shift is along x (right) and y (down), in pixels."""
    shift = ", ".join(f"{part:+.2f}".replace("-", "−") for part in flip["shift"])
    return (
        f"“{flip['said_before']}” became “{flip['said_after']}” (true: “{flip['true']}”) after a shift of ({shift}) px"
    )


def dose_figure(results: Results) -> dict[str, Any] | None:
    """The dose-response as a figure of lines; ``dose_response_label`` of the results names what is measured."""
    series = results.get("dose_response")
    label = results.get("dose_response_label") or DOSE_LABEL
    if not series:
        return None
    axes = {"x_label": "strength of the policy (0 is no augmentation)", "y_label": label}
    return {"kind": "lines", "title": "Effect of the strength", **axes, "series": series}


def plane_figure(results: Results) -> dict[str, Any] | None:
    """Invariance on typical against atypical images as a figure."""
    points = results.get("plane")
    axes = {"x_label": "invariance on typical images (1 is perfect)"}
    axes["y_label"] = "invariance on atypical images (1 is perfect)"
    return {"kind": "plane", "title": "Typical and atypical images", **axes, "points": points} if points else None


def layer_figures(results: Results) -> list[dict[str, Any]]:
    """Bars of signal-to-error by layer, one figure for all arms whose layers have the same names."""
    together: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in results.get("layers") or ():
        together.setdefault(tuple(map(str, row["names"])), []).append({"arm": row["arm"], "values": row["db"]})
    axes = {"y_label": "signal-to-error ratio under a shift, dB (more is better)"}
    figures = []
    for names, series in together.items():
        title = ", ".join(str(row["arm"]) for row in series) if len(series) <= NAMED else f"{len(series)} arms"
        figures.append({"kind": "bars", "title": title, **axes, "groups": list(names), "series": series})
    return figures


def settings_texts(results: Results) -> list[tuple[str, str]]:
    """Title and text of what repeats the study: those of its files and settings that were kept."""
    found = [("Study", results.get("study_yaml")), ("Recipe", results.get("recipe_yaml"))]
    found += [
        (key.title(), json.dumps(results[key], indent=2, ensure_ascii=False))
        for key in ("settings", "environment")
        if results.get(key)
    ]
    return [(name, str(text)) for name, text in found if text]


def _measured(arm: Mapping[str, Any], key: str, kind: str) -> str:
    found = arm.get(key) or {}
    return estimate_text(found[kind]) if kind in found else "–"
