"""The commands from the command line: what they write, print and refuse."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

from augkit.compare import __main__ as compare
from augkit.core import cli
from augkit.core.cli import run
from augkit.core.errors import InputError
from augkit.data import Dataset
from augkit.measure import __main__ as measure
from augkit.preview import __main__ as preview
from augkit.train import __main__ as train
from augkit.tune import __main__ as tune

COMMANDS = {"train": train, "measure": measure, "compare": compare, "tune": tune, "preview": preview}


def call(name: str, *words: str) -> int:
    return run(COMMANDS[name].main, list(words))


@pytest.mark.integration
def test_train_then_measure(tiny_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    assert call("train", tiny_file, "train.epochs=1", "--output", folder, "--json") == 0
    out = capsys.readouterr()
    assert json.loads(out.out)["epoch"] == 1
    assert "epoch   1/1" in out.err
    assert call("measure", folder, "--limit", "60", "--json", "--quiet", "--output", str(tmp_path / "m")) == 0
    out = capsys.readouterr()
    result = json.loads(out.out)
    assert out.err == ""
    assert result["js"]["low"] <= result["js"]["value"] <= result["js"]["high"]
    assert result["settings"]["protocol"] == "embed"
    assert result["settings"]["images"] == 60
    assert json.loads((tmp_path / "m" / "results.json").read_text()) == result
    assert call("measure", folder, "--limit", "60", "--quiet", "--output", str(tmp_path / "again")) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("On 60 images the top-1 answer differs between two shifts of up to 3 px")
    assert max(map(len, shown.partition("report: ")[0].splitlines())) <= 80
    for text in (f"{result['top1_change']['value']:.4f}", "shift information", "--full has all metrics"):
        assert text in " ".join(shown.split())
    assert "mean absolute change" not in shown
    assert call("measure", folder, "--limit", "60", "--quiet", "--full", "--output", str(tmp_path / "full")) == 0
    shown = capsys.readouterr().out
    for text in ("mean absolute change", "shift of this length, pixels", "shift in this direction"):
        assert text in shown


@pytest.mark.integration
def test_measure_takes_networks_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    (tmp_path / "mynet.py").write_text(
        "from torch import nn\n"
        "def make():\n    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 10))\n"
        "def number():\n    return 3\n"
        "def fails():\n    raise OSError('no disk')\n"
    )
    monkeypatch.chdir(tmp_path)
    arguments = ["--data", "digits", "--max-shift", "1", "--json", "--quiet"]
    assert call("measure", "mynet:make", *arguments) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["protocol"] == "crop"
    from mynet import make  # type: ignore[import-not-found]

    torch.save(make().state_dict(), tmp_path / "weights.pt")
    assert call("measure", "mynet:make", "--weights", "weights.pt", *arguments) == 0
    capsys.readouterr()
    for model, message in (("mynet:number", "got int"), ("mynet:fails", "no disk"), ("mynet:none", "no attribute")):
        assert call("measure", model, *arguments) == 2
        assert message in capsys.readouterr().err
    torch.save({"0.weight": torch.zeros(1)}, tmp_path / "other.pt")
    assert call("measure", "mynet:make", "--weights", "other.pt", *arguments) == 2
    assert "do not fit the network" in capsys.readouterr().err


@pytest.mark.integration
def test_compare_gives_a_paired_table(
    tiny_file: str, tmp_path: Path, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [tiny_file, "train.epochs=1", "--seeds", "2", "--output", str(tmp_path / "c"), "--quiet"]
    assert call("compare", *words) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny: On ")
    assert f"tiny: On {len(digits.open_test())} typical test images and 2 training seeds" in " ".join(out.split())
    assert max(map(len, out.partition("written to ")[0].splitlines())) <= 80
    result = json.loads((tmp_path / "c" / "results.json").read_text())
    rows = {(row["arm"], row["images"]): row for row in result["table"]}
    assert {images for _, images in rows} == {"typical", "another hand", "upside down", "photographs"}
    assert rows["tiny-control", "typical"]["learned_invariance"] is None
    assert rows["tiny", "photographs"]["accuracy"] is None
    assert set(rows["tiny", "typical"]["learned_invariance"]) == {"value", "low", "high"}
    before = (tmp_path / "c" / "tiny-seed1" / "checkpoint.pt").stat().st_mtime_ns
    assert call("compare", *words, "--resume", "--json") == 0
    assert (tmp_path / "c" / "tiny-seed1" / "checkpoint.pt").stat().st_mtime_ns == before
    assert json.loads(capsys.readouterr().out)["table"] == result["table"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tune --objective accuracy", "expects --at-least-invariance, got none"),
        ("tune --at-least-accuracy 0.9", "expects no bound, got --at-least-accuracy"),
        ("tune --objective invariance --at-least-accuracy 1.5", "a share between 0 and 1, got '1.5'"),
        ("tune --objective accuracy --at-least-invariance 0.5 --atypical", "--atypical: expected --objective pareto"),
        ("tune --workers 2 --storage sqlite:///s.db", "SQLite with several workers runs trials twice"),
        ("tune --grace -5", "expected a number above 0, got '-5'"),
        ("tune --retries -1", "at least 0, got -1"),
        ("tune --launcher ray --gpus-per-worker -1", "expected a number above 0, got '-1'"),
        ("tune --launcher ray", "expected --storage with a URL"),
        ("tune --show nowhere", "expected a folder of augkit.tune"),
        ("train mnist5k optim.lr={search:[0,1]}", "optim.lr is a range, for augkit.tune to search"),
        ("tune --trials 0", "--trials: expected an integer of at least 1, got 0"),
        ("tune --trials x", "expected an integer, got 'x'"),
        ("tune --resume", "expected --output DIR"),
        ("tune --bogus", "unrecognized arguments: --bogus"),
        ("tune nothing.yaml", "no such file"),
        ("tune polcy.x=1", "did you mean 'policy'"),
        ("tune data.name=minst", "unknown dataset 'minst': did you mean 'mnist'"),
        ("tune mnist5k policy.kernel=fourier", "kernel 'fourier' expects padding 'circular'"),
        ("tune mnist5k invariance.max_shift=9", "margin of 6 pixels, got 9"),
        (
            "compare mnist5k model.name=vgg13 data.canvas=32 invariance.protocol=crop",
            r"it fails on images \(2, 1, 20, 20\)",
        ),
        ("compare mnist5k invariance.max_shift=9", "margin of 6 pixels, got 9"),
        ("measure torchvision:resnet18 --data digits --max-shift 1 --mean 0 --std 0", "std: expected values above 0"),
        ("train", "expected one recipe"),
        ("train mnist5k policy.strength=1.5", "policy.strength: expected less than or equal to 1, got 1.5"),
        ("train mnist5k --device tpu9", "device 'tpu9': cannot be used here"),
        ("train mnist5k --seed -1", "at least 0"),
        ("compare", "expected a recipe or several"),
        ("compare nowhere.json", "'nowhere.json': expected results.json of a study, there is no such file"),
        ("compare nowhere.json neither.json", "'nowhere.json': .*there is no such file"),
        ("compare nowhere/ neither/", "recipe 'nowhere/': no such file"),
        ("train nowhere.yaml", "recipe 'nowhere.yaml': no such file"),
        ("preview nowhere.yaml", "recipe 'nowhere.yaml': no such file"),
        ("compare mnist5k mnist5k", "different names"),
        ("compare mnist5k constraint.learned_invariance=0.6", r"constraint: expected no policy\.shift"),
        ("compare invariance --log wandb", "--log: expected recipes, whose runs trackers record, got invariance"),
        ("train mnist5k --log wandv", "unknown tracker 'wandv': did you mean 'wandb'"),
        ("compare mnist5k fashion-mnist", "same 'data'"),
        ("measure nowhere", "there is no such file or folder"),
        ("measure torchvision:resnet19 --data digits", "did you mean 'resnet18'"),
        ("measure torchvision:resnet18 --data digits --weights nowhere.pt", "weights 'nowhere.pt': no such file"),
        (
            "measure torchvision:resnet18 --data digits --labels nowhere.txt",
            "labels file 'nowhere.txt': No such file or directory; expected names one a line",
        ),
        ("measure torchvision:resnet18", "--data: expected a dataset"),
        ("measure torchvision:resnet18 --data folder:/nowhere", "there is none"),
        (
            "measure torchvision:resnet18 --data digits --max-shift 1 --mean 0 0 --std 1 1",
            "expected 3 values each, got 2",
        ),
        ("measure json:loads --data digits", "calling it failed"),
        ("measure no.such:thing --data digits", "cannot be imported"),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(
    words: str, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    name, *arguments = words.split()
    assert call(name, *arguments, "--quiet") == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("augkit: error: ")
    assert out.err.count("\n") == 1
    import re

    assert re.search(message, out.err)
    assert list(tmp_path.iterdir()) == [], "nothing may be left behind"


@pytest.mark.parametrize("command", ["train", "compare", "tune"])
def test_overwrite_never_deletes_the_weights_that_a_recipe_begins_with(
    command: str, tiny_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    assert call("train", tiny_file, "train.epochs=1", "--output", str(folder), "--quiet") == 0
    before = (folder / "checkpoint.pt").read_bytes()
    words = [tiny_file, f"model.weights={folder / 'checkpoint.pt'}", "--output", str(folder), "--overwrite", "--quiet"]
    capsys.readouterr()
    assert call(command, *words) == 2
    assert "--overwrite would delete" in capsys.readouterr().err
    assert (folder / "checkpoint.pt").read_bytes() == before


def test_overwrite_never_deletes_the_files_that_a_command_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Recipes, finished studies, and the data of a study's arms."""
    folder = tmp_path / "out"
    (folder / "images").mkdir(parents=True)
    (folder / "environment.json").write_text("{}")  # the mark of a folder that augkit wrote
    (folder / "mine.yaml").write_text("name: mine\ndata: {name: mnist5k}")
    part = {"label": "a", "statistic": "probe", "unit": "1", "effect": dict.fromkeys(("value", "low", "high"), 1)}
    (folder / "results.json").write_text(json.dumps({"claims": [{"id": 1, "parts": [part]}]}))
    other = tmp_path / "other.json"
    other.write_text((folder / "results.json").read_text())
    study = {"name": "s", "recipe": "mnist5k", "architectures": {"a": {}}, "arms": [{"architecture": "a"}]}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    for words in (
        ["train", str(folder / "mine.yaml")],
        ["compare", str(folder / "mine.yaml"), "train.epochs=1"],
        ["compare", str(folder / "results.json"), str(other)],
        ["compare", str(tmp_path / "study.yaml"), f"data.name=folder:{folder / 'images'}"],
        ["tune", str(folder / "mine.yaml")],
        ["tune", "mnist5k", "--from", str(folder)],
    ):
        assert call(*words, "--output", str(folder), "--overwrite", "--quiet") == 2
        assert "--overwrite would delete" in capsys.readouterr().err, words
    assert len(list(folder.iterdir())) == 4


