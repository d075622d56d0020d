"""The contract of Kornia's ops, kept by augkit's: ``p``, ``batch_prob``, ``same_on_batch``, soft masks, dtypes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import kornia.augmentation as K
import pytest
import torch
from kornia.constants import DataKey, Resample
from own_ops import NAMES, make_op
from torch import Tensor

from augkit import (
    Augment,
    RandomHorizontalFlip,
    RandomRescale,
    RandomShiftBlur,
    RandomSubpixelCrop,
    RandomSubpixelShift,
)
from augkit.augment import geometry
from augkit.augment.base import RandomGeometry
from augkit.augment.resample import resample
from augkit.core.errors import InputError

SIZE = (14, 17)
OPS: dict[str, Callable[..., RandomGeometry]] = {name: partial(make_op, name) for name in NAMES}
OPS |= {
    "flip": lambda **k: RandomHorizontalFlip(**{"p": 1.0, **k}),
    "resized": lambda **k: RandomSubpixelCrop((9, 11), area=(0.3, 0.8), **k),
    "blur": lambda **k: RandomShiftBlur(0.5, **k),
}


def pictures(batch: int = 64, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(batch, 1, *SIZE, dtype=dtype)


def changed(name: str, out: Tensor, images: Tensor) -> Tensor:
    """Which samples of ``out`` differ from what the op makes of them when it spares them."""
    return (out != OPS[name](p=0.0)(images)).flatten(1).any(1)


@pytest.mark.parametrize("name", OPS)
def test_p_is_readable_and_writable_and_batch_prob_marks_changed_samples(name: str) -> None:
    op, images = OPS[name](p=0.4), pictures()
    assert op.p == 0.4
    out = op(images)
    told = op._params["batch_prob"]
    assert torch.equal(changed(name, out, images), told > 0.5)
    assert 8 < told.sum() < 45
    op.p = 0.0
    assert not changed(name, op(images), images).any()
    op.p = 1.0
    assert changed(name, op(images), images).all()
    assert (op._params["batch_prob"] == 1).all()


@pytest.mark.parametrize("name", OPS)
def test_an_edited_batch_prob_decides_which_samples_change(name: str) -> None:
    op, images = OPS[name](p=0.5), pictures(6)
    params = op.forward_parameters(images.shape)
    chosen = torch.tensor([True, False, False, True, True, False])
    for gate in (chosen, chosen.float(), chosen.double()):
        assert torch.equal(changed(name, op(images, params={**params, "batch_prob": gate}), images), chosen)
    op.p = 0.0
    assert torch.equal(changed(name, op(images, params={**params, "batch_prob": chosen}), images), chosen)


@pytest.mark.parametrize("name", OPS)
def test_batch_prob_follows_into_containers_and_back(name: str) -> None:
    op, images = OPS[name](p=0.5), pictures(16)
    masks, points = (images * 9).round(), torch.tensor([[[5.0, 6.0]]]).expand(16, 1, 2)
    container = K.AugmentationSequential(op, data_keys=["input", "mask", "keypoints"])
    out, moved, moved_points = container(images, masks, points)
    matrix, told = op.transform_matrix, op._params["batch_prob"] > 0.5
    assert 1 < told.sum() < 15
    assert torch.equal(changed(name, out, images), told)
    assert torch.equal(moved, resample(masks, matrix, op.output_size(SIZE), kernel="nearest"))
    torch.testing.assert_close(moved_points, geometry.apply_to_points(matrix, points))
    if name not in ("resized", "blur"):
        assert torch.equal((matrix != torch.eye(3)).flatten(1).any(1), told)
    back = container.inverse(out, moved, moved_points)
    torch.testing.assert_close(back[2], points, rtol=0, atol=1e-4)
    assert back[0].shape == back[1].shape == images.shape
    params = container._params
    assert torch.equal(container(images, masks, points, params=params)[0], out)


def test_p_batch_is_one_coin_for_all() -> None:
    op, images = RandomSubpixelShift(3.0, p=0.5), pictures(16)
    op.p_batch = 0.5
    shares = []
    for _ in range(40):
        out = op(images)
        told = op._params["batch_prob"]
        assert torch.equal(changed("shift", out, images), told > 0.5)
        shares.append(float(told.mean()))
    assert 5 < sum(share == 0 for share in shares) < 35


def alike(values: Tensor) -> bool:
    """Whether all samples are one, but for rounding: several threads may take the tail of a batch another way."""
    return bool(torch.isclose(values, values[:1], rtol=0, atol=1e-5).all())


@pytest.mark.parametrize("name", OPS)
def test_same_on_batch_is_one_draw_for_all(name: str) -> None:
    still = pictures(1).expand(6, -1, -1, -1).contiguous()
    single = OPS[name](same_on_batch=True, p=0.5)
    assert "same_on_batch=True" in repr(single)
    told = set()
    for _ in range(20):
        assert alike(single(still))
        told.add(tuple(single._params["batch_prob"].tolist()))
    assert told == {(0.0,) * 6, (1.0,) * 6}
    free = OPS[name](p=0.5 if name in ("flip", "vertical_flip", "quarter_turn") else 1.0)
    assert not all(alike(free(still)) for _ in range(5))
    assert "same_on_batch" not in repr(free)
    for make in (K.AugmentationSequential, K.ImageSequential):
        assert alike(make(OPS[name](), same_on_batch=True)(still))
    clips = pictures(3)[:, None].expand(3, 4, 1, *SIZE)
    moved = K.VideoSequential(OPS[name](), data_format="BTCHW")(clips)
    assert all(alike(clip) for clip in moved)


def test_same_on_batch_in_augment() -> None:
    still = pictures(1).expand(6, -1, -1, -1).contiguous()
    ops = (RandomSubpixelShift(2.0), RandomRescale(1.3), RandomHorizontalFlip())
    augment = Augment(*ops, same_on_batch=True)
    out = augment(still, keypoints=torch.zeros(6, 0, 2))
    assert alike(out.images)
    assert alike(out.matrix)
    assert alike(augment.sample(6, SIZE))
    assert "same_on_batch=True" in repr(augment)
    augment.same_on_batch = False
    assert not alike(augment(still))
    jiggle = K.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=1.0)
    colored = Augment(RandomSubpixelShift(2.0), jiggle, same_on_batch=True)
    rgb = torch.rand(1, 3, *SIZE).expand(6, -1, -1, -1).contiguous()
    assert alike(colored(rgb))
    mixed = Augment(RandomSubpixelShift(2.0), RandomRescale(1.3, same_on_batch=True))
    matrix = mixed.sample(6, SIZE)
    assert alike(matrix[:, 0, 0])
    assert len(matrix[:, 0, 2].unique()) == 6
    assert mixed.same_on_batch is None
    assert "same_on_batch=None" not in repr(mixed)
    # The first sample's draw is what it would be without.
    alone, generators = RandomSubpixelShift(2.0), [torch.Generator().manual_seed(1) for _ in range(2)]
    free = alone(still, generator=generators[0])
    alone.same_on_batch = True
    assert torch.equal(alone(still, generator=generators[1])[0], free[0])
    strengths = torch.tensor([0.0, 0.5, 1.0, 0.0, 0.5, 1.0])
    out = Augment(RandomSubpixelShift(2.0), same_on_batch=True)(still, strength=strengths)
    assert torch.equal(out[:3], out[3:])
    assert torch.equal(out[0], still[0])


@pytest.mark.parametrize("asked", ["bilinear", "BICUBIC", Resample.BILINEAR, Resample.BICUBIC.value])
@pytest.mark.parametrize("name", OPS)
def test_kornias_resample_argument_interpolates_masks(name: str, asked: Any) -> None:
    op, images = OPS[name](), pictures(4)
    soft = torch.rand_like(images)
    extra = {DataKey.MASK: {"resample": asked, "align_corners": True}}
    container = K.AugmentationSequential(op, data_keys=["input", "mask"], extra_args=extra)
    _, moved = container(images, soft)
    kernel = asked.lower() if isinstance(asked, str) else Resample.get(asked).name.lower()
    expected = resample(soft, op.transform_matrix, op.output_size(SIZE), kernel=kernel)
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-5)
    _, back = container.inverse(images.new_zeros(4, 1, *op.output_size(SIZE)), moved)
    inverse = geometry.invert(op.transform_matrix)
    torch.testing.assert_close(back, resample(moved, inverse, SIZE, kernel=kernel), rtol=0, atol=1e-4)


def test_kornias_resample_argument_changes_the_kernel() -> None:
    images, op = pictures(4), RandomSubpixelShift(3.0)
    extra = {DataKey.INPUT: {"resample": "nearest", "align_corners": True}}
    container = K.AugmentationSequential(op, data_keys=["input"], extra_args=extra)
    out = container(images)
    assert torch.equal(out, resample(images, op.transform_matrix, kernel="nearest"))
    inverse = geometry.invert(op.transform_matrix)
    assert torch.equal(container.inverse(out), resample(out, inverse, kernel="nearest"))
    assert not torch.equal(op(images, params=op._params), out)


def test_masks_are_hard_by_default_and_unknown_kernels_are_named() -> None:
    images, labels = pictures(4), torch.randint(0, 5, (4, 1, *SIZE)).float()
    op = RandomSubpixelShift(3.0)
    _, moved = K.AugmentationSequential(op, data_keys=["input", "mask"])(images, labels)
    assert set(moved.unique().tolist()) <= set(range(5))
    given = {"params": op._params, "flags": op.flags, "transform": op.transform_matrix}
    sharp = op.transform_masks(images, resample="lanczos3", **given)
    torch.testing.assert_close(sharp, resample(images, op.transform_matrix, kernel="lanczos3"), rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="kernel 'bilineal': did you mean 'bilinear'"):
        op.transform_masks(images, resample="bilineal", **given)


@pytest.mark.parametrize("name", OPS)
def test_matrices_of_double_images_are_double(name: str) -> None:
    points = torch.rand(4, 3, 5, dtype=torch.float64)
    for p in (1.0, 0.5):
        for op in (OPS[name](p=p), OPS[name](p=p).to(torch.float64)):
            op(pictures(4, torch.float64))
            assert (op.transform_matrix @ points).dtype == torch.float64
            single = op.matrix(op._params["draws"], op._params["strength"], SIZE)
            chosen = op._params["batch_prob"] > 0.5
            torch.testing.assert_close(op.transform_matrix[chosen].float(), single[chosen], rtol=1e-6, atol=1e-5)
    # To the last digits of a double, which the float32 draws do not limit.
    op = RandomRescale(1.5)
    op(pictures(4, torch.float64))
    matrix = op.transform_matrix
    expected = (2 * op._params["draws"].double()[:, 1] - 1) * torch.tensor(1.5, dtype=torch.float64).log()
    torch.testing.assert_close(matrix[:, 0, 0].log(), expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_neither_rounds_a_matrix_nor_its_inverse(dtype: torch.dtype) -> None:
    op, images = RandomSubpixelShift(3.0), pictures(4).to(dtype)
    out = op(images)
    assert op.transform_matrix.dtype == torch.float32
    inverse = geometry.invert(op.transform_matrix)
    assert torch.equal(op.inverse(out), resample(out, inverse))
