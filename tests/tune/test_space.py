"""Ranges in a recipe: parsing, one-line errors, and recipes made from suggested values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.augment.policy import Policy, changes_nothing
from augkit.core.errors import InputError
from augkit.train.recipe import Recipe
from augkit.tune.space import CONTROLS, Range, Space, differences, rounded

BASE: dict[str, Any] = {"name": "toy", "data": {"name": "digits"}, "policy": {"shift": {}, "crop": {}}}
WRITTEN = [
    "policy.shift.max_pixels={search: [0, 8]}",
    "optim.lr={search: [0.01, 1], log: true}",
    "train.batch_size={search: [16, 64], int: true, log: true}",
    "model.downsample={choice: [maxpool, blurpool]}",
    "policy.crop.min_area={search: [0.3, 1], default: 0.7}",
]


def load(*overrides: str) -> Space:
    return Space.load("mnist5k", list(overrides))


def test_ranges_are_parsed_with_their_units_and_defaults() -> None:
    space = load(*WRITTEN)
    told = {key: (str(r), r.default, r.unit) for key, r in space.ranges.items()}
    assert told == {
        "policy.shift.max_pixels": ("[0, 8]", 4.0, "pixels"),
        "optim.lr": ("[0.01, 1] log", 0.1, ""),
        "train.batch_size": ("[16, 64] log int", 32, ""),
        "model.downsample": ("choice ['maxpool', 'blurpool']", "maxpool", ""),
        "policy.crop.min_area": ("[0.3, 1]", 0.7, "fraction of area"),
    }
    assert space.recipe.policy.shift is not None
    assert space.recipe.policy.shift.max_pixels == 4.0
    assert Space.from_dict(space.to_dict()) == space


def test_a_recipe_without_ranges_is_searched_over_its_policy() -> None:
    space = load()
    assert list(space.ranges) == [
        f"policy.{op}"
        for op in ("shift.max_pixels", "shift.p", "rescale.max_factor", "rescale.p", "crop.min_area", "crop.p")
    ]
    assert space.with_values(space.current() or {}) == Recipe.load("mnist5k")
    assert changes_nothing(space.with_values(space.preset(0.0)).policy)
    shift = Space.of({**BASE, "policy": {"shift": {"max_pixels": 2.0}}}, "x")
    assert list(shift.ranges) == ["policy.shift.max_pixels", "policy.shift.p"]


def test_a_range_in_a_list_of_ops() -> None:
    space = load("policy.ops=[{op: RandomSubpixelShift, max_pixels: {search: [1, 5]}}]")
    assert list(space.ranges) == ["policy.ops.0.max_pixels"]
    changed = space.with_values({"policy.ops.0.max_pixels": 4.5}).policy
    assert "4.5" in str(changed.ops[0])


def test_presets_go_from_weak_to_strong() -> None:
    space = load(
        "policy.shift.max_pixels={search: [0, 8]}",
        "policy.crop.min_area={search: [0.3, 1]}",
        "optim.lr={search: [0.01, 1], log: true}",
    )
    values = {"policy.shift.max_pixels": 2.4, "policy.crop.min_area": 0.79, "optim.lr": 0.1}
    assert space.preset(0.3) == values
    assert space.preset(0.0)["policy.crop.min_area"] == 1.0
    assert space.preset(1.0)["policy.crop.min_area"] == 0.3


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_suggested_values_make_a_valid_recipe_and_are_reproducible(data: st.DataObject) -> None:
    space = load(*WRITTEN)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=data.draw(st.integers(0, 10_000))))
    trial = study.ask()
    values = space.suggest(trial)
    recipe = space.with_values(values)
    assert recipe.optim.lr == values["optim.lr"]
    assert recipe.model.downsample == values["model.downsample"]
    assert {key: rounded(value, space.ranges[key]) for key, value in trial.params.items()} == values
    for key, value in values.items():
        assert value in space.ranges[key]
        assert rounded(value, space.ranges[key]) == value


@given(st.floats(0.001, 1000), st.floats(1.01, 1000), st.floats(0, 1))
def test_rounded_values_stay_within_the_range_and_near_the_value(low: float, span: float, share: float) -> None:
    r = Range(low=low, high=low * span, default=low)
    value = low + share * (r.high - low)
    out = rounded(value, r)
    assert out in r
    assert float(out) == pytest.approx(value, rel=6e-3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed={search: [0, 2]}", "seed: cannot be searched, because all trials must share its value"),
        ("data.canvas={search: [32, 64], int: true}", "data.canvas: cannot be searched"),
        ("train.epochs={search: [1, 5], int: true}", "train.epochs: cannot be searched"),
        ("optim.lr={search: [1, 0]}", r"search: \[low, high\] with low below high, got \[1, 0\]"),
        ("optim.lr={search: [a, b]}", "with low below high"),
        ("optim.lr={search: 3}", "with low below high, got 3"),
        ("optim.lr={search: [-1, 1]}", r"optim.lr: expected greater than 0, got -1.0"),
        ("optim.lr={search: [0, 1], log: true}", "expected a log range above 0"),
        ("optim.lr={search: [0, 1], lgo: true}", "with log, int, default, or"),
        ("train.batch_size={search: [8, 16.5], int: true}", "whole ends"),
        ("train.batch_size={search: [0, 8], int: true}", "train.batch_size: expected greater than or equal to 2"),
        ("optim.name={choice: [sgd, adam]}", "expected 'sgd' or 'adamw', got 'adam'"),
        ("optim.name={choice: [sgd]}", "a choice of two different values or more"),
        ("policy.shift.maxpixels={search: [0, 8]}", "unknown key 'policy.shift.maxpixels'"),
        ("model.width={search: [4, 16], int: true}", "expected at most 32 architectures"),
        ("model.width={choice: [16, 32], default: 64}", r"model.width: expected one of \[16, 32\] as default, got 64"),
        ("policy.padding={choice: [zeros, border], default: wrap}", "expected one of .* as default, got 'wrap'"),
        ("train.batch_size={search: [8, 16], int: true, default: 32}", r"a default within \[8, 16\] int, got 32"),
        ("optim.lr={search: [0.1, 1], default: 2.0}", r"optim.lr: expected a default within \[0.1, 1\], got 2.0"),
    ],
)
def test_bad_ranges_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load(override)


def test_numbers_with_an_exponent_and_no_point_are_ends_of_a_range() -> None:
    space = load("optim.lr={search: [1e-4, 1E-1], log: true, default: 1e-2}", "train.batch_size={choice: [1e1, 2e1]}")
    lr = space.ranges["optim.lr"]
    assert (lr.low, lr.high, lr.default) == (1e-4, 0.1, 0.01)
    assert space.with_values({"train.batch_size": space.ranges["train.batch_size"].choices[1]}).train.batch_size == 20


def test_a_recipe_with_ranges_is_refused_by_train() -> None:
    with pytest.raises(InputError, match=r"optim.lr is a range, .*; here give a value: optim.lr="):
        Recipe.load("mnist5k", ["optim.lr={search: [0, 1]}"])


def test_differences_between_two_spaces_are_listed() -> None:
    one, two = load("optim.lr={search: [0.01, 1]}"), load("optim.lr={search: [0.01, 2]}", "train.epochs=3")
    assert differences(two, one) == [
        "optim.lr was [0.01, 1], is [0.01, 2]",
        f"train.epochs was {one.recipe.train.epochs}, is 3",
    ]
    assert differences(one, one) == []


@pytest.mark.parametrize(
    ("policy", "nothing"),
    [
        ({}, True),
        ({"shift": {"max_pixels": 3.0, "p": 0.0}}, True),
        ({"shift": {"max_pixels": 3.0}}, False),
        ({"shift": {"max_pixels": 3.0}, "strength": 0.0}, True),
        ({"crop": {"min_area": 1.0}}, False),  # the aspect ratio still changes
        ({"flip": {"p": 0.5}}, False),
        ({"rescale": {"max_factor": 1.0}}, True),
    ],
)
def test_policies_that_change_nothing_are_recognized(policy: dict[str, Any], nothing: bool) -> None:
    assert changes_nothing(Policy.model_validate(policy)) == nothing


def test_ranges_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\ndata: {name: digits}\npolicy:\n  shift: {max_pixels: {search: [0, 8]}}\n")
    assert list(Space.load(file).ranges) == ["policy.shift.max_pixels"]


def test_a_space_has_at_most_as_many_architectures_as_controls() -> None:
    def choices(count: int) -> str:
        return f"model.width={{choice: [{', '.join(str(8 * (k + 1)) for k in range(count))}]}}"

    both = ["model.downsample={choice: [maxpool, blurpool]}"]
    assert len(load(choices(CONTROLS)).architectures()) == CONTROLS
    assert len(load(choices(CONTROLS // 2), *both).architectures()) == CONTROLS
    for overrides in ([choices(CONTROLS + 1)], [choices(CONTROLS // 2 + 1), *both]):
        with pytest.raises(InputError, match="expected at most 32 architectures"):
            load(*overrides)


@pytest.mark.parametrize(("default", "inside"), [(0.5, True), (1.0, True), (4.0, True), (0.4, False), (4.1, False)])
def test_ranges_include_their_ends(default: float, inside: bool) -> None:
    ranges = {
        "policy.shift.max_pixels": Range(low=0.5, high=4.0, default=default),
        "optim.lr": Range(low=0.1, high=1.0, default=0.2),
    }
    current = Space(Recipe.model_validate(BASE), ranges).current()
    assert current == ({"policy.shift.max_pixels": default, "optim.lr": 0.2} if inside else None)


def test_a_preset_on_a_log_scale_moves_by_equal_factors() -> None:
    ranges = {"policy.shift.max_pixels": Range(low=0.25, high=4.0, log=True, default=1.0)}
    space = Space(Recipe.model_validate(BASE), ranges)
    steps = [space.preset(strength)["policy.shift.max_pixels"] for strength in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert steps == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0])


@pytest.mark.parametrize(
    ("written", "default"),
    [
        ("policy.crop.min_area={search: [0.2, 0.6]}", 0.4),  # the field's default lies outside: the middle
        ("optim.lr={search: [1, 4], log: true}", 2.0),  # the middle of a log scale
        ("train.batch_size={search: [2, 4], int: true}", 3),
    ],
)
def test_without_a_usable_default_a_range_starts_in_the_middle(written: str, default: float) -> None:
    assert [r.default for r in load(written).ranges.values()] == [default]


@pytest.mark.parametrize("end", ["low", "high"])
def test_the_default_of_a_field_may_be_an_end_of_the_range(end: str) -> None:
    own = Recipe.model_validate({**BASE, "policy": {}}).optim.lr
    ends = (own, 3 * own) if end == "low" else (own / 3, own)
    made = Space.of({**BASE, "optim": {"lr": {"search": list(ends)}}}, "x")
    assert made.ranges["optim.lr"].default == pytest.approx(own, rel=1e-9)


@pytest.mark.parametrize(
    "policy",
    [
        {"shift": {"max_pixels": 2.0}},
        {"rescale": {"max_factor": 1.2}},
        {"crop": {"min_area": 0.5, "max_ratio": 1.0}},
        {"crop": {"min_area": 1.0, "max_ratio": 1.3}},
        {"flip": {"p": 0.5}},
    ],
)
@pytest.mark.parametrize("p", [0.0, 0.3])
def test_an_op_that_is_never_drawn_changes_nothing(policy: dict[str, Any], p: float) -> None:
    op = next(iter(policy))
    made = {op: {**policy[op], "p": p}}
    assert changes_nothing(Policy.model_validate(made)) == (p == 0)
    # Next to ops that change nothing, only this op matters.
    idle = {"shift": {"max_pixels": 0.0}, "rescale": {"max_factor": 1.0}, "crop": {"min_area": 1.0, "max_ratio": 1.0}}
    assert changes_nothing(Policy.model_validate(idle))
    assert changes_nothing(Policy.model_validate({**idle, **made})) == (p == 0)


@pytest.mark.parametrize(
    ("keys", "policy", "searched"),
    [
        (("policy.shift.max_pixels", "optim.lr"), {}, True),
        (("optim.lr",), {"shift": {"max_pixels": 2.0}}, True),
        (("optim.lr",), {}, False),  # without augmentation the search itself is that of the control
        (("policy.shift.max_pixels",), {}, False),
        (("policy.shift.max_pixels", "model.width"), {}, False),
    ],
)
def test_a_space_reports_whether_training_is_searched_beside_augmentation(
    keys: tuple[str, ...], policy: dict[str, Any], searched: bool
) -> None:
    ranges = {key: Range(low=0.1, high=1.0, default=0.5) for key in keys}
    assert Space(Recipe.model_validate({**BASE, "policy": policy}), ranges).searches_training == searched
