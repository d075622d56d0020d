"""Runs in Weights & Biases. ``WANDB_PROJECT``, ``WANDB_MODE=offline`` and its other variables work as always."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from augkit.train.recipe import Recipe
from augkit.train.trackers.base import keep_name, kept_name, project, run_name, settings_of


class WandbTracker:
    """Records a run of W&B; its files lie in ``wandb`` of the run's folder until they are sent."""

    _run: Any = None

    def start(self, recipe: Recipe, output: Path | None) -> None:
        """Begin a run of W&B, or go on with the one of the folder."""
        known = kept_name(output, "wandb")
        self._run = wandb.init(
            project=project("WANDB_PROJECT"),
            name=run_name(recipe),
            dir=None if output is None else str(output),
            config=settings_of(recipe),
            id=known,
            resume="allow" if known else None,
            reinit="create_new",
            settings=wandb.Settings(console="off"),  # what the terminal shows names folders
        )
        keep_name(output, "wandb", self._run.id)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the numbers of an epoch."""
        self._run.log({"epoch": step, **values}, step=step)

    def close(self) -> None:
        """Send what is left."""
        if self._run is not None:
            self._run.finish()
