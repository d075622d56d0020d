"""The specs of the ops: what a policy, a search and a preview read from each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import augkit
from augkit.augment.op_spec import OpSpec
from augkit.augment.ops import MODULES, op_classes, op_specs
from augkit.augment.policy import Policy, amount_of, changes_nothing, search_space

SIZE = (24, 35)
SPECS = list(op_specs().values())
IDENTITY = torch.eye(3).tolist()


def test_every_op_is_public_and_all_but_the_blur_have_a_spec() -> None:
    assert {"RandomSubpixelShift", "RandomRescale", "RandomSubpixelCrop", "RandomHorizontalFlip"} <= set(MODULES)
    assert set(MODULES) <= set(augkit.__all__)
    assert {name for name, made in op_classes().items() if made.spec is None} == {"RandomShiftBlur"}
    for name, made in op_classes().items():
        assert getattr(augkit, name) is made


def test_a_policy_names_the_ops_in_the_order_of_their_places() -> None:
    places = [spec.place for spec in SPECS]
    taken = {spec.name: spec.place for spec in SPECS if places.count(spec.place) > 1}
    assert not taken, f"ops that share a place: {taken}; choose another one for the new op"
    assert places == sorted(places)
    assert list(Policy.model_fields)[: len(SPECS)] == [spec.name for spec in SPECS]
    assert [Policy.model_fields[spec.name].description for spec in SPECS] == [spec.title for spec in SPECS]


def test_the_page_on_adding_an_op_shows_a_place_that_is_free() -> None:
    page = Path(__file__).parents[2] / "docs" / "adding" / "op.md"
    (place,) = re.findall(r"place=(\d+)", page.read_text())
    assert int(place) not in [spec.place for spec in SPECS]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_example_moves_pixels_and_the_weak_end_moves_none(spec: OpSpec) -> None:
    images = torch.rand(16, 1, *SIZE, generator=torch.Generator().manual_seed(0))
    example = spec.example(min(SIZE))
    assert type(example) is spec.settings
    assert not example.changes_nothing
    moved = Policy(**{spec.name: example}).augment()(images, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(moved, images)
    amounts = spec.settings.amounts()
    for names in ({"p"}, amounts.keys() - {"p"} or {"p"}):
        still = example.model_copy(update={name: amounts[name].weak for name in names})
        assert still.changes_nothing
        assert changes_nothing(Policy(**{spec.name: still}))
        assert torch.equal(Policy(**{spec.name: still}).augment()(images), images)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_both_ends_of_an_amount_are_values_of_a_policy(spec: OpSpec) -> None:
    searched = search_space(Policy(**{spec.name: {}}))
    for key, amount in spec.settings.amounts().items():
        assert amount == amount_of(f"{spec.name}.{key}")
        assert amount.low < amount.high
        assert (f"{spec.name}.{key}" in searched) == amount.searched
        for value in (amount.weak, amount.strong):
            Policy(**{spec.name: {key: value}})


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_range_and_caption_are_one_line(spec: OpSpec) -> None:
    for text in (spec.describe(spec.example(100)), spec.caption(IDENTITY), str(spec.settings())):
        assert text
        assert "\n" not in text
    op = spec.make(spec.example(100), None)
    assert op.output_size(SIZE) == SIZE
    assert type(op).spec is spec


def test_a_policy_without_an_op_that_came_later_is_dumped_as_before() -> None:
    """Digests of recipes, checkpoints and studies hold None for the first four ops and know no others."""
    first = ["shift", "rescale", "crop", "flip"]
    assert list(Policy().model_dump()) == [*first, "ops", "worker_ops", "strength", "kernel", "padding"]
    assert [name for name, spec in op_specs().items() if spec.dumped_if_absent] == first
    assert [name for name, spec in op_specs().items() if spec.searched_by_default] == first[:3]


def test_a_field_that_is_none_has_no_amount() -> None:
    assert amount_of("kernel") is None
    assert amount_of("shift.blur_only") is None
    assert amount_of("twist.p") is None
