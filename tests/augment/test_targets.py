"""Masks, boxes and keypoints follow the images: in `Augment`, and inside Kornia's containers."""

from __future__ import annotations

import math
import pickle

import kornia.augmentation as K
import pytest
import torch
from torch import Tensor

import augkit
import augkit.augment.geometry
from augkit.augment import targets
from augkit.core.errors import InputError, InputTypeError

SIZE = (24, 33)  # H, W


def matrices(batch: int, scale: float = 1.4, reach: float = 5.0, seed: int = 0) -> Tensor:
    """Random axis-aligned matrices, half of them mirrored."""
    g = torch.Generator().manual_seed(seed)
    m = torch.eye(3).repeat(batch, 1, 1)
    m[:, 0, 0] = scale ** (2 * torch.rand(batch, generator=g) - 1)
    m[:, 1, 1] = scale ** (2 * torch.rand(batch, generator=g) - 1)
    m[:, :2, 2] = reach * (2 * torch.rand(batch, 2, generator=g) - 1)
    m[::2, 0] = -m[::2, 0]
    m[::2, 0, 2] += SIZE[1] - 1
    return m


def reference_mask(mask: Tensor, matrix: Tensor, size: tuple[int, int], padding: str) -> Tensor:
    """Slow nearest neighbor of ``(H, W)``: one pixel at a time, in float64."""
    height, width = mask.shape
    out = torch.zeros(size, dtype=mask.dtype)
    inverse = torch.linalg.inv(matrix.double())
    for v in range(size[0]):
        for u in range(size[1]):
            x, y, _ = (inverse @ torch.tensor([u, v, 1.0], dtype=torch.float64)).tolist()
            i, j = math.floor(y + 0.5), math.floor(x + 0.5)
            if padding == "zeros" and not (0 <= i < height and 0 <= j < width):
                continue
            if padding == "circular":
                i, j = i % height, j % width
            elif padding == "reflection":
                i, j = (min(k % (2 * n - 2), -k % (2 * n - 2)) for k, n in ((i, height), (j, width)))
            else:
                i, j = min(max(i, 0), height - 1), min(max(j, 0), width - 1)
            out[v, u] = mask[i, j]
    return out


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection", "circular"])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool, torch.uint8, torch.float32, torch.float16])
def test_masks_equal_the_slow_reference(dtype: torch.dtype, padding: str) -> None:
    masks = torch.randint(0, 2 if dtype == torch.bool else 200, (2, 1, 9, 11)).to(dtype)
    matrix = matrices(2, reach=3.3, seed=1)
    got = targets.move_masks(masks, matrix, (8, 10), padding)
    assert got.dtype == dtype
    for k in range(2):
        assert torch.equal(got[k, 0], reference_mask(masks[k, 0], matrix[k], (8, 10), padding))


def test_large_labels_are_kept_exactly() -> None:
    masks = torch.full((1, 1, *SIZE), (1 << 53) + 1)
    out = augkit.Augment(augkit.RandomSubpixelShift(2.0), padding="border")(torch.rand(1, 3, *SIZE), masks=masks)
    assert torch.equal(out.masks, masks)


def test_mask_midway_between_pixels() -> None:
    masks = torch.arange(8)[None, None, None]
    half = torch.tensor([[[0.5, 0, -0.25], [0, 1, 0], [0, 0, 1]]])
    assert targets.move_masks(masks, half, (1, 4), "zeros").flatten().tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection", "circular"])
def test_masks_turn_with_rotation_and_shear(padding: str) -> None:
    masks = torch.randint(0, 200, (3, 1, 9, 11))
    matrix = augkit.augment.geometry.rotate(torch.tensor([17.0, -64.0, 90.0]), (9, 11))
    matrix = augkit.augment.geometry.compose(matrix, augkit.augment.geometry.shear(torch.tensor([[0.2, 0.1]]), (9, 11)))
    got = targets.move_masks(masks, matrix, (8, 10), padding, axis_aligned=False)
    for k in range(3):
        assert torch.equal(got[k, 0], reference_mask(masks[k, 0], matrix[k], (8, 10), padding))
    aligned = matrices(3)
    both = [targets.move_masks(masks, aligned, (8, 10), padding, axis_aligned=a) for a in (True, False)]
    assert torch.equal(*both)


