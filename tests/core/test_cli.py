"""Exit codes of commands for errors that none of their checks foresees, and their words."""

from __future__ import annotations

import argparse
import errno
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from augkit.core.cli import run, seed_number, split_recipe
from augkit.core.errors import InputError
from augkit.train.recipe import Recipe

LONG = 300 * "x"  # more than a file system allows


@pytest.mark.parametrize("ask", [Recipe.load, lambda name: Path(name).stat()])
def test_a_name_that_is_too_long_is_one_line_and_bad_input(
    ask: Callable[[str], object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(lambda words: [ask(word) for word in words] and None, [LONG]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("augkit: error: ")


def test_a_file_that_may_not_be_read_is_bad_input_but_other_errors_keep_their_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(words: list[str]) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "theirs.yaml")

    def lost(words: list[str]) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "ours.json")

    assert run(refused, []) == 2
    expected = "'theirs.yaml': expected the name of a file or folder that can be opened (Permission denied)"
    assert capsys.readouterr().err == f"augkit: error: {expected}\n"
    with pytest.raises(FileNotFoundError):
        run(lost, [])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes")]
)
def test_too_little_memory_is_one_line(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def large(words: list[str]) -> None:
        raise error

    assert run(large, []) == 1
    said = capsys.readouterr().err
    assert said.startswith("augkit: error: out of memory")
    assert said.count("\n") == 1


def test_other_runtime_errors_keep_their_traceback() -> None:
    def wrong(words: list[str]) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        run(wrong, [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_cannot_be_written_is_one_line() -> None:
    code = "import sys; from augkit.core.cli import run; sys.exit(run(lambda words: print('found')))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "augkit: error: standard output cannot be written (No space left on device)\n"


def test_words_with_an_equals_sign_may_be_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b", "lr=0.1"):
        Path(name).mkdir()
        (Path(name) / "recipe.yaml").touch()
    Path("seed=3").mkdir()  # no recipe in it
    Path("x=1.yaml").touch()
    words = ["a=b/recipe.yaml", "lr=0.1", "x=1.yaml", "seed=3", "policy={}", "optim.lr=0.1", "mnist5k", LONG + "=1"]
    assert split_recipe(words, None) == ([*words[:3], "mnist5k"], [*words[3:6], words[7]])


@pytest.mark.parametrize(("text", "fits"), [("0", True), (str(2**63 - 1), True), (str(2**63), False), ("-1", False)])
def test_seeds_are_those_that_all_generators_take(text: str, fits: bool) -> None:
    if fits:
        assert seed_number(text) == int(text)
        torch.Generator().manual_seed(int(text))
        assert Recipe.load("mnist5k", [f"seed={text}"]).seed == int(text)
        return
    with pytest.raises(argparse.ArgumentTypeError, match="expected an integer"):
        seed_number(text)
    with pytest.raises(InputError, match="seed: expected"):
        Recipe.load("mnist5k", [f"seed={text}"])
