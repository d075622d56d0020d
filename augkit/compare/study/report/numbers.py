"""Numbers of a report as text; None, NaN and infinity are "undefined"."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from augkit.invariance.bootstrap import Estimate

UNDEFINED = "undefined"
DIGITS = 3  # significant ones of the largest part of an estimate
MORE = 3  # decimals that a narrow interval may add
LARGEST = 1e300  # beyond it the difference of two numbers may overflow
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Estimated = Estimate | Mapping[str, Any] | None  # a mapping in the specification of a chart


def finite(value: Any) -> float | None:
    """The number, or None if there is none that can be drawn."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) and abs(value) < LARGEST else None


def ends(estimate: Estimated, factor: float = 1.0) -> tuple[float | None, float | None, float | None]:
    """Value, low and high times ``factor``."""
    found = vars(estimate) if isinstance(estimate, Estimate) else estimate or {}
    parts = [finite(found.get(key)) for key in ("value", "low", "high")]
    value, low, high = (None if part is None else factor * part for part in parts)
    return value, low, high


def number(value: Any) -> str:
    """One number to three significant digits.

    >>> number(0.12345), number(-1500), number(None)
    ('0.123', '−1500', 'undefined')
    """
    return _texts([finite(value)])[0]


def estimate_text(estimate: Estimated, unit: str = "", factor: float = 1.0) -> str:
    """Value, interval and unit; all parts have the same decimals.

    >>> estimate_text({"value": 0.5, "low": 0.25, "high": None}, "bits")
    '0.500 [0.250, undefined] bits'
    """
    parts = ends(estimate, factor)
    if parts == (None, None, None):
        return UNDEFINED
    value, low, high = _texts(parts)
    interval = "(no interval)" if low == high == UNDEFINED else f"[{low}, {high}]"
    return " ".join(part for part in (value, interval, unit) if part)


def p_text(p: Any) -> str:
    """A p-value to three decimals, an en dash where there is none."""
    value = finite(p)
    if value is None:
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def count_text(count: Any) -> str:
    """A count with thousands separated, an en dash where there is none."""
    value = finite(count)
    return "–" if value is None else f"{value:,.0f}"


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
    """Three digits of the largest part, and more where a narrow interval would have ends that look alike."""
    decimals = max(0, DIGITS - 1 - math.floor(math.log10(largest)))
    if width < largest * 1e-6:
        return decimals
    return max(decimals, min(decimals + MORE, 1 - math.floor(math.log10(width))))


def _signed(text: str) -> str:
    if text.startswith("-"):
        return "−" + text[1:] if text.strip("-0.") else text[1:]  # no minus on what is rounded to 0
    return text
