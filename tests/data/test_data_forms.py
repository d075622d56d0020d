"""Folders, parquet tables, datasets of the hub and of torchvision: labels, classes, splits, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import cells, encoded, noise, write_folder, write_parquet
from PIL import Image

from augkit.core.errors import InputError
from augkit.data import load_dataset
from augkit.data.stream import Reading
from augkit.data.torchvision import canonical, labels_of, read_items


def sizes(dataset: Any) -> list[int]:
    return [len(part) for part in (dataset.train, dataset.validation, dataset.open_test())]


def pixels(seed: int, shape: tuple[int, ...] = (8, 8, 3)) -> torch.Tensor:
    array = torch.from_numpy(noise(seed, shape))
    return array.permute(2, 0, 1) if array.ndim == 3 else array[None]


# Channels


def test_channels_follow_the_images_or_the_wish(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 40, "b": 40}, mode="L")
    name = f"folder:{folder}"
    assert load_dataset(name).train.shape == (1, 8, 8)
    rgb = load_dataset(name, channels=3).train
    assert torch.equal(rgb.images, load_dataset(name).train.images.expand(-1, 3, -1, -1))
    Image.fromarray(noise(0)).save(folder / "a" / "004.png")  # not among those looked at
    with pytest.raises(InputError, match=r"004\.png': expected a grey image as .*; set channels"):
        _ = load_dataset(name).train
    assert load_dataset(name, channels=1).train.shape == (1, 8, 8)
    assert load_dataset("digits", channels=3).train.shape == (3, 8, 8)
    with pytest.raises(InputError, match="expected 1 or 3, got 2"):
        load_dataset("digits", channels=2)


def test_arrays_of_colour_become_grey_as_pillow_does(tmp_path: Path) -> None:
    from augkit.data import Images

    colour = noise(0, (5, 5, 3))
    grey = Images(torch.from_numpy(colour).permute(2, 0, 1)[None], None).with_channels(1)
    expected = np.asarray(Image.fromarray(colour).convert("L")).astype(int)
    assert np.abs(grey.images[0, 0].numpy() - expected).max() <= 1


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
    folder = write_folder(tmp_path, {"a": 60, "b": 60})
    for path in sorted(folder.rglob("*.png"))[:-1]:
        path.write_bytes(b"no")
    dataset = load_dataset(f"folder:{folder}", skip_corrupt=True)
    assert dataset._parts["train"].shape == (3, 8, 8)
    assert len(dataset.open_whole()) == 1
    assert len(dataset.skipped) == 119


# Labels files


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("names.txt", "bird\ndog\nfish\ncat\n"),
        ("names.json", json.dumps(["bird", "dog", "fish", "cat"])),
        ("names.json", json.dumps({"3": ["cat", "puss"], "0": ["bird", "b"], "1": ["dog", "d"], "2": ["fish", "f"]})),
        ("names.csv", "folder,index\ncat,3\ndog,1\nbird,0\nfish,2\n"),
        ("names.csv", "cat,3\ndog,1\nbird,0\nfish,2\n"),
    ],
)
def test_labels_files_map_folders_to_outputs(file: str, text: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", {"cat": 10, "dog": 10})
    (tmp_path / file).write_text(text)
    plain = load_dataset(f"folder:{folder}")
    mapped = load_dataset(f"folder:{folder}", labels_file=tmp_path / file)
    assert mapped.classes == ["bird", "dog", "fish", "cat"]
    for one, other in ((plain.train, mapped.train), (plain.open_test(), mapped.open_test())):
        assert torch.equal(one.images, other.images)  # the splits do not depend on the file
        assert other.labels.tolist() == [[3, 1][k] for k in one.labels.tolist()]  # type: ignore[union-attr]
    assert set(mapped.open_whole().labels.tolist()) == {1, 3}  # type: ignore[union-attr]


def test_a_labels_file_makes_one_class_enough(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", {"dog": 5})
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert load_dataset(f"folder:{folder}", labels_file=tmp_path / "names.txt").open_whole().labels.tolist() == [1] * 5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("n.txt", "dgo\ncat\n", r"unknown class in '.*n\.txt': 'dog': did you mean 'dgo'"),
        ("n.txt", "cat\n\ndog\n", "line 2 is empty"),
        ("n.txt", "", "it is empty"),
        ("n.txt", "cat\ndog\ncat\n", "'cat' stands for 0 and for 2"),
        ("n.json", "[1, 2]", "1 is not a name"),
        ("n.json", "{", "expected names one a line, JSON"),
        ("n.json", "3", "a JSON int"),
        ("n.json", '{"x": "cat"}', "'x' is not the number of a class"),
        ("n.csv", "cat,0\ndog\n", "a line that is not folder,index"),
        ("n.csv", "cat,0\ndog,one\n", "'one' is not the number"),
        ("none.txt", None, "No such file"),
    ],
)
def test_bad_labels_files(file: str, text: str | None, message: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", {"cat": 4, "dog": 4})
    if text is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(f"folder:{folder}", labels_file=tmp_path / file)
    assert "\n" not in str(caught.value)


# Parquet


def test_parquet_with_splits(tmp_path: Path) -> None:
    labels = [k % 2 for k in range(40)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", cells(0, 22), labels[:22], names=["cat", "dog"])
    write_parquet(tmp_path / "train-00001-of-00002.parquet", cells(22, 18), labels[22:], names=["cat", "dog"])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", cells(100, 7), [1] * 7, names=["cat", "dog"])
    dataset = load_dataset(f"parquet:{tmp_path}")
    assert sizes(dataset) == [36, 4, 7]
    assert dataset.classes == ["cat", "dog"]
    test = dataset.open_test()
    assert torch.equal(test.images, torch.stack([pixels(100 + k) for k in range(7)]))
    everything = torch.cat([dataset.train.images, dataset.validation.images])
    of = {tuple(pixels(k).flatten().tolist()): labels[k] for k in range(40)}
    found = [of[tuple(image.flatten().tolist())] for image in everything]
    assert found == torch.cat([dataset.train.labels, dataset.validation.labels]).tolist()  # type: ignore[list-item]
    assert len(of) == 40


def test_parquet_without_splits_names_or_labels(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a" / "data.parquet", cells(0, 30), [2, 0, 1] * 10)
    dataset = load_dataset(f"parquet:{tmp_path / 'a'}")
    assert sizes(dataset) == [21, 3, 6]
    assert dataset.classes == ["0", "1", "2"]
    write_parquet(tmp_path / "b" / "data.parquet", cells(0, 5, (8, 8)), None)
    dataset = load_dataset(f"parquet:{tmp_path / 'b' / 'data.parquet'}")
    assert sizes(dataset) == [0, 0, 5]
    assert dataset.open_test().labels is None
    assert dataset.open_test().shape == (1, 8, 8)


def test_parquet_of_imagenet_kind_measures_on_validation(tmp_path: Path) -> None:
    """Its test labels are not public, -1; the folders name the splits, as in the hub's own conversion."""
    write_parquet(tmp_path / "train" / "0000.parquet", cells(0, 20), [0, 1] * 10, names=["x", "y"])
    write_parquet(tmp_path / "validation" / "0000.parquet", cells(30, 6), [1, 0] * 3, names=["x", "y"])
    write_parquet(tmp_path / "test" / "0000.parquet", cells(50, 9), [-1] * 9, names=["x", "y"])
    dataset = load_dataset(f"parquet:{tmp_path}")
    assert sizes(dataset) == [18, 2, 6]
    assert dataset.open_test().labels.tolist() == [1, 0] * 3  # type: ignore[union-attr]


