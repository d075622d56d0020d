"""The private attributes of torch that are used: each function says why there is no public way.

Checked with torch 2.14; after an update of torch, look here first.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def write_count(tensor: Tensor) -> int:
    """How often a tensor was written in place, views of it included.

    Autograd counts it in ``_version``; public are only the errors that it raises in a backward pass, which measuring
    does not run.

    >>> maps = torch.zeros(2)
    >>> write_count(maps), write_count(maps.add_(1))
    (0, 1)
    """
    return tensor._version


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether hooks run before or after its ``forward``; public are only functions that add and remove hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def in_function_transform() -> bool:
    """Whether a transform of `torch.func` (``vmap``, ``jvp``, ``grad``) runs; its tensors know no memory format.

    `torch.func` publishes its transforms, but not whether one is active. False while code is compiled.
    """
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
