"""``python -m augkit.compare.study.worker``: one worker of a study, as ``--workers`` of `augkit.compare` starts it.

It takes a cell, trains and measures it, and takes the next. It stops, and hands its cell back, when the process that
started it is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import TrialState

from augkit.compare.study.cells import Cell, CellStore, cells_of
from augkit.compare.study.queue import LOOK, OPEN, check_shared, open_study
from augkit.core.cli import run
from augkit.core.errors import AugkitError, InputError, RunError, WriteError
from augkit.core.jobs.liveness import sign_on
from augkit.core.jobs.status import status_watch, worker_parser
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import (
    IN_A_ROW,
    GiveUpError,
    Later,
    Surplus,
    WorkerEvents,
    frozen,
    run_one_job,
    wait_idle,
)
from augkit.train.build import choose_device


@dataclass
class CellWorker:
    """Works on the cells of a queue until none is left.

    Attributes:
        queue: the Optuna study.
        device: to train and measure on.
        index: of this worker.
        watch: told what it does.
    """

    queue: optuna.Study
    device: torch.device
    index: int = 0
    watch: WorkerEvents = field(default_factory=WorkerEvents)

    def __post_init__(self) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{self.index}"
        self.failed, self.looked = 0, 0.0
        self.unable: InputError | None = None
        self._open()

    def _open(self) -> None:
        order = self.queue.user_attrs["order"]
        check_shared(self.queue)
        study = open_study(order)
        self.token = order["token"]
        self.place = CellStore(study, Path(order["folder"]), self.device)
        self.cells = {cell.name: cell for cell in cells_of(study)}
        for name, cell in self.cells.items():
            if order["cells"][name] != cell.digest:
                raise InputError(
                    f"cell {name}: this host makes another recipe of it than the one that made the study; expected the"
                    " same recipe files and release of augkit on all hosts"
                )

    def run(self) -> None:
        """Work until nothing is in line or under way.

        Raises:
            RunError: three cells failed in a row, or nothing can be written.
            InputError: the study was added to, and this host cannot do what is new.
            KeyboardInterrupt: what was begun is in line again.
        """
        while self.queue.get_trials(deepcopy=False, states=OPEN):
            if self.queue.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                run_one_job(self.queue, self._work, self.watch)
                if self.unable is not None:
                    raise self.unable
            else:
                wait_idle(self.queue, self.watch, "waiting for cells of other workers")

    def _work(self, trial: optuna.Trial) -> float:
        sign_on(trial, self.name)
        name = trial.user_attrs.get("cell")
        if self.queue.user_attrs["order"]["token"] != self.token:
            try:
                self._open()  # a seed, an arm or a measure was added since
            except InputError as error:
                self.unable = error
                raise Later from None  # others may be able
        if name not in self.cells:
            raise Surplus
        self.watch.stage(name)
        epochs = self.cells[name].arm.recipe.train.epochs

        def alive() -> None:
            self.watch.alive()
            if time.monotonic() - self.looked > LOOK:
                self.looked = time.monotonic()
                if frozen(self.queue, trial.number).state.is_finished():
                    raise Surplus  # taken for dead: the cell is another worker's, and so is its folder

        def on_epoch(row: dict[str, Any]) -> None:
            self.watch.epoch(trial.number, row, epochs)

        try:
            row = attempt(self.place, self.cells[name], on_epoch, alive)
        except WriteError as error:
            trial.set_user_attr("error", str(error))
            raise GiveUpError(str(error)) from None
        except (RunError, InputError) as error:
            trial.set_user_attr("error", str(error))
            self.failed += 1
            if self.failed == IN_A_ROW:
                raise GiveUpError(f"three cells failed in a row, the last one, {name}: {error}") from None
            raise RunError(str(error)) from None
        self.failed = 0
        return float(row["seconds"])


def attempt(
    place: CellStore,
    cell: Cell,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """`CellStore.work`, where whatever goes wrong in one cell is a RunError that other cells survive.

    What a network of somebody's own raises leaves its traceback in the cell's folder.
    """
    try:
        return place.work(cell, on_epoch, alive)
    except (AugkitError, Surplus, optuna.exceptions.OptunaError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        where = place.path(cell) / "error.txt"
        with contextlib.suppress(OSError):
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text(traceback.format_exc())
        raise RunError(f"{type(error).__name__}: {said} (traceback in '{where}')") from error


def main(arguments: list[str]) -> None:
    """Work until every cell is done."""
    options = worker_parser("augkit.compare.study.worker", __doc__).parse_args(arguments)
    storage = open_storage(options.storage, retries=options.retries, grace=options.grace)
    queue = optuna.load_study(storage=storage, study_name=options.study)
    CellWorker(queue, choose_device(options.device), options.index, status_watch(options)).run()


if __name__ == "__main__":
    sys.exit(run(main))
