"""Output metrics against slow loops and the laws of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from augkit.core.errors import InputError
from augkit.invariance.learned import AGREEING
from augkit.invariance.metrics import (
    KEPT,
    METRICS,
    jaggedness,
    jensen_shannon,
    kappa,
    largest_logit_change,
    mean_absolute_change,
    mean_logit_change,
    top1_change,
    worst_case,
)


def probabilities(seed: int, *shape: int, sharp: float = 3.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharp * torch.randn(*shape, generator=generator, dtype=torch.float64)).softmax(-1)


@given(st.integers(0, 10_000), st.integers(2, 12))
@settings(max_examples=40, deadline=None)
def test_pairwise_metrics_agree_with_loops(seed: int, classes: int) -> None:
    p, q = probabilities(seed, 5, classes), probabilities(seed + 1, 5, classes)
    for n in range(5):
        a, b = p[n].numpy(), q[n].numpy()
        assert jensen_shannon(p, q)[n] == pytest.approx(jensenshannon(a, b, base=2) ** 2, abs=1e-12)
        assert top1_change(p, q)[n] == float(a.argmax() != b.argmax())
        assert mean_absolute_change(p, q)[n] == pytest.approx(abs(a[a.argmax()] - b[a.argmax()]))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_pairwise_metrics_are_bounded_zero_of_equal_answers_and_symmetric_but_for_mac(seed: int) -> None:
    p, q = probabilities(seed, 8, 4), probabilities(seed + 1, 8, 4)
    for metric in (top1_change, mean_absolute_change, jensen_shannon):
        assert metric(p, p).abs().max() == 0
        assert metric(p, q).min() >= 0
        assert metric(p, q).max() <= 1
    assert torch.equal(top1_change(p, q), top1_change(q, p))
    torch.testing.assert_close(jensen_shannon(p, q), jensen_shannon(q, p))


def test_only_mac_depends_on_the_order_of_the_pair() -> None:
    p, q = torch.tensor([0.6, 0.4, 0.0]), torch.tensor([0.1, 0.5, 0.4])
    assert mean_absolute_change(p, q) == pytest.approx(0.5)
    assert mean_absolute_change(q, p) == pytest.approx(0.1)


def test_jensen_shannon_near_zero_does_not_cancel() -> None:
    p = torch.tensor([0.3, 0.7], dtype=torch.float64)
    q = p + torch.tensor([1e-6, -1e-6], dtype=torch.float64)
    expected = (1e-6) ** 2 * (1 / 0.3 + 1 / 0.7) / 8 / math.log(2)
    assert jensen_shannon(p, q) == pytest.approx(expected, rel=1e-3)


def test_jensen_shannon_of_certain_answers() -> None:
    one, other = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    assert jensen_shannon(one, other) == 1
    assert jensen_shannon(one, one) == 0


def test_kappa_by_hand() -> None:
    # C = 0.8, shares 0.5 and 0.5: C0 = 0.5, kappa = 0.3 / 0.5.
    assert kappa(torch.tensor(0.2), torch.tensor([0.5, 0.5])) == pytest.approx(0.6)
    assert kappa(torch.tensor(0.0), torch.tensor([1.0, 0.0])) == 0


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_answers_under_many_displacements_agree_with_loops(seed: int) -> None:
    answers = np.random.default_rng(seed).integers(0, 3, (6, 5))
    found = torch.from_numpy(answers)
    for n in range(6):
        assert worst_case(found[:, 0], found[:, 1:])[n] == any(answers[n, g] != answers[n, 0] for g in range(1, 5))
        assert jaggedness(found)[n] == sum(answers[n, k] != answers[n, k + 1] for k in range(4))


def test_logit_change_is_absolute_and_symmetric() -> None:
    a, b = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[0.0, -2.0, 3.5]])
    for first, second in ((a, b), (b, a)):
        assert mean_logit_change(first, second).item() == pytest.approx(4 / 3)
        assert largest_logit_change(first, second).item() == 3.0
    # Softmax forgets a common offset; the logits moved all the same.
    assert largest_logit_change(a, a + 1).item() == 1.0


def test_every_row_has_a_title_and_a_meaning() -> None:
    for name, row in METRICS.items():
        assert name == row.name
        assert row.title
        assert row.meaning
        assert row.low < row.high
        assert row.needs_labels == any("correct" in need for need in row.needs)


def test_a_row_with_a_formula_of_pairs_is_the_mean_of_its_one_statistic() -> None:
    for row in METRICS.values():
        if row.pairwise is not None:
            assert len(row.needs) == 1
            assert row({row.needs[0]: torch.tensor([0.25])}) == 0.25


def test_a_variability_is_better_when_lower_and_never_below_its_floor() -> None:
    for row in METRICS.values():
        if row.variability:
            assert row.higher_is_better is False
            assert row.low == 0.0
            assert 0 <= row.floor(1e-5) <= row.floor(1e-2) < row.high


def test_studies_keep_what_the_default_variabilities_need() -> None:
    assert set(KEPT) >= {need for name in AGREEING for need in METRICS[name].needs}
    kept = "js changed mac logit correct shifted_correct shift_bits answer_bits answer_mean tempered_js tempered_bits"
    assert set(KEPT) >= set(kept.split())


def test_a_number_of_two_networks_is_an_error_for_one() -> None:
    with pytest.raises(InputError, match="learned_invariance"):
        METRICS["entropy_matched_js"]({})
