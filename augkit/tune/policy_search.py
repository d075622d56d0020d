"""The search of a policy for a training loop of the user: trials as in `augkit.tune`, trained by a function."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import Tensor

from augkit.augment.policy import Policy
from augkit.core.errors import InputError, check_whole
from augkit.core.files import write
from augkit.core.jobs.heartbeat import RetryPolicy
from augkit.core.jobs.recovery import recover
from augkit.core.jobs.storage import open_storage
from augkit.core.jobs.worker import WorkerEvents
from augkit.core.progress import Display
from augkit.core.records import Record
from augkit.core.schema import validate
from augkit.data import Dataset, Images
from augkit.train.evaluate import check_measurable
from augkit.train.recipe import Recipe
from augkit.tune import halving, optuna_study, selection
from augkit.tune.function_training import FunctionTraining, Score, TrainFunction, check_function
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import ControlScores, SearchTerms
from augkit.tune.policy_inputs import HeldOut, classes_of, fingerprint, policy_space, validation_images
from augkit.tune.progress import LiveProgress
from augkit.tune.results import SearchResults, search_results
from augkit.tune.space import Space
from augkit.tune.trial import TrialWorker, trial_cost

JOURNAL = "study.journal"
EPOCHS = 10
NAME = "policy"  # of the recipe that holds the policy and the settings of measuring


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
    """

    chosen: PolicyPoint
    front: list[PolicyPoint]
    search: SearchResults
    study: str

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


@dataclass
class PolicySearch:
    """A search in progress, for `LiveProgress`."""

    study: optuna.Study
    terms: SearchTerms
    display: Display
    space: Space
    dataset: HeldOut


@dataclass
class PolicyWorker(TrialWorker):
    """A worker of a search whose configurations are trained by a function.

    Attributes:
        check_seed: train the control of the first rung twice and warn if the two networks differ.
    """

    check_seed: bool = False

    def score_control(self, recipe: Recipe, number: int) -> ControlScores:
        """As in `TrialWorker`, with the check of the seed."""
        found = super().score_control(recipe, number)
        if self.check_seed:
            with tempfile.TemporaryDirectory(prefix="augkit-seed-") as scratch:
                again = self._control_on(recipe, Path(scratch) / "control", 0)
            _warn_of_difference(halving.scores_on(found, 0), again, recipe.seed)
        return found


def tune_policy(  # noqa: PLR0913 (settings of a search and of its measurement, each with a default)
    train: TrainFunction,
    validation: tuple[Tensor, Tensor] | Images | Dataset,
    *,
    space: Policy | Mapping[str, Any],
    trials: int = 10,
    epochs: int | None = None,
    rungs: Sequence[int] = (),
    factor: int = 3,
    goal: Goal | None = None,
    score: Score | None = None,
    sampler: str = "tpe",
    floor: float = optuna_study.FLOOR,
    seed: int = 0,
    protocol: str = "crop",
    max_shift: float = 4.0,
    kernel: str | None = None,
    pairs: int = 4,
    canvas: int | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    folder: str | Path | None = None,
    storage: str | None = None,
    study_name: str = "augkit",
    check_seed: bool = False,
    quiet: bool = True,
) -> PolicyResults:
    """Search the policy of a training loop for accuracy and learned invariance.

    The loop is a function ``train(policy, *, epochs, seed, start)`` that trains a network with ``policy`` and returns
    it. It is called for the control, which is the policy without any op, and for each trial. Every network is measured
    on ``validation``; learned invariance is relative to the control. With the same ``seed`` the function should give
    the same network.

    With ``rungs``, ``start`` is a folder of the configuration: empty when its training begins, and on the next rung as
    the function left it when it last returned. ``epochs`` is the total: a function that finds its checkpoint after
    epoch 2 and is called with ``epochs=4`` trains two more. A function that leaves nothing there trains anew on each
    rung, which the cost in the results counts. Without ``rungs``, ``start`` is None.

    A study that exists at ``storage``, or in ``folder``, is continued until it has ``trials`` trials: the same call
    again resumes it after an interrupt, and the same call in several processes shares its trials among them.

    Args:
        train: the training loop.
        validation: images ``(N, C, H, W)``, uint8 or floating in [0, 1] and not normalized, with labels ``(N,)``; or
            `augkit.data.Images`, or a dataset, of which the validation split is taken.
        space: the policy whose strengths are searched, each in the range of its op; or a mapping as under ``policy`` in
            a recipe, in which ranges such as ``{"search": [0, 8]}`` may be written.
        trials: number of trials to finish; the control does not count.
        epochs: epochs of a trial; None takes the last rung, or 10.
        rungs: epochs of each rung of Pareto halving, ascending, such as (2, 4, 8); empty for no rungs.
        factor: with rungs, one of ``factor`` configurations goes on.
        goal: goal of the search; None maximizes accuracy and learned invariance. Trials are never pruned.
        score: gives the score of a network in [0, 1], higher is better, which stands in the place of accuracy, such as
            the mean average precision of a detector; labels may then be None. The network must give logits ``(B, K)``
            all the same, whose variability under shift is measured.
        sampler: ``tpe``, ``gp``, ``nsga2``, ``qmc`` or ``random``.
        floor: share of the control's accuracy above chance and kappa; a trial that is clearly below cannot win.
        seed: seed of the sampler and of all trainings.
        protocol, max_shift, kernel, pairs: as in `augkit.measure_invariance`. ``crop`` measures on windows smaller
            than the images; for a network that takes one size alone, choose ``circular``.
        canvas: side of the network's input in pixels; None takes that of the protocol.
        mean, std: per channel, applied to the images before the network sees them.
        folder: folder for the study and what the function leaves in ``start``; None uses a temporary one.
        storage: Optuna storage (file or URL); None takes ``study.journal`` in the folder.
        study_name: name of the Optuna study.
        check_seed: train the control twice, up to the first rung, and warn if the two networks differ.
        quiet: whether to print no progress to standard error.

    Returns:
        The chosen policy, the front, and all trials. The scores of the chosen policy are those of the search, on the
        images that chose it, so they are optimistic: measure it on other images before you report it.

    Raises:
        InputError: an argument is out of its range, or the study has other terms.
        RunError: the control could not be trained or measured, or three trials in a row failed.
    """
    check_function(train)
    check_whole("trials", trials, 1)
    halving.refuse_with_rungs(rungs, sampler, 1, None)
    given = epochs if epochs is not None or rungs else EPOCHS
    longest = halving.epochs_of_a_trial(rungs, factor, given, rungs[-1] if rungs else 1)
    images = validation_images(validation, scored=score is not None)
    measuring = {"protocol": protocol, "max_shift": max_shift, "kernel": kernel, "pairs": pairs}
    held = HeldOut(images, f"images-{fingerprint(images)}")
    settings = {
        "name": NAME,
        "data": {"name": held.name, "canvas": canvas, "mean": list(mean), "std": list(std)},
        "train": {"epochs": longest},
        "invariance": {key: value for key, value in measuring.items() if value is not None},
        "seed": seed,
    }
    found = policy_space(space, settings)
    terms = validate(
        SearchTerms,
        {
            "space": found.to_dict(),
            "goal": goal or Goal(),
            "rungs": tuple(rungs),
            "factor": factor,
            "epochs": longest,
            "sampler": sampler,
            "floor": floor,
            "seed": seed,
        },
        "tune_policy",
    )
    if terms.goal.atypical and images.images.dtype != torch.uint8:
        raise InputError("validation: expected uint8 images for atypical ones, got floating ones")
    check_measurable(found.recipe, images)
    training = FunctionTraining(train, score, classes_of(images), rungs=terms.rungs)
    with contextlib.ExitStack() as stack:
        place = Path(folder or stack.enter_context(tempfile.TemporaryDirectory(prefix="augkit-policy-")))
        place.mkdir(parents=True, exist_ok=True)
        display = stack.enter_context(Display(0, quiet=quiet))
        study = _open_study(storage or str(place / JOURNAL), study_name, terms, trials, display.line)
        _search(PolicySearch(study, terms, display, found, held), training, place, trials, check_seed)
        return _results(study, terms, len(images))


