"""Where early stopping keeps the weights of an earlier epoch, all published numbers are about that epoch."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

import augkit
from augkit.core.cli import run
from augkit.train import __main__ as train
from augkit.train.export import CONFIG, WEIGHTS, export_folder

# With this rate the accuracy falls after its best epoch.
WORDS = [
    "mnist5k", "data.name=digits", "data.limit=100", "model.width=4", "train.epochs=6", "train.patience=2",
    "invariance.every=1", "optim.lr=0.5", "--json", "--quiet", "--output",
]  # fmt: skip


def test_published_numbers_are_those_of_the_kept_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "r"
    assert run(train.main, [*WORDS, str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["validation_accuracy"])
    assert best["epoch"] < rows[-1]["epoch"], "it went on after its best epoch"
    assert best["shift_information"] != rows[-1]["shift_information"]
    for key in ("epoch", "validation_loss", "shift_information"):
        assert found[key] == best[key]
    assert found["validation_accuracy"] == pytest.approx(best["validation_accuracy"])
    for _ in range(2):
        facts = json.loads((folder / CONFIG).read_text())
        assert facts["accuracy"]["value"] == pytest.approx(best["validation_accuracy"])
        assert facts["shift_information"] == best["shift_information"]
        (folder / CONFIG).unlink()  # and again from the checkpoint alone
        (folder / WEIGHTS).unlink()
        export_folder(folder)
    assert f"| {best['shift_information']['value']:.4f} [" in (folder / "README.md").read_text()
    resumed = augkit.fit(augkit.Recipe.load(folder), output=folder, resume=True)
    assert resumed.epoch == best["epoch"]
    assert resumed.row == best


def test_a_resumed_run_has_its_metrics_again_and_files_follow_the_umask(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lr=0.1"  # may look like an override
    assert run(train.main, [*WORDS, str(folder)]) == 0
    whole = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text("")
    assert run(train.main, [str(folder / "recipe.yaml"), "--output", str(folder), "--resume", "--quiet"]) == 0
    assert (folder / "metrics.jsonl").read_text() == whole
    assert run(train.main, ["--output", str(folder), "--resume", "--quiet"]) == 0, "the recipe is that of the folder"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.is_file()}
    assert len(set(modes.values())) == 1, modes
    capsys.readouterr()
