"""Samples of torchvision: without an image, with videos, with unclamped boxes, with Kornia's ops."""

from __future__ import annotations

from typing import Any

import kornia.augmentation as K
import pytest
import torch
from key_points import key_points
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

import augkit
from augkit.adapters.torchvision import Geometry
from augkit.core.errors import InputError, InputTypeError

SIZE = (20, 27)
FLIP = augkit.RandomHorizontalFlip(p=1.0)


def image(*leading: int) -> tv_tensors.Image:
    return tv_tensors.Image(torch.rand(*leading, 3, *SIZE))


def boxes(*rows: list[float], size: tuple[int, int] = SIZE, **options: Any) -> tv_tensors.BoundingBoxes:
    if options and not hasattr(tv_tensors, "KeyPoints"):  # both came with 0.23
        pytest.skip("boxes of this torchvision cannot leave the image")
    return tv_tensors.BoundingBoxes(list(rows), format="XYXY", canvas_size=size, **options)


SOME = boxes([3.0, 4.0, 12.0, 15.0])


@pytest.mark.parametrize("labels", [torch.tensor([3, 7]), torch.tensor(3), torch.rand(2, 5)], ids=lambda v: str(v.ndim))
@pytest.mark.parametrize("first", [True, False])
def test_a_sample_without_an_image_moves_targets_and_keeps_labels(labels: Tensor, first: bool) -> None:
    points = key_points([[3.0, 4.0]], SIZE)
    mask = tv_tensors.Mask(torch.randint(0, 9, SIZE))
    targets: dict[str, Any] = {"boxes": SOME, "points": points, "mask": mask}
    sample = {"labels": labels, **targets} if first else {**targets, "labels": labels}
    out, theirs = Geometry(augkit.Augment(FLIP))(sample), v2.RandomHorizontalFlip(p=1.0)(targets)
    assert torch.equal(out["labels"], labels)
    for name, value in theirs.items():
        assert torch.equal(out[name], value), name


@pytest.mark.parametrize(
    ("sample", "line"),
    [
        ((torch.arange(3), torch.rand(3, *SIZE)), r"an image first, got a plain tensor \(3,\); wrap the image"),
        ((torch.arange(3), torch.rand(3, *SIZE), SOME), r"an image first, got a plain tensor \(3,\); wrap the image"),
        ((torch.rand(4, 5),), r"an image first, got a plain tensor \(4, 5\)"),
        ((torch.rand(3, 9, 9), SOME), r"inputs of one size \(H, W\), got \[\(9, 9\), \(20, 27\)\]"),
        (
            (image(2), tv_tensors.Video(torch.rand(2, 3, *SIZE))),
            r"one image \(C, H, W\) beside boxes, keypoints or a video, got a batch",
        ),
        ((7, "name"), "a sample with an image, got none"),
    ],
)
def test_samples_whose_parts_cannot_be_matched_are_refused(sample: tuple[Any, ...], line: str) -> None:
    with pytest.raises(InputError, match=rf"\AGeometry: expected {line}[^\n]*\Z"):
        Geometry(augkit.Augment(FLIP))(*sample)


def test_a_pil_image_beside_boxes_is_refused_with_a_remedy() -> None:
    with pytest.raises(InputTypeError, match=r"put v2\.ToImage"):
        Geometry(augkit.Augment(FLIP))(v2.ToPILImage()(image()), SOME)


@pytest.mark.parametrize("name", ["XYXY", "XYWH", "CXCYWH"])
@pytest.mark.parametrize("mode", [None, "soft", "hard"])
def test_the_clamping_mode_of_boxes_is_respected(mode: str | None, name: str) -> None:
    outside = boxes([-4.0, -4.0, 5.0, 5.0], [20.0, 3.0, 33.0, 30.0], clamping_mode=mode)
    outside = v2.functional.convert_bounding_box_format(outside, new_format=name)
    ours = Geometry(augkit.Augment(FLIP))(image(), outside)[1]
    theirs = v2.RandomHorizontalFlip(p=1.0)(outside)
    theirs = theirs if mode is None else v2.functional.clamp_bounding_boxes(theirs)
    torch.testing.assert_close(ours.as_subclass(Tensor), theirs.as_subclass(Tensor))
    assert ours.clamping_mode == mode


def test_unclamped_boxes_become_empty_only_by_min_visible_area() -> None:
    rows = boxes([-9.0, 0.0, -2.0, 4.0], [-2.0, 0.0, 8.0, 10.0], clamping_mode=None)
    kept, emptied = (
        Geometry(augkit.Augment(FLIP, min_visible_area=least))(image(), rows)[1].tolist() for least in (0.0, 0.5)
    )
    assert kept == [[29, 0, 36, 4], [19, 0, 29, 10]]
    assert emptied == [[0, 0, 0, 0], [19, 0, 29, 10]]


class LateNoise(K.IntensityAugmentationBase2D):
    """An op of one's own that draws while it is applied, as some of Kornia's did."""

    def apply_transform(self, input: Tensor, params: Any, flags: Any, transform: Tensor | None = None) -> Tensor:
        return input + 0.1 * torch.rand_like(input)


