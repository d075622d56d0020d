"""After the search: its best trials and their controls at full length with fresh seeds, and the winner.

Functions are in the order in which they run; what the winner is worth on the test split stands in
`augkit.tune.conclusion`.
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
from augkit.data import Dataset
from augkit.invariance import InvarianceReport
from augkit.measure.comparison import TYPICAL, RunGroup, closing_table
from augkit.train.evaluate import measure_model
from augkit.train.loop import fit
from augkit.train.recipe import Recipe
from augkit.train.run import Run
from augkit.tune import optuna_study, selection
from augkit.tune.budget import measuring_cost
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.selection import decide
from augkit.tune.space import Space

STRENGTHS = (0.25, 0.5, 0.75)
CURVE_POINTS = 8


@dataclass
class TuneContext:
    """What the steps after the search need.

    Attributes:
        folder: of the study; final runs go to ``final/`` and ``dose/`` in it.
        seeds: of the final runs of each recipe.
        top: trials that are retrained.
    """

    study: optuna.Study
    terms: SearchTerms
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
        report = measure_model(run.model, run.recipe, images, lengths=lengths, device=self.device)
        self.display.advance(measuring_cost(self.recipe, len(images), len(self.dataset.train), len(lengths)))
        return report

    def work(self) -> float:
        """What is ahead, in epochs of training."""
        validation, epochs = len(self.dataset.validation), self.recipe.train.epochs
        # With fields searched that a control has too, each finalist brings one of its own, and there is the best.
        controls = 2 + self.top if self.space.searches_training else 1
        runs = (controls + self.top) * self.seeds

        def cost(images: int, lengths: int = 0) -> float:
            return measuring_cost(self.recipe, images, len(self.dataset.train), lengths)

        # The test split is not opened to count it; that it is twice the validation split only moves the bar.
        networks = runs + len(STRENGTHS)
        tested = networks * 4 * cost(2 * validation) + 2 * self.seeds * cost(2 * validation, CURVE_POINTS)
        return networks * (epochs + cost(validation)) + tested


@dataclass(frozen=True)
class Finalist:
    """A recipe at full length, one run per seed, measured on the validation split.

    Attributes:
        name: of its folders.
        recipe: with all its values.
        runs, reports: one per seed.
        trial: that it comes from; None of a control.
        own: name of the control that differs from it in the policy alone.
        reference: name of the control that it was searched against: the best one that was found.
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
    """The recipe as it stands without augmentation, then the best trials, each after its controls."""
    started = time.monotonic()
    study, space, terms = tuning.study, tuning.space, tuning.terms
    reference = max(study.user_attrs[optuna_study.control_key(a)]["accuracy"] for a in space.architectures())
    best = selection.candidates(
        optuna_study.completed(study), terms.goal, reference, len(tuning.dataset.validation), tuning.top
    )
    tuning.display.line(f"at full length: {', '.join(f'trial {trial.number}' for trial in best)}, and the control")
    found: Finalists = {}

    def control(name: str, values: Mapping[str, Any]) -> str:
        """Train one, unless the very same was trained under another name."""
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
        # A trial that does not augment has nothing that its own control would lack.
        own = reference_name if changes_nothing(recipe.policy) else control(f"{name}-control", values)
        made = _finalist(tuning, name, recipe)
        found[name] = replace(made, trial=trial, own=own, reference=reference_name)
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
class Chosen:
    """The winner, its controls, why, and how the finalists compare on the validation split.

    Attributes:
        finalist: the winner.
        plain: the recipe as it stands, without augmentation.
        own: differs from the winner in the policy alone; the best control where the winner does not augment.
        reference: the best control that was found.
        rule: by which it was chosen.
        table: the finalists, as JSON.
    """

    finalist: Finalist
    plain: Finalist
    own: Finalist
    reference: Finalist
    rule: str
    table: list[dict[str, Any]]

    @property
    def recipe(self) -> Recipe:
        """To be trained."""
        return self.finalist.recipe

    @property
    def augmented(self) -> bool:
        """Whether the winner augments at all."""
        return not changes_nothing(self.recipe.policy)


def choose(tuning: TuneContext, finalists: Finalists) -> Chosen:
    """The winner among the retrained trials, by learned invariance against the best control and by accuracy."""
    rows = []
    for finalist in finalists.values():
        control = finalists[finalist.reference] if finalist.trial is not None else finalist
        arms = [RunGroup("control", [{TYPICAL: r} for r in control.reports])]
        arms += [] if finalist.trial is None else [RunGroup(finalist.name, [{TYPICAL: r} for r in finalist.reports])]
        row = closing_table(arms)[-1]
        number = None if finalist.trial is None else finalist.trial.number
        keys = ("accuracy", "learned_invariance", "shift_information", "comparison", "per_seed")
        rows.append({"name": finalist.name, "number": number, **{key: row[key] for key in keys}})
    winner, rule = decide(rows, tuning.terms.goal)
    for k, row in enumerate(rows):
        row["chosen"] = k == winner
    chosen = finalists[rows[winner]["name"]]
    tuning.display.line(f"chosen    {chosen.name}, {rule}")
    plain = next(iter(finalists.values()))
    return Chosen(chosen, plain, finalists[chosen.own], finalists[chosen.reference], rule, rows)


@dataclass(frozen=True)
class Dose:
    """The winner at one strength, with the first of the final seeds; ``run`` is None at both ends, trained before."""

    strength: float
    report: InvarianceReport
    run: Run | None = None


def dose_response(tuning: TuneContext, chosen: Chosen) -> list[Dose]:
    """The winner's policy at several strengths; none where it does not augment."""
    if not chosen.augmented:
        return []
    started = time.monotonic()
    seed, validation, name = tuning.final_seeds[0], tuning.dataset.validation, chosen.finalist.name
    found = [Dose(0.0, chosen.own.reports[0])]
    for strength in STRENGTHS:
        tuning.display.stage(f"dose-response: strength {strength:g}")
        policy = chosen.recipe.policy.model_copy(update={"strength": strength * chosen.recipe.policy.strength})
        folder = tuning.folder / "dose" / f"{name}-strength{strength:g}-seed{seed}"
        run = tuning.train(chosen.recipe.replaced(policy=policy), seed, folder)
        found.append(Dose(strength, tuning.measure(run, validation), run))
    tuning.phases["dose-response"] = time.monotonic() - started
    return [*found, Dose(1.0, chosen.finalist.reports[0])]
