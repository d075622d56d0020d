"""``augkit doctor``: checks whether the installation works on this machine, as text for a bug report."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import augkit
from augkit.console import checks
from augkit.console.checks import Check
from augkit.core.cli import Parser, bare_parser, print_json
from augkit.core.errors import RunError
from augkit.core.records import Record
from augkit.core.terminal import width

EXAMPLE = """python -m augkit doctor            # a block to paste into a report
  python -m augkit doctor --json"""
MARKS = {"ok": "ok", "failed": "FAILED", "missing": "-"}


@dataclass(frozen=True)
class Findings(Record):
    """All checks of a machine; ``system`` names operating system, processor and Python, but no folder and no user."""

    augkit: str
    system: str
    checks: list[Check]

    @property
    def failed(self) -> list[Check]:
        """Checks of what should work and does not."""
        return [check for check in self.checks if check.state == "failed"]

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping, with ``passed``."""
        return {"passed": not self.failed, **super().to_mapping()}


def command_parser() -> Parser:
    """Return the parser of the command."""
    description = (
        "Check versions, devices, backends and storages: import the libraries, resample with every backend and compare"
        " with float64, write a journal from two threads. Exit code 1 if something that should work does not."
    )
    parser = bare_parser("doctor", description, EXAMPLE)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, nothing else")
    return parser


def main(arguments: list[str]) -> None:
    """Parse, check, print.

    Raises:
        RunError: a check failed.
    """
    options = command_parser().parse_args(arguments)
    found = examine()
    if options.json:
        print_json(found.to_dict())
    else:
        print("\n".join(lines(found)))
    if found.failed:
        raise RunError(f"doctor: {_failures(found.failed)}")


def examine() -> Findings:
    """Run all checks."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return Findings(augkit.__version__, system, [check for group in checks.ALL for check in group()])


def lines(found: Findings) -> list[str]:
    """Return the result as one sentence, then the checks by group, within the width of the terminal."""
    optional = [check for check in found.checks if check.group == "extras"]
    present = sum(check.state == "ok" for check in optional)
    counted = sum(check.state != "missing" for check in found.checks if check.group != "extras")
    said = _failures(found.failed) if found.failed else f"all {counted} checks passed"
    sentence = f"augkit {found.augkit} on {found.system}: {said}; {present} of {len(optional)} extras are installed."
    out = textwrap.wrap(sentence, width())
    for group, members in groupby(found.checks, key=lambda check: check.group):
        out += ["", group, *(line for check in members for line in _line(check))]
    return [*out, "", "To report a fault, paste all of this; it names no folder and no user."]


def _line(check: Check) -> list[str]:
    text = check.found + (f"; {check.remedy}" if check.remedy else "")
    start = f"  {MARKS[check.state]:6}  {check.name:21} "
    return textwrap.wrap(text, width(), initial_indent=start, subsequent_indent=" " * len(start))


def _failures(failed: Sequence[Check]) -> str:
    names = ", ".join(check.name for check in failed)
    return f"{len(failed)} check{'s' * (len(failed) > 1)} failed: {names}"
