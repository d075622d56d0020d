"""The table of speed in the README is that of the results, and leaves out no aim that was missed."""

from __future__ import annotations

import json
from pathlib import Path
from runpy import run_path

ROOT = Path(__file__).parent.parent.parent


def test_the_readme_has_rows_of_the_table_and_every_loss() -> None:
    made = run_path(str(ROOT / "benchmarks" / "speed_table.py"))
    record = json.loads(made["source"]().read_text())
    short, whole = made["table"](record, short=True), made["table"](record)
    assert short in (ROOT / "README.md").read_text()
    assert set(short.splitlines()) < set(whole.splitlines())
    assert short.count("(missed)") == whole.count("(missed)") == sum(not aim["met"] for aim in record["aims"])
