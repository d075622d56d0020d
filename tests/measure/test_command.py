"""``python -m augkit.measure``: flags, folder, interrupts, and one line for bad input."""

from __future__ import annotations

import json
import re
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import augkit.measure
from augkit.core.cli import run
from augkit.core.errors import InputError
from augkit.measure import MeasureSettings
from augkit.measure import __main__ as measure

NETS = """
import signal
from pathlib import Path
import torch
from torch import nn

def make(channels=1, classes=10):
    torch.manual_seed(1)
    pooled = (nn.Conv2d(channels, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*pooled, nn.Linear(4, classes))

def color(): return make(3)
def two(): return make(2)
def hundred(): return make(1, 100)
def five(): return make(1, 5)
def one(): return make(1, 1)
def stops():
    net, seen = make(), [0]
    def stop(*_):
        seen[0] += 1
        if seen[0] == 32 and Path("stop").exists():
            signal.raise_signal(signal.SIGINT)
    net.register_forward_hook(stop)
    return net
def features(): return nn.Identity()
def nan():
    net = make()
    nn.init.constant_(net[-1].bias, float("nan"))
    return net
"""


@pytest.fixture(autouse=True)
def _nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_measure.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets_of_measure", None)


def call(words: str) -> int:
    model, *rest = words.split()
    return run(measure.main, [f"nets_of_measure:{model}", "--data", "digits", *rest, "--quiet"])


