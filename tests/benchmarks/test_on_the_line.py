"""Lines through the arms of studies: what is committed follows from the results of the studies."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import on_the_line  # noqa: E402


def arm(architecture: str, policy: str, x: float, y: float, accuracy: float = 0.9) -> dict[str, Any]:
    found: dict[str, Any] = {"arm": f"{architecture}+{policy}", "architecture": architecture, "policy": policy}
    found["accuracy"] = {"value": accuracy}
    return found | {"js": {"typical": {"value": math.exp(x)}, "inverted": {"value": math.exp(y)}}}


@pytest.mark.parametrize("metric", on_the_line.STUDIES)
def test_the_committed_lines_follow_from_the_studies(metric: str) -> None:
    path = on_the_line.RESULTS / f"on-the-line-{metric.replace('_', '-')}.json"
    found = json.loads(path.read_text())["results"]
    assert list(found) == [name for name, _ in on_the_line.STUDIES[metric].values()]
    assert path.with_suffix(".md").read_text() == on_the_line.table(found)
    for file, (name, _) in on_the_line.STUDIES[metric].items():
        anew = on_the_line.read(file, metric)
        assert list(anew) == list(found[name])
        for images, row in anew.items():
            before = found[name][images]
            assert row["points"] == before["points"]
            for title, offset in row["offsets"].items():
                assert offset.pop("slope") == pytest.approx(before["offsets"][title].pop("slope"))
                assert offset == pytest.approx(before["offsets"][title])


def test_the_line_of_the_study_itself_is_found_again() -> None:
    study = json.loads((on_the_line.RESULTS / "on-the-line.json").read_text())
    found = on_the_line.read("on-the-line", "shift_information")
    for claim in study["claims"]:
        part = claim["parts"][claim["primary"]]
        images = {1: "upside down", 2: "another hand", 3: "texture shuffle", 4: "erased"}[claim["id"]]
        offset = found[images]["offsets"][on_the_line.SHIFTS_ALONE]
        for key in ("value", "low", "high"):  # the study averages logs over seeds and adds the error of the images
            assert offset[key] == pytest.approx(part["effect"][key], abs=0.02)


def test_an_offset_a_slope_and_a_floor_are_found() -> None:
    arms = [arm("maxpool", "none", x, 0.5 * x) for x in range(-6, 0)]
    arms += [arm("fc", "shift", x, 0.5 * x + 0.2 + 0.001 * x * x) for x in range(-5, 0)]
    arms += [arm("fc", "blur", -1, 5), arm("spp", "shift", -1, 5, accuracy=0.1)]
    rows, low = on_the_line.points({"arms": arms}, "inverted", floor=0.5)
    assert (len(rows), low) == (11, ["spp+shift"])
    found = on_the_line.offset(rows, "learned")
    assert found["value"] == pytest.approx(0.2, abs=0.02)
    assert found["slope"]["value"] == pytest.approx(0.5, abs=0.01)
    assert (found["arms"], found["against"]) == (5, 6)
    assert found["p_within_margin"] > 0.99


def test_arms_of_another_task_or_canvas_have_no_family() -> None:
    assert on_the_line.family({"arm": "fc+mirrored", "architecture": "fc", "policy": "mirrored"}) is None
    assert on_the_line.family({"arm": "fc+none+locate", "architecture": "fc", "policy": "none"}) is None
    assert on_the_line.family({"arm": "aliasfree+none", "architecture": "aliasfree", "policy": "none"}) == "exact"
    assert on_the_line.family({"arm": "maxpool+tuned", "architecture": "maxpool", "policy": "tuned"}) == "approximate"
