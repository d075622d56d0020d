"""Access to private attributes of torch, with the reason why there is no public way for each.

Checked with torch 2.14; check this file first after an update of torch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def write_count(tensor: Tensor) -> int:
    """Return the number of in-place writes to a tensor, including those through views.

    Autograd counts writes in ``_version``. The public interface is an error in the backward pass, which a measurement
    does not run.

    >>> maps = torch.zeros(2)
    >>> write_count(maps), write_count(maps.add_(1))
    (0, 1)
    """
    return tensor._version


def has_forward_hooks(module: nn.Module) -> bool:
    """Whether hooks run before or after ``forward``; the public functions only add and remove hooks."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def in_function_transform() -> bool:
    """Whether a transform of `torch.func` (``vmap``, ``jvp``, ``grad``) is active; its tensors have no memory format.

    `torch.func` has no public way to query this. The result is False while code is compiled.
    """
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
