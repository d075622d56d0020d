"""A heartbeat at every forward pass of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn


@contextlib.contextmanager
def heartbeat_hook(alive: Callable[[], object] | None, model: nn.Module | None) -> Iterator[None]:
    """Call ``alive`` at every forward pass of the network; a scripted one has no hooks."""
    if alive is None or model is None or isinstance(model, torch.jit.ScriptModule):
        yield
        return

    def call(network: nn.Module, images: object) -> None:  # a return value would replace the images
        alive()

    hook = model.register_forward_pre_hook(call)
    try:
        yield
    finally:
        hook.remove()
