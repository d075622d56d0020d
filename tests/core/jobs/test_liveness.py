"""The dead are found by those who wait, with one clock; the living are left alone."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.trial import TrialState

from augkit.core.jobs.liveness import BEAT, Heartbeats, LivenessMonitor
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import WorkerEvents, frozen, run_one_job, wait_idle


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.trials]


def make_study(tmp_path: Path, grace: float | None = None, retries: int = 1) -> optuna.Study:
    """A study with a trial in line; ``grace`` as behind a proxy."""
    storage = open_storage(tmp_path / "j")
    assert isinstance(storage, JournalStorage)
    if grace is not None:
        storage.heartbeats = Heartbeats(grace, retries)  # type: ignore[attr-defined]
    study = optuna.create_study(storage=storage)
    study.enqueue_trial({"x": 0.5}, user_attrs={"cell": "a"})
    return study


def wait(vigil: LivenessMonitor, study: optuna.Study, now: list[float], seconds: int) -> None:
    """Look every 5 s, as one who waits."""
    for _ in range(seconds // 5):
        vigil.look(study)
        now[0] += 5
    vigil.look(study)


def test_after_a_time_in_which_nothing_was_seen_all_may_show_life_again(tmp_path: Path) -> None:
    """A proxy that was away for longer than the grace."""
    now = [0.0]
    study, vigil = make_study(tmp_path, grace=30.0), LivenessMonitor(clock=lambda: now[0])
    study.ask().set_user_attr("worker", "far:1:0")
    wait(vigil, study, now, 10)
    now[0] += 1000
    wait(vigil, study, now, 25)
    assert states(study) == [TrialState.RUNNING]
    wait(vigil, study, now, 10)
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_that_nobody_put_a_name_to_is_put_in_line_again(tmp_path: Path) -> None:
    now = [0.0]
    study, watch = make_study(tmp_path), WorkerEvents(vigil=LivenessMonitor(clock=lambda: now[0]))
    study.ask()  # and die
    for _ in range(3):
        wait_idle(study, watch, "waiting")
        now[0] += 35
    assert states(study) == [TrialState.RUNNING]
    for _ in range(2):
        wait_idle(study, watch, "waiting")
        now[0] += 35
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


def test_one_with_a_name_is_left_alone_where_the_storage_knows_the_dead(tmp_path: Path) -> None:
    now = [0.0]
    study, vigil = make_study(tmp_path), LivenessMonitor(clock=lambda: now[0])
    study.ask().set_user_attr("worker", "far:1:0")
    for _ in range(3):
        wait(vigil, study, now, 100)
    assert states(study) == [TrialState.RUNNING]


def test_behind_a_proxy_one_that_shows_no_life_is_dead(tmp_path: Path) -> None:
    now = [0.0]
    study, vigil = make_study(tmp_path, grace=30.0), LivenessMonitor(clock=lambda: now[0])
    trial = study.ask()
    trial.set_user_attr("worker", "far:1:0")
    for beat in range(5):
        trial.set_user_attr(BEAT, beat)
        wait(vigil, study, now, 20)
    assert states(study) == [TrialState.RUNNING], "100 s of life"
    wait(vigil, study, now, 20)
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]
    study.ask().set_user_attr("worker", "far:2:0")
    vigil.look(study)
    assert states(study)[1] == TrialState.RUNNING, "it has just begun"
    wait(vigil, study, now, 35)
    assert states(study) == [TrialState.FAIL, TrialState.FAIL], "one retry was allowed"


def test_a_trial_shows_life_while_it_runs_and_no_longer(tmp_path: Path) -> None:
    study, vigil = make_study(tmp_path, grace=3.0), LivenessMonitor()  # a beat each half second

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("worker", "here:1:0")
        until = time.monotonic() + 60
        while frozen(study, trial.number).user_attrs.get(BEAT, 0) < 2:
            vigil.look(study)
            assert time.monotonic() < until
            time.sleep(0.02)
        return 1.0

    run_one_job(study, objective, WorkerEvents())
    assert states(study) == [TrialState.COMPLETE]
    count = study.trials[0].user_attrs[BEAT]
    time.sleep(0.7)
    assert study.trials[0].user_attrs[BEAT] == count
