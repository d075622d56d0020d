"""The results of a made-up study, and the figures in it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from augkit.compare.study.claim_results import ClaimResult, LinesFigure
from augkit.compare.study.results import (
    ArmResult,
    DoseCurve,
    FlipExample,
    LayerProfile,
    PlanePoint,
    StudyCost,
    StudyResults,
)
from augkit.compare.study.schema import StudySummary
from augkit.compare.study.sequential import InterimAnalysis
from augkit.core.records import Record
from augkit.invariance import Estimate

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


@dataclass(frozen=True)
class AnyFigure(Record):
    """A figure of any kind, also of those that no claim has."""

    spec: Mapping[str, Any]

    def to_mapping(self) -> dict[str, Any]:
        return dict(self.spec)


def read(found: Mapping[str, float | None] | None) -> Estimate | None:
    """An estimate from its JSON."""
    if found is None:
        return None
    return Estimate(*(math.nan if found[key] is None else float(found[key] or 0.0) for key in ("value", "low", "high")))


def known(value: float, half: float = 0.1) -> Estimate:
    return Estimate(value, value - half, value + half)


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


def result_of(made: Mapping[str, Any]) -> ClaimResult:
    """The result that a claim as JSON describes."""
    figure = None if made["figure"] is None else cast(LinesFigure, AnyFigure(made["figure"]))
    whole = {"check": False, "primary": 0, "exploratory": False, **made, "figure": figure}
    whole |= {"effect": read(made["effect"]), "matched": read(made["matched"])}
    return ClaimResult(**whole)


def study(count: int = 3, *, claims: list[dict[str, Any]] | None = None, **fields: Any) -> StudyResults:
    names = ["a", "a+b", NASTY, *(f"arm {k}" for k in range(3, count))]
    claims = [claim(k + 1, verdict) for k, verdict in enumerate(VERDICTS)] if claims is None else claims
    made: dict[str, Any] = {
        "name": "made-up",
        "size": "quick",
        "title": "A title & more",
        "lead": "A lead <i>.",
        "measured_with": "shift_information",
        "looks": InterimAnalysis(5, (5,), (5,), 0.05, "obrien-fleming"),
        "claims": [result_of(claim) for claim in claims],
        "arms": [
            ArmResult(
                arm=name,
                architecture="plain",
                policy="shift",
                strength=0.5,
                accuracy=known(0.91, 0.02),
                n_seeds=5,
                seconds=12.3,
                shift_information={},
                js={"typical": known(0.02, 0.01), "upside down": UNKNOWN},
                learned_invariance={"typical": known(0.6)} if k else None,
                architectural_invariance=None,
            )
            for k, name in enumerate(names)
        ],
        "dose_response": [DoseCurve(n, n, [0.0, 1.0], [known(0), known(1)]) for n in names],
        "dose_response_label": "",
        "plane": [PlanePoint(names[2], "learned", known(0.6), UNKNOWN)],
        "carry_over": {},
        "layers": [LayerProfile(name, ["layers.0", "head"], [30.0, math.nan]) for name in names],
        "gallery": [
            FlipExample("a", PIXEL, source, "7", NASTY, [1.0, 0.5], "7")
            for source in (PIXEL, "https://example.org/a.png")
        ],
        "cost": StudyCost(812.0, 40, 3),
        "settings": StudySummary("quick", 5, 1000, "lanczos </pre><script>", "plain", {}, {}),
        "environment": {"torch": "2.6"},
        "recipe_yaml": "name: recipe\n# ``` here",
        "study_yaml": "name: made-up",
    }
    return StudyResults(**{**made, **fields})
