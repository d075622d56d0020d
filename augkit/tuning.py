"""The function behind `augkit.tune`: open or join a study, search with one worker or several, then the finals."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import FrozenTrial

from augkit import search
from augkit.building import choose_device, fresh_model, load_recipe_data
from augkit.command import Display, HelperInterrupted
from augkit.comparison import jsonable
from augkit.data import Dataset
from augkit.errors import InputError
from augkit.evaluation import check_measurable
from augkit.finals import Tuning, finish
from augkit.folders import claim, environment, reserve, write
from augkit.invariance import InvarianceReport
from augkit.outcome import search_cost
from augkit.recipe import Recipe
from augkit.report.figures import save_png, summary
from augkit.report.page import tuning_page
from augkit.report.sheet import contact_sheet, save
from augkit.search import Goal, Terms
from augkit.space import Space
from augkit.storages import open_storage
from augkit.supervising import Crew, Spread, is_remote, own_index, recover
from augkit.taking import Watch
from augkit.telling import Teller
from augkit.trial_notes import annotate
from augkit.trials import Worker, measuring_cost

JOURNAL = "study.journal"
SHEET_ROWS = 6


@dataclass(frozen=True)
class Workers(Spread):
    """How a search is spread over processes.

    Attributes:
        processes: of one trial, by torchrun.
        keep: keep the runs of trials.
        dashboard: write notes and artifacts for optuna-dashboard.
    """

    processes: int = 1
    keep: bool = False
    dashboard: bool = False


def tune(  # noqa: PLR0913 (the flags of the command)
    space: Space | Recipe,
    folder: Path,
    *,
    trials: int = 10,
    trial_epochs: int | None = None,
    least_epochs: int | None = None,
    seeds: int = 3,
    top: int = 2,
    goal: Goal | None = None,
    sampler: str = "tpe",
    floor: float = 0.5,
    storage: str | None = None,
    study_name: str = "augkit",
    workers: Workers | None = None,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Tune a recipe for accuracy and learned invariance, and judge the result on the test split.

    Args:
        space: what is searched; of a recipe, the strengths of its policy.
        folder: gets ``best.yaml``, ``study.journal``, ``results.json``, ``report.html`` and the final runs.
        trials: finished trials of the search, pruned ones too, controls not counted.
        trial_epochs: epochs of a trial; half the recipe's when None.
        least_epochs: epochs before a trial may be pruned; a quarter of ``trial_epochs`` when None.
        seeds: final training seeds of each recipe.
        top: trials that are retrained at full length, of which one is chosen.
        goal: what for; accuracy and learned invariance when None.
        sampler: ``tpe``, ``gp``, ``nsga2``, ``qmc`` or ``random``.
        floor: least accuracy above chance, and least kappa, of a trial (share of the control's).
        storage: Optuna storage (file or URL); ``study.journal`` in ``folder`` when None. A study that exists at a URL
            is joined: this process then only helps with the search.
        study_name: of the Optuna study.
        workers: how the search is spread; one in this process when None.
        device, resume, overwrite: as in `augkit.fit`.
        quiet: no progress on standard error.

    Returns:
        All that ``results.json`` holds, with `Estimate`s; of a study that was joined, what the search holds.

    Raises:
        InputError, RunError: one line each.
    """
    space = space if isinstance(space, Space) else Space.of(space.model_dump(exclude_none=True), space.name)
    crew = workers or Workers()
    _check(trials, trial_epochs, seeds, top, crew, storage)
    started = time.monotonic()
    epochs = trial_epochs or math.ceil(space.recipe.train.epochs / 2)
    terms = Terms(
        space=space.to_dict(),
        goal=goal or Goal(),
        epochs=epochs,
        least_epochs=min(epochs, least_epochs or math.ceil(epochs / 4)),
        sampler=sampler,
        floor=floor,
        seed=space.recipe.seed,
    )
    target, dataset = choose_device(device), load_recipe_data(space.recipe)
    check_measurable(space.recipe, dataset.validation, fresh_model(space.recipe, dataset))
    remote, place = is_remote(storage), storage or str(folder / JOURNAL)

    def take_folder() -> None:
        claim(folder, resume=resume, overwrite=overwrite)
        _keep_recipe(folder, space, resume)

    reserve(folder, resume=resume, overwrite=overwrite)
    inside = "://" not in place and folder.resolve() in Path(place).resolve().parents
    if inside:
        take_folder()
    with Display(0, quiet=quiet) as display:
        backend = open_storage(place, retries=crew.retries, grace=crew.grace, say=display.line)
        helps = remote and not resume  # until it is known whether the study was there
        try:
            study, created = search.make_or_join(backend, study_name, terms, trials, join=resume or remote, lead=resume)
            helps = not (created or resume)
            if not inside:
                take_folder()  # a storage or a study that will not do is refused before anything is replaced
            again, others = recover(study, crew.retries, alone=not remote)
            if again:
                display.line(f"{again} unfinished trial(s) of an earlier session are in line again")
            if others:
                display.line(f"{others} trial(s) are under way elsewhere")
            for note in dataset.notes:
                display.line(note)
            if foreign := sum(map(search.is_foreign, study.get_trials(deepcopy=False))):
                display.line(f"{foreign} finished trial(s) of the study were not run by augkit and are left out")
            tuning = Tuning(study, terms, folder, seeds, top, target, dataset, display)
            _plan(tuning, trials)
            _search(tuning, place, crew, own_index() if helps else 0)
        except KeyboardInterrupt:
            raise (HelperInterrupted if helps else KeyboardInterrupt) from None
        if helps:
            display.line("the search is done; the command that made the study goes on with the final runs")
            return {"joined": True, "search_cost": search_cost(study, terms)}
        recipe, results = finish(tuning)
        results["cost"] = {
            "seconds": round(time.monotonic() - started, 1),
            **{key: round(value, 1) for key, value in tuning.phases.items()},
        }
        _write(tuning, recipe, results)
    return results


