"""Forking: every trial starts from the weights of the control, and is trained with its policy for a few epochs.

The control is trained once without augmentation, for as many epochs as a trial from initial weights would be. Its fork
point is its state at the end: all weights, and the running statistics of normalization. Optimizer, schedule of the
learning rate and moving averages of each trial begin anew, over the trial's own epochs: the control's schedule has
ended at a rate near 0, with which a trial would hardly move, and its momentum belongs to images that are not augmented.

A trial is compared with the control continued: forked as the trial is, and trained for the same epochs on the same
batches with the same schedule, without augmentation. What is measured is thus what the policy did, and not what further
epochs or a new schedule do.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from torch import nn

from augkit.core.errors import InputError
from augkit.train.checkpoint import FILE, read_checkpoint, stalled
from augkit.train.history import OnEpoch
from augkit.train.recipe import Recipe
from augkit.tune.optuna_study import ControlScores, SearchTerms, control_key
from augkit.tune.space import Space
from augkit.tune.training import RecipeTraining

EPOCHS = 2  # of a trial, unless others are given


def epochs_of_the_control(fork: bool, space: Space, processes: int) -> int:
    """Epochs after which trials are forked from the control: half of the recipe's; 0 if they are not forked.

    Raises:
        InputError: the architecture is searched, or a trial has several processes.
    """
    if not fork:
        return 0
    shaped = [key for key in space.ranges if key.startswith("model.")]
    if shaped:
        raise InputError(
            f"--fork: expected no range of model, because the control's weights fit one architecture, got {shaped[0]}"
        )
    if processes > 1:
        raise InputError(
            f"--fork: expected --nproc-per-trial 1, because torchrun builds each network anew, got {processes}"
        )
    return math.ceil(space.recipe.train.epochs / 2)


def epochs_of_a_fork(fork: bool, trial_epochs: int | None, rungs: Sequence[int], space: Space) -> int | None:
    """Epochs of a trial where neither they nor rungs are given; else ``trial_epochs`` as it is."""
    default = fork and trial_epochs is None and not rungs
    return min(EPOCHS, space.recipe.train.epochs) if default else trial_epochs


@dataclass
class ForkPoint:
    """The control whose weights all trials of a search start from.

    Attributes:
        recipe: recipe of the control.
        own: folder in which it is trained if no other can be read; None takes a temporary one.
        recorded: gives the folder in which the study says it is; None if the study does not say yet.
        on_epoch: called for every epoch of the control that is trained.
    """

    recipe: Recipe
    own: Path | None
    recorded: Callable[[], str | None]
    on_epoch: OnEpoch
    folder: Path = field(init=False)

    def __post_init__(self) -> None:
        if self.own is None:
            scratch = tempfile.mkdtemp(prefix="augkit-fork-")
            weakref.finalize(self, shutil.rmtree, scratch, ignore_errors=True)
        self.folder = self.own or Path(scratch) / "control"

    @classmethod
    def of(cls, study: optuna.Study, terms: SearchTerms, folder: Path | None, on_epoch: OnEpoch) -> ForkPoint:
        """The fork point of a study; ``folder`` is that of the worker."""
        control, key = terms.open_space().control(terms.control_values({})), control_key({})  # one architecture
        train = {**control.train.model_dump(), "epochs": terms.fork, "steps": None}
        own = folder / "controls" / f"{study.study_name}-fork" if folder else None

        def recorded() -> str | None:
            found: ControlScores = study.user_attrs.get(key, {})
            return found.get("fork")

        return cls(control.replaced(train=train, seed=terms.seed), own, recorded, on_epoch)

    def place(self, training: RecipeTraining, alive: Callable[[], None]) -> Path:
        """Folder of the trained control that can be read here; if there is none, train it from the same seed.

        Raises:
            RunError: training failed.
        """
        recorded = self.recorded()
        places = [self.folder, *([Path(recorded)] if recorded else [])]
        found = next((place for place in places if self._has_ended(place)), None)
        if found is None:
            if not training.epochs_in(self.folder, self.recipe, self.recipe.train.epochs):
                shutil.rmtree(self.folder, ignore_errors=True)  # it has nothing of use
            training.train(self.recipe, self.folder, self.recipe.train.epochs, self.on_epoch, alive)
        return found or self.folder

    def _has_ended(self, place: Path) -> bool:
        try:
            found = read_checkpoint(place / FILE)
        except (InputError, OSError):
            return False
        history, settings = found.get("history", []), self.recipe.train
        ended = len(history) == settings.epochs or stalled(history, settings.patience)
        return ended and found.get("recipe") == self.recipe.model_dump()


@dataclass(frozen=True)
class ForkTraining(RecipeTraining):
    """Training by `augkit.fit` from the weights of the control.

    Attributes:
        point: the control.
    """

    point: ForkPoint = field(kw_only=True)

    def train(
        self, recipe: Recipe, folder: Path | None, until: int, on_epoch: OnEpoch, alive: Callable[[], None]
    ) -> nn.Module:
        """Train from the control's weights, or go on from the checkpoint in ``folder``."""
        scratch = RecipeTraining(self.dataset, self.device)
        if folder is not None and self.epochs_in(folder, recipe, until):
            return scratch.train(recipe, folder, until, on_epoch, alive)
        weights = self.point.place(scratch, alive) / FILE
        return self.train_from(weights, recipe, folder, until, on_epoch, alive)