def test_parquet_is_found_through_links_and_hidden_files_are_not(tmp_path: Path) -> None:
    write_parquet(tmp_path / "store" / "part.parquet", cells(0, 20), [0, 1] * 10)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train").symlink_to(tmp_path / "store")
    write_parquet(tmp_path / "set" / "test.pq", cells(50, 5), [1] * 5)
    (tmp_path / "set" / "._test.parquet").write_bytes(b"no table")
    assert sizes(load_dataset(f"parquet:{tmp_path / 'set'}")) == [18, 2, 5]


def test_parquet_cells_may_name_a_file(tmp_path: Path) -> None:
    Image.fromarray(noise(0)).save(tmp_path / "x.png")
    rows = [*cells(1, 3), {"bytes": None, "path": "x.png"}]
    write_parquet(tmp_path / "test.parquet", rows, [0, 1, 0, 1])
    assert torch.equal(load_dataset(f"parquet:{tmp_path}").open_test().images[3], pixels(0))


def test_broken_rows_of_parquet_are_named(tmp_path: Path) -> None:
    rows = cells(0, 50)
    rows[9] = {"bytes": rows[9]["bytes"][:60], "path": None}
    rows[17] = {"bytes": None, "path": None}
    write_parquet(tmp_path / "test-0.parquet", cells(100, 30), [0] * 30)
    write_parquet(tmp_path / "test-1.parquet", rows, [1] * 50)
    with pytest.raises(InputError, match=r"test-1\.parquet' row 9: cannot be read as an image"):
        load_dataset(f"parquet:{tmp_path}").open_test()
    dataset = load_dataset(f"parquet:{tmp_path}", skip_corrupt=True)
    assert len(dataset.open_test()) == 78
    assert [name.rpartition(" ")[2] for name in dataset.skipped] == ["9", "17"]
    assert "the cell is empty" in list(dataset.skipped.values())[1]


