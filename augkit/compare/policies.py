"""Compare policies in a training loop of the user: every policy and no augmentation, over seeds, on the same images."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from augkit.augment.policy import Policy
from augkit.core.errors import InputError, InputTypeError, RunError, brief, check_whole
from augkit.core.files import environment, write
from augkit.core.named import name_of, refuse_in_import
from augkit.core.progress import Display
from augkit.core.records import Record
from augkit.core.schema import Tree, validate
from augkit.data import Dataset, Images, atypical
from augkit.invariance import CarryOver, Estimate
from augkit.invariance.bootstrap import REPLICATES, PerSeed, combine_seeds
from augkit.invariance.report import ResponseCurve
from augkit.measure.comparison import (
    TYPICAL,
    ComparisonRow,
    Contrast,
    Reports,
    RunGroup,
    carried_over,
    closing_table,
    conclusion,
    open_test_sets,
    response_curve,
)
from augkit.train.evaluate import check_measurable
from augkit.train.recipe import Recipe
from augkit.train.user_folder import train_in
from augkit.train.user_images import checked_images, measuring_settings
from augkit.train.user_loop import Score, TrainFunction, check_function, check_score, check_timeout, measured, scored_by

CONTROL = "control"
CURVE_POINTS = 6
CURVE_METRICS = ("js", "top1_change", "accuracy")


@dataclass(frozen=True)
class ScoreRow(Record):
    """Score of a policy: of each seed, its mean, and the difference to the control (None for the control)."""

    per_seed: list[float]
    mean: Estimate
    gain: Estimate | None


@dataclass(frozen=True)
class PolicyComparison(Record):
    """Results of `augkit.compare_policies`.

    Attributes:
        function: name of the training loop.
        policies: by name; the first one, ``control``, is without augmentation.
        epochs: epochs of every training.
        seeds: seeds of every policy.
        table: one row per policy and image set (see `augkit.measure.comparison.closing_table`), paired by seed.
        scores: by policy, where a score was given.
        curves: by policy, against the length of a shift (pixels) on typical images.
        carry_over: carry-over of invariance by atypical image set.
        conclusions: one paragraph for every policy but the control.
        settings: how the networks were measured.
        environment: versions and machine.
    """

    function: str
    policies: dict[str, Policy]
    epochs: int
    seeds: list[int]
    table: Sequence[ComparisonRow]
    scores: dict[str, ScoreRow]
    curves: dict[str, ResponseCurve] = field(repr=False)
    carry_over: dict[str, CarryOver]
    conclusions: dict[str, str]
    settings: Mapping[str, object]
    environment: Mapping[str, object] = field(repr=False)

    def report(self, path: str | Path) -> Path:
        """Write the page of the comparison, one HTML file that needs no other; return its path."""
        from augkit.compare.policies_page import policies_page

        target = Path(path)
        write(target, policies_page(self))
        return target

    def write(self, folder: str | Path) -> Path:
        """Write ``results.json`` and ``report.html`` to a folder; return it."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        write(target / "results.json", json.dumps(self.to_dict(), indent=2, allow_nan=False))
        self.report(target / "report.html")
        return target

    def to_mapping(self) -> dict[str, object]:
        """The record as a mapping, with each curve as rows."""
        curves = {name: curve.to_rows() for name, curve in self.curves.items()}
        return {**super().to_mapping(), "curves": curves}


def compare_policies(  # noqa: PLR0913 (settings of training and measurement, each with a default)
    train: TrainFunction,
    test: tuple[Tensor, Tensor] | Images | Dataset,
    policies: Mapping[str, Policy],
    *,
    seeds: int = 3,
    epochs: int = 10,
    score: Score | None = None,
    atypical: bool = False,
    seed: int = 1,
    protocol: str = "crop",
    max_shift: float = 4.0,
    kernel: str | None = None,
    pairs: int = 4,
    canvas: int | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    folder: str | Path | None = None,
    timeout: float | None = None,
    quiet: bool = True,
) -> PolicyComparison:
    """Train a loop with each policy and without augmentation, over seeds, and compare the networks' invariance.

    The loop is a function ``train(policy, *, epochs, seed, start)`` as for `augkit.tune_policy`. Networks of one seed
    are compared with each other, and all on the same images and shifts. Intervals are over images and seeds.

    Args:
        train: the training loop.
        test: images that no policy was chosen on, as for `augkit.tune_policy`; of a dataset, the test split.
        policies: the policies by name; ``control``, without augmentation, is added.
        seeds: number of seeds of each policy.
        epochs: epochs of every training.
        score: score of a network in [0, 1], which is compared too; labels may then be None.
        atypical: whether to measure on images with other content as well; images must be uint8.
        seed: the first seed. `augkit.tune_policy` uses 0, and a policy looks too good with the seed that chose it.
        protocol, max_shift, kernel, pairs, canvas, mean, std: as in `augkit.tune_policy`.
        folder: folder for what the function leaves in ``start``, one for each policy and seed, from which the same call
            goes on; None gives it no ``start``.
        timeout: as in `augkit.tune_policy`.
        quiet: whether to print no progress to standard error.

    Raises:
        InputError: an argument is out of its range.
        RunError: a network could not be trained or measured.
    """
    refuse_in_import("compare_policies")
    check_function(train)
    check_score(score)
    for name, number in (("seeds", seeds), ("epochs", epochs)):
        check_whole(name, number, 1)
    check_whole("seed", seed, 0)
    check_timeout(timeout)
    sets = _image_sets(test, scored=score is not None, others=atypical)
    measuring = {"protocol": protocol, "max_shift": max_shift, "kernel": kernel, "pairs": pairs}
    settings = measuring_settings(sets[TYPICAL], **measuring, canvas=canvas, mean=mean, std=std)  # type: ignore[arg-type]
    recipes = {
        name: validate(Recipe, {**settings, "name": name, "policy": tree, "train": {"epochs": epochs}}, "policies")
        for name, tree in _named(policies).items()
    }
    for recipe in recipes.values():
        check_measurable(recipe, sets[TYPICAL])
    every = list(range(seed, seed + seeds))
    reports: dict[str, list[Reports]] = {name: [] for name in recipes}
    scored: dict[str, list[float]] = {name: [] for name in recipes}
    classes: set[int] = set()
    with Display(len(recipes) * seeds, quiet=quiet) as display:
        for number in every:  # seed by seed, so that a failure shows early in every policy
            for name, recipe in recipes.items():
                display.stage(f"{name}, seed {number}")
                start = None if folder is None else Path(folder) / f"{name}-seed{number}"
                with _naming(name, number):
                    model, _ = train_in(train, recipe.replaced(seed=number), start, epochs, timeout=timeout)
                    reports[name].append(_measured(model, recipe, sets))
                    classes.add(reports[name][-1][TYPICAL].settings.classes)
                    if len(classes) > 1:
                        raise RunError(f"train: expected a network with as many outputs as before, got {classes}")
                    if score is not None:
                        scored[name].append(scored_by(score, model))
                display.advance(1)
    return _results(name_of(train), recipes, every, reports, scored if score is not None else {})


