"""`Augment` on images of different sizes gives what it gives each of them alone; and fits images to its size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from torch import Tensor

import augkit
from augkit import Augment, Ragged
from augkit.augment import geometry
from augkit.augment.backends import native
from augkit.augment.compose import Augmented
from augkit.core.errors import InputError, InputTypeError
from tests import reference

SIZES = [(50, 37), (37, 50), (24, 20), (31, 90), (50, 37)]
# Of a sample alone and in a batch: torch's products add up in an order of their own.
TOLERANCE = {torch.uint8: 0, torch.float32: 1e-5, torch.float64: 1e-6, torch.bfloat16: 0.02}
NORMALIZE = ([0.4, 0.5, 0.6], [0.2, 0.25, 0.3])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(dtype: torch.dtype = torch.uint8, sizes: Sequence[tuple[int, int]] = SIZES) -> list[Tensor]:
    source = generator()
    images = [torch.randint(0, 256, (3, *size), generator=source) for size in sizes]
    return [image.to(dtype) if dtype == torch.uint8 else (image / 255).to(dtype) for image in images]


def boxes() -> list[Tensor]:
    source = generator(5)
    return [torch.rand(k, 2, 2, generator=source).mul(30).sort(dim=1).values.flatten(1) for k in range(len(SIZES))]


def points() -> list[Tensor]:
    return [torch.rand(4 - k, 2, generator=generator(k)) * 30 for k in range(len(SIZES))]


def masks() -> list[Tensor]:
    return [torch.randint(0, 9, (1, *size), generator=generator(3)) for size in SIZES]


MAKE: dict[str, Callable[[], Augment]] = {
    "crop": lambda: Augment(
        augkit.RandomSubpixelShift(2.0),
        augkit.RandomRescale(1.2),
        augkit.RandomSubpixelCrop(size=(24, 20)),
        augkit.RandomHorizontalFlip(),
        kernel="lanczos3",
        padding="reflection",
    ),
    "size": lambda: Augment(
        augkit.RandomRescale(1.2),
        augkit.RandomSubpixelCrop(),
        augkit.RandomHorizontalFlip(),
        size=(24, 20),
        normalize=NORMALIZE,
        dtype=torch.float32,
    ),
    "shear": lambda: Augment(augkit.RandomShear(15.0), size=(24, 20), padding="border"),
    "blur": lambda: Augment(augkit.RandomShiftBlur(2.0), augkit.RandomSubpixelCrop(p=0.5), size=(24, 20)),
    "plain": lambda: Augment(augkit.RandomSubpixelCrop((24, 20), area=(0.2, 0.6)), antialias=False, kernel="bilinear"),
    "fit": lambda: Augment(size=(24, 20), kernel="nearest"),
}


@pytest.fixture(params=MAKE)
def augment(request: pytest.FixtureRequest) -> Augment:
    return MAKE[request.param]()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64, torch.bfloat16])
def test_each_image_gets_its_own_pixels_bit_for_bit(augment: Augment, dtype: torch.dtype) -> None:
    images = photos(dtype)
    out = augment(images, keypoints=points(), generator=generator(1))
    assert isinstance(out, Augmented)
    assert out.images.shape == (5, 3, 24, 20)
    assert torch.equal(augment(Ragged.from_list(images), generator=generator(1)), out.images)
    assert torch.equal(augment(tuple(images), matrix=out.matrix, blur=out.blur), out.images)
    for k, image in enumerate(images):
        one = slice(k, k + 1)
        alone = augment(image[None], matrix=out.matrix[one], blur=None if out.blur is None else out.blur[one])
        assert torch.equal(alone[0], out.images[k])
        # The draws are those of a batch: the sample at place k of a batch of its like is the same.
        alike = augment(torch.stack([image] * len(images)), generator=generator(1))
        assert torch.allclose(alike[k].double(), out.images[k].double(), rtol=0, atol=TOLERANCE[dtype])


def test_in_evaluation_images_are_fitted_and_nothing_else(augment: Augment) -> None:
    augment.eval()
    images = photos()
    out = augment(images, boxes=boxes())
    assert torch.equal(augment(Ragged.from_list(images)), out.images)
    for image, matrix, pixels in zip(images, out.matrix.double().numpy(), out.images, strict=True):
        height, width = image.shape[-2:]
        scale = max(24 / height, 20 / width)
        expected = np.array([[scale, 0, 9.5 - scale * (width - 1) / 2], [0, scale, 11.5 - scale * (height - 1) / 2]])
        assert np.allclose(matrix[:2], expected, atol=1e-5)
        how = ((24, 20), augment.kernel, augment.padding, augment.antialias)
        seen = reference.resample(image[None].numpy(), matrix[None], *how)[0]
        if augment.normalize is None:
            seen = seen.clip(0, 255)
        else:
            mean, std = (np.array(values).reshape(3, 1, 1) for values in augment.normalize)
            seen = (seen / 255 - mean) / std
        assert np.abs(pixels.double().numpy() - seen).max() < (0.51 if pixels.dtype == torch.uint8 else 1e-4)
        if augment.size is not None:
            assert torch.equal(augment(image[None])[0], pixels)


def test_images_of_the_size_are_left_as_they_are() -> None:
    images = torch.rand(4, 3, 24, 20, generator=generator())
    ops = [augkit.RandomSubpixelShift(1.0), augkit.RandomSubpixelCrop(), augkit.RandomHorizontalFlip()]
    fitting, plain = Augment(*ops, size=(24, 20)), Augment(*ops)
    assert torch.equal(fitting(images, generator=generator(1)), plain(images, generator=generator(1)))
    assert torch.equal(fitting(images, strength=0.0), images)
    assert torch.equal(fitting.eval()(images), images)
    assert torch.equal(Augment(size=(24, 20))(images), images)


@pytest.mark.parametrize("name", ["crop", "size"])
def test_all_of_an_image_is_seen_at_strength_0(name: str) -> None:
    """By a crop the whole image, stretched; by a size the center of the frame."""
    augment = MAKE[name]()
    out = augment(photos(), keypoints=points(), strength=0.0)
    for size, matrix in zip(SIZES, out.matrix, strict=True):
        corners = torch.tensor([[[-0.5, -0.5], [size[1] - 0.5, size[0] - 0.5]]])
        moved = geometry.apply_to_points(matrix[None], corners)[0]
        sides = (moved[1] - moved[0]).tolist()
        assert moved.mean(0).tolist() == pytest.approx([9.5, 11.5], abs=1e-4)
        scale = max(24 / size[0], 20 / size[1])
        expected = [20, 24] if name == "crop" else [size[1] * scale, size[0] * scale]
        assert sides == pytest.approx(expected, abs=1e-3)


def test_strengths_and_shared_draws_hold_for_each_image() -> None:
    augment = Augment(augkit.RandomSubpixelShift(4.0), size=(24, 20))
    weak = torch.tensor([0.0, 0.25, 0.5, 1.0, 1.0])
    drawn = [augment(photos(), keypoints=points(), strength=s, generator=generator()).matrix for s in (0.0, 1.0)]
    some = augment(photos(), keypoints=points(), strength=weak, generator=generator()).matrix
    assert torch.allclose(some, torch.lerp(*drawn, weak[:, None, None]), atol=1e-5)
    augment.same_on_batch = True
    shared = augment(photos(), keypoints=points(), generator=generator()).matrix - drawn[0]
    assert torch.allclose(shared[:, :2, 2], shared[:1, :2, 2].expand(5, 2), atol=1e-5)


@pytest.mark.parametrize("tail", [[], [K.RandomHorizontalFlip(p=0.5), K.RandomRotation(20.0, p=1.0)]], ids=len)
@pytest.mark.parametrize("name", ["crop", "size", "shear"])
def test_targets_are_lists_and_follow_as_alone(name: str, tail: list[Any]) -> None:
    augment = MAKE[name]()
    augment = Augment(*augment.ops, *tail, size=augment.size, padding=augment.padding, min_visible_area=0.2)
    given: dict[str, Any] = {"masks": masks(), "boxes": boxes(), "keypoints": points()}
    out = augment(photos(torch.float32), **given, generator=generator(1))
    assert [len(values) for values in out.boxes] == [len(values) for values in out.boxes_valid] == list(range(5))
    assert [len(values) for values in out.keypoints] == [len(v) for v in out.keypoints_visible] == [4, 3, 2, 1, 0]
    assert {(mask.shape, mask.dtype) for mask in out.masks} == {((1, 24, 20), torch.int64)}
    assert torch.equal(out.images, augment(photos(torch.float32), generator=generator(1)))
    for k, image in enumerate(photos(torch.float32)):
        # In a batch of its like, whose draws are the same.
        batch = {key: torch.stack([value[k]] * 5) for key, value in given.items()}
        alike = augment(torch.stack([image] * 5), **batch, generator=generator(1))
        assert torch.equal(out.masks[k], alike.masks[k])
        for field in ("boxes", "keypoints"):
            assert torch.allclose(getattr(out, field)[k], getattr(alike, field)[k], atol=1e-3)
        assert torch.equal(out.boxes_valid[k], alike.boxes_valid[k])
        assert torch.equal(out.keypoints_visible[k], alike.keypoints_visible[k])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_color_ops_come_after_the_one_resampling(dtype: torch.dtype) -> None:
    augment = Augment(augkit.RandomSubpixelCrop(), K.ColorJitter(0.4, 0.4), size=(24, 20), normalize=NORMALIZE)
    out = augment(photos(dtype), generator=generator(1))
    for k, image in enumerate(photos(dtype)):
        assert torch.allclose(out[k], augment(torch.stack([image] * 5), generator=generator(1))[k], atol=1e-6)
    plain = Augment(augkit.RandomSubpixelCrop(), size=(24, 20), normalize=NORMALIZE)(
        photos(dtype), generator=generator(1)
    )
    assert not torch.allclose(out, plain, atol=0.05)


def test_gradients_reach_images_of_different_sizes() -> None:
    images = [image.requires_grad_() for image in photos(torch.float64)]
    Augment(augkit.RandomSubpixelCrop((24, 20)), padding="border")(images, generator=generator()).sum().backward()
    assert all(image.grad is not None and bool(image.grad.any()) for image in images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["crop", "size", "plain", "fit"])
def test_one_compiled_loop_reads_the_buffer(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def loop(
        values: Tensor, offsets: Tensor, sizes: Tensor, channels: int, matrix: Tensor, *how: Any, **to: Any
    ) -> Any:
        calls.append(values.dtype)
        images, (*names, bounds) = Ragged(values, offsets, sizes, channels), how
        moves = zip(images, matrix.split(1), bounds.tolist(), strict=True)
        return torch.cat([native.resample(image[None], own, *names, bound, **to) for image, own, bound in moves])

    augment, images = MAKE[name](), photos(dtype)
    expected = augment(images, generator=generator(1))
    monkeypatch.setattr(native, "resample_ragged", loop, raising=False)
    out = augment(Ragged.from_list(images), generator=generator(1))
    assert torch.equal(out, expected)
    assert out.dtype == expected.dtype
    assert calls == [torch.uint8 if dtype == torch.uint8 else torch.float32]


def test_pieces_of_a_buffer_are_augmented_as_copies_are() -> None:
    batch, augment = Ragged.from_list(photos()), MAKE["size"]()
    for part in (batch[1:4], batch[[4, 0, 2]], batch[::2]):
        assert torch.equal(augment(part, generator=generator()), augment(list(part), generator=generator()))


SHIFT, CROP = Augment(augkit.RandomSubpixelShift(1.0)), Augment(augkit.RandomSubpixelCrop((8, 8)))
X = [torch.rand(3, 8, 9), torch.rand(3, 9, 8)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SHIFT(X), "images: expected a batch (B, C, H, W), or an output size for images of different sizes"),
        (lambda: SHIFT(Ragged.from_list(X)), "use Augment(..., size=(h, w)) or RandomSubpixelCrop(size=(h, w))"),
        (lambda: CROP([]), "images: expected at least one image, got none"),
        (lambda: CROP([X[0], X[1][:1]]), "images[1]: expected the channels of the first image, 3, got 1"),
        (lambda: CROP([X[0], X[1].half()]), "images[1]: expected the dtype of the first image"),
        (lambda: CROP([X[0], X[1][:, :0]]), "images[1]: expected (C, H, W) with at least one pixel, got (3, 0, 8)"),
        (lambda: CROP([X[0][None]]), "images[0]: expected (C, H, W) with at least one pixel, got (1, 3, 8, 9)"),
        (lambda: CROP([X[0], 3]), "images[1]: expected a tensor (C, H, W), got int"),
        (lambda: CROP(X, boxes=torch.zeros(2, 1, 4)), "boxes: expected a list with a tensor (N, 4) for each image"),
        (lambda: CROP(X, boxes=[torch.zeros(1, 4)]), "boxes: expected a list of 2, as the images, got 1"),
        (lambda: CROP(X, boxes=[torch.zeros(1, 4), torch.zeros(4)]), "boxes[1]: expected (N, 4)"),
        (lambda: CROP(X, keypoints=[torch.zeros(1, 2).long()] * 2), "keypoints[0]: expected a floating tensor (N, 2)"),
        (lambda: CROP(X, masks=[torch.zeros(1, 8, 9)] * 2), "masks[1]: expected (1, 9, 8) and torch.float32"),
        (lambda: CROP(X, masks=[torch.zeros(8, 9), torch.zeros(9, 8)]), "add a channel with masks[0][None]"),
        (lambda: CROP(X, masks="ab"), "masks: expected a list with a tensor (C, H, W) for each image, got a str"),
        (lambda: CROP(X, matrix=torch.eye(3).expand(3, 3, 3)), "matrix: expected shape (2, 3, 3) or (3, 3)"),
        (lambda: CROP(X, strength=torch.ones(3)), "strength: expected a scalar or shape (2,), got (3,)"),
        (
            lambda: Augment(augkit.RandomSubpixelCrop((8, 8)), size=(9, 9)),
            "size: expected the size of the output (9, 9), got a RandomSubpixelCrop that gives (8, 8)",
        ),
        (lambda: Augment(size=(0, 9)), "size: expected (H, W), two integers of at least 1"),
        (lambda: Augment(size=(9, 9), kernel="fourier", padding="circular"), "size: expected None with kernel 'four"),
        (
            lambda: Augment(augkit.RandomSubpixelCrop((8, 8)), K.RandomElasticTransform())(
                X, boxes=[torch.zeros(1, 4)] * 2
            ),
            "cannot follow Kornia's RandomElasticTransform, which has no matrix",
        ),
        (
            lambda: Augment(augkit.RandomSubpixelCrop((8, 8)), K.ColorJitter(0.1))([X[0], 9 * X[1]]),
            "ColorJitter expected images in [0, 1]",
        ),
    ],
)
def test_bad_input_is_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_wrong_type_is_a_type_error() -> None:
    with pytest.raises(InputTypeError, match="images"):
        CROP(np.zeros((2, 3, 8, 8)))
