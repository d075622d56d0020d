"""Several networks side by side: the table in three forms, and the command."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import augkit
from augkit.core.cli import run
from augkit.core.errors import InputError
from augkit.invariance import InvarianceReport, Pairs, Plan
from augkit.invariance.plan import full_plan, one_shift
from augkit.measure import NetworkTable, network_table
from augkit.measure import __main__ as measure
from augkit.measure.networks import folder_names

NETS = """
import torch
from torch import nn

def make(stride, channels=1):
    torch.manual_seed(stride)
    pooled = (nn.Conv2d(channels, 4, 3, stride), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*pooled, nn.Linear(4, 10))

def one(): return make(1)
def two(): return make(2)
def color(): return make(2, 3)
def few(): return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
def map(): return nn.Conv2d(1, 4, 3, padding=1)
"""
SETTINGS = ("--max-shift", "1", "--limit", "20", "--pairs", "2", "--no-curves", "--quiet")


def shift_plan(most: float) -> Plan:
    return Plan(pairs=Pairs(2, -most, most))


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "nets_side_by_side.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets_side_by_side", None)
    return tmp_path


@pytest.fixture(scope="module")
def reports() -> dict[str, InvarianceReport]:
    images = torch.rand(24, 1, 14, 14, generator=torch.Generator().manual_seed(0))
    found = {}
    for name, stride in (("first_1 & only", 1), ("second|2", 2)):
        torch.manual_seed(stride)
        head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3))
        net = nn.Sequential(nn.Conv2d(1, 4, 3, stride), nn.ReLU(), head)
        labels = torch.arange(24) % 3
        found[name] = augkit.measure_invariance(net, images, labels, protocol="circular", max_shift=4.0, pairs=2)
    return found


@pytest.fixture(scope="module")
def table(reports: dict[str, InvarianceReport]) -> NetworkTable:
    return network_table(reports, metrics=["accuracy", "top1_change", "js"])


def test_markdown_has_a_row_per_network_with_the_intervals_of_its_report(
    table: NetworkTable, reports: dict[str, InvarianceReport]
) -> None:
    head, rule, *rows, blank, note = table.markdown().splitlines()
    assert head.startswith("| network | accuracy, % | top-1 change, % |")
    assert rule.count("|") == head.count("|")
    assert blank == ""
    assert note.startswith("24 images, protocol circular, kernel fourier, shifts up to 4 px, input 14 x 14 px")
    assert len(rows) == 2
    assert rows[1].startswith("| second\\|2 |")  # a bar within a cell is escaped
    for row, report in zip(rows, reports.values(), strict=True):
        cells = re.split(r"(?<!\\)\|", row)[1:-1]
        shown = [float(n) for n in re.findall(r"-?\d+\.\d+", cells[2])]
        estimate = report.top1_change
        assert shown == pytest.approx([100 * x for x in (estimate.value, estimate.low, estimate.high)], abs=0.051)


def test_csv_keeps_every_digit(table: NetworkTable, reports: dict[str, InvarianceReport]) -> None:
    rows = list(csv.DictReader(io.StringIO(table.csv())))
    assert [row["network"] for row in rows] == list(reports)
    for row, report in zip(rows, reports.values(), strict=True):
        for metric in ("accuracy", "top1_change", "js"):
            found = report.metrics[metric]
            kept = [float(row[f"{metric}{end}"]) for end in ("", "_low", "_high")]
            assert kept == [found.value, found.low, found.high]
    assert rows[0]["difference"] == ""


def test_latex_is_balanced_and_escaped(table: NetworkTable) -> None:
    text = table.latex()
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == 2
    assert body[0].startswith(r"first\_1 \& only & ")
    columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns is not None
    for row in body:
        assert len(re.findall(r"(?<!\\)&", row)) == len(columns[1]) - 1
        assert row.endswith(r"\\")
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    assert not re.search(r"(?<!\\)[%_#]", uncommented)
    assert uncommented.count("{") == uncommented.count("}")


def test_the_difference_is_paired_by_image(reports: dict[str, InvarianceReport]) -> None:
    table = network_table(reports)
    first, second = reports.values()
    found = table.rows["second|2"]["difference"]
    assert found is not None
    assert found.value == pytest.approx(second.top1_change.value - first.top1_change.value)
    changed = [report.statistics["changed"][:, 0].double().numpy() for report in (second, first)]
    rng = np.random.default_rng(0)
    drawn = [rng.integers(0, 24, 24) for _ in range(4000)]
    low, high = np.quantile([(changed[0][k] - changed[1][k]).mean() for k in drawn], [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.03)
    assert network_table({"twin": first, "itself": first}).rows["itself"]["difference"].value == 0  # type: ignore[union-attr]


def test_a_network_with_another_input_has_its_size_and_no_difference(reports: dict[str, InvarianceReport]) -> None:
    first, second = reports.values()
    other = replace(second, settings=replace(second.settings, input_size=[12, 12]), fingerprint="another")
    table = network_table({"a": first, "b": other})
    assert table.headings[:2] == ["network", "input, px"]
    assert [row[1] for row in table.cells] == ["14 x 14", "12 x 12"]
    assert "difference" not in table.rows["a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": shift_plan(2.0)}, r"expected the same settings, 'b' has max_shift 2.0 and 'a' 4.0"),
        ({"plan": one_shift(4.0, 1.0)}, r"expected the same settings, 'b' has shift \(4.0, 1.0\) and 'a' None"),
        ({"images": 7}, r"expected the same settings, 'b' has images 7 and 'a' 24"),
    ],
)
def test_networks_that_were_measured_differently_are_refused(
    reports: dict[str, InvarianceReport], change: dict[str, Any], message: str
) -> None:
    first, second = reports.values()
    with pytest.raises(InputError, match=message):
        network_table({"a": first, "b": replace(second, settings=replace(second.settings, **change))})
    with pytest.raises(InputError, match="expected reports"):
        network_table({})
    with pytest.raises(InputError, match=r"unknown metric 'top1_chang': did you mean 'top1_change'"):
        network_table(reports, metrics=["top1_chang"])


def test_networks_that_were_rescaled_by_other_factors_are_refused_and_the_note_names_the_factors() -> None:
    images = torch.rand(6, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))
    logits = [augkit.measure_invariance(net, images, plan=full_plan("scale", most, 1)) for most in (1.1, 1.2)]
    with pytest.raises(InputError, match=r"'b' has max_scale 1.2 and 'a' 1.1"):
        network_table(dict(zip("ab", logits, strict=True)))
    pool, how = nn.AvgPool2d(2), {"output": "map", "axis": "scale", "input_size": 16, "pairs": 1}
    maps = [augkit.measure_outputs(pool, images, max_scale=most, **how) for most in (1.1, 1.2)]  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"'b' has max_scale 1.2 and 'a' 1.1"):
        network_table(dict(zip("ab", maps, strict=True)))
    assert "kernel sinc, factors up to 1.1, input 16 x 16 px" in network_table({"a": maps[0]}).note


def test_outputs_of_one_kind_stand_side_by_side(reports: dict[str, InvarianceReport]) -> None:
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    pools = {"average": nn.AvgPool2d(2), "largest": nn.MaxPool2d(2)}
    found = {name: augkit.measure_outputs(pool, images, output="map", max_shift=2.0) for name, pool in pools.items()}
    table = network_table(found)
    assert {"equivariance_error", "decibels"} <= set(table.rows["average"])
    with pytest.raises(InputError, match="expected one kind of output"):
        network_table({**found, **reports})


@pytest.mark.integration
def test_the_command_measures_each_network_and_writes_the_table(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["nets_side_by_side:one", "nets_side_by_side:two"]
    assert run(measure.main, [*names, "--data", "digits", *SETTINGS, "--output", "out"]) == 0
    shown = capsys.readouterr().out
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert "out/table.md, out/table.tex, out/table.csv" in shown
    folders = [nets / "out" / name for name in folder_names(names)]
    alone = json.loads((folders[1] / "results.json").read_text())
    whole = json.loads((nets / "out" / "results.json").read_text())
    assert whole["networks"][names[1]]["top1_change"] == alone["top1_change"]
    assert whole["table"]["rows"][names[1]]["top1_change"] == alone["top1_change"]
    page = (nets / "out" / "report.html").read_text()
    assert f'href="{folders[0].name}/report.html"' in page
    assert names[1] in (nets / "out" / "table.md").read_text()

    again = [*names, "--data", "digits", *SETTINGS, "--output", "out"]
    assert run(measure.main, again) == 2
    assert "add --resume to go on" in capsys.readouterr().err
    before = (nets / "out" / "table.csv").read_text()
    (folders[1] / "measurement.pt").unlink()
    assert run(measure.main, [*again, "--resume"]) == 0
    assert (nets / "out" / "table.csv").read_text() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["one", "thre"], "has no attribute 'thre'"),
        (["one", "one"], "networks: expected each once"),
        (["one", "few"], "nets_side_by_side:few: labels: 'digits' has 10 classes, the model 3"),
        (["one", "two", "--input-size", "8"], "nets_side_by_side:one: max_shift: protocol 'crop' with images of 8 x 8"),
        (["one", "two", "--weights", "none.pt"], "--weights: expected one network"),
        (["one", "map"], "expected one kind of output, 'nets_side_by_side:map' has map and 'nets_side_by_side:one'"),
    ],
)
def test_a_mistake_is_found_before_anything_is_measured(
    nets: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    own = ("one", "two", "thre", "few", "map")
    named = [word if word not in own else f"nets_side_by_side:{word}" for word in words]
    assert run(measure.main, [*named, "--data", "digits", *SETTINGS, "--output", "out"]) == 2
    assert message in capsys.readouterr().err
    assert not (nets / "out").exists()


def test_runs_with_settings_or_images_of_their_own_are_refused_before_the_first_is_measured(
    nets: Path, tiny: augkit.Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs(nets / "photos", [(12, 12)] * 20)
    train = {**tiny.train.model_dump(), "epochs": 1}
    augkit.fit(tiny.replaced(train=train), output=nets / "run", device="cpu")
    data = {**tiny.data.model_dump(), "name": "folder:photos", "channels": 1, "limit": None}
    augkit.fit(tiny.replaced(train=train, data=data), output=nets / "other", device="cpu")
    words = ["run", "nets_side_by_side:one", "--data", "digits", *SETTINGS, "--output", "out"]
    assert run(measure.main, words) == 2
    assert "networks: expected the same settings, 'nets_side_by_side:one' has protocol crop" in capsys.readouterr().err
    assert run(measure.main, ["run", "other", *SETTINGS, "--output", "out"]) == 2
    assert "'other' has data folder:photos and 'run' digits" in capsys.readouterr().err
    assert not (nets / "out").exists()


def photographs(folder: Path, sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    for k, (width, height) in enumerate(sizes):
        own = folder / f"class{k % 2}"
        own.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(own / f"{k:02d}.png")


def test_photographs_of_several_sizes_are_fitted_to_the_input(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photographs(nets / "photos", [(20 + k, 30 - k) for k in range(12)])
    words = ["nets_side_by_side:color", "--data", "folder:photos", "--max-shift", "2", "--no-curves", "--json"]
    assert run(measure.main, [*words, "--input-size", "12", "--output", "a"]) == 0
    streams = capsys.readouterr()
    assert "images of several sizes: resized to a shorter side of 16 px, the center is seen" in streams.err
    assert "the test split, a part of the images; --split all" in streams.err
    fitted = json.loads(streams.out)
    assert run(measure.main, [*words, "--input-size", "12", "--image-size", "16", "--output", "b"]) == 0
    asked = json.loads(capsys.readouterr().out)
    assert (fitted["mac"], fitted["settings"]["image_size"]) == (asked["mac"], [16, 16])

    assert run(measure.main, [*words, "--output", "c"]) == 2  # the input of the network is unknown
    assert "resize them (--image-size, or data.image_size of a recipe)" in capsys.readouterr().err
    torus = ["--protocol", "circular", "--input-size", "12"]
    assert run(measure.main, [*words, *torus, "--quiet", "--output", "d"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["image_size"] == [12, 12]


def test_a_run_beside_other_networks_gets_images_with_room_for_the_shifts(
    nets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs(nets / "photos", [(20 + k, 30 - k) for k in range(20)])
    fields = ["data.canvas=null", "data.name=folder:photos", "data.image_size=12", "data.mean=[0.5, 0.5, 0.5]"]
    fields += ["data.std=[0.25, 0.25, 0.25]", "train.epochs=1", "invariance.protocol=crop", "invariance.every=null"]
    recipe = augkit.Recipe.load("mnist5k", [*fields, "invariance.max_shift=1"])
    augkit.fit(recipe, output=nets / "run", device="cpu")
    words = ["run", "nets_side_by_side:color", "--data", "folder:photos", "--input-size", "12", *SETTINGS[:-1]]
    assert run(measure.main, [*words, "--json", "--output", "a"]) == 0
    streams = capsys.readouterr()
    assert "images of 14 px instead of the run's 12, so that its input can be shifted" in streams.err
    assert "images of 14 px instead of the run" in (nets / "a" / "report.html").read_text()
    found = json.loads(streams.out)["networks"]
    assert {tuple(each["settings"]["image_size"]) for each in found.values()} == {(14, 14)}
    assert {tuple(each["settings"]["input_size"]) for each in found.values()} == {(12, 12)}


def test_a_split_without_images_is_one_line(nets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images without classes are all for testing."""
    (nets / "flat").mkdir()
    for k in range(4):
        Image.new("RGB", (16, 16), (k, 0, 0)).save(nets / "flat" / f"{k}.png")
    words = ["nets_side_by_side:color", "--data", "folder:flat", "--split", "validation", *SETTINGS, "--output", "a"]
    assert run(measure.main, words) == 2
    assert "--split validation: expected images, 'folder:flat' has none there; --split all" in capsys.readouterr().err


