"""The results of a made-up study, and the figures in it."""

from __future__ import annotations

from typing import Any

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


def study(count: int = 3, **fields: Any) -> dict[str, Any]:
    names = ["a", "a+b", NASTY, *(f"arm {k}" for k in range(3, count))]
    made = {
        "name": "made-up",
        "size": "quick",
        "title": "A title & more",
        "lead": "A lead <i>.",
        "claims": [claim(k + 1, verdict) for k, verdict in enumerate(VERDICTS)],
        "arms": [
            {
                "arm": name,
                "architecture": "plain",
                "policy": "shift",
                "strength": 0.5,
                "accuracy": estimate(0.91, 0.02),
                "n_seeds": 5,
                "seconds": 12.3,
                "js": {"typical": estimate(0.02, 0.01), "upside down": NULL},
                "learned_invariance": {"typical": estimate(0.6)} if k else None,
                "architectural_invariance": None,
            }
            for k, name in enumerate(names)
        ],
        "dose_response": [{"series": n, "arm": n, "x": [0, 1], "y": [estimate(0), estimate(1)]} for n in names],
        "plane": [{"arm": names[2], "kind": "learned", "x": estimate(0.6), "y": NULL}],
        "layers": [{"arm": name, "names": ["layers.0", "head"], "db": [30.0, None]} for name in names],
        "gallery": [
            {"arm": "a", "before": PIXEL, "after": source, "said_before": "7", "said_after": NASTY, "shift": [1.0, 0.5]}
            | {"true": "7"}
            for source in (PIXEL, "https://example.org/a.png")
        ],
        "cost": {"seconds": 812.0, "runs": 40, "loaded": 3},
        "settings": {"kernel": "lanczos </pre><script>"},
        "environment": {"torch": "2.6"},
        "recipe_yaml": "name: recipe\n# ``` here",
        "study_yaml": "name: made-up",
    }
    return {**made, **fields}
