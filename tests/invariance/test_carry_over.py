"""Carry-over of invariance: the line by hand, the coverage of its interval by simulation, and undefined cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from made_up_settings import SETTINGS
from scipy import stats

from augkit.core.errors import InputError
from augkit.invariance import CarryOver, Estimate, InvarianceReport, carry_over
from augkit.invariance.carry_over import fit_line
from augkit.measure.comparison import arrives

IMAGES = 60


def report(values: np.ndarray, images: str = "typical", said: float = 1.5) -> InvarianceReport:
    """A network whose shift information per image is ``values``, and whose answers say ``said`` of two bits."""
    column = torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None]
    mean = torch.full((len(column), 4), 0.25, dtype=torch.float64)
    bits = {"shift_bits": said * column, "answer_bits": torch.full_like(column, 2.0 - said), "answer_mean": mean}
    return InvarianceReport(SETTINGS, bits, {}, images, {})


def networks(
    rng: np.random.Generator, slope: float, count: int = 13, seeds: int = 3
) -> tuple[list[InvarianceReport], list[InvarianceReport]]:
    """Networks on a line, with scatter of their own and of their seed, and images that differ and are shared."""
    x = rng.normal(-2.5, 0.7, count)
    y = -1.0 + slope * x + rng.normal(0, 0.12, count) + rng.normal(0, 0.1, seeds)[np.arange(count) % seeds]
    sides = []
    for level, images in ((x, "typical"), (y, "atypical")):
        shared = rng.normal(0, 0.8, IMAGES)
        runs = [np.exp(v + shared + rng.normal(0, 0.4, IMAGES) - 0.4) for v in level]
        sides.append([report(np.minimum(run, 1.0), images) for run in runs])
    return sides[0], sides[1]


def test_the_slope_is_that_of_least_squares_on_logarithms() -> None:
    rng = np.random.default_rng(0)
    x = np.exp(rng.normal(-3, 0.5, 8))
    y = 0.4 * x**0.6 * np.exp(rng.normal(0, 0.05, 8))
    typical = [report(np.full(IMAGES, v)) for v in x]
    atypical = [report(np.full(IMAGES, v), "other") for v in y]
    found = carry_over(typical, atypical, [f"n{k}" for k in range(8)])
    expected = stats.linregress(np.log(x), np.log(y))
    assert found.slope.value == pytest.approx(expected.slope)
    assert found.intercept == pytest.approx(expected.intercept)
    # All images alike: no error from them, and the interval is that of a regression.
    half = stats.t.ppf(0.975, 6) * expected.stderr
    assert found.slope.high - found.slope.value == pytest.approx(half, rel=1e-6)
    point = {"name": "n3", "typical": pytest.approx(x[3]), "atypical": pytest.approx(y[3])}
    assert found.to_dict()["points"][3] == point


@pytest.mark.integration
@pytest.mark.parametrize("slope", [0.0, 0.4])
def test_intervals_cover_the_true_slope(slope: float) -> None:
    rng, hits, trials = np.random.default_rng([3, int(10 * slope)]), 0, 60
    for _ in range(trials):
        found = carry_over(*networks(rng, slope)).slope
        hits += found.low <= slope <= found.high
    assert hits / trials >= 0.88  # binomial noise of 60 simulations around 95 % is 3 points


def test_the_slope_separates_networks_that_carry_over_nothing_from_those_that_carry_over_all() -> None:
    rng = np.random.default_rng(1)
    nothing, whole = (carry_over(*networks(rng, slope)).slope for slope in (0.0, 1.0))
    assert nothing.high < 0.5 < whole.low


def test_an_undefined_slope_has_a_reason() -> None:
    rng = np.random.default_rng(0)
    typical, atypical = networks(rng, 0.5)
    few = carry_over(typical[:4], atypical[:4])
    assert not few.slope.defined
    assert few.reason == "expected 5 networks or more whose variability is known, got 4"
    silent = [report(np.full(IMAGES, 0.5), "inverted", said=0.1) for _ in typical]
    found = carry_over(typical, silent)
    assert not found.slope.defined
    assert found.reason == "the networks say 0.1 bits about these images, 1.5 about typical ones"
    alike = [report(np.full(IMAGES, 0.1)) for _ in range(6)]
    assert carry_over(alike, atypical[:6]).reason == "all networks vary alike on typical images"
    assert found.to_dict()["slope"]["value"] is None
    assert found.to_dict()["intercept"] is None
    known = carry_over(typical, atypical)
    assert known.to_dict()["intercept"] == known.intercept


def test_reports_on_different_images_are_errors() -> None:
    typical, atypical = networks(np.random.default_rng(0), 0.5)
    with pytest.raises(InputError, match="a typical and an atypical report of every network"):
        carry_over(typical, atypical[:-1])
    with pytest.raises(InputError, match="same images"):
        carry_over([*typical[:-1], atypical[0]], atypical)


def test_lines_of_many_resamples_are_fitted_at_once() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5, 9))
    slopes, intercepts = fit_line(x, y)
    for k in range(5):
        expected = stats.linregress(x[k], y[k])
        assert (slopes[k], intercepts[k]) == (pytest.approx(expected.slope), pytest.approx(expected.intercept))
    assert math.isnan(fit_line(np.ones(5), rng.normal(size=5))[0])


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.2, 0.6, "only in part"),
        (0.7, 1.2, "yes:"),
        (1.1, 1.4, "more than was gained"),
        (-0.6, -0.1, "does harm"),
        (-0.1, 0.3, "undetermined, and not all of it"),
        (-0.5, 1.5, "undetermined:"),
    ],
)
def test_words_follow_the_interval(low: float, high: float, word: str) -> None:
    found = CarryOver(Estimate((low + high) / 2, low, high), 0.0, [0.1] * 6, [0.1] * 6, ["n"] * 6)
    assert word in arrives(found)
