"""The README is true: its Python runs, its commands run, its numbers stand in the result file."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from augkit.compare import __main__ as compare
from augkit.core.cli import run
from augkit.measure import __main__ as measure
from augkit.preview import __main__ as preview
from augkit.train import __main__ as train
from augkit.tune import __main__ as tune

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = {
    "preview": preview.main,
    "train": train.main,
    "measure": measure.main,
    "compare": compare.main,
    "tune": tune.main,
}
# The same commands on smaller images: what they do is the same, how long it takes is not.
SMALL = [
    "data.name=digits",
    "data.canvas=16",
    "data.limit=200",
    "train.epochs=1",
    "invariance.max_shift=3",
    "invariance.pairs=1",
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.integration
def test_python_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    code = "\n".join(blocks("python"))
    scope: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), scope)
    assert scope["batch"].shape == (8, 3, 224, 224)
    assert scope["again"].equal(scope["out"].images)
    assert 0 <= scope["report"].js.value <= 1
    assert scope["certificate"].verdict == "none"
    assert capsys.readouterr().out.splitlines()[-1] == "integer"  # what the comment beside it says


@pytest.mark.integration
def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("python -m augkit.")]
    assert [line.split()[2] for line in lines] == [
        f"augkit.{name}" for name in ("preview", "train", "tune", "tune", "tune", "train", "measure", "compare")
    ]
    for line in lines:
        name, *words = shlex.split(line.removeprefix("python -m augkit."))
        if name == "measure":
            words += ["--limit", "40"]
        elif "--show" not in words:
            words = [*words, *SMALL]
        if name == "tune" and "--show" not in words:  # the last --trials and --seeds count
            words += ["--trials", "1", "--seeds", "1", "--trial-epochs", "1"]
        assert run(COMMANDS[name], [*words, "--quiet"]) == 0, capsys.readouterr().err
    assert (tmp_path / "runs" / "longer" / "report.html").is_file()


def test_numbers_stand_in_the_result_file() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "tune-mnist5k.json").read_text())
    rows = {row["images"]: row["learned_invariance"] for row in results["table"] if row["arm"] == "best"}
    text, number = " ".join(README.split()), rows["typical"]
    assert f"{100 * number['value']:.0f} % [{100 * number['low']:.0f}, {100 * number['high']:.0f}]" in text
    for images, carried in results["carry_over"].items():
        slope = carried["slope"]
        assert f"{slope['value']:.2f} [{slope['low']:.2f}, {slope['high']:.2f}]" in text, images
    assert (ROOT / "benchmarks" / "results" / "ruler.md").read_text() in README
    assert f"takes {results['cost']['seconds']:.0f} s" in " ".join(README.split())
    assert results["environment"]["versions"]["torch"]
    assert results["settings"]["seeds"] == 3


def test_flicker_and_surgery_stand_in_the_result_files() -> None:
    text = " ".join(README.split())
    flicker = json.loads((ROOT / "benchmarks" / "results" / "flicker.json").read_text())
    found = flicker["summary"]["detector"]["shifts"]["1"]["flicker"]
    words = [
        f"{100 * found[name]['value']:.1f} % [{100 * found[name]['low']:.1f}, {100 * found[name]['high']:.1f}]"
        for name in ("maxpool", "blurpool")
    ]
    assert f"loses or gains {words[0]} of its boxes" in text
    assert f"with blur pooling {words[1]}" in text
    rows = json.loads((ROOT / "benchmarks" / "results" / "surgery.json").read_text())["rows"]
    assert f"of {len(rows)} networks of torchvision and timm" in text


def test_verdicts_stand_in_the_result_file() -> None:
    rows = {line.split("|")[1].strip(): line.split("|") for line in README.splitlines() if line.startswith("| ")}
    for name, first in (("study-quick-10-seeds", 2), ("study-standard", 4), ("study-cifar10", 6)):
        results = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
        for claim in results["claims"]:
            row = rows[f"{claim['id']}. {claim['name']}"]
            effect = claim["effect"]
            assert row[first].strip() == claim["verdict"], claim["name"]
            assert row[first + 1].strip() == f"{effect['value']:.3g} [{effect['low']:.3g}, {effect['high']:.3g}]"
            assert row[8].strip() == claim["unit"]


def test_what_is_said_of_studies_stands_in_the_result_files() -> None:
    text = " ".join(README.split())
    found = {
        name: json.loads((ROOT / "benchmarks" / "results" / f"study-{name}.json").read_text())
        for name in ("quick", "quick-10-seeds", "standard", "cifar10")
    }
    cost = found["quick"]["cost"]
    assert (found["quick"]["settings"]["seeds"], cost["runs"], cost["loaded"]) == (5, 140, 0)
    assert f"140 runs of 5 seeds on digits and takes {cost['wall_seconds'] / 60:.0f} minutes on 2 cores" in text
    assert f"{found['standard']['cost']['seconds'] / 3600:.1f} h of work for one core" in text
    for name in ("quick-10-seeds", "standard"):
        parts = {claim["id"]: claim["parts"] for claim in found[name]["claims"]}
        for claim, k, scale, digits in ((7, 0, 1, 2), (7, 1, 1, 2), (7, 2, 1, 2), (7, 4, 1, 2), (10, 0, 100, 0),
                                        (10, 1, 100, 1), (14, 1, 1, 3)):  # fmt: skip
            value, low, high = (scale * parts[claim][k]["effect"][key] for key in ("value", "low", "high"))
            points = " points" if scale == 100 else ""
            assert f"{value:.{digits}f}{points} [{low:.{digits}f}, {high:.{digits}f}]" in text, (name, claim, k)
    cifar10 = found["cifar10"]
    assert f"again on 10,000 of CIFAR-10, {cifar10['cost']['seconds'] / 3600:.1f} h" in text
    parts = {claim["id"]: claim["parts"] for claim in cifar10["claims"]}
    for claim, k, digits in ((7, 0, 2), (7, 1, 2), (7, 2, 2), (5, 2, 3), (5, 3, 3), (14, 1, 2)):
        value, low, high = (parts[claim][k]["effect"][key] for key in ("value", "low", "high"))
        assert f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]" in text, (claim, k)
    assert f"changes {100 * parts[14][0]['effect']['value']:.0f} % of its answers" in text
    plain = next(arm["accuracy"]["value"] for arm in cifar10["arms"] if arm["arm"] == "maxpool+none")
    assert f"reach an accuracy of {100 * plain:.0f} % only" in text
    point = next(point for point in found["standard"]["plane"] if point["arm"] == "aliasfree+none")
    for axis in "xy":
        value, low, high = (100 * point[axis][key] for key in ("value", "low", "high"))
        assert f"{value:.1f} % [{low:.1f}, {high:.1f}]" in text
    accuracy = {arm["arm"]: f"{100 * arm['accuracy']['value']:.0f} %" for arm in found["standard"]["arms"]}
    assert f"an accuracy of {accuracy['aliasfree+none']} against {accuracy['maxpool+none']}" in text
    assert f"({accuracy['maxpool+rotate']} against {accuracy['maxpool+none']} without augmentation)" in text


def test_faults_stand_in_the_result_file() -> None:
    faults = json.loads((ROOT / "benchmarks" / "results" / "faults.json").read_text())["faults"]
    for fault in faults:
        assert fault["lost"] == fault["doubled"] == 0
        counts = f"| {fault['completed']} of {fault['asked']} | {fault['lost']} | {fault['doubled']} |"
        assert any(line.startswith(f"| {fault['fault']} |") and line.endswith(counts) for line in README.splitlines())
