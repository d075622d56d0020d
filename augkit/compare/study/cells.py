"""The cells of a study: one per arm and seed, each trained and measured once and kept in a folder of its own.

A cell's folder is a run as `augkit.fit` writes it, with ``measured/*.npz``, the columns of
`augkit.compare.study.measurements`, and ``cell.json``, which is written last. Existing results of the same recipe and
measure are used; a study that is run again with another seed, arm or claim only does what is missing.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from augkit.compare.study.arms import StudyArm
from augkit.compare.study.claims import DEFAULT_MEASURE, TYPICAL, Part
from augkit.compare.study.column_table import MissingError
from augkit.compare.study.effects import NO_NETWORK, probe_measure
from augkit.compare.study.measurements import (
    ANSWERS,
    Columns,
    image_sets,
    measure_accuracy,
    measure_network,
    measure_probe,
)
from augkit.compare.study.schema import NOISE, Measure, Study, file_name
from augkit.core.errors import InputError
from augkit.core.files import write
from augkit.core.random_streams import seeded
from augkit.data import Dataset, Images
from augkit.data.localization import locate
from augkit.train.build import fresh_model, load_recipe_data
from augkit.train.checkpoint import FILE as CHECKPOINT
from augkit.train.heartbeat import heartbeat_hook
from augkit.train.history import OnEpoch
from augkit.train.load_model import load_model
from augkit.train.loop import fit

FILE, FOLDER = "cell.json", "cells"
VERSION, OF_LAYERS = 4, 3  # versions of the columns; columns of another version are measured again


@dataclass(frozen=True)
class Cell:
    """One arm with one seed.

    Attributes:
        arm, seed: the arm and the seed.
        measures: the measures that the study needs of it, by name.
        source: the cell whose trained weights it begins with; None where it begins anew.
    """

    arm: StudyArm
    seed: int
    measures: dict[str, Measure | Part]
    source: Cell | None = None

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.arm.name}-seed{self.seed}"

    @property
    def digest(self) -> str:
        """Hash of everything that determines training; equal digests mean equal runs."""
        whole = [self.arm.recipe.replaced(seed=self.seed).digest(), self.arm.callable, self.arm.task]
        whole += [] if self.source is None else [self.source.digest]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class CellRecord:
    """Content of a cell's ``cell.json``.

    Attributes:
        digest: digest of its training, see `Cell.digest`.
        arm, seed: arm and seed of the cell.
        seconds: seconds of training and all measures.
        not_measured: by measure, why it could not be taken.
        training_seconds: seconds of training alone.
    """

    digest: str
    arm: str
    seed: int
    seconds: float
    not_measured: dict[str, str]
    training_seconds: float = 0.0

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """Restore a record from its JSON; raise KeyError or TypeError if it is not a record."""
        return cls(**{field.name: found[field.name] for field in fields(cls) if field.name in found})


def cells_of(study: Study) -> list[Cell]:
    """All cells, seed by seed, so that a study that is stopped early has some seeds of every arm.

    Within a seed a cell comes after the one whose weights it begins with.
    """
    arms = dict(study.arms)
    wanted: dict[str, dict[str, Measure | Part]] = {
        name: {DEFAULT_MEASURE: study.measures[DEFAULT_MEASURE]} for name in arms
    }
    for part in (part for claim in study.claims for part in claim.parts):
        if part.statistic == "probe":
            for name in part.names or [NO_NETWORK]:
                wanted.setdefault(name, {})[probe_measure(part)] = part
            continue
        for name in part.names:
            for measure in (part.measure, part.from_measure or part.measure):
                wanted[name][measure] = study.measures[measure]
    if NO_NETWORK in wanted:
        arms[NO_NETWORK] = StudyArm(NO_NETWORK, NO_NETWORK, "none", 1.0, study.recipe)
    return [cell for seed in range(study.seeds) for cell in _cells_of_seed(arms, wanted, seed)]


def _cells_of_seed(
    arms: Mapping[str, StudyArm], wanted: Mapping[str, dict[str, Measure | Part]], seed: int
) -> list[Cell]:
    found: dict[str, Cell] = {}

    def add(name: str) -> Cell:
        if name not in found:
            source = arms[name].source
            before = None if source is None else add(source)
            found[name] = Cell(arms[name], seed, wanted[name], before)
        return found[name]

    for name in arms:
        add(name)
    return list(found.values())


@dataclass
class CellStore:
    """Trains, measures and reads the cells of a study; loads data and makes image sets once.

    Attributes:
        study: the study of the cells.
        folder: folder of the study.
        device: device for training and measuring.
        trained: seconds of networks that were trained before `work`, by name of the cell.
    """

    study: Study
    folder: Path
    device: torch.device
    trained: dict[str, float] = field(default_factory=dict)
    _data: dict[str, Dataset] = field(default_factory=dict, repr=False)
    _sets: dict[str, dict[str, Images]] = field(default_factory=dict, repr=False)

    def path(self, cell: Cell) -> Path:
        """Folder of a cell."""
        return self.folder / FOLDER / cell.name

    def missing(self, cell: Cell) -> list[str]:
        """Names of the measures that are still to be taken; raise InputError if the folder holds another recipe."""
        anew = self.kept(cell) is None
        return [name for name, measure in cell.measures.items() if anew or not self._is_there(cell, name, measure)]

    def kept(self, cell: Cell) -> CellRecord | None:
        """The content of ``cell.json``; None if there is no such file.

        Raises:
            InputError: it belongs to another recipe, or cannot be read.
        """
        path = self.path(cell) / FILE
        if not path.is_file():
            return None
        try:
            found = CellRecord.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                f"'{path}': expected a file of a study, but it cannot be read; delete it and run the study again"
            ) from None
        if found.digest != cell.digest:
            raise InputError(
                f"'{path.parent}' holds another recipe ({found.digest}, expected {cell.digest}): name another --output,"
                " or --overwrite"
            )
        return found

    def is_done(self, cell: Cell) -> bool:
        """Whether everything that can be measured has been measured."""
        kept = self.kept(cell)
        return kept is not None and set(self.missing(cell)) <= set(kept.not_measured)

    def check(self, cell: Cell) -> None:
        """Measure two images with the untrained network, to detect before training what cannot be measured.

        Raises:
            InputError: images have no room for the displacements, or the network does not accept them (the message
                names the arm); or a group has classes that the data do not have.
        """
        arm = cell.arm
        if arm.name == NO_NETWORK or arm.task != "classify":
            return
        count = len(self.dataset(arm).classes)
        for name, classes in self.study.settings.groups.items():
            if not classes or not 0 <= min(classes) <= max(classes) < count:
                raise InputError(f"groups: expected classes from 0 to {count - 1} in '{name}', got {classes}")
        sets = {name: _first(images, 2) for name, images in self.image_sets(arm).items()}
        model = (self._own(cell) or fresh_model(arm.recipe, self.dataset(arm))).to(self.device)
        for name, measure in cell.measures.items():
            if isinstance(measure, Measure):
                try:
                    measure_network(model, arm.recipe, measure.model_copy(update={"pairs": 1}), sets, self.device)
                except MissingError:
                    continue  # reported again when the claim is evaluated
                except InputError as error:
                    raise InputError(f"arm {arm.name}, measure '{name}': {error}") from None

    def work(
        self,
        cell: Cell,
        on_epoch: OnEpoch | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> CellRecord:
        """Train a cell unless it is trained, take the missing measures, and return the content of ``cell.json``.

        Args:
            cell: the cell.
            on_epoch: called with each row of the history.
            alive: called at least every few seconds; an exception from it ends the work.
        """
        missing, kept, started = self.missing(cell), self.kept(cell), time.perf_counter()
        if kept is not None and not missing:
            return kept
        folder = self.path(cell)
        model = self._network(cell, on_epoch, alive)
        trained = time.perf_counter()
        (folder / "measured").mkdir(parents=True, exist_ok=True)
        failed = {}
        for name in missing:
            alive()
            try:
                with heartbeat_hook(alive, model):
                    columns = self._take(cell, cell.measures[name], model)
            except MissingError as error:
                failed[name] = str(error)
                continue
            columns = {**columns, "digest": np.array(self._digest(cell, cell.measures[name]))}
            write(self._file(cell, name), functools.partial(_save, columns=columns))
        if kept is not None and failed == kept.not_measured and set(failed) == set(missing):
            return kept  # measures that failed before would fail again
        before = self.trained.pop(cell.name, 0.0)
        row = CellRecord(
            digest=cell.digest,
            arm=cell.arm.name,
            seed=cell.seed,
            seconds=before + (0.0 if kept is None else kept.seconds) + time.perf_counter() - started,
            not_measured=failed,
            training_seconds=before + trained - started if kept is None else kept.training_seconds,
        )
        write(folder / FILE, json.dumps(asdict(row), indent=2))
        return row

    def columns(self, cell: Cell) -> dict[str, Columns]:
        """Columns of a cell, by measure; without the answers themselves, see `answers`."""
        found = {}
        for name, measure in cell.measures.items():
            if self._is_there(cell, name, measure):
                with np.load(self._file(cell, name), allow_pickle=False) as file:
                    kept = [key for key in file.files if key != "digest" and not key.endswith(f"|{ANSWERS}")]
                    found[name] = {key: file[key] for key in kept}
        return found

    def answers(self, cell: Cell, measure: str, images: str = TYPICAL) -> np.ndarray:
        """Log probabilities ``(N, S, K)``, float16: images, views of a measure, classes.

        New metrics can be computed from them without a forward pass. Views are in the order of `Layout.columns`.
        """
        with np.load(self._file(cell, measure), allow_pickle=False) as file:
            return np.asarray(file[f"{images}|{ANSWERS}"])

    def path_of_training(self, cell: Cell) -> list[tuple[float, float]]:
        """Validation accuracy and shift information after each epoch at which both were measured."""
        file, found = self.path(cell) / "metrics.jsonl", []
        for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else ():
            row = json.loads(line)
            value = row.get("shift_information", {}).get("value")
            if value is not None and "validation_accuracy" in row:
                found.append((float(row["validation_accuracy"]), float(value)))
        return found

    def dataset(self, arm: StudyArm) -> Dataset:
        """The data of an arm, or the localization task made from them."""
        key = arm.recipe.data.model_dump_json() + arm.task
        if key not in self._data:
            self._data[key] = _located(arm) if arm.task == "locate" else load_recipe_data(arm.recipe)
        return self._data[key]

    def _network(self, cell: Cell, on_epoch: OnEpoch | None, alive: Callable[[], None]) -> nn.Module | None:
        arm = cell.arm
        if arm.name == NO_NETWORK:
            return None
        if cell.source is not None and self.kept(cell.source) is None:
            self.work(cell.source, on_epoch, alive)
        run = fit(
            arm.recipe,
            cell.seed,
            output=self.path(cell),
            resume=True,
            device=self.device,
            dataset=self.dataset(arm),
            model=self._own(cell),
            weights=None if cell.source is None else self.path(cell.source) / CHECKPOINT,
            on_epoch=on_epoch,
            alive=alive,
        )
        return run.model

    def _own(self, cell: Cell) -> nn.Module | None:
        """Network from the arm's callable, with the cell's seed; None if the recipe names the network."""
        if cell.arm.callable is None:
            return None
        with seeded(cell.seed):
            return load_model(cell.arm.callable).model

    def _take(self, cell: Cell, measure: Measure | Part, model: nn.Module | None) -> Columns:
        recipe, sets = cell.arm.recipe, self.image_sets(cell.arm)
        if isinstance(measure, Part):
            return measure_probe(measure, model, recipe, sets[measure.sets[0]], self.device, cell.seed)
        assert model is not None
        if cell.arm.task == "locate":
            return measure_accuracy(model, recipe, sets[TYPICAL], self.device)
        limit = measure.limit or self.study.images
        few = {name: _first(images, limit) for name, images in sets.items()}
        return measure_network(model, recipe, measure, few, self.device)

    def image_sets(self, arm: StudyArm) -> dict[str, Images]:
        """The test images of an arm and their atypical versions, by name."""
        # What concerns training images alone does not count, so that arms share the images.
        key = arm.recipe.data.model_dump_json(exclude={"limit", "classes", "jitter"}) + arm.task
        if key not in self._sets:
            names = {TYPICAL} if arm.task == "locate" else self._named_sets()
            self._sets[key] = image_sets(self.dataset(arm), self.study.images, names)
        return self._sets[key]

    def _named_sets(self) -> set[str]:
        named = {name for measure in self.study.measures.values() for name in measure.images}
        claimed = {name.removesuffix(NOISE) for c in self.study.claims for part in c.parts for name in part.sets}
        return {TYPICAL, *named, *claimed}

    def _file(self, cell: Cell, name: str) -> Path:
        return self.path(cell) / "measured" / f"{file_name(name)}.npz"

    def _digest(self, cell: Cell, measure: Measure | Part) -> str:
        # The name depends on the settings of the probe alone; the text of a claim may change.
        if isinstance(measure, Part):
            what = measure.model_dump_json(include={"probe", "options", "images"})
        else:  # fields of later versions count only if they are set, so that older measurements stay valid
            unset = {name for name in ("window", "noise", "grid") if getattr(measure, name) in (None, False, "any")}
            what = measure.model_dump_json(exclude=unset or None)
        version = OF_LAYERS if isinstance(measure, Measure) and measure.axis == "layers" else VERSION
        whole = [version, cell.digest, self.study.images, what]
        return hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:12]

    def _is_there(self, cell: Cell, name: str, measure: Measure | Part) -> bool:
        with contextlib.suppress(OSError, ValueError, KeyError), np.load(self._file(cell, name)) as file:
            return str(file["digest"]) == self._digest(cell, measure)
        return False


def _save(path: Path, columns: Columns) -> None:
    with path.open("wb") as file:  # given a path, numpy would change the name
        # Not with `allow_pickle=False`, which numpy 1.26 stores as one more column.
        np.savez_compressed(file, **columns)  # type: ignore[arg-type]


def _first(images: Images, limit: int) -> Images:
    return images if len(images) <= limit else images.take(torch.arange(limit))


def _located(arm: StudyArm) -> Dataset:
    data = load_recipe_data(arm.recipe)
    side = arm.recipe.data.canvas or 2 * max(data.shape[1:])
    found: Dataset = locate(data, canvas=side, cells=3)
    return found


def to_do(store: CellStore, cells: Iterable[Cell]) -> list[Cell]:
    """The cells that are not done; raise InputError, before any work, if a folder holds another recipe."""
    return [cell for cell in cells if store.missing(cell)]
