"""A worker whose trials take no time and whose truth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
import torch

from augkit.core.jobs.heartbeat import RetryPolicy
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import Values, Worker, WorkerEvents
from augkit.data import Dataset, load_dataset
from augkit.train.recipe import Recipe
from augkit.tune import halving, optuna_study
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import ControlScores, SearchTerms
from augkit.tune.space import Space
from augkit.tune.trial import TrialWorker

RECIPE = {
    "name": "toy",
    "data": {"name": "digits", "limit": 100},
    "policy": {"shift": {"max_pixels": 2.0}, "rescale": {"max_factor": 1.1}},
    "train": {"epochs": 8},
}
DATA: list[Dataset] = []
CONTROL = {"accuracy": 0.94, "kappa": 0.5, "shift_information": {"typical": 0.1}}


class Toy(TrialWorker):
    """Shift makes invariant at no cost; rescaling costs accuracy and gives nothing."""

    trained = 0

    def score_control(self, recipe: Recipe, number: int) -> ControlScores:
        assert recipe.policy.is_identity
        self.trained += 1
        return dict(CONTROL)

    def score(
        self, trial: optuna.Trial, recipe: Recipe, reference: Callable[[], ControlScores]
    ) -> tuple[None, dict[str, Any]]:
        self.trained += 1
        reference()
        policy = recipe.policy
        assert policy.shift is not None
        assert policy.rescale is not None
        learned = 0.8 * policy.shift.max_pixels * policy.shift.p / 6
        accuracy = 0.95 - 0.3 * (policy.rescale.max_factor - 1)
        epochs = recipe.train.epochs
        if self.terms.goal.prunes:
            value = accuracy if self.terms.goal.mode == "accuracy" else learned
            for epochs in range(1, recipe.train.epochs + 1):
                trial.set_user_attr("epochs", epochs)
                trial.report(value * epochs / recipe.train.epochs, epochs)
                if epochs < recipe.train.epochs and trial.should_prune():
                    raise optuna.TrialPruned
        found = {"accuracy": accuracy, "learned_invariance": learned, "shift_information": 0.1 * (1 - learned)}
        return None, {**found, "kappa": 0.6, "epochs": epochs}


def make_terms(recipe: Mapping[str, Any] = RECIPE, **fields: Any) -> SearchTerms:
    """Terms of a search of ``recipe``."""
    space = Space.of(dict(recipe), "toy")
    return SearchTerms(space=space.to_dict(), **{"epochs": 4, **fields})


def open_toy(
    place: str | Path, terms: SearchTerms, trials: int, *, join: bool = False, index: int = 0, kind: type[Toy] = Toy
) -> Toy:
    """A worker of a study at ``place``, which is made, or joined."""
    if not DATA:
        DATA.append(load_dataset("digits", limit=100))
    study, _ = optuna_study.make_or_join(open_storage(place), "s", terms, trials, join=join)
    return kind(study, terms, DATA[0], torch.device("cpu"), index=index)


class FunctionWorker(Worker):
    """A worker whose jobs are calls of a function."""

    jobs = "calls"

    def __init__(
        self,
        study: optuna.Study,
        function: Callable[[optuna.Trial], Values],
        events: WorkerEvents | None = None,
        policy: RetryPolicy | None = None,
    ) -> None:
        super().__init__(study, events=events or WorkerEvents(), policy=policy or RetryPolicy())
        self.function = function

    def is_done(self) -> bool:
        return not self.has_job()

    def has_job(self) -> bool:
        return any(trial.state == optuna.trial.TrialState.WAITING for trial in self.study.get_trials(deepcopy=False))

    def work(self, trial: optuna.Trial) -> Values:
        return self.function(trial)


PARETO = Goal()


class RungToy(Toy):
    """A `Toy` with rungs: the longer a configuration is trained, the better it is, and the order stays."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ran: list[tuple[int, int]] = []

    def score_control(self, recipe: Recipe, number: int) -> ControlScores:
        lower: list[Any] = [dict(CONTROL) for _ in self.terms.rungs[:-1]]
        return {**super().score_control(recipe, number), "rungs": lower}

    def score(
        self, trial: optuna.Trial, recipe: Recipe, reference: Callable[[], ControlScores]
    ) -> tuple[None, dict[str, Any]]:
        rung, steps = optuna_study.rung_of(trial), (0, *self.terms.rungs)
        _, found = super().score(trial, recipe, reference)
        self.ran.append((halving.configuration_of(trial), rung))
        grown = (9 + steps[rung + 1] / steps[-1]) / 10
        found |= {"accuracy": grown * found["accuracy"], "learned_invariance": grown * found["learned_invariance"]}
        return None, {**found, "epochs": steps[rung + 1], "trained": steps[rung + 1] - steps[rung]}