@contextlib.contextmanager
def _naming(name: str, seed: int) -> Iterator[None]:
    """Context in which the error of a training names the policy and the seed."""
    try:
        yield
    except RunError as error:
        raise type(error)(f"{name}, seed {seed}: {error}") from error


def _named(policies: Mapping[str, Policy]) -> dict[str, Tree]:
    """The control and the policies as mappings of a recipe.

    Raises:
        InputError: there are none, one is no policy, or one is named as the control.
    """
    if not isinstance(policies, Mapping) or not policies:
        raise InputTypeError(f"policies: expected a mapping of names to augkit.Policy, got {brief(policies)}")
    for name, policy in policies.items():
        if not isinstance(policy, Policy):
            raise InputTypeError(f"policies: expected an augkit.Policy as '{name}', got {type(policy).__name__}")
        if name == CONTROL:
            raise InputError(
                f"policies: expected another name than '{CONTROL}', which is training without augmentation"
            )
    whole = {CONTROL: Policy(), **policies}
    return {name: policy.model_dump(exclude_none=True) for name, policy in whole.items()}


def _image_sets(given: tuple[Tensor, Tensor] | Images | Dataset, *, scored: bool, others: bool) -> dict[str, Images]:
    """The images of the comparison by name, typical ones first."""
    images = checked_images(given.open_test() if isinstance(given, Dataset) else given, "test", scored=scored)
    if not others:
        return {TYPICAL: images}
    if images.images.dtype != torch.uint8:
        raise InputError("test: expected uint8 images for atypical ones, got floating ones")
    return open_test_sets(given) if isinstance(given, Dataset) else {TYPICAL: images, **atypical(images)}


def _measured(model: torch.nn.Module, recipe: Recipe, sets: Mapping[str, Images]) -> Reports:
    """Measure a network on all image sets, with the response curve on typical images."""
    reach = recipe.invariance.max_shift
    lengths = [reach * (k + 1) / CURVE_POINTS for k in range(CURVE_POINTS)]
    return {
        name: measured(model, recipe, images, lengths=lengths if name == TYPICAL else ())
        for name, images in sets.items()
    }


def _results(
    function: str,
    recipes: Mapping[str, Recipe],
    seeds: list[int],
    reports: Mapping[str, list[Reports]],
    scored: Mapping[str, list[float]],
) -> PolicyComparison:
    arms = [RunGroup(name, reports[name]) for name in recipes]
    rows, control = closing_table(arms), recipes[CONTROL]
    carried = carried_over(
        [(f"{arm.name}, seed {s}", r) for arm in arms for s, r in zip(seeds, arm.reports, strict=True)]
    )
    reach = control.invariance.max_shift
    conclusions = {
        name: conclusion(rows, name, reach, Contrast.between(recipe, control), carried)
        for name, recipe in recipes.items()
        if name != CONTROL
    }
    return PolicyComparison(
        function=function,
        policies={name: recipe.policy for name, recipe in recipes.items()},
        epochs=control.train.epochs,
        seeds=seeds,
        table=rows,
        scores=_score_rows(scored),
        curves={arm.name: _curve(arm) for arm in arms},
        carry_over=carried,
        conclusions=conclusions,
        settings=reports[CONTROL][0][TYPICAL].settings.to_dict(),
        environment=environment(),
    )


def _score_rows(scored: Mapping[str, list[float]]) -> dict[str, ScoreRow]:
    """Means over seeds with intervals, and differences to the control, paired by seed."""
    parts = {}
    for name, values in scored.items():
        row = np.asarray(values)
        parts[name] = PerSeed(row, np.broadcast_to(row, (REPLICATES, len(row))))  # scores are not per image
    return {
        name: ScoreRow(
            scored[name],
            part.over_seeds().estimate(0, 1),
            None if name == CONTROL else combine_seeds(np.subtract, part, parts[CONTROL]).over_seeds().estimate(-1, 1),
        )
        for name, part in parts.items()
    }


def _curve(arm: RunGroup) -> ResponseCurve:
    """The response curve of a policy over all seeds."""
    known = next(iter(arm.on(TYPICAL)[0].curve.values()))
    names = [name for name in CURVE_METRICS if name != "accuracy" or "correct" in known]
    found = {name: response_curve(arm, metric=name) for name in names}
    return ResponseCurve("length", list(found["js"]), {name: list(points.values()) for name, points in found.items()})
