"""The peak of this process's resident memory, on Linux.

Not ``getrusage``: its maximum is inherited from the process that forked, so a small child of a large parent reports the
parent.
"""

from __future__ import annotations

from pathlib import Path

PROCESS = Path("/proc/self")


def restart_peak() -> float:
    """Forget the peak so far; MiB resident now."""
    (PROCESS / "clear_refs").write_text("5")
    return _status("VmRSS")


def peak() -> float:
    """MiB resident at most since `restart_peak`."""
    return _status("VmHWM")


def _status(name: str) -> float:
    lines = (PROCESS / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024
