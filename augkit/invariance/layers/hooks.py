"""Hooks that record the inputs and the output of each module in one forward pass.

The head of `augkit.invariance.layers.equivariance` defines which modules are recorded, which tensors are maps, and how
their strides are found.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from augkit.core.errors import InputError
from augkit.core.torch_private import write_count
from augkit.invariance.layers.features import Penultimate
from augkit.invariance.network import CheckedForward

# Modules that do nothing themselves in eval().
SILENT = (
    nn.Sequential,
    nn.Identity,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Dropout3d,
    nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)
CHANNELS_LAST = (nn.Linear, nn.LayerNorm)  # exactly these: some libraries derive a (B, C, H, W) norm from LayerNorm

Stride = tuple[float, float]  # pixels of the image per pixel of the map, along x and y


@dataclass
class Value:
    """A map ``(B, C, H, W)`` with its stride, or a vector ``(B, D)``, whose stride is None."""

    tensor: Tensor
    stride: Stride | None


@dataclass
class Call:
    """One run of one module.

    Attributes:
        inside: the enclosing call.
        inputs: indices of the input values; None where one of them is neither a map nor a vector.
        given: copies of the inputs for this call only, so that their gradients belong to this call; empty without
            gradients.
        taken: the input tensors themselves, while the module runs.
        output: index of the output value; None where the output is neither a map nor a vector.
    """

    name: str
    kind: str
    inside: Call | None
    inputs: list[int] | None
    given: list[Tensor] = field(default_factory=list)
    taken: tuple[Tensor, ...] = ()
    output: int | None = None


@dataclass
class Pass:
    """One forward pass: values in the order in which they first appeared, calls in the order in which they finished."""

    images: Tensor
    values: list[Value] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    penultimate: Tensor | None = None
    logits: Tensor = field(default_factory=lambda: torch.empty(0))

    @property
    def plan(self) -> list[tuple[object, ...]]:
        """A value that is equal for passes in which the same modules ran on the same shapes in the same order."""
        shapes = [tuple(value.tensor.shape[1:]) for value in self.values]
        calls = ((call.name, tuple(call.inputs or ()), call.output) for call in self.calls)
        return [*calls, *shapes, tuple(self.logits.shape[1:])]


class Tracer:
    """Context manager that records forward passes of a network; its hooks are removed on exit.

    Args:
        model: the network.

    Raises:
        InputError: `torch.jit` has compiled the layers, so they cannot be recorded.
    """

    def __init__(self, model: nn.Module) -> None:
        if isinstance(model, torch.jit.ScriptModule):
            raise InputError("model: expected layers that can be watched, torch.jit has compiled them; give the network"
                             " before scripting or tracing")  # fmt: skip
        self._now: Pass | None = None
        self._penultimate = Penultimate(model)
        self._hooks = []
        for name, module in model.named_modules():
            if name and not isinstance(module, SILENT):
                self._hooks.append(module.register_forward_pre_hook(self._entry(name), with_kwargs=True))
                self._hooks.append(module.register_forward_hook(self._leave))

    def __enter__(self) -> Tracer:
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()
        self._penultimate.__exit__(*error)

    def run(self, network: CheckedForward, images: Tensor) -> Pass:
        """Run one forward pass of ``images`` in [0, 1]. Later layers do not change the recorded tensors."""
        # Compiled code does not run the layers one by one.
        with self._recording(images) as record, torch.compiler.set_stance("force_eager"):
            record.logits = network(images)
        record.penultimate = self._penultimate.features(record.logits)
        return record

    @contextlib.contextmanager
    def _recording(self, images: Tensor) -> Iterator[Pass]:
        self._now = record = Pass(images)
        self._known = WeakTensorKeyDictionary()  # live tensors, to their value and version
        self._open: list[Call] = []
        self._runs: Counter[str] = Counter()
        self._side, self._stride = (images.shape[-2], images.shape[-1]), (1.0, 1.0)
        try:
            yield record
        finally:
            self._now = None

    def _entry(self, name: str) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]] | None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self._now is None:
                return None
            self._runs[name] += 1
            again = f"#{self._runs[name]}" if self._runs[name] > 1 else ""
            call = Call(name + again, type(module).__name__, self._open[-1] if self._open else None, None)
            self._open.append(call)
            if kwargs or not args or not all(self._is_value(each) for each in args):
                return None
            call.inputs = [self._index(each) for each in args]
            if not torch.is_grad_enabled():
                return None
            call.given, call.taken = [each.clone() for each in args], args
            # Copied again: the module may write into its inputs, and the gradient would be that of the written values.
            used = tuple(each.clone() for each in call.given)
            for each, index in zip(used, call.inputs, strict=True):
                self._known[each] = index, write_count(each)
            return used, kwargs

        return enter

    def _leave(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Tensor | None:
        if self._now is None:
            return None
        call = self._open.pop()
        self._now.calls.append(call)
        for taken, used in zip(call.taken, args, strict=False):
            if write_count(used):  # written in place: some networks use the changed tensor elsewhere
                taken.copy_(used)
        call.taken = ()
        if not self._is_value(output) or (output.ndim == 4 and type(module) in CHANNELS_LAST):
            return None
        written = not torch.is_grad_enabled() and any(output is each for each in args)
        call.output = self._record(output.clone() if written else output)
        # Later layers may write into their inputs, so they get a copy.
        copy = output.clone()
        self._known[copy] = call.output, write_count(copy)
        return copy

    def _is_value(self, tensor: object) -> bool:
        assert self._now is not None
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point() or len(tensor) != len(self._now.images):
            return False
        return tensor.ndim == 2 or is_map(tensor, (self._now.images.shape[-2], self._now.images.shape[-1]))

    def _index(self, tensor: Tensor) -> int:
        """Return the index of the value in ``tensor``, and record it first where no module returned it."""
        index, version = self._known.get(tensor, (None, None))
        if index is None or version != write_count(tensor):
            index = self._record(tensor.detach().clone())
            self._known[tensor] = index, write_count(tensor)
        return int(index)

    def _record(self, tensor: Tensor) -> int:
        assert self._now is not None
        self._now.values.append(Value(tensor, self._next_stride(tensor) if tensor.ndim == 4 else None))
        return len(self._now.values) - 1

    def _next_stride(self, tensor: Tensor) -> Stride:
        """Return the stride, chained from the map before."""
        side = (tensor.shape[-2], tensor.shape[-1])
        y, x = (old * whole_factor(a / b) for old, a, b in zip(self._stride, self._side, side, strict=True))
        self._side, self._stride = side, (y, x)
        return x, y


def is_map(tensor: Tensor, size: tuple[int, int]) -> bool:
    """Whether a tensor is ``(B, C, H, W)`` with about the aspect ratio of an image of ``size`` ``(H, W)``.

    >>> is_map(torch.zeros(1, 96, 14, 14), (224, 224)), is_map(torch.zeros(1, 14, 14, 96), (224, 224))
    (True, False)
    """
    if tensor.ndim != 4 or 0 in tensor.shape:
        return False
    height, width = tensor.shape[-2:]
    return abs(height * size[1] / size[0] - width) <= max(1.0, 0.25 * width)


def whole_factor(ratio: float) -> float:
    """Return the nearest whole number, or the nearest reciprocal of one where the ratio is below 1.

    >>> whole_factor(28 / 26), whole_factor(13 / 6), whole_factor(6 / 13)
    (1.0, 2.0, 0.5)
    """
    return float(round(ratio)) if ratio >= 1 else 1 / round(1 / ratio)
