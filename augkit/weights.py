"""State dicts from files, read safely and fitted to a network: what does not fit is named."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from augkit.errors import InputError

# Where training scripts put the state dict of the network in their checkpoints.
NESTS = ("state_dict", "model_state_dict", "model_state", "model")
# What wrappers put before every name: data parallel and averaged models, Lightning modules, torch.compile.
PREFIXES = ("module.", "model.", "_orig_mod.")
SHOWN = 3  # names of each kind that one line can hold


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a file of `torch.save`, read with ``weights_only=True``, or in a ``.safetensors`` file.

    It may be nested in a checkpoint under one of `NESTS`.

    Raises:
        InputError: no such file; not readable safely; no state dict in it.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError(f"weights '{path}': no such file")
    try:
        state = _safetensors(file) if file.suffix == ".safetensors" else _torch(file)
    except InputError:
        raise
    except Exception as error:  # both raise many kinds for a file that is none of theirs
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"weights '{path}': cannot be read safely ({reason}); save model.state_dict()") from None
    nested = state
    while isinstance(nested, dict):
        state, found = nested, [key for key in NESTS if isinstance(nested.get(key), dict)]
        nested = nested[found[0]] if found else None
    if not isinstance(state, dict):
        raise InputError(f"weights '{path}': expected a state dict, got {type(state).__name__}")
    tensors = {key: value for key, value in state.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        listed = ", ".join(map(str, list(state)[:SHOWN])) or "nothing"
        raise InputError(f"weights '{path}': expected a state dict, a dict of tensors, got one of {listed}")
    return tensors


def unwrapped(state: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """``state`` without the prefixes of wrappers, as far as that makes more of it fit the ``names`` of a network.

    >>> list(unwrapped({"module._orig_mod.fc.weight": torch.zeros(1)}, ["fc.weight"]))
    ['fc.weight']
    """
    known = set(names)
    best = candidate = dict(state)
    while prefix := next((p for p in PREFIXES if any(key.startswith(p) for key in candidate)), None):
        candidate = {key.removeprefix(prefix): value for key, value in candidate.items()}
        if len(known.intersection(candidate)) > len(known.intersection(best)):
            best = candidate
    averages = "n_averaged"  # the count of torch.optim.swa_utils.AveragedModel
    return {key: value for key, value in best.items() if key != averages or key in known}


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Load ``state`` into ``model``; ``path`` is for the message.

    Raises:
        InputError: it does not fit; which names are missing, unexpected or of another shape, the first few of each.
    """
    own = model.state_dict()
    given = unwrapped(state, own)
    # Files from before batch norm counted its batches do not have the counts; torch sets them to 0.
    missing = [key for key in own if key not in given and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in own]
    shapes = [
        f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}"
        for key in own
        if key in given and isinstance(own[key], Tensor) and given[key].shape != own[key].shape
    ]
    wrong = [
        _listed(missing, "missing"),
        _listed(unexpected, "unexpected"),
        _listed(shapes, "of another shape"),
    ]
    if any(wrong):
        raise InputError(f"weights '{path}' do not fit the network: {'; '.join(filter(None, wrong))}")
    try:
        model.load_state_dict(given)
    except RuntimeError as error:  # a module of the user's own may ask for more
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"weights '{path}' do not fit the network: {reason}") from None


def final_layer(model: nn.Module) -> tuple[str, int] | None:
    """The name and the number of outputs of the last linear or convolutional layer; None without one.

    >>> final_layer(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 10)))
    ('2', 10)
    """
    last = None
    for name, module in model.named_modules():
        count = getattr(module, "out_features", None) or getattr(module, "out_channels", None)
        if isinstance(count, int) and isinstance(getattr(module, "weight", None), Tensor):
            last = (name, count)
    return last


def _listed(names: list[str], what: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})"


def _torch(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"weights '{file}': safetensors is not installed; pip install safetensors") from None
    return load_file(file)
