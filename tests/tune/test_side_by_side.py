"""A search with a team: the same trials whoever trains them, and nothing lost when something stops."""

from __future__ import annotations

import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FrozenTrial, TrialState
from toy import CONTROL, make_terms

import augkit
from augkit.core.errors import RunError
from augkit.core.jobs.storage import open_storage
from augkit.data import Dataset
from augkit.invariance import Estimate
from augkit.train.history import EpochRow
from augkit.train.recipe import Recipe
from augkit.tune import halving, optuna_study
from augkit.tune import team as teams
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import ControlScores, SearchTerms, rung_of
from augkit.tune.search_jobs import RungScores, Searched, SearchJob
from augkit.tune.side_by_side import SideBySideWorker, can_search_side_by_side
from augkit.tune.team import Task, Team, TeamData
from augkit.tune.trial import TrialWorker

CPU = torch.device("cpu")
RUNGS = (1, 2, 4)


@pytest.fixture(scope="module")
def data() -> Dataset:
    return augkit.load_dataset("digits", limit=100)


class Toy(SideBySideWorker):
    """Its control is not trained."""

    def score_control(self, recipe: Recipe, number: int) -> ControlScores:
        lower: list[Any] = [dict(CONTROL) for _ in RUNGS[:-1]]
        return {**CONTROL, "rungs": lower}  # type: ignore[typeddict-item]


def toy(job: SearchJob, *rest: Any) -> Searched:
    """In place of training: shift makes invariant at no cost, rescaling costs accuracy."""
    policy, before = job.recipe.policy, {1: 0, 2: 1, 4: 2}[job.until]
    assert policy.shift is not None
    assert policy.rescale is not None
    time.sleep(0.003)
    variability = 0.1 * (1 - 0.1 * policy.shift.max_pixels * policy.shift.p * (9 + job.until / 4) / 10)
    report: Any = SimpleNamespace(shift_information=Estimate(variability, variability, variability))
    scores = RungScores(0.95 - 0.3 * (policy.rescale.max_factor - 1), 0.6, {"typical": report})
    rows = [EpochRow(epoch=k + 1, step=k, loss=0.0, lr=0.1, seconds=1.0) for k in range(before, job.until)]
    return Searched(scores, rows, 3.0, 1.0)


class Beside:
    """In place of another process: a thread that takes a random time, and dies with its third job if it is told to."""

    dies = False

    def __init__(self, *arguments: Any) -> None:
        self.jobs = 0

    def ask(self, job: SearchJob) -> Searched | None:
        self.jobs += 1
        time.sleep(0.01 * random.random())
        if self.dies and self.jobs == 3:
            raise ConnectionError
        try:
            return job.perform(None, CPU)  # type: ignore[arg-type]
        except RunError:
            return None

    def end(self) -> None:
        pass


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> type[Beside]:
    kind = type("Other", (Beside,), {})
    monkeypatch.setattr(teams, "_Other", kind)
    monkeypatch.setattr(SearchJob, "perform", toy)
    return kind


def open_toy(data: Dataset, place: Path, trials: int = 8, **fields: Any) -> Any:
    place.mkdir(exist_ok=True)
    terms = make_terms(**{"rungs": RUNGS, "epochs": 4, "floor": 0.0, **fields})
    study, _ = optuna_study.make_or_join(open_storage(place / "j"), "s", terms, trials, join=True)
    return study, terms, data, CPU


def search(given: Any, folder: Path, count: int = 2, kind: type[SideBySideWorker] = Toy) -> optuna.Study:
    study, terms, data, _ = given
    with Team(terms.open_space().recipe, TeamData(data), CPU, count, threads=1) as team:
        kind(*given, folder=folder, team=team).run()
    assert halving.done(study, terms)
    found: optuna.Study = study
    return found


def outcome(trial: FrozenTrial) -> Any:
    return trial.state, trial.params, trial.values, rung_of(trial), halving.configuration_of(trial)


def outcomes(study: optuna.Study) -> list[Any]:
    return [(trial.number, outcome(trial)) for trial in study.get_trials()]


@pytest.mark.integration
def test_the_trials_are_the_same_whoever_trains_them(data: Dataset, tmp_path: Path, beside: type[Beside]) -> None:
    """However long the other process takes, and if it dies."""
    whole = search(open_toy(data, tmp_path / "a"), tmp_path / "a")
    beside.dies = True
    assert outcomes(whole) == outcomes(search(open_toy(data, tmp_path / "b"), tmp_path / "b"))
    done = [t for t in optuna_study.completed(whole) if "same_as" not in t.user_attrs]
    reached = [sum(rung_of(trial) == rung for trial in done) for rung in range(3)]
    assert reached[0] == 8 > reached[1] >= 2 > reached[2] >= 1
    assert [t.user_attrs["trained"] for t in done] == [(1, 1, 2)[rung_of(t)] for t in done]
    seconds = [t.user_attrs["seconds"] for t in done]
    assert seconds == pytest.approx([3.0] * len(done), abs=0.5), "those of the work, not of waiting for it"
    assert {t.user_attrs["measuring"] for t in done} == {1.0}


