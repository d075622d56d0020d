"""Text on a terminal: how wide it is, sentences that fit, and characters that its encoding does not have.

Windows terminals often use the encoding cp1252.
"""

from __future__ import annotations

import codecs
import io
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 80  # where standard output is no terminal
WINDOWS = os.name == "nt"
ERRORS = "augkit.plain"  # name of the handler of characters that an encoding does not have
PLAIN = {
    "−": "-",
    "–": "-",
    "…": "...",
    "×": "x",
    "±": "+/-",
    "½": "1/2",
    "²": "^2",
    "°": " deg",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "✓": "v",
    "✗": "x",
    "‖": "||",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
}


def width() -> int:
    """Return the width of the terminal in characters; 80 if standard output is not one."""
    return shutil.get_terminal_size((WIDTH, 24)).columns if sys.stdout.isatty() else WIDTH


def console(least: int = 0) -> Console:
    """Return a console of rich for tables, as wide as the terminal, or ``least`` where that is more."""
    from rich.console import Console

    return Console(width=max(width(), least), highlight=False)


def say(text: str, indent: str = "") -> None:
    """Print each paragraph of ``text`` within the width; lines after its first start with ``indent``."""
    print("\n".join(wrapped(paragraph, indent) for paragraph in text.splitlines()))


def wrapped(text: str, indent: str = "") -> str:
    """Return a paragraph wrapped to the width; words, such as paths, are not split."""
    return textwrap.fill(text, width(), subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def print_any_text() -> None:
    """Let standard output and standard error write a plain character for one that their encoding does not have.

    Python would raise UnicodeEncodeError, at the end of a long run.
    """
    codecs.register_error(ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ERRORS)


def command_line(words: Sequence[str]) -> str:
    """Return words as one line that the shell of this system splits into the same words."""
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)


def _plain(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end
