"""``augkit VERB ...``: runs a command by its name."""

from __future__ import annotations

import augkit
from augkit.console.verbs import VERBS
from augkit.core.cli import SCRIPT, run
from augkit.core.errors import InputError, unknown_name

HELP = ("-h", "--help", "help")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line, and return the exit code; ``arguments`` are those of the process when None."""
    return run(dispatch, arguments)


def dispatch(arguments: list[str]) -> None:
    """Run the command that the first argument names with the others; list all commands if there is none.

    Raises:
        InputError: there is no command of that name.
    """
    verb, *rest = arguments or ["--help"]
    if verb in HELP and rest and rest[0] in VERBS:  # `augkit help tune`
        verb, rest = rest[0], ["--help"]
    if verb in HELP:
        print(listing())
    elif verb == "--version":
        print(f"{SCRIPT} {augkit.__version__}")
    elif verb in VERBS:
        VERBS[verb].main()(rest)
    elif verb.startswith("-"):
        raise InputError(f"expected a command before '{verb}', as in {SCRIPT} train {verb} (see {SCRIPT} --help)")
    else:
        raise unknown_name("command", verb, VERBS)


def listing() -> str:
    """All commands, one line each.

    >>> print(listing().splitlines()[0])
    usage: augkit COMMAND ...
    """
    width = max(map(len, VERBS))
    lines = [f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            f"usage: {SCRIPT} COMMAND ...",
            "",
            *lines,
            "",
            f"  {SCRIPT} COMMAND --help   its flags, with examples",
            f"  {SCRIPT} --version        the version",
        ]
    )
