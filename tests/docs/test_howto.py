"""Every how-to page runs as it stands and prints what it shows; its numbers stand in the result files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_page import blocks_of, difference, run

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted(path for path in (ROOT / "docs" / "howto").glob("*.md") if path.stem != "index")
# These start processes, compile graphs, build large networks or search.
SLOW = {
    "albumentations-workers",
    "antialias-a-pretrained-network",
    "boxes-of-a-detector",
    "detector-flickers",
    "killed-worker",
    "lightning-on-the-gpu",
    "prune-with-several-objectives",
    "several-optuna-processes",
    "torch-compile-and-random-crops",
}
MARKS = {name: [pytest.mark.integration] for name in SLOW} | {"killed-worker": [pytest.mark.slow]}
CASES = [pytest.param(page, id=page.stem, marks=MARKS.get(page.stem, [])) for page in PAGES]


def text_of(name: str) -> str:
    return " ".join((ROOT / "docs" / "howto" / f"{name}.md").read_text().split())


@pytest.mark.parametrize("page", CASES)
@pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning.*", "ignore:.*LeafSpec.*", "ignore:.*litlogger.*")
def test_a_how_to_page_runs_and_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "import lightning" in page.read_text():
        pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    for block, printed in run(page, tmp_path):
        assert difference(block, printed) is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_how_to_page_has_a_question_with_its_source_an_answer_that_runs_and_limits(page: Path) -> None:
    text = page.read_text()
    assert any(block.printed for block in blocks_of(text))
    assert "](https://" in text.partition("```")[0]
    assert "\n## Limits\n" in text
    assert 30 <= len(text.splitlines()) <= 90


def test_the_index_lists_every_page() -> None:
    text = (ROOT / "docs" / "howto" / "index.md").read_text()
    for page in PAGES:
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        assert f"[{title}]({page.name})" in text


def test_names_of_slow_pages_are_pages() -> None:
    assert {page.stem for page in PAGES} >= SLOW


def test_the_flicker_that_is_told_stands_in_the_result_file() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "flicker.json").read_text())
    found = results["summary"]["detector"]["shifts"]["1"]["flicker"]
    for name in ("maxpool", "blurpool"):
        value, low, high = (f"{100 * found[name][key]:.1f}" for key in ("value", "low", "high"))
        assert f"{value} % [{low}, {high}]" in text_of("detector-flickers")


def test_the_detail_kept_by_one_resampling_stands_in_the_result_file() -> None:
    kept = json.loads((ROOT / "benchmarks" / "results" / "one-resampling.json").read_text())["kept_from_0.25_to_0.45"]
    three, bilinear, lanczos = (
        f"{100 * kept[name]:.0f} %"
        for name in ("torchvision, three resamplings", "augkit bilinear, one", "augkit lanczos3, one")
    )
    words = f"keep {three}, the same in one resampling {bilinear}, and {lanczos} with `lanczos3`"
    assert words in text_of("one-resampling")


def test_the_fall_of_accuracy_after_surgery_stands_in_the_table_of_networks() -> None:
    table = (ROOT / "docs" / "pretrained.md").read_text()
    rows = {line.split("|")[1].strip(): line.split("|") for line in table.splitlines() if line.startswith("| eff")}
    before, after = (rows[name][5].split()[0] for name in ("efficientnet_lite0", "efficientnet_lite0 + blurpool"))
    assert f"from {float(before):.0f} to {float(after):.0f} %" in text_of("antialias-a-pretrained-network")