def test_all_images_are_those_of_the_folder_in_their_order(tmp_path: Path) -> None:
    photographs(tmp_path, [(8, 8)] * 10)
    dataset = augkit.load_dataset(f"folder:{tmp_path}")
    whole = dataset.open_all()
    assert dataset.cut
    assert len(whole) == 10
    assert whole.labels is not None
    assert whole.labels.tolist() == [0] * 5 + [1] * 5
    expected = [np.asarray(Image.open(path)) for path in sorted(tmp_path.rglob("*.png"))]
    assert np.array_equal(whole.images.permute(0, 2, 3, 1).numpy(), np.stack(expected))
    assert len(dataset.open_all(4)) == 4
    digits = augkit.load_dataset("digits")
    assert not digits.cut
    assert len(digits.open_all()) == 1797


def test_splits_of_their_own_are_taken_together_or_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        photographs(tmp_path / split, [(8, 8)] * 6)
    assert len(augkit.load_dataset(f"folder:{tmp_path}").open_all()) == 12
    streamed = augkit.load_dataset(f"folder:{tmp_path}", memory=10)
    with pytest.raises(InputError, match="its splits together do not fit into memory; take one split"):
        streamed.open_all()


@pytest.mark.parametrize("models", [["a:x", "a-x-3", "a/x"], ["a:x", "a/x", "a-x-2"], ["a", "a/", "a-2", "a//"]])
def test_no_two_networks_share_a_folder(models: list[str]) -> None:
    assert len(set(folder_names(models))) == len(models)
