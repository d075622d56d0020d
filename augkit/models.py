"""MODEL, wherever a command takes one, to a network with what is known about its input."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from augkit.errors import InputError, unknown_name
from augkit.recipe import Recipe
from augkit.schema import validate
from augkit.training import build_recipe_model, read_checkpoint

FORMS = "a run folder, a checkpoint, torchvision:NAME, timm:NAME or package.module:callable"


@dataclass(frozen=True)
class LoadedModel:
    """A network; where it is known, its recipe, mean and std, and the side of its input in pixels."""

    model: nn.Module
    recipe: Recipe | None = None
    mean: list[float] | None = None
    std: list[float] | None = None
    input_size: int | None = None


def load_model(source: str, weights: str | Path | None = None) -> LoadedModel:
    """Load a network.

    Args:
        source: a run folder or checkpoint of augkit, ``torchvision:NAME``, ``timm:NAME``, or
            ``package.module:callable``, called without arguments.
        weights: a file with a state dict, loaded with ``weights_only=True``; without it the networks of
            torchvision, timm and callables come as they are built, which is untrained for the first two.

    Raises:
        InputError: nothing of that name, or weights that do not fit, with the keys.
    """
    path = Path(source).expanduser()
    if path.exists():
        loaded = _from_run(path / "checkpoint.pt" if path.is_dir() else path)
    elif source.startswith("torchvision:"):
        loaded = _from_torchvision(source.removeprefix("torchvision:"))
    elif source.startswith("timm:"):
        loaded = _from_timm(source.removeprefix("timm:"))
    elif ":" in source:
        loaded = _from_callable(source)
    else:
        raise InputError(f"model '{source}': expected {FORMS}; there is no such file or folder")
    if weights is not None:
        _load_weights(loaded.model, Path(weights))
    return loaded


def _from_run(path: Path) -> LoadedModel:
    if not path.is_file():
        raise InputError(f"model '{path.parent}': expected a run folder with checkpoint.pt, there is none")
    state = read_checkpoint(path)
    if "recipe" not in state:
        raise InputError(f"'{path}': a bare state dict names no network; give MODEL and --weights {path}")
    recipe = validate(Recipe, state["recipe"], str(path))
    model = build_recipe_model(recipe, state["input"], recipe.seed)
    _fit_weights(model, state["model"], path)
    return LoadedModel(model, recipe, recipe.data.mean, recipe.data.std, state["input"]["side"])


def _from_torchvision(name: str) -> LoadedModel:
    from torchvision import models

    try:
        model = models.get_model(name, weights=None)
    except ValueError:
        raise unknown_name("torchvision model", name, models.list_models(module=models)) from None
    return LoadedModel(model, None, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


def _from_timm(name: str) -> LoadedModel:
    try:
        import timm
    except ImportError:
        raise InputError("model 'timm:...': timm is not installed; pip install 'augkit[timm]'") from None
    try:
        model = timm.create_model(name, pretrained=False)
    except RuntimeError as error:
        raise InputError(f"model 'timm:{name}': {str(error).splitlines()[0]}") from None
    config: dict[str, Any] = getattr(model, "pretrained_cfg", {}) or {}
    size = config.get("input_size", (3, None, None))[-1]
    return LoadedModel(model, None, list(config.get("mean", ())) or None, list(config.get("std", ())) or None, size)


def _from_callable(source: str) -> LoadedModel:
    module_name, _, attribute = source.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does: modules beside the caller are found
    try:
        make = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"model '{source}': cannot be imported ({error})") from None
    if not callable(make):
        raise InputError(f"model '{source}': expected a callable, got {type(make).__name__}")
    try:
        model = make()
    except Exception as error:  # the user's own code may raise anything; their traceback is one call away
        raise InputError(f"model '{source}': calling it failed ({type(error).__name__}: {error})") from error
    if not isinstance(model, nn.Module):
        raise InputError(f"model '{source}': expected it to return an nn.Module, got {type(model).__name__}")
    return LoadedModel(model)


def _load_weights(model: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise InputError(f"weights '{path}': no such file")
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is no checkpoint
        raise InputError(f"weights '{path}': cannot be read ({str(error).splitlines()[0][:120]})") from None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    _fit_weights(model, state, path)


def _fit_weights(model: nn.Module, state: Any, path: Path) -> None:
    if not isinstance(state, dict):
        raise InputError(f"weights '{path}': expected a state dict, got {type(state).__name__}")
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise InputError(f"weights '{path}' do not fit the network: {'; '.join(lines)[:300]}") from None
