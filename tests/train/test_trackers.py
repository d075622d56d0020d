"""Experiment trackers: what they are told, and the real libraries offline where they are installed."""

from __future__ import annotations

import importlib.util
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

import augkit
from augkit.core.errors import InputError, RunError
from augkit.data import Dataset
from augkit.train.history import EpochRow
from augkit.train.recipe import Recipe
from augkit.train.trackers import TRACKERS, make_trackers
from augkit.train.trackers.base import KEPT, Tracker, keep_name, kept_name, numbers, run_name, settings_of


class Recorder:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def start(self, recipe: Recipe, output: Path | None) -> None:
        print("* begun")
        self.told.append(("start", (recipe.name, output)))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self.told.append(("log", (step, dict(values))))

    def close(self) -> None:
        self.told.append(("close", None))


@pytest.mark.integration
def test_a_tracker_is_told_the_recipe_every_epoch_and_the_end(tiny: Recipe, digits: Dataset, tmp_path: Path) -> None:
    tracker, rows = Recorder(), list[EpochRow]()
    assert isinstance(tracker, Tracker)
    run = augkit.fit(tiny, output=tmp_path / "r", dataset=digits, log=[tracker], on_epoch=rows.append)
    assert tracker.told[0] == ("start", ("tiny", tmp_path / "r"))
    assert tracker.told[-1] == ("close", None)
    assert tracker.told[1:-1] == [("log", (row["epoch"], numbers(row))) for row in run.history]
    assert [row["epoch"] for row in rows] == [1, 2]
    logged = tracker.told[1][1]
    assert isinstance(logged, tuple)
    assert {"loss", "lr", "validation_accuracy", "images_per_second"} <= set(logged[1])
    again = Recorder()
    augkit.fit(tiny, output=tmp_path / "r", dataset=digits, log=[again], resume=True)
    assert again.told == [], "a finished run has nothing to record"


@pytest.mark.integration
def test_trackers_change_nothing_of_the_run_and_of_standard_output(
    tiny: Recipe, digits: Dataset, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, tracked = augkit.fit(tiny, dataset=digits), augkit.fit(tiny, dataset=digits, log=[Recorder()])
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "* begun\n")
    pairs = zip(plain.model.state_dict().values(), tracked.model.state_dict().values(), strict=True)
    assert all(a.equal(b) for a, b in pairs)


def test_a_tracker_is_closed_after_an_error(tiny: Recipe, digits: Dataset) -> None:
    tracker = Recorder()

    def stop(row: EpochRow) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        augkit.fit(tiny, dataset=digits, log=[tracker], on_epoch=stop)
    assert [what for what, _ in tracker.told] == ["start", "close"]


@pytest.mark.parametrize("method", ["start", "log"])
def test_an_error_of_a_library_is_one_line(
    method: str, tiny: Recipe, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Recorder, *words: object) -> None:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(Recorder, method, fails)
    tracker = Recorder()
    with pytest.raises(RunError, match=r"log: Recorder failed \(no route to host\); leave it out of --log to train"):
        augkit.fit(tiny, dataset=digits, log=[tracker])
    assert tracker.told[-1] == ("close", None)


def test_intervals_become_three_numbers() -> None:
    row: EpochRow = {
        **{"epoch": 3, "step": 9, "loss": 0.5, "lr": 0.1, "seconds": 1.0, "images_per_second": 7.0},
        "shift_information": {"value": 0.2, "low": 0.1, "high": 0.3},
    }  # type: ignore[typeddict-item]
    assert numbers(row) == {
        **{"step": 9, "loss": 0.5, "lr": 0.1, "seconds": 1.0, "images_per_second": 7.0},
        **{"shift_information": 0.2, "shift_information_low": 0.1, "shift_information_high": 0.3},
    }


def test_settings_are_flat_and_name_no_folder(tiny: Recipe) -> None:
    found = settings_of(tiny.replaced(data={**tiny.data.model_dump(), "root": "/home/me/data"}))
    assert (found["policy.shift.max_pixels"], found["data.root"]) == (2.0, "data")
    assert None not in found.values()


def test_names_are_kept_in_the_folder(tmp_path: Path) -> None:
    assert kept_name(tmp_path, "wandb") is None
    keep_name(tmp_path, "wandb", "abc")
    keep_name(tmp_path, "mlflow", "def")
    assert (kept_name(tmp_path, "wandb"), kept_name(tmp_path, "mlflow")) == ("abc", "def")
    assert json.loads((tmp_path / KEPT).read_text()) == {"wandb": "abc", "mlflow": "def"}
    keep_name(None, "wandb", "abc")
    assert kept_name(None, "wandb") is None


