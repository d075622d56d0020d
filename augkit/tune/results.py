"""Results of a search, and of a whole tuning; ``results.json`` holds the latter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import optuna
from optuna.trial import FrozenTrial, TrialState

from augkit.augment.policy import Policy
from augkit.core.records import Record
from augkit.invariance import CarryOver, Estimate, InvarianceComparison
from augkit.measure.comparison import ComparisonRow
from augkit.tune import halving, optuna_study, selection
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import MEASURING, ControlScores, SearchTerms
from augkit.tune.rung_report import RungRow, rung_rows
from augkit.tune.rung_sampler import one_rung
from augkit.tune.selection import FinalistRow
from augkit.tune.space import Range, Value
from augkit.tune.verified import VerifiedFront

CONTROL_KEYS = (
    *("number", "control", "state", "accuracy", "learned_invariance", "values", "parameters", "front", "chosen"),
    *("feasible", "shift_information", "kappa", "seconds", "curve"),
)


@dataclass(frozen=True)
class SearchTrial(Record):
    """One trial of a search, or the control of an architecture.

    Attributes:
        number: trial number.
        control: whether it is a control, which is trained without augmentation.
        state: final state of the trial.
        accuracy: accuracy on the validation split, in [0, 1]; None if the trial ended before it was measured.
        learned_invariance: learned invariance against the control, at most 1; None if it was not measured.
        values: values of the objectives; None unless the trial is complete.
        parameters: searched fields of the recipe by dotted key.
        front: whether the trial lies on the Pareto front; False with a single objective.
        chosen: whether the trial is the winner.
        feasible: whether the trial meets the bound of the goal and the floor.
        curve: intermediate value of the objective by epoch.
        shift_information: shift information on typical images.
        kappa: Cohen's kappa on the validation split.
        seconds: time of training and measuring.
        preset: name of the preset that gave the values.
        start: earlier study that gave the values; None if none did.
        same_as: number of the earlier trial with the same values, whose result was copied.
        error: error message of a failed trial.
        worker: host, process and index of the worker that ran the trial.
        rung: epochs of its rung; None without rungs.
        configuration: number of the trial that ran the same values on the lowest rung; None without rungs.
    """

    number: int
    control: bool
    state: Literal["complete", "pruned", "failed"]
    accuracy: float | None
    learned_invariance: float | None
    values: list[float] | None
    parameters: dict[str, Value]
    front: bool
    chosen: bool
    feasible: bool
    curve: dict[str, float]
    shift_information: float | None = None
    kappa: float | None = None
    seconds: float | None = None
    preset: str | None = None
    same_as: int | None = None
    error: str | None = None
    worker: str | None = None
    rung: int | None = None
    configuration: int | None = None
    start: str | None = None

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping; for a control, only the keys that apply to it."""
        whole = super().to_mapping()
        if self.rung is None:
            del whole["rung"], whole["configuration"]
        if self.start is None:
            del whole["start"]
        return {key: whole[key] for key in CONTROL_KEYS} if self.control else whole


@dataclass(frozen=True)
class SearchCost(Record):
    """Cost of a search.

    Attributes:
        trials: number of finished trials; pruned trials count, controls do not.
        pruned: number of pruned trials.
        answered_from_the_study: number of trials copied from an earlier trial with the same values.
        failed: number of failed trials.
        epochs_run: epochs trained in all trials.
        epochs_saved: epochs saved by pruning, copying and rungs, at least 0.
        trial_seconds: seconds of all workers together.
        control_epochs: epochs trained for controls, which are not among ``epochs_run``.
        measuring_seconds: the part of ``trial_seconds`` spent on measuring networks.
    """

    trials: int
    pruned: int
    answered_from_the_study: int
    failed: int
    epochs_run: int
    epochs_saved: int
    trial_seconds: float
    control_epochs: int = 0
    measuring_seconds: float = 0.0


