"""The output folder of ``python -m augkit.measure``: work of others is neither resumed nor deleted."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import augkit
from augkit.core.cli import run
from augkit.measure import __main__ as measure

NETS = """
import torch
from torch import nn

def make(stride=1):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, stride), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))

def strided(): return make(2)
"""
ONE, PAIR = ["nets_in_folders:make"], ["nets_in_folders:make", "nets_in_folders:strided"]
SETTINGS = ["--max-shift", "1", "--no-curves", "--limit", "20", "--pairs", "1", "--quiet"]


@pytest.fixture(autouse=True)
def _nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_in_folders.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets_in_folders", None)


def call(models: list[str], *words: str) -> int:
    return run(measure.main, [*models, *SETTINGS, *(() if "--data" in words else ("--data", "digits")), *words])


def content(folder: str) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture
def trained(tiny: augkit.Recipe) -> None:
    """A run of augkit in the folder ``run``."""
    augkit.fit(tiny.replaced(train={**tiny.train.model_dump(), "steps": 1}), output="run", device="cpu")


@pytest.mark.usefixtures("trained")
def test_what_is_measured_is_not_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": torch.zeros(1)}, "run/weights.pt")
    Path("run/photos").mkdir()
    Image.new("L", (8, 8)).save("run/photos/0.png")
    kept = content("run")
    read = (["--weights", "run/weights.pt"], ["--data", "folder:run/photos"], ["--ood", "folder:run/photos"])
    for models, words in ((["run"], []), ([*ONE, "run"], []), *((ONE, words) for words in read)):
        assert call(models, "--output", "run", "--overwrite", *words) == 2
        assert "output 'run': --overwrite would delete 'run" in capsys.readouterr().err
    assert content("run") == kept


@pytest.mark.usefixtures("trained")
def test_only_a_measurement_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of a run has augkit's mark, too, and a report that would be replaced."""
    kept = content("run")
    for models, message in ((ONE, "holds no measurement to go on"), (PAIR, "holds no table of networks to go on")):
        assert call(models, "--output", "run", "--resume") == 2
        assert f"--resume: 'run' {message}" in capsys.readouterr().err
    assert content("run") == kept


@pytest.mark.integration
def test_a_measurement_and_a_table_are_not_mixed_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(ONE, "--output", "one") == 0
    assert call(PAIR, "--output", "pair") == 0
    kept = content("one") | content("pair")
    capsys.readouterr()
    assert call(ONE, "--output", "pair", "--resume") == 2
    assert "--resume: 'pair' holds no measurement" in capsys.readouterr().err
    assert call(PAIR, "--output", "one", "--resume") == 2
    assert "--resume: 'one' holds no table" in capsys.readouterr().err
    assert content("one") | content("pair") == kept
    Path("pair/table.md").unlink()  # as if it had been interrupted before
    assert call(PAIR, "--output", "pair", "--resume") == 0
    assert Path("pair/table.md").is_file()
