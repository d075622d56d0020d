"""The report of a training run."""

from __future__ import annotations

from pathlib import Path

import torch

from augkit.augment.contact_sheet import contact_sheet
from augkit.core.errors import InputError
from augkit.core.files import environment, write
from augkit.data import Dataset, Stream
from augkit.train.checkpoint import stalled
from augkit.train.constraint import outcome
from augkit.train.loop import Run
from augkit.train.page import RunRecord, run_page

SHOWN = 6  # training images on the report


def write_report(run: Run, dataset: Dataset) -> Path:
    """Write ``report.html`` into the folder of a run, and return its path.

    Args:
        run: with a folder.
        dataset: dataset of the run, for pictures of augmented images and the names of classes.

    Raises:
        InputError: the run has no folder.
    """
    if run.folder is None:
        raise InputError("write_report: expected a run with a folder, got one without; give fit an output")
    write(run.folder / "report.html", _page(run, dataset))
    return run.folder / "report.html"


def _page(run: Run, dataset: Dataset) -> str:
    recipe, train = run.recipe, dataset.listed_train
    shown = train.take(torch.linspace(0, len(train) - 1, SHOWN).long().unique()).put_on_canvas(recipe.data.canvas)
    notes = list(dataset.notes)
    if stalled(run.history, recipe.train.patience):
        notes.append(f"Stopped early: {recipe.train.patience} evaluations brought no better accuracy.")
    if (found := outcome(recipe, run.history)) is not None:
        notes.append(f"{found.capitalize()}.")
    record = RunRecord(
        name=recipe.name,
        seed=run.seed,
        history=list(run.history),
        classes=dataset.classes,
        confusion=run.evaluation.confusion.tolist(),
        recipe_yaml=recipe.to_yaml(),
        environment=environment(),
        notes=notes,
    )
    images = (shown.load() if isinstance(shown, Stream) else shown).images
    return run_page(record, contact_sheet(recipe.policy, images, zoom=2 if images.shape[-1] <= 64 else 1))
