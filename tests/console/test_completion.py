"""Shell completion: what the parsers know, and each script in its shell, where that is installed."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from augkit.console.command import main
from augkit.console.completion import PLAIN, SCRIPTS, Completions, completions
from augkit.console.verbs import VERBS
from augkit.core.errors import InputError
from augkit.train.recipe import Recipe, shipped_recipes


@pytest.fixture(scope="module")
def found() -> dict[str, Completions]:
    return {name: completions(verb.parser()) for name, verb in VERBS.items()}


def test_every_flag_of_every_parser_is_completed(found: dict[str, Completions]) -> None:
    for name, words in found.items():
        usage = VERBS[name].parser().format_usage()
        # The usage has one name of each flag.
        assert set(re.findall(r"--[a-z][a-z-]*", usage)) <= {flag.name for flag in words.flags}, name
        assert "--help" in {flag.name for flag in words.flags}


def test_recipes_studies_and_fields_are_completed_where_they_are_taken(found: dict[str, Completions]) -> None:
    for name in ("train", "tune", "compare", "preview"):
        assert set(shipped_recipes()) <= set(found[name].names)
        assert {"policy.shift.max_pixels=", "optim.lr=", "data.name=", "seed=", "constraint.rate="} <= set(
            found[name].fields
        )
    assert "invariance" in found["compare"].names
    assert "invariance" not in found["train"].names
    assert (found["measure"].names, found["measure"].fields) == ((), ())
    assert found["completion"].names == ("bash", "zsh", "fish")


def test_completed_fields_are_fields_of_a_recipe(found: dict[str, Completions]) -> None:
    assert len(set(found["train"].fields)) == len(found["train"].fields) > 50
    for name in [*found["train"].fields, "policy.shift.pixels="]:
        problem = ""
        try:
            Recipe.load("mnist5k", [f"{name}[]"])
        except InputError as error:
            problem = str(error)
        assert ("unknown key" in problem) == (name == "policy.shift.pixels="), name


def test_what_follows_a_flag_is_known(found: dict[str, Completions]) -> None:
    flags = {flag.name: flag for flag in found["tune"].flags}
    assert flags["--objective"].choices == ("pareto", "accuracy", "invariance")
    kinds = {name: flags[name].kind for name in ("--objective", "--output", "--trials", "--json", "--from")}
    assert kinds == {
        "--objective": "choice",
        "--output": "folder",
        "--trials": "word",
        "--json": "nothing",
        "--from": "file",
    }


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_hold_all_words_unquoted(shell: str, found: dict[str, Completions]) -> None:
    script = SCRIPTS[shell](found)
    for name, words in found.items():
        for word in (name, *words.names, *words.fields, *(choice for f in words.flags for choice in f.choices)):
            assert PLAIN.fullmatch(word), word
            assert word in script
        for flag in words.flags:
            assert (f"-l {flag.name[2:]}" if shell == "fish" else flag.name) in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True)


def bash(script: Path, *words: str) -> set[str]:
    """What bash would offer for a line that ends with the last word."""
    lines = [
        "compopt() { :; }",  # only the line editor has it
        f". {shlex.quote(str(script))}",
        f"COMP_WORDS=({shlex.join(['augkit', *words])}); COMP_CWORD={len(words)}",
        "_augkit",
        "printf '%s\\n' \"${COMPREPLY[@]}\"",
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_offers_what_fits(found: dict[str, Completions], tmp_path: Path) -> None:
    script = tmp_path / "augkit.bash"
    script.write_text(SCRIPTS["bash"](found))
    assert bash(script, "") == set(VERBS)
    assert bash(script, "t") == {"train", "tune"}
    assert bash(script, "tune", "mn") == {"mnist5k"}
    assert bash(script, "tune", "") == set(shipped_recipes())
    assert bash(script, "tune", "mnist5k", "policy.shift.m") == {"policy.shift.max_pixels="}
    assert bash(script, "tune", "--obj") == {"--objective"}
    assert bash(script, "tune", "--objective", "") == {"pareto", "accuracy", "invariance"}
    assert bash(script, "tune", "--output", "r") == set(), "folders are left to readline"
    assert bash(script, "measure", "--objective", "") == set(), "it is no flag of that command"
    assert bash(script, "completion", "z") == {"zsh"}


# What fish and zsh offer at the end of a line, in an empty folder.
OFFERED = {
    "augkit ": set(VERBS),
    "augkit t": {"train", "tune"},
    "augkit tune ": set(shipped_recipes()),
    "augkit tune mn": {"mnist5k"},
    "augkit tune mnist5k policy.shift.m": {"policy.shift.max_pixels="},
    "augkit tune --obj": {"--objective"},
    "augkit tune --objective ": {"pareto", "accuracy", "invariance"},
    "augkit tune --trials ": set(),
    "augkit preview tune --obj": set(),
    "augkit completion z": {"zsh"},
}
FISH = """source $argv[1]
for line in $argv[2..]
    complete -C "$line" | string replace -r '\\t.*' ''
    echo @end
