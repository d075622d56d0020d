"""A policy as data: its YAML, its errors, and the ops that it builds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit import Augment, RandomHorizontalFlip, RandomRescale, RandomSubpixelCrop, RandomSubpixelShift
from augkit.augment.kernels import KERNELS, PADDINGS
from augkit.augment.op_spec import Amount
from augkit.augment.ops import op_specs
from augkit.augment.ops.random_horizontal_flip import FlipSettings
from augkit.augment.ops.random_rescale import RescaleSettings
from augkit.augment.ops.random_subpixel_crop import CropSettings
from augkit.augment.ops.random_subpixel_shift import ShiftSettings
from augkit.augment.policy import Policy, search_space, with_values
from augkit.core.errors import InputError

FULL = Policy(
    shift=ShiftSettings(max_pixels=3.0, p=0.9),
    rescale=RescaleSettings(max_factor=1.25, p=0.5),
    crop=CropSettings(min_area=0.5, max_ratio=1.5, p=0.8),
    flip=FlipSettings(p=0.4),
    strength=0.7,
    kernel="sinc",
    padding="reflection",
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def amounts(settings: type[Any]) -> st.SearchStrategy[Any]:
    """Settings of an op with any amounts that its fields take."""
    found = {}
    for name, amount in settings.amounts().items():
        bounds = {type(row).__name__: row for row in settings.model_fields[name].metadata}
        low = bounds["Ge"].ge if "Ge" in bounds else 1e-6
        found[name] = st.floats(low, bounds["Le"].le if "Le" in bounds else 1e6 * amount.high)
        if settings.model_fields[name].annotation is not float:  # a number, or a pair of them
            one = st.floats(amount.low, amount.high)
            found[name] = one | st.tuples(one, one)
    flags = [name for name, field in settings.model_fields.items() if field.annotation is bool]
    plain = st.builds(settings, **found)
    ranges = {name: st.floats(amount.low, amount.high) for name, amount in settings.amounts().items()}
    # One flag at a time: some exclude each other.
    return st.one_of(plain, *(st.builds(settings, **ranges, **{name: st.just(True)}) for name in flags))


policies = st.builds(
    Policy,
    strength=st.floats(0, 1),
    kernel=st.sampled_from(KERNELS),
    padding=st.sampled_from(PADDINGS),
    **{name: st.none() | amounts(spec.settings) for name, spec in op_specs().items()},
)


@given(policies)
@settings(max_examples=60, deadline=None)
def test_yaml_is_read_back_to_an_equal_policy(policy: Policy) -> None:
    assert Policy.from_yaml(policy.to_yaml()) == policy


def test_yaml_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(FULL.to_yaml())
    assert Policy.from_yaml(path) == Policy.from_yaml(str(path)) == FULL
    assert Policy.from_yaml("") == Policy()
    # What a recipe leaves to its defaults still stands in the file that it writes.
    assert "kernel: lanczos3\npadding: zeros" in Policy().to_yaml()
    assert Policy.from_yaml("shift: {}").shift == ShiftSettings(max_pixels=0.0, p=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shfit: {max_pixels: 3}", "policy: unknown key 'shfit': did you mean 'shift'"),
        ("shift: {max_pixel: 3}", "policy: unknown key 'shift.max_pixel': did you mean 'shift.max_pixels'"),
        ("crop: {minarea: 0.5}", "policy: unknown key 'crop.minarea': did you mean 'crop.min_area'"),
        ("shift: {max_pixels: -1}", "shift.max_pixels: expected greater than or equal to 0, got -1"),
        ("shift: {max_pixels: .inf}", "shift.max_pixels: expected .*finite number, got inf"),
        ("shift: {p: 1.5}", "shift.p: expected less than or equal to 1, got 1.5"),
        ("rescale: {max_factor: 0.9}", "rescale.max_factor: expected greater than or equal to 1, got 0.9"),
        ("rescale: {max_factor: 17}", "rescale.max_factor: expected less than or equal to 16"),
        ("crop: {min_area: 0}", "crop.min_area: expected greater than 0"),
        ("crop: {max_ratio: 0.5}", "crop.max_ratio: expected greater than or equal to 1"),
        ("flip: {p: -0.5}", "flip.p: expected greater than or equal to 0"),
        ("strength: 2", "strength: expected less than or equal to 1"),
        ("kernel: cubic", "kernel: expected .*'bicubic'"),
        ("padding: wrap", "padding: expected .*'circular'"),
        ("shift: 3", "shift: expected"),
        ("shift: {max_pixels: far}", "shift.max_pixels: expected a valid number.* got 'far'"),
        ("strength: 2\nkernel: cubic", r"\(and 1 more\)"),
        ("[1, 2]", "policy: expected a mapping of keys to values, got list"),
        ("shift: {", "policy line 1: not valid YAML"),
        ("nowhere.yaml", "policy: expected a file, 'nowhere.yaml' is none"),
    ],
)
def test_bad_yaml(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Policy.from_yaml(text)
    assert "\n" not in str(caught.value)


def test_a_policy_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        FULL.strength = 0.1  # type: ignore[misc]


def test_augment_equals_the_ops_that_the_policy_names() -> None:
    images = torch.rand(6, 2, 21, 30)
    by_hand = Augment(
        RandomSubpixelShift(3.0, 0.9),
        RandomRescale(1.25, 0.5),
        RandomSubpixelCrop((16, 20), (0.5, 1.0), (1 / 1.5, 1.5), 0.8),
        RandomHorizontalFlip(0.4),
        kernel="sinc",
        padding="reflection",
        normalize=(0.4, 0.2),
        dtype=torch.bfloat16,
        strength=0.7,
    )
    augment = FULL.augment((16, 20), normalize=(0.4, 0.2), dtype=torch.bfloat16)
    assert repr(augment) == repr(by_hand)
    assert torch.equal(augment(images, generator=seeded()), by_hand(images, generator=seeded()))


@pytest.mark.parametrize("name", ["shift", "rescale", "crop", "flip"])
def test_ops_that_a_policy_leaves_out_do_not_act(name: str) -> None:
    single = Policy(**{name: getattr(FULL, name)})
    expected = {"shift": RandomSubpixelShift, "rescale": RandomRescale}
    expected |= {"crop": RandomSubpixelCrop, "flip": RandomHorizontalFlip}
    assert [type(op) for op in single.geometry()] == [expected[name]]
    assert not single.is_identity


def test_the_blur_of_a_shift_stands_in_for_the_shift() -> None:
    (op,) = Policy(shift=ShiftSettings(max_pixels=3.0, p=0.5, blur_only=True)).geometry()
    assert repr(op) == "RandomShiftBlur(max_pixels=3.0, p=0.5)"


@pytest.mark.parametrize("policy", [Policy(), FULL.model_copy(update={"strength": 0.0})])
def test_the_identity_changes_no_bit(policy: Policy) -> None:
    images = torch.rand(3, 1, 9, 12)
    assert policy.is_identity
    assert torch.equal(policy.augment()(images), images)


@pytest.mark.parametrize("strength", [1.0, 0.5, 0.25])
def test_strength_scales_every_range(strength: float) -> None:
    policy = Policy(shift=ShiftSettings(max_pixels=4.0), rescale=RescaleSettings(max_factor=1.5), strength=strength)
    draws = torch.tensor([[0.0, 1.0, 0.0, 0.0, 1.0]])
    shift, rescale = policy.geometry()
    augment = policy.augment()
    assert augment.strength == strength
    moved = shift.matrix(draws[:, :3], torch.tensor([strength]), (9, 9))
    assert moved[0, :2, 2].tolist() == [4 * strength, -4 * strength]
    scaled = rescale.matrix(draws[:, 3:], torch.tensor([strength]), (9, 9))
    assert scaled[0, 0, 0].log().item() == pytest.approx(math.log(1.5) * strength)
    sample = augment.sample(2000, (9, 9), generator=seeded())
    assert sample[:, 0, 0].log().abs().max() == pytest.approx(math.log(1.5) * strength, rel=0.01)


def test_the_search_space_is_that_of_the_ops_present() -> None:
    assert search_space(Policy(shift=ShiftSettings())) == {
        "shift.max_pixels": Amount(0.0, 6.0, "pixels"),
        "shift.p": Amount(0.0, 1.0, "probability"),
    }
    assert set(search_space(FULL)) == set(search_space(Policy()))
    assert set(search_space(Policy())) == {
        *("shift.max_pixels", "shift.p", "rescale.max_factor", "rescale.p", "crop.min_area", "crop.p")
    }


@pytest.mark.parametrize("end", ["weak", "strong"])
@pytest.mark.parametrize("start", [Policy(), FULL], ids=["empty", "full"])
def test_every_value_of_the_search_space_is_a_policy(start: Policy, end: str) -> None:
    values = {field: getattr(amount, end) for field, amount in search_space(start).items()}
    policy = with_values(start, values)
    for field, value in values.items():
        op, key = field.split(".")
        assert getattr(getattr(policy, op), key) == value
    assert (policy.kernel, policy.padding, policy.strength, policy.flip) == (
        *(start.kernel, start.padding, start.strength),
        start.flip,
    )
    assert policy.augment()(torch.rand(2, 1, 9, 9)).shape == (2, 1, 9, 9)


def test_with_values_keeps_the_rest_and_the_original() -> None:
    changed = with_values(FULL, {"shift.max_pixels": 1.5})
    assert changed == FULL.model_copy(update={"shift": ShiftSettings(max_pixels=1.5, p=0.9)})
    assert FULL.shift == ShiftSettings(max_pixels=3.0, p=0.9)
    assert with_values(Policy(), {"crop.min_area": 0.6}).crop == CropSettings(min_area=0.6)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shift.max_pixels": -1.0}, "policy: shift.max_pixels: expected greater than or equal to 0"),
        ({"shift.max_pixel": 1.0}, "did you mean 'shift.max_pixels'"),
        ({"shfit.p": 1.0}, "did you mean 'shift'"),
    ],
)
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_values(Policy(), values)


def test_a_policy_reads_as_a_sentence() -> None:
    policy = Policy(shift={"max_pixels": 3.0}, rescale={"max_factor": 1.2345, "p": 0.5})
    assert str(policy) == "shift (max_pixels 3, p 1), rescale (max_factor 1.23, p 0.5)"
    assert str(Policy()) == "no augmentation"
    assert str(Policy(shift=ShiftSettings(max_pixels=2, blur_only=True))) == "shift (max_pixels 2, p 1, blur only)"
    assert (
        str(Policy(flip=FlipSettings(), crop=CropSettings())) == "crop (min_area 1, max_ratio 1.33, p 1), flip (p 0.5)"
    )
