"""Folders of images: classes and splits, links, every kind of file, and what is left out and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded, noise, sizes, write_folder
from PIL import Image

from augkit.core.errors import InputError
from augkit.data import load_dataset


def test_a_flat_folder_is_unlabeled_and_all_of_it_is_the_test_split(tmp_path: Path) -> None:
    write_folder(tmp_path, {"set": 12})
    (tmp_path / "set" / "notes.txt").write_text("passed over")
    (tmp_path / "set" / "._000.png").write_bytes(b"passed over")
    dataset = load_dataset(f"folder:{tmp_path / 'set'}")
    assert sizes(dataset) == [0, 0, 12]
    assert dataset.classes == []
    test = dataset.open_test()
    assert test.labels is None
    assert torch.equal(
        test.images[3], torch.from_numpy(np.array(Image.open(tmp_path / "set" / "003.png"))).permute(2, 0, 1)
    )
    assert torch.equal(dataset.open_test(5, seed=1).images, dataset.open_test(5, seed=1).images)
    assert len(dataset.open_test(5)) == 5


def test_folders_of_splits_keep_them(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 20, "dog": 20})
    write_folder(tmp_path / "val", {"cat": 3, "dog": 2})
    dataset = load_dataset(f"folder:{tmp_path}")
    assert sizes(dataset) == [36, 4, 5]  # without a test split, its own validation is the test split
    write_folder(tmp_path / "test", {"dog": 4})
    dataset = load_dataset(f"folder:{tmp_path}")
    assert sizes(dataset) == [40, 5, 4]
    assert dataset.open_test().labels.tolist() == [1] * 4  # type: ignore[union-attr]
    write_folder(tmp_path / "test", {"dgo": 4})
    with pytest.raises(InputError, match=r"unknown class folder in .*test': 'dgo'.*did you mean 'dog'"):
        load_dataset(f"folder:{tmp_path}")


def test_images_beside_class_folders_are_not_silently_dropped(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 4, "b": 4})
    Image.new("RGB", (8, 8)).save(tmp_path / "loose.png")
    with pytest.raises(InputError, match=r"1 images lie beside the class folders, such as 'loose\.png'"):
        load_dataset(f"folder:{tmp_path}")


@pytest.mark.parametrize(
    "suffix", ["ppm", "pgm", "jfif", "JPE", "gif", "bmp", "tga", "jp2", "pcx", "TIF", "webp", "qoi"]
)
def test_every_kind_of_file_that_pillow_reads_is_an_image(suffix: str, tmp_path: Path) -> None:
    kind = {"jfif": "JPEG", "jpe": "JPEG", "pgm": "PPM"}.get(suffix.lower())
    Image.init()
    if suffix == "qoi" and "QOI" not in Image.SAVE:
        pytest.skip("Pillow before 11.3 reads QOI but does not write it")
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(5):
            Image.fromarray(noise(k)).save(tmp_path / name / f"{k}.{suffix}", kind)
    dataset = load_dataset(f"folder:{tmp_path}")
    assert sum(sizes(dataset)) == 10
    assert (dataset.skipped, dataset.notes) == ({}, [])


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", {"a": 4, "b": 4})
    store = write_folder(tmp_path / "store", {"more": 10, "c": 5})
    (folder / "a" / "more").symlink_to(store / "more")
    (folder / "c").symlink_to(store / "c")
    (folder / "b" / "one.png").symlink_to(store / "c" / "000.png")
    (folder / "b" / "round").symlink_to(folder / "b")
    (folder / "b" / "deep").mkdir()
    (folder / "b" / "deep" / "up").symlink_to("..")
    (folder / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (folder / "b" / "self.png").symlink_to(folder / "b" / "self.png")
    dataset = load_dataset(f"folder:{folder}")
    assert dataset.classes == ["a", "b", "c"]
    assert sum(sizes(dataset)) == 14 + 5 + 5
    assert dataset.skipped == {
        f"'{folder / 'b' / 'round'}'": "a link to a folder that it lies in",
        f"'{folder / 'b' / 'deep' / 'up'}'": "a link to a folder that it lies in",
        f"'{folder / 'b' / 'gone.png'}'": "a link to nothing",
        f"'{folder / 'b' / 'self.png'}'": "a link to nothing",
    }


@pytest.mark.parametrize("splits", [False, True])
def test_every_file_that_is_left_out_is_named(splits: bool, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "train" if splits else tmp_path, {"a": 4, "b": 4})
    if splits:
        write_folder(tmp_path / "val", {"a": 2, "b": 2})
        Image.new("RGB", (8, 8)).save(tmp_path / "sheet.png")
    (tmp_path / ".cache").mkdir()
    for path in (tmp_path / "labels.csv", folder / "a" / "notes.txt", folder / "b" / ".x.png", folder / "b" / "000"):
        path.write_text("no image")
    dataset = load_dataset(f"folder:{tmp_path}")
    expected = {
        f"'{tmp_path / '.cache'}'": "a hidden folder",
        f"'{tmp_path / 'labels.csv'}'": "Pillow reads no .csv files",
        f"'{folder / 'a' / 'notes.txt'}'": "Pillow reads no .txt files",
        f"'{folder / 'b' / '.x.png'}'": "a hidden file",
        f"'{folder / 'b' / '000'}'": "a file without a suffix",
    }
    if splits:
        expected[f"'{tmp_path / 'sheet.png'}'"] = "beside the folders of the splits"
    assert dataset.skipped == expected
    (note,) = dataset.notes
    assert note.startswith(f"left out {len(expected)} of the files: '{tmp_path / '.cache'}' (a hidden folder); ")
    assert note.endswith(f"; and {len(expected) - 3} more")


def test_a_class_without_images_is_an_error_that_counts_other_files(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 4, "b": 2})
    (tmp_path / "b" / "x.mp4").write_text("no image")
    with pytest.raises(InputError, match="class 'b' has 2 images, and 1 other files, expected 3 or more"):
        load_dataset(f"folder:{tmp_path}")


def test_folders_with_nothing_in_them(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="or images, there are none"):
        load_dataset(f"folder:{tmp_path}")
    with pytest.raises(InputError, match="expected folder:DIR, parquet:DIR, hf:NAME"):
        load_dataset("folder:")


def test_mixed_sizes_are_refused_early_and_can_be_fitted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 50, "b": 50})
    Image.new("RGB", (9, 12)).save(folder / "b" / "049.png")
    with pytest.raises(InputError, match=r"049\.png': expected 8 x 8 pixels as '.*000\.png', got 9 x 12; resize"):
        load_dataset(f"folder:{folder}")
    assert load_dataset(f"folder:{folder}", image_size=5).train.shape == (3, 5, 5)


def test_a_folder_that_may_not_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise PermissionError(13, "Permission denied")

    write_folder(tmp_path, {"a": 4, "b": 4})
    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(InputError, match=r"dataset 'folder:.*': cannot be read \(Permission denied\)"):
        load_dataset(f"folder:{tmp_path}")


def test_channels_follow_the_images_or_the_wish(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 40, "b": 40}, mode="L")
    name = f"folder:{folder}"
    assert load_dataset(name).train.shape == (1, 8, 8)
    rgb = load_dataset(name, channels=3).train
    assert torch.equal(rgb.images, load_dataset(name).train.images.expand(-1, 3, -1, -1))
    Image.fromarray(noise(0)).save(folder / "a" / "004.png")  # not among those looked at
    with pytest.raises(InputError, match=r"004\.png': expected a gray image as .*; set channels"):
        _ = load_dataset(name).train
    assert load_dataset(name, channels=1).train.shape == (1, 8, 8)
    assert load_dataset("digits", channels=3).train.shape == (3, 8, 8)
    with pytest.raises(InputError, match="expected 1 or 3, got 2"):
        load_dataset("digits", channels=2)


def test_arrays_of_color_become_gray_as_pillow_does(tmp_path: Path) -> None:
    from augkit.data import Images

    color = noise(0, (5, 5, 3))
    gray = Images(torch.from_numpy(color).permute(2, 0, 1)[None], None).with_channels(1)
    expected = np.asarray(Image.fromarray(color).convert("L")).astype(int)
    assert np.abs(gray.images[0, 0].numpy() - expected).max() <= 1


# Broken files


def test_broken_files_are_named_or_counted(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 20, "b": 20})
    whole = load_dataset(f"folder:{folder}")
    assert sizes(whole) == [28, 4, 8]
    jpeg = encoded(noise(0, (8, 8, 3)), "jpeg")
    (folder / "a" / "004.png").write_bytes(jpeg[:-100])
    (folder / "b" / "000.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"(004|000)\.png': cannot be read as an image .*skip_corrupt"):
        _ = load_dataset(f"folder:{folder}").train
    dataset = load_dataset(f"folder:{folder}", skip_corrupt=True)
    parts = [dataset.train, dataset.validation, dataset.open_test()]
    assert sorted(Path(name.strip("'")).name for name in dataset.skipped) == ["000.png", "004.png"]
    assert all("cannot be read" in reason for reason in dataset.skipped.values())
    # Every other image is where it was, with its label.
    for part, before in zip(parts, [whole.train, whole.validation, whole.open_test()], strict=True):
        rows = {
            tuple(image.flatten().tolist()): int(label)
            for image, label in zip(before.images, before.labels, strict=True)
        }  # type: ignore[arg-type]
        for image, label in zip(part.images, part.labels, strict=True):  # type: ignore[arg-type]
            assert rows[tuple(image.flatten().tolist())] == int(label)
    assert sum(map(len, parts)) == 38


def test_a_folder_where_nothing_can_be_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(3):
            (tmp_path / name / f"{k}.png").write_bytes(b"no")
    with pytest.raises(InputError, match=r"none of 6 can be read, such as '.*0\.png'"):
        load_dataset(f"folder:{tmp_path}", skip_corrupt=True)


def test_the_size_is_taken_from_an_image_that_can_be_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 120}) / "a"
    for path in sorted(folder.rglob("*.png"))[:-1]:
        path.write_bytes(b"no")
    dataset = load_dataset(f"folder:{folder}", skip_corrupt=True)
    assert dataset.open_test().images.shape == (1, 3, 8, 8)
    assert len(dataset.skipped) == 119
