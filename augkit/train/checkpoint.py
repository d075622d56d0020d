"""The folder of a run, and the checkpoint from which it continues bit for bit.

Every random stream of training depends on seed, epoch and step (`augkit.train.batches`, `augkit.train.loop`), so the
number of the step determines the state of all streams and the position in the data.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from augkit.architectures.modes import copied, frozen_modules
from augkit.core.errors import InputError
from augkit.core.files import environment, write
from augkit.core.precision import widest
from augkit.core.safe_files import Unreadable, load_safely
from augkit.core.schema import Tree
from augkit.train.build import InputEntry, NetworkInput
from augkit.train.history import EpochRow
from augkit.train.optimizer import make_optimizer
from augkit.train.recipe import Recipe

FILE = "checkpoint.pt"
# Types of a checkpoint's entries, without 'best', which may be None; a file of another program may hold 'model' alone.
ENTRY_TYPES: dict[str, type] = {
    **dict.fromkeys(("model", "trained", "optimizer", "scaler", "recipe", "input"), dict),
    **{"step": int, "seen": Tensor, "history": list},
}
FEW = 16  # channels: a block of oneDNN's widest kernels


StateDict = dict[str, Any]  # of a module, an optimizer or a scaler of torch


class Best(TypedDict):
    """The most accurate weights so far; ``epoch`` counts from 1."""

    accuracy: float
    epoch: NotRequired[int]
    model: StateDict


class Checkpoint(TypedDict):
    """Contents of ``checkpoint.pt``; a typed dict, as `torch.save` writes it.

    Weights and the states of optimizer and scaler are state dicts of torch; ``trained`` are the trained weights if
    ``model`` is their moving average. See `State` for the others, and `augkit.train.build.NetworkInput` for
    ``input``.
    """

    model: StateDict
    trained: NotRequired[StateDict]
    optimizer: NotRequired[StateDict]
    scaler: NotRequired[StateDict]
    step: NotRequired[int]
    seen: NotRequired[Tensor]
    history: NotRequired[list[EpochRow]]
    best: NotRequired[Best | None]
    recipe: NotRequired[Tree]
    input: NotRequired[InputEntry]


def memory_format(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.memory_format:
    """Return the memory format of images and weights in training: channels last if the recipe sets it and it is safe.

    On a CPU oneDNN's gradient of a strided 1x1 convolution of few channels writes past its buffer in that format, which
    is a crash or wrong numbers (https://github.com/uxlfoundation/oneDNN/issues/6035).
    """
    unsafe = device.type == "cpu" and any(
        isinstance(layer, nn.Conv2d)
        and set(layer.kernel_size) == {1}
        and max(layer.stride) > 1
        and layer.in_channels // layer.groups < FEW
        for layer in model.modules()
    )
    return torch.channels_last if recipe.train.channels_last and not unsafe else torch.contiguous_format


@dataclass
class State:
    """A run in progress.

    Attributes:
        model: the weights that are trained.
        optimizer, scaler: optimizer and gradient scaler of these weights; the scaler is used only in float16.
        averaged: moving average of the weights, or None.
        step: updates so far.
        frozen: modules that stay in ``eval()`` while the others are trained.
        seen: ``(3,)`` on the device, in its widest dtype (float32 counts to 2**24 images): sum of losses and number of
            images in this epoch, and the first step whose loss was not finite (infinity if none was).
        form: memory format of images and weights.
        history: one row per epoch.
        best: the best weights so far with their accuracy, for early stopping; else None.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    averaged: nn.Module | None
    frozen: list[nn.Module]
    seen: Tensor
    form: torch.memory_format = torch.contiguous_format
    step: int = 0
    history: list[EpochRow] = field(default_factory=list)
    best: Best | None = None

    @classmethod
    def begin(cls, model: nn.Module, recipe: Recipe, device: torch.device) -> State:
        """Return the state before the first step; ``model`` is moved to ``device``."""
        form = memory_format(model, recipe, device)
        model = model.to(device, memory_format=form)  # type: ignore[call-overload]
        scaler = torch.amp.GradScaler(device.type, enabled=recipe.train.precision == "float16")
        frozen = frozen_modules(model)
        averaged = copied(model) if recipe.train.ema else None
        for weight in averaged.parameters() if averaged is not None else ():  # the only way for a scripted module
            weight.requires_grad_(False)
        seen = torch.empty(3, dtype=widest(device))
        state = cls(model, make_optimizer(model, recipe.optim), scaler, averaged, frozen, seen, form)
        state.seen = state.seen.to(device)
        state.begin_epoch()
        return state

    def begin_epoch(self) -> None:
        """Reset the sum of losses."""
        self.seen[:2], self.seen[2] = 0.0, math.inf

    def count(self, loss: Tensor, images: int) -> None:
        """Add the mean ``loss`` of ``images`` images, without synchronizing with the device."""
        loss = loss.detach().to(self.seen.dtype)
        first_bad = torch.where(torch.isfinite(loss), math.inf, float(self.step)).minimum(self.seen[2])
        self.seen.copy_(torch.stack([self.seen[0] + loss * images, self.seen[1] + images, first_bad]))

    @property
    def result(self) -> nn.Module:
        """The network that is evaluated and kept: the averaged one, if there is one."""
        return self.model if self.averaged is None else self.averaged

    def average(self, decay: float) -> None:
        """Move the averaged weights by ``1 - decay`` towards the trained ones; faster in the first steps."""
        assert self.averaged is not None
        # As in timm and TensorFlow: early averages must not consist of the initial weights.
        update = get_ema_multi_avg_fn(min(decay, (1 + self.step) / (10 + self.step)))
        pairs = zip(self.averaged.parameters(), self.model.parameters(), strict=True)
        averaged, trained = map(
            list, zip(*((mine, new) for mine, new in pairs if new.is_floating_point()), strict=True)
        )
        with torch.no_grad():
            update(averaged, trained, self.step)
            mine, new = list(self.averaged.buffers()), list(self.model.buffers())
            if [b.shape for b in mine] == [b.shape for b in new]:
                for kept, value in zip(mine, new, strict=True):
                    kept.copy_(value)
            else:
                _match_buffers(self.averaged, self.model)

    def keep_best(self, accuracy: float) -> None:
        """Keep a copy of the weights if they are the most accurate so far."""
        if self.best is None or accuracy > self.best["accuracy"]:
            state = self.result.state_dict()
            # Entries that a custom module adds by `get_extra_state` need not be tensors.
            weights = copy.copy(state)  # with the versions of its modules, by which these read it
            for key, value in state.items():
                weights[key] = value.detach().clone() if isinstance(value, Tensor) else copy.deepcopy(value)
            self.best = {"accuracy": accuracy, "epoch": len(self.history) + 1, "model": weights}


def _match_buffers(averaged: nn.Module, trained: nn.Module) -> None:
    """The buffers of the trained network, where some were made or resized since training began."""
    for mine, new in zip(averaged.modules(), trained.modules(), strict=True):
        for name, value in new.named_buffers(recurse=False):
            mine.register_buffer(name, value.clone(), persistent=name in new.state_dict())


def stalled(history: Sequence[EpochRow], patience: int | None) -> bool:
    """Whether none of the last ``patience`` evaluations improved the accuracy.

    >>> stalled([{"validation_accuracy": value} for value in (0.5, 0.6, 0.6, 0.4)], 2)
    True
    """
    found = [row["validation_accuracy"] for row in history if "validation_accuracy" in row]
    return patience is not None and len(found) > patience and max(found[-patience:]) <= max(found[:-patience])


def kept_epoch(history: Sequence[EpochRow], best: Best | None) -> int:
    """The epoch of the weights that a run gives: the best one where it keeps that, else the last."""
    return len(history) if best is None else best.get("epoch", len(history))


def describe(folder: Path, recipe: Recipe) -> None:
    """Write ``recipe.yaml``, resolved, and ``environment.json``."""
    found = environment()
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number)
    write(folder / "recipe.yaml", recipe.to_yaml(f"resolved; {versions}"))
    write(folder / "environment.json", json.dumps({**found, "seed": recipe.seed}, indent=2))


