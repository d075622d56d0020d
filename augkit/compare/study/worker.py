"""``python -m augkit.compare.study.worker``: one worker of a study, as ``--workers`` of `augkit.compare` starts it.

It takes a cell, trains and measures it, and takes the next. It stops, and hands its cell back, when the process that
started it is gone.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState

from augkit.compare.study.cells import Cell, CellRecord, CellStore, cells_of
from augkit.compare.study.queue import OPEN, CellRequest, check_shared
from augkit.core.cli import run
from augkit.core.errors import AugkitError, InputError, RunError, WriteError
from augkit.core.jobs.heartbeat import RetryPolicy
from augkit.core.jobs.retry import PostponeJob, SkipJob
from augkit.core.jobs.status import StatusFile, worker_parser
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import IN_A_ROW, GiveUpError, Worker, WorkerEvents
from augkit.train.build import choose_device
from augkit.train.history import EpochRow, OnEpoch


@dataclass
class CellWorker(Worker):
    """Works on the cells of a queue until none is left.

    Attributes:
        study: the Optuna study whose trials are the cells.
        device: to train and measure on.
        index: of this worker.
        events: functions that are called while it works.
        policy: when other workers are dead.
    """

    study: optuna.Study
    device: torch.device
    index: int = 0
    events: WorkerEvents = field(default_factory=WorkerEvents)
    policy: RetryPolicy = field(default_factory=RetryPolicy)

    def __post_init__(self) -> None:
        self.failed = 0
        self._open()

    def _open(self) -> None:
        check_shared(self.study)
        request = CellRequest.of(self.study)
        asked = request.open()
        self.token = request.token
        self.store = CellStore(asked, Path(request.folder), self.device)
        self.cells = {cell.name: cell for cell in cells_of(asked)}
        for name, cell in self.cells.items():
            if request.cells[name] != cell.digest:
                raise InputError(
                    f"cell {name}: this host makes another recipe of it than the one that made the study; expected the"
                    " same recipe files and release of augkit on all hosts"
                )

    def is_done(self) -> bool:
        """Whether no cell is in line or under way."""
        return not self.study.get_trials(deepcopy=False, states=OPEN)

    def has_job(self) -> bool:
        """Whether a cell is in line."""
        return bool(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def work(self, trial: optuna.Trial) -> float:
        """Work on one cell; its seconds.

        Raises:
            RunError: it failed.
            GiveUpError: it is the third in a row that failed.
            PostponeJob: the study was added to, and this host cannot do what is new.
        """
        name = trial.user_attrs.get("cell")
        if CellRequest.of(self.study).token != self.token:
            try:
                self._open()  # a seed, an arm or a measure was added since
            except InputError as error:
                raise PostponeJob(error) from None  # others may be able
        if name not in self.cells:
            raise SkipJob
        self.events.stage(name)
        epochs = self.cells[name].arm.recipe.train.epochs

        def on_epoch(row: EpochRow) -> None:
            self.events.epoch(trial.number, dict(row), epochs)

        try:
            row = attempt(self.store, self.cells[name], on_epoch, self.alive)
        except WriteError:
            raise
        except (RunError, InputError) as error:
            trial.set_user_attr("error", str(error))
            self.failed += 1
            if self.failed == IN_A_ROW:
                raise GiveUpError(f"three cells failed in a row, the last one, {name}: {error}") from None
            raise RunError(str(error)) from None
        self.failed = 0
        return float(row.seconds)


def attempt(
    store: CellStore,
    cell: Cell,
    on_epoch: OnEpoch | None = None,
    alive: Callable[[], None] = lambda: None,
) -> CellRecord:
    """`CellStore.work`, where whatever goes wrong in one cell is a RunError that other cells survive.

    What a network of somebody's own raises leaves its traceback in the cell's folder.
    """
    try:
        return store.work(cell, on_epoch, alive)
    except (AugkitError, optuna.exceptions.OptunaError):
        raise
    except Exception as error:
        said = " ".join(str(error).split())
        where = store.path(cell) / "error.txt"
        with contextlib.suppress(OSError):
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text(traceback.format_exc())
        raise RunError(f"{type(error).__name__}: {said} (traceback in '{where}')") from error


def main(arguments: list[str]) -> None:
    """Work until every cell is done."""
    options = worker_parser("augkit.compare.study.worker", __doc__).parse_args(arguments)
    storage = open_storage(options.storage, grace=options.grace)
    study = optuna.load_study(storage=storage, study_name=options.study)
    policy = RetryPolicy(options.retries, options.grace)
    CellWorker(
        study, choose_device(options.device), options.index, StatusFile(options.status, options.parent).events(), policy
    ).run()


if __name__ == "__main__":
    sys.exit(run(main))
