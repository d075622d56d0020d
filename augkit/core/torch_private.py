"""All private names of torch that are used: each function says why there is no public way.

Checked with torch 2.14; after an update of torch, look here first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.fx import _symbolic_trace

# `torch.func` publishes its transforms (vmap, grad, jvp), but neither whether one is active nor how to read the values
# behind the wrappers that it hands to a function.
_functorch = torch._C._functorch


def write_count(tensor: Tensor) -> int:
    """How often a tensor was written in place, views of it included.

    Autograd counts it in ``_version``; the only public sign is an error in a backward pass, which measuring does not
    run.

    >>> maps = torch.zeros(2)
    >>> write_count(maps), write_count(maps.add_(1))
    (0, 1)
    """
    return tensor._version


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether hooks run before or after its ``forward``; the public API can only add and remove hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def in_function_transform() -> bool:
    """Whether a transform of `torch.func` is active, also in code being compiled."""
    return _functorch.peek_interpreter_stack() is not None


# Compiled code calls it once, when traced, and keeps the result; traced itself, it would always return True (torch
# 2.14). `torch.compiler.assume_constant_result` sets the same mark, but imports the compiler, which takes seconds.
in_function_transform._dynamo_marked_constant = True  # type: ignore[attr-defined]


def in_forward_derivative() -> bool:
    """Whether forward derivatives are being taken; only the context manager that takes them is public."""
    return forward_ad._current_level >= 0


def is_wrapped(tensor: Tensor) -> bool:
    """Whether a transform of `torch.func` has wrapped the tensor, so that its values cannot be read."""
    return _functorch.is_functorch_wrapped_tensor(tensor)


def is_wrapped_by_gradient(tensor: Tensor) -> bool:
    """Whether the outermost wrapper records a derivative."""
    return _functorch.is_gradtrackingtensor(tensor)


def unwrapped(tensor: Tensor) -> Tensor:
    """A wrapped tensor without its outermost wrapper; the dimension over which ``vmap`` maps becomes the first.

    >>> torch.vmap(lambda x: x * unwrapped(x).shape[0])(torch.ones(3))
    tensor([3., 3., 3.])
    """
    inner = _functorch.get_unwrapped(tensor)
    return inner.movedim(_functorch.maybe_get_bdim(tensor), 0) if _functorch.is_batchedtensor(tensor) else inner


@contextlib.contextmanager
def tracing_through_wrapped_functions() -> Iterator[None]:
    """Let `torch.fx` trace through functions that `torch.fx.wrap` has declared to be one step; only ``wrap`` is public.

    Tracers that know every shape can follow such functions, many of which may return None; a step may not.
    """
    wrapped = dict(_symbolic_trace._wrapped_fns_to_patch)
    _symbolic_trace._wrapped_fns_to_patch.clear()
    try:
        yield
    finally:
        _symbolic_trace._wrapped_fns_to_patch.update(wrapped)
