"""The inputs of `augkit.tune.tune`: checks, and the terms of the search that follow from them."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex, TypeVar

from augkit.core.errors import InputError, InputTypeError, brief, check_whole
from augkit.core.jobs.launch import check_workers
from augkit.core.jobs.pool import WorkerSettings
from augkit.core.jobs.storage import Storage
from augkit.core.schema import validate
from augkit.train.recipe import Recipe
from augkit.tune import halving
from augkit.tune.fork import epochs_of_a_fork, epochs_of_the_control
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.space import Space

Workers = TypeVar("Workers", bound=WorkerSettings)


def as_space(space: object) -> Space:
    """The space, or that of a recipe, whose policy's strengths are then searched.

    Raises:
        InputTypeError: it is neither a space nor a recipe.
    """
    if isinstance(space, Recipe):
        return Space.of(space.model_dump(exclude_none=True), space.name)
    if not isinstance(space, Space):
        raise InputTypeError(f"tune: expected a Space or a Recipe, got {type(space).__name__}")
    return space


def as_folder(folder: object) -> Path:
    """The output folder as a path; raise InputTypeError unless it is a path or text."""
    if not isinstance(folder, str | Path):
        raise InputTypeError(f"tune: expected an output folder, got {type(folder).__name__}")
    return Path(folder)


def as_workers(workers: object, kind: type[Workers], storage: object) -> Workers:
    """The settings of workers that share a storage: for a whole number those of so many, for None those of one.

    Raises:
        InputError: they are none, the storage is neither None nor a file or URL, or they cannot share it.
    """
    if storage is not None and not isinstance(storage, str | Path):
        raise InputTypeError(f"storage: expected a file or URL as text, got {type(storage).__name__}")
    if not isinstance(workers, kind):
        if workers is not None and not isinstance(workers, SupportsIndex):
            raise InputTypeError(f"workers: expected a whole number or {kind.__name__}, got {brief(workers)}")
        check_whole("workers", workers, 1)
        workers = kind() if workers is None else kind(operator.index(workers))
    check_workers(workers, Storage.parse(storage) if storage else None)
    return workers


def check_counts(optional: Mapping[str, int | None], needed: Mapping[str, int]) -> None:
    """Raise InputError unless all numbers, by name, are whole and at least 1; the optional ones may be None."""
    for name, number in optional.items():
        check_whole(name, number, 1)
    for name, number in needed.items():
        check_whole(name, number, 1, optional=False)


@dataclass(frozen=True)
class Rungs:
    """The rungs that were asked for, and what derived ones depend on.

    Attributes:
        given: epochs of each rung; empty for none, None to derive them.
        factor: one of ``factor`` configurations goes on; None takes `augkit.tune.halving.derived_factor`.
        trials: number of configurations.
        processes: processes per trial.
    """

    given: Sequence[int] | None
    factor: int | None
    trials: int
    processes: int = 1

    def __post_init__(self) -> None:
        if self.given is not None and (isinstance(self.given, str) or not isinstance(self.given, Sequence)):
            raise InputError(
                f"rungs: expected two or more ascending numbers of epochs, such as (2, 4, 8), got {brief(self.given)}"
            )

    def of(self, epochs: int, goal: Goal, sampler: str, least_epochs: int | None) -> tuple[int, ...]:
        """The rungs of a search whose trials have ``epochs`` epochs.

        Raises:
            InputError: given rungs do not go with the other settings, or the goal is none.
        """
        if not isinstance(goal, Goal):
            raise InputTypeError(f"goal: expected an augkit.tune.Goal, got {brief(goal)}")
        if self.given is not None:
            halving.refuse_with_rungs(self.given, sampler, self.processes, least_epochs)
            return tuple(self.given)
        if halving.goes_with_rungs(goal, sampler, self.processes, least_epochs):
            return halving.derived_rungs(epochs, self.trials, self.factor or halving.FACTOR)
        return ()

    def factor_of(self, rungs: Sequence[int]) -> int:
        """The factor of a search with these rungs."""
        return self.factor or halving.derived_factor(rungs, self.trials)


def make_terms(
    space: Space,
    goal: Goal,
    rungs: Rungs,
    *,
    trial_epochs: int | None,
    least_epochs: int | None = None,
    fork: bool,
    sampler: str,
    floor: float,
    name: str = "tune",
) -> tuple[SearchTerms, tuple[str, ...]]:
    """The terms of a search, from the arguments of `augkit.tune.tune`; ``name`` is the function, for messages.

    Returns:
        The terms, and the names of those that an existing study decides because they were not given.

    Raises:
        InputError: an argument is out of its range or of another kind, or rungs do not go with the others.
    """
    if not isinstance(fork, bool):
        raise InputTypeError(f"fork: expected True or False, got {brief(fork)}")
    asked = epochs_of_a_fork(fork, trial_epochs, rungs.given or (), space)
    epochs = halving.epochs_of_a_trial(rungs.given, rungs.factor, asked, space.recipe.train.epochs)
    found = rungs.of(epochs, goal, sampler, least_epochs)
    fields = {
        "space": space.to_dict(),
        "goal": goal,
        "rungs": found,
        "factor": rungs.factor_of(found),
        "fork": epochs_of_the_control(fork, space, rungs.processes),
        "epochs": epochs,
        "least_epochs": min(epochs, least_epochs or math.ceil(epochs / 4)),
        "sampler": sampler,
        "floor": floor,
        "seed": space.recipe.seed,
    }
    kept: tuple[str, ...] = ()
    if rungs.given is None:
        kept = ("rungs",) if trial_epochs or least_epochs else ("rungs", "epochs", "least_epochs")
    if rungs.factor is None:
        kept = (*kept, "factor")
    return validate(SearchTerms, fields, name), kept