def test_boxes_and_keypoints_sit_on_the_content() -> None:
    """A bright rectangle, augmented, fills the box that was moved with it; its center is the keypoint."""
    images = torch.zeros(16, 1, 48, 48)
    images[:, :, 18:28, 14:30] = 1.0
    boxes = torch.tensor([[[14.0, 18, 30, 28]]]).repeat(16, 1, 1)
    points = torch.tensor([[[21.5, 22.5]]]).repeat(16, 1, 1)
    augment = augkit.Augment(
        augkit.RandomSubpixelShift(4.0),
        augkit.RandomRescale(1.2),
        augkit.RandomSubpixelCrop(area=(0.7, 1.0)),
        augkit.RandomHorizontalFlip(),
        kernel="bilinear",
    )
    out = augment(images, boxes=boxes, keypoints=points, generator=torch.Generator().manual_seed(0))
    columns, rows = out.images.amax(dim=(1, 2)), out.images.amax(dim=(1, 3))
    for k in range(16):
        x0, y0, x1, y1 = out.boxes[k, 0].tolist()
        bright_x, bright_y = (columns[k] > 0.5).nonzero().flatten(), (rows[k] > 0.5).nonzero().flatten()
        assert abs(bright_x.min().item() - x0) <= 1
        assert abs(bright_x.max().item() + 1 - x1) <= 1
        assert abs(bright_y.min().item() - y0) <= 1
        assert abs(bright_y.max().item() + 1 - y1) <= 1
    weights = out.images[:, 0] / out.images.sum(dim=(1, 2, 3))[:, None, None]
    axis = torch.arange(48.0)
    center = torch.stack([(weights.sum(1) * axis).sum(-1), (weights.sum(2) * axis).sum(-1)], dim=-1)
    assert (center - out.keypoints[:, 0]).abs().max() < 0.1


def test_boxes_are_clipped_and_flagged() -> None:
    boxes = torch.tensor([[[0.0, 0, 33, 24], [0, 0, 10, 10], [30, 20, 33, 24], [0, 0, 0, 0], [5, 5, 15, 15]]])
    shift = torch.eye(3)[None].clone()
    shift[:, 0, 2], shift[:, 1, 2] = -8.0, 2.0
    augment = augkit.Augment(augkit.RandomSubpixelShift(1.0), min_visible_area=0.5)
    out = augment(torch.rand(1, 3, *SIZE), boxes=boxes, matrix=shift)
    assert out.boxes[0].tolist() == [[0, 2, 25, 24], [0, 2, 2, 12], [22, 22, 25, 24], [0, 2, 0, 2], [0, 7, 7, 17]]
    # Visible shares: 25*22/792, 0.2, 0.5, none, 0.7.
    assert out.boxes_valid.tolist() == [[True, False, True, False, True]]
    always = augkit.Augment(augkit.RandomSubpixelShift(1.0))(torch.rand(1, 3, *SIZE), boxes=boxes, matrix=shift)
    assert always.boxes_valid.tolist() == [[True, True, True, False, True]]


def test_keypoints_visible() -> None:
    points = torch.tensor([[[0.0, 0.0], [-0.5, 3.0], [-0.6, 3.0], [32.4, 23.4], [32.5, 10.0], [3.0, 23.5]]])
    out = augkit.Augment(augkit.RandomSubpixelShift(0.0))(torch.rand(1, 3, *SIZE), keypoints=points)
    assert out.keypoints_visible.tolist() == [[True, True, False, True, False, False]]
    assert torch.equal(out.keypoints, points)


def full(**options: object) -> augkit.Augment:
    return augkit.Augment(
        augkit.RandomSubpixelShift(3.0),
        augkit.RandomRescale(1.2),
        augkit.RandomSubpixelCrop((20, 27), area=(0.5, 1.0)),
        augkit.RandomHorizontalFlip(),
        **options,  # type: ignore[arg-type]
    )


def example(batch: int = 5) -> dict[str, Tensor]:
    corner = torch.rand(batch, 3, 2) * 10
    return {
        "masks": torch.randint(0, 9, (batch, 1, *SIZE)),
        "boxes": torch.cat([corner, corner + 5 + torch.rand(batch, 3, 2) * 9], dim=-1),
        "keypoints": torch.rand(batch, 4, 2) * 20,
    }


def test_fields_and_replay() -> None:
    images, given = torch.rand(5, 3, *SIZE), example()
    augment = full()
    out = augment(images, **given)
    assert out._fields[:5] == ("images", "masks", "boxes", "keypoints", "matrix")
    assert out.masks.shape == (5, 1, 20, 27)
    again = augment(images, **given, matrix=out.matrix)
    torch.testing.assert_close(again.images, out.images, rtol=0, atol=1e-6)
    for name in ("masks", "boxes", "keypoints", "boxes_valid", "keypoints_visible"):
        assert torch.equal(getattr(again, name), getattr(out, name))


