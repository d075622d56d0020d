"""Compare recipes over seeds: train them, or measure finished runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from augkit.core.errors import InputError
from augkit.core.files import claim, environment, write
from augkit.core.progress import Display
from augkit.core.records import Record
from augkit.core.terminal import command_line
from augkit.data import Dataset
from augkit.invariance import CarryOver
from augkit.measure.comparison import (
    Contrast,
    RunGroup,
    carried_over,
    closing_table,
    conclusion,
    open_test_sets,
)
from augkit.train.build import check_overwrite, choose_device, fresh_model, load_recipe_data
from augkit.train.checkpoint import FILE as CHECKPOINT
from augkit.train.checkpoint import read_checkpoint, stalled
from augkit.train.constraint import check_constraint
from augkit.train.evaluate import check_measurable, measure_model
from augkit.train.loaded_run import load_run
from augkit.train.loop import fit
from augkit.train.recipe import Recipe


@dataclass(frozen=True)
class ComparisonResults(Record):
    """Results of a comparison of recipes.

    Attributes:
        control: name of the control.
        seeds: seeds of every recipe.
        table: one row per recipe and image set (see `augkit.measure.comparison.closing_table`).
        carry_over: carry-over of invariance by atypical image set.
        conclusions: one paragraph for every recipe but the control.
        environment: versions and machine.
    """

    control: str
    seeds: list[int]
    table: Sequence[Any]
    carry_over: dict[str, CarryOver]
    conclusions: dict[str, str]
    environment: Mapping[str, object]


def compare(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    folder: Path,
    *,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    display: Display | None = None,
    log: str = "",
) -> ComparisonResults:
    """Train every recipe with every seed, and measure all networks on the same test images.

    Args:
        recipes: recipes to compare; the first one is the control.
        seeds: seeds of every recipe.
        folder: output folder for the runs and ``results.json``.
        device: device for training and measuring; None takes a GPU if there is one.
        resume: whether to use the runs in ``folder``.
        overwrite: whether to replace an earlier comparison in ``folder``.
        display: progress display.
        log: trackers of every run, as in `augkit.fit`.

    Raises:
        InputError: two recipes have the same name, or recipes differ in their data or in how they are measured.
    """
    names = [recipe.name for recipe in recipes]
    if len(set(names)) != len(names):
        raise InputError(f"compare: expected recipes with different names, got {', '.join(names)}; set name=...")
    _check_comparable(recipes)
    target = choose_device(device)
    dataset = load_recipe_data(recipes[0])
    for recipe in recipes:
        check_measurable(recipe, dataset.validation, fresh_model(recipe, dataset))
        check_constraint(recipe, dataset.validation)
    if overwrite and not resume:
        for recipe in recipes:
            check_overwrite(folder, recipe)
    claim(folder, resume=resume, overwrite=overwrite)
    write(folder / "environment.json", json.dumps(environment(), indent=2))
    show = display or Display(0, quiet=True)
    for note in dataset.notes:
        show.line(note)
    runs = {}
    jobs = [(recipe, seed) for recipe in recipes for seed in seeds]
    coming = [*(f"training {recipe.name}, seed {seed}" for recipe, seed in jobs), "measuring"]
    for (recipe, seed), now, then in zip(jobs, coming, coming[1:], strict=False):
        show.stage(now, then)
        runs[recipe.name, seed] = fit(
            recipe,
            seed,
            output=folder / f"{recipe.name}-seed{seed}",
            resume=True,
            device=target,
            dataset=dataset,
            on_epoch=lambda row: show.advance(1),
            log=log,
        )
    networks = {key: (run.model, run.recipe) for key, run in runs.items()}
    return _measure(networks, names, seeds, dataset, folder, target, show)


def compare_finished(
    folders: Sequence[Path], folder: Path, *, device: str | None = None, display: Display | None = None
) -> ComparisonResults:
    """Measure finished runs, grouped by the name of their recipe; the recipe of the first run is the control.

    Args:
        folders: folders of the runs.
        folder: output folder for ``results.json``.
        device: device for measuring; None takes a GPU if there is one.
        display: progress display.

    Raises:
        InputError: a folder has no finished run, recipes differ in seeds, data or how they are measured, two runs have
            the same recipe and seed, or all runs have the same recipe.
    """
    target = choose_device(device)
    recipes = [finished_recipe(path) for path in folders]
    names = list(dict.fromkeys(recipe.name for recipe in recipes))
    paths = {(recipe.name, recipe.seed): path for recipe, path in zip(recipes, folders, strict=True)}
    seeds = sorted({recipe.seed for recipe in recipes})
    if len(paths) < len(recipes):
        raise InputError("compare: expected one run of each recipe and seed, got some twice")
    if len(names) < 2:
        raise InputError(f"compare: expected runs of two recipes or more, got those of {names[0]} alone")
    missing = [f"{name} seed {seed}" for name in names for seed in seeds if (name, seed) not in paths]
    if missing:
        raise InputError(f"compare: expected the same seeds of every recipe, there is no {missing[0]}")
    _check_comparable(recipes)
    show = display or Display(0, quiet=True)
    dataset = load_recipe_data(recipes[0])
    for note in dataset.notes:
        show.line(note)
    claim(folder)
    write(folder / "environment.json", json.dumps(environment(), indent=2))
    networks = {
        (recipe.name, recipe.seed): (load_run(path).network.to(target), recipe)
        for recipe, path in zip(recipes, folders, strict=True)
    }
    return _measure(networks, names, seeds, dataset, folder, target, show)


def finished_recipe(path: Path) -> Recipe:
    """The recipe of a finished run; raise InputError if the run has not ended, because resuming would train it."""
    recipe = Recipe.load(path)
    steps = recipe.train.steps
    kept = read_checkpoint(path / CHECKPOINT)
    ended = kept.get("step", 0) >= steps if steps else len(kept.get("history", ())) >= recipe.train.epochs
    if not ended and not stalled(kept.get("history", []), recipe.train.patience):
        line = command_line([str(path / "recipe.yaml"), "--output", str(path), "--resume"])
        raise InputError(f"'{path}' holds a run that has not ended: python -m augkit.train {line}")
    return recipe


def _check_comparable(recipes: Sequence[Recipe]) -> None:
    names = ", ".join(dict.fromkeys(recipe.name for recipe in recipes))
    for key in ("data", "invariance"):
        if len({getattr(recipe, key).model_dump_json() for recipe in recipes}) != 1:
            raise InputError(f"compare: expected recipes with the same '{key}', but these differ: {names}")


def _measure(
    networks: Mapping[tuple[str, int], tuple[nn.Module, Recipe]],
    names: Sequence[str],
    seeds: Sequence[int],
    dataset: Dataset,
    folder: Path,
    target: torch.device,
    show: Display,
) -> ComparisonResults:
    """Measure networks, by recipe and seed, and write ``results.json``."""
    show.stage("measuring on the test split and on atypical images")
    sets = open_test_sets(dataset)
    arms = [
        RunGroup(
            name,
            [
                {key: measure_model(*networks[name, s], images, device=target) for key, images in sets.items()}
                for s in seeds
            ],
        )
        for name in names
    ]
    rows = closing_table(arms)
    recipes = {name: networks[name, seeds[0]][1] for name in names}
    reach = recipes[names[0]].invariance.max_shift
    carried = carried_over(
        [(f"{arm.name}, seed {s}", r) for arm in arms for s, r in zip(seeds, arm.reports, strict=True)]
    )
    conclusions = {
        name: conclusion(rows, name, reach, Contrast.between(recipes[name], recipes[names[0]]), carried)
        for name in names[1:]
    }
    results = ComparisonResults(names[0], list(seeds), rows, carried, conclusions, environment())
    write(folder / "results.json", json.dumps(results.to_dict(), indent=2, allow_nan=False))
    return results
