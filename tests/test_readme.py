"""The README is short and true: its Python runs, its commands run, its numbers stand in the result files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from page_commands import blocks, commands, run_small
from result_files import ROOT, interval, results, words

README = (ROOT / "README.md").read_text()
TEXT = words("README.md")


def test_it_invites() -> None:
    assert len(README.splitlines()) <= 150


@pytest.mark.integration
def test_python_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    scope: dict[str, Any] = {}
    exec(compile("\n".join(blocks(README, "python")), "README.md", "exec"), scope)
    assert scope["batch"].shape == (8, 3, 224, 224)
    assert 0 <= scope["report"].js.value <= 1
    assert "shift information" in capsys.readouterr().out


@pytest.mark.integration
def test_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    lines = commands(README)
    assert [line.split()[2] for line in lines] == ["augkit.tune", "augkit.train", "augkit.measure"]
    for line in lines:
        assert run_small(line) == 0, capsys.readouterr().err
    assert (tmp_path / "runs" / "longer" / "report.html").is_file()


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", README):
        assert (ROOT / target.partition("#")[0]).is_file(), target


def test_every_line_of_the_table_of_libraries_names_something_that_exists() -> None:
    rows = re.findall(r"`(\w+)\b[^|]*from `(augkit\.adapters\.\w+)`", README) + [
        (name, "augkit.adapters.lightning") for name in re.findall(r"callbacks=\[(\w+)\(", README)
    ]
    assert {module.rpartition(".")[2] for _, module in rows} == {"timm", "lightning", "huggingface"}
    for module in {module for _, module in rows}:
        assert (ROOT / (module.replace(".", "/") + ".py")).is_file()
    for library in ("torchvision", "albumentations", "kornia"):
        assert f"augkit.Augment.from_{library}(" in README


def test_the_first_numbers_stand_in_the_result_file() -> None:
    found = results("tune-mnist5k")
    number = next(r["learned_invariance"] for r in found["table"] if (r["images"], r["arm"]) == ("typical", "best"))
    assert interval(number, 100, 0, " %") in TEXT
    for images, carried in found["carry_over"].items():
        assert interval(carried["slope"]) in TEXT, images
    assert found["settings"]["seeds"] == 3
    seconds = sorted(run["cost"]["seconds"] for run in results("tune-times")["runs"])
    said = f"in {seconds[1]:.0f} s on 2 CPU cores (median of three runs, {seconds[0]:.0f} to {seconds[2]:.0f} s)"
    assert said in TEXT
    assert len(seconds) == 3


def test_what_is_installed_is_what_was_measured() -> None:
    found = results("install")
    total = found["total"]
    assert f"{total['packages']} packages, {total['mb'] / 1000:.1f} GB" in TEXT
    assert f"of which {total['torch_mb'] / 1000:.1f} GB are PyTorch" in TEXT
    assert f"pip takes {found['install']['cpu_seconds']:.0f} s of processor time" in TEXT
    assert f"`import augkit` {found['imports']['augkit']:.2f} s" in TEXT


def test_what_was_found_stands_in_the_result_files() -> None:
    studies = {
        "on digits": "factorial",
        "on clothes": "clothes-factorial",
        "on small photographs": "study-cifar10",
    }
    for data, name in studies.items():
        claims = {claim["id"]: claim for claim in results(name)["claims"]}
        removed = interval(claims[6]["effect"], 100, 0, " %")
        assert f"{removed} of the variability {data}" in TEXT or f"{removed} {data}" in TEXT
        if data == "on digits":
            clothes = next(c["effect"] for c in results("clothes-factorial")["claims"] if c["id"] == 4)
            blurred = [interval(effect, 100, 0, " %") for effect in (claims[4]["effect"], clothes)]
            assert f"Blur pooling removed {blurred[0]} on digits and {blurred[1]} on clothes" in TEXT
            earlier = {claim["id"]: claim for claim in results("study-quick-10-seeds")["claims"]}
            fell = earlier[7]["effect"]  # negative, so that its ends change places
            lost = {"value": -fell["value"], "low": -fell["high"], "high": -fell["low"]}
            assert f"{interval(lost, 100, 0, ' points')} less on digits" in TEXT
    parts = next(claim["parts"] for claim in results("data-as-source")["claims"] if claim["id"] == 2)
    placed = next(part["effect"] for part in parts if part["label"] == "3,500 augmented against 3,500 placed")
    assert f"moved in every epoch, {interval(placed, 1, 2, ' nats')}" in TEXT
    rows = {(row["name"], row["surgery"]): row for row in results("pretrained")["rows"]}
    row = rows["efficientnet_lite0", None]
    one, up_to = (interval(row[key], 100, 1, " %") for key in ("one_pixel", "top1_change"))
    assert f"changes {one} of the answers of EfficientNet-Lite0, and up to 16 px {up_to}" in TEXT
    ruler = {row["change"]: row["by"] for row in results("ruler")["rows"]}
    divided = ruler["the same network, logits divided by 8"]["js"]
    assert f"logits divided by 8 look {interval(divided, 100, 0, ' %')} more invariant" in TEXT
    flicker = results("flicker")["summary"]["detector"]["shifts"]["1"]["flicker"]
    assert f"{interval(flicker['maxpool'], 100, 1, ' %')} of the boxes are lost or new" in TEXT
    assert f"with blur pooling {interval(flicker['blurpool'], 100, 1, ' %')}" in TEXT
    halving = results("tune-replay")["grounds"]["digits"]["strategies"]["halving"]["ratio"]
    assert f"halving takes {interval(halving)} of the time of random search on digits" in TEXT
    short, longer = (interval(results("tune-cpu")[part]) for part in ("workers", "longer"))
    assert f"are {short} times as fast as one in short searches, {longer} in longer ones" in TEXT
