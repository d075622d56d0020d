"""Reads state dicts safely from files and fits them to a network; errors name the entries that do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from augkit.architectures.modes import quantized
from augkit.core.errors import InputError
from augkit.core.safe_files import Unreadable, is_safetensors, load_safely, the_file

# Keys of checkpoints under which training scripts store the network's state dict, or its moving average.
NESTS = (
    *("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params"),
    *("model_ema", "state_dict_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema"),
)
# Name parts added by wrappers of a network or a part of it: data parallel and averaged models, torch.compile, sharding,
# recomputing, Lightning's strategies.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
DEPTH = 3  # parts of a network's names that can be a prefix
NESTED = 4  # levels of a checkpoint that are searched
SHOWN = 3  # names of each kind shown in one line


@dataclass(frozen=True)
class Misfit:
    """Differences between a state dict and a network, by name; ``shapes`` and ``kinds`` describe both sides."""

    missing: list[str]
    unexpected: list[str]
    shapes: list[str]
    kinds: list[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.shapes or self.kinds)

    def __str__(self) -> str:
        whole = ((self.missing, "missing"), (self.unexpected, "unexpected"), (self.shapes, "of another shape"))
        return "; ".join(_listed(names, what) for names, what in (*whole, (self.kinds, "of another kind")) if names)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read a state dict from a file of `torch.save` (safely, by `load_safely`) or a ``.safetensors`` file.

    It may be nested in a checkpoint under one of `NESTS`, or under any name if it is the only state dict. A state dict
    of numpy arrays is converted to tensors.

    Raises:
        InputError: the file does not exist, cannot be read safely, or contains no state dict.
    """
    try:
        file = the_file(path)
        safetensors = file.suffix.lower() == ".safetensors" or is_safetensors(file)
        nested = _safetensors(file) if safetensors else load_safely(file)
    except FileNotFoundError as error:
        raise InputError(f"weights '{path}': {error}") from None
    except (Unreadable, OSError) as error:
        raise InputError(f"weights '{path}': cannot be read safely ({error}); save model.state_dict()") from None
    if not isinstance(nested, dict):
        raise InputError(f"weights '{path}': expected a state dict, got {type(nested).__name__}")
    tensors = _state_in(nested)
    if not tensors:
        inner: Any = nested
        for _ in range(NESTED):  # the innermost error is the most specific
            inner = next((inner[key] for key in NESTS if isinstance(inner.get(key), dict)), inner)
        listed = ", ".join(map(str, list(inner)[:SHOWN])) or "nothing"
        raise InputError(f"weights '{path}': expected a state dict, a dict of tensors, got one of {listed}")
    return tensors


def unwrapped(state: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Return ``state`` renamed to the ``names`` of a network where they differ only in wrappers and one prefix.

    The names of `WRAPPERS` are ignored everywhere. A prefix on either side (``model.``, ``backbone.``) is replaced by
    that of the other side if more names then match.

    >>> list(unwrapped({"module._orig_mod.fc.weight": torch.zeros(1)}, ["fc.weight"]))
    ['fc.weight']
    >>> list(unwrapped({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}, ["net.fc.weight", "net.fc.bias"]))
    ['net.fc.weight', 'net.fc.bias']
    """
    own = {_bare(name): name for name in names}
    if len(own) < len(set(names)):  # both `fc` and `module.fc`
        own = {name: name for name in names}
    given = {_bare(key): value for key, value in state.items()}
    if len(given) < len(state):
        given = dict(state)
    off, on = _prefixes(given, own)
    rest = {key: value for key, value in given.items() if not key.startswith(off)}
    given = {**rest, **{on + key[len(off) :]: value for key, value in given.items() if key.startswith(off)}}
    averages = "n_averaged"  # the count of torch.optim.swa_utils.AveragedModel
    return {own.get(key, key): value for key, value in given.items() if key != averages or key in own}


def fit_weights(model: nn.Module, state: Mapping[str, Tensor], path: str | Path, *, strict: bool = True) -> Misfit:
    """Load ``state`` into ``model``.

    Args:
        model: the network, changed in place.
        state: the state dict.
        path: file name for messages.
        strict: raise where an entry does not fit; otherwise omit it.

    Returns:
        The differences between the state dict and the network, whose entries were omitted.

    Raises:
        InputError: the state dict does not fit (the message lists missing and unexpected names, other shapes, and kinds
            that are not weights: integers, complex, quantized); without ``strict``, no entry fits. Also if values are
            NaN or infinite, or if weights of the network are not tensors.
    """
    own = model.state_dict()
    packed = quantized(model)
    if packed is not None:
        raise InputError(f"weights '{path}': '{packed}' of the network is quantized; load them before quantizing it")
    given = unwrapped(state, own)
    misfit = _compared(own, given)
    fitting = {k: v for k, v in given.items() if k in own and _same_shape(own[k], v) and _same_kind(own[k], v)}
    if misfit and (strict or not fitting):
        raise InputError(f"weights '{path}' do not fit the network: {misfit}")
    weights = {name for name, _ in model.named_parameters()}
    wrong = [key for key, value in fitting.items() if _is_undefined(own[key], value, weight=key in weights)]
    if wrong:
        raise InputError(f"weights '{path}': expected finite values, {_listed(wrong, 'with NaN or infinity')}")
    try:
        model.load_state_dict(fitting, strict=False)  # missing and unexpected names have been compared above
    except RuntimeError as error:  # a custom module may need more
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"weights '{path}' do not fit the network: {reason}") from None
    return misfit


def final_layer(model: nn.Module) -> tuple[str, int] | None:
    """Return the name and the number of outputs of the last linear or convolutional layer; None without one.

    >>> final_layer(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4, 10)))
    ('2', 10)
    """
    last = None
    for name, module in model.named_modules():
        count = getattr(module, "out_features", None) or getattr(module, "out_channels", None)
        if isinstance(count, int) and isinstance(getattr(module, "weight", None), Tensor):
            last = (name, count)
    return last


def _state_in(content: Any, depth: int = NESTED) -> dict[str, Tensor] | None:
    """Return the state dict that ``content`` is or contains; None without one."""
    if not isinstance(content, dict) or not depth:
        return None
    # An entry of such a name may be empty, or hold settings of the network; then the next is searched.
    named = next(filter(None, (_state_in(content.get(key), depth - 1) for key in NESTS)), None)
    if named:
        return named
    if content and all(isinstance(key, str) and _is_numeric(value) for key, value in content.items()):
        return {key: torch.from_numpy(np.array(value)) for key, value in content.items()}
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    own = [value for value in content.values() if isinstance(value, dict) and _is_state(value)]
    if len(own) == 1 and not any(value.ndim for value in tensors.values()):  # other entries may be a loss or a count
        return own[0]
    return tensors or None


def _is_state(state: dict[Any, Any]) -> bool:
    return bool(state) and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items())


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and (value.dtype.kind in "fic" or value.dtype in (np.uint8, np.bool_))


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _prefixes(given: Collection[str], own: Collection[str]) -> tuple[str, str]:
    """Return the prefixes of the ``given`` names and of the network's ``own`` names for which most names match."""
    best, pair = 0, ("", "")
    for on in dict.fromkeys(prefix for name in ("", *own) for prefix, _ in _splits(name, DEPTH)):
        inner = {name.removeprefix(on) for name in own if name.startswith(on)}
        found = Counter(off for name in given for off, rest in _splits(name) if rest in inner)
        off, count = max(found.items(), key=lambda item: item[1], default=("", 0))  # the first of several
        # A prefix is replaced only if many names match: a few, such as `weight`, match by chance.
        if count > best and (not (off and on) or 2 * count >= len(own)):
            best, pair = count, (off, on)
    return pair


