"""The worker of a search: it trains and measures the recipe of each trial and records how far it is from the bounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial, TrialState

from augkit.core.errors import RunError
from augkit.core.jobs.heartbeat import BEAT, PROCESS
from augkit.core.jobs.retry import RETRY_OF, PostponeJob, SkipJob, frozen
from augkit.core.jobs.worker import GiveUpError, Worker
from augkit.data import Dataset, Images, atypical
from augkit.invariance import InvarianceReport, learned_invariance, unsaid
from augkit.train.evaluate import measure_model
from augkit.train.history import EpochRow, OnEpoch
from augkit.train.loop import fit
from augkit.train.recipe import Recipe
from augkit.train.run import Run
from augkit.tune import optuna_study
from augkit.tune.budget import measuring_cost
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import ControlScores, SearchTerms
from augkit.tune.space import Space

OWN = (
    "worker",
    "preset",
    "seconds",
    BEAT,
    PROCESS,
    RETRY_OF,
)  # attributes that are not copied to a trial with the same values


@dataclass
class TrialWorker(Worker):
    """Runs trials of a study until the wanted number has finished.

    Attributes:
        study: Optuna study of the search.
        terms: terms of the search.
        dataset: data of the recipe; the test split is not opened.
        device: device for training and measuring.
        folder: folder for the runs of controls and trials; None keeps none.
        keep: also keep the runs of trials, in ``trials/STUDY-NUMBER``.
        processes: processes per trial, started by torchrun.
        lengths: lengths of the shifts (pixels) in the response curve of a trial.
        on_trial: called after training with the trial, its recipe and its report (None if it was pruned), before the
            result is stored in the study.
    """

    jobs = "trials"

    terms: SearchTerms
    dataset: Dataset
    device: torch.device
    folder: Path | None = None
    keep: bool = False
    processes: int = 1
    lengths: Sequence[float] = ()
    on_trial: Callable[[optuna.Trial, Recipe, InvarianceReport | None], None] = lambda trial, recipe, report: None

    def __post_init__(self) -> None:
        self.space = Space.from_dict(self.terms.space)
        self.validation = self.dataset.validation
        self.sets: dict[str, Images] = {"typical": self.validation}
        if self.terms.goal.atypical:
            self.sets |= atypical(self.validation, seed=self.terms.seed, data=self.dataset.name)
        optuna_study.equip(self.study, self.terms, self.index)

    def is_done(self) -> bool:
        """Whether the wanted number of trials has finished and every control is measured."""
        return optuna_study.done(self.study) and not self._missing_controls()

    def has_job(self) -> bool:
        """Whether a trial should be started; while a control is missing, only a control may start.

        Raises:
            RunError: a control is missing and no trial that would train it is running or waiting.
        """
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
        controls = {t.user_attrs["control"]: t.state for t in trials if "control" in t.user_attrs}
        missing = (
            self._missing_controls()
        )  # read after the trials, so that a control that ended in between is not missing
        if lost := missing - controls.keys():
            raise RunError(f"the {min(lost)} could not be trained, so there is nothing to measure invariance against")
        return TrialState.WAITING in controls.values() if missing else optuna_study.open_places(self.study)

    def _missing_controls(self) -> set[str]:
        keys = {optuna_study.control_key(architecture) for architecture in self.space.architectures()}
        return keys - set(self.study.user_attrs)

    def work(self, trial: optuna.Trial) -> float | Sequence[float]:
        """Run one trial or control; return its objective, or the list of its objectives."""
        control = trial.user_attrs.get("control")
        if control is not None:
            return self._control(trial, control)
        if not optuna_study.has_place(self.study, trial.number):
            raise SkipJob
        if self._missing_controls():
            raise PostponeJob  # the retry of an interrupted control is queued behind the first trials
        values = self.space.suggest(trial)
        trial.set_user_attr("values", values)
        finished = optuna_study.finished(self.study)
        twin = next((t for t in finished if t.user_attrs.get("values") == values), None)
        if twin is not None:
            return self._as(trial, twin)
        reference = self.study.user_attrs[optuna_study.control_key(self.space.architecture(values))]
        began, recipe = time.monotonic(), self._budgeted(self.space.with_values(values))
        self.events.stage(f"trial {trial.number}, {len(finished) + 1} of {self.study.user_attrs['trials']}")
        try:
            report, found = self.score(trial, recipe, reference)
        except optuna.TrialPruned:
            trial.set_user_attr("seconds", time.monotonic() - began)
            self.on_trial(trial, recipe, None)
            raise
        found["seconds"] = time.monotonic() - began
        self._judge(trial, found, reference)
        self.on_trial(trial, recipe, report)
        return [found[name] for name in self.terms.goal.objectives]

    def _judge(self, trial: optuna.Trial, found: Mapping[str, Any], reference: ControlScores) -> None:
        """Store the scores of a trial and its distance from each bound; above 0 violates the bound."""
        chance, terms = 1 / len(self.dataset.classes), self.terms
        least = {
            "accuracy": chance + terms.floor * (reference["accuracy"] - chance),
            "kappa": terms.floor * reference["kappa"],
        }
        bounds = {key: low - self._error(found[key]) - found[key] for key, low in least.items()}
        if terms.goal.at_least is not None:
            bounds["at_least"] = terms.goal.shortfall(found)
        _note(trial, {**found, "bounds": bounds})

    def _error(self, share: float) -> float:
        """Two binomial standard errors of a share of the validation images; a smaller shortfall is not significant."""
        inside = min(1.0, max(0.0, share))
        return 2 * float((inside * (1 - inside) / len(self.validation)) ** 0.5)

    def _as(self, trial: optuna.Trial, twin: FrozenTrial) -> float | Sequence[float]:
        """Copy the result of a trial with the same values."""
        shared = {key: value for key, value in twin.user_attrs.items() if key not in OWN}
        _note(trial, {**shared, "same_as": twin.number, "seconds": 0.0})
        if self.terms.goal.prunes:
            for epoch, value in twin.intermediate_values.items():
                trial.report(value, epoch)
        self.events.work(trial_cost(self.terms, self.space.recipe, self.dataset))
        if twin.state == TrialState.PRUNED:
            raise optuna.TrialPruned
        return list(twin.values)

    def _control(self, trial: optuna.Trial, key: str) -> float | Sequence[float]:
        """Train and measure a control, the reference for learned invariance; it does not count as a trial."""
        architecture = dict(next(a for a in self.space.architectures() if optuna_study.control_key(a) == key))
        self.events.stage("control, not augmented")
        began, recipe = time.monotonic(), self._budgeted(self.space.control(self.terms.control_values(architecture)))
        found = self.score_control(recipe, trial.number)
        found |= {"number": trial.number, "epochs": recipe.train.epochs, "seconds": time.monotonic() - began}
        trial.set_user_attr("architecture", architecture)
        self.study.set_user_attr(key, found)
        own = frozen(self.study, trial.number)
        if not (own.params or own.system_attrs.get("fixed_params")):
            raise SkipJob  # the space has no point without augmentation, so the sampler must not see a result
        self.space.suggest(trial)
        scores = {"accuracy": found["accuracy"], "learned_invariance": 0.0, "atypical_invariance": 0.0}
        beside = {"kappa": found["kappa"], "shift_information": found["shift_information"]["typical"]}
        self._judge(trial, {**scores, **beside}, found)
        return [scores[name] for name in self.terms.goal.objectives]

    def score_control(self, recipe: Recipe, number: int) -> ControlScores:
        """Train and measure a control; return ``accuracy``, ``kappa`` and, by image set, ``shift_information``.

        Image sets on which the control's answers carry almost no information are left out.

        Raises:
            GiveUpError: training failed, or the variability of the control is too small to be a reference.
        """
        kept = self.folder / "controls" / f"{self.study.study_name}-{number}" if self.folder else None
        try:
            run = self._train(recipe, kept)
        except RunError as error:
            raise GiveUpError(f"the control could not be trained: {error}") from None
        reports = {name: self._measure(run, images) for name, images in self.sets.items()}
        typical = reports["typical"]
        if not learned_invariance(typical, typical).defined:
            raise GiveUpError(
                "the control's answers hardly vary under shift, so learned invariance is undefined; "
                "train longer (train.epochs) or measure larger shifts (invariance.max_shift)"
            )
        said = {name: r.shift_information.value for name, r in reports.items() if not unsaid(r, typical)}
        if self.terms.goal.atypical and len(said) == 1:
            raise GiveUpError(
                "the control's answers carry almost no information about any atypical images; remove --atypical"
            )
        return {"accuracy": typical.accuracy.value, "kappa": typical.kappa.value, "shift_information": said}

    def score(
        self, trial: optuna.Trial, recipe: Recipe, reference: ControlScores
    ) -> tuple[InvarianceReport | None, dict[str, float]]:
        """Train and measure a trial; return its report, and its objectives, shift information, kappa and epochs."""
        goal = self.terms.goal

        def on_epoch(row: EpochRow) -> None:
            value = _along(goal, row, reference)
            if value is None:
                return
            trial.set_user_attr("epochs", row["epoch"])
            trial.report(value, row["epoch"])
            if row["epoch"] < recipe.train.epochs and trial.should_prune():
                raise optuna.TrialPruned

        kept = self.folder / "trials" / f"{self.study.study_name}-{trial.number}" if self.folder and self.keep else None
        run = self._train(recipe, kept, on_epoch if goal.prunes else None)
        report = self._measure(run, self.validation, self.lengths)
        found = {
            "accuracy": report.accuracy.value,
            "learned_invariance": 1 - _variability(report) / reference["shift_information"]["typical"],
            "shift_information": _variability(report),
            "kappa": report.kappa.value,
            "epochs": recipe.train.epochs,
        }
        if goal.atypical:
            its = {name: value for name, value in reference["shift_information"].items() if name != "typical"}
            learned = [1 - _variability(self._measure(run, self.sets[name])) / value for name, value in its.items()]
            found["atypical_invariance"] = sum(learned) / len(learned)
        return report, found

    def _budgeted(self, recipe: Recipe) -> Recipe:
        """The recipe with the epochs of a trial; measured after every epoch if the search prunes by the measurement."""
        every = 1 if self.terms.goal.prunes else recipe.train.evaluate_every
        along = 1 if self.terms.goal.mode == "invariance" else None
        train = {**recipe.train.model_dump(), "epochs": self.terms.epochs, "steps": None, "evaluate_every": every}
        invariance = {**recipe.invariance.model_dump(), "every": along}
        return recipe.replaced(train=train, invariance=invariance, seed=self.terms.seed)

    def _train(self, recipe: Recipe, output: Path | None, on_row: OnEpoch | None = None) -> Run:
        def on_epoch(row: EpochRow) -> None:
            self.events.work(1)
            self.events.epoch(dict(row), recipe.train.epochs)
            if on_row is not None:
                on_row(row)

        if self.processes > 1:
            from augkit.train.torchrun import fit_by_torchrun

            device = None if self.device.type == "cuda" else str(self.device)
            return fit_by_torchrun(recipe, output, self.processes, self.dataset, on_epoch, self.alive, device)
        return fit(
            recipe,
            output=output,
            resume=True,
            device=self.device,
            dataset=self.dataset,
            on_epoch=on_epoch,
            alive=self.alive,
        )

    def _measure(self, run: Run, images: Images, lengths: Sequence[float] = ()) -> InvarianceReport:
        def on_batch(done: int, of: int) -> None:
            self.alive()

        report = measure_model(run.model, run.recipe, images, lengths=lengths, device=self.device, on_batch=on_batch)
        self.events.work(measuring_cost(run.recipe, len(images), len(self.dataset.train), len(lengths)))
        return report


def trial_cost(terms: SearchTerms, recipe: Recipe, dataset: Dataset) -> float:
    """Cost of a trial, in epochs of training."""
    sets = 4 if terms.goal.atypical else 1
    return terms.epochs + sets * measuring_cost(recipe, len(dataset.validation), len(dataset.train))


def _note(trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
    """Store attributes of a trial, and its distances from the bounds also as Optuna's constraints."""
    for key, value in attributes.get("bounds", {}).items():
        trial.set_constraint(key, value)
    for key, value in attributes.items():
        trial.set_user_attr(key, value)


def _along(goal: Goal, row: EpochRow, reference: ControlScores) -> float | None:
    """The objective after this epoch; None if it was not measured."""
    if goal.mode == "accuracy":
        return row.get("validation_accuracy")
    moved = row.get("shift_information")
    if moved is None:
        return None
    return 1 - (1.0 if moved["value"] is None else moved["value"]) / reference["shift_information"]["typical"]


def _variability(report: InvarianceReport) -> float:
    """Shift information; its maximum, 1, where it is undefined because the answers carry no information."""
    found = report.shift_information
    return found.value if found.defined else 1.0
