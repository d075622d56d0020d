"""Targets follow Kornia's ops that have a matrix: against the image's content and Kornia's own container."""

from __future__ import annotations

from typing import Any

import kornia.augmentation as K
import pytest
import torch
from torch import Tensor, nn

from augkit import Augment, RandomHorizontalFlip, RandomSubpixelShift
from augkit.core.errors import InputError

SIZE = (48, 60)
LABEL = 2**53 + 1  # which no float holds
MOVING: dict[str, Any] = {
    "affine": lambda: K.RandomAffine(25.0, (0.1, 0.1), (0.8, 1.2), (-10.0, 10.0), p=1.0),
    "affine_corners": lambda: K.RandomAffine(25.0, align_corners=True, p=1.0),
    "affine_border": lambda: K.RandomAffine(25.0, padding_mode="border", p=0.5),
    "affine_fill": lambda: K.RandomAffine(25.0, padding_mode="fill", fill_value=torch.tensor([0.3]), p=1.0),
    "horizontal_flip": lambda: K.RandomHorizontalFlip(p=0.5),
    "vertical_flip": lambda: K.RandomVerticalFlip(p=0.5),
    "perspective": lambda: K.RandomPerspective(0.5, p=1.0),
    "perspective_corners": lambda: K.RandomPerspective(0.3, align_corners=True, p=0.7),
    "rotation": lambda: K.RandomRotation(40.0, p=1.0),
    "rotation90": lambda: K.RandomRotation90((1, 3), p=1.0),
    "shear": lambda: K.RandomShear(20.0, p=1.0),
    "translate": lambda: K.RandomTranslate((-0.2, 0.2), (-0.2, 0.2), p=1.0),
}
RESIZING: dict[str, Any] = {
    "center_crop": lambda: K.CenterCrop((30, 32)),
    "crop": lambda: K.RandomCrop((40, 44)),
    "padded_crop": lambda: K.RandomCrop(SIZE, padding=6, fill=0.3),
    "resized_crop": lambda: K.RandomResizedCrop((40, 44), scale=(0.6, 1.0)),
    "resampled_crop": lambda: K.RandomResizedCrop((40, 44), scale=(0.6, 1.0), cropping_mode="resample"),
    "pad": lambda: K.PadTo((60, 70), pad_value=0.3),
    "resize": lambda: K.Resize((70, 64)),
    "longest": lambda: K.LongestMaxSize(50),
    "smallest": lambda: K.SmallestMaxSize(60),
}
LENS = [torch.tensor([-0.3, 0.3]), torch.tensor([-0.3, 0.3]), torch.tensor([0.9, 1.0])]
WITHOUT_MATRIX = [K.RandomElasticTransform(p=1.0), K.RandomThinPlateSpline(p=1.0), K.RandomFisheye(*LENS, p=1.0)]


def blob(batch: int) -> dict[str, Tensor]:
    """A bright rectangle, and its mask, its box and its center."""
    images = torch.zeros(batch, 3, *SIZE)
    images[:, :, 18:28, 22:36] = 1
    return {
        "images": images,
        "masks": LABEL * (images[:, :1] > 0.5).long(),
        "boxes": torch.tensor([[[22.0, 18.0, 36.0, 28.0]]]).expand(batch, 1, 4),
        "keypoints": torch.tensor([[[28.5, 22.5]]]).expand(batch, 1, 2),
    }


def center(content: Tensor) -> Tensor:
    y, x = content.nonzero(as_tuple=True)
    return torch.stack([x.float().mean(), y.float().mean()])


def edges(content: Tensor) -> Tensor:
    y, x = content.nonzero(as_tuple=True)
    return torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1]).float()


def whole(content: Tensor) -> bool:
    """Whether the rectangle does not touch the border, where it could be cut."""
    rim = content.clone()
    rim[1:-1, 1:-1] = False
    return bool(content.any()) and not bool(rim.any())


@pytest.mark.parametrize("name", MOVING | RESIZING)
def test_targets_are_where_the_content_is(name: str) -> None:
    op = (MOVING | RESIZING)[name]()
    out = Augment(RandomSubpixelShift(3.0), op, K.RandomInvert(p=0.0), kernel="bilinear")(**blob(8))
    assert set(out.masks.unique().tolist()) == {0, LABEL}
    assert out.masks.shape[-2:] == out.images.shape[-2:]
    contents, masks = out.images[:, 0] > 0.5, out.masks[:, 0] > 0
    seen = 0
    for k in filter(lambda k: whole(contents[k]), range(8)):
        seen += 1
        assert (contents[k] & masks[k]).sum() > 0.7 * (contents[k] | masks[k]).sum()  # two roundings of a small thing
        assert (center(contents[k]) - out.keypoints[k, 0]).abs().max() < 0.6
        assert (edges(contents[k]) - out.boxes[k, 0]).abs().max() < 1.2
        assert out.boxes_valid[k]
        assert out.keypoints_visible[k]
    assert seen > 3


