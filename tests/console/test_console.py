"""The console script: verbs, version, nearest names, and how long the list of verbs takes."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import augkit
from augkit.console.command import main
from augkit.console.verbs import VERBS
from augkit.core import cli

ROOT = Path(__file__).parents[2]


def commands() -> set[str]:
    """Packages with a command of their own."""
    return {path.parent.name for path in (ROOT / "augkit").glob("*/__main__.py")}


def test_every_command_is_a_verb_with_a_short_summary() -> None:
    assert commands() <= set(VERBS)
    for name, verb in VERBS.items():
        assert verb.module in (f"{name}.__main__", f"console.{name}")
        assert (ROOT / "augkit" / f"{verb.module.replace('.', '/')}.py").is_file()
        assert 0 < len(verb.summary) <= 62


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_the_list_of_verbs_has_one_line_each(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 0
    out = capsys.readouterr()
    assert out.err == ""
    for name, verb in VERBS.items():
        assert sum(line.split()[:1] == [name] and line.endswith(verb.summary) for line in out.out.splitlines()) == 1
    assert max(map(len, out.out.splitlines())) <= 80


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"augkit {augkit.__version__}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("tun", "unknown command 'tun': did you mean 'tune'?"),
        ("mesure runs/first", "unknown command 'mesure': did you mean 'measure'?"),
        ("xyz", "unknown command 'xyz': (known: "),
        ("--json tune", "expected a command before '--json'"),
        ("train mnist5k --seed x", "expected an integer, got 'x'"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words.split()) == 2
    out = capsys.readouterr()
    assert (out.out, out.err.count("\n")) == ("", 1)
    assert out.err.startswith("augkit: error: ")
    assert message in out.err


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_has_the_parser_of_its_module(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/augkit"])
    for words in ([name, "--help"], ["help", name]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert out.startswith(f"usage: augkit {name} ")
        assert f"example:\n  augkit {name}" in out
        assert "python -m augkit" not in out
        described = out.partition("example:")[0].splitlines()
        assert max(map(len, described)) <= 80, max(described, key=len)
    monkeypatch.setattr(sys, "argv", ["/somewhere/augkit/train/__main__.py"])
    start = f"python -m augkit{'.' if name in commands() else ' '}{name}"
    assert VERBS[name].parser().prog == start
    assert f"example:\n  {start}" in VERBS[name].parser().format_help()


def test_an_interrupted_command_is_resumed_as_it_was_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/augkit", "measure", "r"])
    assert str(cli.interrupted("measure", ["r"], Path("out"))) == "augkit measure r --output out --resume"
    monkeypatch.setattr(sys, "argv", ["/somewhere/augkit/measure/__main__.py", "r"])
    assert str(cli.interrupted("measure", ["r"], Path("out"))) == "python -m augkit.measure r --output out --resume"


def test_the_console_script_is_declared() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"augkit": "augkit.console.command:main"}


def test_the_list_of_verbs_imports_no_command_and_no_library() -> None:
    code = (
        "import sys\n"
        "from augkit.console.command import main\n"
        "assert main(['--help']) == 0\n"
        "print(*sorted(name for name in sys.modules if name.startswith('augkit.') and name.endswith('__main__')))\n"
        "print(*[name for name in ('torch', 'numpy', 'pydantic', 'optuna', 'rich', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["", ""]


@pytest.mark.integration
def test_python_m_augkit_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "augkit", "tun"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean 'tune'?" in done.stderr
