"""Real processes on the cells of one study: after any fault each cell is done once."""

from __future__ import annotations

import contextlib
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
from hosts import (
    ONE_THREAD,
    PATIENCE,
    ROWS,
    Postgres,
    on_host,
    opened,
    wait,
    workers_of,
)
from optuna.trial import FrozenTrial, TrialState

pytestmark = pytest.mark.cluster

STUDY = """
name: little
recipe: {recipe}
overrides: {{train.epochs: 30}}
seeds: 4
images: 60
architectures: {{maxpool: {{model.downsample: maxpool}}, stride: {{model.downsample: stride}}}}
arms: [{{architectures: [maxpool, stride]}}]
measures: {{shift: {{pairs: 1}}}}
claims:
  - {{id: 1, name: strides, claim: They differ., source: nobody, statistic: log_variability_ratio, arm: stride+none,
     control: maxpool+none, prediction: positive}}
"""
CELLS = 8
OF_CELLS = 15.0  # seconds of grace: the first cell of a worker imports scipy before its first heartbeat


@pytest.fixture
def study(recipe: Path, tmp_path: Path) -> Path:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.format(recipe=recipe))
    return file


def comparing(study: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "augkit.compare", str(study), "--device", "cpu", *words]


def cells_done(queue: optuna.Study) -> list[FrozenTrial]:
    return queue.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def tally_cells(queue: optuna.Study, folder: Path, fault: str, happened: str) -> dict[str, Any]:
    """Like `tally`, for the cells of a study, whose claims must use all of them."""
    trials = [trial for trial in queue.get_trials(deepcopy=False) if "cell" in trial.user_attrs]
    counts = Counter(trial.user_attrs["cell"] for trial in trials if trial.state == TrialState.COMPLETE)
    there = [path.parent.name for path in folder.glob("cells/*/cell.json")]
    row = {
        "fault": fault,
        "happened": happened,
        "asked": CELLS,
        "completed": len(there),
        "run_again": sum(trial.state == TrialState.FAIL for trial in trials),
        "lost": CELLS - len(there),
        "doubled": sum(count - 1 for count in counts.values()),
        "left_over": sum(trial.state in (TrialState.RUNNING, TrialState.WAITING) for trial in trials),
        "controls": 0,
    }
    ROWS.append(row)
    assert (row["completed"], row["lost"], row["doubled"], row["left_over"]) == (CELLS, 0, 0, 0), row
    results = json.loads((folder / "results.json").read_text())
    assert results["claims"][0]["n_seeds"] == 4
    assert results["cost"]["failed"] == {}
    for path in folder.glob("cells/*/metrics.jsonl"):
        epochs = [json.loads(line)["epoch"] for line in path.read_text().splitlines()]
        assert epochs == list(range(1, 31)), f"{path.parent.name} was not trained to its end"
    return row


@pytest.mark.slow
def test_three_commands_on_two_hosts_share_the_cells_of_a_study(
    postgres: Postgres, study: Path, tmp_path: Path
) -> None:
    words = ["--storage", postgres.url, "--study", "cells", "--output", str(tmp_path / "out"), "--grace", "60"]
    team = [on_host(f"host-{'ab'[k % 2]}", comparing(study, *words), tmp_path / f"worker{k}.log") for k in range(3)]
    for member in team:
        assert member.wait(PATIENCE) == 0, "\n".join(p.read_text()[-800:] for p in tmp_path.glob("worker*.log"))
    queue = optuna.load_study(storage=opened(postgres.url), study_name="cells")
    row = tally_cells(
        queue, tmp_path / "out", "none: 3 commands on 2 hosts ask for a study", "one made it, two helped with its cells"
    )
    assert row["run_again"] == 0
    said = "".join(path.read_text() for path in tmp_path.glob("worker*.log"))
    assert said.count("helped; the results will be in") == 2
    assert len({trial.user_attrs["worker"] for trial in cells_done(queue)}) >= 2


