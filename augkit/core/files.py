"""Folders and files that are written whole or not at all, and never replace others unless told to."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

from augkit.core.errors import InputError, WriteError

MARK = "environment.json"  # marks a folder that augkit wrote


def write(path: Path, save: str | Callable[[Path], Any]) -> None:
    """Write text, or the file of ``save(path)``, atomically: to a new file beside ``path``, which then replaces it.

    Raises:
        WriteError: the disk is full or the folder cannot be written; what was there before is intact.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if isinstance(save, str):
            partial.write_text(save)
        else:
            save(partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except KeyboardInterrupt:
        partial.unlink(missing_ok=True)
        raise
    except (OSError, RuntimeError) as error:  # torch.save turns a full disk into a RuntimeError
        partial.unlink(missing_ok=True)
        reason = str(error).splitlines()[0]
        raise WriteError(f"cannot write '{path}' ({reason}); what was there before is intact") from None


def claim(folder: Path, *, resume: bool = False, overwrite: bool = False) -> Path:
    """Make ``folder`` ready to write to; errors as of `reserve`."""
    reserve(folder, resume=resume, overwrite=overwrite)
    if overwrite and not resume:
        try:
            _empty(folder)
        except OSError as error:
            raise InputError(f"output '{folder}': cannot be replaced ({error.strerror or error})") from None
    return folder


def reserve(folder: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Check that `claim` will succeed, for commands with further checks to make before anything is replaced.

    Raises:
        InputError: it exists and neither ``resume`` nor ``overwrite`` is set; it is a file; ``overwrite``
            names a folder that augkit did not write; it cannot be made.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output '{folder}': expected a folder, it is a file")
    filled = folder.is_dir() and any(folder.iterdir())
    if filled and not (resume or overwrite):
        raise InputError(
            f"output '{folder}' exists: add --resume to go on, --overwrite to replace it, or name another --output"
        )
    if filled and not resume and not (folder / MARK).is_file():
        raise InputError(f"output '{folder}': --overwrite replaces folders that augkit wrote, this is none")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{os.getpid()}.partial"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise InputError(f"output '{folder}': cannot be written ({error.strerror or error})") from None


def _empty(folder: Path) -> None:
    """Delete the content, the mark last: after an interrupt the folder can still be recognized."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name == MARK):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink(missing_ok=True)


class Machine(TypedDict):
    """Hardware that a result was made on."""

    system: str
    cpus: int | None
    threads: int
    gpu: str | None


class GitState(TypedDict):
    """The commit of the working folder, and whether files that git follows differ from it."""

    commit: str
    changed: bool


class Environment(TypedDict):
    """Command, versions and machine; a typed dict, as it is written to JSON unchanged."""

    command: str
    versions: dict[str, str | None]
    machine: Machine
    git: GitState | None


def environment() -> Environment:
    """The environment of this process, for `environment.json` and for results."""
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
    """The state of the working folder; None outside of git."""
    try:
        commit, changes = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):  # no git, no repository, or a file system that takes too long
        return None
    return {"commit": commit, "changed": bool(changes)}


def _command() -> list[str]:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    # A package that is run shows as its ``__main__``.
    name = spec.name.removesuffix(".__main__") if spec is not None else Path(sys.argv[0]).name
    return [name, *sys.argv[1:]]
