"""Real processes on a search with rungs: after any fault each configuration has been once on each of its rungs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
from hosts import ONE_THREAD, PATIENCE, ROWS, Postgres, Team, on_host, opened, wait, workers_of
from optuna.trial import TrialState

from augkit.tune import halving, optuna_study
from augkit.tune.optuna_study import SearchTerms, rung_of
from augkit.tune.space import Space

pytestmark = pytest.mark.cluster

RUNGS = (2, 4, 8)
ASKED = 10
GRACE = 30.0  # seconds: on a busy machine the first trial of a worker imports for longer before its first heartbeat


def command(recipe: Path, folder: Path, *words: str) -> list[str]:
    line = [sys.executable, "-m", "augkit.tune", str(recipe), "train.epochs=8", "--trials", str(ASKED), "--seeds", "1"]
    line += ["--top", "1", "--rungs", "2,4,8", "--workers", "2", "--device", "cpu", "--output", str(folder)]
    return [*line, "--grace", str(GRACE), "--retries", "3", *words]


def started(recipe: Path, folder: Path, log: Path, *words: str) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command(recipe, folder, *words), stdout=file, stderr=file, env=ONE_THREAD)


def promotions_in(folder: Path) -> int:
    """Promotions that the journal has seen, retries included."""
    journal = folder / "study.journal"
    return journal.read_bytes().count(b'"rung"') if journal.is_file() else 0


def tally(study: optuna.Study, fault: str, happened: str) -> dict[str, Any]:
    """What was lost and what was doubled, by configuration and rung; both must be nothing, and the total exact."""
    trials = study.get_trials(deepcopy=False)
    done = [t for t in optuna_study.completed(study) if "same_as" not in t.user_attrs]
    places = Counter((halving.configuration_of(t), rung_of(t)) for t in done)
    failed = [t for t in trials if t.state == TrialState.FAIL and "values" in t.user_attrs]
    row = {
        "fault": fault,
        "happened": happened,
        "asked": ASKED,
        "completed": len(optuna_study.finished(study)),
        "run_again": sum("skipped" not in t.user_attrs for t in failed),
        "lost": sum((halving.configuration_of(t), rung_of(t)) not in places for t in failed),
        "doubled": sum(count - 1 for count in places.values()),
        "left_over": sum(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials),
        "controls": sum(key.startswith("control") for key in study.user_attrs),
    }
    ROWS.append(row)
    assert row["completed"] == ASKED
    assert row["lost"] == row["doubled"] == row["left_over"] == 0, row
    assert row["controls"] == 1
    counts = [len(halving.outcomes(trials, rung)) for rung in range(len(RUNGS))]
    assert counts[1] >= counts[0] // 3, counts
    assert counts[2] >= max(1, counts[1] // 3), counts
    return row


def in_journal(folder: Path) -> optuna.Study:
    return optuna.load_study(storage=opened(folder / "study.journal"), study_name="augkit")


@pytest.mark.slow
def test_a_local_worker_is_killed_between_rungs(recipe: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    parent = started(recipe, folder, log)
    for count in (1, 2):
        wait(lambda count=count: promotions_in(folder) >= count or None, "promotion")
        wait(lambda: len(workers_of(parent.pid)) == 2 or None, "pair of workers")
        os.kill(workers_of(parent.pid)[0], signal.SIGKILL)
    assert parent.wait(PATIENCE) == 0, log.read_text()[-2000:]
    assert "died (SIGKILL)" in log.read_text()
    tally(in_journal(folder), "SIGKILL of a worker between rungs, twice", "others went on from its checkpoints")
    assert (folder / "report.html").is_file()


@pytest.mark.slow
def test_a_worker_of_a_search_with_forks_is_killed(recipe: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    parent = started(recipe, folder, log, "--fork")
    fork = folder / "controls" / "augkit-fork"
    for ready in (lambda: (fork / "checkpoint.pt").is_file() or None, lambda: promotions_in(folder) or None):
        wait(ready, "checkpoint of the control, then promotion")
        wait(lambda: len(workers_of(parent.pid)) == 2 or None, "pair of workers")
        os.kill(workers_of(parent.pid)[0], signal.SIGKILL)
    assert parent.wait(PATIENCE) == 0, log.read_text()[-2000:]
    assert "died (SIGKILL)" in log.read_text()
    study = in_journal(folder)
    tally(study, "SIGKILL of a worker of a search with forks, twice", "others forked the same control")
    steps = (0, *RUNGS)
    for trial in optuna_study.completed(study):
        rung = rung_of(trial)
        assert trial.user_attrs["trained"] <= steps[rung + 1] - steps[rung], "the control was not trained anew"
    assert len((fork / "metrics.jsonl").read_text().splitlines()) == 4
    for run in (folder / "final").iterdir():
        assert len((run / "metrics.jsonl").read_text().splitlines()) == 8, "final runs are no forks"


@pytest.mark.slow
def test_the_parent_is_killed_between_rungs_and_resumed(recipe: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    parent = started(recipe, folder, log)
    wait(lambda: promotions_in(folder) >= 2 or None, "second promotion")
    parent.kill()
    parent.wait()
    wait(lambda: not workers_of(parent.pid) or None, "end of its workers")
    words = command(recipe, folder, "--resume")
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-2000:]
    study = in_journal(folder)
    tally(study, "SIGKILL of the parent between rungs, resumed", "workers handed back; no rung was trained again")
    epochs = [(t.user_attrs["trained"], rung_of(t)) for t in optuna_study.completed(study)]
    steps = (0, *RUNGS)
    assert all(trained <= steps[rung + 1] - steps[rung] for trained, rung in epochs)
    results = json.loads((folder / "results.json").read_text())
    assert [row["epochs"] for row in results["rungs"]] == list(RUNGS)


class RungTeam(Team):
    """Workers of a study with rungs, with one folder for all checkpoints."""

    def __init__(self, url: str, recipe: Path, folder: Path, fork: int = 0) -> None:
        self.url, self.folder, self.grace, self.name, self.workers = url, folder, GRACE, "s", []
        space = Space.load(recipe, ["train.epochs=8"])
        terms = SearchTerms(space=space.to_dict(), rungs=RUNGS, fork=fork, epochs=8)
        self.study, _ = optuna_study.make_or_join(opened(url), "s", terms, ASKED, join=False)

    def add(self, index: int) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", "augkit.tune.worker", "--storage", self.url, "--study", "s", "--device", "cpu"]
        line += ["--index", str(index), "--grace", str(GRACE), "--folder", str(self.folder / "runs")]
        self.workers.append(on_host(f"host-{'ab'[index % 2]}", line, self.folder / f"worker{index}.log"))
        return self.workers[-1]

    def running(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Promotions under way in a worker."""
        return [number for number in super().running(worker) if rung_of(self.study.trials[number])]


@pytest.mark.slow
@pytest.mark.parametrize("fork", [0, 4])
def test_a_worker_dies_on_a_higher_rung(postgres: Postgres, recipe: Path, tmp_path: Path, fork: int) -> None:
    team = RungTeam(postgres.url, recipe, tmp_path, fork)
    first, number = team.add_and_stop(0)
    team.add(1)
    first.kill()
    first.wait()
    team.finish(dead=(first,))
    fault = "SIGKILL of a worker on a higher rung" + ", with forks" * bool(fork)
    row = tally(team.study, fault, "its heartbeat stopped; another went on")
    assert row["run_again"] >= 1  # on a busy machine a living worker may be late with a heartbeat too
    assert team.study.trials[number].state == TrialState.FAIL