def _splits(name: str, depth: int | None = None) -> Iterator[tuple[str, str]]:
    """Yield ``name`` split before each of its parts, or its first ``depth`` parts, beginning with an empty prefix."""
    parts = name.split(".")
    for k in range(len(parts))[:depth]:
        yield "".join(f"{part}." for part in parts[:k]), ".".join(parts[k:])


def _compared(own: Mapping[str, Any], given: Mapping[str, Tensor]) -> Misfit:
    # Files from before batch norm counted its batches lack the counts; torch sets them to 0. Entries added by
    # `get_extra_state` are not weights.
    needed = [key for key in own if isinstance(own[key], Tensor) and not key.endswith("num_batches_tracked")]
    return Misfit(
        [key for key in needed if key not in given],
        [key for key in given if key not in own],
        [
            f"{key} is {_shape(given[key])}, not {_shape(own[key])}"
            for key in own
            if key in given and not _same_shape(own[key], given[key])
        ],
        [
            f"{key} is {_kind(given[key])}, not {_kind(own[key])}"
            for key in own
            if key in given and _same_shape(own[key], given[key]) and not _same_kind(own[key], given[key])
        ],
    )


def _same_shape(own: Any, given: Any) -> bool:
    if not isinstance(own, Tensor) or isinstance(own, (nn.UninitializedParameter, nn.UninitializedBuffer)):
        return True
    return isinstance(given, Tensor) and own.shape == given.shape


def _same_kind(own: Any, given: Any) -> bool:
    """Whether ``given`` can be copied into ``own`` and remain valid weights."""
    if not isinstance(own, Tensor) or not isinstance(given, Tensor):
        return True
    if given.is_quantized or given.is_meta or given.layout != torch.strided:
        return False
    if given.is_complex():
        return own.is_complex()
    return given.is_floating_point() or not (own.is_floating_point() or own.is_complex())


def _kind(value: Tensor) -> str:
    name = str(value.dtype).removeprefix("torch.")
    return "without values" if value.is_meta else name if value.layout == torch.strided else f"sparse {name}"


def _is_undefined(own: Any, given: Any, *, weight: bool) -> bool:
    """Whether values are NaN or infinite; allowed in buffers where the network's own are, as in attention masks."""
    if not isinstance(own, Tensor) or not isinstance(given, Tensor) or not given.is_floating_point():
        return False
    lazy = isinstance(own, (nn.UninitializedParameter, nn.UninitializedBuffer))
    given = given.to(torch.float32 if lazy else own.dtype)  # large float64 values may be infinite in this dtype
    bad = ~torch.isfinite(given)
    if not weight and not lazy and own.is_floating_point():
        bad &= torch.isfinite(own).to(bad.device)
    return bool(bad.any())


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__


def _listed(names: list[str], what: str) -> str:
    if not names:
        return ""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{len(names)} {what} ({', '.join(names[:SHOWN])}{more})"


def _safetensors(file: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError:
        raise InputError(f"weights '{file}': safetensors is not installed; pip install safetensors") from None
    try:
        return load_file(file)
    except Exception as error:  # it raises many kinds of exceptions for other files
        raise Unreadable(error) from None
