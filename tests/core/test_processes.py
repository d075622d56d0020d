"""Processes are started, interrupted and ended, and told apart, with and without what Linux has.

Windows and macOS are simulated: what they lack is taken away, and what Windows has instead is recorded.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from augkit.core import processes
from augkit.core.processes import ParentWatch, end, heed_interrupts, interrupt, process_mark, runs, start

# It sleeps in short parts: Python acts on a signal that comes just before a sleep only after it.
SLEEP = [sys.executable, "-S", "-c", "import time; print('up', flush=True); any(time.sleep(0.1) for _ in range(600))"]
# Starts a process of its own, prints its id, and does not heed SIGTERM.
FAMILY = [
    sys.executable,
    "-S",
    "-c",
    "import signal, subprocess, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print(subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(60)']).pid, flush=True)\n"
    "time.sleep(60)",
]


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """macOS: there is no ``/proc``."""
    pytest.importorskip("psutil")
    monkeypatch.setattr(processes, "PROC", tmp_path / "proc")


class Without:
    """A module as augkit sees it where some of its names are missing; psutil and subprocess see the whole one."""

    def __init__(self, module: ModuleType, *names: str) -> None:
        self.module, self.names = module, names

    def __getattr__(self, name: str) -> Any:
        if name in self.names:
            raise AttributeError(name)
        return getattr(self.module, name)


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch, no_proc: None) -> None:
    """Windows: neither process groups nor their signals; `os.kill` of signal 0 would send a Ctrl-C."""
    monkeypatch.setattr(processes, "os", Without(os, "killpg", "kill"))
    monkeypatch.setattr(processes, "signal", Without(signal, "SIGKILL", "SIGCONT"))


def ended(pid: int) -> bool:
    """Whether a process that is no child of this one has ended, or will within a few seconds."""
    until = time.monotonic() + 10
    while (found := process_mark(pid)) is not None and time.monotonic() < until:
        time.sleep(0.02)
    return found is None


def wait_for_zombie(process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 10
    while process_mark(process.pid) is not None and time.monotonic() < until:
        time.sleep(0.02)


@pytest.mark.parametrize("system", [None, "no_proc", "windows"])
def test_a_process_is_told_from_a_later_one_with_its_id(system: str | None, request: pytest.FixtureRequest) -> None:
    if system:
        request.getfixturevalue(system)
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        mark = process_mark(process.pid)
        assert mark is not None
        assert mark == process_mark(process.pid)
        assert runs(process.pid, mark)
        assert runs(process.pid), "nothing more is known of it than its id"
        assert not runs(process.pid, process_mark(os.getpid())), "the id was given to another process"
        process.communicate(b"\n")
    assert not runs(process.pid, mark)
    assert not runs(process.pid)


def test_a_zombie_has_ended(no_proc: None) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        wait_for_zombie(process)
        assert not runs(process.pid)


def test_where_nothing_tells_of_processes_they_count_as_running(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    assert process_mark(os.getpid()) is None
    assert runs(os.getpid(), "a mark of a better system")


@pytest.mark.parametrize("system", [None, "no_proc", "windows"])
def test_the_end_of_a_process_is_that_of_its_family(system: str | None, request: pytest.FixtureRequest) -> None:
    process = start(FAMILY, stdout=subprocess.PIPE)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    if system:
        request.getfixturevalue(system)
    assert runs(child)
    end(process, patience=0.2)
    process.stdout.close()
    assert process.returncode not in (0, None)
    assert ended(child)


def test_an_interrupt_reaches_a_suspended_process() -> None:
    heeding = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [*SLEEP[:-1], heeding + SLEEP[-1]]  # a shell may have started the tests in the background
    with start(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        interrupt(process)
        assert process.wait(10) == -signal.SIGINT
        interrupt(process)  # it has ended


def test_windows_starts_the_real_python_in_a_group_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class Recorded:
        def __init__(self, command: list[str], **options: Any) -> None:
            seen.update(options, command=command)

    monkeypatch.setattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 512, raising=False)
    monkeypatch.setattr(subprocess, "Popen", Recorded)
    monkeypatch.setattr(sys, "_base_executable", r"C:\Python\python.exe")
    monkeypatch.setattr(sys, "executable", r"C:\venv\Scripts\python.exe")
    start([sys.executable, "-m", "augkit.tune.worker"], environment={"A": "1"}, stdout=None)
    assert seen["command"] == [r"C:\Python\python.exe", "-m", "augkit.tune.worker"]
    assert seen["creationflags"] == 512
    assert "start_new_session" not in seen
    assert seen["env"] == {
        "A": "1",
        "PYTHONIOENCODING": "utf-8",
        "__PYVENV_LAUNCHER__": r"C:\venv\Scripts\python.exe",
    }
    start(["git", "status"])
    assert seen["command"] == ["git", "status"]


def test_windows_is_interrupted_by_a_console_event(windows: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signal, "CTRL_BREAK_EVENT", 1, raising=False)
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR1, raising=False)
    sent: list[int] = []

    class Process:
        def send_signal(self, number: int) -> None:
            if number not in (signal.SIGTERM, 0, 1):
                raise ValueError(f"Unsupported signal: {number}")  # what Windows says
            sent.append(number)

    interrupt(Process())  # type: ignore[arg-type]
    assert sent == [1]
    before = signal.getsignal(signal.SIGUSR1)
    try:
        heed_interrupts()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_the_end_of_a_parent_is_seen_without_a_new_parent(windows: None) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as parent:
        watch = ParentWatch(parent.pid)
        assert not watch.has_ended(), "that this process has another parent must not matter"
        parent.communicate(b"\n")
    assert watch.has_ended()


def test_the_end_of_a_parent_is_seen_by_the_new_parent() -> None:
    assert not ParentWatch(os.getppid()).has_ended()
    assert ParentWatch(os.getpid()).has_ended()
