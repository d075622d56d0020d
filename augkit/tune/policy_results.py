"""Results of a search of the policy of a training loop, and the files that hold them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import optuna

from augkit.augment.policy import Policy
from augkit.core.files import write
from augkit.core.records import Record
from augkit.tune import selection
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.results import SearchResults, search_results


@dataclass(frozen=True)
class PolicyPoint(Record):
    """A policy that was tried, with its scores on the validation images.

    Attributes:
        number: number of its trial.
        policy: the policy.
        accuracy: accuracy, or the score in its place, in [0, 1].
        learned_invariance: learned invariance against the control, at most 1.
        feasible: whether it meets the floor and the bound of the goal.
    """

    number: int
    policy: Policy
    accuracy: float
    learned_invariance: float
    feasible: bool


@dataclass(frozen=True)
class PolicyResults(Record):
    """Results of `augkit.tune_policy`.

    Attributes:
        chosen: the policy that was chosen, with its scores.
        front: policies that no other one dominates, the most accurate first; with rungs, those on the highest.
        search: all trials and their cost.
        study: name of the Optuna study.
        warning: that the function does not repeat with its seed; None if it does, or this was not checked.
    """

    chosen: PolicyPoint
    front: list[PolicyPoint]
    search: SearchResults
    study: str
    warning: str | None = None

    @property
    def best(self) -> Policy:
        """The policy that was chosen."""
        return self.chosen.policy

    def report(self, path: str | Path) -> Path:
        """Write the page of the search, one HTML file that needs no other; return its path."""
        from augkit.tune.page import search_page

        target = Path(path)
        write(target, search_page(self.study, self.search))
        return target

    def write(self, folder: str | Path) -> Path:
        """Write ``best.yaml``, ``results.json`` and ``report.html`` to a folder; return it.

        `augkit.Policy.from_yaml` reads ``best.yaml``.
        """
        target, best = Path(folder), self.chosen
        target.mkdir(parents=True, exist_ok=True)
        header = (
            f"# Chosen by augkit.tune among {self.search.search_cost.trials} trials: trial {best.number}, accuracy"
            f" {best.accuracy:.3f}, learned invariance {best.learned_invariance:.3f}\n# on the images that chose it.\n"
            f'# Read it: augkit.Policy.from_yaml("{target / "best.yaml"}")\n'
        )
        write(target / "best.yaml", header + best.policy.to_yaml())
        write(target / "results.json", json.dumps(self.to_dict(), indent=2, allow_nan=False))
        self.report(target / "report.html")
        return target


def policy_results(study: optuna.Study, terms: SearchTerms, images: int) -> PolicyResults:
    """The results of a search that is done; ``images`` is the number of validation images."""
    space = terms.open_space()
    best = selection.best_trials(study, space, terms.goal, images, 1)[0]

    def point(trial: optuna.trial.FrozenTrial) -> PolicyPoint:
        attrs = trial.user_attrs
        policy = space.with_values(attrs["values"]).policy
        scores = float(attrs["accuracy"]), float(attrs["learned_invariance"])
        return PolicyPoint(trial.number, policy, *scores, feasible=selection.feasible(trial))

    distinct = {str(t.user_attrs["values"]): t for t in reversed(selection.levels(study)[0][1])}
    front = [point(trial) for trial in selection.front(list(distinct.values()))]
    front.sort(key=lambda row: -row.accuracy)
    found = search_results(study, terms, best.number)
    return PolicyResults(point(best), front, found, study.study_name, study.user_attrs.get("warning"))
