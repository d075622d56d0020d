"""Crops in training are drawn from the whole image; all else shows its center square."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import augkit
from augkit import Policy, Ragged
from augkit.augment.whole_images import needed_side, square_views
from augkit.core.errors import InputError
from augkit.data import load_dataset
from augkit.train.batches import make_batches
from augkit.train.build import load_data
from augkit.train.distributed import Process
from augkit.train.recipe import Recipe

CROP = {"crop": {"min_area": 0.25, "max_ratio": 1.33}}
LEFT, RIGHT = (255, 0, 0), (0, 0, 255)


def banner(side: int = 24, length: int = 5, tall: bool = False) -> np.ndarray:
    """A gray picture five times as wide as it is high, red at its left end and blue at its right end."""
    picture = np.full((side, side * length, 3), 128, np.uint8)
    picture[:, : side // 2], picture[:, -(side // 2) :] = LEFT, RIGHT
    return picture.transpose(1, 0, 2) if tall else picture


@pytest.fixture
def banners(tmp_path: Path) -> Path:
    for k in range(24):
        (tmp_path / "set" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        picture = banner(tall=k % 3 == 0)
        Image.fromarray(picture).save(tmp_path / "set" / "ab"[k % 2] / f"{k:02d}.png")
    return tmp_path / "set"


def recipe(folder: Path, policy: dict[str, Any], **data: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "banners",
            "data": {"name": f"folder:{folder}", "image_size": 16, "workers": 0, **data},
            "model": {"name": "small_cnn", "width": 4},
            "policy": {"padding": "reflection", **policy},
            "train": {"epochs": 6, "batch_size": 8},
        }
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    "policy",
    [
        CROP,
        {"shift": {"max_pixels": 3.0}, "rescale": {"max_factor": 1.3, "p": 0.5}, **CROP, "flip": {"p": 0.5}},
        {"crop": {"min_area": 0.3, "p": 0.5}, "strength": 0.6},
        {"shift": {"max_pixels": 2.0, "blur_only": True}, **CROP},
        {**CROP, "ops": [{"op": "ColorJitter", "brightness": 0.4}]},
        {"ops": [{"op": "RandomSubpixelCrop", "area": [0.3, 1.0]}]},
    ],
)
def test_square_images_give_the_views_of_a_batch_of_squares(policy: dict[str, Any]) -> None:
    images = torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8, generator=generator())
    augment = Policy(padding="reflection", **policy).augment(normalize=([0.5], [0.25]), dtype=torch.float32)
    views = square_views(augment, 16)(Ragged.from_list(list(images)), generator=generator(1))
    assert torch.allclose(views, augment(images, generator=generator(1)), atol=1e-4)


@pytest.mark.parametrize(("tall", "decoded"), [(False, 32), (True, 32), (False, 64)])
def test_windows_lie_anywhere_in_the_image_at_the_scale_of_its_center_square(tall: bool, decoded: int) -> None:
    """On a ramp along the image, the middle and the slope of a view are the place and the length of its window."""
    side, length, count = 32, 4, 2000
    ramp = torch.linspace(0, 1, decoded * length).view(1, 1, -1).expand(1, decoded, -1)
    image = ramp.mT if tall else ramp
    augment = Policy(kernel="bilinear", padding="border", crop={"min_area": 0.25, "max_ratio": 1.0}).augment()
    views = square_views(augment, side)([image] * count, generator=generator())
    line = views[:, 0, :, side // 2] if tall else views[:, 0, side // 2]
    # In lengths of the image's shorter side, from its left end, the centers of pixels at both ends of a view.
    first, last = (line[:, k].double() * (length - 1 / decoded) + 0.5 / decoded for k in (4, side - 5))
    window = (last - first) * side / (side - 9)
    middle = (first + last) / 2
    assert window.min() >= 0.5 - 0.02
    assert window.max() <= 1 + 0.02
    assert window.square().mean() == pytest.approx(0.625, abs=0.02)  # areas are uniform from a quarter to all
    places = (middle - window / 2) / (length - window)  # 0 at the left end, 1 at the right end
    assert places.min() > -0.02
    assert places.max() < 1.02
    for share in (0.1, 0.25, 0.5, 0.9):
        assert places.quantile(share) == pytest.approx(share, abs=0.04)


def test_a_sample_that_is_not_cropped_shows_the_center_square() -> None:
    picture = torch.from_numpy(banner(32)).permute(2, 0, 1)
    for policy in ({"crop": {"min_area": 0.25, "p": 0.5}}, {"crop": {"min_area": 0.25}, "strength": 0.0}):
        augment = Policy(**policy).augment()
        views = square_views(augment, 32)([picture] * 64, generator=generator())
        center = (views == 128).flatten(1).all(1)
        spared = augment.matrix(torch.rand(64, augment.draws, generator=generator()), augment.strength, (32, 32))
        alone = (spared == torch.eye(3)).flatten(1).all(1)
        assert alone.any()
        assert center[alone].all()


def test_decoded_images_have_enough_pixels_for_the_smallest_window() -> None:
    """Stripes finer than the frame of the evaluation can hold are seen in a window of a quarter of its area."""
    picture = (torch.arange(256) // 2 % 2 * 255).to(torch.uint8).view(1, 1, -1).expand(1, 128, -1)
    augment = Policy(crop={"min_area": 0.25, "max_ratio": 1.0}).augment()
    fitting = augkit.Augment(*augment.ops, kernel=augment.kernel, size=(64, 64))
    draws = torch.tensor([[0.0, 0.0, 0.5, 0.5, 0.5]])  # the smallest window, in the middle
    matrix = fitting.matrix(draws, 1.0, (128, 256))
    assert torch.allclose(matrix, augment.matrix(draws, 1.0, (64, 64)) @ halved(picture), atol=1e-4)
    seen = fitting.render_each([picture], matrix)
    assert seen.double().std() > 80
    assert needed_side(augment, 64) == 128


def halved(picture: Tensor) -> Tensor:
    height, width = picture.shape[-2:]
    return torch.tensor([[[0.5, 0.0, 31.5 - 0.25 * (width - 1)], [0.0, 0.5, 31.5 - 0.25 * (height - 1)], [0, 0, 1.0]]])


@pytest.mark.parametrize("kernel", ["bilinear", "lanczos3"])
def test_a_picture_is_reduced_with_all_its_pixels(kernel: str) -> None:
    picture = torch.rand(1, 3, 64, 96, generator=generator())
    rarely = Policy(kernel=kernel, padding="border", crop={"min_area": 0.25, "p": 1e-6}).augment()
    matrix = torch.tensor([[[0.25, 0.0, 7.5 - 0.25 * 47.5], [0.0, 0.25, 7.5 - 0.25 * 31.5], [0.0, 0.0, 1.0]]])
    expected = augkit.resample(picture, matrix, (16, 16), kernel=kernel, padding="border")
    assert torch.allclose(square_views(rarely, 16)(list(picture), generator=generator()), expected, atol=1e-5)


class Seen(torch.nn.Module):
    """A network that keeps what it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.batches = torch.nn.Linear(3, 2), list[Tensor]()

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.batches.append(images.detach().clone())
        return self.linear(images.mean((-2, -1)))

    @property
    def ends(self) -> list[bool]:
        """Whether anything red, and anything blue, was seen."""
        seen = torch.cat(self.batches)
        return [bool((seen[:, k] - seen[:, 2 - k] > 1.5).any()) for k in (0, 2)]


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_reach_the_far_ends_of_images_in_memory_and_streamed(banners: Path, workers: int) -> None:
    seen = []
    for memory in (2048, 0):
        model = Seen()
        augkit.fit(recipe(banners, CROP, memory=memory, workers=workers if memory == 0 else 0), model=model)
        assert model.ends == [True, True]
        assert {tuple(batch.shape) for batch in model.batches} == {(8, 3, 16, 16)}
        seen.append(torch.cat(model.batches))
    assert torch.equal(*seen)


