"""The report of a measurement: numbers, pictures, and results of the analyses."""

from __future__ import annotations

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from augkit.data import load_dataset, sample
from augkit.invariance import Estimate, LayerEquivariance
from augkit.invariance.flips import Flip
from augkit.invariance.gallery import flip_pictures
from augkit.invariance.protocols import Scene, make_protocol
from augkit.measure import MeasureResults, MeasureSettings, figures, measure
from augkit.measure.analyses import Analyses
from augkit.measure.page import measured_page, summary
from augkit.measure.terminal import analysis_lines
from augkit.train.loop import fit

SETTINGS = MeasureSettings(
    limit=40, ood_builtin=True, certify=True, layers=True, lie=True, relative=True, probe_images=6
)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> MeasureResults:
    """A measured run, with everything that a report can show."""
    from augkit.train.recipe import Recipe

    recipe = Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"name": "digits", "canvas": 16, "limit": 200},
            "model": {"name": "small_cnn", "width": 4},
            "train": {"epochs": 1, "batch_size": 32},
            "invariance": {"protocol": "embed", "max_shift": 3.0, "pairs": 2},
        }
    )
    top = tmp_path_factory.mktemp("measured")
    fit(recipe, output=top / "run")
    return measure(str(top / "run"), settings=SETTINGS, output=top / "out")


@pytest.fixture(scope="module")
def folder(measured: MeasureResults) -> Path:
    assert measured.folder is not None
    return measured.folder


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


@pytest.mark.integration
def test_the_file_holds_all_that_was_asked_for(result: dict[str, Any]) -> None:
    assert set(result["ood"]) == {"upside down", "texture shuffle", "erased", "out of range"}
    assert result["certificate"]["verdict"] == "none"
    assert [layer["name"] for layer in result["layers"]][-2:] == ["penultimate", "logits"]
    assert set(result["lie"]["logits"]) == {"shift_x", "shift_y", "log_scale", "rotation"}
    assert result["lie"]["settings"]["images"] == 6
    assert result["relative_invariance"]["relative"]["value"] <= 1
    assert result["command"].startswith("augkit.measure.measure(")


@pytest.mark.integration
def test_the_file_holds_what_the_function_returns(measured: MeasureResults, result: dict[str, Any]) -> None:
    assert json.loads(json.dumps(measured.to_dict())) == result
    curve = measured.typical.report.response_curves["length"]
    assert [point["length"] for point in result["response"]] == curve.x
    assert [point["js"]["low"] for point in result["response"]] == [estimate.low for estimate in curve.metrics["js"]]


@pytest.mark.integration
def test_atypical_versions_are_measured_and_not_the_images_again(result: dict[str, Any]) -> None:
    numbers = {name: found["js"]["value"] for name, found in result["ood"].items()} | {"": result["js"]["value"]}
    assert len(set(numbers.values())) == 5


def test_the_page_needs_nothing_else_and_holds_the_numbers(
    folder: Path, measured: MeasureResults, result: dict[str, Any]
) -> None:
    page = (folder / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)", page)
    assert f"{result['js']['value']:.4f}" in page
    assert summary(measured).split(".")[0] in page
    for title in ("Metrics", "Jaggedness", "Lie derivative", "Layer by layer", "Certificate", "Gallery of flips"):
        assert f">{title}</h2>" in page
    assert page.count('<li class="flip">') == len(result["flips"]) > 0
    assert page.count("<svg") == sum(key.startswith("response") for key in result) + 2
    facts = html.unescape(page.rsplit("<pre>", 1)[1].split("</pre>")[0])
    assert json.loads(facts)["settings"] == result["settings"]


@pytest.mark.integration
def test_what_was_not_measured_is_left_out(measured: MeasureResults) -> None:
    small = replace(measured, model="<b>mine</b>", typical=replace(measured.typical, analyses=None), ood=())
    page = measured_page(small, [])
    assert "Certificate" not in page
    assert "<b>mine" not in page
    assert "No image changed its answer" in page


def test_flips_are_drawn_as_the_network_saw_them(result: dict[str, Any]) -> None:
    images = sample(load_dataset("digits").open_test(), 40).images
    protocol = make_protocol("embed", (8, 8), max_shift=3.0, input_size=16)
    flip = {
        "index": 0,
        "label": 3,
        "shifts": [[0.0, 0.0], [2.0, -1.0]],
        "answers": [3, 7],
        "probabilities": [0.9, 0.75],
    }
    (drawn,) = flip_pictures([Flip.from_dict(flip)], images[:1], protocol, [f"digit {k}" for k in range(10)])
    zoom = drawn.pictures[0].width // 16
    for picture, shift in zip(drawn.pictures, flip["shifts"], strict=True):
        seen = Scene(protocol, images[:1] / 255).shift(torch.tensor([shift]))[0, 0]
        shown = np.asarray(picture)[::zoom, ::zoom] / 255
        np.testing.assert_allclose(shown, seen.clamp(0, 1), atol=1 / 255)
    assert drawn.captions == ("as it is: digit 3, 90 %", "x +2.00, y −1.00 px: digit 7, 75 %")
    assert drawn.title == "image 0, is digit 3"


def test_rescaled_flips_and_unknown_classes() -> None:
    protocol = make_protocol("crop", (24, 24), factors=(0.8, 1.25), input_size=16)
    image = torch.rand(1, 3, 24, 24)
    flip = {"index": 5, "label": None, "scales": [1.0, 1.25], "answers": [0, 1], "probabilities": [0.5, 0.5]}
    (drawn,) = flip_pictures([Flip.from_dict(flip)], image, protocol, None)
    assert drawn.captions == ("as it is: class 0, 50 %", "× 1.25: class 1, 50 %")
    zoom = drawn.pictures[0].width // 16
    np.testing.assert_allclose(
        np.asarray(drawn.pictures[0])[::zoom, ::zoom] / 255, image[0, :, 4:20, 4:20].permute(1, 2, 0), atol=1 / 255
    )


def layer(name: str, share: float) -> LayerEquivariance:
    estimates = {"decibels": Estimate(20.0, 19.0, 21.0), "share": Estimate(share, share, share)}
    return LayerEquivariance(name, "Conv2d", shape=(8, 4, 4), stride=(1.0, 1.0), **estimates)


def test_of_a_deep_network_the_layers_that_add_most_are_drawn_in_order() -> None:
    found = [layer(f"l{k}", k / 1000) for k in range(100)] + [layer("last", math.nan)]
    axes = figures.layers(found).axes[0]
    names = [text.get_text().split()[0] for text in axes.get_yticklabels()]
    assert names == [f"l{k}" for k in range(40, 100)]


def test_losses_on_a_terminal_are_the_largest_first() -> None:
    lines = analysis_lines(Analyses(6, layers=[layer("a", 0.1), layer("b", 0.6), layer("c", math.nan)]))
    assert lines == [
        "lost at b (Conv2d): 60 % of the error, 20.0 dB",
        "lost at a (Conv2d): 10 % of the error, 20.0 dB",
    ]
