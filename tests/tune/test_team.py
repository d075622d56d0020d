"""Networks side by side: the same bits as one after the other, whatever happens to the other process."""

from __future__ import annotations

import dataclasses
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from augkit.core.errors import RunError
from augkit.data import Dataset
from augkit.measure.comparison import TYPICAL, Reports
from augkit.train.build import load_recipe_data
from augkit.train.recipe import Recipe
from augkit.tune import team as teams
from augkit.tune.final_jobs import FinalJob
from augkit.tune.team import ATYPICAL, MOST, PAYS, Task, Team, TeamData, team_size

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset(tiny: Recipe) -> Dataset:
    return load_recipe_data(tiny)


def jobs_in(folder: Path, recipe: Recipe, **changed: Any) -> list[FinalJob]:
    return [FinalJob("a", recipe, seed, folder / f"a{seed}", **changed) for seed in (1, 2, 3)]


def in_team(folder: Path, recipe: Recipe, dataset: Dataset, count: int, **changed: Any) -> list[Reports]:
    with Team(recipe, TeamData(dataset), CPU, count, threads=1) as team:
        return team.run(jobs_in(folder, recipe, **changed))


def same(first: Reports, second: Reports) -> bool:
    """Whether all per-image statistics of two networks have the same bits."""
    pairs = [(first[name].statistics, second[name].statistics) for name in first]
    return first.keys() == second.keys() and all(torch.equal(a[k], b[k]) for a, b in pairs for k in a)


def weights(folder: Path) -> list[torch.Tensor]:
    model = torch.load(folder / "checkpoint.pt", weights_only=False)["model"]
    return list(model.values())


