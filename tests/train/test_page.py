"""The report of a training run: its numbers against references, and a page for any run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from page_reader import PageReader
from PIL import Image

import augkit
from augkit.core.cli import run
from augkit.core.errors import InputError
from augkit.train import __main__ as train
from augkit.train.page import RunRecord, least_accurate, most_confused, run_page, summary, wilson
from augkit.train.recipe import Recipe
from augkit.train.report import write_report

ENVIRONMENT = {"versions": {"torch": "2"}, "machine": {"gpu": None, "threads": 2}}
SHEET = Image.new("L", (8, 8))


def record(classes: int = 3, epochs: int = 4, **fields: object) -> RunRecord:
    history = [
        {
            "epoch": k + 1,
            "step": 10 * (k + 1),
            "loss": 2.0 / (k + 1),
            "lr": 0.1,
            "seconds": 1.5,
            "images_per_second": 90.0,
        }
        for k in range(epochs)
    ]
    history[-1] |= {"validation_accuracy": 0.5, "validation_loss": 1.0}
    rng = np.random.default_rng(0)
    values = {
        "name": "made-up",
        "seed": 3,
        "history": history,
        "classes": [f"class {k}" for k in range(classes)],
        "confusion": rng.integers(0, 9, (classes, classes)).tolist(),
        "recipe_yaml": "name: made-up",
        "environment": ENVIRONMENT,
    }
    return RunRecord(**{**values, **fields})  # type: ignore[arg-type]


@given(right=st.integers(0, 500), wrong=st.integers(0, 500))
def test_interval_is_wilsons(right: int, wrong: int) -> None:
    low, high = wilson(right, right + wrong)
    if right + wrong == 0:
        assert (low, high) == (0.0, 1.0)
        return
    expected = scipy.stats.binomtest(right, right + wrong).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_confusions_are_counted() -> None:
    counts = [[8, 2, 0], [5, 5, 0], [0, 0, 0]]
    found = [(pair.true, pair.predicted, pair.count, pair.share) for pair in most_confused(counts)]
    assert found == [(1, 0, 5, 0.5), (0, 1, 2, 0.2)]
    assert least_accurate(counts) == [(1, 5, 10), (0, 8, 10)]
    assert most_confused([[4, 0], [0, 4]]) == []


def test_summary_says_what_the_numbers_say() -> None:
    varied = record().history
    varied[0]["shift_information"] = {"value": 0.2, "low": 0.1, "high": 0.3}
    varied[-1]["shift_information"] = {"value": 0.05, "low": 0.0, "high": 0.1}
    varied[1] |= {"validation_accuracy": 0.9, "validation_loss": 1.0}
    text = summary(record(history=varied, confusion=[[8, 2, 0], [5, 5, 0], [0, 0, 0]]))
    assert text.startswith("65.0 % [43.3, 81.9] of 20 validation images are classified correctly after 4 epochs")
    assert "The best evaluation was 90.0 %, after epoch 2" in text
    assert "5.0 % of what its answers say is about the shift, 20.0 % when first measured" in text


@pytest.mark.integration
@pytest.mark.parametrize(("classes", "epochs"), [(2, 1), (12, 3), (30, 50)])
def test_page_is_whole_and_self_contained(classes: int, epochs: int) -> None:
    made = record(classes, epochs, notes=["Beware & <i>."])
    made.classes[0] = "<b>bold</b>"
    page = run_page(made, SHEET)
    assert "<b>bold" not in page
    assert "Beware &amp; &lt;i&gt;." in page
    assert ("Confusion matrix" in page) == (classes <= 20)
    assert all(address.startswith(("data:", "#")) for address in PageReader(page).addresses)


@pytest.mark.integration
def test_names_of_classes_are_text_in_any_script() -> None:
    made = record(4)
    made.classes[:] = [r"$\\frac$", "冰箱", "<i>", "a&b"]
    made.history[0]["shift_information"] = {"value": None, "low": None, "high": None}
    page = run_page(made, SHEET)
    for name in (r"$\\frac$", "冰箱", "&lt;i&gt;", "a&amp;b"):
        assert f'<th scope="row">{name}</th>' in page


@pytest.mark.integration
def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mnist5k", "data.name=digits", "data.canvas=16", "data.limit=100", "train.epochs=2", "train.patience=1"]
    words += ["optim.lr=1e-9", "invariance.every=1", "invariance.images=20", "invariance.max_shift=2"]
    assert run(train.main, [*words, "--output", str(tmp_path / "run"), "--quiet"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Stopped early: 1 evaluations brought no better accuracy." in page
    assert "Shift information: the share of what answers say" in page


@pytest.mark.integration
def test_a_run_from_python_gets_it_too(tmp_path: Path, tiny: Recipe) -> None:
    made = augkit.fit(tiny, output=tmp_path / "run", device="cpu")
    data = augkit.load_dataset(tiny.data.name, limit=tiny.data.limit)
    report = write_report(made, data)
    assert report == tmp_path / "run" / "report.html"
    assert "Confusion matrix" in report.read_text()
    with pytest.raises(InputError, match="expected a run with a folder, got one without"):
        write_report(dataclasses.replace(made, folder=None), data)
