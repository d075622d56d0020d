"""Files are whole or not there; what is replaced is ours."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from augkit.core.errors import InputError, WriteError
from augkit.core.files import HOLD, MARK, claim, release, write


def test_an_interrupt_leaves_no_part_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")

    def save(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", save)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "before"


def make_run(folder: Path) -> None:
    (folder / "cells" / "one").mkdir(parents=True)
    (folder / "cells" / "one" / "x").touch()
    (folder / MARK).write_text("{}")
    (folder / "zz").touch()


def test_a_removal_that_was_interrupted_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run")

    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupted)
        with pytest.raises(KeyboardInterrupt):
            claim(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / MARK).is_file()
    claim(tmp_path / "run", overwrite=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [HOLD]


def test_a_folder_that_somebody_still_writes_to_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "run")

    def fails(path: Path) -> Any:
        raise OSError(39, "Directory not empty")

    monkeypatch.setattr(shutil, "rmtree", fails)
    with pytest.raises(InputError, match=r"output '.*run': cannot be replaced \(Directory not empty\)"):
        claim(tmp_path / "run", overwrite=True)


def test_what_a_link_points_to_is_kept(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").touch()
    (tmp_path / "run" / "data").symlink_to(tmp_path / "data")
    claim(tmp_path / "run", overwrite=True)
    assert (tmp_path / "data" / "x").is_file()


@pytest.mark.parametrize(("error", "raised"), [(ValueError("odd"), ValueError), (RuntimeError(), WriteError)])
def test_no_error_leaves_a_part_of_a_file(tmp_path: Path, error: Exception, raised: type[Exception]) -> None:
    """Also none that has no message."""
    file = tmp_path / "x.png"
    write(file, "whole")

    def save(path: Path) -> None:
        path.write_text("par")
        raise error

    with pytest.raises(raised):
        write(file, save)
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
    assert file.read_text() == "whole"


@pytest.mark.parametrize("linked", [False, True])
def test_code_that_runs_is_never_deleted(linked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, name = tmp_path / "out", f"augkit_loop_{linked}"
    folder.mkdir()
    (folder / MARK).touch()
    (folder / f"{name}.py").write_text("")
    monkeypatch.syspath_prepend(str(folder))
    importlib.import_module(name)
    given = tmp_path / "link" if linked else folder
    if linked:
        given.symlink_to(folder)
    with pytest.raises(InputError, match=r"--overwrite would delete '.*\.py', which runs"):
        claim(given, overwrite=True)
    assert (folder / f"{name}.py").is_file()
    monkeypatch.delitem(sys.modules, name)
    claim(given, overwrite=True)
    assert [path.name for path in folder.iterdir()] == [HOLD]


def other(folder: Path, then: str = "input()", **claim: bool) -> subprocess.Popen[str]:
    """Another process that claims a folder, says so, and waits."""
    words = ", ".join(f"{key}={value}" for key, value in claim.items())
    code = f"from pathlib import Path; from augkit.core.files import *; claim(Path({str(folder)!r}), {words})"
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", f"{code}; print('claimed', flush=True); {then}"], **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    return process


def test_of_two_processes_that_begin_at_once_one_has_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = other(folder)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f"exists: process {process.pid} has just begun to write there"):
            claim(folder, overwrite=overwrite)
    process.communicate("\n")
    assert claim(folder) == folder, "it ended and wrote nothing"
    assert [path.name for path in folder.iterdir()] == [HOLD]
    write(folder / MARK, "{}")
    assert [path.name for path in folder.iterdir()] == [MARK]
    with pytest.raises(InputError, match="exists: add --resume to go on"):
        claim(folder)


def test_a_killed_process_holds_no_folder_and_a_claim_may_be_repeated(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    process = other(folder)
    process.kill()
    process.communicate()
    assert (folder / HOLD).exists()
    for _ in range(2):
        assert claim(folder) == folder
    release(folder)
    assert list(folder.iterdir()) == []


def test_whoever_goes_on_with_a_folder_holds_nothing(tmp_path: Path) -> None:
    process = other(tmp_path, resume=True)
    assert claim(tmp_path, resume=True) == tmp_path
    assert list(tmp_path.iterdir()) == []
    process.communicate("\n")