@pytest.mark.integration
def test_networks_side_by_side_have_the_bits_of_those_one_after_the_other(
    tiny: Recipe, dataset: Dataset, tmp_path: Path
) -> None:
    """Also where they are measured later, on the test split, from their folders."""
    alone = in_team(tmp_path / "1", tiny, dataset, 1)
    beside = in_team(tmp_path / "2", tiny, dataset, 2)
    assert all(map(same, alone, beside))
    for seed in (1, 2, 3):
        pairs = zip(weights(tmp_path / "1" / f"a{seed}"), weights(tmp_path / "2" / f"a{seed}"), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    later: dict[str, Any] = {"sets": (TYPICAL, "upside down"), "lengths": (1.0, 2.0)}
    first, second = (in_team(tmp_path / str(n), tiny, dataset, n, **later) for n in (1, 2))
    assert all(map(same, first, second))
    assert {len(report[TYPICAL].curve) for report in second} == {2}
    assert {len(report["upside down"].curve) for report in second} == {0}
    counts = [len(second[0][name].statistics["js"]) for name in later["sets"]]
    assert counts[1] == -(-ATYPICAL * counts[0] // 1)


@pytest.mark.integration
def test_what_another_process_cannot_do_is_done_here(
    tiny: Recipe, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot start: this process does all jobs. A job that fails everywhere raises its error here."""
    monkeypatch.setattr(teams, "MODULE", "augkit.no_such_module")
    done: list[tuple[int, bool]] = []
    with Team(tiny, TeamData(dataset), CPU, 2, threads=1) as team:
        found = team.run(jobs_in(tmp_path, tiny), done=lambda job, here: done.append((job.seed, here)))
    assert sorted(done) == [(1, True), (2, True), (3, True)]
    assert same(found[1], jobs_in(tmp_path / "again", tiny)[1].perform(TeamData(dataset), CPU))

    def broken(*arguments: Any, **rest: Any) -> Any:
        raise RunError("the loss became NaN")

    monkeypatch.setattr(FinalJob, "perform", broken)
    with (
        Team(tiny, TeamData(dataset), CPU, 2, threads=1) as team,
        pytest.raises(RunError, match="the loss became NaN"),
    ):
        team.run(jobs_in(tmp_path / "b", tiny))


def test_interrupted_runs_go_on_and_give_the_same_bits(tiny: Recipe, dataset: Dataset, tmp_path: Path) -> None:
    class Stop(BaseException):
        pass

    def stop(row: Any) -> None:
        raise Stop

    data = TeamData(dataset)
    whole = jobs_in(tmp_path / "whole", tiny)[0].perform(data, CPU)
    job = jobs_in(tmp_path / "torn", tiny)[0]
    with pytest.raises(Stop), Team(tiny, data, CPU, 1) as team:
        team.run([job], on_epoch=stop)
    assert (job.folder / "checkpoint.pt").is_file()
    trained: list[Any] = []
    with Team(tiny, data, CPU, 1) as team:
        assert same(team.run([job], on_epoch=trained.append)[0], whole)
    assert len(trained) == tiny.train.epochs - 1


def test_threads_are_those_of_the_team_while_it_works_and_restored_afterwards(
    tiny: Recipe, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(FinalJob, "perform", lambda *arguments: seen.append(torch.get_num_threads()) or {})
    before = torch.get_num_threads()
    with Team(tiny, TeamData(dataset), CPU, 1, threads=before + 1) as team:
        team.run([dataclasses.replace(jobs_in(Path(), tiny)[0], sets=())])
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


def test_a_second_process_is_started_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert team_size(CPU, 9, PAYS) == MOST
    assert team_size(CPU, 2, PAYS) == 2
    assert team_size(CPU, 9, PAYS - 1) == 1
    assert team_size(torch.device("cuda"), 9, 10 * PAYS) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert team_size(CPU, 9, PAYS) == 2
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert team_size(CPU, 9, PAYS) == 1
    assert teams.MODULE == "augkit.tune.team_worker"


class Named:
    """A job that returns its name, or raises an error of that name."""

    def __init__(self, name: str, log: list[str], *, broken: bool = False) -> None:
        self.name, self.log, self.broken = name, log, broken

    def perform(self, *arguments: Any) -> str:
        self.log.append(self.name)
        if self.broken:
            raise RunError(self.name)
        return self.name


def test_a_wanted_task_comes_first_and_the_error_of_another_waits_for_its_turn(tiny: Recipe, dataset: Dataset) -> None:
    """A process that waits for another does the next task meanwhile; if that fails, the wanted one is not disturbed."""
    log: list[str] = []
    with Team(tiny, TeamData(dataset), CPU) as team:
        given = {name: team.give(Task(Named(name, log, broken=name == "b"))) for name in "abcd"}
        assert team.result(given["c"]) == "c"
        team.drop(given["d"])
        team.drop(given["a"])
        given["a"].state = "begun"  # by another process, which takes until the next two are done here
        given["e"] = team.give(Task(Named("e", log)))
        given["e"].done = lambda job, here: setattr(given["a"], "state", "done")
        team.result(given["a"])
        assert log == ["c", "b", "e"]
        with pytest.raises(RunError, match=r"^b$"):
            team.result(given["b"])


def test_a_spare_job_is_begun_when_nothing_else_waits_and_done_once(
    tiny: Recipe, dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, go = list[str](), threading.Event()

    class Other:
        def __init__(self, *arguments: Any) -> None:
            go.wait()

        def ask(self, job: Named) -> str:
            log.append(f"beside {job.name}")
            return job.perform()

        def end(self) -> None:
            pass

    monkeypatch.setattr(teams, "_Other", Other)
    told: list[tuple[str, bool]] = []
    spare, never = Named("spare", log), Named("never", log)
    with Team(tiny, TeamData(dataset), CPU, 2, threads=1) as team:
        team.give_spare(spare)
        task = team.give(Task(Named("a", log)))
        assert team.result(task) == "a", "alone, as no second task waits"
        assert log == ["a"]
        go.set()
        waiting = [team.give(Task(Named(name, log))) for name in "bc"]
        assert [team.result(one) for one in waiting] == ["b", "c"]
        until = time.monotonic() + 10
        while "spare" not in log and time.monotonic() < until:
            time.sleep(0.01)
        assert log.index("spare") == len(log) - 1, "the last"
        assert team.run([spare], done=lambda job, here: told.append((job.name, here))) == ["spare"]
        assert (log.count("spare"), told) == (1, [("spare", False)])
    with Team(tiny, TeamData(dataset), CPU) as team:
        team.give_spare(never)
        assert team.run([never], done=lambda job, here: told.append((job.name, here))) == ["never"]
        assert told[1:] == [("never", True)]