@dataclass(frozen=True)
class SearchResults(Record):
    """Results of a search, finished or not.

    Attributes:
        trials: controls, then trials.
        space: range of each searched field.
        objectives: names of the objectives.
        budget: epochs of a trial that is not pruned.
        importance: by objective, the share of its variance that each field explains (PED-ANOVA).
        search_cost: numbers of trials, epochs and seconds.
        rungs: one row per rung of Pareto halving, the lowest first; empty without rungs.
    """

    trials: list[SearchTrial]
    space: dict[str, Range]
    objectives: list[str]
    budget: int
    importance: dict[str, dict[str, float]]
    search_cost: SearchCost
    rungs: list[RungRow] = field(default_factory=list)

    @property
    def configurations(self) -> list[SearchTrial]:
        """Controls, and of each configuration the trial on the highest rung that it completed; all without rungs."""
        best = {t.configuration: t for t in sorted(self.trials, key=lambda t: (t.values is not None, t.rung or 0))}
        return [t for t in self.trials if t.rung is None or best[t.configuration] is t]

    @property
    def comparable(self) -> list[SearchTrial]:
        """Controls and the trials on the highest rung that any trial completed; all trials without rungs."""
        top = max((trial.rung for trial in self.trials if trial.rung and trial.values), default=None)
        return [trial for trial in self.trials if trial.rung in (None, top)]

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping; ``rungs`` only if there are any."""
        whole = super().to_mapping()
        if not self.rungs:
            del whole["rungs"]
        return whole


@dataclass(frozen=True)
class JoinedSearch(Record):
    """Result of a process that joined the study of another command: the cost of the search so far."""

    search_cost: SearchCost

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping, with ``joined`` true."""
        return {"joined": True, **super().to_mapping()}


@dataclass(frozen=True)
class ChosenRecipe(Record):
    """The winner of a tuning.

    Attributes:
        number: number of its trial.
        rule: description of the rule by which it was chosen.
        policy: description of its policy.
        fields: its policy.
        values: values of the searched fields by dotted key.
        others: those of ``values`` that lie outside of the policy.
        control: by architecture, the values of the best control found.
    """

    number: int
    rule: str
    policy: str
    fields: Policy
    values: dict[str, Value]
    others: dict[str, Value]
    control: dict[str, dict[str, Value]]


@dataclass(frozen=True)
class ResponsePoint(Record):
    """Top-1 change at one length of the shift (pixels)."""

    length: float
    top1_change: Estimate


@dataclass(frozen=True)
class DoseRow(Record):
    """Measurements of the chosen policy at one strength; strength 0 is the control."""

    strength: float
    accuracy: Estimate
    learned_invariance: Estimate


@dataclass(frozen=True)
class TuneSettings(Record):
    """Settings of a tuning: recipe, search, seeds, and how networks were measured; ``max_shift`` is in pixels.

    ``fork`` is the number of epochs after which trials were forked from the control; 0 if they were not.
    """

    name: str
    trials: int
    trial_epochs: int
    goal: Goal
    sampler: str
    epochs: int
    seeds: int
    search_seed: int
    final_seeds: list[int]
    protocol: str
    kernel: str | None
    max_shift: float
    pairs: int
    device: str
    fork: int = 0


