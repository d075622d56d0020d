"""Format numbers of a report; None, NaN and infinity become "undefined"."""

from __future__ import annotations

import math
from collections.abc import Sequence

from augkit.invariance.bootstrap import Estimate

UNDEFINED = "undefined"
DIGITS = 3  # significant digits of the largest part of an estimate
MORE = 3  # most decimals that are added for a narrow interval
LARGEST = 1e300  # larger numbers may overflow when they are subtracted


def finite(value: float | None) -> float | None:
    """The number; None if it is missing or not finite."""
    return float(value) if value is not None and math.isfinite(value) and abs(value) < LARGEST else None


def ends(estimate: Estimate | None, factor: float = 1.0) -> tuple[float | None, float | None, float | None]:
    """Value, low and high, multiplied by ``factor``."""
    if estimate is None:
        return None, None, None
    parts = [finite(part) for part in (estimate.value, estimate.low, estimate.high)]
    value, low, high = (None if part is None else factor * part for part in parts)
    return value, low, high


def number(value: float | None) -> str:
    """Format a number with three significant digits.

    >>> number(0.12345), number(-1500), number(None)
    ('0.123', '−1500', 'undefined')
    """
    return _texts([finite(value)])[0]


def estimate_text(estimate: Estimate | None, unit: str = "", factor: float = 1.0) -> str:
    """Format value, interval and unit; all parts have the same number of decimals.

    >>> estimate_text(Estimate(0.5, 0.25, math.nan), "bits")
    '0.500 [0.250, undefined] bits'
    """
    parts = ends(estimate, factor)
    if parts == (None, None, None):
        return UNDEFINED
    value, low, high = _texts(parts)
    interval = "(no interval)" if low == high == UNDEFINED else f"[{low}, {high}]"
    return " ".join(part for part in (value, interval, unit) if part)


def p_text(p: float | None) -> str:
    """Format a p-value with three decimals; an en dash if there is none."""
    value = finite(p)
    if value is None:
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def count_text(count: float | None) -> str:
    """Format a count with thousands separators; an en dash if there is none."""
    value = finite(count)
    return "–" if value is None else f"{value:,.0f}"


def _texts(parts: Sequence[float | None]) -> list[str]:
    known = [part for part in parts if part is not None]
    largest = max(map(abs, known), default=0.0)
    if largest == 0.0:
        spec = ".0f"
    elif 1e-4 <= largest < 1e7:
        spec = f".{_decimals(largest, max(known) - min(known))}f"
    else:
        spec = f".{DIGITS - 1}e"
    return [UNDEFINED if part is None else _signed(format(part, spec)) for part in parts]


def _decimals(largest: float, width: float) -> int:
    """Decimals for three digits of the largest part, and more if the ends of a narrow interval would look equal."""
    decimals = max(0, DIGITS - 1 - math.floor(math.log10(largest)))
    if width < largest * 1e-6:
        return decimals
    return max(decimals, min(decimals + MORE, 1 - math.floor(math.log10(width))))


def _signed(text: str) -> str:
    if text.startswith("-"):
        return "−" + text[1:] if text.strip("-0.") else text[1:]  # no minus sign on a number that rounds to 0
    return text
