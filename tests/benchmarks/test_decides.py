"""The page of the studies: its tables are those of the committed results."""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import decides  # noqa: E402


def test_the_tables_of_the_page_are_those_of_the_results() -> None:
    page = (ROOT / "docs" / "decides.md").read_text()
    assert decides.fill(page) == page
    for name in decides.STUDIES:
        assert f"<!-- table: benchmarks/decides.py {name} -->" in page or name in ("on-the-line", "real-borders")


def test_every_figure_of_the_page_is_of_a_study_that_was_run() -> None:
    page = (ROOT / "docs" / "decides.md").read_text()
    for name in decides.STUDIES:
        shown = f"figures/decides-{name}.svg" in page
        assert shown == (ROOT / "docs" / "figures" / f"decides-{name}.svg").is_file()
        assert not shown or decides.results_of(name) is not None


def test_every_claim_of_the_factorial_study_has_a_row() -> None:
    claims = json.loads((ROOT / "benchmarks" / "results" / f"{decides.OLD}.json").read_text())["claims"]
    assert [str(claim["id"]) for claim in claims] == list(decides.MENDED)


def test_numbers_that_are_not_there_are_words() -> None:
    assert decides.number(None, "nats") == "undefined"
    assert decides.number({"value": None, "low": None, "high": None}, "nats") == "undefined"
    assert decides.number({"value": -0.5, "low": -1.0, "high": 0.0}, "nats") == "−0.50 [−1.00, 0.00] nats"


def test_what_the_page_says_of_photographs_stands_in_the_results() -> None:
    page = " ".join((ROOT / "docs" / "decides.md").read_text().split())
    found = decides.results_of("cifar10-partial-classes")
    assert found is not None
    effects = {part["label"]: part["effect"] for claim in found["claims"] for part in claim["parts"]}
    labels = (
        "all classes augmented, on the same images",
        "classes never seen",
        "all images beside noise of equal norm",
    )
    for label in labels:
        effect = effects[label]
        value, low, high = (f"{-effect[key]:.2f}" for key in ("value", "high", "low"))
        assert f"{value} nats [{low}, {high}]" in page
    rows = json.loads((ROOT / "benchmarks" / "results" / "moved-or-resampled.json").read_text())["rows"]
    views = ("in the center", "moved by half a pixel")
    for view in views:
        moved = [sum(row["share"][view]) / 3 for row in rows if row["trained"] in ("shiftA", "shiftB")]
        assert f"{100 * moved[0]:.0f} and {100 * moved[1]:.0f} %" in page


def test_what_the_page_says_of_real_borders_stands_in_the_results() -> None:
    page = " ".join((ROOT / "docs" / "decides.md").read_text().split())
    found = decides.results_of("cifar10-real-borders")
    assert found is not None
    effects = {part["label"]: part["effect"] for claim in found["claims"] for part in claim["parts"]}

    def share(number: dict[str, float]) -> str:
        value, low, high = (f"{100 * number[key]:.0f}" for key in ("value", "low", "high"))
        return f"{value} % [{low}, {high}]"

    for label in ("polyphase with real borders", "max pooling with real borders"):
        assert share(effects[label]) in page
    for label in ("polyphase against max pooling", "the same, shuffled images"):
        value, low, high = (f"{-effects[label][key]:.2f}" for key in ("value", "high", "low"))
        assert f"{value} nats [{low}, {high}]" in page
    arms = {arm["arm"]: arm for arm in found["arms"]}
    exact, blurred, smooth = (
        share(arms[f"{name}+none"]["architectural_invariance"]["typical"])
        for name in ("polyphase", "blurpool", "aliasfree")
    )
    assert f"removes {blurred} of the variability of max pooling there" in page
    assert f"the polyphase networks {exact}, and those without aliasing {smooth}" in page
