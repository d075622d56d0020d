"""Training and evaluation mode of each module of a network, copies of networks, and calls with other weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from augkit.core.errors import InputError, InputTypeError


def check_network(model: object) -> None:
    """Check that ``model`` is a network that can run.

    Raises:
        InputTypeError: the model is not a module.
        InputError: weights or buffers have no values (they are on the device ``meta``).
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            remedy = "model.to_empty(device='cpu') and then model.load_state_dict(...) give it some"
            raise InputError(f"model: expected weights with values, '{name}' is on the device 'meta'; {remedy}")


def check_trainable(model: nn.Module) -> None:
    """Raise InputError for networks that torch can evaluate but not train."""
    for module in model.modules():
        try:
            if isinstance(module, torch.fx.GraphModule):
                module.train(module.training)
        except NotImplementedError:
            raise InputError(
                "model: expected one that can be trained, this was exported by torch.export; give the network from"
                " before export"
            ) from None
    packed = quantized(model)
    if packed is not None:  # torch computes wrong gradients through them, or none
        raise InputError(f"model: expected one that can be trained, '{packed}' is quantized; train it before that")
    for name, weight in model.named_parameters():
        if not isinstance(weight, nn.UninitializedParameter) and weight.is_inference():
            raise InputError(
                f"model: expected weights that can be trained, '{name}' was made under torch.inference_mode();"
                " build the network outside of it"
            )


@contextlib.contextmanager
def evaluated(model: nn.Module) -> Iterator[None]:
    """Context in which ``model`` is in ``eval()``; afterwards every module returns to its own mode.

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
    """Return the modules that stay in evaluation mode while the network is trained.

    These are modules in ``eval()`` within a network in ``train()``, and norms with running statistics whose weights all
    have gradients disabled. For a network that is in ``eval()`` as a whole, they are only these norms.
    """
    return [m for m in model.modules() if (model.training and not m.training) or _is_frozen_norm(m)]


def train(model: nn.Module, frozen: Iterable[nn.Module]) -> None:
    """Put ``model`` in ``train()``, except the modules in ``frozen``."""
    model.train()
    for module in frozen:
        module.training = False


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a network, even if it stores computed tensors.

    `torch.nn.utils.weight_norm` and `spectral_norm` store a weight computed from other weights, and torch refuses to
    copy a tensor with an autograd history.
    """
    computed = {id(t): t for module in model.modules() for value in vars(module).values() for t in _tensors(value)}
    memo: dict[int, Any] = {
        key: tensor.detach().clone() for key, tensor in computed.items() if not tensor.is_leaf or tensor.is_inference()
    }
    with torch.no_grad():  # otherwise the weights of a scripted network would be computed from its own
        return copy.deepcopy(model, memo)


def called_with(model: nn.Module, state: Mapping[str, Tensor], *inputs: Any) -> Any:
    """Run a network with other weights and buffers in the place of its own, which it keeps.

    `torch.func.functional_call` alone would leave some of the others in a module that has several names.

    Args:
        model: the network.
        state: tensors by the names of ``named_parameters`` and ``named_buffers``, one for each of its own.
        inputs: arguments of the network.
    """
    names = {id(own): name for name, own in (*model.named_parameters(), *model.named_buffers())}
    whole = {
        f"{prefix}.{name}".removeprefix("."): state[names[id(own)]]
        for prefix, module in model.named_modules()  # each module once, each weight under all names within it
        for name, own in (
            *module.named_parameters(recurse=False, remove_duplicate=False),
            *module.named_buffers(recurse=False, remove_duplicate=False),
        )
    }
    return torch.func.functional_call(model, whole, inputs, tie_weights=False)


def as_written(model: nn.Module) -> nn.Module:
    """Return the network inside `torch.compile` or `torch.nn.DataParallel`, whose layers run one by one."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def quantized(model: nn.Module) -> str | None:
    """Return the name of the first packed weights of a quantized layer in the state dict; None without any."""
    found = (k for k, v in model.state_dict().items() if isinstance(v, tuple) and any(isinstance(t, Tensor) for t in v))
    return next(found, None)


def weights_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype of a network's first floating weights, which its inputs need; float32 without any."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def is_lazy(model: nn.Module) -> bool:
    """Whether a network has weights or buffers that its first forward pass will create."""
    unmade = (nn.UninitializedParameter, nn.UninitializedBuffer)
    return any(isinstance(each, unmade) for each in (*model.parameters(), *model.buffers()))


def _switch(modes: list[tuple[nn.Module, bool]]) -> None:
    # By `train`, which some modules override; it also sets submodules, which come later in the list.
    for module, training in modes:
        if module.training != training:
            with contextlib.suppress(NotImplementedError):  # of an exported network, whose mode is fixed
                module.train(training)
    for module, training in modes:  # submodules of two modules may have been set again
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
