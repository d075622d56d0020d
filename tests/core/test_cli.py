"""Exit codes of commands for errors that none of their checks foresees."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from augkit.core.cli import run
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