def test_batch_is_one_by_one_and_input_is_kept() -> None:
    images, given = torch.rand(5, 3, *SIZE), example()
    kept = {name: value.clone() for name, value in given.items()}
    augment = full()
    out = augment(images, **given)
    for k in range(5):
        one = augment(images[k : k + 1], **{n: v[k : k + 1] for n, v in given.items()}, matrix=out.matrix[k : k + 1])
        assert torch.equal(one.masks[0], out.masks[k])
        torch.testing.assert_close(one.boxes[0], out.boxes[k])
        torch.testing.assert_close(one.keypoints[0], out.keypoints[k])
    assert all(torch.equal(given[name], kept[name]) for name in given)


def test_empty_batch_no_boxes_and_eval() -> None:
    out = full()(torch.rand(0, 3, *SIZE), **example(0))
    assert out.boxes.shape == (0, 3, 4)
    assert out.masks.shape == (0, 1, 20, 27)
    out = full()(torch.rand(2, 3, *SIZE), boxes=torch.zeros(2, 0, 4), keypoints=torch.zeros(2, 0, 2))
    assert out.boxes_valid.shape == out.keypoints_visible.shape == (2, 0)
    given = example()
    out = full().eval()(torch.rand(5, 3, *SIZE), **given)
    assert out.masks is given["masks"]
    assert torch.equal(out.keypoints, given["keypoints"])


def test_coordinates_stay_precise_under_autocast_and_in_half() -> None:
    images, given, augment = torch.rand(5, 3, *SIZE), example(), full()
    plain = augment(images, **given, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = augment(images, **given, generator=torch.Generator().manual_seed(3))
    for name in ("images", "masks", "boxes", "keypoints", "matrix"):
        assert torch.equal(getattr(cast, name), getattr(plain, name)), name
    half = augment(images, boxes=given["boxes"].half(), matrix=plain.matrix)
    assert half.boxes.dtype == torch.float16
    assert (half.boxes - plain.boxes).abs().max() < 0.03


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"masks": torch.zeros(2, *SIZE)}, InputError),
        ({"masks": torch.zeros(2, 1, 5, 5)}, InputError),
        ({"masks": torch.zeros(2, 1, *SIZE, dtype=torch.complex64)}, InputTypeError),
        ({"boxes": torch.zeros(2, 3, 5)}, InputError),
        ({"boxes": torch.zeros(3, 3, 4)}, InputError),
        ({"boxes": torch.zeros(2, 3, 4, dtype=torch.int64)}, InputTypeError),
        ({"keypoints": torch.zeros(2, 3)}, InputError),
        ({"keypoints": [[1.0, 2.0]]}, InputTypeError),
        ({"blur": torch.zeros(3, 2), "matrix": torch.eye(3)}, InputError),
    ],
)
def test_bad_targets_are_one_line(bad: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=r"\A[^\n]*expected[^\n]*got[^\n]*\Z"):
        full()(torch.rand(2, 3, *SIZE), **bad)


def test_bad_min_visible_area() -> None:
    with pytest.raises(InputError, match="min_visible_area"):
        augkit.Augment(min_visible_area=1.5)


OPS = [
    augkit.RandomSubpixelShift(3.0, p=0.7, padding="border"),
    augkit.RandomRescale(1.3, kernel="bilinear"),
    augkit.RandomSubpixelCrop((20, 27), area=(0.5, 0.9), p=0.8),
    augkit.RandomHorizontalFlip(),
    augkit.RandomShiftBlur(2.0),
]
KEYS = ["input", "mask", "bbox_xyxy", "keypoints"]


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_inside_kornia(op: augkit.RandomSubpixelShift) -> None:
    """The container's targets are `Augment`'s, unclipped, once half a pixel has turned edges into centers."""
    images, given = torch.rand(5, 3, *SIZE), example()
    masks = given["masks"].float()
    container = K.AugmentationSequential(pickle.loads(pickle.dumps(op)), data_keys=KEYS)
    out, mask, boxes, points = container(images, masks, given["boxes"] - 0.5, given["keypoints"])
    matrix = container.transform_matrix
    size = op.output_size(SIZE)
    assert out.shape == (5, 3, *size)
    assert torch.equal(mask, targets.move_masks(masks, matrix, size, op.padding))
    torch.testing.assert_close(boxes + 0.5, targets.move_boxes(matrix, given["boxes"]), rtol=0, atol=1e-4)
    torch.testing.assert_close(points, targets.move_points(matrix, given["keypoints"]), rtol=0, atol=1e-4)

    back, mask_back, boxes_back, points_back = container.inverse(out, mask, boxes, points)
    assert back.shape == images.shape
    assert set(mask_back.unique().tolist()) <= set(masks.unique().tolist()) | {0.0}
    torch.testing.assert_close(boxes_back + 0.5, given["boxes"], rtol=0, atol=1e-3)
    torch.testing.assert_close(points_back, given["keypoints"], rtol=0, atol=1e-3)


