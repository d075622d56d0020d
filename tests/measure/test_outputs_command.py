"""``python -m augkit.measure`` on outputs other than logits: recognition, files, page, one line for bad input."""

from __future__ import annotations

import html
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import augkit
import augkit.measure
from augkit.core.cli import run
from augkit.data import load_dataset
from augkit.invariance.outputs import output_lie_derivative
from augkit.invariance.protocols import Scene, make_protocol
from augkit.measure import MeasureSettings, OutputResults
from augkit.measure import __main__ as measure
from augkit.measure.terminal import text_of

NETS = """
import torch
from torch import nn

def segmenter():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.Upsample(scale_factor=2))
def autoencoder():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.PixelShuffle(2))
def embedder():
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
def color():
    torch.manual_seed(1)
    return nn.Conv2d(3, 3, 3, padding=1)
def tokens(): return nn.Flatten(2)
class Points(nn.Module):
    def forward(self, images): return images.flatten(1)[:, :6].unflatten(1, (3, 2))
class Boxes(nn.Module):
    def forward(self, images):
        one = torch.ones(1)
        return [{"boxes": torch.tensor([[1.0, 1, 4, 4]]), "scores": one, "labels": one} for _ in images]
def points(): return Points()
def boxes(): return Boxes()
"""


@pytest.fixture(autouse=True)
def _nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_outputs.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets_of_outputs", None)


def call(words: str) -> int:
    model, *rest = words.split()
    return run(measure.main, [f"nets_of_outputs:{model}", "--data", "digits", "--limit", "12", *rest, "--quiet"])


def results(capsys: pytest.CaptureFixture[str], words: str) -> dict[str, Any]:
    assert call(f"{words} --json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_map_is_recognized_and_its_numbers_stand_under_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "segmenter --max-shift 2 --output out")
    assert found["kind"] == "map"
    for name in ("equivariance_error", "pixel_top1_change", "miou_consistency", "shift_information", "decibels"):
        assert set(found[name]) == {"value", "low", "high"}
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
    assert found["settings"]["of_kind"]["upsampling"] == "nearest"
    assert found["settings"]["quantum"] == 1.0
    assert "upsampling" in found["notes"][0]
    files = {"results.json", "environment.json", "report.html", "measurement.pt"}
    assert {path.name for path in Path("out").iterdir()} == files
    assert json.loads(Path("out/results.json").read_text()) == found


def test_the_page_shows_numbers_curves_and_the_worst_cases(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("segmenter --max-shift 2 --output out") == 0
    shown = capsys.readouterr().out
    found = json.loads(Path("out/results.json").read_text())
    page = html.unescape(Path("out/report.html").read_text())
    text = re.sub(r"<[^>]+>", " ", page)
    for name in ("equivariance_error", "pixel_top1_change"):
        assert f"{found[name]['value']:.4f}" in text
        assert f"{found[name]['value']:.4f}" in shown
    for title in ("By fraction of the network's stride", "By distance to a class boundary", "Worst cases"):
        assert title in text
    assert page.count('<li class="case">') == min(12, len(found["worst"])) > 0
    assert page.count("data:image/png") == 3 * page.count('<li class="case">')
    assert "http" not in re.sub(r"http://www\.w3\.org[^\"]*", "", page)


@pytest.mark.integration
def test_images_and_named_embeddings_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "autoencoder --max-shift 2 --protocol embed --map-kernel bilinear --border 1")
    assert found["kind"] == "image"
    assert found["psnr"]["value"] > 0
    assert found["settings"]["of_kind"]["map_kernel"] == "bilinear"
    found = results(capsys, "embedder --max-shift 1 --output-kind embedding --neighbors 3 --quantum 0 --pairs 2")
    assert found["kind"] == "embedding"
    assert {"cosine", "neighbour_change", "knn_change", "knn_accuracy"} <= set(found)
    assert found["settings"]["of_kind"]["neighbors"] == 3
    assert (found["settings"]["quantum"], found["settings"]["pairs"]) == (None, 2)


def test_an_output_of_two_dimensions_is_logits_unless_named(capsys: pytest.CaptureFixture[str]) -> None:
    """The embedder has fewer outputs than the digits have classes, which only logits mind."""
    assert call("embedder --max-shift 1") == 2
    assert "the model 4; they do not match" in capsys.readouterr().err


@pytest.mark.integration
def test_other_images_stand_beside_and_gray_ones_are_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "color --max-shift 1 --ood-builtin")
    assert found["kind"] == "image"
    assert found["settings"]["channels"] == "1 repeated to 3"
    assert set(found["ood"]) >= {"upside down", "erased"}
    assert found["ood"]["erased"]["equivariance_error"]["value"] != found["equivariance_error"]["value"]


