"""Rules for reshaping, permuting, slicing and joining: values stay the same, their positions in memory change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from augkit.invariance.certificate.state import Axis, Equivariant, Operand, Window, breaks, slid, unseen

FLATTEN = "global average pooling before it (head='gap')"


def reshaped(x: Operand, shape: tuple[int, ...]) -> Equivariant:
    """Row-major reshaping: ``view``, ``flatten``, ``squeeze``, ``unsqueeze``.

    Axes may be carried along, flattened together to a sequence of places, or unfolded again.
    """
    old = x.shape
    groups = _groups(old, shape)
    if any((0 in before) != (0 in after) or (0 in before and len(before + after) > 2) for before, after in groups):
        raise unseen("folds images of a batch into other dimensions")
    axes: list[Axis | None] = []
    for axis in x.state.axes:
        axes.append(None if axis is None else _carried(x, axis, shape, groups))
    return x.state.with_axes(axes)


def _carried(x: Operand, axis: Axis, shape: tuple[int, ...], groups: list[tuple[list[int], list[int]]]) -> Axis:
    before, after = next(group for group in groups if axis.dim in group[0])
    y, x_axis = x.state.axes
    dims = [] if y is None or x_axis is None else [y.dim, x_axis.dim]
    if len(before) == len(after) == 1:
        return replace(axis, dim=after[0])
    if before == dims and len(after) == 1 and not x.bordered():
        return replace(axis, dim=after[0])
    if y is not None and x_axis is not None and len(before) == 1 and dims == before * 2:
        if [shape[d] for d in after] == [y.period, x_axis.period]:
            return replace(axis, dim=after[0] if axis is y else after[1])
        raise breaks("folds a sequence of places in another way than it was made")
    if before == sorted(dims):
        raise unseen("flattens a transposed map")
    parts = [shape[d] for d in after]
    if before == [axis.dim] and len(parts) == 2 and not x.bordered():
        cut = f"cuts a side of {axis.period} places into {parts[0]} windows of {parts[1]} that stay where they are"
        raise breaks(cut, "attention over the whole map, or windows of no more than one place")
    size = " x ".join(str(x.shape[a.dim]) for a in (y, x_axis) if a is not None)
    raise breaks(f"gives each place of a {size} map an entry of its own", FLATTEN)


def _groups(old: tuple[int, ...], new: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Smallest runs of dimensions that hold the same entries on both sides; dimensions of 1 are left out."""
    before = [d for d, size in enumerate(old) if size != 1]
    after = [d for d, size in enumerate(new) if size != 1]
    groups = []
    while before or after:
        left, right = [before.pop(0)], [after.pop(0)]
        here, there = old[left[0]], new[right[0]]
        while here != there:
            if here < there:
                left.append(before.pop(0))
                here *= old[left[-1]]
            else:
                right.append(after.pop(0))
                there *= new[right[-1]]
        groups.append((left, right))
    return groups


def permuted(x: Operand, permute: Callable[[torch.Tensor], torch.Tensor]) -> Equivariant:
    """A permutation of dimensions, found by applying it to a tensor whose sizes all differ."""
    probe = torch.empty(tuple(range(2, 2 + x.value.ndim)), device="meta")
    order = [size - 2 for size in permute(probe).shape]
    axes = [None if axis is None else replace(axis, dim=order.index(axis.dim)) for axis in x.state.axes]
    return replace(x.state.with_axes(axes), batch=order.index(x.state.batch))


def indexed(x: Operand, index: Any) -> Equivariant:
    """Basic indexing by integers, slices, ``None`` and ``...``; a slice with a step is a stride."""
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(item is None or item is ... or isinstance(item, int | slice) for item in items):
        raise unseen("indexes with a tensor or a list")
    used = sum(item is not None and item is not ... for item in items)
    if ... not in items:
        items.append(...)
    place = items.index(...)
    items[place : place + 1] = [slice(None)] * (x.value.ndim - used)
    new_dims: dict[int, int] = {}
    windows: dict[int, Window] = {}
    dim = out = 0
    for item in items:
        if item is None:
            out += 1
            continue
        if isinstance(item, slice):
            _sliced(x, dim, item, windows)
            new_dims[dim] = out
            out += 1
        elif x.state.at(dim) or dim == 0:
            raise breaks("picks one place of a map", "a mean over all places") if dim else unseen("picks one image")
        dim += 1
    state = slid(x, windows, "", "AdaptivePolyphaseSampling in the place of the step")
    return state.with_axes([None if a is None else replace(a, dim=new_dims[a.dim]) for a in state.axes])


def _sliced(x: Operand, dim: int, item: slice, windows: dict[int, Window]) -> None:
    size = x.shape[dim]
    start, stop, step = item.indices(size)
    if (start, stop, step) == (0, size, 1):
        return
    if dim == 0:
        raise unseen("picks images of the batch")
    # A slice drops as many pixels at the ends as a window of that reach does.
    windows[dim] = Window(kernel=size - max(stop - start, 1) + 1, stride=step)


def rolled(x: Operand, dims: Any) -> Equivariant:
    """`torch.roll`: the torus turned by a fixed distance."""
    named = [x.dim(d) for d in ([dims] if isinstance(dims, int) else dims)]
    _whole(x, named, "rolls")
    return x.state


def flipped(x: Operand, dims: Any) -> Equivariant:
    """`torch.flip`: the map moves the other way."""
    named = [x.dim(d) for d in ([dims] if isinstance(dims, int) else dims)]
    _whole(x, named, "flips")
    axes = [replace(axis, unit=-axis.unit) if axis is not None and axis.dim in named else axis for axis in x.state.axes]
    return x.state.with_axes(axes)


def _whole(x: Operand, dims: list[int], what: str) -> None:
    if 0 in dims:
        raise unseen(f"{what} the batch")
    for axis in x.state.axes:
        if axis is not None and axis.dim in dims:
            if len(x.state.at(axis.dim)) > 1:
                raise breaks(f"{what} a sequence of places")
            if x.bordered():
                raise breaks(f"{what} a padded map")


def divided(x: Operand, dim: int, what: str) -> Equivariant:
    """Parts along a dimension of channels."""
    dim = x.dim(dim)
    if dim == 0:
        raise unseen(f"{what} the batch")
    if x.state.at(dim):
        raise breaks(f"{what} the map at fixed places")
    return x.state


def expanded(x: Operand, shape: tuple[int, ...]) -> Equivariant:
    """Broadcasting to a larger shape; a map that moves must keep its dimensions."""
    shift = len(shape) - x.value.ndim
    if shift and x.state.moves:
        raise unseen("adds dimensions before the batch")
    grown = [d for d in range(x.value.ndim) if x.shape[d] != shape[d + shift]]
    if 0 in grown or any(x.state.at(d) for d in grown):
        raise unseen("repeats images or places")
    return x.state
