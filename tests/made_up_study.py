"""The results of a made-up study, and the figures in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from augkit.compare.study.claim_results import ClaimResult, Curve, LabeledEstimate, LinesFigure, PointsFigure
from augkit.compare.study.report.chart_specs import LayerBars, LayerFigure, PlaneFigure
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
from augkit.invariance import Estimate

VERDICTS = ["supported", "refuted", "undetermined", "not run"]
UNKNOWN = Estimate(math.nan, math.nan, math.nan)
PIXEL = "data:image/png;base64,iVBORw0KGgo="
NASTY = "<b>&\"'|`*"


def estimate(value: float, half: float = 0.1) -> Estimate:
    return Estimate(value, value - half, value + half)


def curve(x: Sequence[float] = (0, 1, 3), y: Sequence[Estimate] = (), arm: str = "a") -> Curve:
    return Curve(arm, list(x), list(y) or [estimate(0.1), estimate(0.4), estimate(0.2)])


def lines(*series: Curve, title: str = "T", x_label: str = "x, px", y_label: str = "y, bits") -> LinesFigure:
    return LinesFigure("lines", title, x_label, y_label, list(series))


def plane(*points: PlanePoint) -> PlaneFigure:
    return PlaneFigure("T", "x", "y", list(points))


def rows(*values: Estimate) -> PointsFigure:
    made = [LabeledEstimate("a", f"row {k}", value) for k, value in enumerate(values)]
    return PointsFigure("points", "T", "share", made, 0.0)


def bars(*values: float) -> LayerFigure:
    return LayerFigure("T", "dB", [f"group {k}" for k in range(len(values))], [LayerBars("a", list(values))])


FIGURES = [lines(curve()), rows(estimate(0.3), UNKNOWN), rows(estimate(0.6))]


def claim(number: int, verdict: str, **fields: Any) -> ClaimResult:
    made: dict[str, Any] = {
        "id": number,
        "name": f"name-{number}",
        "claim": f"Claim number {number}",
        "source": "Zhang 2019",
        "prediction": "effect > 0.05",
        "unit": "share",
        "n_seeds": 5,
        "check": False,
        "primary": 0,
        "exploratory": False,
        "verdict": verdict,
        "effect": estimate(0.5),
        "p": 0.031,
        "n_images": 1000,
        "seeds_needed": 14 if verdict == "undetermined" else None,
        "matched": estimate(0.25),
        "sentences": (f"First sentence {number}.", f"Second sentence {number}."),
        "figure": FIGURES[number % len(FIGURES)] if verdict != "not run" else None,
    }
    return ClaimResult(**{**made, **fields})


def study(count: int = 3, *, claims: list[ClaimResult] | None = None, **fields: Any) -> StudyResults:
    names = ["a", "a+b", NASTY, *(f"arm {k}" for k in range(3, count))]
    claims = [claim(k + 1, verdict) for k, verdict in enumerate(VERDICTS)] if claims is None else claims
    made: dict[str, Any] = {
        "name": "made-up",
        "size": "quick",
        "title": "A title & more",
        "lead": "A lead <i>.",
        "measured_with": "shift_information",
        "looks": InterimAnalysis(5, (5,), (5,), 0.05, "obrien-fleming"),
        "claims": claims,
        "arms": [
            ArmResult(
                arm=name,
                architecture="plain",
                policy="shift",
                strength=0.5,
                accuracy=estimate(0.91, 0.02),
                n_seeds=5,
                seconds=12.3,
                shift_information={},
                js={"typical": estimate(0.02, 0.01), "upside down": UNKNOWN},
                learned_invariance={"typical": estimate(0.6)} if k else None,
                architectural_invariance=None,
            )
            for k, name in enumerate(names)
        ],
        "dose_response": [DoseCurve(n, n, [0.0, 1.0], [estimate(0), estimate(1)]) for n in names],
        "dose_response_label": "",
        "plane": [PlanePoint(names[2], "learned", estimate(0.6), UNKNOWN)],
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
