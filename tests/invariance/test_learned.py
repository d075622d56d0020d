"""Learned invariance from made-up variabilities, by hand: floors, half an answer, signs, and too little information."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from augkit.invariance.bootstrap import REPLICATES, Estimate, PerSeed
from augkit.invariance.learned import AGREEING, half_an_answer, judge, log_ratio, rounding, too_little, verdict


def per_seed(values: list[float], spread: float = 0.0) -> PerSeed:
    """Half of the replicates over images lie ``spread`` below, half above."""
    whole = np.array(values)
    signs = np.resize([-1.0, 1.0], (REPLICATES, 1))
    return PerSeed(whole, whole + spread * signs, 0)


def test_the_logarithm_of_a_ratio_by_hand() -> None:
    found = log_ratio(per_seed([0.1, 0.3]), per_seed([0.4, 0.3]), quiet=1e-9)
    assert found is not None
    assert found.values == pytest.approx([math.log(0.25), 0.0])
    half = log_ratio(per_seed([0.0]), per_seed([0.3]), quiet=0.0, half=0.1)
    assert half is not None
    assert half.values == pytest.approx([math.log(0.1 / 0.4)])
    least = log_ratio(per_seed([0.0]), per_seed([0.3]), quiet=0.01)
    assert least is not None
    assert least.values == pytest.approx([math.log(0.01 / 0.3)])


@pytest.mark.parametrize(
    ("treated", "control", "spread", "defined"),
    [
        (0.1, 0.5, 0.24, True),
        (0.1, 0.5, 0.26, False),
        (0.1, 0.011, 0.0, True),
        (0.1, 0.009, 0.0, False),
        (math.nan, 0.5, 0.0, False),
        (math.inf, 0.5, 0.0, False),
    ],
)
def test_a_control_within_its_noise_leaves_it_undefined(
    treated: float, control: float, spread: float, defined: bool
) -> None:
    """Less than two standard errors (here the spread) above the floor of 0.01."""
    found = log_ratio(per_seed([treated]), per_seed([control], spread), quiet=0.01)
    assert (found is not None) == defined


def test_half_an_answer_by_hand() -> None:
    run = {"changed": torch.zeros(50, 1)}
    assert half_an_answer("top1_change", run) == pytest.approx(0.01)
    assert half_an_answer("top1_change", run, 4) == pytest.approx(0.0025)
    assert half_an_answer("js", {"js": torch.zeros(50, 1)}, 4) == 0


def test_rounding_by_hand() -> None:
    assert rounding("js", "fp16") == pytest.approx(1e-4 / (8 * math.log(2)))
    assert rounding("shift_information", "bf16") == pytest.approx(1e-2 / (8 * math.log(2)))
    assert rounding("js", "float32") == 1e-9
    assert rounding("mac", "fp16") == pytest.approx(0.005)
    assert rounding("logit_change", "fp16") == rounding("logit_change_max", "fp16") == 0.01
    assert rounding("top1_change", "bf16") == 0


def test_answers_with_less_than_a_tenth_of_the_bits_are_undefined() -> None:
    def saying(bits: float) -> dict[str, torch.Tensor]:
        uniform = torch.full((6, 4), 0.25, dtype=torch.float64)  # two bits, of which the answers leave some open
        named = {"shift_bits": torch.zeros(6, 1), "answer_bits": torch.full((6, 1), 2 - bits)}
        return {**{k: v.double() for k, v in named.items()}, "answer_mean": uniform}

    assert too_little([saying(0.125)], [saying(1.0)]) == ""
    assert too_little([saying(0.0625)], [saying(1.0)]) != ""
    assert too_little([saying(0.0625)], [saying(0.5)]) == ""
    assert too_little([saying(0.0), saying(0.25)], [saying(1.0), saying(1.0)]) == ""  # the mean over seeds
    assert too_little([{"shift_bits": torch.zeros(6, 1)}], [saying(1.0)]) == ""


@pytest.mark.parametrize(
    ("ends", "word", "named"),
    [
        ((0.1, 0.3), "positive", "more"),
        ((-0.3, -0.1), "negative", "less"),
        ((0.0, 0.2), "undetermined", "undetermined"),
        ((-0.2, 0.0), "undetermined", "undetermined"),
    ],
)
def test_verdicts_by_hand(ends: tuple[float, float], word: str, named: str) -> None:
    estimate = Estimate(sum(ends) / 2, *ends)
    assert verdict(estimate) == word
    assert judge(dict.fromkeys(AGREEING, estimate)).verdict == named
    for value in (0.0, -estimate.value, math.nan):
        by = {**dict.fromkeys(AGREEING, estimate), AGREEING[1]: Estimate(value, -1.0, 1.0)}
        found = judge(by)
        assert found.verdict == ("disputed" if named in ("more", "less") else named)
        assert found.dissent == ((AGREEING[1],) if named in ("more", "less") else ())


def test_a_control_that_never_changes_its_answer_leaves_nothing_to_learn() -> None:
    """Metrics that count answers have no floor of rounding, so 0 is at the floor, and a share of 0 is undefined."""
    for treated in (0.0, 0.1):
        assert log_ratio(per_seed([treated]), per_seed([0.0]), quiet=0.0, half=0.01) is None
    assert log_ratio(per_seed([0.0]), per_seed([1e-6]), quiet=0.0, half=0.01) is not None


@pytest.mark.parametrize("pairs", [1, 2, 3, 7])
def test_half_an_answer_is_half_of_the_least_step_of_a_share(pairs: int) -> None:
    """With N images and P pairs the share of changed answers has steps of 1 / (N P), known from the predictions."""
    changed = torch.zeros(5, pairs)
    changed[2, 0] = 1
    run = {"changed": changed.mean(1, keepdim=True), "predictions": torch.zeros(5, 2 * pairs)}
    assert half_an_answer("top1_change", run) == pytest.approx(float(changed.mean()) / 2)
