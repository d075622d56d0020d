"""Statistics of studies: by hand, against scipy, and their coverage and power by simulation."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from made_up import bits_of
from scipy import stats

from augkit.compare.study.claims import Part
from augkit.compare.study.column_table import ColumnTable, MissingError
from augkit.compare.study.effects import half_length, statistic
from augkit.compare.study.family_offsets import FittedReplicates
from augkit.compare.study.hypothesis_tests import Decision, decide, holm, p_words, power, seeds_needed
from augkit.invariance.bootstrap import REPLICATES, PerSeed, Replicates, mean_replicates

IMAGES, SEEDS = 60, 5


def view_of(levels: dict[str, list[np.ndarray]], **more: Any) -> ColumnTable:
    """A view of arms whose shift information per seed and image is given on typical images."""
    columns = {
        (arm, seed, "shift"): {**bits_of(values), "typical|correct": (values < np.median(values)).astype(float)}
        for arm, runs in levels.items()
        for seed, values in enumerate(runs)
    }
    return ColumnTable(columns, range(len(next(iter(levels.values())))), **more)


def runs(rng: np.random.Generator, level: float, per_image: np.ndarray, seeds: int = SEEDS) -> list[np.ndarray]:
    """V with effects of image, of seed and of both, on a log scale."""
    return [level * np.exp(per_image + rng.normal(0, 0.25) + rng.normal(0, 0.5, len(per_image))) for _ in range(seeds)]


def part(statistic: str, sign: str | dict[str, Any] = "positive", **fields: Any) -> Part:
    return Part.model_validate({"statistic": statistic, "prediction": sign, **fields})


LOG_RATIO = part("log_variability_ratio", "negative", arm="a", control="b")


def simulate(factor: float, trials: int = 200) -> tuple[float, float]:
    """Share of 95 % intervals of log(V_a / V_b) that hold the truth, and share of decisions 'supported'."""
    rng = np.random.default_rng([7, int(1000 * factor)])
    covered = found = 0
    for _ in range(trials):
        per_image = rng.normal(0, 1.0, IMAGES)
        view = view_of({"a": runs(rng, 0.01 * factor, per_image), "b": runs(rng, 0.01, per_image)})
        result = statistic(view, LOG_RATIO)
        covered += result.shown.low <= math.log(factor) <= result.shown.high
        found += result.decision.verdict == "supported"
    return covered / trials, found / trials


@pytest.mark.integration
def test_intervals_of_identical_arms_cover_zero_and_few_tests_reject() -> None:
    covered, found = simulate(1.0)
    assert 0.90 <= covered <= 0.995  # binomial noise of 200 simulations around 95 % is 1.5 points
    assert found <= 0.07  # expected: 2.5 % on this side


@pytest.mark.integration
def test_a_planted_effect_is_detected_with_the_predicted_power() -> None:
    # The effect of a seed varies with two independent seeds and with the noise of 60 images.
    effect = 0.45
    rng = np.random.default_rng(3)
    spread = []
    for _ in range(300):
        per_image = rng.normal(0, 1.0, IMAGES)
        a, b = (runs(rng, 0.01, per_image, 1)[0].mean() for _ in range(2))
        spread.append(math.log(a / b))
    predicted = power(-effect, float(np.std(spread)), SEEDS, (-math.inf, 0.0))
    covered, found = simulate(math.exp(-effect))
    assert 0.4 < predicted < 0.9
    assert covered >= 0.90
    assert abs(found - predicted) < 0.15


def test_power_is_that_of_a_t_test_by_simulation() -> None:
    rng = np.random.default_rng(0)
    samples = rng.normal(1.0, 1.0, (4000, 8))
    t = samples.mean(1) / samples.std(1, ddof=1) * math.sqrt(8)
    empirical = float((t > stats.t.ppf(0.975, 7)).mean())
    assert power(1.0, 1.0, 8, (0.0, math.inf)) == pytest.approx(empirical, abs=0.02)


@pytest.mark.parametrize("seeds", [3, 5, 33, 1000])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_power_is_the_tail_of_scipys_noncentral_t(seeds: int, alpha: float) -> None:
    critical = stats.t.ppf(1 - alpha / 2, seeds - 1)
    for far in (-3.0, 0.0, 0.7, 2.0, 5.0, 12.0):
        expected = stats.nct.sf(critical, seeds - 1, far)
        assert power(far, math.sqrt(seeds), seeds, (0.0, math.inf), alpha) == pytest.approx(expected, abs=1e-7)


def test_power_of_a_large_effect_is_a_number() -> None:
    # scipy 1.11 gives NaN for the first; the noncentral t of one degree of freedom is far from 1 even at 40.
    assert power(28.81317155 / math.sqrt(33), 1.0, 33, (0.0, math.inf), 0.025) == pytest.approx(1.0, abs=1e-12)
    rng = np.random.default_rng(0)
    ratio = (40 + rng.standard_normal(100_000)) / np.abs(rng.standard_normal(100_000))
    share = float((ratio > stats.t.ppf(0.995, 1)).mean())
    assert power(40 / math.sqrt(2), 1.0, 2, (0.0, math.inf), 0.01) == pytest.approx(share, abs=0.01)


def test_seeds_needed_is_the_smallest_number_with_the_power() -> None:
    mean, spread = 0.7, 0.65

    def error_with(seeds: int) -> tuple[float, float]:
        return spread / math.sqrt(seeds), seeds - 1

    needed = seeds_needed(mean, error_with, (0.0, math.inf))
    assert needed is not None
    assert power(mean, spread, needed, (0.0, math.inf)) >= 0.8 > power(mean, spread, needed - 1, (0.0, math.inf))
    assert seeds_needed(-mean, error_with, (0.0, math.inf)) == needed  # refuting needs as many
    assert seeds_needed(0.0, lambda seeds: (1e-9, seeds - 1), (-0.1, 0.1)) == 2
    assert seeds_needed(0.0, error_with, (0.0, math.inf)) is None
    assert seeds_needed(math.nan, error_with, (0.0, math.inf)) is None
    assert seeds_needed(mean, error_with, (-math.inf, math.inf)) is None


def test_no_number_of_seeds_decides_what_arms_or_images_leave_open() -> None:
    nothing = np.zeros(100)
    of_arms = FittedReplicates(0.03, nothing, nothing, 10, standard_error=0.14, freedom=9.0)
    assert seeds_needed(of_arms.value, of_arms.error_with, (-0.1, 0.1)) is None
    rng = np.random.default_rng(0)
    from_images = rng.normal(0, 0.1, 4000)
    of_images = Replicates(0.2, from_images, from_images + rng.normal(0, 0.01, 4000), 5)
    assert seeds_needed(of_images.value, of_images.error_with, (0.0, math.inf)) is None
    assert seeds_needed(0.4, of_images.error_with, (0.0, math.inf)) is not None


def test_the_error_with_more_seeds_is_that_of_a_study_of_more_seeds() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(0, 1, (40, 1)) + rng.normal(0, 2, (40, 60))  # seeds and images

    def known(seeds: int) -> Replicates:
        drawn = means[:seeds] @ (rng.multinomial(60, [1 / 60] * 60, REPLICATES).T / 60)
        return PerSeed(means[:seeds].mean(1), drawn.T).over_seeds()

    few, many = known(20), known(40)
    assert few.error_with(20) == few.error()
    assert few.error_with(40)[0] == pytest.approx(many.error()[0], rel=0.15)


def test_superiority_is_the_two_sided_t_test() -> None:
    sample = np.array([0.3, 0.9, 0.1, 0.6, 0.4])
    error = sample.std(ddof=1) / math.sqrt(5)
    decision = decide(sample.mean(), error, 4, (0.0, math.inf))
    assert decision.p_for == pytest.approx(stats.ttest_1samp(sample, 0.0).pvalue)
    assert decision.verdict == "supported"
    assert decide(-sample.mean(), error, 4, (0.0, math.inf)).verdict == "refuted"
    assert decide(0.0, error, 4, (0.0, math.inf)).verdict == "undetermined"


def test_equivalence_is_two_one_sided_tests() -> None:
    sample = np.array([0.02, -0.03, 0.01, 0.00, 0.03, -0.01])
    error, margin = sample.std(ddof=1) / math.sqrt(6), 0.05
    lower = stats.ttest_1samp(sample, -margin, alternative="greater").pvalue
    upper = stats.ttest_1samp(sample, margin, alternative="less").pvalue
    decision = decide(sample.mean(), error, 5, (-margin, margin))
    assert decision.p_for == pytest.approx(max(lower, upper))
    assert decision.verdict == "supported"
    assert decide(0.2, error, 5, (-margin, margin)).verdict == "refuted"
    assert decide(0.05, error, 5, (-margin, margin)).verdict == "undetermined"


def test_decisions_on_exact_and_undefined_numbers() -> None:
    assert decide(1e-7, 0.0, math.inf, (-math.inf, 1e-5)).verdict == "supported"
    assert decide(1e-3, 0.0, math.inf, (-math.inf, 1e-5)).verdict == "refuted"
    assert decide(math.nan, 0.1, 4, (0.0, math.inf)).verdict == "undetermined"
    assert decide(5.0, 0.1, 4, (-math.inf, math.inf)).verdict == "undetermined"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.5]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_p_values_below_one_in_a_thousand_are_printed_as_a_bound() -> None:
    assert p_words(2.8e-25) == "p < 0.001"
    assert p_words(0.0123) == "p = 0.012"


def test_degrees_of_freedom_are_bounded_by_the_seeds() -> None:
    # Ten seeds that agree better than the noise of their images allows: few seeds do not determine their spread.
    values = np.random.default_rng(0).exponential(1.0, (300, 10))
    found = mean_replicates([torch.from_numpy(column) for column in values.T])
    assert found.error()[1] <= 18


def flat(*levels: float) -> list[np.ndarray]:
    """One run per level, the same images."""
    shape = np.random.default_rng(1).exponential(1.0, IMAGES)
    return [level * shape / shape.mean() for level in levels]


def test_invariances_by_hand() -> None:
    view = view_of({"none": flat(0.1, 0.1), "shift": flat(0.02, 0.03), "blur": flat(0.05, 0.05)})
    shown = statistic(view, part("learned_invariance", arm="shift", control="none")).shown
    assert shown.value == pytest.approx(1 - math.sqrt(0.2 * 0.3))  # of the mean log ratio over seeds
    assert shown.low < shown.value < shown.high < 1
    half = statistic(
        view, part("architectural_invariance", {"sign": "below", "margin": 0.9}, arm="blur", control="none")
    )
    assert half.shown.value == pytest.approx(0.5)
    assert half.decision.verdict == "supported"
    assert statistic(view, part("variability", arm="blur")).shown.value == pytest.approx(0.05)


def test_interaction_is_the_difference_of_log_ratios() -> None:
    view = view_of({"n": flat(0.1, 0.1), "s": flat(0.02, 0.02), "bn": flat(0.05, 0.05), "bs": flat(0.02, 0.02)})
    found = statistic(view, part("interaction", arm="bs", control="bn", beside="s", beside_control="n"))
    assert found.shown.value == pytest.approx(math.log(0.4) - math.log(0.2))


def test_slope_over_strength() -> None:
    strengths = {"s1": 0.5, "s2": 1.0}
    view = view_of({"n": flat(0.1, 0.1), "s1": flat(0.06, 0.06), "s2": flat(0.02, 0.02)}, strengths=strengths)
    # 40 % at half strength and 80 % at full strength; an effect that does not depend on strength has no slope.
    assert statistic(view, part("slope", arms=["s1", "s2"], control="n")).shown.value == pytest.approx(0.8)
    same = view_of({"n": flat(0.1, 0.1), "s1": flat(0.02, 0.02), "s2": flat(0.02, 0.02)}, strengths=strengths)
    assert statistic(same, part("slope", arms=["s1", "s2"], control="n")).shown.value == pytest.approx(0, abs=1e-9)


def test_growth_and_half_life() -> None:
    columns = {
        ("a", seed, "shift"): {
            f"typical|js@{at:g}": np.full(IMAGES, value) for at, value in ((1, 0.1), (2, 0.3), (4, 0.4))
        }
        | bits_of(np.full(IMAGES, 0.2))
        for seed in (0, 1)
    }
    view = ColumnTable(columns, (0, 1), lengths={"shift": [1.0, 2.0, 4.0]})
    assert statistic(view, part("growth", arm="a", near=1.0, far=4.0)).shown.value == pytest.approx(math.log(4))
    assert statistic(view, part("half_life", "describe", arm="a")).shown.value == pytest.approx(1.5)
    mixed = ColumnTable(columns, (0, 1), lengths={"shift": [4.0, 1.0, 2.0, 2.0]})  # the order in the file says nothing
    assert statistic(mixed, part("half_life", "describe", arm="a")).shown.value == pytest.approx(1.5)
    assert half_length(np.array([0.0, 1.0, 2.0]), np.array([[0.8], [0.2]])).tolist() == [0.5]


def test_half_length_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    lengths, curves = np.cumsum(rng.uniform(0.2, 1.0, 9)), rng.uniform(0, 1, (9, 50))
    found = half_length(np.array([0.0, *lengths]), curves)
    for k, curve in enumerate(curves.T):
        points = [(0.0, 0.0), *zip(lengths, curve, strict=True)]
        for (x0, v0), (x1, v1) in itertools.pairwise(points):
            if v1 >= curve.max() / 2:
                assert found[k] == pytest.approx(x0 + (x1 - x0) * (curve.max() / 2 - v0) / (v1 - v0))
                break


def test_transfer_and_several_image_sets() -> None:
    levels = {"n": (0.1, 0.1), "s": (0.02, 0.06)}
    columns = {
        (arm, seed, "shift"): bits_of(flat(typical)[0])
        | bits_of(flat(other)[0], "inverted")
        | bits_of(flat(0.1)[0], "odd")
        for arm, (typical, other) in levels.items()
        for seed in (0, 1)
    }
    view = ColumnTable(columns, (0, 1))
    moved = part("transfer_learned", "negative", arm="s", control="n", images="inverted")
    assert statistic(view, moved).shown.value == pytest.approx(0.4 - 0.8)
    both = part("transfer_learned", "negative", arm="s", control="n", images=["inverted", "odd"])
    assert statistic(view, both).shown.value == pytest.approx((-0.4 - 0.8) / 2)


def test_an_invariant_control_gives_an_undefined_effect_and_one_seed_is_undetermined() -> None:
    view = view_of({"n": flat(1e-15, 1e-15), "s": flat(1e-15, 1e-15)})
    found = statistic(view, part("learned_invariance", arm="s", control="n"))
    assert not found.shown.defined
    assert found.decision.verdict == "undetermined"
    alone = view_of({"n": flat(0.1), "s": flat(0.05)})
    columns = dict(alone.columns)
    columns["s", 0, "shift"] = bits_of(np.random.default_rng(0).exponential(0.01, IMAGES))
    assert statistic(ColumnTable(columns, (0,)), part("learned_invariance", arm="s", control="n")).decision.p_for == 1


def test_the_error_names_the_column_that_was_not_measured() -> None:
    with pytest.raises(MissingError, match="'typical shift_bits' of c, seed 0"):
        statistic(view_of({"a": flat(0.1)}), part("variability", arm="c"))


def test_image_sets_without_information_in_the_predictions_are_left_out_and_named() -> None:
    columns = {
        (arm, seed, "shift"): bits_of(flat(level)[0]) | bits_of(flat(0.5)[0], "inverted", said=0.05)
        | bits_of(flat(level)[0], "upside down")
        for arm, level in {"n": 0.1, "s": 0.02}.items()
        for seed in (0, 1)
    }  # fmt: skip
    view = ColumnTable(columns, (0, 1))
    both = statistic(view, part("learned_invariance", arm="s", control="n", images=["inverted", "upside down"]))
    assert both.shown.value == pytest.approx(0.8)
    assert both.reason == "left out: inverted, the networks say 0.05 bits about these images, 1 about typical ones"
    alone = statistic(view, part("learned_invariance", arm="s", control="n", images="inverted"))
    assert not alone.shown.defined
    assert alone.decision.verdict == "undetermined"


def test_a_contrast_that_another_variability_contradicts_is_undetermined() -> None:
    changed = {"n": 0.1, "s": 0.2}
    columns = {
        (arm, seed, "shift"): bits_of(flat(level)[0]) | {"typical|changed": np.full(IMAGES, changed[arm])}
        for arm, level in {"n": 0.1, "s": 0.02}.items()
        for seed in (0, 1)
    }
    found = statistic(ColumnTable(columns, (0, 1)), part("learned_invariance", arm="s", control="n"))
    assert found.shown.low > 0.5
    assert found.dissent == ("top1_change",)
    assert found.decision == Decision(1.0, 1.0)
    assert found.decision.verdict == "undetermined"
    agreeing = {k: v | {"typical|changed": np.full(IMAGES, 0.1 if k[0] == "n" else 0.05)} for k, v in columns.items()}
    found = statistic(ColumnTable(agreeing, (0, 1)), part("learned_invariance", arm="s", control="n"))
    assert (found.dissent, found.decision.verdict) == ((), "supported")


def test_ratios_are_averaged_over_seeds_and_not_their_parts() -> None:
    view = view_of({"n": flat(0.2, 0.02), "s": flat(0.02, 0.01)})
    found = statistic(view, LOG_RATIO.model_copy(update={"arm": "s", "control": "n"}))
    assert found.shown.value == pytest.approx((math.log(0.1) + math.log(0.5)) / 2)
    assert found.effect.per_seed == pytest.approx([math.log(0.1), math.log(0.5)])


@pytest.mark.parametrize(("statistic_", "column"), [("accuracy_difference", "correct"), ("top1_change", "changed")])
def test_a_difference_is_the_mean_less_that_of_the_control_if_there_is_one(statistic_: str, column: str) -> None:
    values = {"a": [[1, 1, 1, 0], [1, 1, 0, 0]], "b": [[0, 1, 0, 0], [1, 0, 0, 0]]}
    columns = {
        (arm, seed, "shift"): {f"typical|{column}": np.array(row, dtype=float)}
        for arm, rows in values.items()
        for seed, row in enumerate(rows)
    }
    both = statistic(ColumnTable(columns, [0, 1]), part(statistic_, arm="a", control="b")).effect
    assert both.per_seed.tolist() == [0.5, 0.25]
    assert both.estimate().value == pytest.approx(0.375)
    assert both.n_images == 4
    if statistic_ == "top1_change":
        alone = statistic(ColumnTable(columns, [0, 1]), part(statistic_, arm="a")).effect
        assert alone.per_seed.tolist() == [0.75, 0.5]


def test_seeds_that_would_refute_are_those_that_would_support_the_opposite() -> None:
    def error_with(seeds: int) -> tuple[float, float]:
        return 0.34 / math.sqrt(seeds), seeds - 1

    opposite = seeds_needed(0.925, error_with, (0.5, math.inf))
    assert opposite is not None
    assert seeds_needed(0.925, error_with, (-math.inf, 0.5)) == opposite
    assert seeds_needed(-0.925, error_with, (-0.5, math.inf)) == opposite
