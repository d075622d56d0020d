"""After the search: its best trials at full length with fresh seeds, the winner, and one look at the test split.

Functions are in the order in which they run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial

from augkit import search
from augkit.command import Display
from augkit.comparison import Arm, closing_table, conclusion, measure_run, open_test_sets, response_curve
from augkit.data import Dataset
from augkit.folders import environment
from augkit.invariance import Estimate, InvarianceReport, learned_invariance
from augkit.job import Run
from augkit.outcome import outcome
from augkit.recipe import Recipe
from augkit.search import Goal, Terms
from augkit.space import Space
from augkit.training import fit
from augkit.trials import measuring_cost

STRENGTHS = (0.25, 0.5, 0.75)
CURVE_POINTS = 8


@dataclass
class Tuning:
    """What the steps after the search need.

    Attributes:
        folder: of the study; final runs go to ``final/`` and ``dose/`` in it.
        seeds: of the final runs of each recipe.
        top: trials that are retrained.
    """

    study: optuna.Study
    terms: Terms
    folder: Path
    seeds: int
    top: int
    device: torch.device
    dataset: Dataset
    display: Display
    phases: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space: Space = self.terms.open_space()

    @property
    def recipe(self) -> Recipe:
        """As it stands, before the search."""
        return self.space.recipe

    @property
    def final_seeds(self) -> list[int]:
        """Seeds that the search did not use, so that its luck does not count."""
        return [self.recipe.seed + 1 + k for k in range(self.seeds)]

    @property
    def lengths(self) -> list[float]:
        """Lengths of shifts in pixels at which the response curve is taken."""
        return [self.recipe.invariance.max_shift * (k + 1) / CURVE_POINTS for k in range(CURVE_POINTS)]

    def train(self, recipe: Recipe, seed: int, output: Path) -> Run:
        """One run, gone on with or only loaded where ``output`` holds it."""
        before = [0]

        def on_epoch(row: dict[str, Any]) -> None:
            before[0] += 1
            self.display.advance(1)

        run = fit(recipe, seed, output=output, resume=True, device=self.device, dataset=self.dataset, on_epoch=on_epoch)
        self.display.skip(recipe.train.epochs - before[0])
        return run

    def measure(self, run: Run, images: Any, *, curve: bool = False) -> InvarianceReport:
        """Measure a run on some images, with the response curve if asked for."""
        lengths = self.lengths if curve else []
        report = measure_run(run, images, lengths=lengths, device=self.device)
        self.display.advance(measuring_cost(self.recipe, len(images), len(self.dataset.train), len(lengths)))
        return report

    def work(self) -> float:
        """What is ahead, in epochs of training."""
        validation, epochs = len(self.dataset.validation), self.recipe.train.epochs
        runs = (1 + self.top) * self.seeds

        def cost(images: int, lengths: int = 0) -> float:
            return measuring_cost(self.recipe, images, len(self.dataset.train), lengths)

        # The test split is not opened to count it; that it is twice the validation split only moves the bar.
        tested = 2 * self.seeds * (3 * cost(2 * validation) + cost(2 * validation, CURVE_POINTS))
        return runs * (epochs + cost(validation)) + len(STRENGTHS) * (epochs + cost(validation)) + tested


def finish(tuning: Tuning) -> tuple[Recipe, dict[str, Any]]:
    """Retrain, choose, measure on the test split; the chosen recipe, and all that ``results.json`` holds."""
    finalists = _retrain(tuning)
    chosen = _choose(tuning, finalists)
    dose = _dose_response(tuning, chosen)
    arms = _test(tuning, finalists[0], chosen)
    return chosen.recipe, _results(tuning, finalists, chosen, dose, arms)


@dataclass(frozen=True)
class Finalist:
    """A recipe at full length, one run per seed, measured on the validation split; the control has no trial."""

    name: str
    trial: FrozenTrial | None
    recipe: Recipe
    runs: list[Run]
    reports: list[InvarianceReport]
    control: int = 0  # which of the finalists is the control of its architecture

    @property
    def policy(self) -> str:
        """In words."""
        return str(self.recipe.policy)


def _retrain(tuning: Tuning) -> list[Finalist]:
    """The controls of the best trials, then these, the most promising first."""
    started = time.monotonic()
    study, space = tuning.study, tuning.space
    reference = max(study.user_attrs[search.control_key(a)]["accuracy"] for a in space.architectures())
    best = search.candidates(
        search.completed(study), tuning.terms.goal, reference, len(tuning.dataset.validation), tuning.top
    )
    tuning.display.line(f"at full length: {', '.join(f'trial {trial.number}' for trial in best)}, and the control")
    finalists: list[Finalist] = []
    for trial in best:
        values = trial.user_attrs["values"]
        architecture = space.architecture(values)
        words = "-".join(str(value) for value in architecture.values())
        name = f"control-{words}" if words else "control"
        if name not in [finalist.name for finalist in finalists]:
            finalists.append(_finalist(tuning, name, None, space.control(architecture)))
        control = [finalist.name for finalist in finalists].index(name)
        made = _finalist(tuning, f"trial{trial.number}", trial, space.with_values(values))
        finalists.append(Finalist(made.name, trial, made.recipe, made.runs, made.reports, control))
    tuning.phases["final runs"] = time.monotonic() - started
    return finalists


def _finalist(tuning: Tuning, name: str, trial: FrozenTrial | None, recipe: Recipe) -> Finalist:
    runs, reports = [], []
    for seed in tuning.final_seeds:
        tuning.display.stage(f"final run: {name}, seed {seed}")
        runs.append(tuning.train(recipe, seed, tuning.folder / "final" / f"{name}-seed{seed}"))
        reports.append(tuning.measure(runs[-1], tuning.dataset.validation))
    return Finalist(name, trial, recipe, runs, reports)


@dataclass(frozen=True)
class Chosen:
    """The winner, why, and how the finalists compare on the validation split."""

    finalist: Finalist
    control: Finalist
    rule: str
    table: list[dict[str, Any]]

    @property
    def recipe(self) -> Recipe:
        """To be trained."""
        return self.finalist.recipe


def _choose(tuning: Tuning, finalists: Sequence[Finalist]) -> Chosen:
    rows = []
    for finalist in finalists:
        control = finalists[finalist.control]
        arms = [Arm("control", [{"typical": r} for r in control.reports])]
        arms += [] if finalist.trial is None else [Arm(finalist.name, [{"typical": r} for r in finalist.reports])]
        row = closing_table(arms)[-1]
        number = None if finalist.trial is None else finalist.trial.number
        keys = ("accuracy", "learned_invariance", "js")
        rows.append({"name": finalist.name, "number": number, **{key: row[key] for key in keys}})
    winner, rule = decide(rows, tuning.terms.goal)
    for k, row in enumerate(rows):
        row["chosen"] = k == winner
    chosen = finalists[winner]
    tuning.display.line(f"chosen    {chosen.name}, {rule}")
    return Chosen(chosen, finalists[chosen.control], rule, rows)


def decide(rows: Sequence[Mapping[str, Any]], goal: Goal) -> tuple[int, str]:
    """Which of the retrained trials is best, by the lower ends of their intervals, and the rule in words.

    ``rows`` have ``number`` (None for a control), ``accuracy`` and ``learned_invariance`` (`Estimate`s over seeds).
    """
    tried = [k for k, row in enumerate(rows) if row["number"] is not None]

    def low(k: int, key: str) -> float:
        estimate: Estimate = rows[k][key]
        return estimate.low if estimate.defined else float("-inf")

    if goal.mode == "pareto":
        bar = max(low(k, "accuracy") for k in range(len(rows)))
        near = [k for k in tried if rows[k]["accuracy"].high >= bar] or tried
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


def _dose_response(tuning: Tuning, chosen: Chosen) -> list[dict[str, Any]]:
    started = time.monotonic()
    seed, validation, name = tuning.final_seeds[0], tuning.dataset.validation, chosen.finalist.name
    reports = {0.0: chosen.control.reports[0], 1.0: chosen.finalist.reports[0]}
    for strength in STRENGTHS:
        tuning.display.stage(f"dose-response: strength {strength:g}")
        policy = chosen.recipe.policy.model_copy(update={"strength": strength * chosen.recipe.policy.strength})
        folder = tuning.folder / "dose" / f"{name}-strength{strength:g}-seed{seed}"
        run = tuning.train(chosen.recipe.replaced(policy=policy), seed, folder)
        reports[strength] = tuning.measure(run, validation)
    tuning.phases["dose-response"] = time.monotonic() - started
    return [
        {
            "strength": strength,
            "accuracy": report.accuracy,
            "learned_invariance": Estimate(0.0, 0.0, 0.0)
            if strength == 0
            else learned_invariance(report, reports[0.0]),
        }
        for strength, report in sorted(reports.items())
    ]


def _test(tuning: Tuning, control: Finalist, chosen: Chosen) -> list[Arm]:
    started = time.monotonic()
    sets = open_test_sets(tuning.dataset)
    arms = []
    for name, several in (("control", chosen.control.runs), ("best", chosen.finalist.runs)):
        reports = []
        for trained in several:
            tuning.display.stage(f"test split: {name}, seed {trained.seed}")
            reports.append(
                {key: tuning.measure(trained, images, curve=key == "typical") for key, images in sets.items()}
            )
        arms.append(Arm(name, reports))
    tuning.phases["test split"] = time.monotonic() - started
    return arms


def _results(
    tuning: Tuning,
    finalists: Sequence[Finalist],
    chosen: Chosen,
    dose: list[dict[str, Any]],
    arms: list[Arm],
) -> dict[str, Any]:
    recipe, trial = tuning.recipe, chosen.finalist.trial
    table = closing_table(arms)
    assert trial is not None
    measured = arms[0].on("typical")[0].settings
    return {
        "conclusion": conclusion(table, "best", recipe.invariance.max_shift),
        "chosen": {
            "number": trial.number,
            "rule": chosen.rule,
            "policy": str(chosen.recipe.policy),
            "fields": chosen.recipe.policy.model_dump(),
            "values": trial.user_attrs["values"],
        },
        "finalists": chosen.table,
        "table": table,
        "response": {arm.name: response_curve(arm) for arm in arms},
        "dose_response": dose,
        **outcome(tuning.study, tuning.terms, trial.number),
        "settings": {
            "name": recipe.name,
            "trials": len(search.finished(tuning.study)),
            "trial_epochs": tuning.terms.epochs,
            "goal": tuning.terms.goal.model_dump(),
            "sampler": tuning.terms.sampler,
            "epochs": recipe.train.epochs,
            "seeds": tuning.seeds,
            "final_seeds": tuning.final_seeds,
            **{key: measured[key] for key in ("protocol", "kernel", "max_shift", "pairs")},
            "device": str(tuning.device),
        },
        "environment": environment(),
    }
