"""Every tutorial runs in order, prints about what it shows, and makes its figure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from run_page import blocks_of, difference, figures_of, run

ROOT = Path(__file__).parent.parent.parent
TUTORIALS = ROOT / "docs" / "tutorials"
PAGES = sorted(path for path in TUTORIALS.glob("*.md") if path.stem != "index")
LARGEST = 120_000  # bytes of a figure
QUICK = {"augment-a-training-loop", "fine-tune-with-antialiasing"}  # the others take half a minute each, and more
CASES = [
    pytest.param(page, id=page.stem, marks=pytest.mark.integration if page.stem in QUICK else pytest.mark.slow)
    for page in PAGES
]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"), dtype=float)


@pytest.mark.parametrize("page", CASES)
def test_a_tutorial_runs_and_makes_its_figure(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if page.stem == "cluster":
        pytest.importorskip("grpc")
    monkeypatch.chdir(tmp_path)
    for block, printed in run(page, tmp_path):
        assert difference(block, printed) is None
    for name in figures_of(page.read_text()):
        made, shown = pixels(tmp_path / name), pixels(page.parent / name)
        assert made.shape == shown.shape
        # Training decides where the marks lie; frame and words are the same.
        assert made.std() > 5
        assert np.abs(made - shown).mean() < 60


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_tutorial_ends_in_one_small_figure_that_its_last_block_makes(page: Path) -> None:
    text = page.read_text()
    (name,) = figures_of(text)
    assert name == f"{page.stem}.png"
    assert f'savefig("{name}"' in blocks_of(text)[-1].code
    assert (page.parent / name).stat().st_size < LARGEST


def test_no_figure_lies_beside_the_tutorials_unshown() -> None:
    shown = {name for page in PAGES for name in figures_of(page.read_text())}
    assert {path.name for path in TUTORIALS.glob("*.png")} == shown


def test_the_index_lists_every_tutorial() -> None:
    text = (TUTORIALS / "index.md").read_text()
    for page in PAGES:
        title = page.read_text().partition("\n")[0].removeprefix("# ")
        assert f"[{title}]({page.name})" in text


def test_the_difference_of_two_processes_stands_in_the_result_file() -> None:
    text = " ".join((TUTORIALS / "several-gpus.md").read_text().split())
    found = json.loads((ROOT / "benchmarks" / "results" / "processes-cpu.json").read_text())
    value, low, high = (f"{100 * found['difference'][key]:.2f}" for key in ("value", "low", "high"))
    assert f"Over {found['n_seeds']} seeds the difference" in text
    assert f"{value} points of validation accuracy [{low}, {high}]" in text
