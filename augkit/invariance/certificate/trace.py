"""Traces networks with `torch.fx`; a rule per layer decides which shifts its output follows.

Every proxy carries the tensor that it stands for and its state, so that shapes are plain numbers and the traced
logits can be compared with those of the network. A layer without a rule cannot be judged, nor can Python code that
depends on the content of a tensor.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate

from augkit.architectures.outputs import logits_in
from augkit.core.torch_private import tracing_through_wrapped_functions, write_count
from augkit.invariance.certificate import attention_rules
from augkit.invariance.certificate.call import Call
from augkit.invariance.certificate.function_rules import FUNCTIONS, METHODS, SHAPE_METHODS
from augkit.invariance.certificate.module_rules import hooked, module_rule
from augkit.invariance.certificate.state import (
    FIXED,
    Axis,
    Broken,
    Equivariant,
    Level,
    Limitation,
    Lost,
    Operand,
    Pairs,
    State,
    combined,
    unseen,
)

PLAIN = {"shape", "dtype", "device", "ndim", "layout", "is_cuda", "is_sparse", "is_quantized", "requires_grad"}


@dataclass(frozen=True)
class Step:
    """One layer of a trace.

    Attributes:
        layer: qualified name of the module, or of the function within its module.
        type: class of the module, or ``function NAME``.
        size: ``(H, W)`` of its output map; None where the output is not a map.
        stride: pixels of the input per pixel of the map ``(y, x)``.
        state: shifts that its output follows: ``fractional``, ``integer``, ``none`` or ``unknown``.
    """

    layer: str
    type: str
    size: tuple[int, int] | None
    stride: tuple[float, float] | None
    state: str


@dataclass(frozen=True)
class Trace:
    """Steps in the order of execution, with the state and the value of the output (None if the trace ended early)."""

    steps: tuple[Step, ...]
    state: State
    output: Any


def trace_states(model: nn.Module, images: Tensor, step: int = 1) -> Trace:
    """Trace a network in evaluation mode on one batch of images ``(B, C, H, W)``.

    The states are those under shifts of the images by multiples of ``step`` pixels.
    """
    root = _Root(model)
    tracer = _StateTracer(images, step, {id(module): name for name, module in model.named_modules()})
    tracer.parameters = {tensor.untyped_storage().data_ptr(): name for name, tensor in model.named_parameters()}
    state: State
    try:
        with tracing_through_wrapped_functions():
            tracer.trace(root)
    except Exception as error:  # the network's own code ran on proxies, and may raise anything
        # Report the layer that breaks: no later layer can restore invariance.
        limitation = error.limitation if isinstance(error, Broken) else Limitation(_reason(error), refused=True)
        limitation = (
            limitation if limitation.layer is not None else replace(limitation, layer=tracer.where, type=tracer.what)
        )
        return Trace(tuple(tracer.steps), Lost(tracer.first or limitation), None)
    output = root.output
    state = output.state if isinstance(output, _Proxy) else FIXED
    return Trace(tuple(tracer.steps), state, output.tensor if isinstance(output, _Proxy) else output)


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines() or [""]
    if isinstance(error, fx.proxy.TraceError):
        return "its Python code branches or loops on the content of a tensor"
    return f"it cannot be traced ({type(error).__name__}: {text[0][:120]})"


class _Root(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.output: Any = None

    def forward(self, images: Tensor) -> Any:
        self.output = logits_in(self.model(images))
        return self.output if isinstance(self.output, fx.Proxy) else None


class _Proxy(fx.Proxy):
    def __init__(self, node: fx.Node, tracer: fx.Tracer, tensor: Tensor, state: State) -> None:
        super().__init__(node, tracer)
        self.tensor, self.state = tensor, state

    def __getattr__(self, name: str) -> Any:
        if name == "mT":
            return self.transpose(-2, -1)
        return getattr(self.tensor, name) if name in PLAIN else super().__getattr__(name)

    def __len__(self) -> int:
        return len(self.tensor)

    def __iter__(self) -> Any:
        return iter(self.unbind(0))


class _StateTracer(fx.Tracer):
    def __init__(self, images: Tensor, step: int, names: dict[int, str]) -> None:
        super().__init__()
        self.images, self.step, self.names = images, step, names
        self.steps: list[Step] = []
        self.first: Limitation | None = None  # the first layer that breaks
        self.where, self.what = "", ""  # the layer at hand
        self._running = False
        self._without_rule = ""  # why the layer at hand has none
        self._pure = False  # whether the layer at hand is torch's own
        self.parameters: dict[int, str] = {}  # names by memory, so that views of them have the name too
        self._seen: list[weakref.ref[_Proxy]] = []

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return module_rule(module) is not None or super().is_leaf_module(module, name)

    def call_module(self, module: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._running:
            return forward(*args, **kwargs)
        return super().call_module(module, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        return attr_val  # parameters are constants

    def create_proxy(self, kind: str, target: Any, args: Any, kwargs: Any, *_: Any, **__: Any) -> Any:
        if kind == "placeholder":
            return self._proxy(self.images, _input_state(self.images, self.step))
        rule = self._rule(kind, target)
        operands: Any = map_aggregate((args, kwargs), self._operand)
        call = Call(operands[0], operands[1], order=len(self.steps) + 1)
        states: list[State] = [operand.state for operand in call.operands()]
        result, changed = self._run(kind, target, args, kwargs)
        lost = [state.limitation for state in states if isinstance(state, Lost)]
        if lost:
            state: Any = Lost(min(lost, key=lambda limitation: limitation.order))
        else:
            state = self._judge(rule, replace(call, result=result))
        if changed:
            self._spread(result, state)
        return self._wrapped(result, state)

    def _rule(self, kind: str, target: Any) -> Callable[[Call], Any] | None:
        if kind == "call_module":
            module = self.root.get_submodule(target)
            name = self.names.get(id(module), target)
            self.where, self.what = name or "(the network itself)", type(module).__name__
            self._pure = _is_torch(kind, module)
            found = module_rule(module)
            self._without_rule = "there is no rule for it"
            if hooked(module):
                self._without_rule = "hooks or a forward of its own may change what it does"
            return None if found is None else lambda call: found(module, call)
        path = self.scope.module_path
        owner = self.names.get(id(self.root.get_submodule(path)), "") if path else ""
        name = target if isinstance(target, str) else getattr(target, "__name__", str(target))
        self._pure, self._without_rule = _is_torch(kind, target), "there is no rule for it"
        self.where, self.what = f"{owner}.{name}" if owner else name, f"function {name}"
        return METHODS.get(target) if kind == "call_method" else FUNCTIONS.get(target)

    def _run(self, kind: str, target: Any, args: Any, kwargs: Any) -> tuple[Any, bool]:
        """The result for the tensors at hand, and whether one of them was changed in place."""
        tensors: list[Tensor] = []
        constants: list[Tensor] = []

        def value(item: Any) -> Any:
            followed = isinstance(item, _Proxy)
            item = item.tensor if followed else item
            if isinstance(item, Tensor):
                (tensors if followed else constants).append(item)
            return item

        args, kwargs = map_aggregate((args, kwargs), value)
        versions, fixed = ([write_count(tensor) for tensor in found] for found in (tensors, constants))
        random = torch.get_rng_state()
        self._running = True
        try:
            if kind == "call_module":
                result = self.root.get_submodule(target)(*args, **kwargs)
            elif kind == "call_method":
                result = getattr(args[0], target)(*args[1:], **kwargs)
            else:
                result = target(*args, **kwargs)
        finally:
            self._running = False
        if not torch.equal(random, torch.get_rng_state()):
            raise unseen("draws random numbers in evaluation mode")
        if fixed != [write_count(tensor) for tensor in constants]:
            raise unseen("changes a parameter or a constant in place")
        return result, versions != [write_count(tensor) for tensor in tensors]

    def _judge(self, rule: Callable[[Call], Any] | None, call: Call) -> Any:
        try:
            if self._pure and _vectors(call):
                return combined(Operand(torch.empty(()), operand.state) for operand in call.operands())
            if rule is None:
                raise unseen(self._without_rule)
            self._running = True  # a rule may run a part of its module
            rule = attention_rules.guarded(rule, self.what, call)
            return _noted(rule(call), self.where, self.what, call.order)
        except Broken as broken:
            limitation = replace(broken.limitation, layer=self.where, type=self.what, order=call.order)
        except Exception as error:  # a rule met arguments that it was not written for
            why = f"its arguments are not understood ({type(error).__name__}: {str(error)[:80]})"
            limitation = Limitation(why, None, True, layer=self.where, type=self.what, order=call.order)
        finally:
            self._running = False
        if self.first is None and not limitation.refused:
            self.first = limitation
        return Lost(limitation)

    def _operand(self, item: Any) -> Any:
        if isinstance(item, _Proxy):
            return Operand(item.tensor, item.state)  # type: ignore[arg-type]
        if isinstance(item, fx.Proxy):
            raise unseen("reads an attribute of a tensor that is not followed")
        if not isinstance(item, Tensor):
            return item
        return Operand(item, FIXED, self.parameters.get(item.untyped_storage().data_ptr()))

    def _spread(self, result: Any, state: Any) -> None:
        """An operation in place changes every value that shares its memory."""
        if not isinstance(result, Tensor):
            raise unseen("changes a tensor in place without returning it")
        memory = result.untyped_storage().data_ptr()
        for reference in self._seen:
            proxy = reference()
            if proxy is None or proxy.tensor.untyped_storage().data_ptr() != memory:
                continue
            if proxy.tensor.shape != result.shape or proxy.tensor.data_ptr() != result.data_ptr():
                raise unseen("changes a part of another tensor in place")
            proxy.state = state

    def _wrapped(self, result: Any, state: Any) -> Any:
        if isinstance(result, tuple | list) and not isinstance(result, torch.Size):
            states = state if isinstance(state, tuple) else (state,) * len(result)
            items = [self._wrapped(r, s) for r, s in zip(result, states, strict=True)]
            return tuple(items) if type(result) in (tuple, list) else type(result)(items)  # or torch.return_types
        if result is None:
            return None
        if not isinstance(result, Tensor):
            if isinstance(state, Lost) and self.what.removeprefix("function ") not in SHAPE_METHODS:
                raise Broken(state.limitation)
            return result
        if result.is_floating_point():  # not the phases of a sampling
            self._record(result, state)
        return self._proxy(result, state)

    def _proxy(self, tensor: Tensor, state: State) -> _Proxy:
        proxy = _Proxy(self.create_node("placeholder", "value", (), {}), self, tensor, state)
        self._seen.append(weakref.ref(proxy))
        return proxy

    def _record(self, result: Tensor, state: State) -> None:
        size: tuple[int, int] | None = None
        if isinstance(state, Equivariant) and state.moves:
            dims = [None if axis is None else axis.dim for axis in state.axes]
            size = (_side(result, dims[0]), _side(result, dims[1]))
        elif isinstance(state, Lost) and result.ndim == 4:
            size = (result.shape[2], result.shape[3])
        H, W = self.images.shape[-2:]
        stride = None if size is None else (round(H / size[0], 3), round(W / size[1], 3))
        self.steps.append(Step(self.where, self.what, size, stride, _state_name(state)))


def _side(result: Tensor, dim: int | None) -> int:
    return 1 if dim is None else result.shape[dim]


def _state_name(state: State) -> str:
    if isinstance(state, Lost):
        return "unknown" if state.limitation.refused else "none"
    return state.level.name.lower() if isinstance(state, Equivariant | Pairs) else "integer"


def _input_state(images: Tensor, step: int) -> Equivariant:
    H, W = images.shape[-2:]
    clean = H % 2 == 1 and W % 2 == 1
    state = Equivariant(Level.FRACTIONAL, clean=clean)
    return state.with_axes((Axis(2, H, Fraction(step)), Axis(3, W, Fraction(step))))


def _vectors(call: Call) -> bool:
    """Whether no input moves; then no output does either."""
    states = [operand.state for operand in call.operands()]
    results = call.result if isinstance(call.result, tuple | list) else (call.result,)
    return (
        bool(states)
        and all(isinstance(state, Equivariant) and not state.moves for state in states)
        and all(isinstance(result, Tensor) for result in results)
    )


def _is_torch(kind: str, target: Any) -> bool:
    """Whether a call is torch's own, whose result is a function of its arguments."""
    if isinstance(target, nn.Module):
        return not hooked(target) and type(target).__module__.startswith("torch.nn.modules")
    home = getattr(target, "__module__", None) or ""
    return kind == "call_method" or target in FUNCTIONS or home.split(".")[0] in ("torch", "_operator")


def _noted(state: Any, layer: str, kind: str, order: int) -> Any:
    """The state, with the layer's name on the limit that the layer itself set."""
    if isinstance(state, Pairs):
        return Pairs(*(_noted(part, layer, kind, order) for part in (state.rows, state.columns)))
    if isinstance(state, tuple):
        return tuple(_noted(item, layer, kind, order) for item in state)
    if isinstance(state, Equivariant) and state.limit is not None and state.limit.layer is None:
        return replace(state, limit=replace(state.limit, layer=layer, type=kind, order=order))
    return state
