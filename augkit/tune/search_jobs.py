"""One configuration of a search, taken up to a rung and measured there by whichever process of a team is free."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from augkit.data import Images, sample
from augkit.invariance import InvarianceReport
from augkit.measure.comparison import TYPICAL
from augkit.train.history import EpochRow, OnEpoch
from augkit.train.recipe import Recipe
from augkit.tune.team import TeamData
from augkit.tune.training import RecipeTraining, Training


@dataclass(frozen=True)
class RungScores:
    """A configuration that was trained up to a rung and measured there.

    Attributes:
        accuracy: accuracy, or what stands in its place, in [0, 1].
        kappa: Cohen's kappa; None for images without labels.
        reports: measurements by image set.
    """

    accuracy: float
    kappa: float | None
    reports: Mapping[str, InvarianceReport]

    def variability(self, images: str = TYPICAL) -> float:
        """Shift information; its maximum, 1, where it is undefined because the answers carry no information."""
        found = self.reports[images].shift_information
        return found.value if found.defined else 1.0


@dataclass(frozen=True)
class Searched:
    """What a `SearchJob` returns.

    Attributes:
        scores: scores on the rung.
        rows: rows of the history of the epochs that were trained.
        seconds, measuring: time of training and measuring, and of measuring alone.
    """

    scores: RungScores
    rows: list[EpochRow]
    seconds: float
    measuring: float


@dataclass(frozen=True)
class SearchJob:
    """A configuration to train up to a rung, and to measure.

    Attributes:
        recipe: the configuration, with the epochs of a trial.
        folder: folder of its run, in which it goes on; None keeps none.
        until: last epoch to train, counted from 1.
        measured: the recipe with the settings by which it is measured.
        images: number of images of each set on which it is measured; None takes all.
        atypical: seed of the atypical images; None measures on typical ones alone.
        lengths: lengths of the shifts (pixels) in the response curve on typical images; empty for none.
    """

    recipe: Recipe
    folder: Path | None
    until: int
    measured: Recipe
    images: int | None = None
    atypical: int | None = None
    lengths: tuple[float, ...] = ()

    def perform(
        self,
        data: TeamData,
        device: torch.device,
        on_epoch: OnEpoch | None = None,
        alive: Callable[[], None] | None = None,
    ) -> Searched:
        """Train it by `augkit.fit`, and measure it on all image sets."""
        training = RecipeTraining(data.dataset, device)
        return self.perform_by(
            training, lambda: data.searched(self.atypical), on_epoch or (lambda row: None), alive or (lambda: None)
        )

    def perform_by(
        self,
        training: Training,
        sets: Callable[[], Mapping[str, Images]],
        on_epoch: OnEpoch,
        alive: Callable[[], None],
    ) -> Searched:
        """Train it, and measure it on image sets, of which one is ``typical``.

        ``sets`` is called once it is trained, and may wait for something; that time is not its own.
        """

        def on_row(row: EpochRow) -> None:
            rows.append(row)
            on_epoch(row)

        began, rows, reports = time.monotonic(), list[EpochRow](), dict[str, InvarianceReport]()
        model = training.train(self.recipe, self.folder, self.until, on_row, alive)
        trained = time.monotonic() - began
        shown_sets, began = sets(), time.monotonic()
        for name, images in shown_sets.items():
            shown = images if self.images is None else sample(images, self.images)
            lengths = self.lengths if name == TYPICAL else ()
            reports[name] = training.measure(model, self.measured, shown, lengths, lambda done, of: alive())
        measuring = time.monotonic() - began
        scores = RungScores(*training.scores(model, reports[TYPICAL]), reports)
        return Searched(scores, rows, trained + measuring, measuring)