def test_flip_comes_back_bitwise_in_kornia() -> None:
    images, masks = torch.rand(6, 3, *SIZE), torch.randint(0, 5, (6, 1, *SIZE)).float()
    container = K.AugmentationSequential(augkit.RandomHorizontalFlip(), data_keys=["input", "mask"])
    back, mask = container.inverse(*container(images, masks))
    assert torch.equal(back, images)
    assert torch.equal(mask, masks)


def test_boxes_have_kornias_own_convention_in_kornia() -> None:
    """There the whole image is 0, 0, W - 1, H - 1; boxes along edges come back a pixel off when mirrored."""
    container = K.AugmentationSequential(augkit.RandomHorizontalFlip(p=1.0), data_keys=["input", "bbox_xyxy"])
    images, edges = torch.rand(1, 3, 8, 10), torch.tensor([[[0.0, 0, 10, 8]]])
    assert container(images, edges - torch.tensor([0.0, 0, 1, 1]))[1].tolist() == [[[0, 0, 9, 7]]]
    assert container(images, edges)[1].tolist() == [[[-1, 0, 9, 8]]]
    assert (container(images, edges - 0.5)[1] + 0.5).tolist() == edges.tolist()


def test_integer_masks_in_kornia() -> None:
    op = augkit.RandomSubpixelShift(3.0, padding="border")
    container = K.AugmentationSequential(op, data_keys=["input", "mask"])
    masks = torch.randint(0, 1000, (4, 1, *SIZE))
    _, moved = container(torch.rand(4, 3, *SIZE), masks)
    assert torch.equal(moved.long(), targets.move_masks(masks, container.transform_matrix, SIZE, "border"))


def test_kornia_chain_of_ops_and_color() -> None:
    images, given = torch.rand(3, 3, *SIZE), example(3)
    container = K.AugmentationSequential(
        augkit.RandomSubpixelShift(2.0),
        augkit.RandomSubpixelCrop((20, 27)),
        augkit.RandomHorizontalFlip(),
        K.ColorJitter(0.2, 0.2, 0.2),
        data_keys=["input", "bbox_xyxy", "keypoints"],
    )
    out, boxes, points = container(images, given["boxes"] - 0.5, given["keypoints"])
    assert out.shape == (3, 3, 20, 27)
    matrix = container.transform_matrix
    torch.testing.assert_close(boxes + 0.5, targets.move_boxes(matrix, given["boxes"]), rtol=0, atol=1e-3)
    _, boxes_back, points_back = container.inverse(out, boxes, points)
    torch.testing.assert_close(boxes_back + 0.5, given["boxes"], rtol=0, atol=1e-3)
    torch.testing.assert_close(points_back, given["keypoints"], rtol=0, atol=1e-3)


def test_kornias_color_ops_take_the_output() -> None:
    both = torch.nn.Sequential(full(), K.ColorJitter(0.2, 0.2, 0.2))
    assert both(torch.rand(2, 3, *SIZE)).shape == (2, 3, 20, 27)


def test_the_area_that_must_stay_visible_by_hand() -> None:
    boxes = torch.tensor([[[10.0, 18.0, 14.0, 30.0], [-6.0, 4.0, 2.0, 8.0], [3.0, 9.0, 3.0, 12.0]]])
    clipped, _ = targets.clip_boxes(boxes, SIZE)  # half of the first is left, a quarter of the second
    assert clipped.tolist() == [[[10, 18, 14, 24], [0, 4, 2, 8], [3, 9, 3, 12]]]
    for least, useful in ((0.0, [1, 1, 0]), (0.25, [1, 1, 0]), (0.3, [1, 0, 0]), (0.5, [1, 0, 0]), (0.51, [0, 0, 0])):
        assert targets.clip_boxes(boxes, SIZE, least)[1].int().tolist() == [useful]
