"""Ops that are replaced, added or deleted after construction take effect, or are refused and change nothing."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import kornia.augmentation as K
import pytest
import torch
from torch import nn

from augkit import (
    Augment,
    RandomHorizontalFlip,
    RandomRescale,
    RandomRotation,
    RandomShiftBlur,
    RandomSubpixelCrop,
    RandomSubpixelShift,
)
from augkit.core.errors import InputError

IMAGES = torch.rand(3, 3, 12, 15, generator=torch.Generator().manual_seed(1))


def same_as(augment: Augment, *ops: nn.Module) -> None:
    """Check that ``augment`` gives the images of a transform built of ``ops``."""
    fresh = Augment(*ops)
    assert augment.draws == fresh.draws
    assert augment.op_names == fresh.op_names
    for ours in (augment, copy.deepcopy(augment), pickle.loads(pickle.dumps(augment)), copy.copy(augment)):
        torch.manual_seed(5)
        expected = fresh(IMAGES)
        torch.manual_seed(5)
        assert torch.equal(ours(IMAGES), expected)


def replace(ops: nn.ModuleList, op: nn.Module) -> None:
    ops[1] = op


def replace_by_name(ops: nn.ModuleList, op: nn.Module) -> None:
    setattr(ops, "1", op)


@pytest.mark.parametrize("change", [replace, replace_by_name])
def test_a_replaced_op_is_seen(change: Callable[[nn.ModuleList, nn.Module], None]) -> None:
    augment, flip = Augment(RandomSubpixelShift(2.0), RandomRescale(1.3)), RandomHorizontalFlip(p=1.0)
    change(augment.ops, flip)
    same_as(augment, augment.ops[0], flip)
    assert list(augment.ops) == augment.geometry


def test_added_and_deleted_ops_are_seen() -> None:
    shift, flip, turn = RandomSubpixelShift(2.0), RandomHorizontalFlip(p=1.0), RandomRotation(30.0)
    augment, jitter = Augment(shift), K.ColorJitter(0.4)
    augment.ops.append(flip)
    same_as(augment, shift, flip)
    augment.ops.insert(0, turn)
    same_as(augment, turn, shift, flip)
    augment.ops.extend([jitter])
    assert augment.kornia_ops == [jitter]
    assert augment.op_names == ["rotate", "shift", "flip", "ops"]
    del augment.ops[-1]
    assert augment.ops.pop(0) is turn
    same_as(augment, shift, flip)
    augment.ops += [turn]
    same_as(augment, shift, flip, turn)
    del augment.ops[:2]
    same_as(augment, turn)
    augment.ops = nn.ModuleList([shift, flip])
    same_as(augment, shift, flip)
    assert type(augment.ops[:1]) is type(augment.ops)
    del augment.ops[:]
    assert torch.equal(augment(IMAGES), IMAGES)


def test_a_copy_has_ops_of_its_own() -> None:
    augment = Augment(RandomSubpixelShift(2.0), RandomRescale(1.3))
    other = copy.deepcopy(augment)
    other.ops[0] = RandomHorizontalFlip()
    assert augment.op_names == ["shift", "rescale"]
    assert other.op_names == ["flip", "rescale"]


@pytest.mark.parametrize(
    ("ops", "options", "op", "line"),
    [
        ([RandomSubpixelShift(2.0)], {}, nn.Identity(), "expected augkit ops"),
        ([RandomShiftBlur(2.0)], {}, RandomShiftBlur(1.0), "blurs do not add up"),
        ([K.ColorJitter(0.4)], {}, RandomHorizontalFlip(), "put the color ops last"),
        ([RandomSubpixelShift(2.0)], {"size": (8, 8)}, RandomSubpixelCrop((6, 6)), "leave one of the two sizes out"),
        (
            [RandomSubpixelShift(2.0)],
            {"kernel": "fourier", "padding": "circular"},
            RandomRescale(1.2),
            "'fourier' expects",
        ),
    ],
)
def test_an_op_that_does_not_fit_is_refused(ops: list[nn.Module], options: dict, op: nn.Module, line: str) -> None:
    augment = Augment(*ops, **options)
    with pytest.raises(InputError, match=line):
        augment.ops.append(op)
    assert list(augment.ops) == ops
    with pytest.raises(InputError, match=line):
        augment.ops = [*ops, op]
    assert list(augment.ops) == ops == [*augment.geometry, *augment.kornia_ops]


def test_a_shared_draw_is_set_on_ops_that_join() -> None:
    augment = Augment(RandomSubpixelShift(2.0), same_on_batch=True)
    augment.ops.append(RandomRescale(1.3))
    assert augment.ops[1].same_on_batch
    augment.ops = [RandomRotation(10.0)]
    assert augment.ops[0].same_on_batch
    matrix = augment.sample(4, (8, 8))
    assert torch.equal(matrix, matrix[:1].expand(4, 3, 3))


def test_states_load_as_before() -> None:
    augment = nn.Sequential(Augment(RandomSubpixelShift(2.0), RandomRescale(1.3)), nn.Linear(2, 2))
    augment[0].ops.append(K.RandomGaussianBlur((3, 3), (0.1, 2.0)))
    assert list(augment.state_dict()) == ["1.weight", "1.bias"]
    assert [name for name, _ in augment.named_modules()][:5] == ["", "0", "0.ops", "0.ops.0", "0.ops.1"]
    augment.load_state_dict(augment.state_dict())


@pytest.mark.integration
def test_a_changed_transform_compiles() -> None:
    augment = Augment(RandomSubpixelShift(2.0), RandomRescale(1.3))
    run = torch.compile(augment, backend="eager", fullgraph=True)
    for op in (RandomHorizontalFlip(p=1.0), RandomRotation(20.0)):
        augment.ops[1] = op
        draws = torch.rand(3, augment.draws, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(run(IMAGES, draws=draws), augment(IMAGES, draws=draws), rtol=0, atol=1e-5)
