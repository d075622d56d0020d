"""Output metrics against slow loops and the laws of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from augkit.invariance.metrics import (
    METRICS,
    image_statistics,
    jensen_shannon,
    kappa,
    mean_absolute_change,
    top1_change,
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
def test_laws(seed: int) -> None:
    p, q = probabilities(seed, 8, 4), probabilities(seed + 1, 8, 4)
    for metric in (top1_change, mean_absolute_change, jensen_shannon):
        assert metric(p, p).abs().max() == 0
        assert metric(p, q).min() >= 0
        assert metric(p, q).max() <= 1
    assert torch.equal(top1_change(p, q), top1_change(q, p))
    torch.testing.assert_close(jensen_shannon(p, q), jensen_shannon(q, p))


def test_mac_alone_depends_on_the_order_of_the_pair() -> None:
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


def test_constant_classifier_is_consistent_and_has_kappa_zero() -> None:
    p = torch.tensor([0.9, 0.05, 0.05]).expand(10, 4, 3)
    means = {k: v.mean(0) for k, v in image_statistics((p, p), p[:, 0], None).items()}
    assert METRICS["consistency"](means) == 1
    assert METRICS["kappa"](means) == 0


def test_random_answers_change_as_their_shares_say() -> None:
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    answers = torch.multinomial(shares, 2 * 40_000, replacement=True, generator=generator)
    p = torch.nn.functional.one_hot(answers, 3).double().view(2, 1000, 40, 3)
    means = {k: v.mean(0) for k, v in image_statistics((p[0], p[1]), p[0, :, 0], None).items()}
    assert METRICS["top1_change"](means).item() == pytest.approx(1 - (shares**2).sum().item(), abs=0.01)
    assert METRICS["kappa"](means).item() == pytest.approx(0, abs=0.02)


def test_kappa_by_hand() -> None:
    # C = 0.8, shares 0.5 and 0.5: C0 = 0.5, kappa = 0.3 / 0.5.
    assert kappa(torch.tensor(0.2), torch.tensor([0.5, 0.5])) == pytest.approx(0.6)


def test_image_statistics_against_a_loop() -> None:
    p, q, none = probabilities(0, 6, 3, 4), probabilities(1, 6, 3, 4), probabilities(2, 6, 4)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    found = image_statistics((p, q), none, labels)
    for n in range(6):
        answers = [int(x[n, k].argmax()) for x in (p, q) for k in range(3)]
        assert found["shifted_correct"][n] == pytest.approx(np.mean([a == int(labels[n]) for a in answers]))
        assert found["correct"][n] == float(int(none[n].argmax()) == int(labels[n]))
        assert found["shares"][n].tolist() == pytest.approx([answers.count(k) / 6 for k in range(4)])
        assert found["changed"][n] == pytest.approx(np.mean([answers[k] != answers[3 + k] for k in range(3)]))


def test_uneven_batches_give_the_whole_sets_value() -> None:
    p, q, none = probabilities(0, 11, 3, 4), probabilities(1, 11, 3, 4), probabilities(2, 11, 4)
    whole = image_statistics((p, q), none, None)
    parts = [image_statistics((p[a:b], q[a:b]), none[a:b], None) for a, b in ((0, 7), (7, 10), (10, 11))]
    for name, values in whole.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), values)
