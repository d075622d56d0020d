"""A run, during and after training."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augkit.architectures.outputs import classification_loss
from augkit.core.errors import AugkitError, DeviceMemoryError, InputError, RunError
from augkit.core.random_streams import NETWORK, drawing
from augkit.train.augmix import augmix_loss
from augkit.train.batches import BatchSource
from augkit.train.build import NetworkInput
from augkit.train.checkpoint import FILE, State, save
from augkit.train.constraint import constrained_loss, dual_variable
from augkit.train.distributed import Process
from augkit.train.evaluate import Evaluation
from augkit.train.history import EpochRow
from augkit.train.policy_in_training import PolicyInTraining
from augkit.train.recipe import Recipe


@dataclass(frozen=True)
class Run:
    """A trained network with its recipe, its seed, one row per epoch, and its folder if it has one.

    ``model`` is in ``eval()``; ``evaluation`` is that of the validation split. ``epoch`` is that of the weights of
    ``model``: with ``train.patience`` the best one, else the last.
    """

    recipe: Recipe
    seed: int
    model: nn.Module
    history: list[EpochRow]
    folder: Path | None
    evaluation: Evaluation
    epoch: int

    @property
    def row(self) -> EpochRow:
        """The row of the history that is about the weights of ``model``."""
        return self.history[self.epoch - 1]


@dataclass(frozen=True)
class TrainJob:
    """A run in training.

    Attributes:
        held_out: validation images, or batches of images and labels.
        network_input: images and classes of the network.
        classes: number of classes of the network.
    """

    recipe: Recipe
    state: State
    batches: BatchSource
    policy: PolicyInTraining
    held_out: Any
    network_input: NetworkInput
    classes: int
    folder: Path | None
    device: torch.device
    process: Process

    def loss(self, output: Any, targets: Tensor) -> Tensor:
        """The loss of a network's output for a part of a batch and its targets."""
        smoothing, weight = self.recipe.train.label_smoothing, self.policy.js_weight
        if weight:
            return augmix_loss(output, targets, weight, smoothing, classes=self.classes)
        if self.recipe.constraint is not None:
            dual = dual_variable(self.recipe, self.state.history)
            return constrained_loss(output, targets, dual, smoothing, classes=self.classes)
        return classification_loss(output, targets, smoothing, classes=self.classes)

    def save(self) -> None:
        """Write a checkpoint in the first process, if the run has a folder."""
        if self.folder is not None and self.process.first:
            save(self.folder, self.recipe, self.network_input, self.state)

    @contextlib.contextmanager
    def updating(self, images: int) -> Iterator[None]:
        """Context of one update, with the random stream of its number for random layers such as dropout.

        Raises:
            DeviceMemoryError: the ``images`` images do not fit into memory.
            InputError: the network fails on them in training mode.
        """
        step = self.state.step
        try:
            with drawing(self.device, self.recipe.seed, NETWORK, step, self.process.rank):
                yield
        except torch.OutOfMemoryError:
            raise DeviceMemoryError(self.device) from None
        except Exception as error:  # the network's own code may raise anything
            if "backward through the graph a second time" in str(error):
                raise InputError(
                    "model: it keeps tensors of the update before with their gradients; detach() what forward keeps"
                ) from error
            # After the first update the cause is another, such as a lost process; except batch norm of a single image.
            if isinstance(error, AugkitError) or (step and not isinstance(error, ValueError)):
                raise
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
            raise InputError(f"model: update {step + 1} fails, of {images} images ({reason})") from error

    def finite_loss(self, rate: float) -> float:
        """Return the mean loss of this epoch so far, or raise RunError if a loss was not finite; synchronizes."""
        total, count, first_bad = self.process.total(self.state.seen.clone()).tolist()
        if math.isfinite(total):
            return float(total / count)
        step = self.state.step if math.isinf(first_bad) else int(first_bad) + 1
        history = self.state.history
        kept = f"; '{self.folder / FILE}' keeps epoch {len(history)}" if self.folder and history else ""
        raise RunError(f"the loss is {total} at step {step}, learning rate {rate:.3g}{kept}; try a lower optim.lr")
