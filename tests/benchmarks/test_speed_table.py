"""The table of speed in the README is that of the results."""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).parent.parent.parent


def test_the_readme_has_the_table_of_the_results_it_names() -> None:
    made = run_path(str(ROOT / "benchmarks" / "speed_table.py"))
    readme, source = (ROOT / "README.md").read_text(), made["source"]()
    assert made["table"](json.loads(source.read_text())) in readme
    assert f"benchmarks/results/{source.name}" in readme
