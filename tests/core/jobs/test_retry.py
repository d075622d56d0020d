"""Retries: a retry has the task of its origin, and only its own results."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from toy import FunctionWorker, Toy, make_terms, open_toy

from augkit.core.errors import RunError
from augkit.core.jobs import retry as retries
from augkit.core.jobs.journal import StorageLostError
from augkit.core.jobs.recovery import recover
from augkit.core.jobs.retry import RETRY_OF, frozen, hand_back, requeue
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import GiveUpError, WorkerEvents
from augkit.train.recipe import Recipe
from augkit.tune import optuna_study
from augkit.tune.optuna_study import ControlScores
from augkit.tune.results import search_cost


def wait(ask: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not ask():
        assert time.monotonic() < until
        time.sleep(0.01)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


WAYS: dict[str, Callable[[optuna.Study, int], object]] = {
    "its worker was killed": lambda study, number: requeue(study, number, 1),
    "its worker was interrupted": hand_back,
}


def test_a_trial_interrupted_after_its_bounds_were_stored_is_judged_again(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 3)
    worker.on_trial = interrupt
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    lost = next(trial for trial in worker.study.trials if trial.state == TrialState.FAIL)
    assert "bounds" in lost.user_attrs, "it was judged"
    assert set(worker.study.trials[-1].user_attrs) == {"values", "preset", RETRY_OF}
    assert worker.study.trials[-1].state == TrialState.WAITING
    second = open_toy(tmp_path / "j", make_terms(), 3, join=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.run()
    assert len(optuna_study.completed(second.study)) == 3
    assert all(t.user_attrs["worker"] == second.name for t in optuna_study.completed(second.study))


@pytest.mark.parametrize("way", WAYS)
def test_a_retry_keeps_what_to_run_and_drops_results(tmp_path: Path, way: str) -> None:
    study = optuna.create_study(
        storage=open_storage(tmp_path / "j"), pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1)
    )
    study.enqueue_trial({"x": 0.25}, user_attrs={"preset": "mild"})
    trial = study.ask()
    assert trial.suggest_float("x", 0, 1) == 0.25
    for key, value in {"worker": "here:1:0", "values": {"x": 0.25}, "accuracy": 0.5, "seconds": 1.0}.items():
        trial.set_user_attr(key, value)
    trial.set_constraint("accuracy", 1.0)
    trial.report(0.5, 1)
    trial.should_prune()
    before = frozen(study, trial.number)
    assert any("rung" in key for key in before.system_attrs), "it passed a rung"

    WAYS[way](study, trial.number)
    old, new = study.trials
    assert old.state == TrialState.FAIL
    assert {**old.user_attrs} == before.user_attrs
    assert old.system_attrs == before.system_attrs, "the record of the trial that failed is whole"
    assert new.state == TrialState.WAITING
    assert new.user_attrs == {"preset": "mild", "values": {"x": 0.25}, RETRY_OF: 0}
    assert new.intermediate_values == {}
    assert new.params == {"x": 0.25}
    counted = way != "its worker was interrupted"
    history = {"failed_trial": 0, "retry_history": [0]} if counted else {}
    assert new.system_attrs == {"fixed_params": {"x": 0.25}, **history}

    second = study.ask()
    assert second.number == 1
    assert second.suggest_float("x", 0, 1) == 0.25
    WAYS[way](study, second.number)
    assert len(study.trials) == (2 if counted else 3), "one retry was allowed; an interrupt is none"


class InterruptedControl(Toy):
    """Interrupt the training of the control."""

    def score_control(self, recipe: Recipe, number: int) -> ControlScores:
        raise KeyboardInterrupt


class FullDisk(Toy):
    """Let the disk be full when the control is stored."""

    def score_control(self, recipe: Recipe, number: int) -> ControlScores:
        raise GiveUpError("the control could not be trained: no space left")


@pytest.mark.parametrize(("kind", "ends"), [(InterruptedControl, KeyboardInterrupt), (FullDisk, RunError)])
def test_a_control_queued_behind_the_presets_runs_first(
    tmp_path: Path, kind: type[Toy], ends: type[BaseException]
) -> None:
    with pytest.raises(ends):
        open_toy(tmp_path / "j", make_terms(), 5, kind=kind).run()
    second = open_toy(tmp_path / "j", make_terms(), 5, join=True)
    recover(second.study, 1, alone=True)
    optuna_study.restore_controls(second.study, second.terms)
    second.run()
    assert second.trained == 6
    presets = {trial.user_attrs.get("preset") for trial in optuna_study.completed(second.study)}
    assert {"as it stands", "mild", "strong"} <= presets
    assert optuna_study.lost(second.study) == []
    assert recover(second.study, 1, alone=True) == (0, 0)
    assert optuna_study.restore_controls(second.study, second.terms) == 0, "it was trained"


def test_a_waiting_worker_trains_the_control_if_its_worker_died(tmp_path: Path) -> None:
    first, second = (open_toy(tmp_path / "j", make_terms(), 3, join=k > 0, index=k) for k in range(2))
    control = first.study.ask()
    control.set_user_attr("worker", first.name)
    stages: list[str] = []
    second.events = WorkerEvents(stage=stages.append)
    thread = threading.Thread(target=second.run)
    thread.start()
    wait(lambda: "waiting for the control" in stages)
    requeue(first.study, control.number, 1)  # as the parent does
    thread.join(timeout=60)
    assert not thread.is_alive()
    assert len(optuna_study.completed(first.study)) == 3
    assert second.trained == 5, "the first trial is trained again, as this worker keeps no checkpoints"


def test_a_control_that_is_handed_back_is_never_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 3)
    control, fail = worker.study.ask(), retries.fail
    asked: list[bool] = []

    def look_first(study: optuna.Study, number: int) -> bool:
        asked.append(worker.has_job())
        out = fail(study, number)
        asked.append(worker.has_job())
        return out

    with monkeypatch.context() as patch:
        patch.setattr(retries, "fail", look_first)
        hand_back(worker.study, control.number)
    assert asked == [True, True], "no RunError before, and none after"
    while worker.study.ask().user_attrs.get("control") is None:
        pass
    control = next(t for t in worker.study.trials if t.state == TrialState.RUNNING and "control" in t.user_attrs)
    worker.study.tell(control.number, state=TrialState.FAIL)
    with pytest.raises(RunError, match=r"control \{\} could not be trained"):
        worker.has_job()


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_during_tell_keeps_the_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 4)
    worker.run_one()
    storage = worker.study._storage
    tell = storage.set_trial_state_values

    def interrupted(trial_id: int, state: TrialState, values: Any = None) -> bool:
        if state != TrialState.COMPLETE:
            return tell(trial_id, state, values)
        if when == "after":
            tell(trial_id, state, values)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "set_trial_state_values", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.run()
    assert not worker.study.get_trials(states=(TrialState.RUNNING,))
    assert len(optuna_study.completed(worker.study)) == (1 if when == "after" else 0)
    second = open_toy(tmp_path / "j", make_terms(), 4, join=True)
    assert recover(second.study, 0, alone=True) == (0, 0), "no retry was allowed, and none is needed"
    second.run()
    done = optuna_study.completed(second.study)
    assert len(done) == 4
    assert {"as it stands", "mild", "strong"} <= {trial.user_attrs.get("preset") for trial in done}
    assert search_cost(second.study, make_terms()).failed == 0


def test_a_second_interrupt_during_the_hand_back_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    study.enqueue_trial({"x": 0.5})
    tell = study._storage.set_trial_state_values

    def interrupted(trial_id: int, state: TrialState, values: Any = None) -> bool:
        tell(trial_id, state, values)
        if state == TrialState.FAIL:
            raise KeyboardInterrupt
        return True

    with monkeypatch.context() as patch:
        patch.setattr(study._storage, "set_trial_state_values", interrupted)
        with pytest.raises(KeyboardInterrupt):
            FunctionWorker(study, interrupt).run_one()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.parametrize("outcome", ["finished", "failed"])
def test_a_full_disk_during_tell_gives_a_one_line_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    lost, tell = StorageLostError("no space left"), study._storage.set_trial_state_values

    def objective(trial: optuna.Trial) -> float:
        if outcome == "failed":
            raise RunError("the loss is nan")
        return 1.0

    def full(trial_id: int, state: TrialState, values: Any = None) -> bool:
        if state.is_finished():
            raise lost
        return tell(trial_id, state, values)

    monkeypatch.setattr(study._storage, "set_trial_state_values", full)
    with pytest.raises(StorageLostError) as caught:
        FunctionWorker(study, objective).run_one()
    assert caught.value is lost


def test_a_postponed_preset_is_queued_before_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 4)
    worker.study.tell(worker.study.ask(), state=TrialState.FAIL)
    worker.study.enqueue_trial({}, user_attrs={"control": "control {}"})
    with monkeypatch.context() as patch:
        patch.setattr(retries, "fail", interrupt)
        with pytest.raises(KeyboardInterrupt):
            worker.run_one()
    second = open_toy(tmp_path / "j", make_terms(), 4, join=True)
    recover(second.study, 1, alone=True)
    second.run()
    presets = [trial.user_attrs.get("preset") for trial in optuna_study.completed(second.study)]
    assert sorted(filter(None, presets)) == ["as it stands", "mild", "strong"], "each once"


@pytest.mark.parametrize("way", WAYS)
def test_a_crash_between_retry_and_failure_leaves_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    study.enqueue_trial({"x": 0.5})
    first = study.ask()
    with monkeypatch.context() as patch:
        patch.setattr(retries, "fail", interrupt)
        with pytest.raises(KeyboardInterrupt):
            WAYS[way](study, first.number)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING, TrialState.WAITING]
    WAYS[way](study, first.number)  # another worker does the same
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_retry_is_run_only_once_its_origin_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This also holds if the process that enqueued it died before the second step, or the origin has finished."""
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    ran: list[int] = []

    def note(trial: optuna.Trial) -> float:
        ran.append(trial.number)
        return 1.0

    for origin_finishes in (False, True):
        study.enqueue_trial({"x": 0.5})
        first = study.ask()
        with monkeypatch.context() as patch:
            patch.setattr(retries, "fail", lambda study, number: False)
            requeue(study, first.number, 1)
        if origin_finishes:
            study.tell(first, 1.0)
        FunctionWorker(study, note).run_one()
    assert ran == [1]
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE", "FAIL"]


