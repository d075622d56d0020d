"""Final runs: train the best trials and their controls at full length with new seeds, and choose the winner.

Functions are in the order in which they run. `augkit.tune.conclusion` then measures the networks on the test split.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial

from augkit.augment.policy import changes_nothing
from augkit.core.progress import Display
from augkit.data import Dataset, Images
from augkit.invariance import InvarianceReport
from augkit.measure.comparison import TYPICAL, RunGroup, closing_table
from augkit.train.evaluate import measure_model
from augkit.train.loop import fit
from augkit.train.recipe import Recipe
from augkit.train.run import Run
from augkit.tune import optuna_study, selection
from augkit.tune.budget import measuring_cost
from augkit.tune.selection import FinalistRow, decide
from augkit.tune.space import Space

STRENGTHS = (0.25, 0.5, 0.75)
CURVE_POINTS = 8


@dataclass
class TuneContext:
    """Inputs of all steps of a tuning.

    Attributes:
        study: Optuna study of the search.
        terms: terms of the search.
        folder: output folder of the tuning; final runs are in its ``final/`` and ``dose/``.
        seeds: number of final runs of each recipe.
        top: number of trials to retrain.
        device: device for training and measuring.
        dataset: data of the recipe.
        display: progress display.
        phases: seconds by phase, added when a phase ends.
    """

    study: optuna.Study
    terms: optuna_study.SearchTerms
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
        """The recipe given to the command."""
        return self.space.recipe

    @property
    def final_seeds(self) -> list[int]:
        """Seeds of the final runs; the search did not use them, so that its choice of lucky runs does not bias them."""
        return [self.recipe.seed + 1 + k for k in range(self.seeds)]

    @property
    def lengths(self) -> list[float]:
        """Lengths of the shifts (pixels) in the response curve."""
        return [self.recipe.invariance.max_shift * (k + 1) / CURVE_POINTS for k in range(CURVE_POINTS)]

    def train(self, recipe: Recipe, seed: int, output: Path) -> Run:
        """Train one run; resume or load it if ``output`` already holds it."""
        trained = [0]

        def on_epoch(row: Any) -> None:
            trained[0] += 1
            self.display.advance(1)

        run = fit(recipe, seed, output=output, resume=True, device=self.device, dataset=self.dataset, on_epoch=on_epoch)
        self.display.skip(recipe.train.epochs - trained[0])
        return run

    def measure(self, run: Run, images: Images, *, curve: bool = False) -> InvarianceReport:
        """Measure a run on images, with the response curve if ``curve`` is true."""
        lengths = self.lengths if curve else []
        report = measure_model(run.model, run.recipe, images, lengths=lengths, device=self.device)
        self.display.advance(measuring_cost(self.recipe, len(images), len(self.dataset.listed_train), len(lengths)))
        return report

    def work(self) -> float:
        """Cost of all steps after the search, in epochs of training."""
        validation, epochs = len(self.dataset.validation), self.recipe.train.epochs
        # If fields that matter to a control are searched, each finalist has its own control beside the best control.
        controls = 2 + self.top if self.space.searches_training else 1
        runs = (controls + self.top) * self.seeds

        def cost(images: int, lengths: int = 0) -> float:
            return measuring_cost(self.recipe, images, len(self.dataset.listed_train), lengths)

        # The test split must stay closed here. For the progress bar, assume twice the size of the validation split.
        networks = runs + len(STRENGTHS)
        tested = networks * 4 * cost(2 * validation) + 2 * self.seeds * cost(2 * validation, CURVE_POINTS)
        return networks * (epochs + cost(validation)) + tested


@dataclass(frozen=True)
class Finalist:
    """A recipe trained at full length, one run per seed, measured on the validation split.

    Attributes:
        name: name of its run folders.
        recipe: the recipe with all searched values.
        runs, reports: one per seed.
        trial: the trial that gave the values; None for a control.
        own: name of the control that differs from the recipe in the policy alone.
        reference: name of the best control found, with which the search compared trials.
    """

    name: str
    recipe: Recipe
    runs: list[Run]
    reports: list[InvarianceReport]
    trial: FrozenTrial | None = None
    own: str = ""
    reference: str = ""


Finalists = dict[str, Finalist]


def retrain(tuning: TuneContext) -> Finalists:
    """Train and measure the best trials, each after its controls; return all finalists by name, controls included."""
    started = time.monotonic()
    study, space, terms = tuning.study, tuning.space, tuning.terms
    best = selection.best_trials(study, space, terms.goal, len(tuning.dataset.validation), tuning.top)
    tuning.display.line(f"at full length: {', '.join(f'trial {trial.number}' for trial in best)}, and the control")
    found: Finalists = {}

    def control(name: str, values: Mapping[str, Any]) -> str:
        """Train the control with these values unless an equal one is trained already; return its name."""
        recipe = space.control(values)
        same = [known.name for known in found.values() if known.trial is None and known.recipe == recipe]
        if not same:
            found[name] = _finalist(tuning, name, recipe)
        return same[0] if same else name

    for trial in best:
        values = trial.user_attrs["values"]
        architecture = space.architecture(values)
        words = "-".join(["control", *(str(value) for value in architecture.values())])
        control(words, architecture)
        reference_name = control(f"{words}-tuned", terms.control_values(architecture))
        name, recipe = f"trial{trial.number}", space.with_values(values)
        # A trial that does not augment is its own control.
        own = reference_name if changes_nothing(recipe.policy) else control(f"{name}-control", values)
        found[name] = replace(_finalist(tuning, name, recipe), trial=trial, own=own, reference=reference_name)
    tuning.phases["final runs"] = time.monotonic() - started
    return found


def _finalist(tuning: TuneContext, name: str, recipe: Recipe) -> Finalist:
    runs, reports = [], []
    for seed in tuning.final_seeds:
        tuning.display.stage(f"final run: {name}, seed {seed}")
        runs.append(tuning.train(recipe, seed, tuning.folder / "final" / f"{name}-seed{seed}"))
        reports.append(tuning.measure(runs[-1], tuning.dataset.validation))
    return Finalist(name, recipe, runs, reports)


@dataclass(frozen=True)
class Choice:
    """The winner with its controls, and the measurements of all finalists on the validation split.

    Attributes:
        finalist: the winner.
        plain: the recipe of the command without augmentation.
        own: the control that differs from the winner in the policy alone; the best control if the winner does not
            augment.
        reference: the best control found.
        rule: description of the rule by which the winner was chosen.
        table: one row per finalist.
    """

    finalist: Finalist
    plain: Finalist
    own: Finalist
    reference: Finalist
    rule: str
    table: list[FinalistRow]

    @property
    def recipe(self) -> Recipe:
        """The recipe of the winner."""
        return self.finalist.recipe

    @property
    def augmented(self) -> bool:
        """Whether the chosen recipe augments at all."""
        return not changes_nothing(self.recipe.policy)


def choose(tuning: TuneContext, finalists: Finalists) -> Choice:
    """Choose the winner among the finalists, by accuracy and by learned invariance against the best control."""
    rows = []
    for finalist in finalists.values():
        control = finalists[finalist.reference] if finalist.trial is not None else finalist
        arms = [RunGroup("control", [{TYPICAL: r} for r in control.reports])]
        arms += [] if finalist.trial is None else [RunGroup(finalist.name, [{TYPICAL: r} for r in finalist.reports])]
        row = closing_table(arms)[-1]
        number = None if finalist.trial is None else finalist.trial.number
        keys = ("accuracy", "learned_invariance", "shift_information", "comparison", "per_seed")
        rows.append(FinalistRow(finalist.name, number, **{key: row[key] for key in keys}))
    best, rule = decide(rows, tuning.terms.goal)
    rows[best] = replace(rows[best], chosen=True)
    chosen = finalists[rows[best].name]
    tuning.display.line(f"chosen    {chosen.name}, {rule}")
    plain = next(iter(finalists.values()))
    return Choice(chosen, plain, finalists[chosen.own], finalists[chosen.reference], rule, rows)


@dataclass(frozen=True)
class DosePoint:
    """The chosen recipe at one strength of its policy, with the first of the final seeds.

    Attributes:
        strength: share of the policy's own strength.
        report: measurements on the validation split.
        run: trained network; None at strengths 0 and 1, whose networks are among the finalists.
    """

    strength: float
    report: InvarianceReport
    run: Run | None = None


def dose_response(tuning: TuneContext, chosen: Choice) -> list[DosePoint]:
    """Train and measure the chosen policy at several strengths; an empty list if it does not augment."""
    if not chosen.augmented:
        return []
    started = time.monotonic()
    seed, validation, name = tuning.final_seeds[0], tuning.dataset.validation, chosen.finalist.name
    found = [DosePoint(0.0, chosen.own.reports[0])]
    for strength in STRENGTHS:
        tuning.display.stage(f"dose-response: strength {strength:g}")
        policy = chosen.recipe.policy.model_copy(update={"strength": strength * chosen.recipe.policy.strength})
        folder = tuning.folder / "dose" / f"{name}-strength{strength:g}-seed{seed}"
        run = tuning.train(chosen.recipe.replaced(policy=policy), seed, folder)
        found.append(DosePoint(strength, tuning.measure(run, validation), run))
    tuning.phases["dose-response"] = time.monotonic() - started
    return [*found, DosePoint(1.0, chosen.finalist.reports[0])]
