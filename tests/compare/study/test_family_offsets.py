"""Offsets of families of arms: against least squares, and on simulated arms whose offsets are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from made_up import bits_of
from scipy import stats

from augkit.compare.study.claims import Part
from augkit.compare.study.column_table import ColumnTable, MissingError
from augkit.compare.study.effects import statistic
from augkit.compare.study.family_offsets import fit_offset
from augkit.core.errors import InputError
from augkit.core.schema import validate

LABELS = np.array(list("llllllaaaaaaeeee"))


def test_the_fit_is_that_of_least_squares_with_one_column_per_family() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 3)), rng.normal(size=(16, 3))
    offset, error = fit_offset(x, y, LABELS, ("a", "l"))
    for k in range(3):
        design = np.column_stack([x[:, k], *(name == LABELS for name in "lae")]).astype(float)
        inverse = np.linalg.inv(design.T @ design)
        beta = inverse @ design.T @ y[:, k]
        contrast = np.array([0, -1, 1, 0])
        scatter = ((y[:, k] - design @ beta) ** 2).sum() / (16 - 4)
        assert offset[k] == pytest.approx(contrast @ beta)
        assert error[k] == pytest.approx(np.sqrt(scatter * (contrast @ inverse @ contrast)))


def arms(rng: np.random.Generator, offset: float, scatter: float, trials: int) -> tuple[np.ndarray, np.ndarray]:
    """Means over 5 seeds of log variabilities ``(A, T)``; families lie at different places of one line."""
    seeds = 5
    places = np.select([LABELS == "l", LABELS == "a", LABELS == "e"], [-2.5, -3.5, -4.0])[:, None, None]
    places = places + rng.normal(0, 0.8, (16, 1, trials))
    x = places + rng.normal(0, 0.2, (16, seeds, trials))
    line = 0.95 * x + rng.normal(0, 0.3, (1, seeds, trials)) + rng.normal(0, scatter, (16, 1, trials))
    y = line + rng.normal(0, 0.15, (16, seeds, trials)) + offset * (LABELS == "a")[:, None, None]
    return x.mean(1), y.mean(1)


def simulate(offset: float, scatter: float, trials: int = 2000) -> tuple[float, float, float]:
    """Shares of intervals that hold the truth, of tests that find a difference, and that find it within 0.1."""
    rng = np.random.default_rng([1, int(100 * offset), int(100 * scatter)])
    value, error = fit_offset(*arms(rng, offset, scatter, trials), LABELS, ("a", "l"))
    half, one_sided = (stats.t.ppf(level, 12) * error for level in (0.975, 0.95))
    covered, found = abs(value - offset) < half, abs(value) > half
    return float(covered.mean()), float(found.mean()), float((abs(value) + one_sided < 0.1).mean())


def test_tests_of_offsets_keep_their_level_though_seeds_share_their_arm() -> None:
    for scatter in (0.0, 0.1, 0.3):
        covered, found, _ = simulate(0.0, scatter)
        assert 0.93 <= covered <= 0.97
        assert found <= 0.07
    assert simulate(0.1, 0.02)[2] <= 0.06  # at the margin equivalence is found in at most 5 %


def test_an_offset_of_half_a_nat_is_found_and_one_of_nothing_is_near_zero() -> None:
    assert simulate(0.5, 0.1)[1] >= 0.9
    assert simulate(0.0, 0.0)[2] >= 0.2  # with 16 arms of 5 seeds and this noise a margin of 0.1 is often missed


def part(**fields: Any) -> Part:
    families = {"learned": [f"l{k}" for k in range(4)], "exact": [f"e{k}" for k in range(4)]}
    made = {"statistic": "family_offset", "prediction": {"sign": "zero", "margin": 0.1}, "families": families}
    return validate(Part, {**made, "family": "exact", "against": "learned", "images": "erased", **fields}, "part")


def view(offset: float) -> ColumnTable:
    rng = np.random.default_rng(2)
    columns = {}
    for k in range(4):
        for name, extra in (("l", 0.0), ("e", offset)):
            per_image = rng.normal(0, 0.3, 80)
            for seed in range(3):
                level = -2.0 - 0.4 * k + rng.normal(0, 0.02)
                typical = np.exp(level + per_image)
                columns[f"{name}{k}", seed, "shift"] = {
                    **bits_of(typical),
                    **bits_of(0.8 * typical**0.9 * np.exp(extra), "erased"),
                }
    return ColumnTable(columns, range(3))


def test_an_offset_that_was_put_in_is_found_with_its_freedom_and_images() -> None:
    found = statistic(view(0.6), part())
    assert found.shown.low <= 0.6 <= found.shown.high
    assert found.effect.replicates.error()[1] == 8 - 3
    assert found.effect.n_images == 80
    assert found.decision.verdict == "refuted"
    assert len(found.effect.per_seed) == 3
    assert abs(statistic(view(0.0), part()).shown.value) < 0.1


def test_families_that_cannot_be_compared_are_one_line() -> None:
    with pytest.raises(InputError, match="unknown family 'exakt'"):
        part(family="exakt")
    with pytest.raises(InputError, match="one image set with families, 2 came"):
        part(images=["typical", "erased"])
    with pytest.raises(MissingError, match="expected arms of exact and learned, and two more"):
        statistic(view(0.0), part(families={"learned": ["l0", "l1"], "exact": ["e0", "e1"]}))
