"""A strength per op: each op obeys its own entry, alone and per sample, wherever a strength is taken."""

from __future__ import annotations

from typing import Any

import kornia.augmentation
import pytest
import torch
from own_ops import NAMES, make_op
from torch import Tensor

import augkit
from augkit import Augment, RandomHorizontalFlip, RandomRescale, RandomSubpixelCrop, RandomSubpixelShift
from augkit.adapters.batch import Keys, augmented
from augkit.adapters.torchvision import Geometry
from augkit.augment import geometry
from augkit.augment.ops.random_shift_blur import RandomShiftBlur
from augkit.augment.whole_images import square_views
from augkit.core.errors import InputError, InputTypeError

SIZE = (20, 28)
STRENGTHS = {
    "shift": 0.5,
    "rescale": torch.tensor([0.0, 0.3, 1.0, 0.7]),
    "crop": 0.0,
    "flip": torch.tensor([1.0, 0.0, 1.0, 0.0]),
}


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images() -> Tensor:
    return torch.rand(4, 2, *SIZE, generator=seeded(1))


def transform(**options: Any) -> Augment:
    ops = (RandomSubpixelShift(3.0), RandomRescale(1.5), RandomSubpixelCrop(), RandomHorizontalFlip(1.0))
    return Augment(*ops, **options)