@pytest.mark.integration
def test_layers_of_maps_and_analyses_of_embeddings(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("segmenter --max-shift 2 --layers --probe-images 4 --output out") == 0
    assert "least equivariant: 0 (Conv2d)" in capsys.readouterr().out
    found = json.loads(Path("out/results.json").read_text())
    assert [layer["name"] for layer in found["layers"]] == ["0", "1", "2", "3"]
    assert "Layer by layer" in Path("out/report.html").read_text()
    words = "embedder --max-shift 1 --output-kind embedding --layers --certify --lie --probe-images 4"
    found = results(capsys, words)
    assert found["layers"][-1]["name"] == "logits"
    assert found["certificate"]["verdict"] == "none"
    assert set(found["lie"]["relative"]) == {"shift_x", "shift_y", "log_scale", "rotation"}


@pytest.mark.integration
def test_the_lie_derivative_of_a_map_is_that_of_python(capsys: pytest.CaptureFixture[str]) -> None:
    words = "segmenter --max-shift 2 --protocol embed --lie --border 2 --limit 12 --probe-images 12"
    assert call(f"{words} --output out") == 0
    shown = capsys.readouterr().out
    found = json.loads(Path("out/results.json").read_text())
    images = load_dataset("digits").open_test(12, seed=0).images
    canvas = make_protocol("embed", (8, 8), max_shift=2.0)
    inputs = Scene(canvas, images.float() / 255).unshifted()
    network = importlib.import_module("nets_of_outputs").segmenter()
    wanted = output_lie_derivative(network, inputs, output="map", border=2.0)
    assert found["lie"] == json.loads(json.dumps(wanted.to_dict()))
    value = text_of(wanted.relative["shift_x"])
    assert f"of the map, relative to its variance, per pixel: shift_x {value}" in " ".join(shown.split())
    page = html.unescape(Path("out/report.html").read_text())
    assert "Lie derivative" in page
    assert value.split()[0] in page


@pytest.mark.integration
def test_images_are_rescaled_where_asked(capsys: pytest.CaptureFixture[str]) -> None:
    words = "segmenter --protocol embed --input-size 12 --axis scale --max-scale 1.4 --map-kernel bilinear --layers"
    assert call(f"{words} --probe-images 4 --output out") == 0
    assert "factors up to 1.4" in " ".join(capsys.readouterr().out.split())
    found = json.loads(Path("out/results.json").read_text())
    assert (found["settings"]["axis"], found["settings"]["max_scale"]) == ("scale", 1.4)
    report = augkit.measure_outputs(
        importlib.import_module("nets_of_outputs").segmenter(),
        load_dataset("digits").open_test(12, seed=0).images,
        protocol="embed",
        input_size=12,
        axis="scale",
        max_scale=1.4,
        map_kernel="bilinear",
    )
    assert found["equivariance_error"]["value"] == pytest.approx(report.equivariance_error.value)
    page = html.unescape(Path("out/report.html").read_text())
    assert "By factor" in page
    assert "× " in page


def test_one_displacement_is_compared_with_none(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "segmenter --shift=1,-2")
    assert found["worst"][0]["shifts"] == [[0.0, 0.0], [1.0, -2.0]]
    assert (found["settings"]["views"], found["settings"]["max_shift"]) == (2, 2.0)
    assert call("segmenter --shift=1,-2") == 0
    assert "one shift by (1, -2) px" in " ".join(capsys.readouterr().out.split())


@pytest.mark.integration
def test_the_certificate_of_a_map_names_what_prevents_it(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "segmenter --max-shift 2 --certify --output out")["certificate"]
    assert (found["verdict"], found["layer"], found["type"]) == ("none", "0", "Conv2d")
    assert "zero padding" in found["reason"]
    assert found["text"].splitlines()[0] in html.unescape(Path("out/report.html").read_text())


def test_python_returns_what_the_command_writes() -> None:
    settings = MeasureSettings(max_shift=2.0, limit=12)
    found = augkit.measure.measure("nets_of_outputs:segmenter", "digits", settings, output="out")
    assert isinstance(found, OutputResults)
    assert found.typical.report.kind == "map"
    assert json.loads(Path("out/results.json").read_text()) == json.loads(json.dumps(found.to_dict()))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("segmenter --max-shift 2 --output-kind mpa", "unknown output kind 'mpa': did you mean 'map'"),
        ("segmenter --max-shift 2 --relative", "--relative: it belongs to logits, got outputs of kind 'map'"),
        ("segmenter --max-shift 2 --grid 1", "--grid: it belongs to logits, got outputs of kind 'map'"),
        ("segmenter --max-shift 2 --axis scale", "--max-shift: it belongs to the other --axis, got --axis scale"),
        ("segmenter --axis scale --quantum 0", "--quantum: it belongs to the other --axis, got --axis scale"),
        ("segmenter --max-scale 1.5", "--max-scale: it belongs to the other --axis, got --axis shift"),
        ("segmenter --axis scale --max-scale 0.5", "max_scale: expected a factor above 1, got 0.5"),
        ("segmenter --axis scale --protocol circular", "a torus cannot be rescaled; expected 'crop' or 'embed'"),
        ("segmenter --axis scale --input-size 5", "expected a map whose size divides its input's"),
        ("segmenter --axis scale --max-scale 30", "a factor of 0.0333 leaves no window in images of 8 x 8 pixels"),
        (
            "tokens --max-shift 2",
            "expected a known output, got tokens (1, 1, 16); wrap it so that it gives",
        ),
        ("segmenter --axis rotation", "unknown axis 'rotation'"),
        ("segmenter --shift=1,0 --quantum 1", "--shift is one displacement against none: leave out --quantum"),
        ("points --lie --max-shift 1", "--lie: outputs of kind 'keypoints' have none; most networks read"),
        ("boxes --lie --max-shift 1", "--lie: outputs of kind 'detections' have none; boxes come and go"),
        ("embedder --max-shift 1 --border 2", "--border: it belongs to other outputs than logits"),
        ("embedder --max-shift 1 --output-kind embedding --border 2", "border: it belongs to outputs of kind"),
        ("embedder --max-shift 1 --output-kind embedding --neighbors 40", "gallery: expected at least 40 images"),
        ("segmenter --max-shift 2 --map-kernel sinus", "unknown map_kernel 'sinus'"),
        ("tokens --max-shift 2 --output-kind embedding", r"expected embeddings (B, D), got tokens"),
        ("segmenter --max-shift 2 --resume --output out", "--resume"),
        ("segmenter --max-shift 2 --quantum -1", "--quantum"),
        ("segmenter --max-shift 0.5", "--max-shift: expected at least the quantum of 1 pixels, got less"),
        ("segmenter --max-shift 2 --quantum 3", "--max-shift: expected at least the quantum of 3 pixels, got less"),
    ],
)
def test_bad_input_gets_one_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = call(words)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
    assert not Path("out").exists()