def test_failed_runs_exit_with_1(tiny_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", tiny_file, "optim.lr=1e30", "--output", str(tmp_path / "run"), "--quiet") == 1
    assert "the loss is" in capsys.readouterr().err


def test_outputs_that_exist_are_left_alone(tiny_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    for words in (["train", tiny_file], ["tune", tiny_file], ["compare", tiny_file, "mnist5k"]):
        assert call(*words, "--output", str(tmp_path / "full"), "--quiet") == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["file"]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_has_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        COMMANDS[name].main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"example:\n  python -m augkit.{name}" in out
    assert "--json" in out


def test_schema_is_json_with_descriptions(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", "--schema") == 0
    schema = json.loads(capsys.readouterr().out)
    for section in schema["$defs"].values():
        for name, field in section["properties"].items():
            assert "description" in field or "$ref" in field, name


def test_an_interrupted_comparison_prints_the_command_that_resumes_it(
    tiny_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spaced = tmp_path / "my recipe.yaml"
    spaced.write_text(Path(tiny_file).read_text())

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("augkit.compare.__main__.compare", interrupted)
    folder = tmp_path / "out"
    words = [str(spaced), "train.epochs=1", "--device", "cpu"]
    assert call("compare", *words, "--overwrite", "--output", str(folder), "--quiet") == 130
    line = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert line == ["python", "-m", "augkit.compare", *words, "--quiet", "--output", str(folder), "--resume"]


def test_commands_of_the_same_second_take_different_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20260101-000000")
    first, second = cli.new_folder("train"), cli.new_folder("train")
    assert (str(first), str(second)) == ("runs/train-20260101-000000", "runs/train-20260101-000000-2")
    (first / "recipe.yaml").touch()

    def fails(arguments: list[str]) -> None:
        raise InputError(f"bad, though {cli.new_folder('train')} was made")

    assert run(fails, []) == 2
    assert sorted(path.name for path in Path("runs").iterdir()) == ["train-20260101-000000"], "empty ones are removed"
    (tmp_path / "file").touch()
    monkeypatch.chdir(first)
    Path("runs").touch()
    assert run(lambda arguments: print(cli.new_folder("train")), []) == 2
