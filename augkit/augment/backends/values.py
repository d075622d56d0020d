"""Queries of a tensor: whether torch records or traces it, and its values where reading them needs no wait."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from augkit.core.torch_private import (
    in_forward_derivative,
    in_function_transform,
    is_wrapped,
    is_wrapped_by_gradient,
    unwrapped,
)


def recorded(*tensors: Tensor) -> bool:
    """Whether autograd records, or torch traces or transforms, operations on the tensors."""
    return (
        traced()
        or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        or in_function_transform()
        or in_forward_derivative()
    )


def traced() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is running."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def differentiated(tensor: Tensor) -> bool:
    """Whether a derivative with respect to ``tensor`` is being recorded, backward or forward."""
    if torch.is_grad_enabled() and tensor.requires_grad:
        return True
    if traced():
        return False
    while is_wrapped(tensor):
        if is_wrapped_by_gradient(tensor):
            return True
        tensor = unwrapped(tensor)
    return in_forward_derivative() and forward_ad.unpack_dual(tensor).tangent is not None


def concrete(tensor: Tensor, dims: int) -> Tensor:
    """Return the readable values of ``tensor``: detached, unwrapped, all but its last ``dims`` dimensions flattened."""
    tensor = tensor.detach()
    while not traced() and is_wrapped(tensor):
        tensor = unwrapped(tensor)
    return tensor.detach().reshape(-1, *tensor.shape[tensor.ndim - dims :])


def known_finite(images: Tensor) -> bool:
    """Whether ``images`` are known to hold neither NaN nor infinity, without waiting for a device."""
    if images.device.type != "cpu" or traced() or in_function_transform():
        return False
    # One pass and no copy; a sum that overflows counts as an infinity, which only costs time.
    return bool(images.detach().sum().isfinite())


def laid_out(out: Tensor, images: Tensor) -> Tensor:
    """Return ``out`` in the memory format of ``images``, contiguous or channels_last, with the same values."""
    if in_function_transform() or images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return out
    return out.contiguous(memory_format=torch.channels_last)
