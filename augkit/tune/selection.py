"""Which trials of a search go on: the feasible ones, the front, the candidates for full training."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.trial import FrozenTrial

from augkit.core.records import Record
from augkit.invariance import Estimate, InvarianceComparison
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import SearchTerms, completed, control_key
from augkit.tune.space import Value


def feasible(trial: FrozenTrial) -> bool:
    """Whether a trial meets all bounds."""
    return all(value <= 0 for value in trial.user_attrs.get("bounds", {}).values())


def front(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Feasible trials that no other feasible one beats in one objective without losing in another."""
    fair = [trial for trial in trials if feasible(trial)]

    def beaten(a: FrozenTrial) -> bool:
        return any(all(y >= x for x, y in zip(a.values, b.values, strict=True)) and b.values != a.values for b in fair)

    return [trial for trial in fair if not beaten(trial)]


def candidates(
    trials: Sequence[FrozenTrial], goal: Goal, control_accuracy: float, images: int, count: int
) -> list[FrozenTrial]:
    """The trials that are worth a full budget, the most promising first.

    With one objective, the best of those within the bound. With several, the most invariant of those whose accuracy is
    within two standard errors of the best, which is taken over trials and control; the standard error is the binomial
    one on ``images`` validation images, as in the one-standard-error rule of Breiman et al. 1984, which with a few
    hundred images would let the luck of the best run decide. Where no trial comes so near, the most accurate ones.
    """
    fair = [trial for trial in trials if feasible(trial)] or list(trials)

    def score(trial: FrozenTrial, key: str) -> float:
        return float(trial.user_attrs[key])

    if goal.mode != "pareto":
        inside = [trial for trial in fair if goal.shortfall(trial.user_attrs) <= 0]
        if not inside:
            return sorted(fair, key=lambda trial: goal.shortfall(trial.user_attrs))[:count]
        return sorted(inside, key=lambda trial: -score(trial, goal.objectives[0]))[:count]
    best = max(control_accuracy, *(score(trial, "accuracy") for trial in fair))
    error = (best * (1 - best) / images) ** 0.5
    near = [trial for trial in fair if score(trial, "accuracy") >= best - 2 * error]
    key = "learned_invariance" if near else "accuracy"
    distinct = {json.dumps(t.user_attrs["values"], sort_keys=True): t for t in reversed(near or fair)}
    return sorted(distinct.values(), key=lambda trial: -score(trial, key))[:count]


def best_controls(study: optuna.Study, terms: SearchTerms, images: int) -> dict[str, dict[str, Value]]:
    """What a search without augmentation found best for every architecture, by `control_key`.

    The most invariant of those that are about as accurate as the best, as `candidates` says; what was not tried for an
    architecture stays out.
    """
    space, found = terms.open_space(), {}
    for architecture in space.architectures():
        key = control_key(architecture)
        tried = [t for t in completed(study) if space.architecture(t.user_attrs["values"]) == architecture]
        control = study.user_attrs[key]
        best = candidates(tried, terms.goal, control["accuracy"], images, 1) if tried else []
        # The recipe as it stands was tried too, as the control of this search.
        if best and best[0].user_attrs["learned_invariance"] > 0:
            found[key] = space.others(best[0].user_attrs["values"])
    return found


def importance(study: optuna.Study, goal: Goal) -> dict[str, dict[str, float]]:
    """Share of each objective's variance that each searched field explains (PED-ANOVA); empty with few trials."""
    if len(completed(study)) < 4:
        return {}
    out = {}
    for k, name in enumerate(goal.objectives):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the evaluator is marked experimental in some releases of Optuna
            evaluator = optuna.importance.PedAnovaImportanceEvaluator()
            try:
                shares = optuna.importance.get_param_importances(study, evaluator=evaluator, target=_value(k))
            except (ValueError, RuntimeError):  # all trials score the same: nothing to explain
                continue
        out[name] = {key: float(share) for key, share in shares.items()}
    return out


def _value(k: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: float(trial.values[k])


@dataclass(frozen=True)
class FinalistRow(Record):
    """A recipe retrained at full length, measured on the validation split.

    Attributes:
        name: of its run folders.
        number: of its trial; None of a control.
        accuracy: mean over seeds.
        learned_invariance: against the best control found; None of a control.
        shift_information: mean over seeds.
        comparison: with the control, by all variabilities.
        per_seed: values of every seed, by metric.
        chosen: whether the tuning chose it.
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
    """Index of the best of the retrained trials, by the lower ends of their intervals, and the rule in words."""
    tried = [k for k, row in enumerate(rows) if row.number is not None]
    # Where the variabilities contradict each other, none of them is believed.
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
        rule = f"the highest lower end of {words[mine]} among those whose {words[other]} is above {bound:g} for certain"
        return max(safe, key=lambda k: low(k, mine)), rule
    rule = f"no trial's {words[other]} is above {bound:g} for certain; this one comes nearest"
    return max(tried, key=lambda k: low(k, other)), rule


def _disputed(row: FinalistRow) -> bool:
    return row.comparison is not None and row.comparison.verdict == "disputed"