def _check(trials: int, epochs: int | None, seeds: int, top: int, crew: Workers, storage: str | None) -> None:
    numbers = [trials, seeds, top, crew.count, crew.per_gpu, crew.processes, epochs or 1]
    if min(numbers) < 1:
        raise InputError(f"tune: expected trials, seeds, top, workers and epochs of at least 1, got {numbers}")
    crew.check(storage)


def _keep_recipe(folder: Path, space: Space, resume: bool) -> None:
    kept = folder / "recipe.yaml"
    if resume and kept.is_file() and Recipe.load(kept) != space.recipe:
        raise InputError(f"'{folder}' tunes another recipe; resume with {kept}")
    if not kept.is_file():
        write(kept, space.recipe.to_yaml("what this folder tunes"))
    write(folder / "space.json", json.dumps(space.to_dict(), indent=2))
    write(folder / "environment.json", json.dumps(environment(), indent=2))


def _plan(tuning: Tuning, trials: int) -> None:
    """The size of the bar, and how much of it is done."""
    images, sets = len(tuning.dataset.validation), 3 if tuning.terms.goal.atypical else 1
    each = tuning.terms.epochs + sets * measuring_cost(tuning.recipe, images, len(tuning.dataset.train))
    already = len(search.finished(tuning.study))
    controls = len(tuning.space.architectures())
    tuning.display.begin((max(trials, already) + controls) * each + tuning.work(), already * each)


