"""The state of a traced value: which shifts of the input it follows, and on which grid.

On a torus a map follows the input when a shift of the input by ``g`` pixels only shifts the map. The map shifts by
``unit * t`` pixels along each axis, where ``t`` is the shift of its *frame*: the input itself, or the grid that a
polyphase sampling chose. Two maps can be added only if they move alike: same frame, same unit.

- ``FRACTIONAL``: for every real ``g`` (`augkit.fourier_shift`); units may be fractions, as after ideal downsampling.
- ``INTEGER``: for integer ``g`` only. The map itself may still move by fractions of its pixels.
- A value without axes does not move: it is invariant.

The scores of attention between all pairs of places are `Pairs`: they follow the shifts of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from fractions import Fraction
from typing import Any

from torch import Tensor


class Level(IntEnum):
    """The shifts that a value follows; ``FRACTIONAL`` includes ``INTEGER``."""

    INTEGER = 1
    FRACTIONAL = 2


@dataclass(frozen=True)
class Limitation:
    """Why a guarantee ends at a layer, and how to restore it; ``refused`` where the layer cannot be judged."""

    why: str
    remedy: str | None = None
    refused: bool = False
    needs_divisible: bool = False
    layer: str | None = None
    type: str | None = None
    order: int = 0


class Broken(Exception):  # noqa: N818 (a rule's verdict, caught by the trace)
    """Raised by a rule: the output follows no shift, or cannot be judged."""

    def __init__(self, limitation: Limitation) -> None:
        super().__init__(limitation.why)
        self.limitation = limitation


def breaks(why: str, remedy: str | None = None) -> Broken:
    """Return the exception for a layer that provably treats places differently."""
    return Broken(Limitation(why, remedy))


def unseen(why: str, remedy: str | None = None) -> Broken:
    """Return the exception for a layer that cannot be judged."""
    return Broken(Limitation(why, remedy, refused=True))


@dataclass(frozen=True)
class Axis:
    """A spatial axis of a value.

    Attributes:
        dim: dimension of the tensor; two axes share one where a map was flattened to a sequence of places.
        period: pixels after which the torus repeats. A circularly padded map is longer than its period.
        unit: pixels by which the value moves along the axis when the frame moves by one.
    """

    dim: int
    period: int
    unit: Fraction


@dataclass(frozen=True)
class Equivariant:
    """A value that follows the shifts of ``level`` along its axes ``(y, x)`` and is invariant without them.

    Attributes:
        frame: the grid that it moves with: ``()`` for the input, else the polyphase choices made so far.
        clean: no content at the Nyquist frequency of an even side, whose energy a fractional shift changes.
        limit: the layer that lowered the level to ``INTEGER``.
        prefix: entries before the places in their dimension that do not move, such as a class token.
        batch: the dimension of the images.
    """

    level: Level
    axes: tuple[Axis | None, Axis | None] = (None, None)
    frame: tuple[Any, ...] = ()
    clean: bool = True
    limit: Limitation | None = field(default=None, compare=False)
    prefix: int = 0
    batch: int = 0

    @property
    def moves(self) -> bool:
        return any(axis is not None for axis in self.axes)

    def at(self, dim: int) -> list[Axis]:
        """Axes that lie in dimension ``dim``."""
        return [axis for axis in self.axes if axis is not None and axis.dim == dim]

    def with_axes(self, axes: Sequence[Axis | None]) -> Equivariant:
        """Return this state with other axes. An axis of period 1 cannot move; without axes there is no frame."""
        y, x = (None if axis is None or axis.period == 1 else axis for axis in axes)
        still = y is None and x is None
        frame, prefix = ((), 0) if still else (self.frame, self.prefix)
        return replace(self, axes=(y, x), frame=frame, clean=still or self.clean, prefix=prefix)

    def lowered(self, why: str, remedy: str | None = None) -> Equivariant:
        """Return the state after a layer that commutes only with shifts by whole pixels of the map."""
        if not self.moves:
            return self
        for axis in self.axes:
            if axis is not None and axis.unit.denominator > 1:
                raise breaks(
                    f"{why}, on a map that a shift of the input by one pixel moves by {axis.unit} pixel", remedy
                )
        limit = Limitation(why, remedy) if self.level == Level.FRACTIONAL else self.limit
        return replace(self, level=Level.INTEGER, limit=limit, clean=False)


FIXED = Equivariant(Level.FRACTIONAL)  # parameters and constants; compared by identity


@dataclass(frozen=True)
class Phase:
    """The choice of a polyphase sampling, with the grid on which it was made and the step that made it."""

    source: tuple[Any, ...]
    token: int


@dataclass(frozen=True)
class Lost:
    """A value that follows no shift, or that cannot be judged."""

    limitation: Limitation


@dataclass(frozen=True)
class Pairs:
    """A value for each pair of places, such as the scores of attention, that follows shifts of either place.

    Attributes:
        rows, columns: its state for shifts of the queries and of the keys.
    """

    rows: Equivariant
    columns: Equivariant

    @property
    def level(self) -> Level:
        return min(self.rows.level, self.columns.level)


State = Equivariant | Phase | Lost | Pairs


@dataclass(frozen=True, eq=False)
class Operand:
    """A tensor argument of a layer: its value for one batch of images, its state, and the name of a parameter."""

    value: Tensor
    state: Equivariant
    name: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    def dim(self, dim: int) -> int:
        """``dim`` counted from the front."""
        return dim % max(self.value.ndim, 1)

    def bordered(self) -> bool:
        """Whether it carries pixels beyond its period."""
        state = self.state
        own = [(self.shape[axis.dim] - state.prefix, axis.period) for axis in state.axes if axis is not None]
        return any(size not in (period, _area(state)) for size, period in own)


def _area(state: Equivariant) -> int:
    y, x = state.axes
    return y.period * x.period if y is not None and x is not None and y.dim == x.dim else -1


def combined(operands: Iterable[Operand], ndim: int | None = None) -> Equivariant:
    """Return the state of a linear, elementwise combination with broadcasting. Moving operands must move alike."""
    operands = list(operands)
    ndim = max((o.value.ndim for o in operands), default=0) if ndim is None else ndim
    if operands and all(o.state is FIXED for o in operands):
        return FIXED
    level = min((o.state.level for o in operands), default=Level.FRACTIONAL)
    limits = [o.state.limit for o in operands if o.state.limit is not None]
    limit = min(limits, key=lambda limitation: limitation.order, default=None)
    moving = [o for o in operands if o.state.moves]
    if not moving:
        return Equivariant(level, limit=limit)
    if len({o.state.frame for o in moving}) > 1:
        raise breaks(
            "combines maps whose sampling grids were chosen apart, so that they move apart",
            "sample both with one phase: pass the phase of the main branch to the sampling of the other",
        )
    if len({o.state.prefix for o in moving}) > 1:
        raise unseen("combines tokens with and without a class token")
    axes = [_agreed({_rebased(o, k, ndim) for o in moving} - {None}) for k in (0, 1)]
    dims = {axis.dim for axis in axes if axis is not None}
    for operand in operands:
        _check_still(operand, dims, ndim, moving[0].state.prefix)
    clean = all(o.state.clean for o in moving)
    return Equivariant(level, (axes[0], axes[1]), moving[0].state.frame, clean, limit, moving[0].state.prefix)


def _rebased(operand: Operand, k: int, ndim: int) -> Axis | None:
    axis = operand.state.axes[k]
    return None if axis is None else replace(axis, dim=axis.dim + ndim - operand.value.ndim)


def _agreed(axes: set[Axis | None]) -> Axis | None:
    if len(axes) > 1:
        raise breaks("combines maps that move by different distances or along different axes")
    return next(iter(axes), None)


def _check_still(operand: Operand, dims: set[int], ndim: int, prefix: int) -> None:
    """Check that a value that does not move is the same at every place, so that it can be combined with a map."""
    own = {axis.dim + ndim - operand.value.ndim for axis in operand.state.axes if axis is not None}
    for dim in dims - own:
        mine = dim - (ndim - operand.value.ndim)
        if mine < 0 or operand.shape[mine] == 1:
            continue
        if operand.state is not FIXED:
            raise unseen("combines a map with a value of many places that does not move with it")
        values = operand.value.narrow(mine, prefix, operand.shape[mine] - prefix)
        if not bool((values == values.narrow(mine, 0, 1)).all()):
            what = "fixed values" if operand.name is None else f"the fixed values of '{operand.name}'"
            remedy = "one value per channel; instead of absolute positions, relative ones on the torus, or none"
            raise breaks(f"combines a map with {what} that differ from place to place", remedy)


FINER_GRID = "AliasFreeActivation, which works on a finer grid and filters"


def nonlinear(state: Equivariant, what: str = "a pointwise nonlinearity", remedy: str = FINER_GRID) -> Equivariant:
    """Return the state after a nonlinear function of each place."""
    why = f"{what} makes frequencies that the grid cannot represent, so fractional shifts no longer commute with it"
    return state.lowered(why, remedy)


@dataclass(frozen=True)
class Window:
    """A sliding window along one axis; ``pad`` is the sum of both sides."""

    kernel: int
    stride: int = 1
    dilation: int = 1
    pad: int = 0


def slid(x: Operand, windows: dict[int, Window], border: str, remedy_for_stride: str) -> Equivariant:
    """Return the state after windows that slide along dimensions. One reason lists all faults of the layer.

    Args:
        x: the map.
        windows: the window of each dimension.
        border: padding mode of ``pad``; only ``circular`` has no border.
        remedy_for_stride: advice for a layer with a stride.
    """
    faults: dict[str, str] = {}
    axes: list[Axis | None] = []
    strided = False
    for axis in x.state.axes:
        window = None if axis is None else windows.get(axis.dim)
        if axis is None or window is None:
            axes.append(axis)
            continue
        if len(x.state.at(axis.dim)) > 1:
            raise unseen("slides over places that were flattened to a sequence")
        found, moved = _slid(axis, x.shape[axis.dim], window, border, remedy_for_stride)
        faults.update(found)
        axes.append(moved)
        strided |= window.stride > 1
    if faults:
        raise breaks(" and ".join(faults), "; ".join(dict.fromkeys(faults.values())))
    state = x.state.with_axes(axes)
    return state.lowered("subsampling folds high frequencies onto low ones", "ideal downsampling") if strided else state


def _slid(axis: Axis, size: int, window: Window, border: str, remedy: str) -> tuple[dict[str, str], Axis]:
    faults = {}
    stride = window.stride
    if stride > 1 and (axis.unit % stride or axis.period % stride):
        faults[_subsampled(axis, window)] = remedy
    reach = window.dilation * (window.kernel - 1)
    if window.pad and border != "circular":
        faults[f"{border} padding makes the border differ from the inside"] = "padding_mode='circular'"
    elif window.pad and size != axis.period:
        faults["circular padding of a map that is padded already repeats the wrong pixels"] = "pad once"
    length = (size + window.pad - reach - 1) // stride + 1
    period = axis.period // stride
    # The stride and padding of a strided map are given; its size follows from them.
    if not faults and length < period:
        faults[f"without enough padding the map shrinks from {axis.period} to {length} pixels and loses its border"] = (
            "padding_mode='circular' with padding that keeps the size"
        )
    return faults, replace(axis, period=max(period, 1), unit=axis.unit / stride)


def _subsampled(axis: Axis, window: Window) -> str:
    stride, step = window.stride, window.stride / axis.unit
    if window.kernel == stride > 3 and step.denominator == 1:
        return f"stride {stride} cuts patches of {stride} that stay where they are (only shifts by {step} pixels fit)"
    nth = {2: "every second pixel", 3: "every third pixel"}.get(stride, f"one pixel in {stride}")
    return f"stride {stride} keeps {nth} (others after a shift by one)"
