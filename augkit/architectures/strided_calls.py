"""Finds where a network subsamples, by recording every call with a stride in one pass without values.

The calls that run count, not the modules: a functional pool inside a block is found, and a layer that evaluation never
reaches is not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from augkit.architectures.modes import called_with, evaluated
from augkit.architectures.outputs import reason
from augkit.architectures.strided import pair
from augkit.core.errors import InputError

# Position of the stride among the arguments.
STRIDED: dict[Callable[..., Any], tuple[str, int]] = {
    torch.conv2d: ("conv2d", 3),
    F.max_pool2d: ("max_pool2d", 2),
    F.max_pool2d_with_indices: ("max_pool2d", 2),
    F.avg_pool2d: ("avg_pool2d", 2),
    F.lp_pool2d: ("lp_pool2d", 3),
}
POOLS: dict[Any, type[nn.Module]] = {F.max_pool2d: nn.MaxPool2d, F.avg_pool2d: nn.AvgPool2d}
ARGUMENTS = {
    F.max_pool2d: ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"),
    F.avg_pool2d: (
        "input",
        "kernel_size",
        "stride",
        "padding",
        "ceil_mode",
        "count_include_pad",
        "divisor_override",
    ),
}


LAYERS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
CALLED_BY = dict(zip(("conv2d", "max_pool2d", "avg_pool2d"), LAYERS, strict=True))
# Subclasses of timm whose own forward pass uses stride and padding as torch does. By name, as timm may be missing;
# those that end in "Same" pad as TensorFlow does.
PLAIN = {"Conv2dSame": nn.Conv2d, "MaxPool2dSame": nn.MaxPool2d, "AvgPool2dSame": nn.AvgPool2d}
KNOWN = {*PLAIN, "StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame"}
MAX_BLURRED_STRIDE = 4  # larger strides are patch embeddings of transformers, which read what is inside a patch


@dataclass(frozen=True)
class Call:
    """One call that subsamples, resizes or pads.

    Attributes:
        name: name of the innermost running module.
        function: ``conv2d``, ``max_pool2d``, ``avg_pool2d``, ``lp_pool2d``, ``slice``, ``interpolate`` or ``pad``.
        stride: (y, x); (1, 1) for ``interpolate`` and ``pad``.
        size: (H, W) of the input map, before padding.
        channels: C of the map.
        padded: whether the call pads the map.
    """

    name: str
    function: str
    stride: tuple[int, int]
    size: tuple[int, int]
    channels: int
    padded: bool


def trace(model: nn.Module, input_size: tuple[int, int, int]) -> list[Call]:
    """Return all calls of one pass in evaluation mode over one image (C, H, W), in the order in which they run.

    The pass runs on torch's ``meta`` device, which computes only shapes, or with values where a layer needs them.

    Raises:
        InputError: the network fails at this size.
    """
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    like = next((value for value in state.values() if value.is_floating_point()), torch.empty(0))
    with evaluated(model), torch.no_grad():
        with torch.compiler.set_stance("force_eager"), contextlib.suppress(Exception), _Watch(model) as watch:
            shapes = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
            called_with(model, shapes, like.new_zeros(1, *input_size, device="meta"))
            return watch.calls
        try:
            # Compiled code does not run the layers one by one.
            with torch.compiler.set_stance("force_eager"), _Watch(model) as watch:
                model(like.new_zeros(1, *input_size))
        except Exception as error:  # a network may raise anything
            size = "x".join(map(str, input_size))
            raise InputError(
                f"antialias: a pass of {type(model).__name__} over one image of {size} failed "
                f"({type(error).__name__}: {reason(error)}); give the input_size that it takes"
            ) from error
        return watch.calls


class _Watch(TorchFunctionMode):
    """Records the calls, each with the running module."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.modules, self.calls, self.running = dict(model.named_modules()), list[Call](), list[tuple[str, Any]]()
        self.hooks = contextlib.ExitStack()

    def __enter__(self) -> _Watch:
        for name, module in self.modules.items():
            start = module.register_forward_pre_hook(lambda _, args, name=name: self.running.append((name, args)))
            end = module.register_forward_hook(lambda *_: self.running.pop() and None)
            self.hooks.callback(start.remove)
            self.hooks.callback(end.remove)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.hooks.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        maps = args[0] if args else kwargs.get("input")
        if isinstance(maps, Tensor) and maps.ndim >= 3:
            function, stride, padded = _read(func, args, kwargs)
            if function:
                name, inputs = self.running[-1]
                if isinstance(self.modules[name], LAYERS) and len(inputs) == 1:  # some pad their maps themselves
                    maps = inputs[0]
                channels, height, width = maps.shape[-3:]
                self.calls.append(Call(name, function, stride, (height, width), channels, padded))
        return func(*args, **kwargs)


def _read(func: Any, args: Any, kwargs: Any) -> tuple[str, tuple[int, int], bool]:
    """Return the function of a `Call`, its stride, and whether it pads; an empty name for other functions."""
    if func in STRIDED:
        name, place = STRIDED[func]
        given = args[place] if len(args) > place else kwargs.get("stride")
        if given is None or given == []:
            given = 1 if name == "conv2d" else args[1] if len(args) > 1 else kwargs["kernel_size"]
        padding = args[place + 1] if len(args) > place + 1 else kwargs.get("padding", 0)
        return name, pair(given), padding == "same" or (padding != "valid" and any(pair(padding)))
    if func is Tensor.__getitem__:
        index = args[1] if isinstance(args[1], tuple) else (args[1],)
        steps = [part.step for part in index if isinstance(part, slice) and (part.step or 1) > 1]
        return ("slice", (steps[0], steps[1]), False) if len(steps) == 2 else ("", (1, 1), False)
    if func is F.interpolate:
        return "interpolate", (1, 1), False
    sides = (args[1] if len(args) > 1 else kwargs["pad"]) if func is F.pad else ()
    return ("pad", (1, 1), True) if any(sides) else ("", (1, 1), False)


