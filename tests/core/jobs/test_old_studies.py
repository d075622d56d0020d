"""Studies of earlier versions of augkit are resumed; the tests write their attributes by hand."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from toy import CONTROL, make_terms, open_toy

from augkit.compare.study.queue import REQUEST, CellRequest
from augkit.core.jobs.recovery import recover
from augkit.core.jobs.storage import open_storage
from augkit.tune import optuna_study
from augkit.tune.optuna_study import SearchTerms

POINT = {
    "policy.shift.max_pixels": 5.32,
    "policy.shift.p": 0.766,
    "policy.rescale.max_factor": 1.42,
    "policy.rescale.p": 0.278,
}


def write_old_study(place: Path, terms: SearchTerms) -> optuna.Study:
    """A study with its control done, one trial of a dead worker without a heartbeat, and one that it ran again."""
    study = optuna.create_study(
        storage=open_storage(place), study_name="s", directions=["maximize"] * len(terms.goal.objectives)
    )
    for key, value in {"terms": terms.model_dump(), "trials": 3, "ready": True}.items():
        study.set_user_attr(key, value)
    study.set_user_attr("control {}", {**CONTROL, "number": 0, "epochs": 4, "seconds": 1.0})
    for key, extra in (("gone:1:0", {}), ("gone:2:0", {"failed_trial": 7, "retry_history": [7]})):
        distributions = {name: FloatDistribution(0.0, 10.0) for name in POINT}
        study.add_trial(
            optuna.create_trial(state=TrialState.WAITING, params=POINT, distributions=distributions, system_attrs=extra)
        )
        trial = study.ask()
        trial.set_user_attr("process", "of-another-boot:1")
        trial.set_user_attr("worker", key)
        trial.set_user_attr("values", POINT)
    return study


def test_a_search_of_an_earlier_version_is_resumed(tmp_path: Path) -> None:
    terms = make_terms()
    study = write_old_study(tmp_path / "j", terms)
    assert recover(study, 1, alone=True) == (2, 0)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "FAIL", "WAITING"], "the second had its retry"
    assert study.trials[2].system_attrs["retry_history"] == [0]
    assert optuna_study.restore_controls(study, terms) == 0
    worker = open_toy(tmp_path / "j", terms, 3, join=True)
    worker.run()
    done = optuna_study.completed(worker.study)
    assert len(done) == 3
    assert POINT in [trial.user_attrs["values"] for trial in done]


def test_a_control_that_an_earlier_version_lost_is_queued_again(tmp_path: Path) -> None:
    """The earlier version failed a trial first, and enqueued its retry second."""
    terms = make_terms()
    worker = open_toy(tmp_path / "j", terms, 3)
    worker.study.tell(worker.study.ask(), state=TrialState.FAIL)
    assert optuna_study.restore_controls(worker.study, terms) == 1
    assert optuna_study.restore_controls(worker.study, terms) == 0
    worker.run()
    assert len(optuna_study.completed(worker.study)) == 3


@pytest.mark.parametrize("seeds", [1, 3])
def test_cells_of_an_earlier_version_are_read(tmp_path: Path, study_file: Path, seeds: int) -> None:
    queue = optuna.create_study(storage=open_storage(tmp_path / "j"))
    assert REQUEST not in queue.user_attrs
    order = {
        "study": study_file.read_text(),
        "source": str(study_file),
        "size": "quick",
        "seeds": seeds,
        "folder": str(tmp_path),
        "token": "t",
        "cells": {},
    }
    queue.set_user_attr("order", order)
    request = CellRequest.of(queue)
    assert request.open().seeds == seeds
    assert request.token == "t"
