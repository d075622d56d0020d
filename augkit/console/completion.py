"""``augkit completion SHELL``: prints a completion script, made from the parsers of all commands.

The script holds the words itself, so that pressing TAB starts no Python: importing the commands takes seconds.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from augkit.console.verbs import VERBS
from augkit.core.cli import SCRIPT, Parser, bare_parser
from augkit.core.schema import dotted_fields

EXAMPLE = """python -m augkit completion bash > ~/.local/share/bash-completion/completions/augkit
  python -m augkit completion zsh > ~/.zfunc/_augkit      (a folder of $fpath)
  python -m augkit completion fish > ~/.config/fish/completions/augkit.fish"""
PLAIN = re.compile(r"[\w.=:,/+-]+")  # words that mean themselves in every shell
KINDS = {"DIR": "folder", "FOLDER": "folder", "FILE": "file", "DATA": "file", "STUDY": "file"}


@dataclass(frozen=True)
class Flag:
    """A flag of a command, with the kind of what follows it: nothing, choice, file, folder or word."""

    name: str
    kind: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completions:
    """What may follow a command: its flags, names such as those of recipes, and fields that can be set."""

    flags: tuple[Flag, ...]
    names: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()


def command_parser() -> Parser:
    """Return the parser of the command."""
    parser = bare_parser("completion", "Print the script that completes commands, flags, recipes and fields.", EXAMPLE)
    parser.add_argument("shell", choices=tuple(SCRIPTS), help="shell for which it is")
    return parser


def main(arguments: list[str]) -> None:
    """Parse, and print the script."""
    options = command_parser().parse_args(arguments)
    print(SCRIPTS[options.shell]({name: completions(verb.parser()) for name, verb in VERBS.items()}), end="")


def completions(parser: argparse.ArgumentParser) -> Completions:
    """Return what may follow a command, from its parser."""
    from augkit.compare.study.schema import shipped_studies
    from augkit.train.recipe import Recipe, shipped_recipes

    flags: list[Flag] = []
    names: list[str] = []
    fields: list[str] = []
    for action in actions_of(parser):
        kind = _kind(action)
        choices = tuple(str(choice) for choice in action.choices or ())
        flags += [Flag(name, kind, choices) for name in action.option_strings if name.startswith("--")]
        if action.option_strings:
            continue
        shown = str(action.metavar)
        names += choices
        names += shipped_recipes() if "RECIPE" in shown else []
        names += shipped_studies() if "STUDY" in shown else []
        fields += [f"{name}=" for name in dotted_fields(Recipe)] if "dotted.key" in shown else []
    return Completions(tuple(flags), tuple(filter(PLAIN.fullmatch, names)), tuple(fields))


def actions_of(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Return the arguments of a parser, which argparse passes only to its usage formatter."""
    found: list[argparse.Action] = []

    class Collector(argparse.HelpFormatter):
        def add_usage(self, usage: Any, actions: Iterable[argparse.Action], *rest: Any, **options: Any) -> None:
            found.extend(actions)

    parser.formatter_class = Collector
    parser.format_usage()
    return found


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0:
        return "nothing"
    return "choice" if action.choices else KINDS.get(str(action.metavar), "word")


def bash_script(found: Mapping[str, Completions]) -> str:
    """Return the script for bash 4.4 or newer."""
    return f"""# Completion of {SCRIPT} for bash, printed by: {SCRIPT} completion bash
_{SCRIPT}() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" prev="${{COMP_WORDS[COMP_CWORD-1]}}" verb="${{COMP_WORDS[1]}}"
    local flags="" names="" fields=""
    COMPREPLY=()
    if (( COMP_CWORD == 1 )); then
        COMPREPLY=($(compgen -W "{" ".join(found)}" -- "$cur"))
        return
    fi
    case "$verb $prev" in
{_cases(found, _BASH)}
    esac
    case "$verb" in
{_lists(found, 'flags="{}"; names="{}"; fields="{}"')}
    esac
    [[ $cur == -* ]] && names="$flags" fields=""
    [[ -z $cur ]] && fields=""  # a hundred of them hide the names
    COMPREPLY=($(compgen -W "$names $fields" -- "$cur"))  # files where nothing fits, by -o default
    [[ ${{#COMPREPLY[@]}} == 1 && ${{COMPREPLY[0]}} == *= ]] && compopt -o nospace
}}
complete -o default -F _{SCRIPT} {SCRIPT}
"""


