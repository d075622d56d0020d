"""`Augment.from_torchvision`: pipelines, colors and refusals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchvision.transforms as v1
from kornia.augmentation import ColorJitter, RandomGaussianBlur
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from augkit.augment.compose import Augment
from augkit.core.errors import InputError

SIZE = (36, 50)
BILINEAR = v2.InterpolationMode.BILINEAR


def photo(batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    """Smooth images in [0, 1], on which a place that is wrong by a hundredth of a pixel shows."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    waves = [torch.sin(x / 5 + k) * torch.cos(y / 4 - k) for k in range(3 * batch)]
    return torch.stack(waves).reshape(batch, 3, *size) * 0.5 + 0.5


def test_a_window_that_never_fits_is_the_largest_central_one() -> None:
    op = v2.RandomResizedCrop((8, 8), scale=(1.0, 1.0), ratio=(2.0, 3.0))
    rule: Any = Augment.from_torchvision(op).geometry[0].rule
    drawn = rule.parameters(torch.rand(4, 22), SIZE)
    assert {key: value.tolist()[0] for key, value in drawn.items()} == op.make_params([photo()])


def test_a_pipeline_becomes_one_resampling() -> None:
    torch.manual_seed(0)
    pipeline = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(24),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.2, 0.1)], p=0.8),
            v2.RandomGrayscale(0.2),
            v2.GaussianBlur((3, 5), (0.1, 2.0)),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([0.5] * 3, [0.25] * 3),
        ]
    )
    augment = Augment.from_torchvision(pipeline)
    assert [type(op).__name__ for op in augment.kornia_ops] == ["ColorJitter", "RandomGrayscale", "RandomGaussianBlur"]
    assert (augment.kernel, augment.antialias, augment.out_dtype) == ("bilinear", True, torch.float32)
    assert isinstance(augment.kornia_ops[0], ColorJitter)
    assert augment.kornia_ops[0].p == 0.8
    assert isinstance(augment.kornia_ops[2], RandomGaussianBlur)
    out = augment((255 * photo(4)).to(torch.uint8))
    assert out.shape == (4, 3, 24, 24)
    assert out.dtype == torch.float32
    assert Augment.from_torchvision(pipeline, kernel="lanczos3").kernel == "lanczos3"


def test_evaluation_keeps_resize_center_crop_and_normalization() -> None:
    pipeline = v2.Compose([v2.Resize(28), v2.CenterCrop(24), v2.Normalize([0.5] * 3, [0.25] * 3)])
    images = photo(2)
    augment = Augment.from_torchvision(pipeline).eval()
    state = torch.get_rng_state()
    out = augment(images)
    assert torch.equal(state, torch.get_rng_state())
    assert float((out - pipeline(images)).abs().max()) < 2e-3
    assert torch.equal(augment.train()(images), out)
    ragged = Augment.from_torchvision(pipeline).eval()([images[0], images[1, :, :, :33]])
    torch.testing.assert_close(ragged[:1], out[:1])


@pytest.mark.parametrize("size", [(20, 27), (72, 100)])
def test_a_resize_has_no_dark_rim(size: tuple[int, int]) -> None:
    for op in (v2.Resize(size), v2.Resize(size, antialias=False), v2.RandomResizedCrop(size, (1, 1), (1.35, 1.4))):
        assert float((Augment.from_torchvision(op)(torch.ones(2, 3, *SIZE)) - 1).abs().max()) < 1e-5
    op = v2.Resize(size, antialias=False)
    torch.testing.assert_close(Augment.from_torchvision(op)(photo()), op(photo()), rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    ("before", "padding"), [(v2.Resize(24), "border"), (v2.Resize((30, 20)), "zeros"), (v2.Resize(40), "border")]
)
def test_a_center_crop_of_smaller_images_still_pads_with_zeros(before: Any, padding: str) -> None:
    pipeline = v2.Compose([before, v2.CenterCrop(24)])
    augment = Augment.from_torchvision(pipeline)
    assert augment.padding == padding
    assert float((augment(photo()) - pipeline(photo())).abs()[..., :2].max()) < (0.3 if padding == "zeros" else 0.05)
    assert Augment.from_torchvision(v2.Compose([before, v2.RandomRotation(5)])).padding == "zeros"


