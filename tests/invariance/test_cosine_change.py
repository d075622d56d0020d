"""A metric defined by one function and one row: its laws, and its appearance everywhere that metrics appear."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from augkit.invariance import Pairs, Plan, learned_invariance, measure_invariance
from augkit.invariance.accumulator import Accumulator
from augkit.invariance.batch_statistics import measure_batch
from augkit.invariance.learned import VARIABILITIES
from augkit.invariance.metrics import KEPT, cosine_change
from augkit.invariance.report import estimates
from augkit.measure.results import ImageSetResults
from augkit.measure.terminal import metric_rows

PLAN = Plan(pairs=Pairs(3, -2.0, 2.0))


def made_up(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(logits: np.ndarray) -> np.ndarray:
    """Per image, straight from the definition: ``(N, S, K)`` to ``(N,)``."""
    out = []
    for views in logits:
        found = []
        for s, t in PLAN.layout.pairs:
            a, b = views[s] - views[s].mean(), views[t] - views[t].mean()
            found.append(1 - sum(a * b) / np.sqrt(sum(a * a) * sum(b * b)))
        out.append(np.mean(found))
    return np.array(out)


def accumulated(logits: Tensor, sizes: tuple[int, ...]) -> Accumulator:
    accumulator, start = Accumulator(PLAN.layout), 0
    moved = PLAN.displacements(0, 0, len(logits))
    for size in sizes:
        rows, part = logits[start : start + size], slice(start, start + size)
        answers = measure_batch(PLAN.layout, lambda k, rows=rows: rows[:, k])
        accumulator.add(answers, moved[part], None, torch.arange(start, start + size))
        start += size
    return accumulator


@given(st.integers(0, 10_000), st.integers(3, 8))
@settings(max_examples=15, deadline=None)
def test_it_agrees_with_loops_in_float64_for_any_batch_size(seed: int, classes: int) -> None:
    logits = made_up(seed, 11, len(PLAN.layout.columns), classes)
    whole, parts = accumulated(logits, (11,)).statistics(), accumulated(logits, (7, 3, 1)).statistics()
    assert torch.equal(whole["cosine"], parts["cosine"])
    np.testing.assert_allclose(whole["cosine"][:, 0], by_loops(logits.numpy()), atol=1e-6)
    found = estimates(whole)["cosine_change"]
    assert found.value == pytest.approx(by_loops(logits.numpy()).mean(), abs=1e-6)
    assert 0 <= found.low <= found.value <= found.high <= 2


@given(st.integers(0, 10_000), st.floats(0.01, 100), st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_neither_confidence_nor_a_common_offset_matters(seed: int, factor: float, offset: float) -> None:
    a, b = made_up(seed, 5, 4), made_up(seed + 1, 5, 4)
    found = cosine_change(a, b)
    assert ((found >= 0) & (found <= 2)).all()
    torch.testing.assert_close(cosine_change(b, a), found)
    torch.testing.assert_close(cosine_change(factor * a + offset, b), found)
    torch.testing.assert_close(cosine_change(a, factor * a + offset), torch.zeros(5, dtype=a.dtype))
    torch.testing.assert_close(cosine_change(a, -a), torch.full((5,), 2.0, dtype=a.dtype))


def test_logits_that_are_all_alike_have_no_direction_and_do_not_change() -> None:
    same = torch.full((1, 3), 7.0)
    assert cosine_change(same, same + 1).item() == 0
    assert cosine_change(same, torch.tensor([[1.0, 0.0, 0.0]])).item() == 0.5


def test_small_changes_do_not_cancel() -> None:
    a = torch.tensor([1.0, 0.0, -1.0], dtype=torch.float64)
    b = a + 1e-9 * torch.tensor([1.0, -2.0, 1.0], dtype=torch.float64)
    assert cosine_change(a, b).item() == pytest.approx(1.5e-18, rel=1e-6)  # half the square of the angle, sqrt(3) 1e-9


def network(seed: int, width: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.AvgPool2d(width), torch.nn.Flatten(), torch.nn.LazyLinear(4)).eval()


def test_it_appears_in_reports_tables_learned_invariance_studies_and_torchmetrics() -> None:
    images = torch.rand(24, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"protocol": "circular", "max_shift": 2.0}
    sharp, blunt = (measure_invariance(network(0, width), images, **options) for width in (1, 12))
    assert 0 < blunt.cosine_change.value < sharp.cosine_change.value < 2
    measured = {"data": ImageSetResults("data", sharp, 24)}
    assert [row[0] for row in metric_rows(measured) if row[0].startswith("cosine")] == ["cosine distance of logits"]
    assert "cosine_change" in VARIABILITIES
    removed = learned_invariance(blunt, sharp, metric="cosine_change")
    assert removed.value == pytest.approx(1 - blunt.cosine_change.value / sharp.cosine_change.value)
    assert "cosine" in KEPT
    torchmetrics = pytest.importorskip("augkit.adapters.torchmetrics")
    mean = torchmetrics.PairMean("cosine_change", logits=True)
    a, b = made_up(1, 6, 4), made_up(2, 6, 4)
    mean.update(a[:4], b[:4])
    mean.update(a[4:], b[4:])
    assert mean.compute().item() == pytest.approx(cosine_change(a, b).mean().item(), rel=1e-6)
