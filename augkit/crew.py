"""Several local processes that work on the cells of a study; each takes the next cell as soon as it is free.

``python -m augkit.crew`` is such a process. It reads one line of JSON that says which study, then the names of cells,
a line each, and answers each with a line of JSON.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from augkit.cells import Cell, Workplace, cells_of
from augkit.errors import AugkitError, InputError, RunError
from augkit.schema import parse_yaml, validate
from augkit.studies import StudySettings, resolve

Report = Callable[[Cell, dict[str, Any]], None]


def work_all(place: Workplace, cells: Sequence[Cell], workers: int, report: Report, source: Path) -> None:
    """Work on all cells; ``report`` is called after each, in the calling thread.

    Args:
        place: study, folder and device.
        cells: those that are to be done.
        workers: processes; with 1, this one.
        report: told the cell and what its ``cell.json`` says.
        source: the study's file, for the processes.

    Raises:
        AugkitError: what a cell raised; cells that are done stay done.
    """
    if workers == 1 or len(cells) < 2:
        for cell in cells:
            report(cell, place.work(cell))
        return
    waiting: queue.SimpleQueue[Cell] = queue.SimpleQueue()
    for cell in cells:
        waiting.put(cell)
    answers: queue.SimpleQueue[tuple[Cell, dict[str, Any]]] = queue.SimpleQueue()
    hands = [_Hand(place, workers, source, waiting, answers) for _ in range(min(workers, len(cells)))]
    try:
        for _ in cells:
            cell, answer = answers.get()
            if "error" in answer:
                kind = InputError if answer.get("input") else RunError
                raise kind(f"cell {cell.name}: {answer['error']}")
            report(cell, answer)
    finally:
        for hand in hands:
            hand.stop()


class _Hand:
    """One process with the thread that feeds it."""

    def __init__(
        self,
        place: Workplace,
        workers: int,
        source: Path,
        waiting: queue.SimpleQueue[Cell],
        answers: queue.SimpleQueue[tuple[Cell, dict[str, Any]]],
    ) -> None:
        threads = max(1, (os.cpu_count() or 1) // workers)
        environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "augkit.crew"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which ends us
        )
        study = place.study
        order = {"study": str(source), "size": study.size, "seeds": study.seeds, "folder": str(place.folder)}
        self.order = order | {"device": str(place.device), "threads": threads}
        self.waiting, self.answers = waiting, answers
        self.thread = threading.Thread(target=self._feed, daemon=True)
        self.thread.start()

    def _feed(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        first = True
        while True:
            try:
                cell = self.waiting.get_nowait()
            except queue.Empty:
                return
            try:
                lines = [json.dumps(self.order), cell.name] if first else [cell.name]
                first = False
                self.process.stdin.write("".join(line + "\n" for line in lines))
                self.process.stdin.flush()
                line = self.process.stdout.readline()
            except (OSError, ValueError):
                line = ""
            ended = {"error": f"its process ended (exit code {self.process.poll()}); run the study again to go on"}
            self.answers.put((cell, json.loads(line) if line else ended))
            if not line:
                return

    def stop(self) -> None:
        """End the process; what it has not written whole is not there."""
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.thread.join(timeout=5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


def main() -> None:
    """Work on cells by name until the input ends."""
    answer = sys.stdout
    sys.stdout = sys.stderr  # what anything prints must not stand among the answers
    order = json.loads(sys.stdin.readline() or "{}")
    if not order:
        return
    torch.set_num_threads(order["threads"])
    place: Workplace | None = None
    known: dict[str, Cell] = {}
    for line in sys.stdin:
        try:
            if place is None:
                place, known = _begin(order)
            found = place.work(known[line.strip()])
        except AugkitError as error:
            found = {"error": str(error), "input": isinstance(error, InputError)}
        print(json.dumps(found), file=answer, flush=True)


def _begin(order: dict[str, Any]) -> tuple[Workplace, dict[str, Cell]]:
    source = order["study"]
    settings = validate(StudySettings, parse_yaml(Path(source).read_text(), source), source)
    study = resolve(settings, order["size"], source, seeds=order["seeds"])
    place = Workplace(study, Path(order["folder"]), torch.device(order["device"]))
    return place, {cell.name: cell for cell in cells_of(study)}


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