def test_a_gallery_and_class_embeddings_come_from_data_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("classes.npy", np.eye(10, 4, dtype=np.float32) + 0.1)
    torch.save(torch.from_numpy(np.load("classes.npy")), "classes.pt")
    words = "embedder --output-kind embedding --max-shift 2 --output"
    own = results(capsys, f"{words} own")
    found = results(capsys, f"{words} npy --gallery digits --class-embeddings classes.npy")
    assert found["settings"]["of_kind"]["gallery"] == 12 == own["settings"]["of_kind"]["gallery"]
    assert found["neighbour_change"] != own["neighbour_change"], "an image may be its own neighbor there"
    images = load_dataset("digits").open_test(12, seed=0)
    report = augkit.measure_outputs(
        importlib.import_module("nets_of_outputs").embedder(),
        images.images,
        output="embedding",
        targets=images.labels,
        max_shift=2.0,
        gallery=images.images,
        gallery_labels=images.labels,
        class_embeddings=torch.load("classes.pt"),
    )
    for name in ("neighbour_change", "knn_change", "zero_shot_change"):
        assert found[name]["value"] == pytest.approx(getattr(report, name).value), name
    assert 0 <= found["zero_shot_change"]["value"] <= 1
    assert "zero_shot_change" not in own or own["zero_shot_change"]["value"] is None
    again = results(capsys, f"{words} pt --gallery digits --class-embeddings classes.pt")
    assert again["zero_shot_change"] == found["zero_shot_change"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("embedder --output-kind embedding --class-embeddings none.npy", "'none.npy' cannot be read"),
        ("embedder --output-kind embedding --class-embeddings words.npy", "expected floats (K, D) in 'words.npy'"),
        ("embedder --output-kind embedding --class-embeddings nets_of_outputs.py", "cannot be read"),
        ("embedder --output-kind embedding --gallery nowhere", "nowhere"),
        ("embedder --gallery digits", "--gallery: it belongs to other outputs than logits"),
        ("segmenter --gallery digits", "gallery: it belongs to outputs of kind 'embedding'"),
    ],
)
def test_a_gallery_or_a_file_that_does_not_fit_is_one_line(
    words: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save("words.npy", np.arange(6))
    assert call(f"{words} --max-shift 2 --output out") == 2
    said = capsys.readouterr().err.strip()
    assert line in said
    assert len(said.splitlines()) == 1
    assert not Path("out").exists()


def test_an_output_that_does_not_fit_is_refused_before_results_are_replaced(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call("embedder --output-kind embedding --max-shift 2 --output out") == 0
    kept = Path("out/results.json").read_text()
    capsys.readouterr()
    for kind in ("keypoints", "map", "image", "detections"):
        assert call(f"embedder --output-kind {kind} --max-shift 2 --output out --overwrite") == 2, kind
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        assert Path("out/results.json").read_text() == kept