def results(capsys: pytest.CaptureFixture[str], words: str) -> dict[str, Any]:
    assert call(f"{words} --json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_default_run_has_every_metric_and_curve_and_writes_a_new_folder(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "make --max-shift 2 --limit 40")
    folder = Path(found["folder"])
    assert folder.parent == Path("runs")
    assert {path.name for path in folder.iterdir()} == {
        "results.json",
        "environment.json",
        "measurement.pt",
        "report.html",
    }
    assert json.loads((folder / "results.json").read_text()) == found
    metrics = ("top1_change", "consistency", "mac", "js", "kappa", "worst_case", "jaggedness", "logit_change_max")
    for name in (*metrics, "accuracy", "shifted_accuracy", "worst_accuracy", "blur_matched_js", "blur_only_js"):
        assert set(found[name]) == {"value", "low", "high"}, name
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"], name
    assert [point["length"] for point in found["response"]] == pytest.approx([k / 3 for k in range(1, 7)])
    assert [point["fraction"] for point in found["response_fraction"]] == [0, 0.125, 0.25, 0.375, 0.5]
    assert len(found["response_direction"]) == 8
    assert set(found["response"][0]) == {"length", "js", "top1_change", "accuracy"}
    assert sum(row["share"]["value"] for row in found["jaggedness_distribution"]) == pytest.approx(1)
    assert found["settings"]["precision"] == "float32"
    for flip in found["flips"]:
        assert set(flip) == {"index", "label", "shifts", "answers", "probabilities"}
        assert flip["answers"][0] != flip["answers"][1]
    sure = [min(flip["probabilities"]) for flip in found["flips"]]
    assert sure == sorted(sure, reverse=True)


@pytest.mark.integration
def test_flags_choose_what_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    one = results(capsys, "make --shift=-1,0.5 --limit 30")
    assert one["settings"]["views"] == 2
    assert one["settings"]["plan"]["pairs"]["step"] == [-1.0, 0.5]
    scale = results(capsys, "make --axis scale --max-scale 1.2 --limit 30")
    assert len(scale["response_scale"]) == 9
    assert scale["flips"] == [] or "scales" in scale["flips"][0]
    few = results(capsys, "make --max-shift 1 --pairs 2 --no-curves --grid 0.5 --limit 30")
    assert few["settings"]["views"] == 1 + 4 + 24
    assert "response" not in few
    extent = results(capsys, "make --max-shift 2 --pairs 1 --no-curves --grid 1,1 --limit 30")
    assert extent["settings"]["views"] == 1 + 2 + 8
    preset = results(capsys, "make --preset michaeli2023 --pairs 2 --limit 30")
    assert preset["preset"]["name"] == "michaeli2023"
    assert (preset["settings"]["protocol"], preset["settings"]["pairs"]) == ("circular", 2)
    embed = results(capsys, "make --protocol embed --background blur --max-shift 1 --no-curves --limit 30")
    assert embed["settings"]["background"] == "blur"
    half = results(capsys, "make --max-shift 1 --no-curves --precision bf16 --limit 30")
    assert half["settings"]["precision"] == "bf16"


def test_other_images_are_reported_beside_and_gray_ones_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    for k in range(20):
        path = Path(f"other/{'ab'[k % 2]}/{k}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (10, 10), dtype=np.uint8)).save(path)
    words = ["nets_of_measure:color", "--data", "digits", "--ood", "folder:other", "--max-shift", "1", "--limit", "30"]
    assert run(measure.main, [*words, "--no-curves", "--output", "out"]) == 0
    out = capsys.readouterr()
    assert "gray images, 1 repeated to 3 channels" in out.err
    assert "folder:other" in out.out
    found = json.loads(Path("out/results.json").read_text())
    assert found["settings"]["channels"] == "1 repeated to 3"
    assert found["ood"]["folder:other"]["settings"]["input_size"] == found["settings"]["input_size"]
    assert found["ood"]["folder:other"]["js"]["value"] != found["js"]["value"]


def test_accuracy_is_omitted_with_a_note_for_a_network_of_more_classes(capsys: pytest.CaptureFixture[str]) -> None:
    found = results(capsys, "hundred --max-shift 1 --no-curves --limit 30")
    assert "accuracy" not in found
    assert found["settings"]["notes"] == [
        "accuracy is left out, the model has 100 classes and the data 10; --labels FILE maps them",
    ]


def test_output_is_never_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    words = "make --max-shift 1 --no-curves --limit 20 --output out"
    assert call(words) == 0
    first = Path("out/results.json").read_text()
    assert call(words) == 2
    assert "add --resume to go on" in capsys.readouterr().err
    assert Path("out/results.json").read_text() == first
    assert call(f"{words} --overwrite --seed 1") == 0
    assert Path("out/results.json").read_text() != first


def test_an_interrupted_and_resumed_measurement_gives_the_same_bits(capsys: pytest.CaptureFixture[str]) -> None:
    """A real Ctrl-C in the middle, then the very line that it printed."""
    words = ["nets_of_measure:stops", "--data", "digits", "--max-shift", "1", "--no-curves", "--batch-size", "16"]
    words += ["--limit", "200", "--quiet"]
    assert run(measure.main, [*words, "--output", "through"]) == 0
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    Path("stop").touch()
    try:
        assert run(measure.main, [*words, "--output", "a folder"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
        Path("stop").unlink()
    line = capsys.readouterr().err.strip().splitlines()[-1].strip()
    assert line.startswith("python -m augkit.measure nets_of_measure:stops")
    assert torch.load("a folder/measurement.pt", weights_only=True)["tally"]["columns"]["top1"].shape == (48, 9)
    assert not Path("a folder/results.json").exists()
    again = shlex.split(line)[3:]
    assert run(measure.main, again) == 0
    through, resumed = (json.loads(Path(f"{name}/results.json").read_text()) for name in ("through", "a folder"))
    said = {"folder": "", "command": "", "environment": {}}
    assert {**through, **said} == {**resumed, **said}
    capsys.readouterr()
    assert run(measure.main, [*again, "--seed", "3"]) == 2
    assert "another network, plan" in capsys.readouterr().err


def test_function_and_command_give_the_same_json(capsys: pytest.CaptureFixture[str]) -> None:
    flags = "--max-shift 1 --no-curves --limit 30 --ood-builtin --certify --lie --probe-images 4"
    printed = results(capsys, f"make {flags}")
    settings = MeasureSettings(
        max_shift=1.0, curves=False, limit=30, ood_builtin=True, certify=True, lie=True, probe_images=4
    )
    found = augkit.measure.measure("nets_of_measure:make", "digits", settings, output="out")
    assert found.to_dict() == {**printed, "folder": "out", "command": found.command}
    assert json.loads(Path("out/results.json").read_text()) == found.to_dict()
    assert found.typical.analyses is not None
    assert found.typical.analyses.images == 4
    assert found.typical.report.metrics["js"].to_dict() == printed["js"]
    assert capsys.readouterr() == ("", "")


def test_without_an_output_the_function_writes_nothing(tmp_path: Path) -> None:
    before = {*tmp_path.iterdir()}
    found = augkit.measure.measure("nets_of_measure:make", "digits", MeasureSettings(shift=(1.0, 0.0), limit=30))
    assert found.folder is None
    assert found.to_dict()["folder"] is None
    assert found.command == (
        "augkit.measure.measure('nets_of_measure:make', 'digits', MeasureSettings(limit=30, shift=(1.0, 0.0)))"
    )
    assert {path for path in tmp_path.iterdir() if path.name != "__pycache__"} == before


def test_settings_of_the_function_are_checked_like_flags() -> None:
    for settings, message in (
        (MeasureSettings(strict=False), "expected --weights FILE"),
        (MeasureSettings(split="train"), "unknown split 'train'"),
        (MeasureSettings(preset="zhang2019", curves=False), "fixes --no-curves"),
        (MeasureSettings(shift=(1.0, 0.0), grid=(1.0,)), "leave out --grid"),
    ):
        with pytest.raises(InputError, match=message):
            augkit.measure.measure("nets_of_measure:make", "digits", settings)
    with pytest.raises(InputError, match="expected --output DIR"):
        augkit.measure.measure("nets_of_measure:make", "digits", resume=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("features --max-shift 1 --output-kind logits", r"expected logits \(1, K\), got \(1, 1, 6, 6\)"),
        ("one --max-shift 1", "at least 2 classes, got 1"),
        ("five --max-shift 1", "'digits' has 10 classes, the model 5"),
        ("two --max-shift 1", "the model expects 2 channels, the images have 1"),
        ("make --max-shift 1 --input-size 9", "expects at most the images' 8 x 8 pixels, got 9 x 9"),
        ("make --max-shift 2 --input-size 6", "margin of 1 pixels, got 2"),
        ("make --max-shift 8", "leaves no window"),
        ("make --preset chaman", "unknown preset 'chaman': did you mean 'chaman2021'"),
        ("make --preset zhang2019 --max-shift 3", "fixes --max-shift"),
        ("make --preset zhang2019", "leaves no window"),
        ("make --protocol roll", "unknown protocol 'roll'"),
        ("make --axis zoom", "unknown axis 'zoom'"),
        ("make --axis scale --max-shift 2", "belongs to the other --axis"),
        ("make --axis scale --max-scale 0.5", "factor above 1"),
        ("make --axis scale --max-scale 0.5 --no-curves", "max_scale: expected a factor above 1, got 0.5"),
        ("make --axis scale --max-scale 1 --no-curves", "max_scale: expected a factor above 1, got 1"),
        ("make --axis scale --protocol circular", "torus cannot be rescaled"),
        ("make --shift=1,2 --pairs 3", "leave out --pairs"),
        ("make --shift=1", "expected X,Y in pixels"),
        ("make --grid 0", "expected STEP"),
        ("make --max-shift 1 --grid 5,1", "--grid: expected STEP,EXTENT with an extent of at least the step, got 5,1"),
        ("make --max-shift 1 --grid 8", "--grid: expected STEP,EXTENT with an extent of at least the step, got 8,1"),
        ("make --max-shift 1 --mean 0.5 --std 0.5 0.5", "as many values"),
        ("make --max-shift 1 --mean 0.5 0.5 --std 0.5 0.5", "expected 1 values each, got 2"),
        ("make --max-shift 1 --mean nan --std 0.5", "mean: expected finite values, got nan"),
        ("make --max-shift 1 --mean 0 --std inf", "std: expected values above 0, got inf"),
        ("make --max-shift 1 --precision half", "unknown precision 'half'"),
        ("make --max-shift 1 --background white --protocol embed", "unknown background"),
        ("make --max-shift 1 --background mean", "--background: it belongs to --protocol embed, got 'crop'"),
        ("make --max-shift 1 --crop-share 2", "--crop-share: expected a number above 0 and at most 1, got 2.0"),
        ("make --max-shift 1 --decode-size 8", "--decode-size: expected --image-size with it, got none"),
        ("make --max-shift 1 --decode-size 8 --image-size 9", "--decode-size: expected at least image_size"),
        ("make --max-shift 1 --ood digits", "other images"),
        ("make --resume", "expected --output DIR"),
        ("make --max-shift 1 --resume --output nothing", "holds no measurement"),
        ("nan --max-shift 1", "finite logits"),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing_behind(
    words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = {path.name for path in tmp_path.iterdir()} | {"__pycache__"}
    assert call(words) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("augkit: error: ")
    assert out.err.count("\n") == 1
    assert re.search(message, out.err), out.err
    assert {path.name for path in tmp_path.iterdir()} <= before
