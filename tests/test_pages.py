"""What holds for every page: one file that needs nothing else, text that stays text, and names for all it shows."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_settings import SETTINGS
from made_up_study import claim, curve, lines, study
from page_reader import PageReader
from PIL import Image
from torch import Tensor

from augkit.augment.policy import Policy
from augkit.compare.policies import PolicyComparison, ScoreRow
from augkit.compare.policies_page import policies_page
from augkit.compare.study.report.page import study_page
from augkit.core.files import environment as machine
from augkit.core.html import Table, environment
from augkit.invariance import Certificate, Estimate, InvarianceReport, LayerEquivariance, LieDerivative
from augkit.invariance.certificate.certify import LogitCheck
from augkit.invariance.layers.lie_derivative import LieSettings
from augkit.invariance.report import ResponseCurve
from augkit.measure.analyses import Analyses
from augkit.measure.comparison import TABLE_METRICS, ComparisonRow
from augkit.measure.page import measured_page
from augkit.measure.results import ImageSetResults, MeasureResults
from augkit.preview.page import preview_page
from augkit.train.page import RunRecord, run_page
from augkit.tune.page import search_page
from augkit.tune.results import SearchCost, SearchResults, SearchTrial
from augkit.tune.space import Range

ROOT = Path(__file__).parents[1]
SHEET = Image.new("L", (8, 8))
EVIL = "<script>alert(1)</script>\"'><img src=https://example.org/x onerror=alert(2)>{{ 7 * 7 }}{% raw %}"
TEXT = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8).map(lambda text: f"{text}{EVIL}")


def estimate(value: float) -> Estimate:
    return Estimate(value, value - 0.1, value + 0.1)


def of_a_run(name: str) -> str:
    row = {"epoch": 1, "step": 5, "loss": 1.0, "lr": 0.1, "seconds": 1.5, "images_per_second": 90.0}
    row |= {"validation_accuracy": 0.5, "validation_loss": 1.0}
    environment = {"versions": {"torch": name}, "machine": {"gpu": name, "threads": 2}}
    return run_page(
        RunRecord(name, 3, [row], [name, "b"], [[3, 1], [2, 4]], name, environment, [name]),
        SHEET,
    )


def of_a_preview(name: str) -> str:
    return preview_page(name, name, [name], b"", b"", name)


def of_a_measurement(name: str) -> str:
    settings = replace(SETTINGS, protocol=name, kernel=name)
    metrics = {"top1_change": estimate(0.5), "js": estimate(0.4), "accuracy": estimate(0.8)}
    point: dict[str, Tensor] = {"js": torch.full((3, 1), 0.4), "changed": torch.full((3, 1), 0.5)}
    report = InvarianceReport(settings, {}, {1.0: point}, name, metrics)
    lie = LieSettings(name, name, name, name, 3, [8, 8], [8, 8], 0)
    analyses = Analyses(
        images=3,
        certificate=Certificate(
            "none", name, name, name, name, (8, 8), (), LogitCheck(1.0, 1.0, 1.0, 1e-9, 1, 1, 0, False)
        ),
        layers=[LayerEquivariance(name, name, (1, 8, 8), (1.0, 1.0), estimate(20.0), estimate(0.1))],
        lie=LieDerivative({name: estimate(0.1)}, {name: estimate(0.1)}, 1.0, lie, {}),
    )
    results = MeasureResults(
        model=name,
        split="test",
        typical=ImageSetResults(name, report, 4, (name,), analyses),
        ood=(),
        preset=None,
        weights_sha256="",
        folder=None,
        command=name,
        environment=machine(),
    )
    return measured_page(results, [])


def of_a_search(name: str) -> str:
    trials = [
        SearchTrial(
            number=k,
            control=False,
            state="complete",
            accuracy=0.9,
            learned_invariance=0.5,
            values=[0.9, 0.5],
            parameters={name: name},
            front=True,
            chosen=True,
            feasible=True,
            curve={"1": 0.5},
        )
        for k in range(2)
    ]
    found = SearchResults(
        trials=trials,
        space={name: Range(kind="choice", choices=[name, "b"], default="b")},
        objectives=["accuracy", "learned_invariance"],
        budget=2,
        importance={"accuracy": {name: 0.5}},
        search_cost=SearchCost(1, 1, 1, 1, 1, 1, 1.0),
    )
    return search_page(name, found)


def of_a_study(name: str) -> str:
    figure = lines(curve([0, 1], [estimate(0.1)] * 2, arm=name), title=name, x_label=name, y_label=name)
    made = claim(1, "supported", figure=figure, unit=name, claim=name, source=name, sentences=(name,))
    texts = dict.fromkeys(("name", "size", "title", "lead", "recipe_yaml", "study_yaml"), name)
    return study_page(study(claims=[made], **texts))


def of_policies(name: str) -> str:
    rows = [
        ComparisonRow(arm, "typical", 3, 2, dict.fromkeys(TABLE_METRICS, estimate(0.5)), {}, learned_invariance=None)
        for arm in ("control", name)
    ]
    curves = {arm: ResponseCurve("length", [1.0], {"js": [estimate(0.4)]}) for arm in ("control", name)}
    settings = {"images": 3, "protocol": name, "kernel": name, "max_shift": 1.0}
    scores, policies = {name: ScoreRow([0.5], estimate(0.5), estimate(0.1))}, {"control": Policy(), name: Policy()}
    return policies_page(PolicyComparison(name, policies, 2, [1], rows, scores, curves, {}, {name: name}, settings, {}))


PAGES: dict[str, Callable[[str], str]] = {
    "run": of_a_run,
    "preview": of_a_preview,
    "measurement": of_a_measurement,
    "search": of_a_search,
    "study": of_a_study,
    "policies": of_policies,
}


@cache
def plain(kind: str) -> str:
    return PAGES[kind]("plain")


@pytest.mark.integration
@pytest.mark.parametrize("kind", PAGES)
@settings(max_examples=2)
@given(name=TEXT)
def test_text_of_users_stays_text(kind: str, name: str) -> None:
    page, own = PageReader(PAGES[kind](name)), PageReader(plain(kind))
    assert page.scripts == own.scripts
    assert page.handlers == []
    assert page.tags.count("img") == own.tags.count("img")
    assert all(address.startswith(("data:", "#")) for address in page.addresses)


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_needs_nothing_but_itself(kind: str) -> None:
    page = PageReader(plain(kind))
    assert all(address.startswith(("data:", "#")) for address in page.addresses)
    assert {address[1:] for address in page.addresses if address.startswith("#")} <= set(page.ids)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert "@import" not in plain(kind)


@pytest.mark.parametrize("kind", PAGES)
def test_a_page_has_one_main_heading_and_a_title(kind: str) -> None:
    page = PageReader(plain(kind))
    assert page.tags.count("h1") == 1
    assert page.tags.index("title") < page.tags.index("body")
    assert 'name="viewport"' in plain(kind)


@pytest.mark.parametrize("kind", PAGES)
def test_every_figure_has_a_title_or_a_caption_and_a_label(kind: str) -> None:
    page = PageReader(plain(kind))
    assert page.figures
    for figure in page.figures:
        assert any(figure.texts.get(tag, "").strip() for tag in ("h2", "h3", "h4", "figcaption"))
        assert figure.labels
        assert all(figure.labels)


@pytest.mark.parametrize("kind", PAGES)
def test_every_table_has_a_caption(kind: str) -> None:
    page = PageReader(plain(kind))
    assert all(caption.strip() for caption in page.captions)
    assert len(page.captions) == len(page.tables)


@pytest.mark.parametrize("kind", ["run", "measurement", "search", "study", "policies"])
def test_every_mark_can_be_focused_and_read(kind: str) -> None:
    marks = PageReader(plain(kind)).marks
    assert marks
    for found in marks:
        assert found["tabindex"] == "0"
        assert found["aria-label"] == found["data-tip"].replace("\n", "; ") != ""


def test_a_table_shows_an_estimate_as_value_over_interval() -> None:
    table = Table("caption", ["name", "value", "word"], [["a", "0.5 [0.4, 0.6]", "yes"]], words=["word"])
    macros = environment().get_template("core/macros.html").module
    page = str(macros.table(table))  # type: ignore[attr-defined]
    assert PageReader(page).tables == [[["name", "value", "word"], ["a", "0.5[0.4, 0.6]", "yes"]]]
    assert "<td>0.5<br><small>[0.4, 0.6]</small></td>" in page
    assert '<td class="words">yes</td>' in page


@pytest.mark.slow
def test_the_wheel_has_all_templates(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")  # a build without its own environment needs no network
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        str(ROOT),
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    made = {str(path.relative_to(ROOT)) for path in ROOT.glob("augkit/**/templates/*")}
    assert made
    assert made <= held
