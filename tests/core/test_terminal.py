"""Text on a terminal: sentences and tables within its width, words kept whole."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from augkit.core import terminal
from augkit.core.progress import Display


@given(st.lists(st.text("abc-é", min_size=1, max_size=60), max_size=40))
def test_words_stay_whole_and_lines_fit(words: list[str]) -> None:
    text = " ".join(words)
    lines = terminal.wrapped(text, indent="  ").splitlines()
    assert " ".join(" ".join(lines).split()) == text
    assert all(len(line) <= 80 for line in lines)
    assert all(line.startswith("  ") for line in lines[1:])


def test_a_path_longer_than_a_line_is_not_broken() -> None:
    path = "runs/" + "long-name/" * 12
    assert path in terminal.wrapped(f"written to {path} in the end").splitlines()


def test_each_paragraph_begins_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("one\ntwo " + "x " * 60, indent="    ")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "one"
    assert lines[1].startswith("two x")
    assert lines[2].startswith("    x")


def test_the_width_is_that_of_the_terminal_and_80_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "53")
    assert terminal.width() == 80
    monkeypatch.setattr(sys, "stdout", Tty())
    assert terminal.width() == 53
    assert max(map(len, terminal.wrapped("word " * 60).splitlines())) <= 53
    assert terminal.console(120).width == 120
    assert terminal.console().width == 53


class Tty:
    """A standard output that is a terminal."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None: ...

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.__stdout__, name)


def test_progress_names_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(2) as display:
        display.stage("training a", then="training b")
        display.stage("training b")
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("] training a; next: training b")
    assert said[1].endswith("] training b")
