"""Learning rates over a run: shapes, bounds, and torch's own schedules as an independent reference."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augkit.train.recipe_sections import ScheduleSettings
from augkit.train.schedule import rate_at


def of_torch(make: type, steps: int, **options: object) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = make(optimizer, **options)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def rates(steps: int, **settings: object) -> list[float]:
    schedule = ScheduleSettings.model_validate(settings)
    return [rate_at(step, steps, schedule) for step in range(steps)]


def test_cosine_is_torchs() -> None:
    expected = of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, 50, T_max=50)
    assert rates(50, warmup=0.0) == pytest.approx(expected)
    with_floor = of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, 50, T_max=50, eta_min=0.1)
    assert rates(50, warmup=0.0, final=0.1) == pytest.approx(with_floor)


def test_step_is_torchs() -> None:
    expected = of_torch(torch.optim.lr_scheduler.MultiStepLR, 40, milestones=[20, 30], gamma=0.2)
    assert rates(40, name="step", warmup=0.0, milestones=[0.5, 0.75], gamma=0.2) == pytest.approx(expected)


def test_onecycle_is_torchs() -> None:
    expected = of_torch(
        torch.optim.lr_scheduler.OneCycleLR,
        50,
        max_lr=1.0,
        total_steps=50,
        pct_start=0.3,
        cycle_momentum=False,
        final_div_factor=1e9,
    )
    assert rates(50, name="onecycle", warmup=0.3) == pytest.approx(expected, abs=1e-6)


@given(
    name=st.sampled_from(["cosine", "onecycle", "step", "constant"]),
    warmup=st.floats(0, 0.9),
    final=st.floats(0, 1),
    steps=st.integers(1, 60),
)
def test_rates_rise_in_the_warm_up_and_never_after(name: str, warmup: float, final: float, steps: int) -> None:
    found = rates(steps, name=name, warmup=warmup, final=final)
    top = found.index(max(found))
    assert all(0 <= rate <= 1 + 1e-12 for rate in found)
    assert all(b >= a - 1e-12 for a, b in itertools.pairwise(found[: top + 1]))
    assert all(b <= a + 1e-12 for a, b in itertools.pairwise(found[top:]))


@pytest.mark.parametrize("milestones", [[0.5, 0.4], [0.0], [1.0], [0.5, 0.5]])
def test_milestones_are_checked(milestones: list[float]) -> None:
    with pytest.raises(ValueError, match="rising shares"):
        ScheduleSettings(milestones=milestones)


def test_a_warm_up_rises_linearly_and_then_the_cosine_has_what_is_left() -> None:
    found = rates(20, warmup=0.25)
    assert found[:5] == pytest.approx([(k + 1) / 6 for k in range(5)])
    expected = of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, 15, T_max=15)
    assert found[5:] == pytest.approx(expected)