def test_every_op_obeys_its_own_entry() -> None:
    augment, draws = transform(), torch.rand(4, transform().draws, generator=seeded())
    parts = draws.split([op.draws for op in augment.geometry], dim=1)
    alone = [op.matrix(part, STRENGTHS[op.policy_name], SIZE) for op, part in zip(augment.geometry, parts, strict=True)]
    assert torch.allclose(augment.matrix(draws, STRENGTHS, SIZE), geometry.compose(*alone), atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_reaches_the_op_and_no_other(name: str) -> None:
    op, shift = make_op(name), RandomSubpixelShift(2.0)
    augment = Augment(op, shift) if op.policy_name != "shift" else Augment(op)
    draws = torch.rand(8, augment.draws, generator=seeded())
    still = augment.matrix(draws, {op.policy_name: 0.0}, SIZE)
    linear = torch.eye(2).expand(8, 2, 2)
    assert torch.allclose(still[:, :2, :2], linear)
    assert torch.equal(augment.matrix(draws, {op.policy_name: 1.0}, SIZE), augment.matrix(draws, 1.0, SIZE))


def test_samples_of_strength_0_keep_every_bit() -> None:
    x, here = images(), torch.tensor([0.0, 1.0, 0.0, 1.0])
    out = transform()(x, strength={"shift": here, "rescale": here, "crop": 0.0, "flip": 0.0}, generator=seeded())
    assert torch.equal(out[::2], x[::2])
    assert not any(torch.equal(a, b) for a, b in zip(out[1::2], x[1::2], strict=True))


def test_ops_without_an_entry_keep_the_strength_of_the_transform() -> None:
    draws = torch.rand(4, transform().draws, generator=seeded())
    half, none = transform(strength=0.5), transform(strength={"crop": 0.25})
    expected = transform().matrix(draws, {"shift": 1.0, "rescale": 0.5, "crop": 0.5, "flip": 0.5}, SIZE)
    assert torch.equal(half.matrix(draws, {"shift": 1.0}, SIZE), expected)
    expected = transform().matrix(draws, {"shift": 0.1, "rescale": 1.0, "crop": 0.25, "flip": 1.0}, SIZE)
    assert torch.equal(none.matrix(draws, {"shift": 0.1}, SIZE), expected)
    x = images()
    assert torch.equal(none(x, generator=seeded()), transform()(x, strength={"crop": 0.25}, generator=seeded()))
    assert "strength={'crop': 0.25}" in repr(none)


def test_one_number_for_every_op_is_that_number() -> None:
    x, every = images(), dict.fromkeys(transform().op_names, 0.4)
    assert torch.equal(
        transform()(x, strength=every, generator=seeded()), transform()(x, strength=0.4, generator=seeded())
    )


def test_the_blur_of_a_shift_is_called_shift() -> None:
    augment, x = Augment(RandomShiftBlur(2.0), RandomRescale(1.2)), images()
    draws = torch.rand(4, augment.draws, generator=seeded())
    assert augment.op_names == ["shift", "rescale"]
    by_name, for_all = (augment.blur(draws, strength, x.shape[-2:]) for strength in ({"shift": 0.5}, 0.5))
    assert torch.equal(by_name, for_all)  # type: ignore[arg-type]
    assert torch.equal(augment(x, strength={"shift": 0.0, "rescale": 0.0}), x)


def test_the_ops_of_kornia_share_the_entry_ops() -> None:
    x = images()[:, :1].expand(-1, 3, -1, -1).contiguous()
    augment = Augment(RandomSubpixelShift(2.0), kornia.augmentation.RandomInvert(p=1.0))
    here = torch.tensor([1.0, 0.0, 1.0, 0.0])
    out = augment(x, strength={"shift": 0.0, "ops": here}, generator=seeded())
    assert torch.equal(out[1::2], x[1::2])
    assert torch.allclose(out[::2], 1 - x[::2])
    tail = augment.draw_tail(x, {"ops": 0.0})
    assert tail is None
    replayed = augment(x, matrix=torch.eye(3).expand(4, 3, 3), strength={"ops": here})
    assert torch.allclose(replayed, out)


@pytest.mark.parametrize(
    ("strength", "kind", "message"),
    [
        ({"shfit": 1.0}, InputError, "strength: unknown op 'shfit': did you mean 'shift'. .known: crop, flip, resc"),
        ({"shear": 1.0}, InputError, "strength: unknown op 'shear'"),
        ({"shift": 1.5}, InputError, r"strength of shift: expected a number in \[0, 1\], got 1.5"),
        ({"shift": "much"}, InputTypeError, "strength of shift: expected a number, got 'much'"),
        ({"flip": torch.rand(3)}, InputError, r"strength of flip: expected a scalar or shape \(4,\), got \(3,\)"),
        ({"flip": torch.full((4,), 2.0)}, InputError, r"strength of flip: expected values in \[0, 1\]"),
    ],
)
def test_wrong_entries_are_one_line(strength: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        transform()(images(), strength=strength)
    if not any(isinstance(value, Tensor) for value in strength.values()):
        with pytest.raises(kind, match=message):
            transform(strength=strength)


def test_a_transform_of_its_own_takes_numbers_alone() -> None:
    with pytest.raises(InputTypeError, match="strength of shift: expected a number, got a Tensor of shape"):
        transform(strength={"shift": torch.rand(4)})


def test_adapters_use_the_strength_of_the_transform_or_pass_one_on() -> None:
    x, none = images(), {"shift": 0.0, "rescale": 0.0, "crop": 0.0, "flip": 0.0}
    assert torch.equal(Geometry(transform(strength=none))(x), x)
    torch.manual_seed(0)
    flipped = augmented(transform(), [x], Keys(), {**none, "flip": 1.0})[0]
    assert torch.equal(flipped, x.flip(-1))


def test_whole_images_obey_the_strength_of_the_crop() -> None:
    batch = [torch.rand(1, 16, 40, generator=seeded(2)) for _ in range(3)]
    augment = Augment(RandomSubpixelShift(1.0), RandomSubpixelCrop(area=(0.3, 0.6)), padding="reflection")
    views = square_views(augment, 16)
    still = views(batch, generator=seeded(), strength={"shift": 0.0, "crop": 0.0})
    assert torch.allclose(still, torch.stack([image[:, :, 12:28] for image in batch]), atol=1e-5)
    some = {"shift": 0.0, "crop": torch.tensor([0.0, 1.0, 1.0])}
    first = views(batch, generator=seeded(), strength=some)
    assert torch.allclose(first[0], still[0], atol=1e-5)
    assert not torch.allclose(first[1:], still[1:], atol=1e-2)
    every = views(batch, generator=seeded(), strength=dict.fromkeys(augment.op_names, 1.0))
    assert torch.equal(every, views(batch, generator=seeded()))


def test_a_strength_per_op_is_traced_without_a_break() -> None:
    augment, x = Augment(RandomSubpixelShift(2.0), RandomRescale(1.2)), images()

    def render(draws: Tensor, strength: Tensor) -> Tensor:
        return augment.matrix(draws, {"shift": strength, "rescale": 0.5}, SIZE)

    draws, strength = torch.rand(4, augment.draws, generator=seeded()), torch.linspace(0, 1, 4)
    compiled = torch.compile(render, fullgraph=True, backend="eager")
    assert torch.equal(compiled(draws, strength), render(draws, strength))
    assert x.shape[0] == len(strength)


def test_draws_that_are_handed_in_take_the_place_of_random_ones() -> None:
    augment, x = transform(), images()
    draws = torch.rand(4, augment.draws, generator=seeded())
    assert torch.equal(augment(x, draws=draws), augment(x, generator=seeded()))
    assert torch.equal(augment.sample(4, SIZE, generator=seeded()), augment.matrix(draws, 1.0, SIZE))
    together = transform(same_on_batch=True)
    assert torch.equal(together(x, draws=draws), together(x, draws=draws[:1].expand(4, -1)))


@pytest.mark.parametrize(
    ("draws", "kind", "message"),
    [
        (torch.rand(4, 3), InputError, r"draws: expected \(4, 11\), one column a draw, got \(4, 3\)"),
        (torch.rand(4, 11, dtype=torch.float64), InputTypeError, "draws: expected a float32 tensor, got torch.float64"),
        ([0.5], InputTypeError, "draws: expected a float32 tensor, got list"),
        (torch.ones(4, 11), InputError, r"draws: expected values in \[0, 1\), got values outside"),
    ],
)
def test_wrong_draws_are_one_line(draws: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        transform()(images(), draws=draws)


def test_the_names_are_those_of_a_policy() -> None:
    policy = augkit.Policy(shift={"max_pixels": 2.0}, shear={"max_degrees": 5.0}, flip={}, ops=[{"op": "RandomInvert"}])
    assert policy.augment().op_names == ["shift", "shear", "flip", "ops"]
