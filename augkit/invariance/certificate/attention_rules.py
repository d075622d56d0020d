"""Rules for attention: products of matrices over places, class tokens in front of them, and scores of pairs.

Softmax attention treats places as a set, so it commutes with every permutation of them, and with shifts by whole
places; positions break that unless they are circulant on the torus. Products that sum over all places (cross-covariance
attention) are inner products of periodic functions: without the Nyquist frequency no fractional shift changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from augkit.invariance.certificate import reshape_rules, window_rules
from augkit.invariance.certificate.call import Call
from augkit.invariance.certificate.state import (
    FIXED,
    Axis,
    Equivariant,
    Level,
    Limitation,
    Lost,
    Operand,
    Pairs,
    breaks,
    nonlinear,
    unseen,
)

Rule = Callable[[Call], Any]

# Functions and module classes, by name, whose rules also hold for values with entries before the places.
_EACH = """
    add sub mul div truediv neg multiply divide relu gelu silu tanh sigmoid softmax log_softmax normalize linear
    layer_norm dropout contiguous clone to float double half type type_as view reshape flatten unflatten squeeze
    unsqueeze permute transpose swapaxes movedim size dim chunk split unbind expand getitem stochastic_depth
    ReLU GELU SiLU Tanh Sigmoid Softmax Linear LayerNorm Dropout Identity