def test_the_first_version_of_transforms_is_read_too() -> None:
    pipeline = v1.Compose(
        [
            v1.RandomCrop(32, padding=4, padding_mode="reflect"),
            v1.RandomAffine(10, (0.1, 0.1)),
            v1.RandomVerticalFlip(),
            v1.RandomApply([v1.RandomRotation(5)], p=0.3),
            v1.ToTensor(),
            v1.Normalize([0.5], [0.5]),
        ]
    )
    augment = Augment.from_torchvision(pipeline, padding="reflection")
    assert (augment.kernel, augment.geometry[3].p, augment.geometry[0].rule.padding) == ("nearest", 0.3, (4, 4, 4, 4))
    assert augment(photo(2, (32, 32))).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ({tv_tensors.Image: torch.float32, "others": None}, torch.float32),
        ({tv_tensors.Mask: torch.int64, tv_tensors.Image: torch.float16}, torch.float16),
        ({tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.int64, "others": None}, torch.float32),
        ({"others": torch.float64}, torch.float64),
        ({tv_tensors.Mask: torch.float32, "others": None}, None),
    ],
)
def test_a_dtype_for_each_kind_of_tensor_gives_images_theirs(dtypes: Any, expected: torch.dtype | None) -> None:
    augment = Augment.from_torchvision(v2.ToDtype(dtypes, scale=True))
    assert augment.out_dtype == expected
    if expected is not None:
        image = tv_tensors.Image((255 * photo()).to(torch.uint8))
        theirs = v2.ToDtype(dtypes, scale=True)(image).as_subclass(Tensor)
        torch.testing.assert_close(augment(image.as_subclass(Tensor)), theirs)


@pytest.mark.integration
def test_a_resized_crop_is_one_graph() -> None:
    augment = Augment.from_torchvision(v2.RandomResizedCrop(12))
    draws = torch.rand(3, augment.draws)
    compiled = torch.compile(augment, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(photo(3), draws=draws), augment(photo(3), draws=draws))
    assert augment(photo(3)[:0]).shape == (0, 3, 12, 12)


def test_strength_is_a_share_of_samples() -> None:
    augment = Augment.from_torchvision(v2.RandomRotation((20, 30), BILINEAR))
    images = photo(200)
    assert torch.equal(augment(images, strength=0.0), images)
    matrices = augment.sample(1000, SIZE, strength=0.3)
    assert float((matrices[:, 0, 1] != 0).float().mean()) == pytest.approx(0.3, abs=0.06)


def test_all_that_cannot_be_taken_is_named_at_once() -> None:
    pipeline = v2.Compose(
        [v2.ElasticTransform(), v2.GaussianBlur(3), v2.RandomRotation(5, expand=True), v2.RandomAffine(5, fill=3)]
    )
    with pytest.raises(InputError, match="from_torchvision: cannot convert") as caught:
        Augment.from_torchvision(pipeline)
    for name in ("ElasticTransform (no matrix)", "expand=True", "fill other than 0", "before RandomRotation"):
        assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="Normalize"):
        Augment.from_torchvision(v2.Compose([v2.Normalize([0.5], [0.5]), v2.ColorJitter(0.1)]))
    with pytest.raises(InputError, match=r"int \(not torchvision"):
        Augment.from_torchvision(3)
    with pytest.raises(InputError, match=r"RandomCrop: expected images of at least \(32, 32\)"):
        Augment.from_torchvision(v2.RandomCrop(32))(photo(1, (20, 40)))


COLORS = {
    "solarize": (v2.RandomSolarize(0.5, p=1.0), 1e-6),
    "posterize": (v2.RandomPosterize(4, p=1.0), 1 / 255),
    "sharpness": (v2.RandomAdjustSharpness(2.0, p=1.0), 1e-5),
    "invert": (v2.RandomInvert(p=1.0), 1e-6),
    "autocontrast": (v2.RandomAutocontrast(p=1.0), 1e-5),
    "gray": (v2.RandomGrayscale(p=1.0), 2e-3),
    "brightness": (v2.ColorJitter(brightness=(1.3, 1.3)), 1e-5),
    "contrast": (v2.ColorJitter(contrast=(0.7, 0.7)), 2e-3),
    "saturation": (v2.ColorJitter(saturation=(0.6, 0.6)), 2e-3),
    "hue": (v2.ColorJitter(hue=(0.2, 0.2)), 1e-3),
    "blur": (v2.GaussianBlur((3, 7), (1.3, 1.3)), 1e-5),
}


@pytest.mark.parametrize("name", COLORS)
def test_color_ops_are_torchvisions(name: str) -> None:
    op, tolerance = COLORS[name]
    images = (255 * photo(2)).round().to(torch.uint8).float() / 255
    given = (255 * images).round().to(torch.uint8) if name == "posterize" else images
    theirs = op(given).float() / (255 if name == "posterize" else 1)
    assert float((Augment.from_torchvision(op)(images) - theirs).abs().max()) <= tolerance