class Site(NamedTuple):
    """A strided layer to change."""

    name: str
    layer: nn.Module
    call: Call


class Unchanged(NamedTuple):
    """A layer that was not changed, with the reason."""

    name: str
    layer: str
    reason: str


def find_sites(model: nn.Module, calls: list[Call], polyphase: bool) -> tuple[list[Site], list[Unchanged]]:
    """Return the layers to change, in the order in which they run, and the layers to leave unchanged.

    Raises:
        InputError: no layer can be changed.
    """
    modules = dict(model.named_modules())
    sites, left = dict[str, Site](), dict[tuple[str, str], Unchanged]()
    seen: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for call in calls:
        seen.setdefault((call.name, call.function), set()).add(call.size)
    for call in calls:
        layer = modules[call.name]
        reason = _objection(layer, call, polyphase, seen[call.name, call.function])
        if reason:
            left[call.name, call.function] = Unchanged(call.name, describe(layer, call), reason)
        elif max(call.stride) > 1:
            sites.setdefault(call.name, Site(call.name, layer, call))
    reached = {call.name for call in calls}
    for name, module in modules.items():
        if isinstance(module, LAYERS) and max(pair(module.stride)) > 1 and name not in reached:
            left[name, ""] = Unchanged(name, describe(module), "not reached by a pass in evaluation mode")
    if not sites:
        why = "; ".join(f"{name}: {reason}" for name, _, reason in left.values()) or "it has none"
        raise InputError(f"antialias: expected strided layers to change in {type(model).__name__}, found none ({why})")
    return list(sites.values()), list(left.values())


def _objection(layer: nn.Module, call: Call, polyphase: bool, sizes: set[tuple[int, int]]) -> str | None:
    """Return why a strided call cannot be changed; None where it can be, or where it does not subsample."""
    stride = call.stride
    if call.function == "interpolate":
        return "resizes maps without regard to their phase" if polyphase else None
    if max(stride) == 1:
        return None
    kind = CALLED_BY.get(call.function)
    if kind is None or not isinstance(layer, kind):
        return f"{call.function} is called by {type(layer).__name__}, which is none of torch's strided layers"
    checks = {
        f"{type(layer).__name__} has a forward pass of its own": not is_known(layer),
        f"the embedding of patches: a low-pass for steps of {max(stride)} pixels would blur what is in them": (
            not polyphase and max(stride) > MAX_BLURRED_STRIDE
        ),
        "polyphase sampling needs the same stride along both axes": polyphase and stride[0] != stride[1],
        "runs at several sizes, so that it can keep no phase": polyphase and len(sizes) > 1,
        "returns indices": bool(getattr(layer, "return_indices", False)),
        "a dilated maximum": kind is nn.MaxPool2d and max(pair(layer.dilation)) > 1,
    }
    return next((reason for reason, holds in checks.items() if holds), None)


def is_known(layer: nn.Module) -> bool:
    """Whether the layer's forward pass is torch's own, or a known one that uses stride and padding in the same way."""
    kind: Any = type(layer)
    return kind.forward in [base.forward for base in LAYERS] or (
        kind.__name__ in KNOWN and kind.__module__.startswith("timm.")
    )


def describe(layer: nn.Module, call: Call | None = None) -> str:
    """Return a short description of a strided layer or call, such as ``Conv2d 3x3 stride 2``."""
    if not isinstance(layer, LAYERS):
        return f"{call.function} in {type(layer).__name__}" if call else type(layer).__name__
    kernel, stride = pair(layer.kernel_size), pair(layer.stride)
    steps = str(stride[0]) if stride[0] == stride[1] else f"{stride[0]}x{stride[1]}"
    return f"{type(layer).__name__} {kernel[0]}x{kernel[1]} stride {steps}"


def expose_pools(block: nn.Module) -> nn.Module | None:
    """Return the block with its functional pools turned into modules, or None where it cannot be rewritten.

    The block is traced with torch.fx, its children as leaves; parameters and names stay. A block is not rewritten if
    training differs from evaluation, or if not all of its children are used.
    """
    graphs = []
    for training in (True, False):
        before, block.training = block.training, training
        try:
            graphs.append(_LeafTracer().trace(block))
        except Exception:  # fx raises many kinds of exceptions
            return None
        finally:
            block.training = before
    if str(graphs[0]) != str(graphs[1]):
        return None
    graph, pools = graphs[0], dict[str, nn.Module]()
    for node in [node for node in graph.nodes if node.target in POOLS]:
        name = f"functional.pool{len(pools)}"
        arguments = dict(zip(ARGUMENTS[node.target], node.args, strict=False)) | node.kwargs
        maps = arguments.pop("input")
        pools[name] = POOLS[node.target](**arguments)
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.call_module(name, (maps,)))
        graph.erase_node(node)
    if not pools or hasattr(block, "functional"):
        return None
    rewritten = torch.fx.GraphModule(_members(block) | pools, graph, type(block).__name__)
    rewritten.training = block.training
    return rewritten if rewritten.state_dict().keys() == block.state_dict().keys() else None


def _members(block: nn.Module) -> dict[str, nn.Module | Tensor]:
    return {**dict(block.named_modules()), **dict(block.named_parameters()), **dict(block.named_buffers())}


class _LeafTracer(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True
