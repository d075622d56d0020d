"""Heartbeats: dead workers are found with one clock, live ones are not affected, with every storage."""

from __future__ import annotations

import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from toy import FunctionWorker

from augkit.core.jobs.heartbeat import BEAT, HeartbeatMonitor, RetryPolicy
from augkit.core.jobs.retry import frozen, requeue
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import WorkerEvents

GRACE = 30.0


@pytest.fixture(params=["journal", "database"])
def study(request: pytest.FixtureRequest, tmp_path: Path) -> optuna.Study:
    """A study with a queued trial."""
    place = tmp_path / "j" if request.param == "journal" else f"sqlite:///{tmp_path}/s.db"
    study = optuna.create_study(storage=open_storage(place))
    study.enqueue_trial({"x": 0.5}, user_attrs={"cell": "a"})
    return study


class Clock:
    """A clock that stands still."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def make_monitor(grace: float = GRACE, retries: int = 1) -> tuple[HeartbeatMonitor, Clock]:
    clock = Clock()
    return HeartbeatMonitor(RetryPolicy(retries, grace), clock), clock


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.trials]


def watch(monitor: HeartbeatMonitor, study: optuna.Study, clock: Clock, seconds: float) -> None:
    """Check every 5 s, as a waiting worker does."""
    for _ in range(int(seconds) // 5):
        monitor.check(study)
        clock.now += 5
    monitor.check(study)


def test_after_a_gap_between_checks_all_grace_periods_restart(study: optuna.Study) -> None:
    """A storage that was away for longer than the grace period, or a laptop that slept."""
    monitor, clock = make_monitor()
    study.ask().set_user_attr("worker", "far:1:0")
    watch(monitor, study, clock, 10)
    clock.now += 1000
    watch(monitor, study, clock, 25)
    assert states(study) == [TrialState.RUNNING]
    watch(monitor, study, clock, 10)
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_without_a_workers_name_is_requeued(study: optuna.Study) -> None:
    monitor, clock = make_monitor()
    study.ask()  # as a worker that dies right after it
    watch(monitor, study, clock, 115)
    assert states(study) == [TrialState.RUNNING]
    watch(monitor, study, clock, 10)
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


def test_a_worker_without_heartbeats_is_dead(study: optuna.Study) -> None:
    monitor, clock = make_monitor()
    trial = study.ask()
    trial.set_user_attr("worker", "far:1:0")
    for beat in range(5):
        trial.set_user_attr(BEAT, beat)
        watch(monitor, study, clock, 20)
    assert states(study) == [TrialState.RUNNING], "100 s of life"
    watch(monitor, study, clock, 20)
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]
    study.ask().set_user_attr("worker", "far:2:0")
    monitor.check(study)
    assert states(study)[1] == TrialState.RUNNING, "it has just begun"
    watch(monitor, study, clock, 35)
    assert states(study) == [TrialState.FAIL, TrialState.FAIL], "one retry was allowed"


@pytest.mark.parametrize("grace", [0.1, 1.0, 1.5, 3.0])
def test_a_short_grace_period_finds_dead_workers_and_spares_live_ones(grace: float) -> None:
    """Checks are half a second apart and take a moment, which must not look like a laptop that slept."""
    study = optuna.create_study()
    study.enqueue_trial({"x": 0.5}, user_attrs={"cell": "a"})
    trial = study.ask()
    trial.set_user_attr("worker", "far:1:0")
    monitor, clock = make_monitor(grace)
    for check in range(20):
        trial.set_user_attr(BEAT, check // 3)
        monitor.check(study)
        clock.now += 0.52
    assert states(study) == [TrialState.RUNNING]
    for _ in range(10):
        monitor.check(study)
        clock.now += 0.52
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.integration
def test_heartbeats_continue_while_the_main_loop_runs_and_stop_with_it(study: optuna.Study) -> None:
    def objective(trial: optuna.Trial) -> float:
        until = time.monotonic() + 60
        while frozen(study, trial.number).user_attrs.get(BEAT, 0) < 2:
            assert time.monotonic() < until
            worker.alive()
            time.sleep(0.02)
        return 1.0

    worker = FunctionWorker(study, objective, policy=RetryPolicy(1, 3.0))  # a beat each half second
    worker.run_one()
    assert states(study) == [TrialState.COMPLETE]
    count = study.trials[0].user_attrs[BEAT]
    time.sleep(0.7)
    worker.alive()
    assert study.trials[0].user_attrs[BEAT] == count


def test_a_worker_whose_trial_was_taken_over_stops_at_its_next_heartbeat(study: optuna.Study) -> None:
    lines: list[str] = []

    def objective(trial: optuna.Trial) -> float:
        requeue(study, trial.number, 1)
        time.sleep(0.6)
        worker.alive()
        raise AssertionError

    worker = FunctionWorker(study, objective, WorkerEvents(log=lines.append), RetryPolicy(1, 3.0))
    worker.run_one()
    assert lines == ["trial 0 was taken over while this worker slept; its result is dropped"]
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.integration
def test_a_worker_that_runs_a_job_also_requeues_trials_of_dead_workers(study: optuna.Study) -> None:
    study.ask().set_user_attr("worker", "far:1:0")
    study.enqueue_trial({"x": 0.1})

    def objective(trial: optuna.Trial) -> float:
        until = time.monotonic() + 60
        while len(study.trials) < 3:
            assert time.monotonic() < until
            worker.alive()
            time.sleep(0.02)
        return 1.0

    worker = FunctionWorker(study, objective, policy=RetryPolicy(1, 3.0))
    worker.run_one()
    assert states(study) == [TrialState.FAIL, TrialState.COMPLETE, TrialState.WAITING]
