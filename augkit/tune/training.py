"""How the network of a configuration is trained and measured: by `augkit.fit`, or by a function of the user."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from augkit.architectures.blocks import pooling_first
from augkit.core.errors import InputError
from augkit.data import Dataset, Images
from augkit.invariance import InvarianceReport
from augkit.train.checkpoint import FILE, read_checkpoint
from augkit.train.evaluate import measure_model
from augkit.train.history import OnEpoch
from augkit.train.loop import fit
from augkit.train.recipe import Recipe

OnBatch = Callable[[int, int], None]


class Training(Protocol):
    """What the worker of a search needs to know of training."""

    @property
    def chance(self) -> float:
        """Accuracy of an answer that does not look at the image."""

    def train(
        self, recipe: Recipe, folder: Path | None, until: int, on_epoch: OnEpoch, alive: Callable[[], None]
    ) -> nn.Module:
        """Train a configuration up to epoch ``until``; go on from what an earlier call left in ``folder``.

        Args:
            recipe: the configuration.
            folder: folder of the run; None keeps none.
            until: last epoch to train, counted from 1.
            on_epoch: called for every epoch that was trained.
            alive: called at least every few seconds.

        Raises:
            RunError: training failed.
        """

    def epochs_in(self, folder: Path, recipe: Recipe, until: int) -> int:
        """Epochs of training that ``train`` can go on from; 0 if there are none, or if they are more than ``until``."""

    def measure(
        self, model: nn.Module, recipe: Recipe, images: Images, lengths: Sequence[float], on_batch: OnBatch
    ) -> InvarianceReport:
        """Measure a trained network on images."""

    def scores(self, model: nn.Module, report: InvarianceReport) -> tuple[float, float | None]:
        """Accuracy, or what stands in its place, and Cohen's kappa; None if the images have no labels."""


@dataclass(frozen=True)
class RecipeTraining:
    """Training by `augkit.fit`.

    Attributes:
        dataset: data of the recipe; the test split is not opened.
        device: device for training and measuring.
        processes: processes per trial, started by torchrun.
    """

    dataset: Dataset
    device: torch.device
    processes: int = 1

    @property
    def chance(self) -> float:
        """Accuracy of a guess among the classes."""
        return 1 / len(self.dataset.classes)

    def train(
        self, recipe: Recipe, folder: Path | None, until: int, on_epoch: OnEpoch, alive: Callable[[], None]
    ) -> nn.Module:
        """Train, or go on from the checkpoint in ``folder``."""
        return self.train_from(None, recipe, folder, until, on_epoch, alive)

    def train_from(
        self,
        weights: Path | None,
        recipe: Recipe,
        folder: Path | None,
        until: int,
        on_epoch: OnEpoch,
        alive: Callable[[], None],
    ) -> nn.Module:
        """As ``train``, from the weights in a file; None takes initial ones. They need one process."""
        if self.processes > 1:
            from augkit.train.torchrun import fit_by_torchrun

            device = None if self.device.type == "cuda" else str(self.device)
            return fit_by_torchrun(recipe, folder, self.processes, self.dataset, on_epoch, alive, device).model
        return fit(
            recipe,
            output=folder,
            resume=True,
            weights=weights,
            device=self.device,
            dataset=self.dataset,
            until=until,
            on_epoch=on_epoch,
            alive=alive,
        ).model

    def epochs_in(self, folder: Path, recipe: Recipe, until: int) -> int:
        """Epochs in the checkpoint; 0 if it is missing, damaged, of another recipe, or past epoch ``until``."""
        try:
            found = read_checkpoint(folder / FILE)
        except (InputError, OSError):
            return 0
        epochs = len(found.get("history", ()))
        return epochs if found.get("recipe") == recipe.model_dump() and epochs <= until else 0

    def measure(
        self, model: nn.Module, recipe: Recipe, images: Images, lengths: Sequence[float], on_batch: OnBatch
    ) -> InvarianceReport:
        """Measure a network by the settings of its recipe."""
        with pooling_first(model):
            return measure_model(model, recipe, images, lengths=lengths, device=self.device, on_batch=on_batch)

    def scores(self, model: nn.Module, report: InvarianceReport) -> tuple[float, float | None]:
        """Accuracy and Cohen's kappa of the report."""
        return report.accuracy.value, report.kappa.value
