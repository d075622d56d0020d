"""The training loop, top to bottom: recipe and seed to run.

Initial weights, data order and augmentation each have a random stream of their own, named by the seed, and the
last two start anew every epoch. So two recipes that differ in their policy alone see the same images in the
same order from the same weights, and a run that goes on from a checkpoint equals one that was never stopped.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from augkit.architectures import build_model
from augkit.data import Dataset, Images, load_dataset
from augkit.errors import InputError, RunError
from augkit.recipe import Recipe
from augkit.storage import claim, environment, write

ORDER, AUGMENTATION = 1, 2  # names of random streams
OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Run:
    """A trained network with its recipe, its seed, one row per epoch, and its folder if it has one."""

    recipe: Recipe
    seed: int
    model: nn.Module
    history: list[dict[str, Any]]
    folder: Path | None


def fit(
    recipe: Recipe,
    seed: int | None = None,
    *,
    output: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    device: str | torch.device | None = None,
    dataset: Dataset | None = None,
    on_epoch: OnEpoch | None = None,
) -> Run:
    """Train the recipe's network.

    Args:
        recipe: what to train.
        seed: of initial weights, order and augmentation; the recipe's own when None.
        output: folder for ``recipe.yaml``, ``metrics.jsonl``, ``checkpoint.pt``, ``environment.json``; nothing
            is written when None.
        resume: go on from the checkpoint in ``output``; bitwise on the CPU. A finished run is only loaded.
        overwrite: replace a run that stands in ``output``.
        device: ``cpu``, ``cuda``, ...; a GPU if there is one when None.
        dataset: the recipe's data, if already loaded.
        on_epoch: called with each row of the history.

    Raises:
        InputError: the output exists, or holds another recipe; data or device are not there.
        RunError: the loss became NaN or infinite; a file could not be written.
    """
    seed = recipe.seed if seed is None else seed
    target = choose_device(device)
    dataset = dataset or load_recipe_data(recipe)
    folder = None if output is None else claim(Path(output), resume=resume, overwrite=overwrite)
    fits = describe_input(recipe, dataset)
    model = build_recipe_model(recipe, fits, seed).to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = _optimizer(model, recipe)
    history = _restore(folder, recipe, seed, model, optimizer, target) if folder and resume else []
    if folder and not history:
        _describe(folder, recipe, seed)
    augment = recipe.policy.augment(normalize=(recipe.data.mean, recipe.data.std), dtype=torch.float32).to(target)
    images = dataset.train.on_canvas(recipe.data.canvas).to(target)
    labels = _labels(dataset.train).to(target)
    batch = min(recipe.train.batch_size, len(images))
    steps = len(images) // batch  # the last, smaller batch is left out: it would upset batch norm
    for epoch in range(len(history), recipe.train.epochs):
        started = time.perf_counter()
        order = torch.randperm(len(images), generator=_stream(seed, ORDER, epoch, torch.device("cpu")))
        generator = _stream(seed, AUGMENTATION, epoch, target)
        model.train()
        augment.train()
        total = torch.zeros((), device=target)
        for step in range(steps):
            rate = learning_rate(epoch * steps + step, recipe.train.epochs * steps, recipe)
            for group in optimizer.param_groups:
                group["lr"] = rate
            chosen = order[step * batch : (step + 1) * batch].to(target)
            inputs = augment(images[chosen], generator=generator)
            logits = model(inputs.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels[chosen], label_smoothing=recipe.train.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            total += loss.detach()
        mean_loss = float(total) / steps  # the only wait for the device in an epoch
        if not math.isfinite(mean_loss):
            raise RunError(_diverged(mean_loss, epoch, rate, folder, history))
        row = {
            "epoch": epoch + 1,
            "loss": mean_loss,
            "validation_accuracy": accuracy(model, dataset.validation, recipe, target),
            "lr": rate,
            "seconds": time.perf_counter() - started,
        }
        history.append(row)
        if folder:
            _save(folder, recipe.replaced(seed=seed), fits, model, optimizer, history)
        if on_epoch is not None:
            on_epoch(row)
    model.eval()
    return Run(recipe, seed, model, history, folder)


def accuracy(model: nn.Module, data: Images, recipe: Recipe, device: torch.device) -> float:
    """Share of ``data`` that the model gets right, without augmentation."""
    model.eval()
    mean, std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (recipe.data.mean, recipe.data.std))
    images, labels = data.on_canvas(recipe.data.canvas), _labels(data)
    correct = torch.zeros((), device=device)
    with torch.inference_mode():
        for start in range(0, len(images), 500):
            inputs = (images[start : start + 500].to(device).float() / 255 - mean) / std
            guesses = model(inputs.contiguous(memory_format=torch.channels_last)).argmax(-1)
            correct += (guesses == labels[start : start + 500].to(device)).sum()
    return float(correct) / len(images)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up to the largest rate, then half a cosine down to 0."""
    warm = recipe.train.warmup * steps
    if step < warm:
        return recipe.optim.lr * (step + 1) / (warm + 1)
    return recipe.optim.lr * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))


