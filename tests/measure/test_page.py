"""The report of a measurement: numbers, pictures, and results of the analyses."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from augkit.core.cli import run
from augkit.data import load_dataset, sample
from augkit.invariance.flips import Flip
from augkit.invariance.gallery import flip_pictures
from augkit.invariance.protocols import Scene, make_protocol
from augkit.measure import __main__ as measure
from augkit.measure import figures
from augkit.measure.page import measured_page, summary
from augkit.measure.terminal import probe_lines
from augkit.train.loop import fit

ANALYSES = ["--certify", "--layers", "--lie", "--relative", "--probe-images", "6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A measured run with all parts of a report."""
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
    arguments = [str(top / "run"), "--limit", "40", "--ood-builtin", *ANALYSES, "--output", str(top / "out"), "--quiet"]
    assert run(measure.main, arguments) == 0
    return top / "out"


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def test_the_command_writes_all_requested_results(result: dict[str, Any]) -> None:
    assert set(result["ood"]) == {"upside down", "texture shuffle", "erased", "out of range"}
    assert result["certificate"]["verdict"] == "none"
    assert [layer["name"] for layer in result["layers"]][-2:] == ["penultimate", "logits"]
    assert set(result["lie"]["logits"]) == {"shift_x", "shift_y", "log_scale", "rotation"}
    assert result["lie"]["settings"]["images"] == 6
    assert result["relative_invariance"]["relative"]["value"] <= 1
    assert result["command"].startswith("python -m augkit.measure ")


def test_atypical_versions_are_measured_and_not_the_images_again(result: dict[str, Any]) -> None:
    numbers = {name: found["js"]["value"] for name, found in result["ood"].items()} | {"": result["js"]["value"]}
    assert len(set(numbers.values())) == 5


def test_the_page_needs_nothing_else_and_holds_the_numbers(folder: Path, result: dict[str, Any]) -> None:
    page = (folder / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=['\"](?!data:|#)", page)
    assert f"{result['js']['value']:.4f}" in page
    assert summary(result).split(".")[0] in page
    for title in ("Metrics", "Jaggedness", "Lie derivative", "Layer by layer", "Certificate", "Gallery of flips"):
        assert f">{title}</h2>" in page
    assert page.count('<li class="flip">') == len(result["flips"]) > 0
    assert page.count("<svg") == sum(key.startswith("response") for key in result) + 2
    facts = html.unescape(page.rsplit("<pre>", 1)[1].split("</pre>")[0])
    assert json.loads(facts)["settings"] == result["settings"]


def test_metrics_that_were_not_measured_are_omitted(result: dict[str, Any]) -> None:
    small = {k: v for k, v in result.items() if k not in ("certificate", "layers", "lie", "relative_invariance", "ood")}
    page = measured_page({**small, "model": "<b>mine</b>", "flips": []}, [])
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


def layer(name: str, share: float | None) -> dict[str, Any]:
    estimate = {"value": share, "low": share, "high": share}
    return {"name": name, "kind": "Conv2d", "share": estimate, "decibels": {"value": 20.0, "low": 19.0, "high": 21.0}}


def test_of_a_deep_network_the_layers_that_add_most_are_drawn_in_order() -> None:
    found = [layer(f"l{k}", k / 1000) for k in range(100)] + [layer("last", None)]
    axes = figures.layers(found).axes[0]
    names = [text.get_text().split()[0] for text in axes.get_yticklabels()]
    assert names == [f"l{k}" for k in range(40, 100)]


def test_losses_on_a_terminal_are_the_largest_first() -> None:
    lines = probe_lines({"layers": [layer("a", 0.1), layer("b", 0.6), layer("c", None)]})
    assert lines == [
        "lost at b (Conv2d): 60 % of the error, 20.0 dB",
        "lost at a (Conv2d): 10 % of the error, 20.0 dB",
    ]