"""
WITH_PREFIX = {
    *_EACH.split(),
    *["cat", "concat", "mean", "sum", "amax", "amin", "scaled_dot_product_attention", "matmul", "MultiheadAttention"],
}
# The same for pairs of places, where a rule judges each place in turn, and for images not in dimension 0.
PAIRWISE = set(_EACH.split()) - {"chunk", "split", "unbind", "getitem", "expand", "layer_norm", "LayerNorm"}
BATCH_ELSEWHERE = {"unbind", "getitem", "permute", "transpose", "swapaxes", "movedim", "size", "dim", "contiguous"}
CIRCULANT = "positions that depend on the distance on the torus only (RelativeBias with wraps=True), or none"


def guarded(rule: Rule, what: str, call: Call) -> Rule:
    """Return the rule for a call, or one that refuses it, where tensors are more than plain maps."""
    name = what.removeprefix("function ").strip("_")
    name = name.removeprefix("r") if name in ("radd", "rmul") else name.removeprefix("i") if name in INPLACE else name
    states: list[Any] = [operand.state for operand in call.operands()]
    moving = [state for state in states if isinstance(state, Equivariant)]
    if any(state.batch for state in moving) and name not in BATCH_ELSEWHERE:
        return _refused("works on tensors whose images are not in the first dimension")
    if any(state.prefix for state in moving) and name not in WITH_PREFIX:
        return _refused("works on a sequence of a class token and places")
    if any(isinstance(state, Pairs) for state in states) and name not in ("matmul", "bmm"):
        return _pairwise(rule, name) if name in PAIRWISE else _refused("works on the scores of attention")
    return rule


INPLACE = {"iadd", "isub", "imul", "itruediv"}


def _refused(why: str) -> Rule:
    def rule(call: Call) -> Any:
        raise unseen(f"{why}, and there is no rule for that")

    return rule


def _pairwise(rule: Rule, name: str) -> Rule:
    """A function that commutes with shifts of the rows, and with shifts of the columns."""

    def both(call: Call) -> Any:
        first = call.args[0] if call.args else None
        others = [operand for operand in call.operands() if operand is not first]
        if not isinstance(first, Operand) or any(o.state.moves for o in others if isinstance(o.state, Equivariant)):
            raise unseen("combines the scores of attention with something that moves")
        pairs: Any = first.state
        if not isinstance(pairs, Pairs) or any(isinstance(o.state, Pairs) for o in others):
            raise unseen("combines several scores of attention")
        if name in ("add", "sub") and len(others) == 1 and others[0].state is FIXED:
            _check_positions(others[0], pairs.rows, pairs.columns, first.value.ndim)
            return pairs
        parts = [
            rule(replace(call, args=(Operand(first.value, state), *call.args[1:])))
            for state in (pairs.rows, pairs.columns)
        ]
        return parts[0] if not isinstance(call.result, torch.Tensor) else Pairs(*parts)

    return both


def prefixed(parts: Sequence[Operand], dim: int) -> Equivariant:
    """Joining entries that do not move, such as a class token, in front of a sequence of places."""
    last = parts[-1]
    if not last.state.moves:
        raise unseen("joins entries behind a sequence of places")
    if last.bordered():
        raise breaks("joins entries to a padded map", "join them to the map itself")
    if len(last.state.at(dim)) == 1 and last.value.ndim == 4:
        raise breaks("joins maps along a side, which makes a border between them", "join along channels")
    state = replace(last.state, prefix=last.state.prefix + sum(part.shape[dim] for part in parts[:-1]))
    for part in parts[:-1]:
        state = _lowered_to(state, part.state)
    return state


def indexed(x: Operand, index: Any) -> Equivariant:
    """Basic indexing, which may separate the entries before the places from the places."""
    state = x.state
    if not state.prefix:
        return reshape_rules.indexed(x, index)
    dim = next(axis.dim for axis in state.axes if axis is not None)
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(item is ... or isinstance(item, int | slice) for item in items):
        raise unseen("indexes with a tensor, a list or a new dimension")
    if ... in items:
        place = items.index(...)
        items[place : place + 1] = [slice(None)] * (x.value.ndim - len(items) + 1)
    if len(items) <= dim:
        items += [slice(None)] * (dim + 1 - len(items))
    item, size, first = items[dim], x.shape[dim], state.prefix
    if isinstance(item, int):
        start, stop, step = item % size, item % size + 1, 1
    else:
        start, stop, step = item.indices(size)
    items[dim] = item if isinstance(item, int) else slice(None)
    if step == 1 and stop <= first:
        return reshape_rules.indexed(Operand(x.value, replace(state.with_axes((None, None)), prefix=0)), tuple(items))
    if step != 1 or stop != size or start > first or isinstance(item, int):
        raise breaks("picks some places of a sequence", "the class token, or a mean over all places")
    places = Operand(x.value.narrow(dim, first, size - first), replace(state, prefix=0))
    return replace(reshape_rules.indexed(places, tuple(items)), prefix=first - start)


def selected(x: Operand, index: Any) -> Equivariant:
    """One entry of the first dimension, where the images are in another."""
    index = index if isinstance(index, tuple) else (index,)
    dim = len(index) - 1
    whole = all(item == slice(None) for item in index[:-1])
    if not whole or not isinstance(index[-1], int) or dim == x.state.batch or x.state.at(dim):
        raise unseen("takes a part of a tensor whose images are not in the first dimension")
    axes = [None if a is None else replace(a, dim=a.dim - (a.dim > dim)) for a in x.state.axes]
    return replace(x.state.with_axes(axes), batch=x.state.batch - (x.state.batch > dim))


def unit_length(x: Operand, p: float, dim: int) -> Equivariant:
    """`torch.nn.functional.normalize`: over channels, or over all places, whose Euclidean norm measures the energy."""
    dim = x.dim(dim)
    count = sum(axis is not None for axis in x.state.axes)
    if p != 2 or not x.state.moves or len(x.state.at(dim)) != count or x.bordered() or dim == x.state.batch:
        return window_rules.channels_mixed(x, dim, "a norm")
    return _energy(x.state, "its norm")


def _energy(state: Equivariant, what: str) -> Equivariant:
    if state.clean:
        return state
    why = f"{what} counts the Nyquist frequency, whose energy changes with the fraction of a shift"
    return state.lowered(why, "an ideal low-pass before it, or odd sides")


def product(a: Operand, b: Operand) -> Equivariant | Pairs:
    """A product of matrices ``(..., M, K)`` and ``(..., K, N)``."""
    if a.value.ndim < 2 or b.value.ndim < 2:
        raise unseen("multiplies vectors")
    ndim = max(a.value.ndim, b.value.ndim)
    if a.value.ndim == ndim and b.value.ndim == 2 and not b.state.moves and not a.state.at(ndim - 1):
        return _lowered_to(a.state, b.state)  # a linear map of the channels of each place
    left, right = _Factor(a, ndim, a.value.ndim - 1), _Factor(b, ndim, b.value.ndim - 2)
    if left.inner is None or right.inner is None:
        if left.inner is not right.inner:
            raise breaks("gives each place of a map a weight of its own", reshape_rules.FLATTEN)
        if left.outer is not None and right.outer is not None:
            return Pairs(_lowered_to(left.outer, right.outer), _lowered_to(right.outer, left.outer))
        kept = left.outer or right.outer or Equivariant(Level.FRACTIONAL)
        return _lowered_to(_lowered_to(kept, a.state), b.state)
    if left.outer is not None and right.outer is not None:
        raise unseen("multiplies scores of attention")
    if left.inner.frame != right.inner.frame or _torus(left.inner) != _torus(right.inner):
        raise breaks("multiplies maps that do not move alike", "keys and values of the same map")
    clean = left.inner.clean and right.inner.clean
    summed = [_energy(replace(state, clean=clean), "its sum of products") for state in (left.inner, right.inner)]
    kept = left.outer or right.outer or summed[0].with_axes((None, None))
    return _lowered_to(_lowered_to(kept, summed[0]), summed[1])


class _Factor:
    """A factor of a product, for a result of ``ndim`` dimensions.

    Attributes:
        inner, outer: its state along the dimension that is summed, and along the one that is kept; None where it does
            not move along it.
    """

    def __init__(self, operand: Operand, ndim: int, summed: int) -> None:
        self.inner: Equivariant | None = None
        self.outer: Equivariant | None = None
        given: Any = operand.state
        own = operand.value.ndim
        for state in (given.rows, given.columns) if isinstance(given, Pairs) else (given,):
            dims = {axis.dim for axis in state.axes if axis is not None}
            if not dims:
                continue
            dim = dims.pop()
            if dims or dim < own - 2:
                raise unseen("multiplies matrices of a map whose places are in other dimensions")
            if Operand(operand.value, state).bordered():
                raise breaks("multiplies a padded map, in which pixels at the border count twice", "the map itself")
            moved = state.with_axes([None if a is None else replace(a, dim=a.dim + ndim - own) for a in state.axes])
            if dim == summed:
                self.inner = moved
            else:
                self.outer = moved


def _torus(state: Equivariant) -> tuple[Any, ...]:
    return (state.prefix, *(None if axis is None else (axis.period, axis.unit) for axis in state.axes))


def _lowered_to(state: Equivariant, other: Equivariant | Pairs) -> Equivariant:
    """The state with the level of the other, if that is lower."""
    if other.level >= state.level:
        return state
    limit = other.limit if isinstance(other, Equivariant) else other.rows.limit or other.columns.limit
    return replace(state, level=other.level, limit=state.limit or limit)


def scaled_dot_product(call: Call) -> Equivariant:
    """`torch.nn.functional.scaled_dot_product_attention`."""
    q, k, v = (call.get(n, name) for n, name in enumerate(("query", "key", "value")))
    if call.get(4, "dropout_p", 0.0):
        raise unseen("is random in evaluation mode", "dropout_p=0.0 in evaluation")
    if call.get(5, "is_causal", False):
        raise breaks("lets each place see only those before it", "attention without a causal mask")
    return attended(q, k, v, call.get(3, "attn_mask", None))


def multihead(module: nn.MultiheadAttention, call: Call) -> tuple[Any, ...]:
    """`torch.nn.MultiheadAttention` with the batch first."""
    m = module
    q, k, v = (call.get(n, name) for n, name in enumerate(("query", "key", "value")))
    if not m.batch_first and any(o.state.moves for o in (q, k, v)):
        raise unseen("takes the batch in the second dimension", "batch_first=True")
    if (
        q.value.ndim != 3
        or m.bias_k is not None
        or m.add_zero_attn
        or call.get(3, "key_padding_mask", None) is not None
    ):
        raise unseen("adds keys or leaves some out")
    if call.get(7, "is_causal", False):
        raise breaks("lets each place see only those before it", "attention without a causal mask")
    weights = Lost(Limitation("the weights of its attention are not followed", refused=True))
    return attended(q, k, v, call.get(5, "attn_mask", None)), weights


def attended(q: Operand, k: Operand, v: Operand, mask: Operand | None) -> Equivariant:
    """Softmax attention of queries, keys and values ``(..., places, channels)``."""
    for operand in (q, k, v):
        if any(axis is not None and axis.dim != operand.value.ndim - 2 for axis in operand.state.axes):
            raise unseen("attends along dimensions that do not hold all places")
        if operand.bordered():
            raise breaks("attends to a padded map, in which pixels at the border count twice", "the map itself")
    if (k.state.frame, _torus(k.state)) != (v.state.frame, _torus(v.state)):
        raise breaks("takes keys and values from maps that do not move alike", "keys and values of the same map")
    states = [nonlinear(o.state, "a softmax over places" if k.state.moves else "a softmax") for o in (q, k, v)]
    if mask is not None:
        if mask.state is not FIXED:
            raise unseen("has a mask that is computed from the image")
        _check_positions(mask, q.state, replace(k.state, axes=_last(k)), q.value.ndim)
    return _lowered_to(_lowered_to(*states[:2]), states[2])


def _last(k: Operand) -> tuple[Axis | None, Axis | None]:
    y, x = (None if axis is None else replace(axis, dim=k.value.ndim - 1) for axis in k.state.axes)
    return y, x


def _check_positions(mask: Operand, rows: Equivariant, columns: Equivariant, ndim: int) -> None:
    """Check that fixed scores do not change when queries and keys move together by one place, along each axis."""
    if rows.moves and columns.moves and rows.frame != columns.frame:
        raise breaks("adds positions between maps whose sampling grids were chosen apart", "one phase for both")
    values, name = mask.value, "" if mask.name is None else f" '{mask.name}'"
    for k in (0, 1):
        moved = values
        for state in (rows, columns):
            axis = state.axes[k]
            if axis is None:
                continue
            dim = axis.dim - (ndim - values.ndim)
            if dim >= 0 and values.shape[dim] > 1:
                if axis.unit != 1:
                    raise unseen("adds positions to a map that does not move by whole places")
                moved = _turned(moved, dim, state, k)
        if not torch.equal(moved, values):
            raise breaks(f"adds positions{name} to its scores that change when the image moves on the torus", CIRCULANT)


def _turned(values: torch.Tensor, dim: int, state: Equivariant, k: int) -> torch.Tensor:
    """The values with the places of one dimension moved by one along axis k."""
    periods = [1 if axis is None else axis.period for axis in state.axes]
    places = torch.arange(periods[0] * periods[1], device=values.device).view(periods).roll(1, k).flatten()
    order = torch.cat([torch.arange(state.prefix, device=values.device), places + state.prefix])
    return values.index_select(dim, order)