OPS = {
    "jiggle": lambda: K.ColorJiggle(0.4, 0.4, 0.4, 0.1, p=1.0),
    "noise": lambda: K.RandomGaussianNoise(0.0, 0.2, p=1.0),
    "plasma": lambda: K.RandomPlasmaShadow(p=1.0),
    "late": lambda: LateNoise(p=1.0),
    "erasing": lambda: K.RandomErasing(p=0.5),
    "rotation": lambda: K.RandomRotation(30.0, p=0.7),
    "elastic": lambda: K.RandomElasticTransform(p=1.0),
    "invert": lambda: K.RandomInvert(p=0.5),
}


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_frames_share_one_draw_and_the_images_of_a_batch_do_not(name: str, strength: float) -> None:
    still = torch.rand(1, 3, 16, 16).expand(12, 3, 16, 16).contiguous()
    transform = Geometry(augkit.Augment(augkit.RandomSubpixelShift(1.0), OPS[name](), strength=strength))
    out = transform(tv_tensors.Video(still))
    assert isinstance(out, tv_tensors.Video)
    assert len(torch.unique(out.as_subclass(Tensor), dim=0)) == 1
    assert not torch.equal(out, transform(tv_tensors.Video(still)))
    assert len(torch.unique(transform(still), dim=0)) > 3
    batch_of_videos = transform(tv_tensors.Video(still.reshape(2, 6, 3, 16, 16)))
    assert len(torch.unique(batch_of_videos.as_subclass(Tensor).flatten(0, 1), dim=0)) == 1


def test_everything_in_a_sample_shares_one_draw_of_kornias_ops() -> None:
    op = K.RandomRotation(40.0, p=1.0)
    frame = torch.zeros(3, 32, 32)
    frame[:, 4:12, 18:28] = 1
    size = (32, 32)
    sample = {
        "a": tv_tensors.Image(frame),
        "gray": tv_tensors.Image(frame[:1]),
        "video": tv_tensors.Video(frame.expand(3, 3, *size)),
        "frames": tv_tensors.Mask((frame[:1] > 0.5).expand(3, *size)),
        "points": key_points([[22.5, 7.5]], size),
        "boxes": boxes([18.0, 4.0, 28.0, 12.0], size=size),
    }
    out = Geometry(augkit.Augment(augkit.RandomSubpixelShift(2.0), op, kernel="bilinear"))(sample)
    assert torch.equal(out["a"][:1], out["gray"])
    assert all(torch.equal(out["a"], frame) for frame in out["video"])
    assert torch.equal(out["frames"][0], out["frames"][2])
    content = out["a"][0] > 0.5
    assert (content & out["frames"][0]).sum() > 0.75 * (content | out["frames"][0]).sum()
    y, x = content.nonzero(as_tuple=True)
    found = torch.stack([x.float().mean(), y.float().mean()])
    assert (found - out["points"][0]).abs().max() < 0.6
    edges = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])
    assert (edges - out["boxes"][0]).abs().max() < 1.2


def test_a_resizing_op_of_kornia_sets_the_canvas() -> None:
    out = Geometry(augkit.Augment(FLIP, K.CenterCrop((10, 12))))(image(), SOME, tv_tensors.Mask(torch.ones(SIZE)))
    assert [tuple(out[0].shape[-2:]), out[1].canvas_size, tuple(out[2].shape)] == [(10, 12)] * 3


def test_an_op_without_a_matrix_is_refused_beside_targets_alone() -> None:
    transform = Geometry(augkit.Augment(K.RandomElasticTransform(p=1.0)))
    assert transform(image()).shape == (3, *SIZE)
    for target in (SOME, tv_tensors.Mask(torch.ones(SIZE)), key_points([[1.0, 2.0]], SIZE)):
        with pytest.raises(
            InputError, match=r"\AGeometry: masks.* cannot follow Kornia's RandomElasticTransform, which"
        ):
            transform(image(), target)
        transform.eval()(image(), target)
        transform.train()


def test_a_batch_shares_the_draw_of_an_op_with_same_on_batch() -> None:
    still = torch.rand(1, 3, 16, 16).expand(6, 3, 16, 16).contiguous()
    out = Geometry(augkit.Augment(augkit.RandomSubpixelShift(3.0), same_on_batch=True))(still)
    assert len(torch.unique(out, dim=0)) == 1
    op = augkit.RandomSubpixelShift(3.0, same_on_batch=True)
    mixed = Geometry(augkit.Augment(op, augkit.RandomSubpixelShift(1.0)))(still)
    assert len(torch.unique(mixed, dim=0)) == 6


@pytest.mark.parametrize("whole", [True, False], ids=["the transform", "the augmentation"])
def test_evaluation_resizes_as_augment_does(whole: bool) -> None:
    augment = augkit.Augment.from_torchvision(
        v2.Compose([v2.Resize((12, 14)), v2.CenterCrop(10), v2.RandomRotation(9)])
    )
    sample = {"image": image(), "boxes": SOME, "mask": tv_tensors.Mask(torch.randint(0, 9, SIZE))}
    transform = Geometry(augment)
    (transform if whole else augment).eval()
    out = transform(sample)
    augment.eval()
    alone = augment(sample["image"][None].as_subclass(Tensor), boxes=SOME[None].as_subclass(Tensor))
    assert torch.equal(out["image"], alone.images[0])
    assert torch.equal(out["boxes"], alone.boxes[0])
    assert [tuple(out["mask"].shape), out["boxes"].canvas_size] == [(10, 10)] * 2


def test_an_empty_batch_has_empty_masks() -> None:
    out = Geometry(augkit.Augment(FLIP, augkit.RandomSubpixelCrop((8, 9))))(
        image(0), tv_tensors.Mask(torch.ones(0, *SIZE))
    )
    assert [tuple(one.shape) for one in out] == [(0, 3, 8, 9), (0, 8, 9)]