def save(folder: Path, recipe: Recipe, network_input: NetworkInput, state: State) -> None:
    """Write checkpoint and metrics, each atomically."""
    kept: Checkpoint = {
        "model": state.result.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "step": state.step,
        "seen": state.seen,
        "history": state.history,
        "best": state.best,
        "recipe": recipe.model_dump(),
        "input": network_input.to_dict(),
    }
    if state.averaged is not None:
        kept["trained"] = state.model.state_dict()
    write(folder / FILE, lambda path: torch.save(kept, path))
    write_metrics(folder, state.history)


def write_metrics(folder: Path, history: Sequence[EpochRow]) -> None:
    """Write ``metrics.jsonl``, a line per epoch, unless it is there."""
    path, text = folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history)
    with contextlib.suppress(OSError, ValueError):
        if path.read_text(encoding="utf-8") == text:
            return
    write(path, text)


def other_recipe(folder: Path) -> InputError:
    """The error for a folder whose checkpoint has another recipe or seed than the run that would resume it."""
    return InputError(f"'{folder}' holds a run of another recipe or seed; resume with its own recipe.yaml")


def restore(folder: Path, recipe: Recipe, state: State, device: torch.device) -> bool:
    """Restore the checkpoint in ``folder``, and return whether there was one.

    Raises:
        InputError: the checkpoint has another recipe or seed, or cannot be read.
    """
    path = folder / FILE
    if not path.is_file():
        return False
    found = read_checkpoint(path, device)
    if found.get("recipe") != recipe.model_dump():
        raise other_recipe(folder)
    try:
        state.model.load_state_dict(found.get("trained", found["model"]))
        if state.averaged is not None:
            state.averaged.load_state_dict(found["model"])
        state.optimizer.load_state_dict(found["optimizer"])
        state.scaler.load_state_dict(found["scaler"])
        state.seen.copy_(found["seen"])
        state.step, state.history, state.best = found["step"], found["history"], found["best"]
        if state.step < 0 or (state.best is not None and not {"accuracy", "model"} <= state.best.keys()):
            raise ValueError("'step' or 'best' are not those of a run")
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"'{path}': it does not fit this run ({reason}); start anew with --overwrite") from None
    return True


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> Checkpoint:
    """Read a checkpoint safely, and check its entries against `ENTRY_TYPES`.

    Raises:
        InputError: the file is not a checkpoint, or is broken.
    """
    try:
        state = load_safely(path, device)
    except Unreadable as error:
        raise InputError(f"'{path}': expected a checkpoint of augkit, cannot be read ({error})") from None
    if not isinstance(state, dict) or "model" not in state:
        raise InputError(f"'{path}': expected a dict with 'model', a state dict")
    for key, kind in ENTRY_TYPES.items():
        if key in state and not isinstance(state[key], kind):
            raise InputError(f"'{path}': expected '{key}' to be a {kind.__name__}, got {type(state[key]).__name__}")
    if not all(isinstance(row, dict) for row in state.get("history", ())):
        raise InputError(f"'{path}': expected 'history' to be a list of dicts, one per epoch")
    return cast(Checkpoint, state)