def test_only_the_first_of_two_retries_of_a_trial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers find the same dead worker at the same moment."""
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    study.enqueue_trial({"x": 0.5})
    study.ask()
    with monkeypatch.context() as patch:
        patch.setattr(retries, "_retries_of", lambda study, origin: [])
        patch.setattr(retries, "fail", lambda study, number: False)
        requeue(study, 0, 1)
        requeue(study, 0, 1)
    first, second = study.ask(), study.ask()
    with pytest.raises(retries.SkipJob):
        retries.claim(study, second)
    retries.claim(study, first)
    assert study.trials[0].state == TrialState.FAIL


def test_an_interrupt_of_a_trial_that_was_taken_over_is_raised(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    study.enqueue_trial({"x": 0.5})

    def objective(trial: optuna.Trial) -> float:
        requeue(study, trial.number, 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionWorker(study, objective).run_one()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_whose_bug_ends_its_worker_is_retried_once(tmp_path: Path) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    study.enqueue_trial({"x": 0.5})

    def objective(trial: optuna.Trial) -> float:
        raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            FunctionWorker(study, objective).run_one()
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.FAIL]


@pytest.mark.parametrize("way", WAYS)
def test_a_trial_that_does_not_define_what_to_run_is_not_requeued(tmp_path: Path, way: str) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    WAYS[way](study, study.ask().number)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]
