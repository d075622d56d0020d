"""The queue of cells: each cell is run once, and cells of dead workers are retried."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from optuna.trial import TrialState

from augkit.compare.study import queue as cell_queue
from augkit.compare.study.cells import Cell, CellStore, cells_of, to_do
from augkit.compare.study.pipeline import run_study
from augkit.compare.study.queue import JOURNAL, TOKEN, CellQueue, check_shared, leading
from augkit.compare.study.schema import Study
from augkit.compare.study.worker import CellWorker
from augkit.core.errors import InputError, RunError
from augkit.core.jobs.heartbeat import RetryPolicy
from augkit.core.jobs.pool import WorkerSettings
from augkit.core.jobs.recovery import recover
from augkit.core.jobs.retry import requeue
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import WorkerEvents


def open_cells(study_file: Path, folder: Path, seeds: int = 1, name: str = "q") -> tuple[CellQueue, Study]:
    """A queue with all cells waiting and no worker."""
    folder.mkdir(exist_ok=True)
    study = Study.load(study_file, seeds=seeds)
    queue = CellQueue.open(open_storage(folder / JOURNAL), name, study, lead=True)
    queue.fill(study, folder, cells_of(study))
    return queue, study


def let_fail(monkeypatch: pytest.MonkeyPatch, name: str, error: Exception) -> None:
    """Let one cell raise an error; all others run."""
    work = CellStore.work

    def fails(place: CellStore, cell: Cell, *rest: Any) -> dict[str, Any]:
        if cell.name == name:
            raise error
        return work(place, cell, *rest)

    monkeypatch.setattr(CellStore, "work", fails)


def test_each_cell_is_queued_once(study_file: Path, tmp_path: Path) -> None:
    queue, study = open_cells(study_file, tmp_path / "out")
    queue.fill(study, tmp_path / "out", cells_of(study))
    assert [trial.user_attrs["cell"] for trial in queue.trials()] == [cell.name for cell in cells_of(study)]
    assert not queue.done()


@pytest.mark.integration
def test_a_worker_runs_cells_until_none_is_left(study_file: Path, tmp_path: Path) -> None:
    queue, study = open_cells(study_file, tmp_path / "out")
    CellWorker(queue.queue, torch.device("cpu")).run()
    assert queue.done()
    assert {trial.state.name for trial in queue.trials()} == {"COMPLETE"}
    left = to_do(CellStore(study, tmp_path / "out", torch.device("cpu")), cells_of(study))
    assert [cell.name for cell in left] == ["no-network-seed0"], "what could not be measured is tried again"
    assert queue.failures(set()) == {}


@pytest.mark.integration
def test_a_running_worker_runs_cells_of_an_added_seed(study_file: Path, tmp_path: Path) -> None:
    queue, _ = open_cells(study_file, tmp_path / "out")
    worker = CellWorker(queue.queue, torch.device("cpu"))
    more = Study.load(study_file, seeds=2)
    queue.fill(more, tmp_path / "out", cells_of(more))
    worker.run()
    assert {trial.user_attrs["cell"] for trial in queue.trials()} == {cell.name for cell in cells_of(more)}
    assert {trial.state.name for trial in queue.trials()} == {"COMPLETE"}


@pytest.mark.integration
def test_an_interrupted_worker_hands_its_cell_back(study_file: Path, tmp_path: Path) -> None:
    queue, _ = open_cells(study_file, tmp_path / "out")
    calls = [0]

    def alive() -> None:
        calls[0] += 1
        if calls[0] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CellWorker(queue.queue, torch.device("cpu"), events=WorkerEvents(alive=alive)).run()
    states = [(trial.user_attrs["cell"], trial.state.name) for trial in queue.trials()]
    first = states[0][0]
    assert states[0] == (first, "FAIL")
    assert states[-1] == (first, "WAITING")
    CellWorker(queue.queue, torch.device("cpu")).run()
    assert queue.failures(set()) == {}


@pytest.mark.integration
def test_a_worker_whose_cell_was_taken_over_leaves_the_folder_alone(study_file: Path, tmp_path: Path) -> None:
    queue, study = open_cells(study_file, tmp_path / "out")
    worker = CellWorker(queue.queue, torch.device("cpu"))
    first, lines, slept = cells_of(study)[0], list[str](), list[int]()

    def alive() -> None:
        if not slept:
            slept.append(0)
            (running,) = queue.queue.get_trials(states=(TrialState.RUNNING,))
            requeue(queue.queue, running.number, 1)  # as another worker does if the heartbeat stands still
            time.sleep(0.6)  # until the next heartbeat

    worker.events = WorkerEvents(alive=alive, log=lines.append)
    worker.policy = RetryPolicy(1, 3.0)  # a heartbeat every half second
    worker.run_one()
    assert "was taken over while this worker slept" in lines[0]
    assert not (tmp_path / "out" / "cells" / first.name / "cell.json").exists()
    CellWorker(queue.queue, torch.device("cpu")).run()
    assert (tmp_path / "out" / "cells" / first.name / "cell.json").exists()


@pytest.mark.integration
def test_failed_cells_of_workers_are_named(study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, _ = open_cells(study_file, tmp_path / "out", seeds=2)
    let_fail(monkeypatch, "maxpool+none-seed0", RunError("the loss became NaN"))
    CellWorker(queue.queue, torch.device("cpu")).run()
    assert queue.done()
    assert queue.failures(set()) == {"maxpool+none-seed0": "the loss became NaN"}
    assert queue.failures(queue.closed()) == {}


def test_a_queue_of_another_study_is_refused(study_file: Path, tmp_path: Path) -> None:
    open_cells(study_file, tmp_path / "out")
    tree = yaml.safe_load(study_file.read_text())
    storage = open_storage(tmp_path / "out" / JOURNAL)
    study_file.write_text(yaml.safe_dump({**tree, "images": 50}))
    with pytest.raises(InputError, match="study 'q' is tiny, size quick, with other arms, claims or overrides"):
        CellQueue.open(storage, "q", Study.load(study_file), lead=False)
    assert CellQueue.open(storage, "q", Study.load(study_file), lead=True).leads
    study_file.write_text(yaml.safe_dump({**tree, "name": "other"}))
    with pytest.raises(InputError, match="study 'q' is tiny"):
        CellQueue.open(storage, "q", Study.load(study_file), lead=True)


def test_a_host_that_does_not_see_the_folder_is_refused(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell_queue, "SEEN", 0.1)
    queue, _ = open_cells(study_file, tmp_path / "out")
    check_shared(queue.queue)
    (tmp_path / "out" / TOKEN).rename(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match="which this host does not see: expected an --output on a file system that all"
    ):
        check_shared(queue.queue)
    with pytest.raises(InputError, match="does not see"):
        CellWorker(queue.queue, torch.device("cpu"))


@pytest.mark.integration
def test_a_running_worker_takes_an_added_measure(study_file: Path, tmp_path: Path) -> None:
    queue, _ = open_cells(study_file, tmp_path / "out")
    worker = CellWorker(queue.queue, torch.device("cpu"))
    tree = yaml.safe_load(study_file.read_text())
    tree["measures"]["scale"] = {"axis": "scale", "reach": 1.2, "pairs": 1}
    tree["claims"] = [{**tree["claims"][0], "measure": "scale"}]
    study_file.write_text(yaml.safe_dump(tree))
    more = Study.load(study_file, seeds=1)
    queue.fill(more, tmp_path / "out", cells_of(more))
    worker.run()
    place = CellStore(more, tmp_path / "out", torch.device("cpu"))
    assert all(place.is_done(cell) for cell in cells_of(more))


def test_a_host_with_another_recipe_runs_no_cell(study_file: Path, tmp_path: Path) -> None:
    queue, _ = open_cells(study_file, tmp_path / "out")
    base = yaml.safe_load((tmp_path / "base.yaml").read_text())
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**base, "seed": 5, "optim": {"lr": 0.1, "momentum": 0.5}}))
    with pytest.raises(InputError, match=r"this host reads another recipe for it .* on all hosts"):
        CellWorker(queue.queue, torch.device("cpu"))


def test_a_helper_stops_if_the_leader_withdraws_the_queue(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, wait_until_ready = threading.Event(), cell_queue.wait_until_ready

    def noted(study: optuna.Study) -> None:
        waits.set()
        wait_until_ready(study)

    monkeypatch.setattr(cell_queue, "wait_until_ready", noted)
    study, storage = Study.load(study_file), open_storage(tmp_path / JOURNAL)
    made = CellQueue.open(storage, "q", study, lead=False)
    helpers: list[str] = []

    def help_out() -> None:
        try:
            CellQueue.open(open_storage(tmp_path / JOURNAL), "q", study, lead=False)
        except InputError as error:
            helpers.append(str(error))

    helper = threading.Thread(target=help_out)
    helper.start()
    assert waits.wait(timeout=60)
    made.withdraw()
    helper.join(timeout=20)
    assert helpers == ["study 'q' was withdrawn by the command that created it; see the error there"]


@pytest.mark.integration
@pytest.mark.usefixtures("without_pages")
def test_an_error_in_a_network_fails_its_cell_and_its_traceback_is_stored(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_fail(monkeypatch, "maxpool+none-seed0", ValueError("Expected more than 1 value per channel when training"))
    queue, study = open_cells(study_file, tmp_path / "out", seeds=2)
    CellWorker(queue.queue, torch.device("cpu")).run()
    (reason,) = queue.failures(set()).values()
    trace = tmp_path / "out" / "cells" / "maxpool+none-seed0" / "error.txt"
    assert reason == f"ValueError: Expected more than 1 value per channel when training (traceback in '{trace}')"
    assert "in fails" in trace.read_text()
    assert sum(trial.state == TrialState.COMPLETE for trial in queue.trials()) == 5
    alone = run_study(study, tmp_path / "alone").to_dict()
    assert list(alone["cost"]["failed"]) == ["maxpool+none-seed0"]


def test_only_one_command_at_a_time_leads(study_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with leading(folder) as first:
        assert first
        with leading(folder) as second:
            assert not second
        with pytest.raises(InputError, match="another command is using it"):
            run_study(Study.load(study_file, seeds=1), folder, resume=True)
        with pytest.raises(InputError, match="another command is using it"):
            run_study(Study.load(study_file, seeds=1), folder, overwrite=True)
    with leading(folder) as third:
        assert third


def test_a_journal_does_not_wait_for_workers_of_another_host(study_file: Path, tmp_path: Path) -> None:
    queue, _ = open_cells(study_file, tmp_path / "out")
    trial = queue.queue.ask()
    trial.set_user_attr("worker", "another-host:1:0")
    assert recover(queue.queue, 1, alone=False) == (0, 1)
    assert recover(queue.queue, 1, alone=True) == (1, 0)
    again = [t for t in queue.trials() if t.user_attrs["cell"] == trial.user_attrs["cell"]]
    assert [t.state for t in again] == [TrialState.FAIL, TrialState.WAITING]


@pytest.mark.cluster
@pytest.mark.slow
def test_two_workers_give_the_results_of_one_and_skip_removed_seeds(study_file: Path, tmp_path: Path) -> None:
    study = Study.load(study_file, seeds=1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in the workers, because sums depend on the number of threads
    try:
        alone = run_study(study, tmp_path / "alone").to_dict()
        open_cells(study_file, tmp_path / "both", seeds=3, name="tiny-quick")  # and no worker has run them
        both = run_study(study, tmp_path / "both", spread=WorkerSettings(2), resume=True).to_dict()
    finally:
        torch.set_num_threads(threads)
    assert both["cost"]["failed"] == {}
    assert both["claims"][0]["n_seeds"] == 1
    values = [[row["effect"] and row["effect"]["value"] for row in found["claims"]] for found in (alone, both)]
    assert [value is None for value in values[0]] == [value is None for value in values[1]]
    numbers = [[value for value in found if value is not None] for found in values]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3)


@pytest.mark.integration
@pytest.mark.usefixtures("without_pages")
def test_a_host_leaves_cells_that_it_cannot_run_to_other_hosts(study_file: Path, tmp_path: Path) -> None:
    queue, _ = open_cells(study_file, tmp_path / "out")
    worker = CellWorker(queue.queue, torch.device("cpu"))
    more = Study.load(study_file, seeds=2)
    queue.fill(more, tmp_path / "out", cells_of(more))
    base = (tmp_path / "base.yaml").read_text()
    (tmp_path / "base.yaml").write_text(yaml.safe_dump({**yaml.safe_load(base), "optim": {"lr": 0.1, "momentum": 0.5}}))
    with pytest.raises(InputError, match="this host reads another recipe for it"):
        worker.run()
    assert not queue.done()
    (tmp_path / "base.yaml").write_text(base)
    CellWorker(queue.queue, torch.device("cpu")).run()
    assert queue.failures(set()) == {}
    assert len({t.user_attrs["cell"] for t in queue.trials() if t.state == TrialState.COMPLETE}) == len(cells_of(more))
