"""Run a study: its cells, then its results, and the files that hold them."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import Any

from augkit.building import choose_device
from augkit.cells import Cell, Workplace, cells_of, to_do
from augkit.command import Display, Interrupted
from augkit.crew import work_all
from augkit.findings import Findings
from augkit.report.figures import plane, save_png
from augkit.report.study_page import study_markdown, study_page
from augkit.storage import claim, environment, write
from augkit.studies import Study


def run_study(
    study: Study,
    folder: Path,
    *,
    workers: int = 1,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
) -> dict[str, Any]:
    """Run what is missing of a study, answer its claims, and write ``results.json``, ``report.html``, ``report.md``.

    Args:
        study: what to run.
        folder: cells and results; with ``resume`` what stands there is used, also of fewer seeds or arms.
        workers: processes that train and measure side by side.
        device: to train on; a GPU if there is one when None.
        resume, overwrite: as in `augkit.fit`.
        display: progress.

    Returns:
        The content of ``results.json``.

    Raises:
        InputError: a cell of another recipe in ``folder``; whatever training and measuring raise.
    """
    claim(folder, resume=resume, overwrite=overwrite)
    write(folder / "environment.json", json.dumps(environment(), indent=2))
    write(folder / "study.yaml", study.to_yaml())
    place = Workplace(study, folder, choose_device(device))
    cells = cells_of(study)
    missing = to_do(place, cells)
    for cell in {cell.arm.name: cell for cell in missing}.values():
        place.check(cell)
    show = display or Display(0, quiet=True)
    show.begin(len(cells), len(cells) - len(missing))
    show.stage(f"{len(cells)} cells, {len(missing)} to do, {workers} worker{'s' * (workers > 1)}")
    started, done = time.monotonic(), 0

    def report(cell: Cell, row: dict[str, Any]) -> None:
        nonlocal done
        done += 1
        show.advance(1)
        show.stage(f"{done} of {len(missing)}: {cell.name}, {row['seconds']:.1f} s")

    work_all(place, missing, workers, report, folder / "study.yaml")
    show.stage("answering claims")
    results = Findings(place, cells).results(len(cells), len(cells) - len(missing))
    results["cost"]["wall_seconds"] = time.monotonic() - started
    write_results(results, folder)
    return results


def write_results(results: dict[str, Any], folder: Path) -> None:
    """``results.json``, and both forms of the report."""
    write(folder / "results.json", json.dumps(results, indent=2, allow_nan=False))
    write(folder / "report.html", study_page(results))
    write(folder / "report.md", study_markdown(results))
    if results["plane"]:
        picture = plane(results["plane"])
        write(folder / "plane.png", lambda path: save_png(picture, path))


def summary(results: dict[str, Any]) -> str:
    """The verdicts as lines for a terminal, with the sentences below each."""
    lines = []
    for row in results["claims"]:
        lines.append(f"{row['id']}. {row['name']}: {row['verdict']}")
        lines += [f"   {sentence}" for sentence in row["sentences"]]
    return "\n".join(lines)


def interrupted(words: list[str], folder: Path) -> Interrupted:
    """Ctrl-C, with the line that goes on: the words as typed, and the folder."""
    kept, skip = [], False
    for word in words:
        if skip or word in ("--resume", "--overwrite") or word.startswith("--output="):
            skip = False
        elif word == "--output":
            skip = True
        else:
            kept.append(word)
    return Interrupted(f"python -m augkit.compare {shlex.join(kept)} --output {shlex.quote(str(folder))} --resume")
