"""The folder in which a user's training loop keeps the state from which it continues."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import nn

from augkit.core.errors import InputError, WriteError
from augkit.core.files import write
from augkit.core.named import name_of
from augkit.train.recipe import Recipe
from augkit.train.user_loop import TrainFunction, trained_by


def train_in(
    function: TrainFunction,
    recipe: Recipe,
    folder: Path | None,
    until: int,
    *,
    ours: bool = False,
    timeout: float | None = None,
    alive: Callable[[], None] = lambda: None,
) -> tuple[nn.Module, int]:
    """Call the function with the policy and the seed of a recipe; a folder that it cannot go on from is emptied before.

    Args:
        function: the training loop.
        recipe: the recipe.
        folder: its ``start``; None gives none.
        until: its ``epochs``.
        ours: whether the folder lies where only augkit makes folders, so that it may be emptied whatever is in it.
        timeout, alive: as in `trained_by`.

    Returns:
        The network, and the number of epochs after which the function had left the folder before.

    Raises:
        InputError: the folder has files that no function left there.
        RunError: as in `trained_by`, or the folder cannot be made.
    """
    before, name = 0, name_of(function)
    if folder is not None:
        before = epochs_in(folder, recipe, until, name)
        if not before:
            _make_empty(folder, ours=ours)
            _note(folder, recipe, name, 0)
    model = trained_by(
        function, recipe.policy, epochs=until, seed=recipe.seed, start=folder, timeout=timeout, alive=alive
    )
    if folder is not None and any(folder.iterdir()):
        _note(folder, recipe, name, until)
    return model, before


def epochs_in(folder: Path, recipe: Recipe, until: int, function: str | None = None) -> int:
    """Epochs after which a function left ``folder``; 0 if empty, of another recipe or function, or past ``until``.

    ``function`` is its name; None where that of the recipe tells functions apart.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(_mark(folder).read_text(encoding="utf-8"))
        same = function is None or found.get("function", function) == function  # older marks name none
        if same and found["recipe"] == recipe.digest() and found["epochs"] <= until and any(folder.iterdir()):
            return int(found["epochs"])
    return 0


def _make_empty(folder: Path, *, ours: bool) -> None:
    """Make a folder, or empty one of which a function made use; errors as in `train_in`."""
    try:
        if not ours and folder.is_dir() and any(folder.iterdir()) and not _mark(folder).is_file():
            raise InputError(
                f"start '{folder}': expected no folder or what the function left there, got files of something else;"
                " name another folder"
            )
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"start '{folder}': cannot be made ({error.strerror or error})") from None


def _note(folder: Path, recipe: Recipe, function: str, epochs: int) -> None:
    """Note that a function has left a folder after so many epochs; 0 while it trains for the first time."""
    write(_mark(folder), json.dumps({"recipe": recipe.digest(), "function": function, "epochs": epochs}))


def _mark(folder: Path) -> Path:
    """File beside a folder that says after which epoch the function left it; inside, the function would see it."""
    return folder.with_name(f"{folder.name}.json")
