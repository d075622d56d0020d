"""A schedule of strengths, and classes, as fields of a policy."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from augkit import Policy
from augkit.augment.albumentations_twin import PolicyTransform
from augkit.augment.strength_schedule import strength_at
from augkit.core.errors import InputError
from augkit.core.schema import validate

RAMP = [[2.0, 0.0], [6.0, 1.0], [8.0, 0.5]]
SHIFT = {"max_pixels": 3.0}


def policy(**fields: Any) -> Policy:
    return Policy.model_validate(fields)


@pytest.mark.parametrize(
    ("epoch", "strength"), [(0, 0.0), (2, 0.0), (3, 0.25), (5.5, 0.875), (6, 1.0), (7, 0.75), (8, 0.5), (99, 0.5)]
)
def test_strength_runs_along_straight_lines(epoch: float, strength: float) -> None:
    assert strength_at(RAMP, epoch) == strength


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(0, 1)), min_size=1, max_size=6, unique_by=lambda point: point[0])
)
def test_strength_meets_its_points_and_stays_between_them(points: list[tuple[float, float]]) -> None:
    ordered = [list(point) for point in sorted(points)]
    assert all(strength_at(ordered, epoch) == strength for epoch, strength in ordered)
    low, high = min(s for _, s in ordered), max(s for _, s in ordered)
    assert all(low - 1e-9 <= strength_at(ordered, epoch) <= high + 1e-9 for epoch in range(0, 110, 7))


def test_each_op_has_its_points_and_all_is_for_the_others() -> None:
    made = policy(
        shift=SHIFT,
        flip={},
        ops=[{"op": "RandomInvert"}, {"op": "RandomShear", "max_degrees": 5.0}],
        worker_ops=[{"op": "GaussNoise"}],
        strength=0.5,
        schedule={"shift": RAMP, "ops": [[0, 0.25]], "shear": [[0, 0.0], [10, 1.0]], "all": [[0, 1.0], [10, 0.0]]},
    )
    found = {name: made.strength_of(name, 5) for name in ("shift", "flip", "shear", "ops", "worker_ops")}
    assert found == {"shift": 0.375, "flip": 0.25, "shear": 0.25, "ops": 0.125, "worker_ops": 0.25}
    assert policy(shift=SHIFT, strength=0.5).strength_of("shift", 5) == 0.5
    assert policy(shift=SHIFT, strength=0.5, schedule={}).strength_of("shift", 5) == 0.5
    step = made.worker_step(0, 5)
    assert step is not None
    assert step.strength == 0.25


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": {"shfit": RAMP}}, "schedule: expected ops that the policy has; .*did you mean 'shift'"),
        ({"schedule": {"rescale": RAMP}}, r"unknown op 'rescale': \(known: all, shift\)"),
        ({"schedule": {"ops": RAMP}}, "unknown op 'ops'"),
        ({"schedule": {"shift": [[1, 0], [0, 1]]}}, r"schedule.shift: expected points .* whose epochs rise, from 0 on"),
        ({"schedule": {"shift": [[-1, 0]]}}, "whose epochs rise, from 0 on"),
        ({"schedule": {"shift": [[1, 1.5]]}}, r"whose strengths are in \[0, 1\]"),
        ({"schedule": {"shift": [[1]]}}, "schedule.shift.0: expected at least 2 of them"),
        ({"schedule": {"shift": [[1, True]]}}, "schedule.shift.0.1: expected a valid number, got True"),
        ({"schedule": {"shift": []}}, "schedule.shift: expected at least 1 of them"),
        ({"schedule": {"shift": 0.5}}, "schedule.shift: expected a valid list, got 0.5"),
        ({"classes": []}, "classes: expected at least 1 of them"),
        ({"classes": [True]}, "classes: expected a number"),
        ({"draws": "evn"}, "draws: expected 'random' or 'even', got 'evn'"),
    ],
)
def test_mistakes_are_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        validate(Policy, {"shift": SHIFT, **fields}, "policy")


def test_a_policy_without_them_is_dumped_as_before() -> None:
    usual = policy(shift=SHIFT).model_dump()
    assert list(usual) == ["shift", "rescale", "crop", "flip", "ops", "worker_ops", "strength", "kernel", "padding"]
    full = policy(shift=SHIFT, schedule={"all": RAMP}, classes=[0, "cat"], draws="even")
    assert set(full.model_dump()) - set(usual) == {"schedule", "classes", "draws"}
    assert Policy.from_yaml(full.to_yaml()) == full
    assert str(full).endswith("on classes 0, cat alone, strength by schedule, even draws")
    assert str(policy(draws="even")) == "no augmentation"


def test_classes_are_names_or_numbers() -> None:
    names = ["bird", "cat", "7"]
    assert policy(shift=SHIFT).class_mask(names) is None
    for classes, expected in (([0, "7"], [True, False, True]), (["cat", 1], [False, True, False])):
        mask = policy(classes=classes).class_mask(names)
        assert mask is not None
        assert mask.dtype == torch.bool
        assert mask.tolist() == expected
    with pytest.raises(InputError, match=r"policy\.classes: unknown class 'catt': did you mean 'cat'"):
        policy(classes=["catt"]).class_mask(names)
    for number in (3, -1):
        with pytest.raises(InputError, match=f"policy.classes: expected numbers from 0 to 2, got {number}"):
            policy(classes=[number]).class_mask(names)


def test_the_twin_refuses_what_it_cannot_know() -> None:
    for fields in ({"schedule": {"all": RAMP}}, {"classes": [1]}):
        made, name = policy(shift=SHIFT, **fields), next(iter(fields))
        with pytest.raises(InputError, match=f"policy.{name}: expected none in the CPU twin, which knows neither"):
            made.albumentations()
        with pytest.raises(InputError, match=f"policy.{name}: expected none in the CPU twin"):
            PolicyTransform(made)
    assert policy(shift=SHIFT, draws="even").albumentations() is not None
