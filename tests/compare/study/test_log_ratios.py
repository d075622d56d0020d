"""Log ratios over pairs of arms and their shares: by hand, and on simulated data whose truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from made_up import bits_of

from augkit.compare.study.claims import Part
from augkit.compare.study.column_table import ColumnTable
from augkit.compare.study.effects import PartEffect, statistic
from augkit.core.errors import InputError
from augkit.core.schema import validate

IMAGES, SEEDS = 60, 5


def part(statistic: str, sign: str | dict[str, Any] = "negative", **fields: Any) -> Part:
    return validate(Part, {"statistic": statistic, "prediction": sign, **fields}, "part")


def table(levels: dict[str, dict[str, list[np.ndarray]]]) -> ColumnTable:
    """Arms whose variability per image is given by image set, one array per seed."""
    columns: dict[tuple[str, int, str], dict[str, np.ndarray]] = {}
    for arm, sets in levels.items():
        for images, runs in sets.items():
            for seed, values in enumerate(runs):
                columns.setdefault((arm, seed, "shift"), {}).update(bits_of(values, images))
    return ColumnTable(columns, range(SEEDS))


def runs(rng: np.random.Generator, level: float, spread: float = 0.2, seeds: int = SEEDS) -> list[np.ndarray]:
    """V with effects of image, of seed and of both, on a log scale."""
    return [level * np.exp(rng.normal(0, spread) + rng.normal(0, 0.5, IMAGES)) for _ in range(seeds)]


CROSSING = {"arms": ["onA", "onB"], "controls": ["none", "none"], "groups": ["B", "A"]}


def crossing(rng: np.random.Generator, on_own: float, on_others: float) -> ColumnTable:
    """Networks augmented on one half, with log ratios ``on_own`` and ``on_others``, and their control."""
    level = {"none": {"A": 0.0, "B": 0.0}, "onA": {"A": on_own, "B": on_others}, "onB": {"A": on_others, "B": on_own}}
    made: dict[str, dict[str, list[np.ndarray]]] = {}
    for arm, halves in level.items():
        made[arm] = {f"typical of {half}": runs(rng, 0.02 * math.exp(log)) for half, log in halves.items()}
    return table(made)


def test_the_mean_over_pairs_is_that_of_their_log_ratios() -> None:
    view = crossing(np.random.default_rng(0), -1.0, 0.3)
    found = statistic(view, part("mean_log_ratio", **CROSSING))
    pairs = [(("onA", "none"), "typical of B"), (("onB", "none"), "typical of A")]
    whole = [
        [
            math.log(
                view.mean(a, "shift", f"{s}|shift_bits").per_seed[k]
                / view.mean(b, "shift", f"{s}|shift_bits").per_seed[k]
            )
            for k in range(SEEDS)
        ]
        for (a, b), s in pairs
    ]
    assert found.effect.per_seed == pytest.approx(np.mean(whole, axis=0), abs=1e-9)


def test_a_share_is_the_ratio_of_two_means_over_seeds() -> None:
    view = crossing(np.random.default_rng(1), -1.0, -0.4)
    both = {"arms": CROSSING["arms"], "controls": CROSSING["controls"]}
    over, under = (statistic(view, part("mean_log_ratio", **both, groups=g)).effect for g in (["B", "A"], ["A", "B"]))
    share = statistic(view, part("kept_share", **CROSSING, from_groups=["A", "B"]))
    assert share.shown.value == pytest.approx(over.replicates.value / under.replicates.value)
    # The delta method, from values of the seeds.
    ratio, n, d = share.shown.value, over.per_seed, under.per_seed
    assert share.effect.per_seed == pytest.approx(ratio + (n - ratio * d) / d.mean())


def test_a_share_of_nothing_is_undefined() -> None:
    found = statistic(
        crossing(np.random.default_rng(2), 0.0, 0.0), part("kept_share", **CROSSING, from_groups=["A", "B"])
    )
    assert not found.shown.defined
    assert found.decision.verdict == "undetermined"


def shares(on_others: float, margin: float, sign: str, trials: int) -> list[PartEffect]:
    rng = np.random.default_rng([5, int(100 * on_others + 1000)])
    tested = part("kept_share", {"sign": sign, "margin": margin}, **CROSSING, from_groups=["A", "B"])
    return [statistic(crossing(rng, -1.4, on_others), tested) for _ in range(trials)]


@pytest.mark.integration
def test_shares_are_covered_and_seldom_on_the_wrong_side_of_a_margin() -> None:
    truth = 0.25
    found = shares(-1.4 * truth, truth, "below", 80)
    assert np.mean([p.shown.low <= truth <= p.shown.high for p in found]) >= 0.90
    assert np.mean([p.decision.verdict == "supported" for p in found]) <= 0.08  # 2.5 % is expected
    assert np.mean([p.decision.verdict == "refuted" for p in found]) <= 0.08


@pytest.mark.integration
def test_a_share_far_below_its_margin_is_found() -> None:
    found = shares(0.1, 0.25, "below", 30)
    assert np.mean([p.decision.verdict == "supported" for p in found]) >= 0.8
    assert not any(p.decision.verdict == "refuted" for p in found)


def factors(rng: np.random.Generator, first: float, second: float, both: float) -> ColumnTable:
    levels = {"neither": 0.0, "first": first, "second": second, "both": both}
    return table({arm: {"typical": runs(rng, 0.05 * math.exp(log), 0.05)} for arm, log in levels.items()})


FACTOR = {"arm": "both", "control": "neither", "beside": "first", "beside_control": "second"}
OTHER = {"arm": "both", "control": "neither", "beside": "second", "beside_control": "first"}


def test_shares_of_two_factors_add_up_to_one() -> None:
    view = factors(np.random.default_rng(3), -1.0, -0.3, -1.1)
    one, other = (statistic(view, part("factor_share", "positive", **names)).shown.value for names in (FACTOR, OTHER))
    assert one + other == pytest.approx(1)
    assert one == pytest.approx((1.0 + 0.8) / 2 / 1.1, abs=0.1)


@pytest.mark.integration
def test_a_factor_without_effect_has_no_share() -> None:
    rng = np.random.default_rng(4)
    tested = part("factor_share", {"sign": "above", "margin": 0.0}, **OTHER)
    found = [statistic(factors(rng, -1.0, 0.0, -1.0), tested) for _ in range(80)]
    assert np.mean([p.decision.verdict == "supported" for p in found]) <= 0.08
    assert np.mean([p.shown.low <= 0 <= p.shown.high for p in found]) >= 0.90


def test_a_transfer_in_logs_is_the_difference_of_log_ratios_between_image_sets() -> None:
    rng = np.random.default_rng(6)
    levels = {"a": {"typical": -1.0, "erased": -0.6}, "none": {"typical": 0.0, "erased": 0.3}}
    view = table(
        {arm: {name: runs(rng, 0.03 * math.exp(log)) for name, log in sets.items()} for arm, sets in levels.items()}
    )
    pair = {"arm": "a", "control": "none"}
    there, here = (
        statistic(view, part("log_variability_ratio", **pair, images=n)).effect for n in ("erased", "typical")
    )
    found = statistic(view, part("log_transfer", "positive", **pair, images="erased"))
    assert found.effect.per_seed == pytest.approx(there.per_seed - here.per_seed)
    assert found.shown.value == pytest.approx(0.1, abs=0.3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": ["a", "b"], "controls": ["c"]}, "as many controls as arms, 1 and 2 came"),
        ({"arms": ["a"], "controls": ["c"], "groups": ["A", "B"]}, "as many groups as arms, 2 and 1 came"),
        ({"arms": ["a"], "controls": ["c"], "answers": "group"}, "groups with answers"),
        ({"arms": ["a"]}, "'controls' with mean_log_ratio"),
    ],
)
def test_lists_that_do_not_fit_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        part("mean_log_ratio", **fields)
    with pytest.raises(InputError, match="one of from_arms, from_controls, from_groups with kept_share"):
        part("kept_share", arms=["a"], controls=["c"])
