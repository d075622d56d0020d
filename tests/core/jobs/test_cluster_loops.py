"""Real processes on the search of a user's function: no trial is lost and none is run twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from hosts import ONE_THREAD, PATIENCE, STARTED, opened, tally, wait, workers_of
from optuna.trial import TrialState
from user_loops import LOOP

from augkit.core.jobs.heartbeat import PROCESS
from augkit.core.processes import process_mark
from augkit.tune import optuna_study

pytestmark = pytest.mark.cluster

HANGS = """
from pathlib import Path
import signal
import time

import user_loop

def train(policy, *, epochs, seed, start):
    mark = Path("hung")
    if not policy.is_identity and not mark.exists():
        mark.touch()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])  # as code that never returns to Python
        time.sleep(600)
    return user_loop.train(policy, epochs=epochs, seed=seed, start=start)
"""
SCRIPT = """
import json, sys
import augkit, user_loop

result = augkit.tune_policy(
    user_loop.slow, user_loop.validation, space=user_loop.space, trials=8, epochs=1, max_shift=1.0, pairs=1, floor=0.0,
    storage=sys.argv[1],
)
print(json.dumps(result.to_dict()))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working folder with a module `user_loop`."""
    (tmp_path / "user_loop.py").write_text(LOOP)
    return tmp_path


def command(function: str, *words: str) -> list[str]:
    line = [sys.executable, "-m", "augkit.tune", function, "invariance.max_shift=1", "invariance.pairs=1"]
    return [*line, "--trial-epochs", "1", "--floor", "0", "--output", "out", *words]


def started(place: Path, line: list[str], log: str) -> subprocess.Popen[bytes]:
    with (place / log).open("ab") as file:
        STARTED.append(subprocess.Popen(line, stdout=file, stderr=file, env=ONE_THREAD, cwd=place))
    return STARTED[-1]


def finished_in(journal: Path) -> int:
    return journal.read_bytes().count(b'"state":1') if journal.is_file() else 0


def is_training(journal: Path, worker: int) -> bool:
    """Whether a trial of that process is running and has its values."""
    running = study_in(journal).get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(t.user_attrs.get(PROCESS) == process_mark(worker) and "values" in t.user_attrs for t in running)


def study_in(journal: Path) -> optuna.Study:
    return optuna.load_study(storage=opened(journal), study_name="augkit")


@pytest.mark.slow
def test_a_worker_that_trains_by_a_function_is_killed(place: Path) -> None:
    parent = started(place, command("user_loop:slow", "--trials", "10", "--workers", "2"), "log")
    journal = place / "out" / "study.journal"
    wait(lambda: finished_in(journal) >= 2 or None, "second trial")
    victim = workers_of(parent.pid)[0]
    wait(lambda: is_training(journal, victim) or None, "trial of that worker")
    os.kill(victim, signal.SIGKILL)
    assert parent.wait(PATIENCE) == 0, (place / "log").read_text()[-2000:]
    assert "died (SIGKILL)" in (place / "log").read_text()
    study = study_in(place / "out" / "study.journal")
    row = tally(
        study, 10, "SIGKILL of a worker that trains by a function", "the parent ran its trial again in a new worker"
    )
    if not row["run_again"]:  # its trial had ended in the moment before
        row["happened"] = "it died between two trials; the parent started a new worker"
    assert len({trial.user_attrs["worker"] for trial in optuna_study.completed(study)}) >= 2
    assert (place / "out" / "best.yaml").is_file()
    assert (place / "out" / "report.html").is_file()


@pytest.mark.slow
def test_a_function_that_never_returns_is_killed_with_its_worker(place: Path) -> None:
    (place / "hanging.py").write_text(HANGS)
    words = ["--trials", "4", "--workers", "2", "--timeout", "40", "--grace", "15"]  # a first call compiles
    words += ["--validation", "user_loop:validation", "--space", "user_loop:space"]
    parent = started(place, command("hanging:train", *words), "log")
    assert parent.wait(PATIENCE) == 0, (place / "log").read_text()[-2000:]
    assert "has been silent for" in (place / "log").read_text()
    study = study_in(place / "out" / "study.journal")
    row = tally(study, 4, "a function of the user hangs", "its worker was killed; another one ran the trial")
    assert row["run_again"] >= 1


@pytest.mark.slow
def test_two_processes_search_one_study_at_once(place: Path) -> None:
    (place / "script.py").write_text(SCRIPT)
    line = [sys.executable, "script.py", "kept.journal"]
    both = [started(place, line, log) for log in ("first", "second")]
    for process, log in zip(both, ("first", "second"), strict=True):
        assert process.wait(PATIENCE) == 0, (place / log).read_text()[-2000:]
    study = study_in(place / "kept.journal")
    tally(study, 8, "none: two processes of tune_policy at once", "one made the study, the other joined it")
    assert len({trial.user_attrs["worker"] for trial in optuna_study.completed(study)}) == 2
    one, two = (json.loads((place / log).read_text().splitlines()[-1]) for log in ("first", "second"))
    assert one["chosen"] == two["chosen"]
    assert one["front"] == two["front"]