@dataclass(frozen=True)
class TuneResults(Record):
    """Results of a tuning.

    Attributes:
        conclusion: the conclusion as one paragraph.
        chosen: the winner.
        finalists: measurements of the finalists on the validation split.
        verified: the retrained trials, beside what the search showed of them.
        table: closing table on the test split (see `augkit.measure.comparison.closing_table`).
        decomposition: variability removed by augmentation, by the other fields, and by both.
        carry_over: carry-over of invariance by atypical image set.
        response: by arm, top-1 change against the length of the shift (pixels).
        dose_response: measurements of the chosen policy at several strengths, on the validation split.
        search: trials and their cost.
        settings: settings of the tuning.
        environment: versions and machine.
        cost: seconds in total and by phase, which add up to the total.
    """

    conclusion: str
    chosen: ChosenRecipe
    finalists: list[FinalistRow]
    verified: VerifiedFront
    table: Sequence[ComparisonRow]
    decomposition: dict[str, InvarianceComparison]
    carry_over: dict[str, CarryOver]
    response: dict[str, list[ResponsePoint]]
    dose_response: list[DoseRow]
    search: SearchResults
    settings: TuneSettings
    environment: Mapping[str, object]
    cost: dict[str, float]

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping, with the keys of ``search`` in place of that field."""
        own = super().to_mapping()
        parts = (self.search.to_mapping() if key == "search" else {key: value} for key, value in own.items())
        return {key: value for part in parts for key, value in part.items()}


def search_results(study: optuna.Study, terms: SearchTerms, chosen: int | None = None) -> SearchResults:
    """Results of a search, finished or not.

    Args:
        study: Optuna study of the search.
        terms: terms of the search.
        chosen: number of the winning trial; None before there is one.
    """
    space, goal = terms.open_space(), terms.goal
    keys = [optuna_study.control_key(architecture) for architecture in space.architectures()]
    rows = [_control_row(study.user_attrs[key], goal) for key in keys if key in study.user_attrs]
    controls = {row.number for row in rows}
    lost = {trial.number for trial in optuna_study.lost(study)}
    highest = selection.levels(study)[:1] if len(goal.objectives) > 1 else []
    front = {trial.number for _, trials in highest for trial in selection.front(trials)}
    for trial in study.get_trials(deepcopy=False):
        skipped = trial.number in controls or "control" in trial.user_attrs or optuna_study.is_foreign(trial)
        open_still = trial.state in (TrialState.RUNNING, TrialState.WAITING)
        retried = trial.state == TrialState.FAIL and trial.number not in lost
        if not (skipped or open_still or retried):
            rows.append(_trial_row(trial, terms.rungs, front=trial.number in front, chosen=trial.number == chosen))
    return SearchResults(
        trials=rows,
        space=dict(space.ranges),
        objectives=list(goal.objectives),
        budget=terms.epochs,
        importance=selection.importance(one_rung(study, terms) if terms.rungs else study, goal),
        search_cost=search_cost(study, terms),
        rungs=rung_rows(study, terms),
    )


def _control_row(found: ControlScores, goal: Goal) -> SearchTrial:
    return SearchTrial(
        number=found["number"],
        control=True,
        state="complete",
        accuracy=found["accuracy"],
        learned_invariance=0.0,
        values=[found["accuracy"] if name == "accuracy" else 0.0 for name in goal.objectives],
        parameters={},
        front=False,
        chosen=False,
        feasible=True,
        curve={},
        shift_information=found["shift_information"]["typical"],
        kappa=found["kappa"],
        seconds=found["seconds"],
    )


def _trial_row(trial: FrozenTrial, rungs: Sequence[int], *, front: bool, chosen: bool) -> SearchTrial:
    attrs = trial.user_attrs
    states: dict[TrialState, Literal["complete", "pruned"]] = {
        TrialState.PRUNED: "pruned",
        TrialState.COMPLETE: "complete",
    }
    return SearchTrial(
        number=trial.number,
        control=False,
        state=states.get(trial.state, "failed"),
        accuracy=attrs.get("accuracy"),
        learned_invariance=attrs.get("learned_invariance"),
        values=list(trial.values) if trial.state == TrialState.COMPLETE else None,
        parameters=attrs.get("values", {}),
        front=front,
        chosen=chosen,
        feasible=selection.feasible(trial),
        curve={str(epoch): value for epoch, value in trial.intermediate_values.items()},
        shift_information=attrs.get("shift_information"),
        kappa=attrs.get("kappa"),
        seconds=attrs.get("seconds"),
        preset=attrs.get("preset"),
        start=attrs.get(optuna_study.START),
        same_as=attrs.get("same_as"),
        error=attrs.get("error"),
        worker=attrs.get("worker"),
        rung=rungs[optuna_study.rung_of(trial)] if rungs else None,
        configuration=halving.configuration_of(trial) if rungs else None,
    )


def search_cost(study: optuna.Study, terms: SearchTerms) -> SearchCost:
    """Count the trials of a study, epochs run and saved, and the seconds of all workers together."""
    trials, ended = optuna_study.finished(study), optuna_study.ended(study)
    controls = [optuna_study.control_key(a) for a in terms.open_space().architectures()]
    copied = sum("same_as" in trial.user_attrs for trial in trials)
    trained = [trial.user_attrs for trial in ended if "same_as" not in trial.user_attrs]
    # On a higher rung, a trial goes on from the epochs of the lower one. A fork also counts the epochs of the control
    # where this had to be trained again for it.
    run = sum(int(attrs.get("trained", attrs.get("epochs", terms.epochs))) for attrs in trained)
    return SearchCost(
        trials=len(trials),
        pruned=sum(trial.state == TrialState.PRUNED for trial in trials),
        answered_from_the_study=copied,
        failed=len(optuna_study.lost(study)),
        epochs_run=run,
        epochs_saved=max(0, len(trials) * terms.epochs - run),
        trial_seconds=round(sum(trial.user_attrs.get("seconds") or 0.0 for trial in ended), 1),
        control_epochs=sum(int(study.user_attrs.get(key, {}).get("epochs", 0)) for key in controls),
        measuring_seconds=round(sum(trial.user_attrs.get(MEASURING) or 0.0 for trial in ended), 1),
    )


def cost_of(phases: Mapping[str, float], total: float) -> dict[str, float]:
    """Seconds in total, by phase, and of the rest, which is what is missing from the total.

    >>> cost_of({"search": 20.04, "final runs": 30.0}, 52.5)
    {'seconds': 52.5, 'search': 20.0, 'final runs': 30.0, 'the rest': 2.5}
    """
    found = {name: round(value, 1) for name, value in phases.items()}
    seconds = round(max(total, sum(found.values())), 1)
    return {"seconds": seconds, **found, "the rest": round(seconds - sum(found.values()), 1)}