end"""
# `compadd`, by which zsh's completions reach the editor, prints what fits instead.
ZSH_EDITOR = r"""PROMPT=
fpath=({folder} $fpath)
autoload -Uz compinit
compinit -u -D
{load}
bindkey '^I' complete-word
bindkey '^U' kill-whole-line
compadd() {
    if [[ ${@[1,(i)(-|--)]} == *-(O|A|D)\ * ]]; then
        builtin compadd "$@"
        return
    fi
    local -a hits
    builtin compadd -A hits "$@"
    print -rl -- $hits
    (( $#hits ))
}
mark-begin() { print @begin }
mark-end() { print @end }
mark-next() { compprefuncs=(mark-begin mark-next); comppostfuncs=(mark-end) }
mark-next
print @ready"""
ZSH = r"""zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal "source ${(q)1}"
zpty -r terminal out '*@ready*'
for line in "${@[2,-1]}"; do
    zpty -w -n terminal $'\C-u'"$line"$'\t'
    zpty -r terminal out '*@begin*@end*'
    print -r -- "${out##*@begin}"
done
zpty -d terminal"""


def offered(command: list[str], script: Path) -> dict[str, set[str]]:
    """What a shell, told to print its completions of lines, offers in an empty folder."""
    folder = script.parent / "empty"
    folder.mkdir()
    words = [*command, str(script), *OFFERED]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=folder, timeout=60)
    assert done.stderr == ""
    return dict(zip(OFFERED, [set(part.split()) for part in done.stdout.split("@end")[:-1]], strict=True))


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish")
def test_fish_offers_what_fits(found: dict[str, Completions], tmp_path: Path) -> None:
    script = tmp_path / "augkit.fish"
    script.write_text(SCRIPTS["fish"](found))
    assert offered(["fish", "--no-config", "-c", FISH], script) == OFFERED


@pytest.mark.skipif(shutil.which("zsh") is None, reason="no zsh")
@pytest.mark.parametrize("load", ["", 'eval "$(< {file})"'], ids=["fpath", "eval"])
def test_zsh_offers_what_fits(load: str, found: dict[str, Completions], tmp_path: Path) -> None:
    functions = tmp_path / "functions"
    functions.mkdir()
    file = functions / ("augkit.zsh" if load else "_augkit")
    file.write_text(SCRIPTS["zsh"](found))
    editor = tmp_path / "editor.zsh"
    loads = load.replace("{file}", shlex.quote(str(file)))
    editor.write_text(ZSH_EDITOR.replace("{folder}", shlex.quote(str(functions))).replace("{load}", loads))
    assert offered(["zsh", "-f", "-c", ZSH, "zsh"], editor) == OFFERED


def test_the_command_prints_the_script(capsys: pytest.CaptureFixture[str], found: dict[str, Completions]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == SCRIPTS["bash"](found)
    assert main(["completion", "tcsh"]) == 2
    assert "invalid choice: 'tcsh'" in capsys.readouterr().err
