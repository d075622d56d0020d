"""Selection of trials: feasible trials, the Pareto front, candidates for final runs, and the choice of the winner."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from augkit.core.records import Record
from augkit.invariance import Estimate, InvarianceComparison
from augkit.tune import halving, optuna_study
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import SearchTerms, control_key, rung_of
from augkit.tune.space import Space, Value


def feasible(trial: FrozenTrial) -> bool:
    """Whether a trial meets all its bounds."""
    return all(value <= 0 for value in trial.user_attrs.get("bounds", {}).values())


def front(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The Pareto front: feasible trials that no other feasible trial dominates."""
    fair = [trial for trial in trials if feasible(trial)]

    def beaten(a: FrozenTrial) -> bool:
        return any(all(y >= x for x, y in zip(a.values, b.values, strict=True)) and b.values != a.values for b in fair)

    return [trial for trial in fair if not beaten(trial)]


def candidates(
    trials: Sequence[FrozenTrial], goal: Goal, control_accuracy: float, images: int, count: int
) -> list[FrozenTrial]:
    """Select the trials to retrain at full length, best first.

    With a single objective: the best trials that meet the bound, or if there are none, those nearest to it. With
    several: the most invariant trials whose accuracy is within two standard errors of the best accuracy (of all trials
    and the control), or if there are none, the most accurate trials. The standard error is binomial. Breiman et al.
    1984 use one standard error, but with a few hundred images the choice would then depend on the luck of one run.

    Args:
        trials: completed trials.
        goal: goal of the search.
        control_accuracy: accuracy of the best control, in [0, 1].
        images: number of validation images.
        count: largest number of trials to return.
    """
    fair = [trial for trial in trials if feasible(trial)] or list(trials)

    def score(trial: FrozenTrial, key: str) -> float:
        return float(trial.user_attrs[key])

    if goal.mode != "pareto":
        inside = [trial for trial in fair if goal.shortfall(trial.user_attrs) <= 0]
        if not inside:
            return _distinct(sorted(fair, key=lambda trial: goal.shortfall(trial.user_attrs)))[:count]
        return _distinct(sorted(inside, key=lambda trial: -score(trial, goal.objectives[0])))[:count]
    best = max(control_accuracy, *(score(trial, "accuracy") for trial in fair))
    error = (best * (1 - best) / images) ** 0.5
    near = [trial for trial in fair if score(trial, "accuracy") >= best - 2 * error]
    key = "learned_invariance" if near else "accuracy"
    return sorted(_distinct(near or fair)[::-1], key=lambda trial: -score(trial, key))[:count]


