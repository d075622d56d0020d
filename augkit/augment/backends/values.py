"""What may be known about a tensor: who watches it, and its values where reading them costs no wait.

Under `torch.func` a tensor is a wrapper that refuses to be read. Torch has no public way to what it wraps, so the
private functions that torch.func itself is written with are used here, and nowhere else.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

_functorch = torch._C._functorch


def watched(*tensors: Tensor) -> bool:
    """Whether torch records, traces or transforms what happens to the tensors."""
    return (
        traced()
        or (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        or transformed()
        or forward_ad._current_level >= 0
    )


def traced() -> bool:
    """Whether torch.compile, torch.export or torch.jit.trace is at work."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def transformed() -> bool:
    """Whether a transform of `torch.func` is at work: vmap, grad, jvp and the like."""
    return _functorch.peek_interpreter_stack() is not None


def differentiated(tensor: Tensor) -> bool:
    """Whether somebody asks for a derivative with respect to ``tensor``, backwards or forwards."""
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
    """The values of ``tensor``, to be read: detached, with the axes of every vmap and all but ``dims`` flattened."""
    tensor = tensor.detach()
    while not traced() and _functorch.is_functorch_wrapped_tensor(tensor):
        axis, batched = _functorch.maybe_get_bdim(tensor), _functorch.is_batchedtensor(tensor)
        tensor = _functorch.get_unwrapped(tensor)
        tensor = tensor.movedim(axis, 0) if batched else tensor
    return tensor.detach().reshape(-1, *tensor.shape[tensor.ndim - dims :])


def known_finite(images: Tensor) -> bool:
    """Whether ``images`` are known to hold neither NaN nor infinity, from a look that waits for no device."""
    if images.device.type != "cpu" or traced() or transformed():
        return False
    # One pass and no copy; a sum that overflows is taken for an infinity, which costs time alone.
    return bool(images.detach().sum().isfinite())


def laid_out(out: Tensor, images: Tensor) -> Tensor:
    """``out`` with its channels last in memory where those of ``images`` are; the values stay."""
    if transformed() or images.is_contiguous() or not images.is_contiguous(memory_format=torch.channels_last):
        return out
    return out.contiguous(memory_format=torch.channels_last)
