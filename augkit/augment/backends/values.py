"""Queries of a tensor: whether torch records or traces it, and its values where reading them needs no wait.

This file uses private functions of torch. Under `torch.func` a tensor is a wrapper whose values cannot be read, and
torch has no public way to unwrap it (``torch._C._functorch``) or to detect that a forward derivative is computed
(``forward_ad._current_level``).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch = torch._C._functorch


def recorded(*tensors: Tensor) -> bool:
    """Whether autograd records, or torch traces or transforms, operations on the tensors."""
    return (
        traced()
        or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        or transformed()
        or forward_ad._current_level >= 0
    )


def traced() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is running."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def transformed() -> bool:
    """Whether a transform of `torch.func` is running: vmap, grad, jvp and so on."""
    return _functorch.peek_interpreter_stack() is not None


def differentiated(tensor: Tensor) -> bool:
    """Whether a derivative with respect to ``tensor`` is being recorded, backward or forward."""
    if torch.is_grad_enabled() and tensor.requires_grad:
        return True
    if traced():
        return False
    while _functorch.is_functorch_wrapped_tensor(tensor):
        if _functorch.is_gradtrackingtensor(tensor):
            return True
        tensor = _functorch.get_unwrapped(tensor)
    return forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None


def concrete(tensor: Tensor, dims: int) -> Tensor:
    """Return the readable values of ``tensor``: detached, unwrapped, all but its last ``dims`` dimensions flattened."""
    tensor = tensor.detach()
    while not traced() and _functorch.is_functorch_wrapped_tensor(tensor):
        axis, batched = _functorch.maybe_get_bdim(tensor), _functorch.is_batchedtensor(tensor)
        tensor = _functorch.get_unwrapped(tensor)
        tensor = tensor.movedim(axis, 0) if batched else tensor
    return tensor.detach().reshape(-1, *tensor.shape[tensor.ndim - dims :])


def known_finite(images: Tensor) -> bool:
    """Whether ``images`` are known to hold neither NaN nor infinity, without waiting for a device."""
    if images.device.type != "cpu" or traced() or transformed():
        return False
    # One pass and no copy; a sum that overflows counts as an infinity, which only costs time.
    return bool(images.detach().sum().isfinite())


def laid_out(out: Tensor, images: Tensor) -> Tensor:
    """Return ``out`` in the memory format of ``images``, contiguous or channels_last, with the same values."""
    if transformed() or images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return out
    return out.contiguous(memory_format=torch.channels_last)
