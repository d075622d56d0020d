"""Whole images of different sizes: one buffer in memory, one batch at a time from a stream, the same pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import noise
from PIL import Image
from torch import Tensor

from augkit import Ragged
from augkit.core.errors import InputError
from augkit.data import WholeImages, load_dataset

COUNT = 40


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEG files of two classes, upright and lying, of 30 to 69 pixels along the shorter side."""
    folder = tmp_path_factory.mktemp("photographs")
    for k in range(COUNT):
        (folder / "ab"[k % 2]).mkdir(exist_ok=True)
        size = (30 + k, 80 - k // 3) if k % 3 else (80 - k // 3, 30 + k)
        Image.fromarray(noise(k, (*size, 3))).save(folder / "ab"[k % 2] / f"{k:02d}.jpg", quality=90)
    return folder


def opened(folder: Path, *, memory: int = 2**30, workers: int = 0, decode_size: int | None = None) -> WholeImages:
    dataset = load_dataset(f"folder:{folder}", image_size=16, memory=memory, workers=workers, decode_size=decode_size)
    whole = dataset.whole_train(32)
    assert whole is not None
    return whole


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_yields_the_batches_of_images_in_memory(photographs: Path, workers: int) -> None:
    held, stream = opened(photographs), opened(photographs, memory=0, workers=workers)
    assert isinstance(held.held, Ragged)
    assert stream.held is None
    places = torch.randperm(len(held)).split(7)
    cpu = torch.device("cpu")
    for ours, theirs in zip(held.batches(places, cpu), stream.batches(places, cpu), strict=True):
        assert torch.equal(ours.sizes, theirs.sizes)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
        assert ours.values.data_ptr() == held.held.values.data_ptr()  # nothing is copied
    assert list(stream.batches([])) == []


def test_the_decode_size_replaces_what_the_smallest_crop_needs(photographs: Path) -> None:
    held = [opened(photographs, decode_size=side).held for side in (None, 16, 50, 1000)]
    shorter = [images.sizes.min(dim=1).values for images in held if images is not None]
    assert shorter[0].unique().tolist() == [30, 31, 32]  # at most 32, which no image is enlarged to
    assert shorter[1].unique().tolist() == [16]
    assert shorter[2].max() == 50
    assert shorter[3].max() > 60
    assert torch.equal(shorter[3].clamp(max=50), shorter[2])


def saved(folder: Path, shorter: int, suffix: str) -> Path:
    """Equal images, enough for a training split; one of their files."""
    for k in range(20):
        path = folder / "ab"[k % 2] / f"{k}.{suffix}"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(noise(0, (shorter, shorter + 10, 3))).save(path)
    return path


def stored(folder: Path, decode_size: int) -> Tensor:
    """An image as training keeps it."""
    whole = load_dataset(f"folder:{folder}", image_size=16, decode_size=decode_size).whole_train(32)
    assert whole is not None
    assert whole.held is not None
    return whole.held[-1]


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("shorter", [40, 64, 70])
def test_an_image_at_or_below_the_decode_size_keeps_its_pixels(tmp_path: Path, shorter: int, suffix: str) -> None:
    with Image.open(saved(tmp_path, shorter, suffix)) as file:
        expected = torch.from_numpy(np.array(file)).permute(2, 0, 1)
    assert torch.equal(stored(tmp_path, 70), expected)


@pytest.mark.parametrize(("shorter", "fraction"), [(139, 2), (140, 2), (277, 4), (280, 4), (553, 8), (560, 8)])
def test_a_fraction_of_a_jpeg_file_that_has_the_decode_size_is_not_resampled(
    tmp_path: Path, shorter: int, fraction: int
) -> None:
    with Image.open(saved(tmp_path, shorter, "jpg")) as file:
        file.draft(None, (shorter // fraction, shorter // fraction))
        expected = torch.from_numpy(np.array(file)).permute(2, 0, 1)
    assert min(expected.shape[1:]) == 70
    assert torch.equal(stored(tmp_path, 70), expected)


@pytest.mark.parametrize(("shorter", "fraction"), [(71, 1), (138, 1), (141, 2), (276, 2), (300, 4), (600, 8)])
def test_a_larger_image_is_reduced_once_from_the_smallest_fraction_that_suffices(
    tmp_path: Path, shorter: int, fraction: int
) -> None:
    with Image.open(saved(tmp_path, shorter, "jpg")) as file:
        file.draft(None, (shorter // fraction, shorter // fraction))
        assert min(file.size) > 70
        size = (max(1, round(file.size[0] * 70 / min(file.size))), 70)
        expected = torch.from_numpy(np.array(file.resize(size, Image.Resampling.LANCZOS))).permute(2, 0, 1)
    assert torch.equal(stored(tmp_path, 70), expected)


def test_images_larger_than_estimated_still_fit_the_buffer(tmp_path: Path) -> None:
    """Only every other image is looked at, and these are small."""
    for k in range(64 * 2):
        (tmp_path / "train" / "ab"[k // 64]).mkdir(parents=True, exist_ok=True)
        side = 20 + 40 * (k % 4 > 0)
        Image.fromarray(np.full((side, side + k % 2), k, np.uint8)).save(
            tmp_path / "train" / "ab"[k // 64] / f"{k:03d}.png"
        )
    dataset = load_dataset(f"folder:{tmp_path}", image_size=16)
    whole = dataset.whole_train(60)
    assert whole is not None
    assert whole.held is not None
    levels = [int(image.unique()) for image in whole.held]
    assert whole.held.nbytes == len(whole.held.values)
    indices = whole.stream.indices.tolist()
    assert [int(Path(whole.stream.source.name(k).strip("'")).stem) for k in indices] == levels


def filled_by_number(pixels: Tensor, numbers: Tensor) -> Tensor:
    return torch.zeros_like(pixels) + numbers.view(-1, 1, 1, 1).to(torch.uint8)


def test_worker_steps_see_one_image_at_a_time_with_its_number(photographs: Path) -> None:
    held = opened(photographs)
    (batch,) = held.batches([torch.tensor([3, 0])], step=filled_by_number)
    assert [int(image.unique()) for image in batch] == held.stream.indices[[3, 0]].tolist()


def test_a_broken_image_of_a_stream_is_named(photographs: Path, tmp_path: Path) -> None:
    for path in photographs.rglob("*.jpg"):
        (tmp_path / path.parent.name).mkdir(exist_ok=True)
        (tmp_path / path.parent.name / path.name).write_bytes(path.read_bytes())
    stream = opened(tmp_path, memory=0)
    name = stream.stream.source.name(int(stream.stream.indices[2]))
    Path(name.strip("'")).write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read as an image"):
        list(stream.batches([torch.arange(4)]))
