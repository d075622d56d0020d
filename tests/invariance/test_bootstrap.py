"""Intervals: against plain numpy, and their coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from made_up_settings import SETTINGS

from augkit.core.errors import InputError
from augkit.invariance import InvarianceReport, learned_invariance, transfer, verdict
from augkit.invariance.bootstrap import Estimate, combine, mean_estimates, replicates, replicates_of
from augkit.invariance.learned import rounding


def run_of(values: np.ndarray) -> dict[str, torch.Tensor]:
    """Statistics of a run whose variability per image is given, and whose answers say 1.5 bits."""
    column = torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None]
    shares = torch.full((len(column), 2), 0.5, dtype=torch.float64)
    bits = {"shift_bits": column, "answer_bits": torch.full_like(column, 0.5)}
    bits["answer_mean"] = torch.full((len(column), 4), 0.25, dtype=torch.float64)
    return {"js": column, "changed": column, "mac": column, "shares": shares, **bits}


def report_of(values: np.ndarray, fingerprint: str = "same") -> InvarianceReport:
    return InvarianceReport(SETTINGS, run_of(values), {}, fingerprint, {})


def test_value_is_the_mean_and_one_seed_gives_the_percentile_interval() -> None:
    values = np.random.default_rng(0).exponential(0.1, 400)
    estimate = replicates("js", [run_of(values)]).estimate()
    assert estimate.value == pytest.approx(values.mean())
    standard_error = values.std() / math.sqrt(len(values))
    assert estimate.low == pytest.approx(values.mean() - 1.96 * standard_error, abs=0.3 * standard_error)
    assert estimate.high == pytest.approx(values.mean() + 1.96 * standard_error, abs=0.3 * standard_error)


def test_all_metrics_share_the_resamples_of_images() -> None:
    values = np.random.default_rng(0).random(50)
    first, second = replicates("js", [run_of(values)]), replicates("mac", [run_of(values)])
    assert np.array_equal(first.images, second.images)
    difference = combine(lambda a, b: a - b, first, second).estimate()
    assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_seeds_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    values = rng.exponential(0.1, 300)
    alike = replicates("js", [run_of(values)] * 3).estimate()
    apart = replicates("js", [run_of(values * factor) for factor in (0.7, 1.0, 1.3)]).estimate()
    assert apart.high - apart.low > 4 * (alike.high - alike.low)


def simulated(rng: np.random.Generator, seeds: int, images: int, level: float) -> list[np.ndarray]:
    """Variability per image with effects of image, of seed and of both, on a log scale."""
    per_image = rng.normal(0, 1.0, images)
    return [
        np.exp(math.log(level) + per_image + rng.normal(0, 0.25) + rng.normal(0, 0.5, images)) for _ in range(seeds)
    ]


def coverage(seeds: int, factor: float, trials: int = 200) -> float:
    """How often the interval of L holds the truth, 1 - factor."""
    rng = np.random.default_rng([seeds, int(100 * factor)])
    hits = 0
    for _ in range(trials):
        both = simulated(rng, 2 * seeds, 80, 0.01)
        treated = [report_of(factor * values) for values in both[:seeds]]
        estimate = learned_invariance(treated, [report_of(values) for values in both[seeds:]])
        hits += estimate.low <= 1 - factor <= estimate.high
    return hits / trials


@pytest.mark.integration
@pytest.mark.parametrize("seeds", [3, 5])
def test_a_recipe_compared_with_itself_covers_zero(seeds: int) -> None:
    # Binomial noise of 200 simulations around 95 % is 1.5 points.
    assert 0.90 <= coverage(seeds, 1.0) <= 0.995


def test_a_planted_effect_is_covered_too() -> None:
    assert 0.90 <= coverage(3, 0.4) <= 0.995


def test_learned_invariance_by_hand() -> None:
    control = np.array([0.1, 0.2, 0.3, 0.4])
    estimate = learned_invariance(report_of(control / 4), report_of(control))
    assert estimate.value == pytest.approx(0.75)
    assert estimate.low == pytest.approx(0.75)  # the ratio is the same in every resample
    harm = learned_invariance(report_of(2 * control), report_of(control))
    assert harm.value == pytest.approx(-1.0)
    assert verdict(harm) == "negative"


def test_learned_invariance_is_undefined_below_the_controls_noise() -> None:
    rounding = np.full(20, 1e-15)
    assert not learned_invariance(report_of(rounding), report_of(rounding)).defined
    one_image = np.array([0.5] + [0.0] * 19)
    assert not learned_invariance(report_of(one_image), report_of(one_image)).defined
    assert verdict(learned_invariance(report_of(rounding), report_of(rounding))) == "undefined"


def test_transfer_is_the_difference_and_cancels_paired_variation() -> None:
    rng = np.random.default_rng(0)
    control = rng.exponential(0.1, 60)
    typical = (report_of(control / 4), report_of(control))
    atypical = (report_of(control / 2), report_of(control))
    estimate = transfer(typical, atypical)
    assert estimate.value == pytest.approx(0.5 - 0.75)
    assert transfer(typical, typical).value == 0
    assert transfer(typical, typical).high == 0


def test_reports_on_different_images_are_errors() -> None:
    values = np.full(5, 0.1)
    with pytest.raises(InputError, match="same images"):
        learned_invariance(report_of(values, "a"), report_of(values, "b"))
    with pytest.raises(InputError, match="as many treated"):
        learned_invariance([report_of(values)] * 2, report_of(values))
    with pytest.raises(InputError, match="metric"):
        learned_invariance(report_of(values), report_of(values), metric="accuracy")


def test_verdict_and_text() -> None:
    assert verdict(Estimate(0.2, -0.1, 0.5)) == "undetermined"
    assert verdict(Estimate(0.2, 0.1, 0.5)) == "positive"
    assert format(Estimate(0.2, 0.1, 0.5), ".2f") == "0.20 [0.10, 0.50]"
    assert Estimate(math.nan, math.nan, math.nan).to_dict() == {"value": None, "low": None, "high": None}


def test_shares_of_predictions_need_no_one_hot_array() -> None:
    rng = np.random.default_rng(0)
    predictions = torch.from_numpy(rng.integers(0, 7, (40, 6)).astype(np.int16))
    changed = torch.from_numpy(rng.random((40, 1)))
    one_hot = torch.nn.functional.one_hot(predictions.long(), 7).double().mean(1)
    compact = replicates("kappa", [{"changed": changed, "predictions": predictions}])
    plain = replicates("kappa", [{"changed": changed, "shares": one_hot}])
    assert compact.value == pytest.approx(plain.value, abs=1e-12)
    np.testing.assert_allclose(compact.images, plain.images, atol=1e-12)


def test_several_metrics_together_equal_each_alone() -> None:
    run = run_of(np.random.default_rng(0).random(30))
    together = replicates_of(["js", "kappa", "consistency"], [run, run])
    for metric, found in together.items():
        alone = replicates(metric, [run, run])
        # A product of other widths sums in another order.
        np.testing.assert_allclose(found.images, alone.images, atol=1e-14)
        np.testing.assert_allclose(found.both, alone.both, atol=1e-14)


def test_mean_estimates_are_the_bootstrap_of_plain_means() -> None:
    values = np.random.default_rng(0).random((50, 2))
    found = mean_estimates(torch.from_numpy(values), high=1.0)
    for k in range(2):
        alone = replicates("js", [run_of(values[:, k])]).estimate(0, 1)
        assert vars(found[k]) == pytest.approx(vars(alone))


def test_resamples_draw_images_with_replacement() -> None:
    # The variance of a resampled mean is that of the sample over n, which a wrong weighting would miss.
    values = np.random.default_rng(1).exponential(1.0, 300)
    found = replicates("js", [run_of(values)]).images
    assert found.std() == pytest.approx(values.std() / math.sqrt(300), rel=0.1)
    assert found.mean() == pytest.approx(values.mean(), abs=3 * found.std() / math.sqrt(1000) + 1e-3)


def test_the_error_names_a_statistic_that_was_not_measured() -> None:
    with pytest.raises(InputError, match="'worst' was not measured"):
        replicates("worst_case", [run_of(np.ones(4))])


@pytest.mark.parametrize("metric", ["mac", "logit_change", "js"])
def test_rounding_of_an_invariant_network_leaves_learned_invariance_undefined(metric: str) -> None:
    noise = np.full(20, 0.5 * rounding(metric, "float32"))
    run = run_of(noise) | {"logit": torch.from_numpy(noise)[:, None]}
    report = InvarianceReport(SETTINGS, run, {}, "same", {})
    assert not learned_invariance(report, report, metric=metric).defined
    assert rounding(metric, "bf16") > rounding(metric, "fp16") > rounding(metric, "float32")


def test_learned_invariance_of_the_worst_case() -> None:
    rng = np.random.default_rng(3)
    control = (rng.random(400) < 0.5).astype(float)
    treated = control * (rng.random(400) < 0.25)
    reports = [
        InvarianceReport(SETTINGS, run_of(v) | {"worst": torch.from_numpy(v)[:, None]}, {}, "same", {})
        for v in (treated, control)
    ]
    estimate = learned_invariance(*reports, metric="worst_case")
    assert estimate.low < 0.75 < estimate.high
    assert estimate.high - estimate.low < 0.2
