"""Which workers count as alive and which as dead."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from augkit.core.errors import InputError
from augkit.core.jobs.heartbeat import PROCESS
from augkit.core.jobs.launch import check_workers, needs_pool
from augkit.core.jobs.local import LocalLauncher, LocalWorker
from augkit.core.jobs.pool import WorkerSettings
from augkit.core.jobs.recovery import _lives
from augkit.core.jobs.status import worker_parser
from augkit.core.jobs.storage import Storage
from augkit.core.processes import process_mark

HOUR = 3600.0


def begun(mark: str | None) -> FrozenTrial:
    """A trial whose start was noted by a clock that is years away."""
    trial = optuna.create_trial(state=TrialState.RUNNING, user_attrs={} if mark is None else {PROCESS: mark})
    trial.datetime_start = datetime(2001, 1, 1)
    return trial


@pytest.mark.parametrize("clock", [-HOUR, HOUR])
def test_silence_does_not_depend_on_the_clock_of_the_disk(tmp_path: Path, clock: float) -> None:
    """A status file lies on a disk whose clock differs from ours, or the laptop has slept."""
    status = tmp_path / "0.json"
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        worker = LocalWorker(0, "here:1:0", process, status, tmp_path / "0.log", time.monotonic() - HOUR, 0, 0)
        assert worker.silence() >= HOUR, "it has not said anything since it was started"
        for k in range(3):
            status.write_text("{}")
            os.utime(status, (time.time() + clock + k, time.time() + clock + k))
            assert worker.silence() < 60
        before = worker.silence()
        time.sleep(0.02)
        assert worker.silence() >= before + 0.02


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="there is no /proc")
def test_a_process_is_distinguished_from_a_later_one_with_its_id() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert _lives(process.pid, begun(process_mark(process.pid)))
        assert _lives(process.pid, begun(None)), "of a trial that bears no mark nothing more is known"
        assert not _lives(process.pid, begun(process_mark(os.getpid()))), "the number was given to another program"
        mark = process_mark(process.pid)
        process.communicate(b"\n")
    assert not _lives(process.pid, begun(mark))
    assert not _lives(os.getpid(), begun(process_mark(os.getpid()))), "this process has just begun to look"


@pytest.mark.skipif(not Path("/proc/self/stat").is_file(), reason="there is no /proc")
def test_a_zombie_process_counts_as_dead() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        assert process.stdout is None
        until = time.monotonic() + 60
        while process_mark(process.pid) is not None and time.monotonic() < until:
            time.sleep(0.05)
        assert not _lives(process.pid, begun(None))


def test_an_unknown_launcher_gives_a_one_line_error() -> None:
    with pytest.raises(InputError, match="unknown launcher 'rays': did you mean 'ray'"):
        check_workers(WorkerSettings(launcher="rays"), None)
    with pytest.raises(InputError, match="unknown launcher"):
        needs_pool(WorkerSettings(launcher="slurm"))


def test_a_worker_parses_all_arguments_of_its_pool(tmp_path: Path) -> None:
    settings = WorkerSettings(count=2, retries=3, grace=12.5)
    parsed = worker_parser("w", None).parse_args(settings.arguments(Storage.parse(tmp_path / "s.journal"), "q", "cpu"))
    assert (parsed.study, parsed.device, parsed.retries, parsed.grace) == ("q", "cpu", 3, 12.5)
    assert Storage.parse(parsed.storage) == Storage.parse(tmp_path / "s.journal")


@pytest.mark.parametrize("code", [-9, 1])
def test_a_silent_worker_is_replaced_whatever_its_exit_code(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows gives killed processes the exit code 1, which is also that of a worker that gives up."""
    ended, said = list[int](), list[str]()
    process: Any = SimpleNamespace(
        poll=lambda: ended[0] if ended else None, kill=lambda: ended.append(code), wait=lambda: ended[0]
    )
    pool: Any = SimpleNamespace(study=optuna.create_study(), settings=WorkerSettings(grace=1.0), log=said.append)
    launcher = LocalLauncher(pool)
    status = tmp_path / "0.json"
    status.write_text("{}")
    worker = LocalWorker(0, "here:1:0", process, status, tmp_path / "0.log", time.monotonic() - HOUR, 0, 0)
    worker.written = status.stat().st_mtime
    launcher._workers = [worker]
    monkeypatch.setattr(launcher, "_start", lambda k, restarts: "another")
    assert not launcher._has_ended(0)
    assert launcher._workers == ["another"]
    assert "killed" in said[0]
    assert "died" in said[1]


def test_a_short_grace_period_spares_workers_that_write_once_a_second(tmp_path: Path) -> None:
    pool: Any = SimpleNamespace(study=optuna.create_study(), settings=WorkerSettings(grace=0.5), log=print)
    launcher, status = LocalLauncher(pool), tmp_path / "0.json"
    status.write_text("{}")
    process: Any = SimpleNamespace(poll=lambda: None)
    worker = LocalWorker(0, "here:1:0", process, status, tmp_path / "0.log", time.monotonic() - 1.5, 0, 0)
    worker.written = status.stat().st_mtime
    launcher._workers = [worker]
    assert worker.silence() > 1
    assert not launcher._has_ended(0)
