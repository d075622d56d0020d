"""A trial in line again is what it was when it was asked for, and is judged by what comes of it now."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from toy import make_terms, open_toy

from augkit import search
from augkit.requeueing import Retry, requeue, requeue_interrupted
from augkit.storages import open_storage
from augkit.taking import frozen


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def failed(study: optuna.Study, number: int) -> FrozenTrial:
    study.tell(number, state=TrialState.FAIL)
    return frozen(study, number)


WAYS: dict[str, Callable[[optuna.Study, int], object]] = {
    "its worker was killed": lambda study, number: requeue(study, number, 1),
    "its worker was interrupted": lambda study, number: requeue_interrupted(study, failed(study, number)),
    "its heartbeat stopped": lambda study, number: Retry(1)(study, failed(study, number)),
}


def test_a_trial_interrupted_after_it_was_judged_is_judged_anew(tmp_path: Path) -> None:
    worker = open_toy(tmp_path / "j", make_terms(), 3)
    worker.on_trial = interrupt
    with pytest.raises(KeyboardInterrupt):
        worker.run()
    lost = next(trial for trial in worker.study.trials if trial.state == TrialState.FAIL)
    assert "bounds" in lost.user_attrs, "it was judged"
    assert set(worker.study.trials[-1].user_attrs) == {"values", "preset"}
    assert worker.study.trials[-1].state == TrialState.WAITING
    second = open_toy(tmp_path / "j", make_terms(), 3, join=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.run()
    assert len(search.completed(second.study)) == 3
    assert all(t.user_attrs["worker"] == second.name for t in search.completed(second.study))


@pytest.mark.parametrize("way", WAYS)
def test_what_is_asked_for_stays_and_what_came_of_it_goes(tmp_path: Path, way: str) -> None:
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
    assert new.user_attrs == {"preset": "mild", "values": {"x": 0.25}}
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


@pytest.mark.parametrize("way", WAYS)
def test_a_trial_that_says_nothing_is_not_put_in_line(tmp_path: Path, way: str) -> None:
    study = optuna.create_study(storage=open_storage(tmp_path / "j"))
    WAYS[way](study, study.ask().number)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL]
