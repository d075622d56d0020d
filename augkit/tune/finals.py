"""Final runs: train the best trials and their controls at full length with new seeds, and choose the winner.

Functions are in the order in which they run. `augkit.tune.conclusion` then measures the networks on the test split.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
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
from augkit.measure.comparison import TYPICAL, Reports, RunGroup, closing_table
from augkit.train.recipe import Recipe
from augkit.tune import optuna_study, selection
from augkit.tune.budget import measuring_cost, trial_cost
from augkit.tune.final_jobs import FinalJob
from augkit.tune.selection import FinalistRow, decide
from augkit.tune.space import Space
from augkit.tune.team import ATYPICAL, VALIDATION, Team, TeamData, team_size

STRENGTHS = (0.5,)  # beside 0 and 1, whose networks are among the finalists; each is one more network
CURVE_POINTS = 8
CONTROL = "control"  # name of the final runs of a control, followed by its architecture


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
        processes: processes that train networks; None takes `augkit.tune.team.team_size`.
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
    processes: int | None = None
    phases: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.space: Space = self.terms.open_space()
        self.data = TeamData(self.dataset)

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

    def team(self) -> Team:
        """The processes that train networks; a context manager."""
        trials, runs = int(self.study.user_attrs["trials"]), (1 + self.top) * self.seeds
        epochs = trials * trial_cost(self.terms, self.recipe, self.dataset) + runs * self.recipe.train.epochs
        shown = round(epochs * len(self.dataset.listed_train))
        count = self.processes or team_size(self.device, max(trials, runs), shown)
        return Team(self.recipe, self.data, self.device, count)

    def sure_jobs(self) -> list[FinalJob]:
        """Final runs that are needed whatever the search finds: the control's, where it has one architecture."""
        if self.space.architectures() != [{}]:
            return []
        control = self.space.control({})
        return [FinalJob(CONTROL, control, seed, self.final_folder(CONTROL, seed)) for seed in self.final_seeds]

    def final_folder(self, name: str, seed: int) -> Path:
        """Folder of a final run."""
        return self.folder / "final" / f"{name}-seed{seed}"

    def perform(self, jobs: Sequence[FinalJob], team: Team, stage: str) -> list[Reports]:
        """Train and measure networks, show the progress, and return their reports; ``stage`` says what is done."""
        trained = [0]

        def begun(job: FinalJob) -> None:
            self.display.stage(f"{stage}: {job.name}, seed {job.seed}")

        def on_epoch(row: Any) -> None:
            trained[0] += 1
            self.display.advance(1)

        def done(job: FinalJob, here: bool) -> None:
            measuring = sum(self._cost(name, job.lengths) for name in job.sets)
            self.display.advance(measuring)
            if VALIDATION in job.sets:
                self.display.skip(job.recipe.train.epochs - (trained[0] if here else 0))
            trained[0] = 0 if here else trained[0]

        return team.run(jobs, begun=begun, done=done, on_epoch=on_epoch)

    def _cost(self, images: str, lengths: Sequence[float]) -> float:
        """Cost of measuring a network on an image set, in epochs of training."""
        # The test split must stay closed until all is chosen. For the progress bar, assume twice the validation split.
        typical = 2 * len(self.dataset.validation)
        count = {VALIDATION: typical / 2, TYPICAL: typical}.get(images, ATYPICAL * typical)
        shown = len(lengths) if images == TYPICAL else 0
        return measuring_cost(self.recipe, count, len(self.dataset.listed_train), shown)

    def work(self) -> float:
        """Cost of all steps after the search, in epochs of training."""
        # If fields that matter to a control are searched, each finalist has its own control beside the best control.
        controls = 2 + self.top if self.space.searches_training else 1
        networks = (controls + self.top) * self.seeds + len(STRENGTHS)
        tested = self._cost(TYPICAL, self.lengths) + 3 * self._cost("atypical", ())
        return networks * (self.recipe.train.epochs + self._cost(VALIDATION, ()) + tested)


@dataclass(frozen=True)
class Finalist:
    """A recipe trained at full length, one run per seed, measured on the validation split.

    Attributes:
        name: name of its run folders.
        recipe: the recipe with all searched values.
        runs, reports: one per seed; the network of a run is in its folder.
        trial: the trial that gave the values; None for a control.
        own: name of the control that differs from the recipe in the policy alone.
        reference: name of the best control found, with which the search compared trials.
    """

    name: str
    recipe: Recipe
    runs: list[FinalJob] = field(default_factory=list)
    reports: list[InvarianceReport] = field(default_factory=list)
    trial: FrozenTrial | None = None
    own: str = ""
    reference: str = ""


Finalists = dict[str, Finalist]


def retrain(tuning: TuneContext, team: Team) -> Finalists:
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
            found[name] = Finalist(name, recipe)
        return same[0] if same else name

    for trial in best:
        values = trial.user_attrs["values"]
        architecture = space.architecture(values)
        words = "-".join([CONTROL, *(str(value) for value in architecture.values())])
        control(words, architecture)
        reference_name = control(f"{words}-tuned", terms.control_values(architecture))
        name, recipe = f"trial{trial.number}", space.with_values(values)
        # A trial that does not augment is its own control.
        own = reference_name if changes_nothing(recipe.policy) else control(f"{name}-control", values)
        found[name] = Finalist(name, recipe, trial=trial, own=own, reference=reference_name)
    for finalist in found.values():
        for seed in tuning.final_seeds:
            folder = tuning.final_folder(finalist.name, seed)
            finalist.runs.append(FinalJob(finalist.name, finalist.recipe, seed, folder))
    jobs = [job for finalist in found.values() for job in finalist.runs]
    measured = iter(tuning.perform(jobs, team, "final run"))
    for finalist in found.values():
        finalist.reports.extend(next(measured)[VALIDATION] for _ in finalist.runs)
    tuning.phases["final runs"] = time.monotonic() - started
    return found


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
    """

    strength: float
    report: InvarianceReport


def dose_jobs(tuning: TuneContext, chosen: Choice) -> dict[float, FinalJob]:
    """By strength, the networks of the chosen policy at strengths below its own; empty if it does not augment."""
    seed, found = tuning.final_seeds[0], {}
    for strength in STRENGTHS if chosen.augmented else ():
        policy = chosen.recipe.policy.model_copy(update={"strength": strength * chosen.recipe.policy.strength})
        name = f"{chosen.finalist.name} at strength {strength:g}"
        folder = tuning.folder / "dose" / f"{chosen.finalist.name}-strength{strength:g}-seed{seed}"
        found[strength] = FinalJob(name, chosen.recipe.replaced(policy=policy), seed, folder)
    return found


def dose_response(chosen: Choice, between: Mapping[float, InvarianceReport]) -> list[DosePoint]:
    """The points from no augmentation to the chosen policy; an empty list if it does not augment."""
    if not chosen.augmented:
        return []
    middle = [DosePoint(strength, report) for strength, report in between.items()]
    return [DosePoint(0.0, chosen.own.reports[0]), *middle, DosePoint(1.0, chosen.finalist.reports[0])]
