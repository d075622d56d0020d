"""The cells of a study in line for workers on one machine or many: an Optuna study, each trial of which is one cell.

What is done is what lies in the folder of the study, which all workers share; the queue says who works on what, so
that each cell is worked on once, and what dead workers leave is worked on again.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
import torch
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from augkit.cells import Cell, Workplace, cells_of
from augkit.errors import InputError, RunError, WriteError
from augkit.schema import parse_yaml, validate
from augkit.search import READY, wait_for
from augkit.storage import write
from augkit.studies import Study, StudySettings, resolve
from augkit.taking import IN_A_ROW, GiveUpError, Surplus, Watch, frozen, stand_by, take_one

JOURNAL, TOKEN = "cells.journal", "queue.json"
LOOK = 5.0  # seconds between looks whether a cell is still this worker's
OPEN = (TrialState.WAITING, TrialState.RUNNING)


@dataclass(frozen=True)
class CellQueue:
    """Cells in line, or under way, or done.

    Attributes:
        queue: the Optuna study.
        leads: whether this process puts cells in line, and answers the claims when they are done.
    """

    queue: optuna.Study
    leads: bool

    @classmethod
    def open(cls, storage: BaseStorage, name: str, study: Study, *, lead: bool) -> CellQueue:
        """Make a queue; of one that exists, lead it on or join it.

        Args:
            storage: see `augkit.storages.open_storage`.
            name: of the queue in its storage.
            study: whose cells they are.
            lead: whether a queue that exists is led on, with more arms or seeds perhaps, or joined.

        Raises:
            InputError: it is of another study, or was never made ready.
        """
        sampler = optuna.samplers.RandomSampler()
        try:
            return cls(optuna.create_study(storage=storage, study_name=name, sampler=sampler), leads=True)
        except optuna.exceptions.DuplicatedStudyError:
            queue = optuna.load_study(storage=storage, study_name=name, sampler=sampler)
        if "terms" in queue.user_attrs:
            raise InputError(f"study '{name}' is a search of augkit.tune: name another --study")
        if not lead and wait_for(lambda: queue.user_attrs.get("ready"), READY) is None:
            raise InputError(
                f"study '{name}' is not ready: --resume the command that makes it, or name another --study"
            )
        order = queue.user_attrs.get("order")
        if order is not None:
            theirs = open_study(order)
            one = (theirs.settings.name, theirs.size) == (study.settings.name, study.size)
            if not one or not (lead or theirs.to_yaml() == study.to_yaml()):
                raise InputError(
                    f"study '{name}' is {theirs.settings.name}, size {theirs.size}, with other arms, claims or"
                    " overrides: run it as it was made, or name another --study"
                )
        return cls(queue, leads=lead)

    def withdraw(self) -> None:
        """Take back a queue that was made and not filled."""
        optuna.delete_study(study_name=self.queue.study_name, storage=self.queue._storage)

    @property
    def folder(self) -> Path:
        """Of the study, on storage that all workers share."""
        return Path(self.queue.user_attrs["order"]["folder"])

    def fill(self, study: Study, folder: Path, cells: Sequence[Cell]) -> None:
        """Say what is to be done, and put those cells in line that are not yet."""
        order = {
            "study": study.to_yaml(),
            "source": study.source,
            "size": study.size,
            "seeds": study.seeds,
            "folder": str(folder.resolve()),
            "token": uuid4().hex,
        }
        write(folder / TOKEN, json.dumps({"token": order["token"]}))
        self.queue.set_user_attr("order", order)
        there = {trial.user_attrs.get("cell") for trial in self.queue.get_trials(deepcopy=False, states=OPEN)}
        for cell in cells:
            if cell.name not in there:
                self.queue.enqueue_trial({}, user_attrs={"cell": cell.name})
        self.queue.set_user_attr("ready", True)

    def check_shared(self) -> None:
        """InputError where this host does not see the folder that the others write to."""
        order, found = self.queue.user_attrs["order"], None
        path = self.folder / TOKEN
        if path.is_file():
            found = json.loads(path.read_text())["token"]
        if found != order["token"]:
            raise InputError(
                f"study '{self.queue.study_name}' keeps its cells in '{self.folder}', which this host does not see:"
                " expected an --output on storage that all hosts share, or another --study"
            )

    def trials(self) -> list[FrozenTrial]:
        """All that were ever in line."""
        return [trial for trial in self.queue.get_trials(deepcopy=False) if "cell" in trial.user_attrs]

    def done(self) -> bool:
        """Whether nothing is in line or under way."""
        return not self.queue.get_trials(deepcopy=False, states=OPEN)

    def closed(self) -> set[int]:
        """Numbers of the trials that are over."""
        return {trial.number for trial in self.trials() if trial.state.is_finished()}

    def failures(self, earlier: Set[int]) -> dict[str, str]:
        """Why cells failed, by name, in trials that are not ``earlier`` ones; not those that were done all the same."""
        trials = [trial for trial in self.trials() if trial.number not in earlier]
        done = {trial.user_attrs["cell"] for trial in trials if trial.state == TrialState.COMPLETE}
        return {
            cell: trial.user_attrs.get("error", "its worker died")
            for trial in trials
            if trial.state == TrialState.FAIL and (cell := trial.user_attrs["cell"]) not in done
        }


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
    watch: Watch = field(default_factory=Watch)

    def __post_init__(self) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{self.index}"
        self.failed, self.looked = 0, 0.0
        self._open()

    def _open(self) -> None:
        order = self.queue.user_attrs["order"]
        study = open_study(order)
        self.place = Workplace(study, Path(order["folder"]), self.device)
        self.cells = {cell.name: cell for cell in cells_of(study)}

    def run(self) -> None:
        """Work until nothing is in line or under way.

        Raises:
            RunError: three cells failed in a row, or nothing can be written.
            KeyboardInterrupt: what was begun is in line again.
        """
        while self.queue.get_trials(deepcopy=False, states=OPEN):
            if self.queue.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                take_one(self.queue, self._work, self.watch)
            else:
                stand_by(self.queue, self.watch, "waiting for cells of other workers")

    def _work(self, trial: optuna.Trial) -> float:
        trial.set_user_attr("worker", self.name)
        name = trial.user_attrs.get("cell")
        if name is not None and name not in self.cells:
            self._open()  # a seed or an arm was added since
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
            row = self.place.work(self.cells[name], on_epoch, alive)
        except WriteError as error:
            raise GiveUpError(str(error)) from None
        except (RunError, InputError) as error:
            trial.set_user_attr("error", str(error))
            self.failed += 1
            if self.failed == IN_A_ROW:
                raise GiveUpError(f"three cells failed in a row, the last one, {name}: {error}") from None
            raise RunError(str(error)) from None
        self.failed = 0
        return float(row["seconds"])


def open_study(order: Mapping[str, Any]) -> Study:
    """The study that an order speaks of."""
    source = str(order["source"])
    settings = validate(StudySettings, parse_yaml(order["study"], source), source)
    return resolve(settings, order["size"], source, seeds=order["seeds"])
