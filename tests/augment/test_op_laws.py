"""Laws of every op that a policy can name: draws, strength, replay, use inside Kornia."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import kornia.augmentation
import pytest
import torch
from own_ops import NAMES, make_op
from torch import Tensor, nn

from augkit import Augment, RandomHorizontalFlip, RandomRescale, RandomSubpixelCrop, RandomSubpixelShift
from augkit.augment import geometry
from augkit.augment.base import RandomGeometry, draw
from augkit.augment.resample import resample

SIZE = (24, 35)  # not square, one side even and one odd


def all_ops(size: tuple[int, int] | None = None) -> list[RandomGeometry]:
    return [
        RandomSubpixelShift(3.0),
        RandomRescale(1.5),
        RandomSubpixelCrop(size, area=(0.5, 0.9)),
        RandomHorizontalFlip(),
    ]


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 4, channels: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(batch, channels, *size, generator=seeded(1))


def made(name: str) -> nn.Module:
    return Augment(*all_ops(), normalize=(0.5, 0.2)) if name == "all" else make_op(name)


def effect_of(name: str, matrix: Tensor) -> Tensor:
    """How much each matrix ``(B, 3, 3)`` does: the share that a crop cuts off, the pixels by which corners move."""
    if name == "crop":
        box = torch.tensor([[[0.0, 0.0, SIZE[1], SIZE[0]]]]).expand(len(matrix), 1, 4)
        left, top, right, bottom = geometry.apply_to_boxes(geometry.invert(matrix), box)[:, 0].unbind(-1)
        return 1 - (right - left) * (bottom - top) / (SIZE[0] * SIZE[1])
    corners = torch.tensor([[x, y] for x in (0.0, SIZE[1] - 1) for y in (0.0, SIZE[0] - 1)]).expand(len(matrix), 4, 2)
    return (geometry.apply_to_points(matrix, corners) - corners).norm(dim=-1)


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_has_its_own_parameters(name: str) -> None:
    op = make_op(name)
    op(images(64))
    different = len(torch.unique(op.transform_matrix, dim=0))
    assert different == (2 if name in ("flip", "vertical_flip", "quarter_turn") else 64)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_p_is_a_coin_for_each_sample(name: str, p: float) -> None:
    op = make_op(name, p=p)
    matrix = op.matrix(draw(4000, op.draws, torch.device("cpu"), seeded()), torch.ones(4000), SIZE)
    spared = (matrix == torch.eye(3)).all(dim=(-2, -1)).float().mean()
    assert float(spared) == pytest.approx(1 - p, abs=0.03 if 0 < p < 1 else 0)


@pytest.mark.parametrize("size", [SIZE, (16, 16), (40, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_strength_0_changes_no_bit(name: str, dtype: torch.dtype, size: tuple[int, int]) -> None:
    batch = (images(size=size) * 255).to(dtype)
    ops = all_ops() if name == "all" else [make_op(name)]
    assert torch.equal(Augment(*ops, kernel="sinc")(batch, strength=0.0), batch)
    assert torch.equal(Augment(*ops, strength=0.0)(batch), batch)
    for op in ops if dtype != torch.uint8 else []:
        assert torch.equal(op(batch, strength=0.0), batch)


@pytest.mark.parametrize("name", NAMES)
def test_more_strength_is_never_weaker(name: str) -> None:
    op = make_op(name)
    draws = torch.rand(200, op.draws, generator=seeded())
    effect = []
    for strength in torch.linspace(0, 1, 9):
        matrix = op.matrix(draws, strength.expand(200), SIZE)
        effect.append(effect_of(name, matrix))
    growth = torch.stack(effect).diff(dim=0)
    assert (growth >= -1e-6).all()
    assert (growth.sum(dim=0) > 0).float().mean() > 0.4


@pytest.mark.parametrize("name", NAMES)
def test_strength_may_differ_between_samples(name: str) -> None:
    op, strength = make_op(name), torch.tensor([0.0, 0.25, 1.0, 0.5])
    batch = images()
    together = op(batch, strength=strength, generator=seeded())
    for k, s in enumerate(strength.tolist()):
        alone = op(batch, strength=s, generator=seeded())
        torch.testing.assert_close(together[k], alone[k], rtol=0, atol=1e-6)
    expected = Augment(op)(batch, strength=strength, generator=seeded())
    assert torch.equal(expected[0], batch[0])


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_a_generator_decides_all_and_the_global_state_is_left_alone(name: str) -> None:
    module, batch = made(name), images()
    before = torch.get_rng_state()
    first = module(batch, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(module(batch, generator=seeded(1)), first)
    assert not torch.equal(module(batch, generator=seeded(3)), first)
    torch.manual_seed(1)
    from_global = module(batch)
    torch.manual_seed(1)
    assert torch.equal(module(batch), from_global)


@pytest.mark.parametrize("name", NAMES)
def test_replay_by_params_as_in_kornia(name: str) -> None:
    op, batch = make_op(name), images(32)
    first = op(batch, strength=0.7)
    params = op._params
    assert not torch.equal(op(batch), first)
    assert torch.equal(op(batch, params=params), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_runs_inside_a_container_of_kornia(name: str, dtype: torch.dtype) -> None:
    op, batch = make_op(name), images(8).to(dtype)
    masks, keypoints = (batch[:, :1] > 0.5).to(dtype), torch.rand(8, 5, 2, dtype=dtype) * 20
    container = kornia.augmentation.AugmentationSequential(op, data_keys=["input", "mask", "keypoints"])
    out, moved_masks, moved_keypoints = container(batch, masks, keypoints)
    matrix = op.transform_matrix
    torch.testing.assert_close(out, resample(batch, matrix, kernel=op.kernel), rtol=0, atol=1e-6)
    assert torch.equal(moved_masks, resample(masks, matrix, kernel="nearest"))
    expected = geometry.apply_to_points(matrix.to(dtype), keypoints)
    torch.testing.assert_close(moved_keypoints, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(moved_keypoints, keypoints, atol=0.1)


@pytest.mark.parametrize("name", [*NAMES, "all"])
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_pickles_act_alike(name: str, twin: Callable[[nn.Module], nn.Module]) -> None:
    module, batch = made(name), images()
    before = module(batch, generator=seeded())
    assert torch.equal(twin(module)(batch, generator=seeded()), before)
    assert repr(twin(module)) == repr(module)


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_the_input_is_never_changed(name: str) -> None:
    batch = images()
    before = batch.clone()
    made(name)(batch).zero_()
    assert torch.equal(batch, before)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    assert Augment(*all_ops((20, 18)))(images(batch)).shape == (batch, 2, 20, 18)
    for name in NAMES:
        assert made(name)(images(batch)).shape == (batch, 2, *SIZE)
