"""Numbers of a report as text."""

from __future__ import annotations

import math

from augkit.compare.study.report.numbers import UNDEFINED, estimate_text, p_text
from augkit.invariance import Estimate


def test_numbers_are_formatted() -> None:
    assert estimate_text(None) == estimate_text(Estimate(math.nan, math.nan, math.nan)) == UNDEFINED
    assert estimate_text(Estimate(18.04, 17.99, 18.1), "dB") == "18.04 [17.99, 18.10] dB"
    assert estimate_text(Estimate(-1e-9, math.nan, math.nan)) == "−1.00e-09 (no interval)"
    assert estimate_text(Estimate(0.0, 0.0, 0.0)) == "0 [0, 0]"
    assert [p_text(p) for p in (None, 0.0, 0.00099, 0.001, 1.0)] == ["–", "< 0.001", "< 0.001", "0.001", "1.000"]