def test_unknown_and_missing_trackers_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown tracker 'wandv': did you mean 'wandb'"):
        make_trackers("wandv")
    for name in TRACKERS:
        monkeypatch.delitem(sys.modules, f"augkit.train.trackers.{name}", raising=False)
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard" if name == "tensorboard" else name, None)
        said = rf"log: {name} cannot be imported \(.*None in.*pip install 'augkit\[{name}\]'"
        with pytest.raises(InputError, match=said):
            make_trackers(name)
    one = Recorder()
    assert make_trackers([one]) == [one]
    assert make_trackers("") == []


def test_every_tracker_has_an_extra_and_a_place_in_the_help() -> None:
    import tomllib

    from augkit.train.__main__ import command_parser

    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(TRACKERS) <= set(extras)
    assert f"trackers: {', '.join(sorted(TRACKERS))}" in " ".join(command_parser().format_help().split())


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_tensorboard_files_hold_every_number(tiny: Recipe, digits: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run = augkit.fit(tiny, output=tmp_path / "r", dataset=digits, log="tensorboard")
    found = events(tmp_path / "r")
    for name, points in found.items():
        assert points == [(row["epoch"], pytest.approx(numbers(row)[name])) for row in run.history]
    assert set(found) == set(numbers(run.history[0]))
    with pytest.raises(InputError, match="tensorboard writes to the folder of a run, got none"):
        augkit.fit(tiny, dataset=digits, log="tensorboard")


# The others keep global state and threads, so each is tried in a process of its own: train, pause, go on, read back.
TRY = """
import json, os, sys
from pathlib import Path
import augkit
from augkit.train.recipe import Recipe
recipe, place = Recipe.load(sys.argv[1]), Path(sys.argv[2])
for until in (1, None):
    run = augkit.fit(recipe, output=place / "r", resume=until is None, until=until, log=sys.argv[3])
print(json.dumps(run.history))
"""


def tracked(name: str, tiny_file: str, place: Path, **variables: str) -> list[EpochRow]:
    """The history of a run in two parts that a tracker was told; the library is skipped where it is missing."""
    if importlib.util.find_spec(name) is None:  # not imported here, where warnings are errors
        pytest.skip(f"{name} is not installed")
    environment = {**os.environ, **variables, "PYTHONWARNINGS": "ignore"}
    words = [sys.executable, "-c", TRY, tiny_file, str(place), name]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=place, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found: list[EpochRow] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.integration
def test_wandb_offline(tiny_file: str, tiny: Recipe, tmp_path: Path) -> None:
    tracked("wandb", tiny_file, tmp_path, WANDB_MODE="offline", WANDB_SILENT="true")
    folders = sorted((tmp_path / "r" / "wandb").glob("offline-run-*"))
    name = json.loads((tmp_path / "r" / KEPT).read_text())["wandb"]
    assert {folder.name.rpartition("-")[2] for folder in folders} == {name}, "one run, in two parts"
    content = b"".join(path.read_bytes() for path in (tmp_path / "r" / "wandb").rglob("*.wandb"))
    for text in (b"validation_accuracy", b"policy.shift.max_pixels", run_name(tiny).encode()):
        assert text in content


@pytest.mark.integration
def test_mlflow_in_a_database(tiny_file: str, tiny: Recipe, tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    history = tracked("mlflow", tiny_file, tmp_path, MLFLOW_TRACKING_URI=uri)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as base:
        runs = base.execute("SELECT e.name, r.name, r.status FROM runs r JOIN experiments e USING (experiment_id)")
        assert runs.fetchall() == [("augkit", run_name(tiny), "FINISHED")]
        (value,) = base.execute("SELECT value FROM params WHERE key = 'policy.shift.max_pixels'").fetchone()
        assert value == "2.0"
        points = base.execute("SELECT step, value FROM metrics WHERE key = 'validation_accuracy' ORDER BY step")
        assert points.fetchall() == [(row["epoch"], row["validation_accuracy"]) for row in history]


@pytest.mark.integration
def test_trackio_on_this_machine(tiny_file: str, tiny: Recipe, tmp_path: Path) -> None:
    history = tracked("trackio", tiny_file, tmp_path, TRACKIO_DIR=str(tmp_path / "trackio"))
    (file,) = (tmp_path / "trackio").rglob("augkit.db")
    with closing(sqlite3.connect(file)) as base:
        found = base.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    rows = [(step, json.loads(metrics)) for step, metrics in found]
    points = [(step, row["validation_accuracy"]) for step, row in rows if "validation_accuracy" in row]
    assert points == [(row["epoch"], row["validation_accuracy"]) for row in history]
