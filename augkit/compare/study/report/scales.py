"""Axes of a chart: from data to positions, with ticks at round numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

REACH = 1.5  # how far beyond the values, in spans of them, intervals may stretch an axis
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
PLAIN = (1e-3, 1e5)  # a logarithmic axis within this range has its ticks written out


@dataclass(frozen=True)
class Scale:
    """An affine map, or one of the logarithm, of data to positions.

    Attributes:
        low, high: ends of the axis in units of the data, ``low < high``; positive if ``log``.
        start, end: their positions, in units of the picture.
        log: whether equal ratios are equal lengths.
        ticks: where labels stand, in units of the data.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool
    ticks: tuple[float, ...]

    def __call__(self, value: float) -> float:
        """The position of ``value``; beyond an end, that of the end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def inside(self, value: float) -> bool:
        """Whether ``value`` is on the axis, with a hair's breadth to spare."""
        slack = 1e-9 * (self.high - self.low)
        return self.low - slack <= value <= self.high + slack

    def label(self, tick: float) -> str:
        """The text of a tick."""
        if self.log:
            return power_text(tick, all(PLAIN[0] <= end <= PLAIN[1] for end in (self.low, self.high)))
        step = self.ticks[1] - self.ticks[0]
        largest = max(abs(self.low), abs(self.high))
        if largest >= 1e6 or largest < 1e-4:
            # As many digits as tell neighbours apart, and one more for steps of 2.5.
            digits = max(3, math.floor(math.log10(largest)) - math.floor(math.log10(step) + 1e-9) + 2)
            return "0" if tick == 0 else f"{tick:.{digits}g}".replace("-", "−")
        decimals = max(0, -math.floor(math.log10(step) + 1e-9))
        decimals += abs(round(step, decimals) - step) > 1e-6 * step  # 0.25 needs one more than 0.2
        return f"{tick:.{decimals}f}".replace("-", "−")


def linear(values: Iterable[float], start: float, end: float, count: int = 5) -> Scale:
    """An axis of about ``count`` steps that holds all ``values``, and ends on a tick."""
    low, high = _extent(values)
    step = nice_step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(k * step for k in range(first, last + 1))
    return Scale(ticks[0], ticks[-1], start, end, False, ticks)


def logarithmic(values: Iterable[float], start: float, end: float, count: int = 7) -> Scale:
    """An axis with ticks at powers of ten; ``values`` that are not positive have no place on it and do not count."""
    positive = [value for value in values if value > 0] or [1.0]
    low, high = _round_down(min(positive)), 1 / _round_down(1 / max(positive))
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    if last - first < 1:  # no two powers within: make it one whole decade or two
        first = math.floor(math.log10(low) + 1e-9)
        last = max(first + 1, math.ceil(math.log10(high) - 1e-9))
        low, high = 10.0**first, 10.0**last
    stride = max(1, math.ceil((last - first) / count))
    ticks = [10.0**k for k in range(first, last + 1, stride)]
    if last - first == 1:
        ticks = [t for k in (first - 1, first, last) for t in (10.0**k, 2 * 10.0**k, 5 * 10.0**k)]
    return Scale(low, high, start, end, True, tuple(t for t in ticks if low * (1 - 1e-9) <= t <= high * (1 + 1e-9)))


def _round_down(value: float) -> float:
    """The largest of 1, 2 and 5 times a power of ten that is not above ``value``."""
    power = 10.0 ** math.floor(math.log10(value))
    return max(factor * power for factor in (0.5, 1, 2, 5) if factor * power <= value * (1 + 1e-9))


def nice_step(step: float) -> float:
    """The least of 1, 2, 2.5 and 5 times a power of ten that is not below ``step``.

    >>> [nice_step(step) for step in (0.9, 1.1, 0.024, 300)]
    [1.0, 2.0, 0.025, 500.0]
    """
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))


def power_text(value: float, plain: bool) -> str:
    """A tick of a logarithmic axis.

    >>> power_text(0.02, plain=True), power_text(1e6, plain=False), power_text(0.02, plain=False)
    ('0.02', '10⁶', '2·10⁻²')
    """
    exponent = math.floor(math.log10(value) + 1e-9)
    if plain:
        return f"{value:.{max(0, -exponent)}f}"
    factor = round(value / 10.0**exponent)
    power = "10" + str(exponent).translate(SUPERSCRIPTS)
    return power if factor == 1 else f"{factor}·{power}"


def reachable(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> list[float]:
    """What an axis should hold: all values, and intervals as far as they do not squeeze the rest to nothing."""
    if not values:
        return [end for interval in intervals for end in interval]
    low, high = min(values), max(values)
    widths = [b - a for a, b in intervals]
    span = max(high - low, median(widths) if widths else 0.0)
    kept = [min(max(end, low - REACH * span), high + REACH * span) for interval in intervals for end in interval]
    return [*values, *kept]


def _extent(values: Iterable[float]) -> tuple[float, float]:
    found = list(values) or [0.0, 1.0]
    low, high = min(found), max(found)
    size = max(abs(low), abs(high))
    if high - low <= max(1e-9 * size, 1e-200):  # one value: some room around it
        room = 0.1 * size if size > 1e-190 else 0.5
        return low - room, high + room
    return low, high
