"""Rules for functions and tensor methods, by name; one row covers ``torch.f``, ``torch.nn.functional.f``,
``operator.f`` and ``Tensor.f``. A function without a rule cannot be judged.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.invariance.certificate import attention_rules, reshape_rules, window_rules
from augkit.invariance.certificate.call import Call, pair
from augkit.invariance.certificate.state import Equivariant, Operand, breaks, combined, nonlinear, unseen

Rule = Callable[[Call], Any]

# Functions that use only the shape: their plain results do not depend on the content.
SHAPE_METHODS = {"size", "dim", "ndimension", "numel", "nelement", "is_contiguous", "is_floating_point", "stride"}
SHAPE_METHODS |= {"get_device", "element_size", "is_complex", "type"}

LINEAR = "add sub subtract rsub neg negative positive pos cat concat concatenate"  # cat has its own row below
POINTWISE = """
    relu relu6 gelu silu mish sigmoid tanh elu selu celu leaky_relu softplus softsign softshrink hardshrink hardtanh
    hardswish hardsigmoid logsigmoid tanhshrink threshold exp expm1 log log1p log2 sqrt rsqrt square abs absolute
    pow sin cos erf clamp clip clamp_min clamp_max sign round floor ceil reciprocal nan_to_num maximum minimum fmax fmin
    where gt lt ge le eq ne logical_and logical_or logical_not masked_fill atan2 hypot rrelu heaviside trunc
