"""``python -m augkit.compare.study.worker``: one worker of a study, as ``--workers`` of `augkit.compare` starts it.

It trains and measures one cell after the other. When the process that started it has ended, it hands its cell back and
stops.
"""

from __future__ import annotations

import contextlib
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path

import optuna
import torch
from optuna.trial import TrialState

from augkit.compare.study.cells import Cell, CellStore, cells_of
from augkit.compare.study.queue import CellRequest, check_shared
from augkit.core.cli import run
from augkit.core.errors import AugkitError, InputError, RunError
from augkit.core.jobs.retry import PostponeJob, SkipJob
from augkit.core.jobs.status import open_job_study, worker_parser
from augkit.core.jobs.worker import Worker
from augkit.train.build import choose_device
from augkit.train.history import EpochRow
from augkit.train.optimizer import warm_up


@dataclass
class CellWorker(Worker):
    """Runs the cells of a queue until none is left.

    Attributes:
        study: the Optuna study whose trials are the cells.
        device: device for training and measuring.
    """

    jobs = "cells"

    device: torch.device

    def __post_init__(self) -> None:
        self._open()

    def _open(self) -> None:
        check_shared(self.study)
        request = CellRequest.of(self.study)
        study = request.open()
        self.token = request.token
        self.store = CellStore(study, Path(request.folder), self.device)
        self.cells = {cell.name: cell for cell in cells_of(study)}
        for name, cell in self.cells.items():
            if request.cells[name] != cell.digest:
                raise InputError(
                    f"cell {name}: this host reads another recipe for it than the host that made the study; expected"
                    " the same recipe files and release of augkit on all hosts"
                )

    def work(self, trial: optuna.Trial) -> float:
        """Run one cell; return its time in seconds.

        If the code of a network raises an error, its traceback is written to the cell's folder.

        Raises:
            RunError: the cell failed; other cells may succeed.
            PostponeJob: the study was extended by something that this host cannot run.
        """
        name = trial.user_attrs.get("cell")
        if CellRequest.of(self.study).token != self.token:
            try:
                self._open()  # a seed, an arm or a measure was added in the meantime
            except InputError as error:
                raise PostponeJob from error  # another host may be able to run it
        if name not in self.cells:
            raise SkipJob
        self.events.stage(name)
        cell = self.cells[name]

        def on_epoch(row: EpochRow) -> None:
            self.events.epoch(dict(row), cell.arm.recipe.train.epochs)

        try:
            self._wait_for_source(cell)
            return float(self.store.work(cell, on_epoch, self.alive).seconds)
        except InputError as error:
            raise RunError(str(error)) from None
        except (AugkitError, optuna.exceptions.OptunaError):
            raise
        except Exception as error:
            said = " ".join(str(error).split())
            where = self.store.path(cell) / "error.txt"
            with contextlib.suppress(OSError):
                where.parent.mkdir(parents=True, exist_ok=True)
                where.write_text(traceback.format_exc(), encoding="utf-8")
            raise RunError(f"{type(error).__name__}: {said} (traceback in '{where}')") from error

    def _wait_for_source(self, cell: Cell) -> None:
        """Wait while another worker trains the cell whose weights this one begins with, or one before that."""
        source = cell.source
        while source is not None:
            while self.store.kept(source) is None and self._runs(source.name):
                self.wait()
            source = source.source

    def _runs(self, name: str) -> bool:
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return any(trial.user_attrs.get("cell") == name for trial in running)


def main(arguments: list[str]) -> None:
    """Run cells until all are done."""
    options = worker_parser("augkit.compare.study.worker", __doc__).parse_args(arguments)
    warm_up()
    study, common = open_job_study(options)
    CellWorker(study, choose_device(options.device), **common).run()


if __name__ == "__main__":
    sys.exit(run(main))
