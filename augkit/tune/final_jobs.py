"""Final networks, each trained and measured by itself, by whichever process of a team is free (`augkit.tune.team`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from augkit.architectures.blocks import pooling_first
from augkit.measure.comparison import TYPICAL, Reports
from augkit.train.evaluate import measure_model
from augkit.train.history import OnEpoch
from augkit.train.loop import fit
from augkit.train.recipe import Recipe
from augkit.tune.team import VALIDATION, TeamData


@dataclass(frozen=True)
class FinalJob:
    """One network to train, unless its folder holds it, and to measure.

    Attributes:
        name: its name without the seed.
        recipe, seed, folder: of its run.
        sets: names of the image sets to measure it on: `VALIDATION`, or those of the test split.
        lengths: lengths of the shifts (pixels) in the response curve on typical test images; empty for none.
    """

    name: str
    recipe: Recipe
    seed: int
    folder: Path
    sets: tuple[str, ...] = (VALIDATION,)
    lengths: tuple[float, ...] = ()

    def perform(
        self,
        data: TeamData,
        device: torch.device,
        on_epoch: OnEpoch | None = None,
        alive: Callable[[], object] | None = None,
    ) -> Reports:
        """Train the network, or load it, and measure it; return its reports by image set."""
        run = fit(
            self.recipe,
            self.seed,
            output=self.folder,
            resume=True,
            device=device,
            dataset=data.dataset,
            on_epoch=on_epoch,
            alive=alive,
        )
        reports: Reports = {}
        with pooling_first(run.model):
            for name in self.sets:
                lengths = self.lengths if name == TYPICAL else ()
                reports[name] = measure_model(run.model, run.recipe, data.images(name), lengths=lengths, device=device)
        return reports
