"""Trials of a search: exactly the wanted number runs, each once, also after an interrupt."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import TrialState
from toy import RECIPE, FunctionWorker, Toy, make_terms, open_toy

import augkit
from augkit.core.errors import InputError, RunError
from augkit.core.jobs import worker
from augkit.core.jobs.local import visible_gpus
from augkit.core.jobs.recovery import recover, requeue_of
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import WorkerEvents
from augkit.train.recipe import Recipe
from augkit.tune import optuna_study, selection
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import ControlScores
from augkit.tune.results import search_cost, search_results
from augkit.tune.trial import TrialWorker


def numbers(trials: list[optuna.trial.FrozenTrial]) -> list[int]:
    return [trial.number for trial in trials]


def test_exactly_the_wanted_number_of_trials_runs_and_presets_run_first(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 7)
    worker.run()
    done = optuna_study.completed(worker.study)
    assert len(done) == 7
    assert worker.trained == 8
    control = worker.study.trials[0]
    assert control.state == TrialState.COMPLETE
    assert control.values == [0.94, 0.0]
    assert control.user_attrs["control"] == "control {}"
    assert [trial.user_attrs.get("preset") for trial in done[:4]] == ["as it stands", "mild", "strong", None]
    assert worker.space.with_values(done[0].user_attrs["values"]) == worker.space.recipe
    assert done[2].user_attrs["values"]["policy.shift.max_pixels"] == pytest.approx(3.6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler",
    # Fitting Gaussian processes takes longer than all the others.
    [pytest.param(name, marks=pytest.mark.integration if name == "gp" else ()) for name in optuna_study.SAMPLERS],
)
def test_every_sampler_finds_a_synthetic_optimum(tmp_path: Path, sampler: str) -> None:
    worker = open_toy(tmp_path / "j", make_terms(sampler=sampler, seed=3), 30)
    worker.run()
    chosen = selection.candidates(optuna_study.completed(worker.study), Goal(), 0.94, 1_000, 2)[0].user_attrs["values"]
    assert chosen["policy.shift.max_pixels"] * chosen["policy.shift.p"] > (1.5 if sampler == "random" else 2)
    assert chosen["policy.rescale.max_factor"] < 1.12
    importance = selection.importance(worker.study, Goal())
    assert max(importance["accuracy"], key=importance["accuracy"].__getitem__) == "policy.rescale.max_factor"


def test_an_interrupted_trial_is_run_by_the_next_command(tmp_path: Path) -> None:
    class Interrupted(Toy):
        def score(self, trial: optuna.Trial, recipe: Recipe, reference: Callable[[], ControlScores]) -> Any:
            if self.trained == 4:
                raise KeyboardInterrupt
            return super().score(trial, recipe, reference)

    terms = make_terms()
    first = open_toy(tmp_path / "j", terms, 6, kind=Interrupted)
    with pytest.raises(KeyboardInterrupt):
        first.run()
    assert len(optuna_study.completed(first.study)) == 3
    lost = next(trial for trial in first.study.trials if trial.state == TrialState.FAIL)
    second = open_toy(tmp_path / "j", terms, 6, join=True)
    second.run()
    done = optuna_study.completed(second.study)
    assert len(done) == 6
    assert lost.params in [trial.params for trial in done]


def test_the_trial_of_a_killed_worker_is_retried_once(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 3)
    worker.run_one()  # the control
    study = worker.study

    def begin(name: str) -> int:
        trial = study.ask()
        worker.space.suggest(trial)
        trial.set_user_attr("worker", name)
        return trial.number

    first = begin("here:1:0")
    assert requeue_of(study, "here:2:0", 1) == []
    assert requeue_of(study, "here:1:0", 1) == [first]
    assert requeue_of(study, "here:1:0", 1) == [], "nothing is put in line twice"
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert sum(trial.params == study.trials[first].params for trial in waiting) == 1
    worker.run()
    assert len(optuna_study.completed(study)) == 3
    again = begin("here:1:0")
    requeue_of(study, "here:1:0", 0)
    assert study.trials[again].state == TrialState.FAIL
    assert not study.get_trials(states=(TrialState.WAITING,)), "no retries were allowed"


def test_trials_of_a_killed_command_are_recovered(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 3)
    worker.run_one()
    mine, nameless, other = (worker.study.ask() for _ in range(3))
    for trial in (mine, nameless, other):
        worker.space.suggest(trial)
    mine.set_user_attr("worker", worker.name)  # another process with the same process id
    other.set_user_attr("worker", "another-host:1:0")
    assert recover(worker.study, 1, alone=False) == (1, 1)
    assert worker.study.trials[other.number].state == TrialState.RUNNING
    assert recover(worker.study, 1, alone=True) == (2, 0)
    assert recover(worker.study, 1, alone=True) == (0, 0)


def test_recovery_retries_a_trial_whose_worker_died_but_not_one_with_an_error(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 3)
    worker.run_one()
    lost, faulty = (worker.study.ask() for _ in range(2))
    for trial in (lost, faulty):
        trial.set_user_attr("values", worker.space.suggest(trial))
    faulty.set_user_attr("error", "the loss is nan")
    lost.set_user_attr("worker", "another-host:1:0")
    worker.study.tell(faulty, state=TrialState.FAIL)
    assert recover(worker.study, 1, alone=True) == (1, 0)
    assert recover(worker.study, 1, alone=True) == (0, 0)
    worker.run()
    done = [trial.user_attrs["values"] for trial in optuna_study.completed(worker.study)]
    assert worker.study.trials[lost.number].user_attrs["values"] in done
    assert worker.study.trials[faulty.number].user_attrs["values"] not in done


def test_two_concurrent_workers_never_exceed_the_wanted_number(tmp_path: Path) -> None:
    terms = make_terms()
    workers = [open_toy(tmp_path / "j", terms, 12, join=k > 0, index=k) for k in range(4)]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = workers[0].study
    assert len(optuna_study.finished(study)) == 12
    assert sum(worker.trained for worker in workers) <= 13
    assert not study.get_trials(states=(TrialState.RUNNING, TrialState.WAITING))
    first = [trial.user_attrs["values"] for trial in optuna_study.completed(study)]
    assert len({str(values) for values in first}) == 12, "workers propose the same points"


def test_the_last_place_goes_to_the_smallest_number(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 3)
    worker.run_one()
    for number in (1, 2, 3):
        assert worker.study.ask().number == number
    assert [optuna_study.has_place(worker.study, k) for k in (1, 2, 3)] == [True, True, True]
    fourth = worker.study.ask().number
    assert not optuna_study.has_place(worker.study, fourth)
    worker.study.tell(2, state=TrialState.FAIL)
    assert optuna_study.has_place(worker.study, fourth)


def test_a_trial_with_known_values_is_answered_from_the_study(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 4)
    worker.run_one()
    values = worker.space.preset(0.5)
    for _ in range(2):
        worker.study.enqueue_trial(values)
    worker.study.set_user_attr("trials", 5)
    worker.run()
    twins = [trial for trial in optuna_study.completed(worker.study) if trial.user_attrs["values"] == values]
    assert len(twins) == 2
    assert twins[1].user_attrs["same_as"] == twins[0].number
    assert twins[0].values == twins[1].values
    assert worker.trained == 1 + 4
    assert search_cost(worker.study, worker.terms).answered_from_the_study == 1
    assert search_cost(worker.study, worker.terms).epochs_saved == 4


@pytest.mark.integration
def test_bad_trials_are_pruned_and_bounds_are_recorded(tmp_path: Path) -> None:
    goal = Goal(mode="accuracy", at_least=0.3)
    worker = open_toy(tmp_path / "j", make_terms(goal=goal, epochs=8, least_epochs=2, seed=1), 40)
    worker.run()
    assert len(optuna_study.finished(worker.study)) == 40
    cost = search_cost(worker.study, worker.terms)
    assert cost.pruned > 5
    assert cost.epochs_saved > 20
    for trial in optuna_study.finished(worker.study):
        if trial.state == TrialState.PRUNED:
            assert min(trial.intermediate_values) == 1
            assert 2 <= max(trial.intermediate_values) < 8, "not before the least budget"
    best = selection.candidates(optuna_study.completed(worker.study), goal, 0.94, 1_000, 3)
    assert all(trial.user_attrs["learned_invariance"] >= 0.3 for trial in best)
    assert best[0].user_attrs["values"]["policy.rescale.max_factor"] < 1.1
    held = search_results(worker.study, worker.terms)
    assert {row.state for row in held.trials} == {"complete", "pruned"}
    assert all(
        row.feasible == (row.learned_invariance >= 0.3) for row in held.trials[1:] if row.learned_invariance is not None
    )


def test_a_collapsed_trial_is_infeasible(tmp_path: Path) -> None:
    class Collapsing(Toy):
        def score(self, trial: optuna.Trial, recipe: Recipe, reference: Callable[[], ControlScores]) -> Any:
            _, found = super().score(trial, recipe, reference)
            # A constant classifier is perfectly invariant and useless.
            return None, {**found, "accuracy": 0.1, "kappa": 0.0, "learned_invariance": 1.0}

    worker = open_toy(tmp_path / "j", make_terms(), 4, kind=Collapsing)
    worker.run()
    assert not any(map(selection.feasible, optuna_study.completed(worker.study)))
    assert selection.front(optuna_study.completed(worker.study)) == []
    sampled = optuna.load_study(storage=worker.study._storage, study_name="s").best_trials
    assert numbers(sampled) == [0], "Optuna knows the bounds too"


def test_every_architecture_has_one_control(tmp_path: Path) -> None:
    recipe = {
        **RECIPE,
        "model": {"downsample": {"choice": ["maxpool", "blurpool"]}},
        "policy": {"shift": {"max_pixels": {"search": [0, 6]}}, "rescale": {"max_factor": {"search": [1.0, 1.5]}}},
    }
    worker = open_toy(tmp_path / "j", make_terms(recipe), 10)
    worker.run()
    keys = [key for key in worker.study.user_attrs if key.startswith("control")]
    assert len(keys) == 2
    assert worker.trained == 12 - search_cost(worker.study, worker.terms).answered_from_the_study
    assert sum(row.control for row in search_results(worker.study, worker.terms).trials) == 2


def test_a_control_outside_of_the_space_has_no_result_as_a_trial(tmp_path: Path) -> None:
    recipe = {
        **RECIPE,
        "policy": {"shift": {"max_pixels": {"search": [2, 6]}}, "rescale": {"max_factor": {"search": [1.0, 1.5]}}},
    }
    worker = open_toy(tmp_path / "j", make_terms(recipe), 3)
    worker.run()
    assert worker.study.trials[0].state == TrialState.FAIL
    assert len(optuna_study.completed(worker.study)) == 3
    assert search_results(worker.study, worker.terms).trials[0].control


def test_failed_trials_do_not_count_and_three_in_a_row_stop_the_worker(tmp_path: Path) -> None:
    class Failing(Toy):
        fails = (2,)

        def score(self, trial: optuna.Trial, recipe: Recipe, reference: Callable[[], ControlScores]) -> Any:
            if trial.number in self.fails or not self.fails:
                raise RunError("the loss is nan")
            return super().score(trial, recipe, reference)

    terms = make_terms()
    worker = open_toy(tmp_path / "j", terms, 4, kind=Failing)
    worker.run()
    assert len(optuna_study.completed(worker.study)) == 4
    assert search_cost(worker.study, terms).failed == 1
    again = open_toy(tmp_path / "j", terms, 5, join=True, kind=Failing)
    again.fails = ()
    with pytest.raises(RunError, match=r"three trials failed in a row.*nan"):
        again.run()


def test_a_control_that_fails_ends_the_search(tmp_path: Path) -> None:
    class NoControl(Toy):
        def score_control(self, recipe: Recipe, number: int) -> ControlScores:
            raise RunError("the loss is nan")

    worker = open_toy(tmp_path / "j", make_terms(), 4, kind=NoControl)
    with pytest.raises(RunError, match="could not be trained"):
        worker.run()


def scored(*points: tuple[float, float]) -> list[optuna.trial.FrozenTrial]:
    keys = ("accuracy", "learned_invariance")
    return [
        optuna.trial.create_trial(
            values=list(point), user_attrs={**dict(zip(keys, point, strict=True)), "values": {"k": k}}
        )
        for k, point in enumerate(points)
    ]


def test_front_and_candidates_by_hand() -> None:
    trials = scored((0.96, 0.1), (0.95, 0.6), (0.94, 0.5), (0.80, 0.9))

    def chosen(*arguments: Any) -> list[int]:
        return [trial.user_attrs["values"]["k"] for trial in selection.candidates(trials, *arguments)]

    assert [trial.user_attrs["values"]["k"] for trial in selection.front(trials)] == [0, 1, 3]
    # Two standard errors of 0.96 on 500 images are 0.0175, on 50,000 images 0.00175.
    assert chosen(Goal(), 0.9, 500, 2) == [1, 0]
    assert chosen(Goal(), 0.9, 50_000, 2) == [0]
    # With a control far above all trials, the most accurate trials are the candidates.
    assert chosen(Goal(), 0.999, 50_000, 2) == [0, 1]
    assert chosen(Goal(mode="accuracy", at_least=0.5), 0.9, 500, 2) == [1, 2]
    assert chosen(Goal(mode="invariance", at_least=0.9), 0.9, 500, 1) == [1]
    # If no trial meets the bound, the nearest ones are the candidates.
    assert chosen(Goal(mode="accuracy", at_least=0.95), 0.9, 500, 1) == [3]


def test_changed_terms_are_named_in_the_error(tmp_path: Path) -> None:
    open_toy(tmp_path / "j", make_terms(), 3)
    with pytest.raises(InputError, match=r"study 's' exists: add --resume"):
        open_toy(tmp_path / "j", make_terms(), 3)
    narrow, wide = ({**RECIPE, "policy": {"shift": {"max_pixels": {"search": [0, most]}}}} for most in (6, 8))
    open_toy(tmp_path / "k", make_terms(narrow), 3)
    with pytest.raises(InputError, match=r"policy.shift.max_pixels was \[0, 6\], is \[0, 8\]"):
        open_toy(tmp_path / "k", make_terms(wide), 3, join=True)
    with pytest.raises(InputError, match="epochs was 4, is 5"):
        open_toy(tmp_path / "j", make_terms(epochs=5), 3, join=True)
    with pytest.raises(InputError, match=r"train.epochs was 8, is 9"):
        open_toy(tmp_path / "j", make_terms({**RECIPE, "train": {"epochs": 9}}), 3, join=True)
    more = open_toy(tmp_path / "j", make_terms(), 5, join=True)
    assert more.study.user_attrs["trials"] == 5
    assert len(more.study.trials) == 4, "control and presets are in line once"


@pytest.mark.parametrize(
    "fields", [{"mode": "accuracy"}, {"at_least": 0.5}, {"mode": "accuracy", "at_least": 0.5, "atypical": True}]
)
def test_contradictory_goals_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="bound on the other"):
        Goal(**fields)


def test_a_joining_process_waits_until_the_first_trials_are_queued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terms = make_terms()
    storage = open_storage(tmp_path / "j")
    made = optuna.create_study(storage=storage, study_name="s", directions=["maximize", "maximize"])
    made.set_user_attr("terms", terms.model_dump())  # the process that creates the study has stored its terms
    monkeypatch.setattr(worker, "READY", 0.1)
    with pytest.raises(InputError, match="study 's' is not ready"):
        optuna_study.make_or_join(open_storage(tmp_path / "j"), "s", terms, 3, join=True, lead=False)
    assert made.get_trials() == []
    optuna_study.make_or_join(open_storage(tmp_path / "j"), "s", terms, 3, join=True, lead=True)
    presets = [trial.user_attrs.get("preset") for trial in made.get_trials()]
    optuna_study.make_or_join(open_storage(tmp_path / "j"), "s", terms, 3, join=True, lead=False)
    assert [trial.user_attrs.get("preset") for trial in made.get_trials()] == presets
    assert presets == [None, "as it stands", "mild", "strong"]


@pytest.mark.integration
@pytest.mark.parametrize(
    "goal", [Goal(atypical=True), Goal(mode="invariance", at_least=0.0), Goal(mode="accuracy", at_least=-9.0)]
)
def test_real_trials_under_every_goal(goal: Goal, tiny: Recipe, tmp_path: Path) -> None:
    terms = make_terms(tiny.model_dump(exclude_none=True), epochs=3, goal=goal, floor=0.0)
    study, _ = optuna_study.make_or_join(open_storage(tmp_path / "j"), "s", terms, 3, join=False)
    TrialWorker(study, terms, augkit.load_dataset("digits", limit=200), torch.device("cpu")).run()
    reference = study.user_attrs["control {}"]
    for trial in optuna_study.finished(study):
        if trial.state == TrialState.PRUNED:
            assert 1 <= max(trial.intermediate_values) < 3
            continue
        found = trial.user_attrs
        assert trial.values == [found[name] for name in goal.objectives]
        assert found["learned_invariance"] == pytest.approx(
            1 - found["shift_information"] / reference["shift_information"]["typical"]
        )
        if goal.atypical:
            assert len(trial.values) == 3
            assert set(reference["shift_information"]) > {"typical"}
        if goal.mode == "invariance":
            assert set(trial.intermediate_values) == {1, 2, 3}
            assert max(trial.intermediate_values.values()) < 1


@pytest.mark.parametrize(
    ("given", "count", "expected"),
    [(None, 2, ["0", "1"]), ("", 1, ["0"]), ("3", 1, ["3"]), ("GPU-8f,GPU-2c", 2, ["GPU-8f", "GPU-2c"])],
)
def test_workers_get_the_gpus_of_their_parent(
    given: str | None, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert visible_gpus(count) == expected


def test_the_error_of_a_trial_is_not_mistaken_for_a_takeover(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    lines: list[str] = []

    def fails(trial: optuna.Trial) -> float:
        raise ValueError("of its own")

    with pytest.raises(ValueError, match="of its own"):
        FunctionWorker(study, fails, WorkerEvents(log=lines.append)).run_one()
    assert lines == []