def _open_study(storage: str, name: str, terms: SearchTerms, trials: int, say: Callable[[str], None]) -> optuna.Study:
    """Create the study, or continue it: with at least ``trials`` trials, and those of dead processes queued again."""
    study, created = optuna_study.make_or_join(open_storage(storage), name, terms, trials, join=True, lead=False)
    if created:
        return study
    study.set_user_attr("trials", max(trials, int(study.user_attrs["trials"])))
    again, others = recover(study, RetryPolicy().retries, alone=False)
    again += optuna_study.restore_controls(study, terms)
    if again:
        say(f"{again} unfinished trial(s) of an earlier call were queued again")
    if others:
        say(f"{others} trial(s) are running elsewhere")
    return study


def _search(search: PolicySearch, training: FunctionTraining, folder: Path, trials: int, check_seed: bool) -> None:
    """Run trials until the search is done."""
    study, terms, display = search.study, search.terms, search.display
    each, already = trial_cost(terms, search.space.recipe, search.dataset), len(optuna_study.finished(study))
    display.begin((1 + max(trials, already)) * each, already * each)
    progress = LiveProgress(search)
    worker = PolicyWorker(
        study,
        terms,
        search.dataset,
        torch.device("cpu"),
        index=len(study.get_trials(deepcopy=False)),
        folder=folder,
        training=training,
        check_seed=check_seed,
        events=WorkerEvents(stage=progress.stage, work=display.advance, log=display.line),
    )
    worker.run()
    progress.trials()
    if training.anew:
        display.line(f"train left nothing to go on from in start, so {training.anew} training(s) began anew")


def _results(study: optuna.Study, terms: SearchTerms, images: int) -> PolicyResults:
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
    return PolicyResults(point(best), front, search_results(study, terms, best.number), study.study_name)


def _warn_of_difference(first: ControlScores, second: ControlScores, seed: int) -> None:
    pairs = [("accuracy", first["accuracy"], second["accuracy"])]
    one, two = (found["shift_information"]["typical"] for found in (first, second))
    pairs.append(("shift information", one, two))
    for name, a, b in pairs:
        if a != b:
            warnings.warn(
                f"train: two calls with seed {seed} gave networks whose {name} is {a:.6g} and {b:.6g}; the search goes"
                " on, but trials then differ by chance, too",
                stacklevel=2,
            )
            return
