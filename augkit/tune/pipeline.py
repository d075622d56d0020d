"""The function behind `augkit.tune`: create or join a study, search with one or more workers, do the final runs."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from augkit.augment.contact_sheet import contact_sheet
from augkit.core.cli import HelperInterrupted
from augkit.core.errors import InputError
from augkit.core.figures import save_png
from augkit.core.files import claim, environment, reserve, write
from augkit.core.images import save
from augkit.core.jobs.pool import WorkerSettings, own_index
from augkit.core.jobs.storage import Storage, open_storage
from augkit.core.progress import Display
from augkit.data import Dataset
from augkit.train.build import check_overwrite, choose_device, fresh_model, load_recipe_data
from augkit.train.constraint import check_constraint
from augkit.train.evaluate import check_measurable
from augkit.train.recipe import Recipe
from augkit.tune import optuna_study, selection
from augkit.tune.budget import trial_cost
from augkit.tune.conclusion import conclude
from augkit.tune.dashboard import annotate
from augkit.tune.earlier import JOURNAL, starts_of
from augkit.tune.figures import summary
from augkit.tune.finals import TuneContext
from augkit.tune.goal import Goal
from augkit.tune.inputs import Rungs, as_folder, as_space, as_workers, check_counts, make_terms
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.page import tuning_page
from augkit.tune.progress import LiveProgress
from augkit.tune.results import JoinedSearch, TuneResults, cost_of, search_cost
from augkit.tune.rung_report import rung_rows, rung_words
from augkit.tune.search import run_trials, take_up
from augkit.tune.side_by_side import SideBySideWorker, can_search_side_by_side
from augkit.tune.space import Space, Value
from augkit.tune.team import Team
from augkit.tune.trial import TrialWorker

SHEET_ROWS = 6


@dataclass(frozen=True)
class TuneWorkers(WorkerSettings):
    """Settings of the workers of a search.

    Attributes:
        processes: processes per trial, started by torchrun.
        keep: keep the run folders of trials.
        finals: processes that train and measure networks, in the final runs and in a search by one worker; they share
            this one's threads. None takes as many as pay off, see `augkit.tune.team.team_size`.
        dashboard: write notes and artifacts for optuna-dashboard.
    """

    processes: int = 1
    keep: bool = False
    finals: int | None = None
    dashboard: bool = False


def tune(  # noqa: PLR0913 (the flags of the command)
    space: Space | Recipe,
    folder: Path,
    *,
    trials: int | None = None,
    trial_epochs: int | None = None,
    least_epochs: int | None = None,
    seeds: int = 3,
    top: int = 2,
    rungs: Sequence[int] | None = None,
    factor: int | None = None,
    fork: bool = False,
    goal: Goal | None = None,
    sampler: str = "tpe",
    floor: float = optuna_study.FLOOR,
    tune_control: bool | None = None,
    starts: Sequence[str | Path] = (),
    storage: str | None = None,
    study_name: str = "augkit",
    workers: int | TuneWorkers | None = None,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> TuneResults | JoinedSearch:
    """Search augmentation for accuracy and learned invariance, and measure the chosen recipe on the test split.

    Args:
        space: search space, or a recipe, whose policy's strengths are then searched.
        folder: output folder for ``best.yaml``, ``study.journal``, ``results.json``, ``report.html`` and final runs.
        trials: number of trials to finish; pruned trials count, controls do not. None takes 24, or the number of the
            study that is resumed or joined.
        trial_epochs: epochs of a trial; None takes half of the recipe's.
        least_epochs: epochs before a trial may be pruned; None takes a quarter of ``trial_epochs``.
        seeds: number of seeds of the final runs of each recipe.
        top: number of trials that are retrained at full length; one of them is chosen.
        rungs: epochs of each rung of Pareto halving, ascending, such as (2, 4, 8): a trial is trained up to the first,
            and goes on to the next from its checkpoint if it is among the best part of those that reached it (see
            `augkit.tune.promotion`). They replace pruning, and the last one is ``trial_epochs``. Empty for no rungs.
            None takes those of the study that is resumed or joined; for a new one `augkit.tune.halving.derived_rungs`,
            unless the goal has a bound or ``sampler``, ``least_epochs`` or ``workers.processes`` exclude rungs.
        factor: with rungs, one of ``factor`` configurations goes on. None takes that of a study that is continued; for
            a new one 4 from 32 trials on, if two or more then reach the top, else 3.
        fork: whether every trial starts from the weights of the control, trained for half of the recipe's epochs, and
            has only a few epochs of its own (2 unless ``trial_epochs`` or ``rungs`` say otherwise); see
            `augkit.tune.fork`. Final runs start from initial weights all the same.
        goal: goal of the search; None maximizes accuracy and learned invariance.
        sampler: ``tpe``, ``gp``, ``nsga2``, ``qmc`` or ``random``.
        floor: share of the control's accuracy above chance and kappa; a trial that is clearly below cannot win.
        tune_control: whether to search the control's own fields first, with as many trials, so that augmentation is
            compared with the best network without it; None does so if fields of training or optimizer are searched.
        starts: earlier studies of the same space, whose best configurations are tried after the presets, trained anew:
            output folders, or names in ``storage``. A study that exists already takes no more of them.
        storage: Optuna storage (file or URL); None takes ``study.journal`` in ``folder``. An existing study at a URL
            is joined: this process then only helps with the search.
        study_name: name of the Optuna study.
        workers: number of workers, or their settings; None runs one worker in this process.
        device, resume, overwrite: as in `augkit.fit`.
        quiet: whether to print no progress to standard error.

    Returns:
        The results that ``results.json`` holds; for a study that was joined, the cost of its search.

    Raises:
        InputError: an argument is out of its range, the study or folder does not match, or data cannot be read.
        RunError: a control could not be trained, or workers or trials keep failing.
    """
    started, folder, space = time.monotonic(), as_folder(folder), as_space(space)
    settings = as_workers(workers, TuneWorkers, storage)
    counts = {"seeds": seeds, "top": top, "workers": settings.count, "processes per trial": settings.processes}
    epochs = {"trial_epochs": trial_epochs, "least_epochs": least_epochs}
    check_counts({"trials": trials, **epochs, "final processes": settings.finals}, counts)
    terms, kept = make_terms(
        space,
        goal or Goal(),
        Rungs(rungs, factor, trials or optuna_study.TRIALS, settings.processes),
        trial_epochs=trial_epochs,
        least_epochs=least_epochs,
        fork=fork,
        sampler=sampler,
        floor=floor,
    )
    target, dataset = choose_device(device), load_recipe_data(space.recipe)
    _check_trials(space, dataset)
    place = Storage.parse(storage or folder / JOURNAL)
    twice = space.searches_training if tune_control is None else tune_control
    if twice and not space.searches_training:
        raise InputError("--tune-control: expected ranges of train or optim beside the augmentation, got none")
    # The search of the control always has the default goal; the goal of the command concerns augmentation.
    control = {"space": space.without_policy().to_dict(), "goal": Goal()} if twice else {}
    earlier = [] if resume else starts_of(starts, space, place, study_name, folder)

    def open_study(name: str, terms: SearchTerms, *, create: bool = True) -> tuple[TuneContext, bool]:
        join = resume or place.is_remote
        study, created = optuna_study.make_or_join(
            *(backend, name, terms, trials),
            join=join,
            lead=resume,
            create=create,
            starts=earlier if name == study_name else (),
            kept=kept,
        )
        terms = terms if created else optuna_study.load_terms(study)
        _take_up(study, terms, settings, display.line, resume=resume, alone=not place.is_remote)
        return TuneContext(study, terms, folder, seeds, top, target, dataset, display, settings.finals), created

    reserve(folder, resume=resume, overwrite=overwrite)
    inside = place.is_inside(folder)
    if inside:
        _take_folder(folder, space, resume, overwrite)
    with Display(0, quiet=quiet) as display, contextlib.ExitStack() as stack:
        backend = open_storage(place, grace=settings.grace, say=display.line)
        for note in dataset.notes:
            display.line(note)
        helps = place.is_remote and not resume  # assume so until it is known whether this process created the study
        try:
            if not (resume or place.is_remote):
                optuna_study.refuse_existing(backend, study_name)
            tuning, created = open_study(
                optuna_study.control_study(study_name) if twice else study_name, terms.model_copy(update=control)
            )
            helps = not (created or resume)
            if not inside:
                # Only now, so that an unusable storage or study is refused before the folder is overwritten.
                _take_folder(folder, space, resume, overwrite)
            index = own_index() if helps else 0
            _plan(tuning, 1 + twice)
            team = stack.enter_context(tuning.team())
            if twice:
                found = _search_control(tuning, place, settings, index, team)
                seconds = tuning.phases["search"]
                tuning, _ = open_study(study_name, terms.model_copy(update={"controls": found}), create=not helps)
                tuning.phases["search of the control"] = seconds
            for job in () if helps else tuning.sure_jobs():
                team.give_spare(job)  # processes that the search leaves idle begin with them
            _search(tuning, place, settings, index, team)
        except KeyboardInterrupt:
            raise (HelperInterrupted if helps else KeyboardInterrupt) from None
        if helps:
            display.line("the search is done; the command that created the study does the final runs")
            return JoinedSearch(search_cost(tuning.study, tuning.terms))
        recipe, results = conclude(tuning, team, started)
        return _write(tuning, recipe, results, started, settings)


def _check_trials(space: Space, dataset: Dataset) -> None:
    """Raise InputError where trials could not be trained or measured, which would only be seen after the control."""
    check_measurable(space.recipe, dataset.validation, fresh_model(space.recipe, dataset))
    check_constraint(space.with_values(space.preset(1.0)), dataset.validation)


def _take_up(
    study: optuna.Study,
    terms: SearchTerms,
    settings: TuneWorkers,
    say: Callable[[str], None],
    *,
    resume: bool,
    alone: bool,
) -> None:
    """Enqueue the unfinished trials of earlier commands again, and report other trials found in the study."""
    take_up(study, terms, settings.retries, say, alone=alone, controls=resume)
    if not resume and (starts := optuna_study.starts_taken(study)):
        taken = ", ".join(f"{count} of {name}" for name, count in starts.items())
        say(f"earlier   {sum(starts.values())} configuration(s) of earlier studies follow the presets: {taken}")
    if foreign := sum(map(optuna_study.is_foreign, study.get_trials(deepcopy=False))):
        say(f"{foreign} finished trial(s) of the study were not run by augkit and are left out")


def _search_control(
    tuning: TuneContext, place: Storage, settings: TuneWorkers, index: int, team: Team
) -> dict[str, dict[str, Value]]:
    """Search without augmentation; return the best values of the control by `control_key`."""
    say = tuning.display.line
    say("first as many trials without augmentation, to find the best control (--no-tune-control skips them)")
    _search(tuning, place, settings, index, team)
    found = selection.best_controls(tuning.study, tuning.terms, len(tuning.dataset.validation))
    fields = [f"{key} {value}" for values in found.values() for key, value in values.items()]
    best = f"the best without augmentation has {', '.join(fields)}" if fields else "the recipe's own values are best"
    say(f"control   {best}")
    return found


def _take_folder(folder: Path, space: Space, resume: bool, overwrite: bool) -> None:
    if overwrite and not resume:
        check_overwrite(folder, space.recipe)
    claim(folder, resume=resume, overwrite=overwrite)
    kept = folder / "recipe.yaml"
    if resume and kept.is_file() and Recipe.load(kept) != space.recipe:
        raise InputError(f"'{folder}' belongs to a search of another recipe; resume with {kept}")
    if not kept.is_file():
        write(kept, space.recipe.to_yaml("the recipe that was searched"))
    ranges = folder / "space.json"
    if not ranges.is_file():  # with --resume, this space may be refused later
        write(ranges, json.dumps(space.to_dict(), indent=2))
    write(folder / "environment.json", json.dumps(environment(), indent=2))


def _plan(tuning: TuneContext, searches: int) -> None:
    """Set the size of the progress bar and the part that is already done, before the first search."""
    each = trial_cost(tuning.terms, tuning.recipe, tuning.dataset)
    trials, already = int(tuning.study.user_attrs["trials"]), len(optuna_study.finished(tuning.study))
    controls = len(tuning.space.architectures())
    search = searches * ((max(trials, already) + controls) * each + tuning.terms.fork)
    tuning.display.begin(search + tuning.work(), already * each)


def _search(tuning: TuneContext, place: Storage, settings: TuneWorkers, first: int, team: Team) -> None:
    started = time.monotonic()
    words = settings.arguments(place, tuning.study.study_name, tuning.device)
    words += ["--folder", str(tuning.folder), "--nproc-per-trial", str(settings.processes)]
    words += ["--keep-trials"] * settings.keep + ["--dashboard"] * settings.dashboard

    def make(**rest: Any) -> TrialWorker:
        rest |= {"keep": settings.keep, "processes": settings.processes}
        plain = tuning.study, tuning.terms, tuning.dataset, tuning.device
        beside = team.count > 1 and can_search_side_by_side(tuning.terms, tuning.device, settings.processes)
        worker = SideBySideWorker(*plain, **rest, team=team) if beside else TrialWorker(*plain, **rest)
        if settings.dashboard:
            worker.on_trial = annotate(worker)
        return worker

    progress = LiveProgress(tuning.study, tuning.terms, tuning.dataset, tuning.display)
    run_trials(progress, tuning.folder, settings, first, make, "augkit.tune.worker", words, "final runs")
    tuning.phases["search"] = time.monotonic() - started
    spent = search_cost(tuning.study, tuning.terms)
    tuning.display.line(
        f"search    {spent.trials} trials, {spent.pruned} pruned, {spent.answered_from_the_study} answered"
        f" from the study; {spent.epochs_run} epochs run, {spent.epochs_saved} saved;"
        f" {tuning.phases['search']:.0f} s"
    )
    for line in rung_words(rung_rows(tuning.study, tuning.terms)):
        tuning.display.line(f"rung      {line}")


def _write(
    tuning: TuneContext, recipe: Recipe, results: TuneResults, started: float, settings: TuneWorkers
) -> TuneResults:
    """Write the files of a finished tuning; return the results with the seconds that this took."""
    began = time.monotonic()
    tuning.display.stage("writing the report")
    named = recipe.replaced(name=f"{tuning.recipe.name}-tuned")
    best = named.to_yaml(_header(tuning, results))
    images = tuning.dataset.validation.on_canvas(recipe.data.canvas)
    sheet = contact_sheet(recipe.policy, images[:: max(1, len(images) // SHEET_ROWS)][:SHEET_ROWS])
    picture = summary(results.response, [row for row in results.table if row["arm"] == "best"])
    write(tuning.folder / "best.yaml", best)
    write(tuning.folder / "contact-sheet.png", lambda path: save(sheet, path))
    write(tuning.folder / "summary.png", lambda path: save_png(picture, path))
    write(tuning.folder / "report.html", tuning_page(results, best, sheet))
    now = time.monotonic()
    results = replace(results, cost=cost_of({**tuning.phases, "report": now - began}, now - started))
    write(tuning.folder / "results.json", json.dumps(results.to_dict(), indent=2, allow_nan=False))
    if not settings.keep:
        shutil.rmtree(tuning.folder / "rungs", ignore_errors=True)  # only an unfinished search needs its checkpoints
    return results


def _header(tuning: TuneContext, results: TuneResults) -> str:
    row = next(row for row in results.table if row["arm"] == "best" and row["images"] == "typical")
    learned = format(row["learned_invariance"], ".3f")
    return (
        f"Chosen by augkit.tune among {results.settings.trials} trials, for accuracy and learned invariance.\n"
        f"Test split, {row['n_images']} images, {row['n_seeds']} seeds: accuracy {row['accuracy']:.3f}, learned"
        f" invariance {learned}.\n"
        f"Run it: python -m augkit.train {tuning.folder / 'best.yaml'}"
    )
