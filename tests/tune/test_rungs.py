"""Pareto halving with real training: what is trained, what it costs, how it is measured, and what is refused."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import augkit
from augkit.core.cli import run
from augkit.core.jobs import worker as worker_module
from augkit.core.jobs.retry import PostponeJob, requeue
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import WorkerEvents
from augkit.data import Dataset
from augkit.train.checkpoint import read_checkpoint
from augkit.train.recipe import Recipe
from augkit.tune import __main__ as tune
from augkit.tune import halving, optuna_study, training
from augkit.tune import trial as trial_module
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import ControlScores, SearchTerms, rung_of
from augkit.tune.results import search_cost
from augkit.tune.training import RecipeTraining
from augkit.tune.trial import TrialWorker

RUNGS = (1, 2, 4)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return augkit.load_dataset("digits", limit=200)


def open_worker(
    tiny: Recipe, data: Dataset, place: Path, trials: int, folder: Path | None, **fields: Any
) -> TrialWorker:
    space = augkit.tune.Space.of(
        tiny.replaced(train={"epochs": 4, "batch_size": 32}).model_dump(exclude_none=True), "t"
    )
    terms = SearchTerms(space=space.to_dict(), **{"rungs": RUNGS, "epochs": 4, "floor": 0.0, **fields})
    study, _ = optuna_study.make_or_join(open_storage(place), "s", terms, trials, join=True)
    return TrialWorker(study, terms, data, torch.device("cpu"), folder=folder)


def trained(worker: TrialWorker) -> list[int]:
    return [t.user_attrs["trained"] for t in optuna_study.completed(worker.study)]


def test_each_rung_goes_on_from_the_checkpoint_of_the_one_before(tiny: Recipe, data: Dataset, tmp_path: Path) -> None:
    worker = open_worker(tiny, data, tmp_path / "j", 5, tmp_path / "out")
    worker.run()
    trials = optuna_study.completed(worker.study)
    steps = (0, *RUNGS)
    for trial in trials:
        rung = rung_of(trial)
        assert trial.user_attrs["epochs"] == steps[rung + 1]
        assert trial.user_attrs["trained"] == steps[rung + 1] - steps[rung]
    top = next(trial for trial in trials if rung_of(trial) == 2)
    kept = read_checkpoint(tmp_path / "out" / "rungs" / f"s-{halving.configuration_of(top)}" / "checkpoint.pt")
    recipe = worker._budgeted(worker.space.with_values(top.user_attrs["values"]))
    straight = augkit.fit(recipe, dataset=data)
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, kept["model"][name])
    cost = search_cost(worker.study, worker.terms)
    assert cost.epochs_run == sum(trained(worker))
    assert cost.epochs_run + cost.epochs_saved == 5 * 4
    assert len(worker.study.user_attrs["control {}"]["rungs"]) == 2


@pytest.mark.integration
@pytest.mark.parametrize(
    "damage", ["torn", *(pytest.param(other, marks=pytest.mark.slow) for other in ("lost", "of another recipe"))]
)
def test_a_checkpoint_that_cannot_be_used_costs_epochs_but_changes_nothing(
    tiny: Recipe, data: Dataset, tmp_path: Path, damage: str
) -> None:
    whole = open_worker(tiny, data, tmp_path / "a", 3, tmp_path / "whole", sampler="random")
    whole.run()

    class Damaged(TrialWorker):
        def score(self, trial: Any, *rest: Any) -> Any:
            place = tmp_path / "out" / "rungs" / f"s-{halving.configuration_of(trial)}"
            if rung_of(trial) and damage == "lost":
                shutil.rmtree(place)
            elif rung_of(trial) and damage == "torn":
                (place / "checkpoint.pt").write_bytes(b"half")
            elif rung_of(trial):
                shutil.rmtree(place)
                augkit.fit(tiny, seed=3, dataset=data, output=place)
            return super().score(trial, *rest)

    plain = open_worker(tiny, data, tmp_path / "b", 3, None, sampler="random")
    other = Damaged(plain.study, plain.terms, data, torch.device("cpu"), folder=tmp_path / "out")
    other.run()
    ours = {(halving.configuration_of(t), rung_of(t)): t.values for t in optuna_study.completed(whole.study)}
    theirs = {(halving.configuration_of(t), rung_of(t)): t.values for t in optuna_study.completed(other.study)}
    assert ours == theirs
    assert trained(whole) == [1, 1, 1, 1, 2]
    assert trained(other) == [1, 1, 1, 2, 4]


@pytest.mark.integration
def test_another_worker_goes_on_in_the_folder_of_the_first(tiny: Recipe, data: Dataset, tmp_path: Path) -> None:
    first = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "one")
    while not any(map(rung_of, first.study.get_trials())):
        assert first.has_job()
        if not any(map(rung_of, first.study.get_trials())):
            first.run_one()
    other = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "two")
    other.run()
    assert sorted(trained(other)) == [1, 1, 1, 1, 2]
    assert not (tmp_path / "two" / "rungs").exists()


def test_others_train_while_the_control_is_trained_and_wait_for_its_scores(
    tiny: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "POLL", 0.01)
    first = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "out")
    other = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "out")
    waits, real = threading.Event(), first._control_on
    other.events = WorkerEvents(stage=lambda text: waits.set() if text == "waiting for the control" else None)
    beside = threading.Thread(target=other.run_one)

    def control_on(recipe: Recipe, kept: Path, rung: int) -> ControlScores:
        assert other.has_job()
        if rung == 0:
            beside.start()
            assert waits.wait(60)
            checkpoint = read_checkpoint(tmp_path / "out" / "rungs" / "s-1" / "checkpoint.pt")
            assert len(checkpoint["history"]) == RUNGS[0], "it waits only once it is trained"
        elif rung == 1:
            beside.join(60)
            assert not beside.is_alive(), "it needs no more than the scores on its rung"
        return real(recipe, kept, rung)

    monkeypatch.setattr(first, "_control_on", control_on)
    first.run_one()
    (trial,) = (trial for trial in optuna_study.completed(first.study) if trial.number == 1)
    own = first.study.user_attrs["control {}"]["rungs"][0]["shift_information"]["typical"]
    found = trial.user_attrs
    assert found["learned_invariance"] == pytest.approx(1 - found["shift_information"] / own)
    assert found["trained"] == RUNGS[0]


def test_a_trial_that_a_lost_control_leaves_behind_goes_on_from_its_checkpoint(
    tiny: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "POLL", 0.01)
    worker = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "out")
    control, epochs = worker.study.ask(), [0]  # by a worker that then dies
    stages = list[str]()

    def stage(text: str) -> None:
        stages.append(text)
        if text == "waiting for the control" and stages.count(text) == 1:
            requeue(worker.study, control.number, 1)

    worker.events = WorkerEvents(stage=stage, epoch=lambda row, of: epochs.__setitem__(0, epochs[0] + 1))
    worker.run()
    assert "waiting for the control" in stages
    assert [rung_of(t) for t in optuna_study.completed(worker.study)].count(0) == 3
    assert epochs[0] == 4 + 3 * 1 + 1 + 2, "the control, three configurations, and two promotions; nothing twice"
    assert sum(trained(worker)) == 3 * 1 + 1 + 2


def test_trials_that_need_more_than_scores_wait_until_the_control_is_trained(
    tiny: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "out")
    worker.study.ask()  # the control, by another worker
    assert worker.has_job()
    monkeypatch.setattr(worker, "_training", object())  # such as a function
    assert not worker.has_job()
    forks = open_worker(tiny, data, tmp_path / "k", 3, tmp_path / "out2", fork=2, rungs=(), epochs=2)
    forks.study.ask()
    assert not forks.has_job()
    with pytest.raises(PostponeJob):
        worker._reference({"model.width": 3}, 1)


@pytest.mark.integration
def test_epochs_that_an_interrupted_trial_has_kept_are_counted(
    tiny: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "out")
    real, calls = RecipeTraining.measure, [0]

    def measure(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 5:  # a trial, just after its training
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(RecipeTraining, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    worker.run()
    steps = (0, *RUNGS)
    for trial in optuna_study.completed(worker.study):
        rung = rung_of(trial)
        assert trial.user_attrs["trained"] == steps[rung + 1] - steps[rung]


@pytest.mark.integration
def test_a_worker_without_a_folder_trains_anew(tiny: Recipe, data: Dataset, tmp_path: Path) -> None:
    worker = open_worker(tiny, data, tmp_path / "j", 3, None)
    worker.run()
    assert sorted(trained(worker)) == [1, 1, 1, 2, 4]
    assert search_cost(worker.study, worker.terms).epochs_run == 9


@pytest.mark.integration
@pytest.mark.parametrize(
    "goal", [Goal(atypical=True), Goal(mode="invariance", at_least=0.0), Goal(mode="accuracy", at_least=-9.0)]
)
def test_rungs_under_every_goal(goal: Goal, tiny: Recipe, data: Dataset, tmp_path: Path) -> None:
    worker = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "out", goal=goal)
    worker.run()
    control = worker.study.user_attrs["control {}"]
    trials = worker.study.get_trials()
    assert [len(halving.outcomes(trials, rung)) for rung in range(3)] == [3, 1, 1]
    for trial in optuna_study.completed(worker.study):
        found, reference = trial.user_attrs, halving.scores_on(control, rung_of(trial))
        assert trial.values == [found[name] for name in goal.objectives]
        own = reference["shift_information"]["typical"]
        assert found["learned_invariance"] == pytest.approx(1 - found["shift_information"] / own)
        assert trial.intermediate_values == {}
        assert ("at_least" in found["bounds"]) == (goal.at_least is not None)
        on_top = rung_of(trial) == len(RUNGS) - 1
        assert ({"accuracy", "kappa"} <= found["bounds"].keys()) == on_top, "a floor on the top rung alone"


@pytest.mark.integration
def test_below_the_top_few_images_are_measured_and_the_same_for_all(
    tiny: Recipe, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "FEW", 40)
    measured: list[tuple[int, int, int]] = []
    pixels: dict[int, set[float]] = {}
    real = training.measure_model

    def measure(model: Any, recipe: Recipe, images: Any, **rest: Any) -> Any:
        measured.append((len(images), recipe.invariance.pairs, len(rest["lengths"])))
        pixels.setdefault(len(images), set()).add(float(images.images.double().sum()))
        return real(model, recipe, images, **rest)

    monkeypatch.setattr(training, "measure_model", measure)
    worker = open_worker(tiny, data, tmp_path / "j", 3, tmp_path / "out")
    worker.lengths = [1.0, 2.0]
    worker.run()
    whole = len(worker.validation)
    assert measured[:3] == [(40, 1, 0), (40, 1, 0), (whole, 2, 0)], "the control, on each rung"
    assert measured[3:] == [(40, 1, 0)] * 4 + [(whole, 2, 2)]
    assert [len(found) for found in pixels.values()] == [1, 1]


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = run(tune.main, list(words))
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--rungs 4", "--rungs: expected two or more ascending numbers of epochs, such as 2,4,8, got 4"),
        ("--rungs 4,2", "ascending numbers of epochs, such as 2,4,8, got 4,2"),
        ("--rungs 0,2", "ascending numbers of epochs, such as 2,4,8, got 0,2"),
        ("--rungs two", "expected numbers of epochs, such as 2,4,8, or none, got 'two'"),
        ("--rungs 2,80", "--rungs: expected at most the recipe's 2 epochs, got 2,80; raise train.epochs"),
        ("--rungs 1,2 --trial-epochs 4", "--rungs: expected the last one to be --trial-epochs 4, got 1,2"),
        ("--rungs 1,2 --factor 1", "factor: expected a whole number of 2 or more, got 1"),
        ("--rungs none --factor 2", "--factor: expected rungs, whose best part it sets, got --rungs none"),
        ("--rungs 1,2 --sampler nsga2", "--rungs: expected --sampler tpe, gp, qmc, random, got nsga2"),
        ("--rungs 1,2 --nproc-per-trial 2", "--rungs: expected --nproc-per-trial 1, because torchrun"),
        ("--rungs 1,2 --least-epochs 1", "--least-epochs: expected no --rungs, which replace pruning"),
    ],
)
def test_what_does_not_go_with_rungs_is_refused_in_one_line(
    words: str, message: str, tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny.to_yaml())
    code, said = call(capsys, str(tmp_path / "tiny.yaml"), *words.split(), "--output", str(tmp_path / "out"))
    assert code == 2
    assert said.count("\n") == 1
    assert message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_command_reports_rungs_and_refuses_to_go_on_without_them(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny.replaced(train={"epochs": 4, "batch_size": 32}).to_yaml())
    folder, common = tmp_path / "out", [str(tmp_path / "tiny.yaml"), "--trials", "4", "--seeds", "1", "--top", "2"]
    common += ["--output", str(folder), "--floor", "0"]
    began = time.monotonic()
    code, said = call(capsys, *common, "--rungs", "1,2,4")
    elapsed = time.monotonic() - began
    assert code == 0, said
    assert "after epoch 1: 4 configurations; rank correlation with the top rung accuracy undetermined" in said
    results = json.loads((folder / "results.json").read_text())
    assert [(row["epochs"], row["reached"]) for row in results["rungs"]] == [(1, 4), (2, 1), (4, 1)]
    assert results["settings"]["trials"] == 4
    assert results["budget"] == 4
    seconds = results["cost"].pop("seconds")
    assert sum(results["cost"].values()) == pytest.approx(seconds, abs=0.01), "phases add up to the total"
    assert {"search", "final runs", "dose-response and test split", "report", "the rest"} == results["cost"].keys()
    assert elapsed - 5 < seconds < elapsed + 0.5
    spent = results["search_cost"]
    assert 0 < spent["measuring_seconds"] < spent["trial_seconds"] < seconds
    assert len(results["finalists"]) == 3, "one from the top rung, one from below, and the control"
    assert results["search_cost"]["epochs_run"] + results["search_cost"]["epochs_saved"] == 16
    page = (folder / "report.html").read_text()
    assert "What a rung is worth" in page
    assert "4 trials of 1, 2 or 4 epochs" in page
    before = (folder / "study.journal").read_bytes()
    assert not (folder / "rungs").exists(), "only an unfinished search needs checkpoints"
    code, said = call(capsys, *common, "--rungs", "none", "--resume")
    assert (code, said.count("\n")) == (2, 1)
    assert "cannot be resumed or joined with other terms: rungs was 1,2,4, is none" in said
    assert (folder / "study.journal").read_bytes().startswith(before), "nothing is lost"
    assert call(capsys, *common, "--resume")[0] == 0, "the rungs of the study stand"
    assert json.loads((folder / "results.json").read_text())["rungs"] == results["rungs"]
    assert call(capsys, "--show", str(folder))[0] == 0
    assert "What a rung is worth" in (folder / "search.html").read_text()
