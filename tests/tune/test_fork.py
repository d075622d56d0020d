"""Trials that start from the weights of the control: what is trained, what it costs, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import augkit
from augkit.core.cli import run
from augkit.core.errors import InputError
from augkit.core.jobs.storage import open_storage
from augkit.core.progress import Display
from augkit.data import Dataset
from augkit.train.checkpoint import read_checkpoint
from augkit.train.recipe import Recipe
from augkit.tune import __main__ as tune
from augkit.tune import halving, optuna_study
from augkit.tune.finals import TuneContext, retrain
from augkit.tune.optuna_study import SearchTerms, rung_of
from augkit.tune.results import search_cost
from augkit.tune.trial import TrialWorker

BASE = 3  # epochs of the control before the fork


@pytest.fixture(scope="module")
def data() -> Dataset:
    return augkit.load_dataset("digits", limit=200)


def open_worker(
    tiny: Recipe, data: Dataset, place: Path, trials: int, folder: Path | None, **fields: Any
) -> TrialWorker:
    space = augkit.tune.Space.of(
        tiny.replaced(train={"epochs": 2 * BASE, "batch_size": 64}).model_dump(exclude_none=True), "t"
    )
    given = {"fork": BASE, "epochs": 2, "floor": 0.0, **fields}
    terms = SearchTerms(space=space.to_dict(), **given)
    study, _ = optuna_study.make_or_join(open_storage(place), "s", terms, trials, join=True)
    return TrialWorker(study, terms, data, torch.device("cpu"), folder=folder)


def trained(worker: TrialWorker) -> list[int]:
    return [t.user_attrs["trained"] for t in optuna_study.completed(worker.study)]


def outcomes(worker: TrialWorker) -> dict[tuple[int, int], list[float]]:
    return {(halving.configuration_of(t), rung_of(t)): t.values for t in optuna_study.completed(worker.study)}


def equal(model: nn.Module, state: dict[str, Any]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(value, state[name]) for name, value in own.items())


@pytest.fixture(scope="module")
def searched(tiny: Recipe, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[TrialWorker, Path]:
    """A search of 3 forks on rungs of 1 and 2 epochs, and its folder."""
    place = tmp_path_factory.mktemp("fork")
    worker = open_worker(tiny, data, place / "j", 3, place / "out", rungs=(1, 2), sampler="random")
    worker.run()
    return worker, place / "out"


def test_weights_begin_a_run_and_nothing_else_of_the_file_does(tiny: Recipe, data: Dataset, tmp_path: Path) -> None:
    averaged = tiny.replaced(train={"epochs": 1, "batch_size": 32, "ema": 0.9})
    first = augkit.fit(averaged, seed=3, dataset=data, output=tmp_path / "first")
    again = augkit.fit(averaged, dataset=data, weights=tmp_path / "first" / "checkpoint.pt")
    handed = augkit.fit(averaged, dataset=data, model=first.model.requires_grad_())
    assert equal(again.model, handed.model.state_dict()), "as if its network had been handed over"
    assert [row["epoch"] for row in again.history] == [1]
    assert again.history[0]["loss"] < first.history[0]["loss"]
    with pytest.raises(InputError, match=r"missing\.pt"):
        augkit.fit(averaged, dataset=data, weights=tmp_path / "missing.pt")


@pytest.mark.integration
def test_the_control_is_trained_once_and_every_trial_begins_with_its_weights(
    searched: tuple[TrialWorker, Path], data: Dataset
) -> None:
    worker, out = searched
    control = worker.space.control({})
    kept = read_checkpoint(out / "controls" / "s-fork" / "checkpoint.pt")
    assert len(kept["history"]) == BASE
    whole = control.replaced(train={**control.train.model_dump(), "epochs": BASE})
    assert equal(augkit.fit(whole, dataset=data).model, kept["model"]), "its schedule ends at the fork"
    top = next(t for t in optuna_study.completed(worker.study) if rung_of(t) == 1)
    recipe = worker._budgeted(worker.space.with_values(top.user_attrs["values"]))
    assert recipe.train.epochs == 2
    straight = augkit.fit(recipe, dataset=data, weights=out / "controls" / "s-fork" / "checkpoint.pt")
    fork = read_checkpoint(out / "rungs" / f"s-{halving.configuration_of(top)}" / "checkpoint.pt")
    assert equal(straight.model, fork["model"]), "a fork that pauses at a rung ends as one that does not"
    assert trained(worker) == [1, 1, 1, 1]


def test_the_control_of_a_fork_is_the_control_continued(searched: tuple[TrialWorker, Path], data: Dataset) -> None:
    worker, out = searched
    recipe = worker._budgeted(worker.space.control({}))
    continued = augkit.fit(recipe, dataset=data, weights=out / "controls" / "s-fork" / "checkpoint.pt")
    scores = worker.study.user_attrs["control {}"]
    kept = read_checkpoint(out / "controls" / f"s-{scores['number']}" / "checkpoint.pt")
    assert equal(continued.model, kept["model"])
    assert (scores["epochs"], len(scores["rungs"])) == (BASE + 2, 1)
    assert search_cost(worker.study, worker.terms).control_epochs == BASE + 2
    assert search_cost(worker.study, worker.terms).epochs_run == 4


@pytest.mark.integration
@pytest.mark.parametrize("state", ["lost", "torn", "in another folder"])
def test_a_worker_that_cannot_read_the_control_trains_it_anew_which_counts(
    searched: tuple[TrialWorker, Path], tiny: Recipe, data: Dataset, tmp_path: Path, state: str
) -> None:
    whole, _ = searched
    first = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "one", rungs=(1, 2), sampler="random")
    first.run_one()  # the control
    if state == "lost":
        shutil.rmtree(tmp_path / "one")
    elif state == "torn":
        (tmp_path / "one" / "controls" / "s-fork" / "checkpoint.pt").write_bytes(b"half")
    folder = {"torn": tmp_path / "one", "lost": tmp_path / "two"}.get(state)
    other = TrialWorker(first.study, first.terms, data, torch.device("cpu"), folder=folder)
    other.run()
    assert outcomes(other) == outcomes(whole), "the same seed gives the same control"
    expected = [1, 1, 1, 2] if folder is None else [1 + BASE, 1, 1, 1]  # without a folder each rung begins anew
    assert trained(other) == expected
    cost = search_cost(other.study, other.terms)
    assert (cost.epochs_run, cost.epochs_saved >= 0) == (sum(expected), True)
    assert (tmp_path / "two" / "controls").exists() == (state == "lost")


def test_a_killed_control_goes_on_from_its_checkpoint(tiny: Recipe, data: Dataset, tmp_path: Path) -> None:
    worker = open_worker(tiny, data, tmp_path / "j", 1, tmp_path / "out")
    rows: list[int] = []

    def stop(row: Any, of: int) -> None:
        rows.append(row["epoch"])
        if len(rows) == 2:
            raise KeyboardInterrupt

    worker.events.epoch = stop
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    again = open_worker(tiny, data, tmp_path / "j", 1, tmp_path / "out")
    again.events.epoch = lambda row, of: rows.append(row["epoch"])
    again.run()
    assert rows == [1, 2, 3, 1, 2, 1, 2], "the control up to the fork, the control continued, the trial"
    assert trained(again) == [2]


@pytest.mark.integration
def test_finals_are_trained_from_initial_weights(searched: tuple[TrialWorker, Path], data: Dataset) -> None:
    worker, out = searched
    with Display(0, quiet=True) as display:
        context = TuneContext(worker.study, worker.terms, out, 1, 1, torch.device("cpu"), data, display)
        with context.team() as team:
            finalists = retrain(context, team)
    assert len(finalists) == 2
    for name, finalist in finalists.items():
        kept = read_checkpoint(out / "final" / f"{name}-seed1" / "checkpoint.pt")
        assert [row["epoch"] for row in kept["history"]] == list(range(1, 2 * BASE + 1))
        assert equal(augkit.fit(finalist.recipe, 1, dataset=data).model, kept["model"])


def test_forks_and_trials_from_initial_weights_are_not_mixed(
    searched: tuple[TrialWorker, Path], tiny: Recipe, data: Dataset, tmp_path: Path
) -> None:
    _, out = searched
    with pytest.raises(InputError, match=r"terms: fork was from the control after epoch 3, is none$"):
        open_worker(tiny, data, out.parent / "j", 3, out, rungs=(1, 2), sampler="random", fork=0)
    assert open_worker(tiny, data, out.parent / "j", 3, out, rungs=(1, 2), sampler="random").is_done()
    open_worker(tiny, data, tmp_path / "j", 3, None, fork=0)
    with pytest.raises(InputError, match=r"terms: fork was none, is from the control after epoch 3$"):
        open_worker(tiny, data, tmp_path / "j", 3, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "model.downsample={choice:[maxpool,blurpool]}",
            "--fork: expected no range of model, because the control's weights fit one architecture,"
            " got model.downsample",
        ),
        ("model.width={search:[2,8],int:true}", "model.width: expected"),
        ("data.canvas={choice:[16,20]}", "data.canvas: cannot be searched, because all trials must share its value"),
        ("--nproc-per-trial 2", "--fork: expected --nproc-per-trial 1, because torchrun builds each network anew"),
        ("--rungs 1,9", "--rungs: expected at most the recipe's 2 epochs, got 1,9"),
    ],
)
def test_what_does_not_go_with_forks_is_refused_in_one_line(
    words: str, message: str, tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny.to_yaml())
    code = run(tune.main, [str(tmp_path / "tiny.yaml"), "--fork", *words.split(), "--output", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
    assert not (tmp_path / "out").exists()
