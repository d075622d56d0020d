"""Numbers of a report as text."""

from __future__ import annotations

import math

from augkit.compare.study.report.numbers import UNDEFINED, estimate_text, p_text


def test_texts_of_numbers() -> None:
    assert estimate_text(None) == estimate_text({}) == estimate_text({"value": math.nan}) == UNDEFINED
    assert estimate_text({"value": 18.04, "low": 17.99, "high": 18.1}, "dB") == "18.04 [17.99, 18.10] dB"
    assert estimate_text({"value": -1e-9, "low": None, "high": None}) == "−1.00e-09 (no interval)"
    assert estimate_text({"value": 0.0, "low": 0.0, "high": 0.0}) == "0 [0, 0]"
    assert [p_text(p) for p in (None, 0.0, 0.00099, 0.001, 1.0)] == ["–", "< 0.001", "< 0.001", "0.001", "1.000"]