@pytest.mark.parametrize("name", MOVING)
def test_masks_and_keypoints_are_those_of_kornias_container(name: str) -> None:
    torch.manual_seed(5)
    images, masks = torch.rand(4, 3, *SIZE), torch.randint(0, 99, (4, 2, *SIZE))
    keypoints = torch.rand(4, 5, 2) * 40
    torch.manual_seed(1)
    out = Augment(MOVING[name]())(images, masks=masks, keypoints=keypoints)
    torch.manual_seed(1)
    container = K.AugmentationSequential(MOVING[name](), data_keys=["input", "mask", "keypoints"])
    moved, moved_masks, points = container(images, masks.float(), keypoints)
    torch.testing.assert_close(out.images, moved)
    torch.testing.assert_close(out.keypoints, points, atol=1e-3, rtol=1e-4)
    same = out.masks == moved_masks
    if name == "affine_fill":  # a mask has no use for the image's fill color
        same |= moved_masks == 0.3
    assert same.all()


def test_several_ops_are_enclosed_once() -> None:
    there_and_back = [K.RandomRotation((angle, angle), p=1.0) for angle in (30.0, -30.0)]
    out = Augment(*there_and_back)(**blob(2))
    torch.testing.assert_close(out.boxes, blob(2)["boxes"], atol=1e-3, rtol=0)


def test_targets_that_leave_the_image_before_kornias_ops_stay_invisible() -> None:
    class Away(RandomSubpixelShift):
        def axes(self, draws: Tensor, strength: float | Tensor, size: tuple[int, int]) -> Any:
            axes = super().axes(draws, strength, size)
            return axes._replace(offset=torch.tensor([[-30.0, 0.0]]).expand(len(draws), 2))

    back = K.RandomTranslate((0.4, 0.4), (0.0, 0.0), p=1.0)  # by 24 pixels
    out = Augment(Away(30.0), back, min_visible_area=0.5)(**blob(1))
    left = out.images[0, 0] > 0.5
    torch.testing.assert_close(out.boxes[0, 0], edges(left))
    assert out.boxes[0, 0].tolist() == [24, 18, 30, 28]  # 6 of 14 columns
    assert not out.boxes_valid.any()
    assert not out.keypoints_visible.any()
    assert Augment(Away(30.0), back, min_visible_area=0.4)(**blob(1)).boxes_valid.all()


def test_a_sample_of_strength_0_keeps_its_targets() -> None:
    given = blob(4)
    augment = Augment(K.RandomRotation((90.0, 90.0), p=1.0), K.RandomPerspective(0.3, p=1.0))
    out = augment(**given, strength=torch.tensor([0.0, 1.0, 0.0, 1.0]))
    for name in ("images", "masks", "boxes", "keypoints"):
        same = (getattr(out, name) == given[name]).flatten(1).all(1)
        assert same.tolist() == [True, False, True, False], name
    with pytest.raises(InputError, match="expected Kornia's ops to keep the size at a strength below 1"):
        Augment(K.CenterCrop((8, 8)))(given["images"], strength=0.5)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float16, torch.float64])
def test_masks_keep_their_dtype(dtype: torch.dtype) -> None:
    given = {**blob(2), "masks": (blob(2)["masks"] > 0).to(dtype)}
    out = Augment(RandomHorizontalFlip(p=1.0), K.RandomVerticalFlip(p=1.0))(**given)
    assert out.masks.dtype == dtype
    assert torch.equal(out.masks, given["masks"].flip((-1, -2)))


@pytest.mark.parametrize("op", WITHOUT_MATRIX, ids=lambda op: type(op).__name__)
def test_ops_without_a_matrix_are_refused_beside_targets(op: nn.Module) -> None:
    given, augment = blob(2), Augment(op)
    assert augment(given["images"]).shape == given["images"].shape
    for name in ("masks", "boxes", "keypoints"):
        with pytest.raises(InputError, match=rf"Augment: .* cannot follow Kornia's {type(op).__name__}, which has no"):
            augment(given["images"], **{name: given[name]})
        assert torch.equal(getattr(augment.eval()(given["images"], **{name: given[name]}), name), given[name])
        augment.train()


@pytest.mark.parametrize("name", ["affine", "perspective", "rotation", "blur"])
def test_autocast_changes_nothing(name: str) -> None:
    op = K.RandomGaussianBlur((5, 5), (1.0, 2.0), p=1.0) if name == "blur" else MOVING[name]()
    augment, given = Augment(RandomSubpixelShift(2.0), op), {**blob(2), "images": torch.rand(2, 3, *SIZE)}
    results = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            results.append(augment(**given))
    for target in ("images", "masks", "boxes", "keypoints"):
        assert torch.equal(*(getattr(out, target) for out in results)), target


def test_a_shared_draw_is_shared_by_all() -> None:
    augment = Augment(K.RandomRotation(30.0, same_on_batch=True), K.ColorJiggle(0.4, p=1.0, same_on_batch=True))
    images = torch.rand(1, 3, 16, 16).expand(40, 3, 16, 16)
    out = augment(images, strength=0.5)
    assert len(torch.unique(out, dim=0)) == 1