def zsh_script(found: Mapping[str, Completions]) -> str:
    """Return the script for zsh, a file of ``$fpath`` or the argument of ``eval``."""
    verbs = " ".join(shlex.quote(f"{name}:{VERBS[name].summary}") for name in found)
    return f"""#compdef {SCRIPT}
# Completion of {SCRIPT} for zsh, printed by: {SCRIPT} completion zsh
_{SCRIPT}() {{
    local verb=${{words[2]}} prev=${{words[CURRENT-1]}}
    local -a verbs flags names fields
    if (( CURRENT == 2 )); then
        verbs=({verbs})
        _describe command verbs
        return
    fi
    case "$verb $prev" in
{_cases(found, _ZSH)}
    esac
    case $verb in
{_lists(found, "flags=({}); names=({}); fields=({})")}
    esac
    if [[ $PREFIX == -* ]]; then
        compadd -- $flags
    else
        compadd -- $names
        [[ -n $PREFIX ]] && compadd -S '' -- $fields
        _files
    fi
}}
if [[ $zsh_eval_context[-1] == eval ]]; then
    compdef _{SCRIPT} {SCRIPT}
else
    _{SCRIPT} "$@"
fi
"""


def fish_script(found: Mapping[str, Completions]) -> str:
    """Return the script for fish."""
    values = {"file": " -r -F", "folder": " -x -a '(__fish_complete_directories)'", "word": " -x", "nothing": ""}
    lines = [
        f"# Completion of {SCRIPT} for fish, printed by: {SCRIPT} completion fish",
        f"function __{SCRIPT}_command_is",
        "    set -l words (commandline -opc)",
        '    test (count $words) -gt 1; and test "$words[2]" = $argv[1]',
        "end",
    ]
    for verb in found:
        summary = shlex.quote(VERBS[verb].summary)
        lines.append(f"complete -c {SCRIPT} -f -n __fish_use_subcommand -a {verb} -d {summary}")
    for verb, words in found.items():
        here = f"__{SCRIPT}_command_is {verb}"
        start = f"complete -c {SCRIPT} -n '{here}'"
        for flag in words.flags:
            value = f" -x -a '{' '.join(flag.choices)}'" if flag.kind == "choice" else values[flag.kind]
            lines.append(f"{start} -l {flag.name.removeprefix('--')}{value}")
        if words.names:
            lines.append(f"{start} -a '{' '.join(words.names)}'")
        if words.fields:  # once a letter is there, because a hundred of them hide the names
            begun = f"complete -c {SCRIPT} -n '{here}; and string length -q -- (commandline -ct)'"
            lines.append(f"{begun} -a '{' '.join(words.fields)}'")
    return "\n".join(lines) + "\n"


# What the shell does after a flag, by what follows it; the choices take the place of the braces.
_BASH = {
    "choice": 'COMPREPLY=($(compgen -W "{}" -- "$cur")); return',
    "folder": "compopt -o dirnames +o default; return",
    "file": "return",
    "word": "compopt +o default; return",
}
_ZSH = {"choice": "compadd -- {}; return", "folder": "_files -/; return", "file": "_files; return", "word": "return"}
_OR = '"|"'  # between two quoted patterns
SCRIPTS: dict[str, Callable[[Mapping[str, Completions]], str]] = {
    "bash": bash_script,
    "zsh": zsh_script,
    "fish": fish_script,
}


def _cases(found: Mapping[str, Completions], does: Mapping[str, str]) -> str:
    """Lines of a ``case`` over command and flag; flags after which the same happens share a line."""
    groups: dict[str, list[str]] = {}
    for verb, words in found.items():
        for flag in words.flags:
            if flag.kind in does:
                groups.setdefault(does[flag.kind].format(" ".join(flag.choices)), []).append(f"{verb} {flag.name}")
    return "\n".join(f'        ("{_OR.join(places)}") {what} ;;' for what, places in groups.items())


def _lists(found: Mapping[str, Completions], form: str) -> str:
    """Lines of a ``case`` over commands that set the lists of words."""
    return "\n".join(
        f"        ({verb}) "
        + form.format(*(" ".join(part) for part in ([flag.name for flag in words.flags], words.names, words.fields)))
        + " ;;"
        for verb, words in found.items()
    )