def _search(tuning: Tuning, place: str, crew: Workers, first: int) -> None:
    started = time.monotonic()
    told = Teller(tuning)
    if crew.launcher == "ray" or crew.count > 1:
        team = Crew(
            tuning.study,
            tuning.folder,
            _arguments(tuning, place, crew),
            crew,
            done=lambda: search.done(tuning.study),
            progress=lambda: len(search.finished(tuning.study)),
            first=first,
            look=told.look,
            line=tuning.display.line,
        )
        tuning.display.stage(f"searching with {crew.count} workers")
        try:
            team.run()
        finally:
            tuning.display.panel([])
    else:
        watch = Watch(stage=told.stage, work=tuning.display.advance, line=tuning.display.line)
        worker = Worker(
            tuning.study,
            tuning.terms,
            tuning.dataset,
            tuning.device,
            index=first,
            folder=tuning.folder,
            keep=crew.keep,
            processes=crew.processes,
            watch=watch,
        )
        noted = annotate(worker) if crew.dashboard else None

        def on_trial(trial: FrozenTrial, recipe: Recipe, report: InvarianceReport | None) -> None:
            if noted is not None:
                noted(trial, recipe, report)

        worker.on_trial = on_trial
        worker.run()
    told.trials()
    tuning.phases["search"] = time.monotonic() - started
    spent = search_cost(tuning.study, tuning.terms)
    tuning.display.line(
        f"search    {spent['trials']} trials, {spent['pruned']} pruned, {spent['answered_from_the_study']} answered"
        f" from the study; {spent['epochs_run']} epochs run, {spent['epochs_saved']} saved;"
        f" {tuning.phases['search']:.0f} s"
    )


def _arguments(tuning: Tuning, place: str, crew: Workers) -> list[str]:
    """Of `augkit.worker`, the same for all workers."""
    words = ["--storage", place, "--study", tuning.study.study_name, "--folder", str(tuning.folder)]
    words += ["--retries", str(crew.retries), "--grace", str(crew.grace)]
    words += ["--nproc-per-trial", str(crew.processes)]
    words += ["--device", str(tuning.device)]
    return words + ["--keep-trials"] * crew.keep + ["--dashboard"] * crew.dashboard


def _write(tuning: Tuning, recipe: Recipe, results: dict[str, Any]) -> None:
    tuning.display.stage("writing the report")
    named = recipe.replaced(name=f"{tuning.recipe.name}-tuned")
    best = named.to_yaml(_header(tuning, results))
    sheet = contact_sheet(recipe.policy, some_images(tuning.dataset, recipe))
    picture = summary(results["response"], [row for row in results["table"] if row["arm"] == "best"])
    write(tuning.folder / "best.yaml", best)
    write(tuning.folder / "contact-sheet.png", lambda path: save(sheet, path))
    write(tuning.folder / "summary.png", lambda path: save_png(picture, path))
    write(tuning.folder / "results.json", json.dumps(jsonable(results), indent=2, allow_nan=False))
    write(tuning.folder / "report.html", tuning_page(results, best, sheet))


def some_images(dataset: Dataset, recipe: Recipe) -> torch.Tensor:
    """A few validation images, for a contact sheet."""
    images = dataset.validation
    return images.on_canvas(recipe.data.canvas)[:: max(1, len(images) // SHEET_ROWS)][:SHEET_ROWS]


def _header(tuning: Tuning, results: dict[str, Any]) -> str:
    row = next(row for row in results["table"] if row["arm"] == "best" and row["images"] == "typical")
    learned = format(row["learned_invariance"], ".3f")
    return (
        f"Chosen by augkit.tune among {results['settings']['trials']} trials, for accuracy and learned invariance.\n"
        f"Test split, {row['n_images']} images, {row['n_seeds']} seeds: accuracy {row['accuracy']:.3f}, learned"
        f" invariance {learned}.\n"
        f"Run it: python -m augkit.train {tuning.folder / 'best.yaml'}"
    )


def load_study(folder: Path, storage: str | None, name: str | None) -> optuna.Study:
    """The study of a folder, or one by name in a storage; the folder's only one when ``name`` is None.

    Raises:
        InputError: there is none.
    """
    place = storage or str(folder / JOURNAL)
    if storage is None and not (folder / JOURNAL).is_file():
        raise InputError(f"--show: expected a folder of augkit.tune, there is no '{folder / JOURNAL}'")
    backend = open_storage(place)
    names = [summary.study_name for summary in optuna.get_all_study_summaries(backend)]
    wanted = name or (names[0] if len(names) == 1 else None)
    if wanted not in names:
        raise InputError(f"--show: expected --study, one of: {', '.join(names) or 'none'}; got {name or 'none'}")
    return optuna.load_study(storage=backend, study_name=wanted)
