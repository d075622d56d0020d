"""Results of benchmarks, and their numbers as README and pages write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def results(name: str) -> dict[str, Any]:
    """The content of a JSON file of results, by its name without the ending."""
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def interval(found: dict[str, float], scale: float = 1.0, digits: int = 2, unit: str = "") -> str:
    """A number with its interval, as ``4.5 % [3.3, 5.7]``."""
    value, low, high = (f"{scale * found[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value}{unit} [{low}, {high}]"


def words(path: str) -> str:
    """The text of a page, by its path from the root, in one line."""
    return " ".join((ROOT / path).read_text().split())
