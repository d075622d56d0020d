"""The table of speed, from the results of `benchmarks/augment.py`: whole for the site, in a few rows for the README.

    python benchmarks/speed_table.py           # prints the whole table
    python benchmarks/speed_table.py --write   # puts the few rows in the README, in the place of those there

The results are those of a quiet machine where such a run is there, else those of a busy one.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
TASKS = {
    "pipeline": "shift, rescale, crop, flip",
    "rotation": "rotate, shift, crop",
    "photographs": "uint8 photographs of mixed sizes: crop, flip, normalize",
}
HEAD = "| task | pixels | against | times as fast, shortest times | median of rounds [95 %] | aim |"
RULE = "|---|--:|---|--:|--:|--:|"
SHORT = (  # the rows of the README, and every aim that was missed
    ("pipeline", 224, "kornia"),
    ("pipeline", 224, "albumentations to a float batch"),
    ("pipeline", 224, "grid_sample"),
    ("pipeline", 32, "kornia"),
    ("rotation", 224, "kornia"),
    ("photographs", 224, "torchvision per image"),
    ("photographs", 224, "NVIDIA DALI"),
)
TABLE = re.compile(re.escape(f"{HEAD}\n{RULE}") + r"\n(?:\|.*\n)*")


def source() -> Path:
    """The results that README and site state."""
    quiet = ROOT / "benchmarks" / "results" / "augment-cpu-quiet.json"
    return quiet if quiet.exists() else quiet.with_name("augment-cpu-busy.json")


def table(record: dict[str, Any], short: bool = False) -> str:
    """The aims against peers, or those that the README states; those of memory and of a copy are told in words."""
    told = [aim for aim in record["aims"] if aim["against"] != "copy" and not aim["against"].startswith("memory")]
    if short:
        told = [aim for aim in told if not aim["met"] or (aim["task"], aim["size"], aim["against"]) in SHORT]
    return "\n".join([HEAD, RULE, *map(_row, told)]) + "\n"


def _row(aim: dict[str, Any]) -> str:
    median, *interval = (f"{number:.1f}" for number in aim["ratio"])
    rounds = f"{median} [{', '.join(interval)}]" if interval else median
    wanted = f"{aim['aim']:g}" + ("" if aim["met"] else " (missed)")
    task = TASKS.get(aim["task"], f"{aim['task']}, uint8")
    return f"| {task} | {aim['size']} | {aim['against']} | {aim['best_ratio']:.1f} | {rounds} | {wanted} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="into the README")
    record = json.loads(source().read_text())
    if not parser.parse_args().write:
        print(table(record), end="")
        return
    readme = ROOT / "README.md"
    text, count = TABLE.subn(lambda _: table(record, short=True), readme.read_text())
    if count != 1:
        raise SystemExit(f"{readme}: expected one table of speed, got {count}")
    readme.write_text(text)


if __name__ == "__main__":
    main()
