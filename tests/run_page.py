"""Run the blocks of a documentation page in order, in an empty folder, as a reader would.

| block | what happens |
|---|---|
| ```` ```python ```` | runs; the blocks of a page share their names |
| ```` ```python title="loop.py" ```` | is written to the file ``loop.py`` |
| ```` ```bash ```` | runs in a shell |
| ```` ```text ```` right after one of these | what it prints; a line ``...`` stands for any lines |

Words and whole numbers of printed text must agree, decimals to two units of their last digit. Where training decides,
a comment ``<!-- within 30 % -->`` between a block and its output lets every number differ by this share.

    python tests/run_page.py docs/tutorials/*.md

runs pages and writes what their blocks print, and the figures that they make, into the folder of the page.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
TITLE = re.compile(r'title="([\w./-]+)"')
WITHIN = re.compile(r"<!-- within (\d+) % -->")
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?")
FIGURE = re.compile(r"!\[[^\]]*\]\(([\w-]+\.png)\)")


@dataclass(frozen=True)
class Block:
    """A block that runs.

    Attributes:
        language: ``python`` or ``bash``.
        file: where the code is to be written; None if it is to be run.
        printed: what the page shows as output; None if it shows nothing.
        within: share by which every number of the output may differ; None for the usual rule.
        output: place of the output in the text of the page.
    """

    language: str
    code: str
    file: str | None
    printed: str | None
    within: float | None
    output: tuple[int, int] | None


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page that run, in order."""
    found, fences = [], list(FENCE.finditer(text))
    for fence, after in zip(fences, [*fences[1:], None], strict=False):
        language, words, code = fence.groups()
        if language not in ("python", "bash"):
            continue
        title = TITLE.search(words)
        shown = after if after is not None and after[1] == "text" else None
        share = WITHIN.search(text[fence.end() : shown.start()]) if shown is not None else None
        found.append(
            Block(
                language,
                code,
                None if title is None else title[1],
                None if shown is None else shown[3],
                None if share is None else float(share[1]) / 100,
                None if shown is None else shown.span(3),
            )
        )
    return found


def figures_of(text: str) -> list[str]:
    """Names of the figures beside the page that it shows."""
    return FIGURE.findall(text)


def run(page: Path, folder: Path) -> list[tuple[Block, str]]:
    """Run a page in ``folder``, the working folder of this process; each block with what it printed."""
    names: dict[str, Any] = {"__name__": "__main__"}
    done = []
    for number, block in enumerate(blocks_of(page.read_text())):
        where = f"{page.name}, block {number + 1}"
        if block.file is not None:
            (folder / block.file).write_text(block.code)
            done.append((block, ""))
        elif block.language == "bash":
            done.append((block, _in_a_shell(block.code, folder, where)))
        else:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), _on_the_path(folder):
                exec(compile(block.code, where, "exec"), names)
            done.append((block, printed.getvalue()))
    return done


@contextlib.contextmanager
def _on_the_path(folder: Path) -> Iterator[None]:
    """Context in which modules that a page has written can be imported, as in a script; they are forgotten after it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in [path.stem for path in folder.glob("*.py")]:
            sys.modules.pop(name, None)


def _in_a_shell(code: str, folder: Path, where: str) -> str:
    """Run commands that find this interpreter and this checkout; what they write to standard output."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "default"}
    command = ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{where}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def difference(block: Block, printed: str) -> str | None:
    """What differs between the output that a page shows and what was printed; None if they agree."""
    if block.printed is None:
        return None
    lines, at = [line.rstrip() for line in printed.strip("\n").split("\n")], 0
    parts = re.split(r"^\.\.\.$\n?", block.printed.strip("\n"), flags=re.MULTILINE)
    for k, part in enumerate(parts):
        wanted = [line.rstrip() for line in part.strip("\n").split("\n")] if part.strip() else []
        starts = [at] if k == 0 else list(range(at, len(lines) + 1))
        if k == len(parts) - 1 and wanted and k > 0:
            starts = [len(lines) - len(wanted)]
        fits = [s for s in starts if s >= at and _agree(wanted, lines[s : s + len(wanted)], block.within)]
        if not fits:
            return f"the page shows\n{part}\nprinted was\n{printed}"
        at = fits[0] + len(wanted)
    if at < len(lines) and parts[-1].strip():
        return f"the page shows\n{block.printed}\nprinted was\n{printed}"
    return None


def _agree(wanted: list[str], found: list[str], within: float | None) -> bool:
    return len(wanted) == len(found) and all(_alike(a, b, within) for a, b in zip(wanted, found, strict=True))


def _alike(wanted: str, found: str, within: float | None) -> bool:
    words = [re.sub(r"\s+", " ", NUMBER.sub("#", line)) for line in (wanted, found)]
    pairs = zip(NUMBER.findall(wanted), NUMBER.findall(found), strict=False)
    return words[0] == words[1] and all(_close(a, b, within) for a, b in pairs)


def _close(wanted: str, found: str, within: float | None) -> bool:
    decimals = len(wanted.partition(".")[2])
    if within is None and not decimals:
        return wanted == found
    allowed = 2.001 * 10.0**-decimals + (within or 0.0) * abs(float(wanted))
    return abs(float(wanted) - float(found)) <= allowed


def rewrite(page: Path) -> None:
    """Run a page and write what it printed, and its figures, beside it."""
    text = page.read_text()
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        for block, printed in reversed(run(page, Path(name))):
            if block.output is not None and "..." not in str(block.printed).splitlines():
                start, end = block.output
                text = text[:start] + printed.strip("\n") + "\n" + text[end:]
        for figure in figures_of(text):
            shutil.copy(Path(name) / figure, page.parent / figure)
    page.write_text(text)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for argument in sys.argv[1:]:
        print(argument)
        rewrite(Path(argument).resolve())
