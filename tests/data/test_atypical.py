"""Atypical versions: pure, seeded per image, independent of the batch, and with the documented effect."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from augkit.core.errors import InputError
from augkit.data import Images, atypical, atypical_versions, bundled, load_dataset
from augkit.data.atypical import Erase, Place, TextureShuffle, UpsideDown, place_beyond

STEPS = {
    "upside down": UpsideDown(),
    "texture shuffle": TextureShuffle(3),
    "erased": Erase(3),
    "out of range": Place(3, 3, 5, 1.0, 0.0),
    "out of range and scale": Place(3, 3, 5, 1.3, 0.5),
}


def random(count: int = 6, size: tuple[int, int] = (16, 20), channels: int = 3, seed: int = 0) -> torch.Tensor:
    shape = (count, channels, *size)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_steps_do_not_depend_on_the_batch_and_change_nothing_in_place(step: object) -> None:
    images, numbers = random(), torch.tensor([4, 9, 1, 0, 77, 5])
    before = images.clone()
    state = torch.get_rng_state()
    whole = step(images, numbers)  # type: ignore[operator]
    assert whole.dtype == torch.uint8
    assert whole.shape == images.shape
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state)
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    parts = [step(images[k : k + 1], numbers[k : k + 1]) for k in order.tolist()]  # type: ignore[operator]
    assert torch.equal(torch.cat(parts), whole[order])
    empty = step(images[:0], numbers[:0])  # type: ignore[operator]
    assert empty.shape == (0, 3, 16, 20)


@pytest.mark.parametrize("name", [name for name in STEPS if name != "upside down"])
def test_each_image_has_its_own_draw(name: str) -> None:
    same = random(1).expand(20, -1, -1, -1)
    found = STEPS[name](same, torch.arange(20))  # type: ignore[operator]
    assert len({tuple(image.flatten().tolist()) for image in found}) >= 15


def test_versions_keep_order_and_labels_and_follow_the_seed() -> None:
    images = Images(random(600, (12, 12), 1), torch.arange(600) % 5, background=0.25)
    versions = atypical_versions(images, seed=1, max_shift=2.0)
    assert list(versions) == ["upside down", "texture shuffle", "erased", "out of range"]
    again, other = (atypical_versions(images, seed=seed, max_shift=2.0) for seed in (1, 2))
    for name, version in versions.items():
        assert version.labels is images.labels
        assert version.background == 0.25
        assert torch.equal(version.images, again[name].images)
        assert torch.equal(version.images, other[name].images) == (name == "upside down")
        # Past the slices in which images are handled, too.
        assert torch.equal(version.images[300], STEPS_OF[name](images)(images.images[300:301], torch.tensor([300]))[0])
    assert "out of range" not in atypical_versions(images)


STEPS_OF = {
    "upside down": lambda images: UpsideDown(),
    "texture shuffle": lambda images: TextureShuffle(1),
    "erased": lambda images: Erase(1),
    "out of range": lambda images: place_beyond(images, 1, 2.0),
}


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 21), width=st.integers(1, 21), number=st.integers(0, 1000))
def test_a_texture_shuffle_permutes_patches(height: int, width: int, number: int) -> None:
    images = random(1, (height, width), seed=number)
    found = TextureShuffle(0)(images, torch.tensor([number]))[0].numpy()
    image, side = images[0].numpy(), max(1, min(height, width) // 4)
    corners = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    patches = [[a[:, y : y + side, x : x + side].tobytes() for y, x in corners] for a in (image, found)]
    assert sorted(patches[0]) == sorted(patches[1])
    rows, columns = height // side * side, width // side * side
    assert np.array_equal(found[:, rows:], image[:, rows:])
    assert np.array_equal(found[:, :, columns:], image[:, :, columns:])


def test_a_texture_shuffle_moves_nearly_all_patches() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(200, -1, -1, -1)
    moved = (TextureShuffle(0)(images, torch.arange(200)) != images).float().mean()
    assert float(moved) == pytest.approx(15 / 16, abs=0.03)  # a permutation of 16 has one fixed point on average


@settings(max_examples=40, deadline=None)
@given(height=st.integers(6, 40), width=st.integers(6, 40), number=st.integers(0, 10**6))
def test_a_rectangle_of_the_stated_area_is_erased_with_the_mean(height: int, width: int, number: int) -> None:
    images = torch.zeros(1, 1, height, width, dtype=torch.uint8)
    images[..., ::2, :] = 255
    images[..., 0, 0] = 254  # so that the mean is no value of the image
    erased = Erase(0)(images, torch.tensor([number]))[0, 0].numpy()
    mean = round(float(images.double().mean()))
    ys, xs = np.nonzero(erased == mean)
    assert len(ys) == (ys.max() - ys.min() + 1) * (xs.max() - xs.min() + 1)
    assert np.array_equal(erased[erased != mean], images[0, 0].numpy()[erased != mean])
    # Rounding of both sides, and an aspect that does not fit, take it off the range.
    tall, wide = ys.max() - ys.min() + 1, xs.max() - xs.min() + 1
    assert len(ys) <= 0.4 * height * width + (tall + wide) / 2 + 1
    if tall < height and wide < width:
        assert len(ys) >= 0.1 * height * width - (tall + wide) / 2 - 1


def test_content_is_placed_beyond_the_range_exactly() -> None:
    canvas = torch.full((300, 1, 41, 41), 51, dtype=torch.uint8)
    canvas[:, :, 20, 20] = 255
    images = Images(canvas, None, background=0.2)
    found = atypical_versions(images, max_shift=6.5)["out of range"].images
    ys, xs = (found[:, 0] == 255).nonzero(as_tuple=True)[1:]
    assert len(ys) == 300
    assert torch.equal(found.flatten(1).double().sum(1), canvas.flatten(1).double().sum(1))  # nothing else changed
    for offset in ((ys - 20), (xs - 20)):
        assert offset.abs().unique().tolist() == [7, 8, 9, 10, 11, 12, 13]
        assert 0.4 < (offset > 0).float().mean() < 0.6


def test_content_is_rescaled_beyond_the_range() -> None:
    y, x = torch.meshgrid(torch.arange(65.0), torch.arange(65.0), indexing="ij")
    spread = 4.0
    blob = (255 * torch.exp(-((y - 32) ** 2 + (x - 32) ** 2) / (2 * spread**2))).to(torch.uint8)
    images = Images(blob.expand(100, 1, -1, -1).contiguous(), None)
    found = atypical_versions(images, max_shift=2.0, max_factor=1.3)["out of range"].images.double()[:, 0]
    mass = found.sum((1, 2))
    cy, cx = ((found * axis).sum((1, 2)) / mass for axis in (y, x))
    variance = (found * ((y - cy[:, None, None]) ** 2 + (x - cx[:, None, None]) ** 2)).sum((1, 2)) / mass / 2
    reference = blob.double()
    own = (reference * ((y - 32) ** 2 + (x - 32) ** 2)).sum() / reference.sum() / 2
    factor = (variance / own).sqrt()
    larger = torch.maximum(factor, 1 / factor)
    assert bool((larger > 1.3 * 0.98).all())
    assert bool((larger < 1.3**2 * 1.02).all())
    assert 0.3 < (factor > 1).float().mean() < 0.7


def test_there_must_be_room_beyond_the_range() -> None:
    images = Images(random(2, (20, 30)), None)
    with pytest.raises(InputError, match="max_shift below 10 pixels, half of the canvas, got 10"):
        atypical_versions(images, max_shift=10)
    assert atypical_versions(images, max_shift=9.9)["out of range"].images.shape == (2, 3, 20, 30)
    for bad in ({"max_shift": -1.0}, {"max_shift": float("nan")}, {"max_shift": 1.0, "max_factor": 0.5}):
        with pytest.raises(InputError, match="expected max_shift >= 0 and max_factor >= 1"):
            atypical_versions(images, **bad)


@pytest.mark.parametrize(("data", "side"), [("mnist5k", 28), ("digits", 8)])
def test_another_hand_keeps_labels_and_the_size_of_digits(data: str, side: int) -> None:
    images = load_dataset(data).open_test(200)
    found = atypical(images, data=data)
    assert list(found) == ["another hand", "upside down", "photographs"]
    other = found["another hand"]
    assert (other.images.shape, other.images.dtype) == ((200, 1, side, side), torch.uint8)
    assert other.labels is not None
    assert len(other.labels.unique()) == 10

    def extent(pixels: torch.Tensor) -> float:
        """Rows that have ink, the mean over images."""
        return (pixels.amax((1, 3)) > 100).float().sum(1).mean().item()

    assert extent(other.images) == pytest.approx(extent(images.images), rel=0.2)
    # The same digits, by a classifier that knows nothing but the mean of each class.
    assert images.labels is not None
    flat = [each.images.float().flatten(1) for each in (images, other)]
    means = torch.stack([flat[0][images.labels == k].mean(0) for k in range(10)])
    answers = torch.cdist(flat[1], means).argmin(1)
    assert (answers == other.labels).float().mean() > 0.3
    assert torch.equal(other.images, atypical(images, data=data)["another hand"].images)


def test_other_data_are_inverted() -> None:
    images = Images(random(20, (12, 12), 1), torch.arange(20) % 5)
    assert (
        list(atypical(images)) == list(atypical(images, data="cifar10")) == ["inverted", "upside down", "photographs"]
    )


@pytest.mark.parametrize("shape", [(3, 450, 30), (1, 20, 700), (4, 12, 12)])
def test_photographs_have_the_size_and_channels_of_any_images(shape: tuple[int, int, int]) -> None:
    """Of images larger than a photograph and of images with several bands as well."""
    found = atypical(Images(torch.zeros(2, *shape, dtype=torch.uint8), None))["photographs"].images
    assert found.shape == (2, *shape)
    assert found.flatten(1).float().std(1).min() > 0
    if shape[0] == 4:
        assert torch.equal(found[:, 3], found[:, 0])


def test_photographs_and_digits_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read from its files, or through its functions where the files are not where they were."""
    from sklearn.datasets import load_digits, load_sample_images

    known, found = load_sample_images().images, load_digits()
    rows = np.concatenate([found.data, found.target[:, None]], axis=1)
    for _ in range(2):
        assert all(np.array_equal(a, b) for a, b in zip(bundled.photographs(), known, strict=True))
        assert np.array_equal(bundled._digit_rows(), rows)
        monkeypatch.setattr(bundled, "_sklearn_file", lambda *parts: None)


@pytest.mark.integration
def test_atypical_digits_do_not_import_scikit_learn_and_scipys_statistics() -> None:
    """Both take seconds, of every process of a search."""
    code = (
        "import sys, torch; from augkit.data import Images, atypical;"
        "atypical(Images(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), None), data='mnist5k');"
        "print({'sklearn', 'pandas', 'scipy.stats'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
