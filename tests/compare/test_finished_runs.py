"""Finished runs are measured and not changed; what has not ended says how to go on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

import augkit
from augkit.compare import __main__ as compare
from augkit.core.cli import run
from augkit.train import __main__ as train
from augkit.train.recipe import Recipe


def state(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path.name: path.stat() for path in [folder, *folder.iterdir()]}
    return {name: (stat.st_mtime_ns, stat.st_ino) for name, stat in found.items()}


@pytest.mark.integration
def test_finished_runs_stay_as_they_are_and_give_the_numbers_of_the_comparison(tiny: Recipe, tmp_path: Path) -> None:
    recipes = [tiny.replaced(name="control", policy={}), tiny]
    trained = augkit.compare.compare(recipes, [0], tmp_path / "together", device="cpu").to_dict()
    folders = [tmp_path / "together" / f"{recipe.name}-seed0" for recipe in recipes]
    before = [state(folder) for folder in folders]
    assert run(compare.main, [*map(str, folders), "--output", str(tmp_path / "c"), "--quiet", "--device", "cpu"]) == 0
    assert [state(folder) for folder in folders] == before
    found = json.loads((tmp_path / "c" / "results.json").read_text())
    for row, other in zip(found["table"], json.loads(json.dumps(trained))["table"], strict=True):
        for name in ("accuracy", "shift_information"):
            if row[name] is None:  # photographs have no accuracy
                assert other[name] is None
            else:
                assert row[name]["value"] == pytest.approx(other[name]["value"], rel=1e-4)


def test_the_command_that_a_run_which_has_not_ended_asks_for_works(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / "run of mine", tmp_path / "ended"]
    augkit.fit(tiny, output=folders[0], until=1, device="cpu")
    augkit.fit(tiny.replaced(name="other"), output=folders[1], device="cpu")
    words = [*map(str, folders), "--output", str(tmp_path / "c"), "--quiet", "--device", "cpu"]
    assert run(compare.main, words) == 2
    said = capsys.readouterr().err
    assert "holds a run that has not ended: python -m augkit.train " in said
    assert run(train.main, [*shlex.split(said.split("augkit.train ")[1]), "--quiet", "--device", "cpu"]) == 0
    assert run(compare.main, words) == 0
