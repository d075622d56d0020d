"""The search of a policy for a function: its arguments are checked, then trials are run until it is done."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
import torch
from torch import Tensor

from augkit.augment.policy import Policy
from augkit.core.errors import InputError, check_whole
from augkit.core.jobs.launch import needs_pool
from augkit.core.jobs.pool import WorkerSettings, own_index
from augkit.core.jobs.storage import Storage, open_storage
from augkit.core.named import name_of
from augkit.core.progress import Display
from augkit.data import Dataset, Images, Stream
from augkit.train.evaluate import check_measurable
from augkit.train.user_images import checked_images, classes_of, measuring_settings
from augkit.train.user_loop import Score, TrainFunction, check_function, check_score, check_timeout
from augkit.tune import halving, optuna_study
from augkit.tune.budget import trial_cost
from augkit.tune.function_training import FunctionTraining
from augkit.tune.goal import Goal
from augkit.tune.inputs import Rungs, as_workers, make_terms
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.policy_inputs import HeldOut, policy_space
from augkit.tune.policy_results import PolicyResults, policy_results
from augkit.tune.policy_worker import WHY, PolicyWorker, function_words, image_words
from augkit.tune.progress import LiveProgress
from augkit.tune.search import run_trials, take_up

JOURNAL = "study.journal"
EPOCHS = 10


@dataclass
class PolicySearch:
    """A search whose inputs have been checked.

    Attributes:
        terms: terms of the study.
        dataset: the validation images.
        training: the function, and how it is called.
        trials: number of trials to finish; None takes that of an existing study, or `augkit.tune.optuna_study.TRIALS`.
        workers: settings of the workers.
        words: arguments for workers in processes of their own that name the function; empty without such workers.
        images_name: name by which worker processes import the validation images; None writes them to a file.
        check_seed: train the control twice.
        kept: names of terms that an existing study decides.
    """

    terms: SearchTerms
    dataset: HeldOut
    training: FunctionTraining
    trials: int | None
    workers: WorkerSettings
    words: list[str]
    images_name: str | None = None
    check_seed: bool = False
    kept: tuple[str, ...] = ()


def prepare(  # noqa: PLR0913 (those of `tune_policy`)
    train: TrainFunction,
    validation: tuple[Tensor, Tensor] | Images | Dataset,
    *,
    space: Policy | Mapping[str, Any],
    trials: int | None,
    epochs: int | None,
    rungs: Sequence[int] | None,
    factor: int | None,
    goal: Goal | None,
    score: Score | None,
    sampler: str,
    floor: float,
    seed: int,
    workers: int | WorkerSettings,
    timeout: float | None,
    check_seed: bool,
    storage: str | None,
    measuring: Mapping[str, Any],
    images_name: str | None = None,
) -> PolicySearch:
    """Check the arguments of `tune_policy`, of which ``measuring`` holds those of the measurement.

    Raises:
        InputError: as in `tune_policy`.
    """
    check_function(train)
    check_score(score)
    check_whole("trials", trials, 1)
    check_timeout(timeout)
    workers = as_workers(workers, WorkerSettings, storage)
    goal, asked = goal or Goal(), Rungs(rungs, factor, trials or optuna_study.TRIALS)
    given = epochs if epochs is not None or rungs else EPOCHS
    longest = halving.epochs_of_a_trial(rungs, factor, given, rungs[-1] if rungs else 1)
    images, function = checked_images(validation, "validation", scored=score is not None), name_of(train)
    settings = measuring_settings(images, **measuring)
    # The recipe bears the name of the function, so that a study is not continued with another one.
    settings |= {"name": re.sub(r"[^A-Za-z0-9._-]+", ".", function), "train": {"epochs": longest}, "seed": seed}
    found = policy_space(space, settings)
    terms, kept = make_terms(
        *(found, goal, asked), trial_epochs=longest, fork=False, sampler=sampler, floor=floor, name="tune_policy"
    )
    terms = terms.model_copy(update={"least_epochs": 1})  # trials are not pruned
    if terms.goal.atypical and images.images.dtype != torch.uint8:
        raise InputError("validation: expected uint8 images for atypical ones, got floating ones")
    check_measurable(found.recipe, images)
    training = FunctionTraining(train, score, classes_of(images), rungs=terms.rungs, timeout=timeout)
    words = function_words(training) if needs_pool(workers) else []
    if words and images_name is None and isinstance(images, Stream):
        raise InputError(f"validation: expected images in memory for {WHY}, got a stream; take a sample of it")
    held = HeldOut(images, settings["data"]["name"])
    return PolicySearch(terms, held, training, trials, workers, words, images_name, check_seed, kept)


def run_search(
    search: PolicySearch,
    folder: Path,
    storage: str | None,
    study_name: str,
    *,
    take: Callable[[], object] = lambda: None,
    quiet: bool,
) -> PolicyResults:
    """Run the trials of a search that `prepare` has checked, and return its results.

    Args:
        search: the search.
        folder: folder for the study and what the function leaves in ``start``.
        storage, study_name, quiet: as in `tune_policy`.
        take: called before anything is written to the folder, but after a study elsewhere has been opened.

    Raises:
        InputError: the study has other terms.
        RunError: the control could not be trained or measured, or three trials in a row failed.
    """
    place = Storage.parse(storage or str((folder / JOURNAL).resolve()))
    inside = place.is_inside(folder)
    if inside:
        take()
        folder.mkdir(parents=True, exist_ok=True)
    with Display(0, quiet=quiet) as display:
        study, created = _open_study(place, study_name, search, display.line)
        terms = optuna_study.load_terms(study)
        search = replace(search, terms=terms, training=replace(search.training, rungs=terms.rungs))
        if not inside:
            take()
        words = list(search.words)
        if words:
            # With a GPU, the launcher gives each worker its own.
            device = "cuda" if torch.cuda.is_available() else "cpu"
            words += search.workers.arguments(place, study_name, device) + ["--check-seed"] * search.check_seed
            folder.mkdir(parents=True, exist_ok=True)
            words += image_words(search.dataset.validation, search.images_name, folder.resolve())
        _search(study, search, display, folder, words, 0 if created else own_index())
    return policy_results(study, search.terms, len(search.dataset.validation))


def _open_study(
    place: Storage, name: str, search: PolicySearch, say: Callable[[str], None]
) -> tuple[optuna.Study, bool]:
    """Create the study, or continue it: with at least ``trials`` trials, and those of dead processes queued again.

    Return it, and whether it was created.
    """
    terms, trials, settings, kept = search.terms, search.trials, search.workers, search.kept
    backend = open_storage(place, grace=settings.grace, say=say)
    _refuse_other_function(backend, name, terms)
    try:
        study, created = optuna_study.make_or_join(backend, name, terms, trials, join=True, lead=False, kept=kept)
    except InputError:
        if not _is_half_made(backend, name):
            raise
        say(f"study '{name}' was left by a process that died before its first trial; this one begins it again")
        study, created = optuna_study.make_or_join(backend, name, terms, trials, join=True, lead=True)
    if created:
        return study, True
    study.set_user_attr("trials", max(int(trials or 1), int(study.user_attrs["trials"])))
    take_up(study, terms, settings.retries, say, alone=False, earlier="call")
    return study, False


def _is_half_made(backend: optuna.storages.BaseStorage, name: str) -> bool:
    """Whether the process that created a study has died before it had enqueued the first trials."""
    attrs = optuna.load_study(storage=backend, study_name=name).user_attrs
    return "terms" in attrs and not attrs.get("ready")


def _refuse_other_function(backend: optuna.storages.BaseStorage, name: str, terms: SearchTerms) -> None:
    """Raise InputError if the study was begun with a function of another name, or with a recipe."""
    if name not in optuna.get_all_study_names(backend):
        return
    theirs = optuna.load_study(storage=backend, study_name=name).user_attrs.get("terms")
    mine = terms.space["recipe"]["name"]
    if theirs is not None and (other := theirs["space"]["recipe"]["name"]) != mine:
        raise InputError(f"study '{name}': expected '{other}', with which it was begun, got '{mine}'; name another one")


def _search(
    study: optuna.Study, search: PolicySearch, display: Display, folder: Path, words: Sequence[str], index: int
) -> None:
    """Run trials until the search is done: in this process, or by workers with the arguments ``words``."""
    terms, dataset = search.terms, search.dataset
    each, already = trial_cost(terms, terms.open_space().recipe, dataset), len(optuna_study.finished(study))
    display.begin((1 + max(int(study.user_attrs["trials"]), already)) * each, already * each)
    rest: dict[str, Any] = {"training": search.training, "check_seed": search.check_seed}
    make = functools.partial(PolicyWorker, study, terms, dataset, torch.device("cpu"), **rest)
    progress = LiveProgress(study, terms, dataset, display)
    run_trials(progress, folder, search.workers, index, make, "augkit.tune.policy_worker", words)
    if anew := _began_anew(study, terms):
        display.line(f"train left nothing to go on from in start, so {anew} configuration(s) began anew on a rung")


def _began_anew(study: optuna.Study, terms: SearchTerms) -> int:
    """Number of trials on a rung above the lowest one that were trained from the start."""
    above = [trial for trial in optuna_study.completed(study) if optuna_study.rung_of(trial)]
    return sum(trial.user_attrs["trained"] == terms.rungs[optuna_study.rung_of(trial)] for trial in above)