@pytest.mark.slow
def test_a_host_dies_in_a_cell_of_a_study(postgres: Postgres, study: Path, tmp_path: Path) -> None:
    words = ["--storage", postgres.url, "--study", "cells", "--output", str(tmp_path / "out"), "--grace", str(OF_CELLS)]
    leader = on_host("host-a", comparing(study, *words), tmp_path / "worker0.log")
    storage = opened(postgres.url)

    def load() -> optuna.Study | None:
        with contextlib.suppress(KeyError):
            queue = optuna.load_study(storage=storage, study_name="cells")
            return queue if queue.user_attrs.get("ready") else None
        return None

    queue = wait(load, "study")
    helper = on_host("host-b", comparing(study, *words), tmp_path / "worker1.log")
    (child,) = wait(lambda: workers_of(helper.pid) or None, "worker of the helper")

    def taken() -> int | None:
        running = queue.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        mine = [trial.number for trial in running if f":{child}:" in trial.user_attrs.get("worker", "")]
        return mine[0] if mine else None

    number = wait(taken, "cell of the helper")
    helper.kill()
    os.kill(child, signal.SIGKILL)
    assert leader.wait(PATIENCE) == 0, (tmp_path / "worker0.log").read_text()[-2000:]
    assert queue.trials[number].state == TrialState.FAIL
    row = tally_cells(
        queue,
        tmp_path / "out",
        "SIGKILL of a host in a cell of a study",
        "its heartbeat stopped; the other ran the cell",
    )
    assert row["run_again"] >= 1  # on a busy machine a living worker may be late with a heartbeat too


def cells_in(folder: Path) -> int:
    return len(list(folder.glob("cells/*/cell.json")))


@pytest.mark.slow
def test_a_local_worker_of_a_study_is_killed_and_one_hangs(study: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    with log.open("ab") as file:
        command = comparing(study, "--workers", "2", "--output", str(folder), "--grace", str(OF_CELLS))
        parent = subprocess.Popen(command, stdout=file, stderr=file, env=ONE_THREAD)
    wait(lambda: cells_in(folder) >= 1 or None, "first cell")
    os.kill(workers_of(parent.pid)[0], signal.SIGKILL)
    wait(lambda: "died (SIGKILL)" in log.read_text() or None, "word on the killed worker")
    wait(lambda: len(workers_of(parent.pid)) == 2 or None, "worker in its place")
    wait(lambda: cells_in(folder) >= 3 or None, "third cell")
    os.kill(workers_of(parent.pid)[-1], signal.SIGSTOP)
    assert parent.wait(PATIENCE) == 0, log.read_text()[-2000:]
    assert "has been silent for" in log.read_text()
    queue = optuna.load_study(storage=opened(folder / "cells.journal"), study_name="little-quick")
    tally_cells(queue, folder, "SIGKILL of a worker of a study, SIGSTOP of another", "the parent ran their cells again")


@pytest.mark.slow
def test_the_parent_of_a_study_is_killed_and_resumed(study: Path, tmp_path: Path) -> None:
    folder, log = tmp_path / "out", tmp_path / "log"
    command = comparing(study, "--workers", "2", "--output", str(folder))
    with log.open("ab") as file:
        parent = subprocess.Popen(command, stdout=file, stderr=file, env=ONE_THREAD)
    wait(lambda: cells_in(folder) >= 2 or None, "second cell")
    parent.kill()
    parent.wait()
    wait(lambda: not workers_of(parent.pid) or None, "end of its workers")
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[-2000:]
    queue = optuna.load_study(storage=opened(folder / "cells.journal"), study_name="little-quick")
    tally_cells(queue, folder, "SIGKILL of the parent of a study, resumed", "workers handed their cells back and ended")


@pytest.mark.slow
def test_two_commands_resume_a_study_whose_host_died(postgres: Postgres, study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    words = ["--storage", postgres.url, "--study", "cells", "--output", str(folder), "--grace", str(OF_CELLS)]
    first = on_host("host-a", comparing(study, *words), tmp_path / "worker0.log")
    wait(lambda: cells_in(folder) >= 2 or None, "second cell")
    children = workers_of(first.pid)
    first.kill()
    for child in children:
        os.kill(child, signal.SIGKILL)
    team = [
        on_host(f"host-{name}", comparing(study, *words, "--resume"), tmp_path / f"worker{name}.log") for name in "bc"
    ]
    for member in team:
        assert member.wait(PATIENCE) == 0, "\n".join(p.read_text()[-800:] for p in tmp_path.glob("worker*.log"))
    said = "".join(path.read_text() for path in tmp_path.glob("worker[bc].log"))
    assert said.count("helped; the results will be in") == 1, "one leads, one helps"
    queue = optuna.load_study(storage=opened(postgres.url), study_name="cells")
    tally_cells(
        queue,
        folder,
        "SIGKILL of the host that leads a study, two resume it",
        "one led, one helped; nothing was done again",
    )


def test_ray_starts_workers_of_a_study(postgres: Postgres, study: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    words = ["--storage", postgres.url, "--study", "ray", "--launcher", "ray", "--workers", "2"]
    command = comparing(study, *words, "--output", str(tmp_path / "out"))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr[:2000] + done.stderr[-500:]
    queue = optuna.load_study(storage=opened(postgres.url), study_name="ray")
    tally_cells(queue, tmp_path / "out", "none: 2 workers of a study started by Ray", "both worked on its cells")