"""
SAME = "contiguous clone detach to float double half bfloat16 type type_as requires_grad_"
RESHAPES = "view reshape flatten unflatten squeeze unsqueeze view_as reshape_as"
PERMUTES = "permute transpose swapaxes swapdims movedim moveaxis"
DROPOUTS = "dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout"


def added(call: Call) -> Equivariant:
    """Sums and differences."""
    return _elementwise(call)


def multiplied(call: Call) -> Equivariant:
    """Products: linear where one factor moves, nonlinear where two do."""
    state = _elementwise(call)
    return state if sum(o.state.moves for o in call.operands()) < 2 else nonlinear(state, "a product of maps")


def quotient(call: Call) -> Equivariant:
    """Quotients: linear in the numerator."""
    below = call.get(1, "other")
    state = _elementwise(call)
    return nonlinear(state, "a division by a map") if isinstance(below, Operand) and below.state.moves else state


def pointwise(call: Call) -> Equivariant:
    """A nonlinear function of one or more tensors, applied to each place."""
    return nonlinear(_elementwise(call))


def _elementwise(call: Call) -> Equivariant:
    operands = list(call.operands())
    if call.out.shape != torch.broadcast_shapes(*(o.shape for o in operands)):
        raise unseen("its result has another shape than its arguments")
    return combined(operands)


def prelu(call: Call) -> Equivariant:
    """A slope per channel."""
    if call.x.value.ndim > 1 and call.x.state.at(1):
        raise breaks("gives each place of a map a slope of its own")
    return nonlinear(call.x.state)


def same(call: Call) -> Equivariant:
    """Functions that change no value, except by the rounding of a cast."""
    kept = not isinstance(call.result, Tensor) or call.result.dtype in (torch.float32, torch.float64)
    return call.x.state if kept else nonlinear(call.x.state, "rounding")


def reshape(call: Call) -> Equivariant:
    """Row-major reshaping."""
    if call.out.dtype != call.x.value.dtype:
        raise unseen("reads the bits of a tensor as another type")
    return reshape_rules.reshaped(call.x, tuple(call.out.shape))


def permute(name: str) -> Rule:
    """A permutation by the method of that name."""

    def rule(call: Call) -> Equivariant:
        return reshape_rules.permuted(call.x, lambda probe: getattr(probe, name)(*call.args[1:], **call.kwargs))

    return rule


def concatenated(call: Call) -> Equivariant:
    """Joining along channels."""
    parts = call.get(0, "tensors")
    dim = call.get(1, "dim", call.kwargs.get("axis", 0)) % call.out.ndim
    if dim == 0:
        raise unseen("joins along the batch")
    moving = [part for part in parts if part.state.moves]
    if len(moving) == 1 and {axis.dim for axis in moving[0].state.axes if axis is not None} == {dim}:
        return attention_rules.prefixed(parts, dim)
    state = combined(parts, ndim=call.out.ndim)
    if state.at(dim):
        raise breaks("joins maps along a side, which makes a border between them", "join along channels")
    return state


def stacked(call: Call) -> Equivariant:
    """A new dimension, behind those of the map or between the batch and them."""
    parts = call.get(0, "tensors")
    dim = call.get(1, "dim", 0) % call.out.ndim
    if dim == 0:
        raise unseen("stacks along the batch")
    grown = [part.value.unsqueeze(dim) for part in parts]
    new = [Operand(g, reshape_rules.reshaped(part, tuple(g.shape))) for g, part in zip(grown, parts, strict=True)]
    return combined(new)


def reduced(call: Call, linear: bool) -> Equivariant:
    """A mean, sum or extremum over dimensions."""
    x = call.x
    dims = call.get(1, "dim", call.kwargs.get("axis"))
    if dims is None or dims == ():
        raise unseen("reduces over the batch, so the answer to an image depends on the others")
    named = {x.dim(d) for d in ([dims] if isinstance(dims, int) else dims)}
    keepdim = call.get(2, "keepdim", False)
    state = x.state if linear else nonlinear(x.state, "an extremum or a deviation")
    return window_rules.without(Operand(x.value, state), named, bool(keepdim))


def extremum(call: Call) -> Any:
    """``max`` and ``min``: of two tensors, or over channels (with the index)."""
    second = call.get(1, "dim", call.kwargs.get("other", call.kwargs.get("axis")))
    if isinstance(second, Operand):
        return pointwise(call)
    if second is None:
        raise unseen("reduces over the batch, so the answer to an image depends on the others")
    if not isinstance(second, int) or call.x.state.at(call.x.dim(second)):
        raise unseen("gives the place of an extremum", "amax over the places, which gives only its value")
    return (reduced(call, linear=False),) * 2


def deviation(call: Call) -> Equivariant:
    """``std`` and ``var`` by the keyword ``dim``."""
    x = call.x
    dims = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
    if dims is None or isinstance(dims, bool):
        raise unseen("reduces over the batch, so the answer to an image depends on the others")
    named = {x.dim(d) for d in ([dims] if isinstance(dims, int) else dims)}
    state = nonlinear(x.state, "a deviation")
    return window_rules.without(Operand(x.value, state), named, call.out.ndim == x.value.ndim)


def convolution(call: Call) -> Equivariant:
    """`torch.nn.functional.conv2d`, whose padding is zeros."""
    x, weight = call.x, call.get(1, "weight")
    if weight.state.moves or weight.shape[0] == 0:
        raise unseen("its weights are computed from a map")
    state = window_rules.convolved(
        x,
        weight.shape[2:],
        call.get(3, "stride", 1),
        call.get(4, "padding", 0),
        call.get(5, "dilation", 1),
        "zeros",
    )
    return _no_higher(state, [o for o in call.operands() if o is not x])


def linear(call: Call) -> Equivariant:
    """A linear map of the last dimension, which must hold channels."""
    x = call.x
    if x.state.at(x.value.ndim - 1):
        raise breaks("gives each place of a map a weight of its own", reshape_rules.FLATTEN)
    return _no_higher(x.state, [o for o in call.operands() if o is not x])


def _no_higher(state: Equivariant, weights: list[Operand]) -> Equivariant:
    """Lower the state to that of the weights, since computed weights may be invariant to fewer shifts than the map."""
    if any(o.state.moves for o in weights):
        raise unseen("its weights are computed from a map")
    vector = combined(Operand(torch.empty(()), o.state) for o in weights)
    return replace(state, level=vector.level, limit=vector.limit) if vector.level < state.level else state


def max_pool(call: Call) -> Equivariant:
    """`torch.nn.functional.max_pool2d`."""
    rest = [call.get(k, n, d) for k, n, d in ((2, "stride", None), (3, "padding", 0), (4, "dilation", 1))]
    return window_rules.pooled(call.x, call.out, call.get(1, "kernel_size"), *rest, maximum=True)


def avg_pool(call: Call) -> Equivariant:
    """`torch.nn.functional.avg_pool2d`."""
    rest = [call.get(2, "stride", None), call.get(3, "padding", 0)]
    return window_rules.pooled(call.x, call.out, call.get(1, "kernel_size"), *rest, maximum=False)


def pad(call: Call) -> Equivariant:
    """`torch.nn.functional.pad`."""
    return window_rules.padded(call.x, list(call.get(1, "pad")), call.get(2, "mode", "constant"))


def interpolated(call: Call) -> Equivariant:
    """`torch.nn.functional.interpolate`."""
    return window_rules.resized(call.x, call.out, call.get(3, "mode", "nearest"))


def shuffled(call: Call) -> Equivariant:
    """`pixel_shuffle`: channels become pixels."""
    factor = call.get(1, "upscale_factor")
    return window_rules.upsampled(call.x, pair(factor), "a pixel shuffle")


def batch_norm(call: Call) -> Equivariant:
    """`torch.nn.functional.batch_norm` with statistics that were learned."""
    if call.get(5, "training", False) or call.get(1, "running_mean", None) is None:
        raise unseen("uses statistics of the batch in evaluation mode, so the answer to an image depends on the others")
    if call.x.state.at(1):
        raise breaks("gives each place of a map a weight of its own")
    return call.x.state


def layer_norm(call: Call) -> Equivariant:
    """`torch.nn.functional.layer_norm`."""
    count = len(pair_or_more(call.get(1, "normalized_shape")))
    dims = set(range(call.x.value.ndim - count, call.x.value.ndim))
    return window_rules.normalized(call.x, dims, [call.get(2, "weight", None), call.get(3, "bias", None)])


def group_norm(call: Call) -> Equivariant:
    """`group_norm` and `instance_norm`: mean and deviation over all places."""
    return window_rules.normalized(call.x, set(range(1, call.x.value.ndim)), [])


def instance_norm(call: Call) -> Equivariant:
    """`torch.nn.functional.instance_norm`, with statistics of the map or learned ones."""
    if call.get(5, "use_input_stats", True):
        return group_norm(call)
    return call.x.state


def pair_or_more(value: Any) -> tuple[int, ...]:
    """An int or a tuple as a tuple."""
    return (value,) if isinstance(value, int) else tuple(value)


def over_channels(name: str, position: int = 1, default: Any = None) -> Rule:
    """A function of all channels of a place, along its argument ``dim``."""

    def rule(call: Call) -> Equivariant:
        dim = call.get(position, "dim", default)
        if not isinstance(dim, int):
            raise unseen(f"{name} without a dimension")
        return window_rules.channels_mixed(call.x, dim, f"a {name}")

    return rule


def dropout(call: Call) -> Equivariant:
    """Dropout that is switched off."""
    if call.get(2, "training", True) and call.get(1, "p", 0.5):
        raise unseen("is random in evaluation mode", "training=self.training")
    return call.x.state


def stochastic_depth(call: Call) -> Equivariant:
    """`torchvision.ops.stochastic_depth` that is switched off."""
    if call.get(3, "training", True) and call.get(1, "p"):
        raise unseen("is random in evaluation mode", "training=self.training")
    return call.x.state


def indexed(call: Call) -> Equivariant:
    """Basic indexing."""
    if call.x.state.batch:
        return attention_rules.selected(call.x, call.args[1])
    return attention_rules.indexed(call.x, call.args[1])


def divided(what: str, position: int) -> Rule:
    """``chunk``, ``split`` and the like along channels."""

    def rule(call: Call) -> Any:
        state = reshape_rules.divided(call.x, call.get(position, "dim", 0), what)
        return (state,) * len(call.result)

    return rule


def unbound(call: Call) -> Any:
    """``unbind``: as picking each index in turn."""
    dim = call.x.dim(call.get(1, "dim", 0))
    if call.x.state.batch:
        return (attention_rules.selected(call.x, (slice(None),) * dim + (0,)),) * len(call.result)
    reshape_rules.divided(call.x, dim, "unbinds")
    part = reshape_rules.indexed(call.x, (slice(None),) * dim + (0,))
    return (part,) * len(call.result)


def narrowed(call: Call) -> Equivariant:
    """``narrow``: a slice."""
    dim, start, length = (call.get(k, n) for k, n in ((1, "dim"), (2, "start"), (3, "length")))
    return reshape_rules.indexed(call.x, (slice(None),) * call.x.dim(dim) + (slice(start, start + length),))


def expanded(call: Call) -> Equivariant:
    """``expand`` and ``expand_as``."""
    return reshape_rules.expanded(call.x, tuple(call.out.shape))


_ROWS: dict[str, Rule] = {
    **dict.fromkeys(POINTWISE.split(), pointwise),
    **dict.fromkeys(LINEAR.split(), added),
    **dict.fromkeys(SAME.split(), same),
    **dict.fromkeys(RESHAPES.split(), reshape),
    **dict.fromkeys(DROPOUTS.split(), dropout),
    **{name: permute(name) for name in PERMUTES.split()},
    **dict.fromkeys(("cat", "concat", "concatenate"), concatenated),
    **dict.fromkeys(("mul", "multiply"), multiplied),
    **dict.fromkeys(("div", "divide", "true_divide", "truediv"), quotient),
    **dict.fromkeys(("mean", "sum"), lambda call: reduced(call, linear=True)),
    **dict.fromkeys(("amax", "amin"), lambda call: reduced(call, linear=False)),
    **dict.fromkeys(("max", "min"), extremum),
    **dict.fromkeys(("std", "var"), deviation),
    "stack": stacked,
    "conv2d": convolution,
    "prelu": prelu,
    "linear": linear,
    "max_pool2d": max_pool,
    "avg_pool2d": avg_pool,
    "adaptive_avg_pool2d": lambda call: window_rules.adaptively_pooled(
        call.x, call.get(1, "output_size"), maximum=False
    ),
    "adaptive_max_pool2d": lambda call: window_rules.adaptively_pooled(
        call.x, call.get(1, "output_size"), maximum=True
    ),
    "pad": pad,
    "interpolate": interpolated,
    "pixel_shuffle": shuffled,
    "channel_shuffle": same,
    "batch_norm": batch_norm,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "softmax": over_channels("softmax"),
    "log_softmax": over_channels("softmax"),
    "glu": over_channels("gate", default=-1),
    "normalize": lambda call: attention_rules.unit_length(call.x, call.get(1, "p", 2.0), call.get(2, "dim", 1)),
    "matmul": lambda call: attention_rules.product(call.get(0, "input"), call.get(1, "other")),
    "bmm": lambda call: attention_rules.product(call.get(0, "input"), call.get(1, "mat2")),
    "scaled_dot_product_attention": attention_rules.scaled_dot_product,
    "roll": lambda call: reshape_rules.rolled(call.x, call.get(2, "dims")),
    "flip": lambda call: reshape_rules.flipped(call.x, call.rest(1, "dims")),
    "getitem": indexed,
    "chunk": divided("cuts", 2),
    "split": divided("cuts", 2),
    "tensor_split": divided("cuts", 2),
    "unbind": unbound,
    "narrow": narrowed,
    "expand": expanded,
    "expand_as": expanded,
    "stochastic_depth": stochastic_depth,
}

METHODS: dict[str, Rule] = {
    **{name: rule for name, rule in _ROWS.items() if hasattr(Tensor, name)},
    **dict.fromkeys(SHAPE_METHODS - {"type"}, same),
}
for _name, _rule in list(METHODS.items()):  # x.relu_(), x.__add__(y), and y.__radd__(x), which commutes
    if hasattr(Tensor, f"{_name}_"):
        METHODS[f"{_name}_"] = _rule
    if hasattr(Tensor, f"__{_name}__"):
        METHODS[f"__{_name}__"] = _rule
    if hasattr(Tensor, f"__r{_name}__") and _rule in (added, multiplied):
        METHODS[f"__r{_name}__"] = _rule
METHODS["__rtruediv__"] = METHODS["__rdiv__"] = pointwise

FUNCTIONS: dict[Any, Rule] = {}
for _space in (torch, F, operator):
    for _name, _rule in _ROWS.items():
        for _variant in (_name, f"{_name}_", f"i{_name}" if _space is operator else _name):
            if callable(getattr(_space, _variant, None)):
                FUNCTIONS[getattr(_space, _variant)] = _rule
