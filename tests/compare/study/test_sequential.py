"""Interim analyses: against published constants, and their error rate by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from augkit.compare.study.sequential import Rule, interim_analysis, levels

# Jennison & Turnbull 2000, Group sequential methods, tables 2.1 and 2.3: critical values of the last of K equal looks.
POCOCK = {2: 2.178, 3: 2.289, 5: 2.413}
OBRIEN_FLEMING = {2: 1.977, 3: 2.004, 5: 2.040}


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_last_analysis_has_the_published_critical_value(count: int) -> None:
    looks = [5 * (k + 1) for k in range(count)]
    for rule, table in (("pocock", POCOCK), ("obrien-fleming", OBRIEN_FLEMING)):
        found = stats.norm.isf(np.array(levels(looks, rule)) / 2)
        assert found[-1] == pytest.approx(table[count], abs=0.002)
        expected = np.ones(count) if rule == "pocock" else np.sqrt(count / np.arange(1, count + 1))
        np.testing.assert_allclose(found / found[-1], expected, rtol=1e-4)


def errs(looks: list[int], nominal: list[float], trials: int = 20_000) -> float:
    """Share of simulations in which a t test rejects a true null hypothesis at any of the analyses."""
    rng = np.random.default_rng(0)
    effects = rng.normal(size=(trials, looks[-1]))
    found = np.zeros(trials, dtype=bool)
    for seeds, level in zip(looks, nominal, strict=True):
        found |= stats.ttest_1samp(effects[:, :seeds], 0, axis=1).pvalue < level
    return float(found.mean())


@pytest.mark.parametrize("rule", ["pocock", "obrien-fleming"])
def test_declared_analyses_keep_the_error_rate_at_five_per_cent_and_undeclared_ones_do_not(rule: Rule) -> None:
    looks = [5, 10]
    assert errs(looks, [0.05, 0.05]) > 0.075
    assert 0.04 < errs(looks, levels(looks, rule)) < 0.055


def test_a_single_analysis_has_the_full_level() -> None:
    assert levels([7], "pocock") == pytest.approx([0.05], abs=1e-5)
    assert interim_analysis(7, [7], [], "pocock").level == 0.05


def test_an_undeclared_analysis_makes_a_study_exploratory() -> None:
    declared = (5, 10)
    assert not interim_analysis(5, declared, [], "obrien-fleming").exploratory
    assert not interim_analysis(10, declared, [5], "obrien-fleming").exploratory
    assert interim_analysis(7, declared, [], "obrien-fleming").exploratory
    assert interim_analysis(10, declared, [5, 7], "obrien-fleming").exploratory
    assert interim_analysis(10, (10,), [5], "obrien-fleming").exploratory  # an analysis at five seeds came first
    assert interim_analysis(10, declared, [5], "pocock").to_dict()["taken"] == [5, 10]
