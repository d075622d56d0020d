"""The displacements under which every image is measured: one frozen plan, and the draws per image.

A *view* is an image under one displacement; a *column* is the same kind of view for every image. Equal columns are
merged, so that no forward pass is repeated: accuracy, curves, grid and path share the unshifted image. Displacements
are a pure function of the seed and the number of the image in the data (Philox, a counter-based generator: Salmon et
al. 2011), so they depend neither on the batch size nor on the other displacements of the plan.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from augkit.core.errors import InputError, check_whole, unknown_name

AXES = ("shift", "scale")
Place = tuple[float, float]
PAIR_STREAM, DIRECTION_STREAM, WHOLE_STREAM = range(3)


@dataclass(frozen=True)
class Pairs:
    """How the pairs of displacements (s, t) of an image are drawn.

    Attributes:
        count: pairs per image.
        low, high: range of each displacement: pixels along each axis, or factors for axis ``scale`` (log-uniform).
        quantum: draw multiples of this many pixels, both ends included; any fraction when None.
        anchored: s is the unshifted image, and only t is drawn.
        step: only s is drawn, and t is s plus ``(x, y)`` pixels; t is independent of s when None.

    Raises:
        InputError: a number is out of range, or both ``anchored`` and ``step`` are given.
    """

    count: int = 4
    low: float = -8.0
    high: float = 8.0
    quantum: float | None = None
    anchored: bool = False
    step: Place | None = None

    def __post_init__(self) -> None:
        check_whole("pairs", self.count, 1, optional=False)
        if not -math.inf < self.low <= self.high < math.inf:
            raise InputError(f"pairs: expected low <= high, both finite, got {self.low:g} and {self.high:g}")
        if self.quantum is not None and not 0 < self.quantum < math.inf:
            raise InputError(f"pairs: expected a quantum above 0 pixels, got {self.quantum:g}")
        if self.anchored and self.step is not None:
            raise InputError("pairs: expected anchored or a step, got both")
        if self.step is not None and not all(math.isfinite(v) for v in self.step):
            raise InputError(f"pairs: expected a finite step (x, y), got {self.step}")

    @property
    def reach(self) -> float:
        """The largest displacement along an axis, in the unit of ``low`` and ``high``."""
        step = max(abs(v) for v in self.step) if self.step is not None else 0.0
        return max(abs(self.low), abs(self.high)) + step

    @property
    def apart(self) -> float:
        """The largest difference between the two displacements of a pair along an axis, in pixels."""
        if self.step is not None:
            return max(abs(v) for v in self.step)
        return max(abs(self.low), abs(self.high)) if self.anchored else self.high - self.low


class Column(NamedTuple):
    """One kind of view.

    Attributes:
        source: the part that is drawn per image: ``fixed`` (nothing), ``first`` or ``second`` of a pair, a direction
            (``length``) or whole pixels (``fraction``).
        pair: number of the pair.
        place: the fixed part: x and y in pixels, and a factor.
        blurred: whether the view has the blur of the displacement without the displacement.
    """

    source: str
    pair: int = 0
    place: tuple[float, float, float] = (0.0, 0.0, 1.0)
    blurred: bool = False


UNSHIFTED = Column("fixed")


class Comparison(NamedTuple):
    """Two columns whose probabilities are compared; ``name`` is the name of the statistic."""

    name: str
    first: int
    second: int


@dataclass(frozen=True)
class Layout:
    """A plan as numbered columns; column 0 is the unshifted image.

    ``curves`` holds per curve and point the column that is compared with the unshifted one.
    """

    columns: tuple[Column, ...]
    pairs: tuple[tuple[int, int], ...]
    comparisons: tuple[Comparison, ...]
    grid: tuple[int, ...]
    path: tuple[int, ...]
    curves: dict[str, dict[float, int]]

    @cached_property
    def measures(self) -> tuple[str, ...]:
        """The distinct names of the comparisons, in order."""
        return tuple(dict.fromkeys(comparison.name for comparison in self.comparisons))


@dataclass(frozen=True)
class Plan:
    """The displacements under which every image is measured, in addition to the unshifted image.

    Attributes:
        axis: the kind of displacement, ``shift`` or ``scale``.
        pairs: pairs of displacements, for top-1 change, MAC, JS, kappa and the accuracy under shift.
        grid: displacements for the worst case, ``(x, y)`` pixels; factors for axis ``scale``.
        lengths: lengths in pixels of a shift in a random direction, one direction per image.
        fractions: fractions of a pixel, added along both axes to whole pixels drawn per image within the range
            of the pairs; the same whole pixels for all fractions.
        directions: directions in degrees, 0 to the right and 90 down, of shifts as long as the range of the pairs.
        scales: factors of rescaling.
        path: consecutive shifts, for jaggedness.
        blur_control: also measure the unmoved image with the blur of a displacement of each pair (the first
            displacement of the pair that moves).

    Raises:
        InputError: a number is out of range, or settings contradict each other.
    """

    axis: str = "shift"
    pairs: Pairs = Pairs()
    grid: tuple[Any, ...] = ()
    lengths: tuple[float, ...] = ()
    fractions: tuple[float, ...] = ()
    directions: tuple[float, ...] = ()
    scales: tuple[float, ...] = ()
    path: tuple[Place, ...] = ()
    blur_control: bool = False

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise unknown_name("axis", self.axis, AXES)
        if self.axis == "scale":
            self._check_scale()
        elif not all(np.shape(place) == (2,) for place in (*self.grid, *self.path)):
            raise InputError("plan: expected places (x, y) in grid and path")
        numbers = np.array([*np.ravel(self.grid), *self.lengths, *self.directions, *np.ravel(self.path)], dtype=float)
        if not np.isfinite(numbers).all() or not all(length >= 0 for length in self.lengths):
            raise InputError("plan: expected finite places and lengths of at least 0")
        if not all(0 < factor < math.inf for factor in self.scales):
            raise InputError(f"plan: expected scales above 0, got {self.scales}")
        if not all(0 <= fraction < 1 for fraction in self.fractions):
            raise InputError(f"plan: expected fractions of a pixel in [0, 1), got {self.fractions}")
        if self.fractions and math.floor(self.pairs.high) - math.ceil(self.pairs.low) < 1:
            raise InputError("plan: fractions need shifts over at least one pixel; leave them out")
        if self.blur_control and self.pairs.quantum is not None and self.pairs.quantum % 1 == 0:
            raise InputError("plan: shifts by whole pixels blur nothing; leave blur_control out")

    def _check_scale(self) -> None:
        if self.lengths or self.fractions or self.directions or self.path or self.blur_control:
            raise InputError("plan: lengths, fractions, directions, path and blur_control belong to axis 'shift'")
        if self.pairs.step is not None or self.pairs.quantum is not None:
            raise InputError("plan: steps and quanta of pairs belong to axis 'shift'")
        if not self.pairs.low > 0:
            raise InputError(f"plan: expected factors above 0, got {self.pairs.low:g}")
        if not all(np.ndim(factor) == 0 and factor > 0 for factor in self.grid):
            raise InputError("plan: expected factors above 0 in the grid of axis 'scale'")

    @property
    def max_shift(self) -> float:
        """The largest possible displacement of a view along an axis, in pixels."""
        fixed = [abs(v) for column in self.layout.columns for v in column.place[:2]]
        return max([*fixed, self.pairs.reach if self.axis == "shift" else 0.0])

    @property
    def factors(self) -> tuple[float, float]:
        """The smallest and the largest possible factor of a view."""
        fixed = [column.place[2] for column in self.layout.columns]
        drawn = [self.pairs.low, self.pairs.high] if self.axis == "scale" else []
        return min(fixed + drawn), max(fixed + drawn)

    @cached_property
    def layout(self) -> Layout:
        """The columns, in an order that puts compared columns close together."""
        numbers: dict[Column, int] = {UNSHIFTED: 0}

        def number(column: Column) -> int:
            return numbers.setdefault(column, len(numbers))

        comparisons, pairs = [], []
        for k in range(self.pairs.count):
            first, second = number(self._first(k)), number(self._second(k))
            pairs.append((first, second))
            comparisons.append(Comparison("pair", first, second))
            if self.blur_control:
                moved = second if first == 0 else first
                blurred = number(list(numbers)[moved]._replace(blurred=True))
                comparisons.append(Comparison("from_unshifted", 0, moved))
                comparisons.append(Comparison("blur_matched", blurred, moved))
                comparisons.append(Comparison("blur_only", 0, blurred))
        curves = {
            name: {float(point): number(column) for point, column in points.items()}
            for name, points in self._curves().items()
        }
        comparisons += [Comparison(f"{name} {p}", 0, c) for name, points in curves.items() for p, c in points.items()]
        grid = tuple(number(self._fixed(place)) for place in self.grid)
        path = tuple(number(self._fixed(place)) for place in self.path)
        return Layout(tuple(numbers), tuple(pairs), tuple(comparisons), grid, path, curves)

    def displacements(self, seed: int, start: int, count: int) -> Tensor:
        """Return the displacements of images ``start`` to ``start + count``.

        Returns:
            Float32 ``(count, S, 3)``: x and y in pixels, and the factor, for each of the S columns.
        """
        columns = self.layout.columns
        out = np.empty((count, len(columns), 3))
        out[:] = [column.place for column in columns]
        width = 2 if self.axis == "shift" else 1
        uniform = draws(seed, PAIR_STREAM, start, count, 2 * width * self.pairs.count)
        drawn = self._in_range(uniform).reshape(count, self.pairs.count, 2, width)
        angle = 2 * math.pi * draws(seed, DIRECTION_STREAM, start, count, 1)[:, 0]
        whole = draws(seed, WHOLE_STREAM, start, count, 2)
        low, high = math.ceil(self.pairs.low), math.floor(self.pairs.high)
        for k, column in enumerate(columns):
            if column.source in ("first", "second"):
                values = drawn[:, column.pair, 1 if column.source == "second" and self.pairs.step is None else 0]
                if self.axis == "shift":
                    out[:, k, :2] += values
                else:
                    out[:, k, 2] = values[:, 0]
            elif column.source == "length":
                out[:, k, :2] = column.place[0] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
            elif column.source == "fraction":
                out[:, k, :2] += low + np.floor(whole * (high - low))
        return torch.from_numpy(out.astype(np.float32))

    def _in_range(self, uniform: np.ndarray) -> np.ndarray:
        low, high, quantum = self.pairs.low, self.pairs.high, self.pairs.quantum
        if self.axis == "scale":
            return np.exp(math.log(low) + uniform * (math.log(high) - math.log(low)))
        if quantum is None:
            return low + uniform * (high - low)
        places = math.floor((high - low) / quantum + 1e-9) + 1
        return low + quantum * np.floor(uniform * places)

    def _first(self, k: int) -> Column:
        still = self.pairs.low == self.pairs.high == (0 if self.axis == "shift" else 1)
        return UNSHIFTED if self.pairs.anchored or still else Column("first", k)

    def _second(self, k: int) -> Column:
        if self.pairs.step is None:
            return Column("second", k)
        moved = self._fixed(self.pairs.step)
        return moved if self._first(k) == UNSHIFTED else Column("second", k, moved.place)

    def _fixed(self, place: Any) -> Column:
        if self.axis == "scale":
            return Column("fixed", 0, (0.0, 0.0, float(place)))
        # Adding 0 turns -0.0 into 0.0, so that equal places share a column.
        return Column("fixed", 0, (float(place[0]) + 0.0, float(place[1]) + 0.0, 1.0))

    def _curves(self) -> dict[str, dict[float, Column]]:
        radius = max(abs(self.pairs.low), abs(self.pairs.high))

        def along(degrees: float) -> Column:
            angle = math.radians(degrees)
            # Rounded so that 90 degrees is exactly down and shares its column with the grid.
            return self._fixed((round(radius * math.cos(angle), 9), round(radius * math.sin(angle), 9)))

        return {
            "length": {v: Column("length", 0, (float(v), 0.0, 1.0)) if v else UNSHIFTED for v in self.lengths},
            "fraction": {v: Column("fraction", 0, (float(v), float(v), 1.0)) for v in self.fractions},
            "direction": {v: along(v) for v in self.directions},
            "scale": {v: Column("fixed", 0, (0.0, 0.0, float(v))) for v in self.scales},
        }

    def to_dict(self) -> dict[str, object]:
        """The plan for JSON."""
        return dataclasses.asdict(self)


def draws(seed: int, stream: int, start: int, count: int, columns: int) -> np.ndarray:
    """Return uniform numbers in [0, 1), ``(count, columns)``, for images ``start`` to ``start + count``.

    >>> bool((draws(0, 0, 3, 2, 5) == draws(0, 0, 0, 9, 5)[3:5]).all())
    True
    """
    blocks = -(-columns // 4)  # one count of Philox gives four numbers
    bits = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64), counter=start * blocks)
    return np.random.Generator(bits).random((count, 4 * blocks))[:, :columns]


def full_plan(axis: str, most: float, pairs: int, *, grid: tuple[Any, ...] | None = None, blur: bool = True) -> Plan:
    """Return a plan with every curve, a grid and a path.

    It has six lengths, fractions in eighths of a pixel up to a half (the other half mirrors them), eight directions, a
    path of up to 8 pixels, and nine factors.

    Args:
        axis: ``shift`` or ``scale``.
        most: the largest displacement in pixels, or the largest factor.
        pairs: pairs of displacements per image.
        grid: places of the grid; the neighbors at one pixel, or the nine factors, when None.
        blur: add the control by blur.
    """
    if axis == "scale":
        check_factor(most)
        factors = tuple(most ** (k / 4) for k in range(-4, 5))
        return Plan(axis, Pairs(pairs, 1 / most, most), grid=factors if grid is None else grid, scales=factors)
    unit = min(1.0, most)
    return Plan(
        axis,
        Pairs(pairs, -most, most),
        grid=square_grid(unit, unit) if grid is None else grid,
        lengths=tuple(most * k / 6 for k in range(1, 7)),
        fractions=(0.0, 0.125, 0.25, 0.375, 0.5) if most >= 1 else (),
        directions=tuple(45.0 * k for k in range(8)),
        path=line_path(min(8, 2 * math.floor(most))),
        blur_control=blur,
    )


def check_factor(most: float) -> None:
    """Raise InputError if ``most`` cannot be the largest factor of axis ``scale``."""
    if not 1 < most < math.inf:
        raise InputError(f"max_scale: expected a factor above 1, got {most:g}")


def one_shift(x: float, y: float) -> Plan:
    """Return a plan that compares one shift by ``(x, y)`` pixels with the unshifted image."""
    return Plan(pairs=Pairs(count=1, low=0.0, high=0.0, step=(x, y)))


def square_grid(step: float, extent: float) -> tuple[Place, ...]:
    """Return all multiples of ``step`` pixels within ``extent`` pixels along both axes, including (0, 0).

    >>> len(square_grid(1.0, 1.5))
    9
    """
    if not step > 0 or not extent >= 0:
        raise InputError(f"grid: expected a step above 0 and an extent of at least 0, got {step:g} and {extent:g}")
    most = math.floor(extent / step + 1e-9)
    line = [step * k for k in range(-most, most + 1)]
    return tuple((x, y) for y in line for x in line)


def line_path(length: int, direction: Place = (1.0, 0.0)) -> tuple[Place, ...]:
    """Return the ``length + 1`` places of a path with steps of ``direction`` pixels, with (0, 0) in the middle.

    >>> line_path(2)
    ((-1.0, 0.0), (0.0, 0.0), (1.0, 0.0))
    """
    # Adding 0 turns -0.0 into 0.0.
    steps = range(-(length // 2), length - length // 2 + 1)
    return tuple((k * direction[0] + 0.0, k * direction[1] + 0.0) for k in steps)
