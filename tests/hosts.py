"""Hosts, a database server and workers of our own, for tests of what happens when one of them fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.trial import TrialState

from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import wait_for
from augkit.tune import optuna_study
from augkit.tune.space import Space

RECIPE = """
name: little
data: {name: digits, canvas: 16, limit: 200}
model: {name: small_cnn, width: 4}
policy: {shift: {max_pixels: 2.0}, rescale: {max_factor: 1.1, p: 0.5}}
train: {epochs: 6, batch_size: 32}
invariance: {protocol: embed, max_shift: 3.0, pairs: 1}
"""
GRACE = 10.0  # seconds; several processes share a core
PATIENCE = 600.0  # seconds for anything
ROWS: list[dict[str, Any]] = []
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
OPENED: list[BaseStorage] = []
STARTED: list[subprocess.Popen[bytes]] = []


def opened(place: str | Path) -> BaseStorage:
    """A storage of this process, closed at the end of the test."""
    OPENED.append(open_storage(place))
    return OPENED[-1]


class Postgres:
    """A server of our own in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        places = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), Path("/usr/local/bin"), Path("/usr/bin")]
        found = [place for place in places if (place / "initdb").is_file() and (place / "pg_ctl").is_file()]
        if not found:
            pytest.skip("PostgreSQL is not installed")
        self.bin, self.data = found[-1], folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        folder.mkdir()
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        self.call("initdb", "-D", str(self.data), "-A", "trust", "-U", "augkit", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://augkit@127.0.0.1:{self.port}/postgres"

    def call(self, name: str, *words: str) -> None:
        other = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        command = [*other, str(self.bin / name), *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")

    def start(self) -> None:
        log = str(self.data.parent / "log")
        options = f"-p {self.port} -k {self.data.parent}"
        self.call("pg_ctl", "-D", str(self.data), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-D", str(self.data), "-w", "-m", "fast", "stop")


def on_host(name: str, command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command on a host of that name (a UTS namespace), or on this one where that is not allowed."""
    probe = subprocess.run(["unshare", "--uts", "true"], check=False, capture_output=True)
    if probe.returncode == 0:
        command = ["unshare", "--uts", "sh", "-c", f'hostname {name}; exec "$@"', "sh", *command]
    environment = ONE_THREAD
    with log.open("ab") as file:
        STARTED.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment, start_new_session=True))
    return STARTED[-1]


class Team:
    """A study in a database, and workers of it."""

    def __init__(
        self, url: str, recipe: Path, folder: Path, trials: int, grace: float = GRACE, name: str = "s"
    ) -> None:
        self.url, self.folder, self.grace, self.name, self.workers = url, folder, grace, name, []
        space = Space.load(recipe)
        terms = optuna_study.SearchTerms(space=space.to_dict(), epochs=6)
        self.study, _ = optuna_study.make_or_join(opened(url), name, terms, trials, join=False)

    def add(self, index: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "augkit.tune.worker", "--storage", self.url, "--study", self.name]
        command += ["--index", str(index), "--grace", str(self.grace), "--device", "cpu"]
        worker = on_host(f"host-{'ab'[index % 2]}", command, self.folder / f"worker{index}.log")
        self.workers.append(worker)
        return worker

    def running(self, worker: subprocess.Popen[bytes]) -> list[int]:
        """Trials under way in a worker, once there is one."""
        return [
            trial.number
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
            if f":{worker.pid}:" in trial.user_attrs.get("worker", "") and "values" in trial.user_attrs
        ]

    def add_and_stop(self, index: int) -> tuple[subprocess.Popen[bytes], int]:
        """Start a worker and SIGSTOP it in a trial that has not ended meanwhile; the worker and the trial's number.

        It has the study to itself until then: beside another worker it might find all trials done when it has started.
        """
        worker = self.add(index)
        while True:
            number = self.wait_for_trial(worker)
            worker.send_signal(signal.SIGSTOP)
            time.sleep(0.2)  # for what is on its way to the database
            if self.study.trials[number].state == TrialState.RUNNING:
                return worker, number
            worker.send_signal(signal.SIGCONT)

    def wait_for_trial(self, *workers: subprocess.Popen[bytes]) -> int:
        """Number of a trial under way in one of these workers, once there is one; at least one must be alive."""

        def running() -> int | None:
            found = [number for worker in workers for number in self.running(worker)]
            assert found or any(worker.poll() is None for worker in workers), f"all have ended:\n{self.logs()}"
            return found[0] if found else None

        return wait(running, "a trial of these workers")

    def finish(self, *, dead: tuple[subprocess.Popen[bytes], ...] = ()) -> None:
        for worker in self.workers:
            if worker not in dead:
                assert worker.wait(PATIENCE) == 0, self.logs()

    def logs(self) -> str:
        return "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("worker*.log")))


def wait(ask: Callable[[], Any], what: str) -> Any:
    found = wait_for(ask, PATIENCE, pause=0.02)
    assert found is not None, f"no {what} within {PATIENCE:.0f} s"
    return found


def tally(study: optuna.Study, asked: int, fault: str, happened: str) -> dict[str, Any]:
    """What was lost and what was doubled; both must be nothing, and the total exact."""
    trials = study.get_trials(deepcopy=False)
    done = [t for t in trials if t.state == TrialState.COMPLETE and "control" not in t.user_attrs]
    trained = Counter(json.dumps(t.user_attrs["values"], sort_keys=True) for t in done if "same_as" not in t.user_attrs)
    failed = [t for t in trials if t.state == TrialState.FAIL and "values" in t.user_attrs]
    lost = [t.number for t in failed if json.dumps(t.user_attrs["values"], sort_keys=True) not in trained]
    row = {
        "fault": fault,
        "happened": happened,
        "asked": asked,
        "completed": len(done),
        "run_again": len(failed),
        "lost": len(lost),
        "doubled": sum(count - 1 for count in trained.values()),
        "left_over": sum(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials),
        "controls": sum(key.startswith("control") for key in study.user_attrs),
    }
    ROWS.append(row)
    assert row["completed"] == asked
    assert row["lost"] == row["doubled"] == row["left_over"] == 0, row
    assert row["controls"] == 1
    return row


def workers_of(parent: int) -> list[int]:
    found = subprocess.run(
        ["pgrep", "-f", f"augkit[a-z._]*worker .*--parent {parent}( |$)"], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in found.stdout.split()]
