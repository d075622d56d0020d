"""Runs in Trackio, which keeps them on this machine and shows them by ``trackio show``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio

from augkit.train.recipe import Recipe
from augkit.train.trackers.base import keep_name, kept_name, project, run_name, settings_of


class TrackioTracker:
    """Records a run of Trackio; ``TRACKIO_PROJECT`` names another project than augkit."""

    _run: Any = None

    def start(self, recipe: Recipe, output: Path | None) -> None:
        """Begin a run of Trackio, or go on with the one of the folder."""
        known = kept_name(output, "trackio")
        self._run = trackio.init(
            project=project("TRACKIO_PROJECT"),
            name=known or run_name(recipe),
            config=settings_of(recipe),
            resume="allow" if known else "never",
            embed=False,
        )
        keep_name(output, "trackio", self._run.name)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the numbers of an epoch."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Wait until all is written."""
        if self._run is not None:
            trackio.finish()  # after run.finish(), Python's exit would end it again and print a line
