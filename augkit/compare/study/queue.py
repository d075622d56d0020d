"""The queue of a study's cells, for workers on one machine or many: an Optuna study with one trial per cell.

Results lie in the folder of the study, which all workers share. The queue records which worker runs which cell, so
that each cell is run once, and the cells of dead workers are retried.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from augkit.compare.study.cells import Cell, cells_of
from augkit.compare.study.schema import Study, StudySettings, resolve
from augkit.core.errors import InputError
from augkit.core.files import write
from augkit.core.jobs.worker import OPEN, wait_for, wait_until_ready
from augkit.core.schema import parse_yaml, validate

JOURNAL, TOKEN, LOCK = "cells.journal", "queue.json", "leader.lock"
SEEN = 30.0  # seconds after which a host must see a file that another host wrote
REQUEST = "order"  # attribute of the Optuna study that holds a `CellRequest`


@dataclass(frozen=True)
class CellRequest:
    """The work of a queue, stored as an attribute of its Optuna study.

    Attributes:
        study: the study as YAML.
        source: file or name of the study.
        size: size of the study.
        seeds: number of seeds per arm.
        folder: folder of the study, on a file system that all workers share.
        token: random text that names the present run of the leading command.
        cells: digest of the recipe, by name of the cell.
    """

    study: str
    source: str
    size: str
    seeds: int
    folder: str
    token: str
    cells: dict[str, str]

    @classmethod
    def of(cls, queue: optuna.Study) -> CellRequest:
        """Read the request of an Optuna study; raise KeyError if it was not filled yet."""
        return cls(**queue.user_attrs[REQUEST])

    def open(self) -> Study:
        """Resolve the compare study of the request."""
        settings = validate(StudySettings, parse_yaml(self.study, self.source), self.source)
        return resolve(settings, self.size, self.source, seeds=self.seeds)


@dataclass(frozen=True)
class CellQueue:
    """The queue of a study's cells: waiting, running and done.

    Attributes:
        queue: the Optuna study.
        storage: its storage.
        leads: whether this process enqueues the cells and evaluates the claims when they are done.
    """

    queue: optuna.Study
    storage: BaseStorage
    leads: bool

    @classmethod
    def open(cls, storage: BaseStorage, name: str, study: Study, *, lead: bool) -> CellQueue:
        """Create a queue, or open an existing one.

        Args:
            storage: storage from `augkit.core.jobs.storage.open_storage`.
            name: name of the queue in its storage.
            study: the study of the cells.
            lead: whether to lead an existing queue, perhaps with more arms or seeds; else this process joins it.

        Raises:
            InputError: the queue belongs to another study, or was not ready in time.
        """
        sampler = optuna.samplers.RandomSampler()
        try:
            return cls(optuna.create_study(storage=storage, study_name=name, sampler=sampler), storage, leads=True)
        except optuna.exceptions.DuplicatedStudyError:
            pass
        try:
            queue = optuna.load_study(storage=storage, study_name=name, sampler=sampler)
            if "terms" in queue.user_attrs:
                raise InputError(f"study '{name}' is a search of augkit.tune: name another --study")
            if not lead:
                wait_until_ready(queue)
            request = CellRequest.of(queue) if REQUEST in queue.user_attrs else None
        except KeyError:
            raise InputError(
                f"study '{name}' was withdrawn by the command that created it; see the error there"
            ) from None
        if request is not None:
            _refuse_another(name, request, study, exactly=not lead)
        return cls(queue, storage, leads=lead)

    def withdraw(self) -> None:
        """Withdraw a queue that was created but not filled."""
        optuna.delete_study(study_name=self.queue.study_name, storage=self.storage)

    @property
    def folder(self) -> Path:
        """Folder of the study, on a file system that all workers share."""
        return Path(CellRequest.of(self.queue).folder)

    def fill(self, study: Study, folder: Path, cells: Sequence[Cell]) -> None:
        """Store the request, and enqueue the cells that are not in the queue yet."""
        request = CellRequest(
            study=study.to_yaml(),
            source=study.source,
            size=study.size,
            seeds=study.seeds,
            folder=str(folder.resolve()),
            token=uuid4().hex,
            cells={cell.name: cell.digest for cell in cells_of(study)},
        )
        self.queue.set_user_attr(REQUEST, asdict(request))
        there = {trial.user_attrs.get("cell") for trial in self.queue.get_trials(deepcopy=False, states=OPEN)}
        for cell in cells:
            if cell.name not in there:
                self.queue.enqueue_trial({}, user_attrs={"cell": cell.name})
        write(folder / TOKEN, json.dumps({"token": request.token}))  # helpers wait for this file
        self.queue.set_user_attr("ready", True)

    def trials(self) -> list[FrozenTrial]:
        """All trials of the queue."""
        return [trial for trial in self.queue.get_trials(deepcopy=False) if "cell" in trial.user_attrs]

    def done(self) -> bool:
        """Whether no cell is waiting or running."""
        return not self.queue.get_trials(deepcopy=False, states=OPEN)

    def closed(self) -> set[int]:
        """Numbers of the trials that have ended."""
        return {trial.number for trial in self.trials() if trial.state.is_finished()}

    def failures(self, earlier: Set[int]) -> dict[str, str]:
        """Errors by name of the cell, without trials in ``earlier`` and cells that are done nevertheless."""
        trials = [trial for trial in self.trials() if trial.number not in earlier]
        done = {trial.user_attrs["cell"] for trial in trials if trial.state == TrialState.COMPLETE}
        return {
            cell: trial.user_attrs.get("error", "its worker died")
            for trial in trials
            if trial.state == TrialState.FAIL and (cell := trial.user_attrs["cell"]) not in done
        }


def check_shared(queue: optuna.Study) -> None:
    """Raise InputError if this host does not see the folder that the others write to."""

    def sees() -> bool | None:
        request = CellRequest.of(queue)
        with contextlib.suppress(OSError, ValueError):
            return (
                json.loads((Path(request.folder) / TOKEN).read_text(encoding="utf-8"))["token"] == request.token or None
            )
        return None

    if wait_for(sees, SEEN) is None:
        raise InputError(
            f"study '{queue.study_name}' keeps its cells in '{CellRequest.of(queue).folder}', which this host"
            " does not see: expected an --output on a file system that all hosts share, or another --study"
        )


@contextlib.contextmanager
def leading(folder: Path) -> Iterator[bool]:
    """Hold the lock of the leader of a folder; yield whether it was free. The lock ends with the process."""
    try:
        lock = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout:
        yield False
        return
    with lock:
        (folder / TOKEN).unlink(missing_ok=True)  # left by an earlier command; helpers must wait for the new one
        yield True


def _refuse_another(name: str, request: CellRequest, study: Study, *, exactly: bool) -> None:
    theirs = request.open()
    one = (theirs.settings.name, theirs.size) == (study.settings.name, study.size)
    if not one or (exactly and theirs.to_yaml() != study.to_yaml()):
        raise InputError(
            f"study '{name}' is {theirs.settings.name}, size {theirs.size}, with other arms, claims or overrides:"
            " repeat the command that created it, or name another --study"
        )