@pytest.mark.integration
def test_a_trial_has_the_result_that_it_has_alone(tiny: Recipe, tmp_path: Path) -> None:
    """With real training, another process, and random values, which do not depend on what is known meanwhile."""
    digits, studies = augkit.load_dataset("digits", limit=200), list[optuna.Study]()
    whole = tiny.replaced(train={"epochs": 2, "batch_size": 32}, data={**tiny.data.model_dump(), "limit": 200})
    space = augkit.tune.Space.of(whole.model_dump(exclude_none=True), "t")
    rest: Any = {"rungs": (1, 2), "epochs": 2, "sampler": "random", "goal": Goal(atypical=True)}
    for name in "ab":
        terms = SearchTerms(space=space.to_dict(), **rest)
        study, _ = optuna_study.make_or_join(open_storage(tmp_path / name), "s", terms, 4, join=False)
        if name == "a":
            TrialWorker(study, terms, digits, CPU, folder=tmp_path / "alone").run()
        else:
            search((study, terms, digits, CPU), tmp_path / "beside", kind=SideBySideWorker)
        studies.append(study)
    alone, beside = ([(t.state, t.params, t.values, rung_of(t)) for t in study.get_trials()] for study in studies)
    assert sorted(alone, key=repr) == sorted(beside, key=repr)


class Stopped(Toy):
    """Interrupted in its sixth trial."""

    told = 0

    def _searched(self, *arguments: Any) -> Searched:
        self.told += 1
        if self.told == 6:
            raise KeyboardInterrupt
        return super()._searched(*arguments)


def test_an_interrupt_hands_all_open_trials_back_and_the_search_goes_on(
    data: Dataset, tmp_path: Path, beside: type[Beside]
) -> None:
    given = open_toy(data, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        search(given, tmp_path, kind=Stopped)
    trials = given[0].get_trials()
    assert not [t for t in trials if t.state == TrialState.RUNNING]
    assert sum(t.state == TrialState.WAITING for t in trials) == 4, "as many as were open"
    study = search(open_toy(data, tmp_path), tmp_path)
    assert len(optuna_study.finished(study)) == 8
    assert not optuna_study.lost(study)
    reached = [(halving.configuration_of(t), rung_of(t)) for t in optuna_study.completed(study)]
    assert len(set(reached)) == len(reached)
    assert max(rung for _, rung in reached) == 2


@pytest.mark.integration
def test_one_bad_trial_fails_alone(
    data: Dataset, tmp_path: Path, beside: type[Beside], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever process finds it, it fails when its own turn comes, and no other does."""

    def perform(job: SearchJob, *rest: Any) -> Searched:
        assert job.recipe.policy.shift is not None
        if job.until == 1 and job.recipe.policy.shift.max_pixels == 2.0:  # the recipe as it stands
            raise RunError("the loss became NaN")
        return toy(job)

    monkeypatch.setattr(SearchJob, "perform", perform)
    study = search(open_toy(data, tmp_path), tmp_path)
    failed = [t for t in study.get_trials() if t.state == TrialState.FAIL]
    assert [t.user_attrs["error"] for t in failed] == ["the loss became NaN"]
    assert len(optuna_study.finished(study)) == 8


def test_the_team_measures_the_response_curves_that_the_dashboard_shows(
    data: Dataset, tmp_path: Path, beside: type[Beside], monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithCurves(Toy):
        def __post_init__(self) -> None:
            super().__post_init__()
            self.lengths = [1.0, 2.0]

    seen: list[Any] = []

    def perform(job: SearchJob, *rest: Any) -> Searched:
        seen.append(job.lengths)
        return toy(job)

    monkeypatch.setattr(SearchJob, "perform", perform)
    search(open_toy(data, tmp_path, 3, rungs=()), tmp_path, kind=WithCurves)
    assert set(seen) == {(1.0, 2.0)}


def test_what_a_team_cannot_search() -> None:
    terms = SearchTerms(space={}, epochs=4)
    bounded = terms.model_copy(update={"goal": Goal(mode="accuracy", at_least=0.5)})
    forked = terms.model_copy(update={"fork": 2})
    assert can_search_side_by_side(terms, CPU, 1)
    assert not can_search_side_by_side(terms, CPU, 2)
    assert not can_search_side_by_side(terms, torch.device("cuda"), 1)
    assert not any(can_search_side_by_side(other, CPU, 1) for other in (bounded, forked))


def test_a_folder_in_which_another_process_trains_is_left_alone(
    data: Dataset, tmp_path: Path, beside: type[Beside]
) -> None:
    """Its first checkpoint may appear while the trial is told, and looked to be of no use a moment before."""
    study, terms, *rest = open_toy(data, tmp_path)
    with Team(terms.open_space().recipe, TeamData(data), CPU, 1, threads=1) as team:
        worker = Toy(study, terms, *rest, folder=tmp_path, team=team)
        while "control" in (trial := study.ask()).user_attrs:
            pass
        job = worker._job_of(trial, worker._budgeted(worker.space.with_values(worker.configure(trial))))
        assert job.folder is not None
        job.folder.mkdir(parents=True)
        (job.folder / "checkpoint.pt").write_text("another process has just written it")
        worker._task = Task(job)
        assert worker._job_of(trial, job.recipe) == job
        assert (job.folder / "checkpoint.pt").is_file()