@pytest.mark.parametrize("policy", [{}, {"shift": {"max_pixels": 1.0}}, {"crop": {"min_area": 1.0}}])
def test_without_a_crop_and_in_evaluation_the_center_square_is_seen(policy: dict[str, Any], banners: Path) -> None:
    model = Seen()
    augkit.fit(recipe(banners, policy), model=model)
    assert model.ends == [False, False]
    dataset = load_data(recipe(banners, CROP).data)
    for part in (dataset.train, dataset.validation, dataset.open_test()):
        assert part.shape == (3, 16, 16)
        assert part.images.unique().tolist() == [128]


def test_it_goes_on_where_it_was_interrupted_bitwise(banners: Path, tmp_path: Path) -> None:
    own = recipe(banners, {**CROP, "flip": {"p": 0.5}}, memory=0)
    own = own.replaced(train={**own.train.model_dump(), "checkpoint_steps": 1})

    def stop(done: int, of: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    whole = augkit.fit(own)
    with pytest.raises(KeyboardInterrupt):
        augkit.fit(own, output=tmp_path / "run", on_step=stop)
    resumed = augkit.fit(own, output=tmp_path / "run", resume=True)
    for key, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


@pytest.mark.parametrize("memory", [0, 2048])
def test_several_processes_share_the_batches(banners: Path, memory: int) -> None:
    own = recipe(banners, CROP, memory=memory)
    feeds = [make_batches(load_data(own.data), own, torch.device("cpu"), Process(rank, 2)) for rank in (0, 1)]
    (one,) = [make_batches(load_data(own.data), own, torch.device("cpu"), Process())]
    for whole, *parts in zip(one.epoch(3), *(feed.epoch(3) for feed in feeds), strict=True):
        assert [len(part[0]) for part in parts] == [4, 4]
        for k, (image, label) in enumerate(zip(whole.images, whole.labels, strict=True)):
            batch, labels, *_ = parts[k % 2]
            assert torch.equal(batch[k // 2], image)
            assert labels[k // 2] == label


@pytest.mark.parametrize("memory", [0, 2048])
def test_broken_files_leave_every_image_with_its_label(banners: Path, memory: int) -> None:
    rng = np.random.default_rng(0)
    for k, path in enumerate(sorted(banners.rglob("*.png"))):
        level = 40 if path.parent.name == "a" else 200
        Image.fromarray(rng.integers(level, level + 20, (20, 30), dtype=np.uint8)).save(path)
        if k in (5, 11, 17):
            path.write_bytes(b"no image")
    own = recipe(banners, CROP, memory=memory, skip_corrupt=True, mean=[0.5], std=[0.5])
    dataset = load_data(own.data)
    whole = dataset.whole_train(32)
    assert whole is not None
    assert len(whole) == len(dataset.train)
    places = torch.arange(len(whole))
    (images,) = whole.batches([places])
    assert {tuple(image.shape) for image in images} == {(1, 20, 30)}
    levels = torch.stack([image.double().mean() for image in images])
    assert torch.equal((levels > 128).long(), dataset.train.labels)
    strict = own.replaced(data={**own.data.model_dump(), "skip_corrupt": False})
    with pytest.raises(InputError, match="cannot be read as an image"):
        load_data(strict.data).whole_train(32)


def test_worker_ops_are_applied_before_the_crop(banners: Path) -> None:
    model = Seen()
    invert = {"op": "InvertImg", "p": 1.0}
    augkit.fit(recipe(banners, {**CROP, "worker_ops": [invert]}), model=model)
    seen = torch.cat(model.batches)
    assert (seen[:, 1] - seen[:, 0] > 1.5).any()  # red became cyan, and blue yellow
    assert (seen[:, 1] - seen[:, 2] > 1.5).any()


def test_whole_images_are_kept_only_where_they_hold_more_pixels(banners: Path, tmp_path: Path) -> None:
    assert load_dataset(f"folder:{banners}", image_size=16).whole_train(16) is not None
    assert load_dataset("digits").whole_train(8) is None
    for k, path in enumerate(sorted(banners.rglob("*.png"))):
        Image.fromarray(banner()[:, : 24 + (k < 0)]).save(path)
    assert load_dataset(f"folder:{banners}").whole_train(16) is None  # all of one size, so `train` has them whole
    images = load_dataset(f"folder:{banners}", image_size=16).whole_train(12)
    assert images is not None
    assert images.size == 12 * 12 * 3
    assert images.held is not None