def test_bad_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def refused(message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            _ = load_dataset(f"parquet:{tmp_path}").train
        assert "\n" not in str(caught.value)

    refused("expected parquet files, there are none")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    refused("cannot be read as parquet")
    pq.write_table(pa.table({"text": ["x"], "label": [0]}), tmp_path / "a.parquet")
    refused(r"expected one struct column with bytes, the images, got text \(string\), label \(int64\)")
    write_parquet(tmp_path / "a.parquet", cells(0, 4), [0, None, 1, 0])
    refused("1 of 4 are negative or missing")
    write_parquet(tmp_path / "a.parquet", cells(0, 4), [0, 1, 2, 0], names=["x", "y"])
    refused("2 class names, got label 2")
    write_parquet(tmp_path / "a.parquet", [], [])
    refused("expected rows")
    write_parquet(tmp_path / "a.parquet", cells(0, 4), [0, 1, 0, 1])
    write_parquet(tmp_path / "train.parquet", cells(0, 4), [0, 1, 0, 1])
    refused(r"expected names such as train-\*\.parquet and test-\*\.parquet, got 'a\.parquet'")
    (tmp_path / "a.parquet").unlink()
    write_parquet(tmp_path / "other" / "train.parquet", cells(0, 4), [0, 1, 0, 1])
    refused("train files lie in several folders")
    (tmp_path / "other" / "train.parquet").unlink()
    write_parquet(tmp_path / "test.parquet", cells(0, 4, (9, 9, 3)), [0, 1, 0, 1])
    refused("expected one size, got test 9 x 9, train 8 x 8 pixels; set data.image_size")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    refused(r"pyarrow is not installed; pip install 'augkit\[parquet\]'")


def test_two_integer_columns_need_a_usual_name(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    images = pa.array(cells(0, 6), pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    for names, message in ((("fine_label", "coarse_label"), None), (("width", "height"), "got width, height; call it")):
        columns = {"img": images, names[0]: [0, 1] * 3, names[1]: [5] * 6}
        pq.write_table(pa.table(columns), tmp_path / "test.parquet")
        if message is None:
            assert load_dataset(f"parquet:{tmp_path}").open_test().labels.tolist() == [0, 1] * 3  # type: ignore[union-attr]
        else:
            with pytest.raises(InputError, match=message):
                load_dataset(f"parquet:{tmp_path}")


# The hub's library, on local folders


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


@pytest.mark.usefixtures("offline")
def test_hub_datasets_in_a_local_folder(tmp_path: Path) -> None:
    write_parquet(tmp_path / "set" / "train-0.parquet", cells(0, 20), [0, 1] * 10, names=["cat", "dog"])
    write_parquet(tmp_path / "set" / "test-0.parquet", cells(50, 5), [1] * 5, names=["cat", "dog"])
    dataset = load_dataset(f"hf:{tmp_path / 'set'}", root=tmp_path / "cache")
    assert sizes(dataset) == [18, 2, 5]
    assert dataset.classes == ["cat", "dog"]
    assert torch.equal(dataset.open_test().images, torch.stack([pixels(50 + k) for k in range(5)]))
    same = load_dataset(f"parquet:{tmp_path / 'set'}")
    assert torch.equal(same.train.images, dataset.train.images)
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_dataset(f"hf:{tmp_path / 'set'}:nothing", root=tmp_path / "cache")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("offline")
def test_hub_datasets_saved_to_disk(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    rows = {"image": cells(0, 12), "label": [0, 1] * 6}
    saved = datasets.Dataset.from_dict(rows, features)
    saved.save_to_disk(str(tmp_path / "one"), num_proc=None)
    dataset = load_dataset(f"hf:{tmp_path / 'one'}")
    assert sum(sizes(dataset)) == 12
    assert torch.equal(dataset.open_whole().images, torch.stack([pixels(k) for k in range(12)]))
    datasets.DatasetDict({"odd": saved, "even": saved}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(InputError, match="expected splits train, validation, test, got odd, even"):
        load_dataset(f"hf:{tmp_path / 'two'}")
    broken = {"image": [*cells(0, 9), {"bytes": b"no", "path": None}], "label": [0, 1] * 5}
    datasets.Dataset.from_dict(broken, features).save_to_disk(str(tmp_path / "three"))
    with pytest.raises(InputError, match="all row 9: cannot be read as an image"):
        load_dataset(f"hf:{tmp_path / 'three'}").open_whole()


# torchvision


def test_names_of_torchvision_in_any_case() -> None:
    assert [canonical(name) for name in ("FashionMNIST", "fashion_mnist", "OxfordIIITPet", "CIFAR-100", "vision")] == [
        "fashion-mnist",
        "fashion-mnist",
        "oxfordiiitpet",
        "cifar100",
        None,
    ]
    with pytest.raises(InputError, match="did you mean 'flowers102'"):
        load_dataset("Flower102".lower())


def test_every_dataset_named_is_in_torchvision_with_these_keywords() -> None:
    import inspect

    from torchvision import datasets

    from augkit.data.torchvision import TORCHVISION

    for kind, splits in TORCHVISION.values():
        accepted = inspect.signature(getattr(datasets, kind).__init__).parameters
        extra = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
        for keywords in splits.values():
            assert extra or set(keywords) | {"download"} <= set(accepted), kind


def test_pets_in_torchvisions_layout(tmp_path: Path) -> None:
    """A dataset with splits of its own, files that are decoded when needed, and mixed sizes."""
    base = tmp_path / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations").mkdir()
    for split, first, count in (("trainval", 0, 20), ("test", 20, 6)):
        lines = []
        for k in range(first, first + count):
            name = f"{['Abyssinian', 'beagle'][k % 2]}_{k}"
            Image.fromarray(noise(k, (10 + k % 3, 12, 3))).save(base / "images" / f"{name}.jpg", quality=95)
            lines.append(f"{name} {k % 2 + 1} 1 1\n")
        (base / "annotations" / f"{split}.txt").write_text("".join(lines))
    with pytest.raises(InputError, match=r"oxfordiiitpet, train image \d+: expected 12 x 10 pixels"):
        load_dataset("OxfordIIITPet", root=tmp_path)
    dataset = load_dataset("OxfordIIITPet", root=tmp_path, image_size=8)
    assert sizes(dataset) == [18, 2, 6]
    assert dataset.classes == ["Abyssinian", "Beagle"]
    assert dataset.open_test().labels.tolist() == [0, 1] * 3  # type: ignore[union-attr]


def test_eurosat_has_no_splits_of_its_own(tmp_path: Path) -> None:
    write_folder(tmp_path / "eurosat" / "2750", {"Forest": 10, "River": 20})
    dataset = load_dataset("eurosat", root=tmp_path)
    assert sizes(dataset) == [21, 3, 6]
    assert dataset.classes == ["Forest", "River"]


class Pairs:
    """A dataset that keeps no list of labels."""

    def __init__(self, count: int, **attributes: Any) -> None:
        self.count = count
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(noise(index)), index % 3


def test_labels_and_arrays_are_used_only_where_they_agree_with_the_items() -> None:
    truth = [k % 3 for k in range(10)]
    array = np.stack([noise(k) for k in range(10)])
    for attributes in ({}, {"targets": truth}, {"targets": [[k, 0] for k in truth]}, {"labels": [1] * 10}):
        assert labels_of(Pairs(10, **attributes)).tolist() == truth
    assert labels_of(Pairs(10, _samples=[(f"{k}.png", k % 3) for k in range(10)])).tolist() == truth
    for data in (array, array.transpose(0, 3, 1, 2), None, array[::-1].copy(), array[:5]):
        found = read_items(Pairs(10, data=data), "pairs", Reading())
        assert type(found).__name__ == (
            "Images" if data is array or (data is not None and data.shape[1] == 3) else "Stream"
        )
        images = found.images if found.images.device.type == "cpu" else found.load().images  # type: ignore[attr-defined]
        assert torch.equal(images, torch.stack([pixels(k) for k in range(10)]))


def test_fake_data_of_torchvision() -> None:
    from torchvision.datasets import FakeData

    fake = FakeData(6, (3, 9, 7), 4)
    found = read_items(fake, "fake", Reading())
    assert found.labels.tolist() == [int(fake[k][1]) for k in range(6)]  # type: ignore[union-attr]
    assert found.shape == (3, 9, 7)


def test_missing_data_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def fails(*_: Any, **keywords: Any) -> None:
        raise RuntimeError("Dataset not found.\nsecond line" if not keywords["download"] else "no route\nsecond line")

    monkeypatch.setattr(datasets, "SVHN", fails)
    with pytest.raises(InputError, match=r"dataset 'svhn': not found in .*\(no route\); set data\.root") as caught:
        load_dataset("SVHN", root=tmp_path / "none")
    assert "\n" not in str(caught.value)
    assert os.path.isdir(tmp_path / "none")