def describe_input(recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """What a network must fit: ``classes`` (names), ``channels`` and ``side`` in pixels."""
    shape = dataset.train.images.shape
    return {"classes": dataset.classes, "channels": shape[1], "side": recipe.data.canvas or shape[-1]}


def build_recipe_model(recipe: Recipe, fits: dict[str, Any], seed: int) -> nn.Module:
    """The recipe's network for data as `describe_input` says, with the initial weights that ``seed`` names."""
    settings = recipe.model
    return build_model(
        settings.name,
        len(fits["classes"]),
        fits["channels"],
        downsample=settings.downsample,
        head=settings.head,
        padding_mode=settings.padding_mode,
        activation=settings.activation,
        stem=settings.stem,
        width=settings.width,
        input_size=fits["side"],
        seed=seed,
    )


def load_recipe_data(recipe: Recipe) -> Dataset:
    """The recipe's dataset, checked against its channels and canvas."""
    data = recipe.data
    dataset = load_dataset(data.name, root=data.root, image_size=data.image_size, limit=data.limit)
    channels = dataset.train.images.shape[1]
    if len(data.mean) not in (1, channels):
        raise InputError(f"recipe {recipe.name}: data.mean: expected 1 or {channels} values, got {len(data.mean)}")
    side = max(dataset.train.images.shape[-2:])
    if data.canvas is not None and data.canvas < side:
        raise InputError(f"recipe {recipe.name}: data.canvas: expected at least {side} pixels, got {data.canvas}")
    return dataset


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; a GPU if there is one when None.

    Raises:
        InputError: there is no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"device '{device}': cannot be used here ({reason})") from None
    return chosen


def _stream(seed: int, name: int, epoch: int, device: torch.device) -> torch.Generator:
    # A product of odd numbers keeps streams apart; torch's generators mix the seed themselves.
    mixed = (seed * 0x9E3779B1 + name * 0x85EBCA77 + epoch * 0xC2B2AE3D) % 2**63
    return torch.Generator(device).manual_seed(mixed)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    settings = recipe.optim
    weights = [p for p in model.parameters() if p.ndim > 1]
    spared = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": spared, "weight_decay": 0.0},
    ]
    if settings.name == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    return torch.optim.SGD(groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.momentum > 0)


def _labels(images: Images) -> Tensor:
    if images.labels is None:
        raise InputError("training: expected labelled images, these have no labels")
    return images.labels


def _diverged(loss: float, epoch: int, rate: float, folder: Path | None, history: list[dict[str, Any]]) -> str:
    kept = f"; '{folder / 'checkpoint.pt'}' keeps epoch {len(history)}" if folder and history else ""
    return f"the loss is {loss} in epoch {epoch + 1} at learning rate {rate:.3g}{kept}; try a lower optim.lr"


def _describe(folder: Path, recipe: Recipe, seed: int) -> None:
    found = environment(seed=seed)
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items() if number)
    write(folder / "recipe.yaml", recipe.replaced(seed=seed).to_yaml(f"resolved; {versions}"))
    write(folder / "environment.json", json.dumps(found, indent=2))


def _save(
    folder: Path,
    recipe: Recipe,
    fits: dict[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, Any]],
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
        "recipe": recipe.model_dump(),
        "input": fits,
    }
    write(folder / "checkpoint.pt", lambda path: torch.save(state, path))
    write(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history))


def _restore(
    folder: Path,
    recipe: Recipe,
    seed: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    device: torch.device,
) -> list[dict[str, Any]]:
    path = folder / "checkpoint.pt"
    if not path.is_file():
        return []
    state = read_checkpoint(path, device)
    if state.get("recipe") != recipe.replaced(seed=seed).model_dump():
        raise InputError(f"'{folder}' holds a run of another recipe or seed; resume with its own recipe.yaml")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    history: list[dict[str, Any]] = state["history"]
    return history


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A checkpoint's dict, read safely (``weights_only=True``).

    Raises:
        InputError: not a checkpoint, or a broken one.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"'{path}': expected a checkpoint of augkit, cannot be read ({reason[:120]})") from None
    if not isinstance(state, dict) or "model" not in state:
        raise InputError(f"'{path}': expected a dict with 'model', a state dict")
    return state
