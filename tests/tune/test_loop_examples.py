"""The training loops of the page on loops: those of other libraries run, and their lines are counted."""

from __future__ import annotations

import ast
import re
import warnings
from pathlib import Path
from typing import Any

import pytest

LOOPS = (Path(__file__).parent.parent.parent / "docs" / "loops.md").read_text()
PLAIN = re.findall(r"```python\n(.*?)```", LOOPS, flags=re.DOTALL)
OTHERS = dict(zip(("lightning", "transformers"), re.findall(r"```py\n(.*?)```", LOOPS, flags=re.DOTALL), strict=True))
LINES = re.findall(r"^\| `(train\w*)` \| (\d+)\D.*\| (\d+) \| \d+ \|$", LOOPS, flags=re.MULTILINE)


@pytest.mark.integration
@pytest.mark.parametrize(("library", "epochs"), [("lightning", 2 * 1 + 1), ("transformers", 2 * 2 + 2)])
def test_the_example_of_a_library_runs(library: str, epochs: int) -> None:
    pytest.importorskip(library, reason=f"needs {library}")
    if library == "transformers":
        pytest.importorskip("accelerate", reason="needs accelerate, as the Trainer does")
    scope: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on workers and pinned memory
        exec(compile(PLAIN[0].partition("result = ")[0] + OTHERS[library], "loops.md", "exec"), scope)
    assert scope["result"].search.search_cost.epochs_run == epochs, (
        "a rung goes on from the checkpoint of the one below"
    )


def test_the_page_counts_the_lines_of_its_loops() -> None:
    assert len(LINES) == 4
    found = {}
    for block in (*PLAIN, *OTHERS.values()):
        for node in ast.parse(block).body:
            if isinstance(node, ast.FunctionDef):
                body = block.splitlines()[node.lineno : node.end_lineno]
                whole = 1 + len(body)
                found[node.name] = whole, sum(bool(re.search(r"augment|policy", line)) for line in body)
    assert {name: (int(whole), int(own)) for name, whole, own in LINES} == {name: found[name] for name, *_ in LINES}
