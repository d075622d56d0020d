"""`Augment`: several ops composed, resampled once, with all that follows the images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos3", "sinc"])
def test_replay_by_matrix_is_exact(kernel: str, dtype: torch.dtype) -> None:
    augment, batch = Augment(*all_ops((20, 18)), kernel=kernel), images().to(dtype)
    masks, keypoints = batch[:, :1], torch.rand(4, 3, 2) * 20
    for seed in range(15):  # The bits must not depend on how much the draws happen to shrink.
        out = augment(batch, masks=masks, keypoints=keypoints, generator=seeded(seed))
        again = augment(batch, masks=masks, keypoints=keypoints, matrix=out.matrix)
        assert torch.equal(again.images, out.images)
        assert torch.equal(again.masks, out.masks)
        assert torch.equal(again.keypoints, out.keypoints)
    one = augment(batch, keypoints=keypoints, matrix=out.matrix[0])
    assert torch.equal(one.keypoints[0], out.keypoints[0])
    assert one.matrix.shape == (4, 3, 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coordinates_stay_in_float32(dtype: torch.dtype) -> None:
    batch = images(2, size=(8, 300)).to(dtype)
    op = RandomSubpixelShift(3.0)
    with torch.autocast("cpu", torch.bfloat16):
        out = op(batch, generator=seeded())
    assert op.transform_matrix.dtype == torch.float32
    assert torch.equal(out, op(batch.float(), generator=seeded()).to(dtype))
    keypoints, augment = torch.full((2, 1, 2), 251.0), Augment(RandomRescale(1.3))
    moved = augment(batch, keypoints=keypoints.to(dtype), generator=seeded()).keypoints
    assert torch.equal(moved, augment(batch, keypoints=keypoints, generator=seeded()).keypoints.to(dtype))


def test_augment_resamples_once_through_the_composed_matrix() -> None:
    ops, batch = all_ops((20, 18)), images()
    augment = Augment(*ops, kernel="lanczos3", padding="reflection")
    columns = sum(op.draws for op in ops)
    draws, total, first = draw(4, columns, torch.device("cpu"), seeded()), [], 0
    for op in ops:
        total.append(
            op.matrix(draws[:, first : first + op.draws], torch.ones(4), SIZE if op is not ops[3] else (20, 18))
        )
        first += op.draws
    matrix = geometry.compose(*total)
    out = augment(batch, keypoints=torch.zeros(4, 1, 2), generator=seeded())
    torch.testing.assert_close(out.matrix, matrix)
    assert torch.equal(augment.sample(4, SIZE, generator=seeded()), out.matrix)
    expected = resample(batch, matrix, (20, 18), kernel="lanczos3", padding="reflection")
    torch.testing.assert_close(out.images, expected, rtol=0, atol=1e-5)
    assert augment.output_size(SIZE) == (20, 18)


@pytest.mark.parametrize("antialias", [True, False])
def test_a_crop_that_shrinks_is_antialiased_on_request(antialias: bool) -> None:
    augment, batch = Augment(RandomSubpixelCrop((9, 11)), RandomRescale(1.5), antialias=antialias), images()
    out = augment(batch, keypoints=torch.zeros(4, 1, 2))
    expected = resample(batch, out.matrix, (9, 11), antialias=antialias)
    torch.testing.assert_close(out.images, expected, rtol=0, atol=1e-5)
    assert torch.equal(augment(batch, matrix=out.matrix), out.images)
    # A matrix that shrinks more than the ops can is antialiased in full.
    strong = geometry.rescale(torch.tensor([0.2]), SIZE).expand(4, 3, 3)
    expected = resample(batch, strong, (9, 11), antialias=antialias)
    torch.testing.assert_close(augment(batch, matrix=strong), expected, rtol=0, atol=1e-5)


def test_the_fourier_kernel_shifts_on_the_torus() -> None:
    augment, batch = Augment(RandomSubpixelShift(3.0), kernel="fourier", padding="circular"), images()
    out = augment(batch, keypoints=torch.zeros(4, 1, 2))
    assert torch.equal(out.images, resample(batch, out.matrix, kernel="fourier", padding="circular"))
    assert torch.equal(augment(batch, matrix=out.matrix), out.images)
    assert not torch.allclose(out.images, batch, atol=0.1)


def test_eval_is_the_identity_but_normalizes() -> None:
    batch, points = images(), torch.rand(4, 2, 2)
    augment = Augment(*all_ops((20, 18))).eval()
    assert torch.equal(augment(batch), batch)
    out = augment(batch, masks=batch, keypoints=points, boxes=torch.tensor([[[1.0, 2.0, 3.0, 4.0]]] * 4))
    assert torch.equal(out.masks, batch)
    assert torch.equal(out.keypoints, points)
    assert out.boxes[0, 0].tolist() == [1, 2, 3, 4]
    augment = Augment(*all_ops(), normalize=((0.2, 0.5), (0.5, 2.0)), dtype=torch.float64).eval()
    expected = (batch - torch.tensor([0.2, 0.5])[:, None, None]) / torch.tensor([0.5, 2.0])[:, None, None]
    assert torch.equal(augment(batch), expected.double())


def test_uint8_comes_back_rounded() -> None:
    augment, batch = Augment(*all_ops(), kernel="lanczos3"), (images() * 255).to(torch.uint8)
    out = augment(batch, generator=seeded())
    assert out.dtype == torch.uint8
    assert torch.equal(out, augment(batch.float(), generator=seeded()).round().clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("normalize", [None, (0.4, 0.3), ((0.2, 0.5), (0.5, 2.0))])
def test_normalize_and_dtype_equal_doing_it_after(integer: bool, dtype: torch.dtype | None, normalize: Any) -> None:
    batch = (images() * 255).to(torch.uint8) if integer else images()
    out = Augment(*all_ops(), normalize=normalize, dtype=dtype)(batch, generator=seeded())
    # With either, uint8 is left unrounded; with neither it stays uint8.
    fused = normalize is not None or dtype is not None
    after = Augment(*all_ops())(batch.float() if fused else batch, generator=seeded())
    if integer and fused:
        after = after / 255
    if normalize:
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in normalize)
        after = (after - mean) / std
    after = after.to(dtype or after.dtype)
    assert out.dtype == after.dtype
    torch.testing.assert_close(out, after, **({"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_masks_keep_their_labels(dtype: torch.dtype) -> None:
    batch = images()
    masks = torch.tensor([0, 3, 200])[(batch[:, :1] * 3).long()].to(dtype)
    out = Augment(*all_ops((20, 18)), kernel="sinc")(batch, masks=masks)
    assert out.masks.shape == (4, 1, 20, 18)
    assert out.masks.dtype == dtype
    assert set(out.masks.unique().tolist()) == {0, 3, 200}
    assert torch.equal(out.masks, resample(masks, out.matrix, (20, 18), kernel="nearest"))


def test_boxes_keypoints_and_masks_follow_a_blob() -> None:
    center, radius, size = torch.tensor([33.0, 26.0]), 5.0, (56, 64)
    rows, columns = torch.arange(56.0)[:, None], torch.arange(64.0)[None]
    distance = ((columns - center[0]) ** 2 + (rows - center[1]) ** 2).sqrt()
    batch = torch.exp(-(distance**2) / 8).expand(32, 1, *size)
    edges = torch.cat([center - radius, center + radius]) + 0.5
    augment = Augment(
        RandomSubpixelShift(3.0), RandomRescale(1.2), RandomSubpixelCrop((48, 40), (0.7, 1.0)), RandomHorizontalFlip()
    )
    out = augment(
        batch,
        masks=(distance <= radius).float().expand(32, 1, *size),
        boxes=edges.expand(32, 1, 4),
        keypoints=center.expand(32, 1, 2),
    )
    mass = out.images[:, 0] / out.images[:, 0].sum(dim=(1, 2), keepdim=True)
    x = (mass.sum(1) * torch.arange(40.0)).sum(1)
    y = (mass.sum(2) * torch.arange(48.0)).sum(1)
    torch.testing.assert_close(torch.stack([x, y], dim=-1), out.keypoints[:, 0], rtol=0, atol=0.05)
    assert (out.keypoints[:, 0, 0] - 33).abs().max() > 2
    for mask, box in zip(out.masks[:, 0] > 0, out.boxes[:, 0], strict=True):
        seen_x, seen_y = mask.any(0).nonzero(), mask.any(1).nonzero()
        seen = [seen_x.min(), seen_y.min(), seen_x.max() + 1, seen_y.max() + 1]
        # A box is up to half a pixel off the pixels whose centers it holds, and another half where they round.
        assert box.tolist() == pytest.approx([float(v) for v in seen], abs=1.3)


def test_a_transform_without_ops_replays_a_matrix() -> None:
    drawn = Augment(RandomSubpixelShift(4.0))(images(2), return_matrix=True).matrix
    alone, other = Augment(kernel="nearest", padding="border"), Augment(RandomSubpixelShift(1.0), kernel="nearest")
    other.padding = "border"
    out, expected = (one(images(2), masks=images(2), matrix=drawn) for one in (alone, other))
    assert torch.equal(out.images, expected.images)
    assert torch.equal(out.masks, expected.masks)
    assert torch.equal(out.matrix, drawn)
    assert not torch.equal(out.images, images(2))


def test_boxes_are_clipped_to_the_output_and_keypoints_are_not() -> None:
    matrix = geometry.shift(torch.tensor([[-10.0, 5.0]]))
    boxes, keypoints = torch.tensor([[[0.0, 0.0, 35.0, 24.0]]]), torch.tensor([[[2.0, 22.0]]])
    out = Augment(RandomSubpixelShift(1.0))(images(1), boxes=boxes, keypoints=keypoints, matrix=matrix)
    assert out.boxes.flatten().tolist() == [0, 5, 25, 24]
    assert out.keypoints.flatten().tolist() == [-8, 27]


def test_targets_are_returned_only_where_they_are_passed() -> None:
    augment = Augment(RandomSubpixelShift(1.0))
    assert isinstance(augment(images()), Tensor)
    out = augment(images(), boxes=torch.zeros(4, 0, 4))
    assert out._fields[:5] == ("images", "masks", "boxes", "keypoints", "matrix")
    assert out.boxes.shape == (4, 0, 4)
    assert out.masks is None
    assert out.keypoints is None
