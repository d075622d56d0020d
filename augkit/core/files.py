"""Atomic writes of files, and output folders that replace existing ones only with permission."""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

from augkit.core.errors import InputError, WriteError
from augkit.core.processes import process_mark, runs

MARK = "environment.json"  # marks a folder that augkit wrote
HOLD = ".begun"  # in a folder to which a process has not yet written anything; the process stands in it
WINDOWS = os.name == "nt"
TRIES, PAUSE = 20, 0.05  # on Windows, to replace a file that another process reads; seconds
_HELD: set[Path] = set()  # files of `HOLD`, of this process


def write(path: Path, save: str | Callable[[Path], Any]) -> None:
    """Write text, or the file of ``save(path)``, atomically: a new file beside ``path`` replaces it at the end.

    Raises:
        WriteError: the disk is full or the folder cannot be written; an earlier file is intact.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if isinstance(save, str):
            # The same bytes on every system. Undecodable paths (UTF-8 ones under the C locale) are escaped.
            partial.write_text(save, encoding="utf-8", errors="backslashreplace", newline="\n")
        else:
            partial.touch()
            mode = stat.S_IMODE(partial.stat().st_mode)  # by the umask; some libraries write files for the owner alone
            save(partial)
            partial.chmod(mode)
        with partial.open("r+b") as file:  # Windows does not flush a file that is open for reading
            os.fsync(file.fileno())
        _replace(partial, path)
        release(path.parent)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError for a full disk
        partial.unlink(missing_ok=True)
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WriteError(f"cannot write '{path}' ({reason}); what was there before is intact") from None
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _replace(partial: Path, path: Path) -> None:
    """Rename a file onto another. Windows refuses while another process reads that one, so it is tried again."""
    for _ in range(TRIES):
        try:
            partial.replace(path)
            return
        except PermissionError:
            if not WINDOWS:
                raise
            time.sleep(PAUSE)
    partial.replace(path)


def claim(folder: Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Create or empty ``folder`` for writing and return it; errors as in `reserve`."""
    reserve(folder, resume=resume, overwrite=overwrite)
    if not resume:
        _hold(folder)
    if overwrite and not resume:
        try:
            _empty(folder)
        except OSError as error:
            raise InputError(f"output '{folder}': cannot be replaced ({error.strerror or error})") from None
    return folder


def _hold(folder: Path) -> None:
    """Let no other process of this machine claim a folder until the first file is written to it, or this one ends.

    Raises:
        InputError: another process that still runs holds it.
    """
    path, own = folder / HOLD, f"{os.getpid()} {process_mark(os.getpid()) or ''}"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(own)
    except FileExistsError:
        with contextlib.suppress(OSError):
            time.sleep(PAUSE)  # whoever has just made it may still write to it
            pid, _, mark = path.read_text(encoding="utf-8").partition(" ")
            if pid.isdigit() and int(pid) != os.getpid() and runs(int(pid), mark or None):
                raise InputError(
                    f"output '{folder}' exists: process {pid} has just begun to write there; name another --output"
                ) from None
        path.write_text(own, encoding="utf-8")
    except OSError as error:
        raise InputError(f"output '{folder}': cannot be written ({error.strerror or error})") from None
    _HELD.add(path)


def release(folder: Path | None = None) -> None:
    """Let others claim a folder; all folders that this process holds when None."""
    for path in [path for path in _HELD if folder is None or path.parent == folder]:
        _HELD.discard(path)
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


atexit.register(release)


def reserve(folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Check that `claim` will succeed, for commands with further checks before they replace anything.

    Raises:
        InputError: the folder exists and neither ``resume`` nor ``overwrite`` is set; it is a file; augkit did not
            write the folder to overwrite, or the code that runs lies in it; or it cannot be created.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output '{folder}': expected a folder, it is a file")
    filled = folder.is_dir() and any(entry.name != HOLD for entry in folder.iterdir())
    if filled and not (resume or overwrite):
        raise InputError(
            f"output '{folder}' exists: add --resume to go on, --overwrite to replace it, or name another --output"
        )
    if filled and not resume and not (folder / MARK).is_file():
        raise InputError(f"output '{folder}': --overwrite replaces folders that augkit wrote, this is none")
    if filled and not resume and (code := _code_in(folder)) is not None:
        raise InputError(f"output '{folder}': --overwrite would delete '{code}', which runs; name another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"output '{folder}': cannot be written ({error.strerror or error})") from None


def _code_in(folder: Path) -> str | None:
    """Return the file of a module in a folder that has been imported, such as a training loop of the user's own."""
    inside = tuple(os.path.join(path, "") for path in (os.path.abspath(folder), os.path.realpath(folder)))
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return next((file for file in files if file and os.path.abspath(file).startswith(inside)), None)


def _empty(folder: Path) -> None:
    """Delete the content, and the mark last, so that the folder is still recognized after an interrupt."""
    entries = [entry for entry in folder.iterdir() if entry.name != HOLD]
    for entry in sorted(entries, key=lambda entry: entry.name == MARK):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


class Machine(TypedDict):
    """The hardware that produced a result."""

    system: str
    cpus: int | None
    threads: int
    gpu: str | None


class GitState(TypedDict):
    """The commit of the working folder, and whether tracked files differ from it."""

    commit: str
    changed: bool


class Environment(TypedDict):
    """Command, versions and machine; a typed dict, as it is written to JSON unchanged."""

    command: str
    versions: dict[str, str | None]
    machine: Machine
    git: GitState | None


def environment() -> Environment:
    """Return the environment of this process, for `environment.json` and for results."""
    import torch

    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("augkit", "torch", "torchvision", "kornia", "optuna", "albumentations", "numpy", "numba"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "command": " ".join(["python -m", *_command()]),
        "versions": versions,
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "git": _git(),
    }


def _git() -> GitState | None:
    """Return the git state of the working folder; None outside of a repository."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", *words], capture_output=True, text=True, check=True, timeout=10, encoding="utf-8"
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):  # no git, no repository, or a file system that is too slow
        return None
    return {"commit": commit, "changed": bool(changes)}


def _command() -> list[str]:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    # A package run by ``python -m`` appears as its ``__main__``.
    name = spec.name.removesuffix(".__main__") if spec is not None else Path(sys.argv[0]).name
    return [name, *sys.argv[1:]]
