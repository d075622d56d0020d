"""Training and evaluation mode of a network, module by module, and copies of any network."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from augkit.core.errors import InputError, InputTypeError


def check_network(model: object) -> None:
    """Raise unless ``model`` is a network that can be run.

    Raises:
        InputTypeError: no module.
        InputError: weights or buffers without values, on the device ``meta``.
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            remedy = "model.to_empty(device='cpu') and then model.load_state_dict(...) give it some"
            raise InputError(f"model: expected weights with values, '{name}' is on the device 'meta'; {remedy}")


def check_trainable(model: nn.Module) -> None:
    """Raise InputError for networks that torch evaluates and cannot train."""
    for module in model.modules():
        try:
            if isinstance(module, torch.fx.GraphModule):
                module.train(module.training)
        except NotImplementedError:
            raise InputError(
                "model: expected one that can be trained, this was exported by torch.export; give the network from"
                " before export"
            ) from None
    packed = quantised(model)
    if packed is not None:  # torch gives wrong gradients through them, or none
        raise InputError(f"model: expected one that can be trained, '{packed}' is quantised; train it before that")
    for name, weight in model.named_parameters():
        if not isinstance(weight, nn.UninitializedParameter) and weight.is_inference():
            raise InputError(
                f"model: expected weights that can be trained, '{name}' was made under torch.inference_mode();"
                " build the network outside of it"
            )


@contextlib.contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """``model`` in ``eval()`` for as long as the context lasts; then every module is in its own mode again.

    >>> net = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout())
    >>> _ = net[0].eval()  # a frozen norm in a network that is trained
    >>> with evaluated(net):
    ...     print([module.training for module in net.modules()])
    [False, False, False]
    >>> [module.training for module in net.modules()]
    [True, False, True]
    """
    # A frozen module of TorchScript has no mode.
    modes = [(module, module.training) for module in model.modules() if hasattr(module, "training")]
    _switch([(module, False) for module, _ in modes])
    try:
        yield
    finally:
        _switch(modes)


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that stay in evaluation mode while the network is trained.

    Those in ``eval()`` within a network that is in ``train()``; and norms with running statistics whose own weights
    all do without gradients. Of a network that is in ``eval()`` as a whole only the latter: it was evaluated before.
    """
    return [m for m in model.modules() if (model.training and not m.training) or _is_frozen_norm(m)]


def train(model: nn.Module, frozen: Iterable[nn.Module]) -> None:
    """``model`` in ``train()``, but for the modules that are ``frozen``."""
    model.train()
    for module in frozen:
        module.training = False


def copied(model: nn.Module) -> nn.Module:
    """A copy of a network, also of one that keeps tensors it computed.

    Such as the weight that `torch.nn.utils.weight_norm` and `spectral_norm` compute from others: torch refuses to copy
    a tensor with a gradient's history.
    """
    computed = {id(t): t for module in model.modules() for value in vars(module).values() for t in _tensors(value)}
    memo: dict[int, Any] = {
        key: tensor.detach().clone() for key, tensor in computed.items() if not tensor.is_leaf or tensor.is_inference()
    }
    with torch.no_grad():  # or the weights of a scripted one would be computed from its own
        return copy.deepcopy(model, memo)


def as_written(model: nn.Module) -> nn.Module:
    """The network within `torch.compile` or `torch.nn.DataParallel`, whose layers can be watched one by one."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def quantised(model: nn.Module) -> str | None:
    """The name in the state dict of the first weights that a quantised layer of torch packs into a tuple; or None."""
    found = (k for k, v in model.state_dict().items() if isinstance(v, tuple) and any(isinstance(t, Tensor) for t in v))
    return next(found, None)


def weights_dtype(model: nn.Module) -> torch.dtype:
    """The dtype of a network's first floating weights, which its inputs must have; float32 where it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def is_lazy(model: nn.Module) -> bool:
    """Whether a network has weights or buffers that its first forward pass will create."""
    unmade = (nn.UninitializedParameter, nn.UninitializedBuffer)
    return any(isinstance(each, unmade) for each in (*model.parameters(), *model.buffers()))


def _switch(modes: list[tuple[nn.Module, bool]]) -> None:
    # Through `train`, as some modules do work in it; it also sets what lies within, which comes later in the list.
    for module, training in modes:
        if module.training != training:
            with contextlib.suppress(NotImplementedError):  # of an exported one, which stays as it was exported
                module.train(training)
    for module, training in modes:  # what lies within two modules may have been set again
        module.training = training


def _is_frozen_norm(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    kept = dict(module.named_buffers(recurse=False))
    return "running_mean" in kept and bool(own) and not any(p.requires_grad for p in own)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from _tensors(each)
