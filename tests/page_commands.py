"""Commands and code of README and pages: a block that says `bash` or `python` runs as it stands, one without a language
is shown alone.

Commands run in order in one folder, on smaller images and with fewer trials: what they do is the same, how long it
takes is not.
"""

from __future__ import annotations

import re
import shlex

from augkit.compare import __main__ as compare
from augkit.core.cli import run
from augkit.measure import __main__ as measure
from augkit.preview import __main__ as preview
from augkit.train import __main__ as train
from augkit.tune import __main__ as tune

COMMANDS = {
    "preview": preview.main,
    "train": train.main,
    "measure": measure.main,
    "compare": compare.main,
    "tune": tune.main,
}
SMALL = [
    "data.name=digits",
    "data.canvas=16",
    "data.limit=200",
    "train.epochs=1",
    "invariance.max_shift=3",
    "invariance.pairs=1",
]


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a page that name ``language``."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def commands(text: str) -> list[str]:
    """The lines of its `bash` blocks that are commands of augkit."""
    lines = (line for block in blocks(text, "bash") for line in block.splitlines())
    return [line for line in lines if line.startswith("python -m augkit.")]


def run_small(line: str) -> int:
    """Run a command of a page in this process, in the working folder; return its exit code."""
    name, *words = shlex.split(line.removeprefix("python -m augkit."))
    if name == "measure":
        words += ["--limit", "40"]
    elif "--show" not in words:
        words += SMALL
    if name == "tune" and "--show" not in words:  # the last --trials and --seeds count
        words += ["--trials", "1", "--seeds", "1", "--trial-epochs", "1"]
    return run(COMMANDS[name], [*words, "--quiet"])