def _distinct(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The trials in their order; of several with the same values, the first."""
    found: dict[str, FrozenTrial] = {}
    for trial in trials:
        found.setdefault(json.dumps(trial.user_attrs["values"], sort_keys=True), trial)
    return list(found.values())


def levels(study: optuna.Study) -> list[tuple[int, list[FrozenTrial]]]:
    """Completed trials by the number of their rung, the highest one first; without rungs, all are on rung 0."""
    done = optuna_study.completed(study)
    rungs = sorted({rung_of(trial) for trial in done}, reverse=True)
    return [(rung, [trial for trial in done if rung_of(trial) == rung]) for rung in rungs]


def best_trials(study: optuna.Study, space: Space, goal: Goal, images: int, count: int) -> list[FrozenTrial]:
    """The `candidates` among the trials of a study.

    With rungs, all trials on the highest rung come before those on the next one, as their results are the surest.

    Args:
        study: Optuna study of the search, whose controls are measured.
        space: space of the search.
        goal: goal of the search.
        images: number of validation images.
        count: largest number of trials to return.
    """
    controls = [study.user_attrs[control_key(architecture)] for architecture in space.architectures()]
    found: list[FrozenTrial] = []

    def untaken(trials: list[FrozenTrial]) -> list[FrozenTrial]:
        taken = [trial.user_attrs["values"] for trial in found]
        return [trial for trial in trials if trial.user_attrs["values"] not in taken]

    ranks = levels(study)
    for rung, trials in ranks:
        reference = max(halving.scores_on(control, rung)["accuracy"] for control in controls)
        while (left := untaken(trials)) and len(found) < count:
            found += candidates(left, goal, reference, images, count - len(found))
            if len(ranks) == 1:
                break  # without rungs, trials that are clearly less accurate are not retrained
    return found


def best_controls(study: optuna.Study, terms: SearchTerms, images: int) -> dict[str, dict[str, Value]]:
    """The best values that a search without augmentation found for each architecture, by `control_key`.

    `candidates` selects them. An architecture is left out if no trial improved on the recipe's own values.
    """
    space, found = terms.open_space(), {}
    for architecture in space.architectures():
        key = control_key(architecture)
        ranks = [
            (rung, [t for t in trials if space.architecture(t.user_attrs["values"]) == architecture])
            for rung, trials in levels(study)
        ]
        rung, tried = next((rank for rank in ranks if rank[1]), (0, []))
        reference = halving.scores_on(study.user_attrs[key], rung)["accuracy"]
        best = candidates(tried, terms.goal, reference, images, 1) if tried else []
        # Learned invariance is relative to the recipe's own values, which are the control of this search.
        if best and best[0].user_attrs["learned_invariance"] > 0:
            found[key] = space.others(best[0].user_attrs["values"])
    return found


def importance(study: optuna.Study, goal: Goal) -> dict[str, dict[str, float]]:
    """By objective, the share of its variance that each field explains (PED-ANOVA); empty with less than 4 trials."""
    if len(optuna_study.completed(study)) < 4:
        return {}
    out = {}
    for k, name in enumerate(goal.objectives):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some releases of Optuna mark the evaluator as experimental
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            try:
                shares = optuna.importance.get_param_importances(study, evaluator=evaluator, target=_value(k))
            except (ValueError, RuntimeError):  # all trials have the same value, so there is no variance
                continue
        out[name] = {key: float(share) for key, share in shares.items()}
    return out


def _value(k: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[k])


@dataclass(frozen=True)
class FinalistRow(Record):
    """Measurements of a finalist on the validation split.

    Attributes:
        name: name of its run folders.
        number: number of its trial; None for a control.
        accuracy: mean over seeds, in [0, 1].
        learned_invariance: learned invariance against the best control found; None for a control.
        shift_information: mean over seeds.
        comparison: comparison with the control by all variabilities.
        per_seed: by metric, one value per seed.
        chosen: whether it is the winner.
    """

    name: str
    number: int | None
    accuracy: Estimate
    learned_invariance: Estimate | None
    shift_information: Estimate | None = None
    comparison: InvarianceComparison | None = None
    per_seed: dict[str, list[float]] | None = None
    chosen: bool = False


def decide(rows: Sequence[FinalistRow], goal: Goal) -> tuple[int, str]:
    """Choose a row by the lower ends of intervals; return its index and a description of the rule that applied."""
    tried = [k for k, row in enumerate(rows) if row.number is not None]
    # Rows whose variabilities contradict each other are considered only if all rows are of that kind.
    tried = [k for k in tried if not _disputed(rows[k])] or tried

    def low(k: int, key: str) -> float:
        estimate: Estimate = getattr(rows[k], key)
        return estimate.low if estimate.defined else float("-inf")

    if goal.mode == "pareto":
        bar = max(low(k, "accuracy") for k in range(len(rows)))
        near = [k for k in tried if rows[k].accuracy.high >= bar] or tried
        rule = "the highest lower end of learned invariance among those whose accuracy is not clearly lower"
        return max(near, key=lambda k: low(k, "learned_invariance")), rule
    mine, other = ("accuracy", "learned_invariance") if goal.mode == "accuracy" else ("learned_invariance", "accuracy")
    words = {"accuracy": "accuracy", "learned_invariance": "learned invariance"}
    bound = float(goal.at_least or 0.0)
    safe = [k for k in tried if low(k, other) >= bound]
    if safe:
        rule = f"the highest lower end of {words[mine]} among those whose {words[other]} is clearly above {bound:g}"
        return max(safe, key=lambda k: low(k, mine)), rule
    rule = f"no trial's {words[other]} is clearly above {bound:g}; this one comes nearest"
    return max(tried, key=lambda k: low(k, other)), rule


def _disputed(row: FinalistRow) -> bool:
    return row.comparison is not None and row.comparison.verdict == "disputed"
