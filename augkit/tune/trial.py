"""The worker of a search: it trains and measures the recipe of each trial and records how far it is from the bounds."""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from augkit.train.checkpoint import FILE
from augkit.train.history import EpochRow, OnEpoch
from augkit.train.recipe import Recipe
from augkit.tune import halving, optuna_study
from augkit.tune.budget import FEW, SearchData, measuring_cost, one_pair, trial_cost
from augkit.tune.fork import ForkPoint, ForkTraining
from augkit.tune.halving import PLACE
from augkit.tune.optuna_study import CONFIGURATION, MEASURING, START, ControlScores, SearchTerms, rung_of
from augkit.tune.rung_sampler import RungSampler
from augkit.tune.search_jobs import Searched, SearchJob
from augkit.tune.space import Space, Value
from augkit.tune.training import RecipeTraining, Training

# Attributes that are not copied to a trial with the same values.
OWN = ("worker", "preset", "seconds", "trained", MEASURING, START, CONFIGURATION, PLACE, BEAT, PROCESS, RETRY_OF)


@dataclass
class TrialWorker(Worker):
    """Runs trials of a study until the wanted number has finished.

    Attributes:
        study: Optuna study of the search.
        terms: terms of the search.
        dataset: data of the recipe; the test split is not opened.
        device: device for training and measuring.
        folder: folder for the runs of controls and trials; None keeps none. With rungs, ``rungs/STUDY-CONFIGURATION``
            holds the checkpoint from which a configuration goes on, unless another worker's can be read from here.
        keep: also keep the runs of trials, in ``trials/STUDY-NUMBER``.
        processes: processes per trial, started by torchrun.
        training: how configurations are trained; None trains recipes with `augkit.fit`.
        lengths: lengths of the shifts (pixels) in the response curve of a trial.
        on_trial: called after training with the trial, its recipe and its report (None if it was pruned), before the
            result is stored in the study.
    """

    jobs = "trials"

    terms: SearchTerms
    dataset: SearchData
    device: torch.device
    folder: Path | None = None
    keep: bool = False
    processes: int = 1
    training: Training | None = None
    lengths: Sequence[float] = ()
    on_trial: Callable[[optuna.Trial, Recipe, InvarianceReport | None], None] = lambda trial, recipe, report: None

    def __post_init__(self) -> None:
        self.space = Space.from_dict(self.terms.space)
        self.validation = self.dataset.validation
        self._fork_epochs = 0  # so far
        self._early: str | None = None  # attribute of the study for scores of a control that is still trained
        self._training = self.training or self._of_recipes()
        self.sets: dict[str, Images] = {"typical": self.validation}
        if self.terms.goal.atypical:
            self.sets |= atypical(self.validation, seed=self.terms.seed, data=self.dataset.name)
        optuna_study.equip(self.study, self.terms, self.index)
        if self.terms.rungs and self.terms.sampler in halving.LEARNS:
            self.study.sampler = RungSampler(self.study.sampler, self.terms)

    def _of_recipes(self) -> Training:
        assert isinstance(self.dataset, Dataset)
        plain = self.dataset, self.device, self.processes
        if not self.terms.fork:
            return RecipeTraining(*plain)
        self._fork = ForkPoint.of(self.study, self.terms, self.folder, self._on_fork_epoch)
        return ForkTraining(*plain, point=self._fork)

    def _on_fork_epoch(self, row: EpochRow) -> None:
        self._fork_epochs += 1
        self.events.work(1)
        self.events.epoch(dict(row), self.terms.fork)

    def is_done(self) -> bool:
        """Whether the wanted number of trials has finished and every control is measured."""
        return halving.done(self.study, self.terms) and not self._missing_controls()

    def has_job(self) -> bool:
        """Whether a trial should be started; only a control until all controls are trained or being trained.

        Raises:
            RunError: a control is missing and no trial that would train it is running or waiting.
        """
        trials = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING))
        controls = {t.user_attrs["control"]: t.state for t in trials if "control" in t.user_attrs}
        missing = self._missing_controls()  # after the trials: a control that ended in between is not missing
        if lost := missing - controls.keys():
            raise RunError(f"the {min(lost)} could not be trained, so there is nothing to measure invariance against")
        return halving.has_job(self.study, self.terms) if self._can_start() else TrialState.WAITING in controls.values()

    def _can_start(self) -> bool:
        """Whether every control has scores on the lowest rung, or a worker trains it while trials are trained, too."""
        ahead = self._running_controls() if self._trains_ahead else set()
        later = [a for a in self.space.architectures() if halving.reference_on(self.study, a, 0) is None]
        return ahead.issuperset(map(optuna_study.control_key, later))

    def _running_controls(self) -> set[str | None]:
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return {trial.user_attrs.get("control") for trial in running}

    @property
    def _trains_ahead(self) -> bool:
        """Whether a trial needs no more of its control than scores, once it is trained itself."""
        return isinstance(self._training, RecipeTraining) and not self.terms.fork

    def _missing_controls(self) -> set[str]:
        keys = {optuna_study.control_key(architecture) for architecture in self.space.architectures()}
        return keys - set(self.study.user_attrs)

    def work(self, trial: optuna.Trial) -> float | Sequence[float]:
        """Run one trial or control; return its objective, or the list of its objectives."""
        control = trial.user_attrs.get("control")
        if control is not None:
            return self._control(trial, control)
        if not halving.is_wanted(self.study, trial):
            raise SkipJob
        if not self._can_start():
            raise PostponeJob  # the retry of an interrupted control is queued behind the first trials
        rung, values = rung_of(trial), self.configure(trial)
        finished = optuna_study.finished(self.study)
        twin = next((t for t in finished if t.user_attrs.get("values") == values), None)
        if twin is not None and not rung:
            return self._as(trial, twin)
        reference = functools.cache(lambda: self._reference(self.space.architecture(values), rung))
        began, recipe = time.monotonic(), self._budgeted(self.space.with_values(values))
        self.events.stage(self._stage(trial, len(finished)))
        try:
            report, found = self.score(trial, recipe, reference)
        except optuna.TrialPruned:
            trial.set_user_attr("seconds", time.monotonic() - began)
            self.on_trial(trial, recipe, None)
            raise
        self._judge(trial, {"seconds": time.monotonic() - began, MEASURING: 0.0, **found}, reference())
        self.on_trial(trial, recipe, report)
        return [found[name] for name in self.terms.goal.objectives]

    def configure(self, trial: optuna.Trial) -> dict[str, Value]:
        """Give a trial its values, which stay the same, and store what its retries need; return the values."""
        if self.terms.rungs:
            trial.set_user_attr(CONFIGURATION, halving.configuration_of(trial))  # its retries go on from its checkpoint
        values = self.space.suggest(trial)
        trial.set_user_attr("values", values)
        return values

    def _reference(self, architecture: Mapping[str, Value], rung: int) -> ControlScores:
        """The scores of a control on a rung, once the worker that trains it gets there."""
        while (found := halving.reference_on(self.study, architecture, rung)) is None:
            if optuna_study.control_key(architecture) not in self._running_controls():
                raise PostponeJob
            self.events.stage("waiting for the control")
            self.wait()
        return found

    def _stage(self, trial: optuna.Trial, finished: int) -> str:
        """Description of the work on a trial."""
        if rung := rung_of(trial):
            return f"trial {trial.number}, {halving.configuration_of(trial)} up to epoch {self.terms.rungs[rung]}"
        return f"trial {trial.number}, {finished + 1} of {self.study.user_attrs['trials']}"

    def _judge(self, trial: optuna.Trial, found: Mapping[str, Any], reference: ControlScores) -> None:
        """Store the scores of a trial and its distance from each bound; above 0 violates the bound.

        There is no floor below the top rung: the more a network is augmented the more slowly it learns, so after a few
        epochs nearly all would be below it, and the least augmented would go on (benchmarks/results/tune-replay.md).
        """
        chance, terms, least = self._training.chance, self.terms, dict[str, float]()
        if not self._is_cheap(rung_of(trial)):
            least["accuracy"] = chance + terms.floor * (reference["accuracy"] - chance)
            if reference["kappa"] is not None:
                least["kappa"] = terms.floor * reference["kappa"]
        images = len(self.validation)
        bounds = {key: low - _error(found[key], images) - found[key] for key, low in least.items()}
        if terms.goal.at_least is not None:
            bounds["at_least"] = terms.goal.shortfall(found)
        _note(trial, {**found, "bounds": bounds, "chance": chance})

    def _as(self, trial: optuna.Trial, twin: FrozenTrial) -> float | Sequence[float]:
        """Copy the result of a trial with the same values."""
        shared = {key: value for key, value in twin.user_attrs.items() if key not in OWN}
        _note(trial, {**shared, "same_as": twin.number, "seconds": 0.0})
        if self.terms.prunes:
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
        self._early = halving.EARLY + key if self._trains_ahead else None
        found = self.score_control(recipe, trial.number)
        epochs = recipe.train.epochs + self.terms.fork
        found |= {"number": trial.number, "epochs": epochs, "seconds": time.monotonic() - began}
        if self.terms.fork:
            found["fork"] = str(self._fork.folder.resolve())
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
        with contextlib.ExitStack() as stack:
            if self.terms.rungs and kept is None:  # each rung goes on from the checkpoint of the one before
                kept = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="augkit-control-")))
            lower = list[ControlScores]()
            for rung in range(len(self.terms.rungs) - 1):
                lower.append(self._control_on(recipe, kept, rung))
                if self._early is not None:  # so that other workers can begin
                    self.study.set_user_attr(self._early, lower)
            top = self._control_on(recipe, kept, len(lower))
        return {**top, "rungs": lower} if lower else top

    def _control_on(self, recipe: Recipe, kept: Path | None, rung: int) -> ControlScores:
        """Train a control up to a rung and measure it there as its trials are measured."""
        later = " or let the first rung come later" * bool(self.terms.rungs)
        try:
            scores = self._searched(self._job(recipe, kept, rung), lambda: self.sets).scores
        except RunError as error:
            raise GiveUpError(f"the control could not be trained: {error}") from None
        typical = scores.reports["typical"]
        if not learned_invariance(typical, typical).defined:
            raise GiveUpError(
                "the control's answers hardly vary under shift, so learned invariance is undefined; "
                f"train longer (train.epochs){later} or measure larger shifts (invariance.max_shift)"
            )
        said = {name: r.shift_information.value for name, r in scores.reports.items() if not unsaid(r, typical)}
        if self.terms.goal.atypical and len(said) == 1:
            raise GiveUpError(
                f"the control's answers carry almost no information about any atypical images; remove --atypical{later}"
            )
        return {"accuracy": scores.accuracy, "kappa": scores.kappa, "shift_information": said}

    def _searched(
        self, job: SearchJob, sets: Callable[[], Iterable[str]], on_row: Callable[[EpochRow], None] = lambda row: None
    ) -> Searched:
        """Train a configuration up to a rung and measure it there.

        ``sets`` is called once it is trained, and returns the names of image sets, of which one is ``typical``.
        """

        def on_epoch(row: EpochRow) -> None:
            self.events.work(1)
            self.events.epoch(dict(row), job.recipe.train.epochs)
            on_row(row)

        found = self._perform(job, lambda: {name: self.sets[name] for name in sets()}, on_epoch)
        images, trained_on = len(self.validation), len(self.dataset.listed_train)
        for name in found.scores.reports:
            lengths = len(job.lengths) if name == "typical" else 0
            self.events.work(measuring_cost(job.measured, min(job.images or images, images), trained_on, lengths))
        return found

    def _job_of(self, trial: optuna.Trial, recipe: Recipe) -> SearchJob:
        """What is to be done for a trial."""
        rung = rung_of(trial)
        return self._job(recipe, self._place(trial, recipe, halving.epochs_on(self.terms, rung)), rung, self.lengths)

    def _job(self, recipe: Recipe, place: Path | None, rung: int, lengths: Sequence[float] = ()) -> SearchJob:
        """A configuration on a rung; below the top it is measured on `FEW` images with one pair of views of each."""
        until, atypical = halving.epochs_on(self.terms, rung), self.terms.seed if self.terms.goal.atypical else None
        if self._is_cheap(rung):
            return SearchJob(recipe, place, until, one_pair(recipe), FEW, atypical)
        return SearchJob(recipe, place, until, recipe, None, atypical, tuple(lengths))

    def _perform(self, job: SearchJob, sets: Callable[[], Mapping[str, Images]], on_epoch: OnEpoch) -> Searched:
        return job.perform_by(self._training, sets, on_epoch, self.alive)

    def score(
        self, trial: optuna.Trial, recipe: Recipe, reference: Callable[[], ControlScores]
    ) -> tuple[InvarianceReport | None, dict[str, float]]:
        """Train and measure a trial; return its report, and its objectives, shift information, kappa and epochs.

        ``reference`` returns the scores of its control, for which it may have to wait.
        """
        goal, rung, trained = self.terms.goal, rung_of(trial), [0]

        def on_epoch(row: EpochRow) -> None:
            trained[0] += 1
            value = goal.along(row, reference) if self.terms.prunes else None
            if value is None:
                return
            trial.set_user_attr("epochs", row["epoch"])
            trial.report(value, row["epoch"])
            if row["epoch"] < recipe.train.epochs and trial.should_prune():
                raise optuna.TrialPruned

        job, before = self._job_of(trial, recipe), self._fork_epochs
        searched, until = self._searched(job, lambda: reference()["shift_information"], on_epoch), job.until
        scores, said = searched.scores, reference()["shift_information"]
        found = {
            "seconds": searched.seconds,
            MEASURING: searched.measuring,
            "accuracy": scores.accuracy,
            "learned_invariance": 1 - scores.variability() / said["typical"],
            "shift_information": scores.variability(),
            "epochs": until,
        }
        found |= {} if scores.kappa is None else {"kappa": scores.kappa}
        if self.terms.rungs or self.terms.fork:
            needed = until - (halving.epochs_on(self.terms, rung - 1) if rung else 0)  # some may be kept
            found["trained"] = max(trained[0], needed) + self._fork_epochs - before
        if goal.atypical:
            its = {name: value for name, value in said.items() if name != "typical"}
            learned = [1 - scores.variability(name) / value for name, value in its.items()]
            found["atypical_invariance"] = sum(learned) / len(learned)
        return scores.reports["typical"], found

    def _place(self, trial: optuna.Trial, recipe: Recipe, until: int) -> Path | None:
        """Folder of the run of a trial; None if it is not kept. With rungs, the one in which it can go on furthest."""
        if not self.terms.rungs:
            kept = self.folder / "trials" if self.folder and self.keep else None
            return kept / f"{self.study.study_name}-{trial.number}" if kept else None
        number = halving.configuration_of(trial)
        own = self.folder / "rungs" / f"{self.study.study_name}-{number}" if self.folder else None
        epochs = {
            place: self._training.epochs_in(place, recipe, until) for place in halving.places_of(self.study, number)
        }
        place = max(epochs, key=epochs.__getitem__, default=None)
        if place is None or not epochs[place]:
            place = own
            if own is not None and (own / FILE).is_file():  # of no use
                shutil.rmtree(own, ignore_errors=True)
        if place is not None:
            trial.set_user_attr(PLACE, str(place.resolve()))
        return place

    def _is_cheap(self, rung: int) -> bool:
        """Whether measuring costs little on a rung, because it only decides on promotions."""
        return rung < len(self.terms.rungs) - 1

    def _budgeted(self, recipe: Recipe) -> Recipe:
        """The recipe with the epochs of a trial; measured after every epoch if the search prunes by the measurement."""
        every = 1 if self.terms.prunes else recipe.train.evaluate_every
        along = 1 if self.terms.prunes and self.terms.goal.mode == "invariance" else None
        train = {**recipe.train.model_dump(), "epochs": self.terms.epochs, "steps": None, "evaluate_every": every}
        invariance = {**recipe.invariance.model_dump(), "every": along}
        return recipe.replaced(train=train, invariance=invariance, seed=self.terms.seed)


def _error(share: float, images: int) -> float:
    """Two binomial standard errors of a share of the images; a smaller shortfall is not significant."""
    inside = min(1.0, max(0.0, share))
    return 2 * float((inside * (1 - inside) / images) ** 0.5)


def _note(trial: optuna.Trial, attributes: Mapping[str, Any]) -> None:
    """Store attributes of a trial, and its distances from the bounds also as Optuna's constraints."""
    for key, value in attributes.get("bounds", {}).items():
        trial.set_constraint(key, value)
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
