"""What differs between Linux, macOS and Windows: encodings, consoles, names of files, start of processes, open files.

Nothing here has run on macOS or Windows. What they lack is taken away, and what they do instead is made to happen.
"""

from __future__ import annotations

import ast
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pictures import write_folder
from rich.console import Console
from rich.table import Table

import augkit
from augkit.core import cli, files, terminal
from augkit.core.errors import WriteError
from augkit.core.terminal import PLAIN
from augkit.data import load_dataset
from augkit.measure import __main__ as measure
from augkit.train import __main__ as train
from augkit.tune import __main__ as tune

ROOT = Path(augkit.__file__).parent
ODD = "mes résultats – 数字 №1"  # a blank, letters beyond ASCII, some beyond cp1252
READERS = {"read_text", "write_text"}
SMALL = [
    "data.name=digits",
    "data.canvas=16",
    "data.limit=120",
    "train.epochs=1",
    "invariance.pairs=1",
    "invariance.max_shift=2",
]


def without_encoding(path: Path) -> list[str]:
    """Calls that read or write text in the encoding of the system, which on Windows is seldom UTF-8."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        words = {word.arg: word.value for word in node.keywords}
        modes = [value.value for value in (*node.args, words.get("mode")) if isinstance(value, ast.Constant)]
        text = [mode for mode in modes if isinstance(mode, str) and set(mode) <= set("rwaxt+") and mode]
        if name in READERS or (name == "open" and text) or "text" in words:
            found.append(f"{path.name}:{node.lineno}: {name}")
    return found


def test_text_files_name_their_encoding() -> None:
    assert [call for path in ROOT.rglob("*.py") for call in without_encoding(path)] == []


def test_calls_without_an_encoding_are_found(tmp_path: Path) -> None:
    faulty = ["p.read_text()", "p.open('w')", "open(p, mode='r')", "run(c, text=True)"]
    fine = ["open(p, 'rb')", "p.open('w', encoding='utf-8')", "request.open()"]
    (tmp_path / "a.py").write_text("\n".join([*faulty, *fine]), encoding="utf-8")
    found = without_encoding(tmp_path / "a.py")
    assert [call.split()[0] for call in found] == [f"a.py:{line}:" for line in range(1, len(faulty) + 1)]


def plain(text: str, encoding: str) -> str:
    """The text with plain characters for those that the encoding does not have."""
    shown = ""
    for letter in text:
        try:
            shown += letter.encode(encoding).decode(encoding)
        except UnicodeEncodeError:
            shown += PLAIN.get(letter, "?")
    return shown


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii", "utf-8"])
def test_a_console_without_a_character_shows_a_plain_one(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "".join(PLAIN) + "数字 \udcff"

    def main(words: list[str]) -> None:
        print(text)
        table = Table("a – b", title="±")
        table.add_row("−0.5 ≥ x ✓")
        Console().print(table)
        print(text, file=sys.stderr)

    out, error = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", error)
    assert cli.run(main, []) == 0
    out.flush()
    error.flush()
    shown = out.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    assert plain(text, encoding) in shown
    assert plain("−0.5 ≥ x ✓", encoding) in shown
    assert error.buffer.getvalue().decode(encoding).strip() == plain(text, encoding)  # type: ignore[attr-defined]


def test_a_command_to_repeat_is_quoted_for_the_shell_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["digits", "--output", "my runs/a", "p='x y'"]
    assert shlex.split(terminal.command_line(words)) == words
    monkeypatch.setattr(terminal, "WINDOWS", True)
    assert terminal.command_line(words[:3]) == 'digits --output "my runs/a"'


def test_text_has_the_same_bytes_on_every_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "linesep", "\r\n")
    files.write(tmp_path / "a", "α\nβ\n")
    assert (tmp_path / "a").read_bytes() == "α\nβ\n".encode()


def test_a_path_that_is_no_text_is_escaped_in_files(tmp_path: Path) -> None:
    files.write(tmp_path / "a", "command: --output caf\udcc3\udca9\n")
    assert (tmp_path / "a").read_bytes() == b"command: --output caf\\udcc3\\udca9\n"


def test_a_file_is_flushed_through_a_handle_that_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")
    flush = os.fsync

    def as_on_windows(number: int) -> None:
        if fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flush(number)

    monkeypatch.setattr(os, "fsync", as_on_windows)
    files.write(tmp_path / "a", "text")
    assert (tmp_path / "a").read_text(encoding="utf-8") == "text"


@pytest.mark.parametrize(("name", "refusals", "works"), [("nt", 2, True), ("nt", 10_000, False), ("posix", 1, False)])
def test_a_file_that_is_being_read_is_replaced_a_moment_later(
    name: str, refusals: int, works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, tries = Path.replace, []

    def busy(self: Path, target: Path) -> Path:
        tries.append(target)
        if len(tries) <= refusals:
            raise PermissionError(13, "The process cannot access the file")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", busy)
    monkeypatch.setattr(files, "WINDOWS", name == "nt")
    monkeypatch.setattr(files, "PAUSE", 0.0)
    if works:
        files.write(tmp_path / "a", "text")
        assert (tmp_path / "a").read_text(encoding="utf-8") == "text"
    else:
        with pytest.raises(WriteError, match="cannot write"):
            files.write(tmp_path / "a", "text")
        assert list(tmp_path.iterdir()) == []


@pytest.mark.integration
def test_commands_work_in_folders_with_odd_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_folder(tmp_path / ODD / "Katzen & Hunde", {"Kätzchen": 12, "chien méchant": 12})
    run, search, report = (f"{ODD}/{name} é" for name in ("run", "search", "report"))
    recipe = ["mnist5k", f"data.name=folder:{data}", "data.image_size=8", "data.canvas=12", *SMALL[2:]]
    assert cli.run(train.main, [*recipe, "--output", run, "--quiet"]) == 0
    assert cli.run(train.main, [*recipe, "train.epochs=2", "--output", f"{ODD}/b", "--quiet"]) == 0
    assert cli.run(measure.main, [run, "--output", report, "--pairs", "1", "--quiet"]) == 0
    words = ["--trials", "1", "--trial-epochs", "1", "--seeds", "1", "--quiet", "--output", search]
    assert cli.run(tune.main, [*SMALL, *words]) == 0
    for folder in (run, search, report):
        assert (tmp_path / folder / "report.html").is_file()


@pytest.mark.slow
def test_a_command_runs_on_a_console_of_windows(tmp_path: Path) -> None:
    """Output in cp1252, no UTF-8 mode, and a folder whose name is beyond it: under the locale C it is no text."""
    folder = tmp_path / ODD
    folder.mkdir()
    console = {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    words = [*SMALL, "--trials", "1", "--trial-epochs", "1", "--seeds", "1", "--rungs", "none"]
    command = [sys.executable, "-m", "augkit.tune", *words, "--output", str(folder / "out")]
    done = subprocess.run(command, env={**os.environ, **console}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode("cp1252", "replace")
    assert "chosen" in done.stdout.decode("cp1252")
    assert json.loads((folder / "out" / "results.json").read_text(encoding="utf-8"))["chosen"]


@pytest.mark.integration
def test_workers_that_decode_may_be_spawned(tmp_path: Path) -> None:
    """macOS and Windows start workers anew; they are sent what they need."""
    data = write_folder(tmp_path / ODD, {"é": 6, "b": 6})
    whole = load_dataset(f"folder:{data}").train
    before = torch.multiprocessing.get_start_method()
    torch.multiprocessing.set_start_method("spawn", force=True)
    try:
        streamed = load_dataset(f"folder:{data}", memory=0, workers=1).train
        assert torch.equal(torch.cat(list(streamed.pixels())), whole.images)  # type: ignore[attr-defined]
    finally:
        torch.multiprocessing.set_start_method(before, force=True)
