"""Training and evaluation mode of a network, module by module, and copies of any network."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn


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
    """The modules that training leaves in evaluation mode.

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
    return copy.deepcopy(model, memo)


def weights_dtype(model: nn.Module) -> torch.dtype:
    """Of the first floating weights, which is what a network takes; float32 of one without."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def is_lazy(model: nn.Module) -> bool:
    """Whether weights or buffers of it are yet to be made by a first forward pass."""
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
