"""Processes that a command starts: how they are started, interrupted and ended, and whether one still runs.

Linux and macOS have sessions, signals and process groups. Windows has groups that a console event reaches, but its
processes must be ended one by one. Linux describes processes in ``/proc``; elsewhere psutil does. The code checks for
each feature, not for the name of the system, so that tests can take the feature away.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROC = Path("/proc")  # of Linux


def start(
    command: Sequence[str], *, environment: Mapping[str, str] | None = None, **files: Any
) -> subprocess.Popen[bytes]:
    """Start a process that a Ctrl-C in this terminal does not reach; this process then interrupts or ends it.

    Args:
        command: the program and its arguments.
        environment: its environment variables; those of this process when None.
        files: ``stdin``, ``stdout`` and ``stderr``, as for `subprocess.Popen`.
    """
    # What it writes to a log is read as UTF-8, whatever the encoding of the console.
    variables = {**(os.environ if environment is None else environment), "PYTHONIOENCODING": "utf-8"}
    program, *arguments = command
    group = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", None)
    if group is None:
        return subprocess.Popen(command, env=variables, start_new_session=True, **files)
    # In a virtual environment on Windows, python.exe starts the real interpreter, whose id would not be the one known
    # here. `multiprocessing` starts the real one in the same way.
    real = getattr(sys, "_base_executable", sys.executable)
    if program == sys.executable != real:
        program, variables["__PYVENV_LAUNCHER__"] = real, sys.executable
    return subprocess.Popen([program, *arguments], env=variables, creationflags=group, **files)


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Interrupt a process of `start` as Ctrl-C would, even a suspended one; nothing happens if it has ended."""
    if hasattr(signal, "SIGCONT"):
        process.send_signal(signal.SIGCONT)
    with contextlib.suppress(OSError):  # Windows without a console: the caller kills what does not end
        process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGINT))


def heed_interrupts() -> None:
    """Let the console event that `interrupt` sends on Windows raise KeyboardInterrupt in this process."""
    number = getattr(signal, "SIGBREAK", None)
    if number is not None:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(number, signal.default_int_handler)


def end(process: subprocess.Popen[bytes], patience: float) -> None:
    """End a process of `start` and those that it has started; wait until it has ended.

    Args:
        process: the process; it may have ended.
        patience: seconds to end by itself after SIGTERM, where there is such a signal, before it is killed.
    """
    if not hasattr(os, "killpg"):
        _kill_family(process)
        process.wait()
        return
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _kill_family(process: subprocess.Popen[bytes]) -> None:
    psutil = _psutil()
    if psutil is not None:
        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
    process.kill()


def process_mark(pid: int) -> str | None:
    """Text that tells a process from a later one with its id: boot id and start time, or start time alone.

    The start time of a trial would not do, because another machine's clock may have set it.

    Returns:
        The mark; None if the process has ended, or if neither ``/proc`` nor psutil is there to tell.
    """
    if (PROC / "self" / "stat").is_file():
        with contextlib.suppress(OSError, IndexError):
            fields = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            if fields[0] != "Z":  # a zombie: it has ended, but its parent has not read its exit code
                boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text(encoding="utf-8").strip()
                return f"{boot}:{fields[19]}"
        return None
    psutil = _psutil()
    if psutil is not None:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                return f"{process.create_time():.6f}"
    return None


def runs(pid: int, mark: str | None = None) -> bool:
    """Whether a process of this machine still runs.

    Args:
        pid: its id.
        mark: its `process_mark`; when None, any process with this id counts.

    Returns:
        True also if the process belongs to another user, or if nothing on this machine tells of processes.
    """
    if hasattr(os, "killpg"):  # a signal 0 would be a Ctrl-C on Windows
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
    if not (PROC / "self" / "stat").is_file() and _psutil() is None:
        return True
    now = process_mark(pid)
    return now is not None and mark in (None, now)


class ParentWatch:
    """Tells whether the process that started this one still runs.

    Args:
        pid: id of the parent.
    """

    def __init__(self, pid: int) -> None:
        self.pid, self.mark = pid, process_mark(pid)

    def has_ended(self) -> bool:
        """Whether the parent has ended. Linux and macOS then assign a new parent, Windows does not."""
        if hasattr(os, "killpg"):
            return os.getppid() != self.pid
        return not runs(self.pid, self.mark)


def _psutil() -> Any:
    """The module psutil, a dependency where there is no ``/proc``; None without it."""
    try:
        return importlib.import_module("psutil")
    except ImportError:
        return None
