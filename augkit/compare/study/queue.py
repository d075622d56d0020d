"""The cells of a study in line for workers on one machine or many: an Optuna study, each trial of which is one cell.

What is done is what lies in the folder of the study, which all workers share; the queue says which worker has which
cell, so that each cell is worked on once, and what dead workers leave is worked on again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from uuid import uuid4

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from augkit.compare.study.cells import Cell, cells_of
from augkit.compare.study.schema import Study, StudySettings, resolve
from augkit.core.errors import InputError
from augkit.core.files import write
from augkit.core.jobs.worker import wait_for, wait_until_ready
from augkit.core.schema import parse_yaml, validate

JOURNAL, TOKEN, LOCK = "cells.journal", "queue.json", "leader.lock"
SEEN = 30.0  # seconds in which a host sees what another wrote
OPEN = (TrialState.WAITING, TrialState.RUNNING)
REQUEST = "order"  # the attribute of the Optuna study that holds a `CellRequest`


@dataclass(frozen=True)
class CellRequest:
    """What the workers of a study are to do, kept with its cells in their storage.

    Attributes:
        study: as YAML.
        source: file of the study, or its name.
        size: of the study.
        seeds: of each arm.
        folder: of the study, on storage that all workers share.
        token: of this session of the command that leads.
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
    def load(cls, queue: optuna.Study) -> CellRequest | None:
        """The request of an Optuna study; None before there is one."""
        found = queue.user_attrs.get(REQUEST)
        return None if found is None else cls(**found)

    @classmethod
    def of(cls, queue: optuna.Study) -> CellRequest:
        """The request of an Optuna study that was filled."""
        return cls(**queue.user_attrs[REQUEST])

    def open(self) -> Study:
        """The study whose cells are to be done."""
        settings = validate(StudySettings, parse_yaml(self.study, self.source), self.source)
        return resolve(settings, self.size, self.source, seeds=self.seeds)


@dataclass(frozen=True)
class CellQueue:
    """Cells in line, or under way, or done.

    Attributes:
        queue: the Optuna study.
        storage: in which it is kept.
        leads: whether this process puts cells in line, and answers the claims when they are done.
    """

    queue: optuna.Study
    storage: BaseStorage
    leads: bool

    @classmethod
    def open(cls, storage: BaseStorage, name: str, study: Study, *, lead: bool) -> CellQueue:
        """Make a queue; of one that exists, lead it on or join it.

        Args:
            storage: see `augkit.core.jobs.storage.open_storage`.
            name: of the queue in its storage.
            study: whose cells they are.
            lead: whether a queue that exists is led on, with more arms or seeds perhaps, or joined.

        Raises:
            InputError: it is of another study, or was never made ready.
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
            request = CellRequest.load(queue)
        except KeyError:
            raise InputError(f"study '{name}' was taken back by the command that made it, which says why") from None
        if request is not None:
            _refuse_another(name, request, study, exactly=not lead)
        return cls(queue, storage, leads=lead)

    def withdraw(self) -> None:
        """Take back a queue that was made and not filled."""
        optuna.delete_study(study_name=self.queue.study_name, storage=self.storage)

    @property
    def folder(self) -> Path:
        """Of the study, on storage that all workers share."""
        return Path(CellRequest.of(self.queue).folder)

    def fill(self, study: Study, folder: Path, cells: Sequence[Cell]) -> None:
        """Say what is to be done, and put those cells in line that are not yet."""
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
        write(folder / TOKEN, json.dumps({"token": request.token}))  # which helpers wait for
        self.queue.set_user_attr("ready", True)

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


def check_shared(queue: optuna.Study) -> None:
    """InputError where this host does not see the folder that the others write to."""

    def sees() -> bool | None:
        request = CellRequest.of(queue)
        with contextlib.suppress(OSError, ValueError):
            return json.loads((Path(request.folder) / TOKEN).read_text())["token"] == request.token or None
        return None

    if wait_for(sees, SEEN) is None:
        raise InputError(
            f"study '{queue.study_name}' keeps its cells in '{CellRequest.of(queue).folder}', which this host"
            " does not see: expected an --output on storage that all hosts share, or another --study"
        )


@contextlib.contextmanager
def leading(folder: Path) -> Iterator[bool]:
    """Whether no other process leads the work in a folder, and none does meanwhile; the lock ends with its process."""
    try:
        import fcntl
    except ImportError:  # Windows, which has no such lock
        yield True
        return
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        (folder / TOKEN).unlink(missing_ok=True)  # of an earlier session: helpers that come now wait for ours
        yield True


def _refuse_another(name: str, request: CellRequest, study: Study, *, exactly: bool) -> None:
    theirs = request.open()
    one = (theirs.settings.name, theirs.size) == (study.settings.name, study.size)
    if not one or (exactly and theirs.to_yaml() != study.to_yaml()):
        raise InputError(
            f"study '{name}' is {theirs.settings.name}, size {theirs.size}, with other arms, claims or overrides:"
            " run it as it was made, or name another --study"
        )
