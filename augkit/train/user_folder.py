"""The folder in which a user's training loop keeps the state from which it continues."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import nn

from augkit.core.files import write
from augkit.train.recipe import Recipe
from augkit.train.user_loop import TrainFunction, trained_by


def train_in(
    function: TrainFunction,
    recipe: Recipe,
    folder: Path | None,
    until: int,
    *,
    timeout: float | None = None,
    alive: Callable[[], None] = lambda: None,
) -> tuple[nn.Module, int]:
    """Call the function with the policy and the seed of a recipe; a folder that it cannot go on from is emptied before.

    Args:
        function: the training loop.
        recipe: the recipe.
        folder: its ``start``; None gives none.
        until: its ``epochs``.
        timeout, alive: as in `trained_by`.

    Returns:
        The network, and the number of epochs after which the function had left the folder before.
    """
    before = 0
    if folder is not None:
        before = epochs_in(folder, recipe, until)
        if not before:
            shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    model = trained_by(
        function, recipe.policy, epochs=until, seed=recipe.seed, start=folder, timeout=timeout, alive=alive
    )
    if folder is not None and any(folder.iterdir()):
        write(_mark(folder), json.dumps({"recipe": recipe.digest(), "epochs": until}))
    return model, before


def epochs_in(folder: Path, recipe: Recipe, until: int) -> int:
    """Epochs after which a function left ``folder``; 0 if empty, of another recipe, or past ``until``."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_mark(folder).read_text(encoding="utf-8"))
        if found["recipe"] == recipe.digest() and found["epochs"] <= until and any(folder.iterdir()):
            return int(found["epochs"])
    return 0


def _mark(folder: Path) -> Path:
    """File beside a folder that says after which epoch the function left it; inside, the function would see it."""
    return folder.with_name(f"{folder.name}.json")
