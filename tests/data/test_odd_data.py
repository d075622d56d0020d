"""Unusual tables, limits and sizes are read correctly, or are errors of one line with a remedy."""

from __future__ import annotations

import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import cells, write_folder

from augkit.core.errors import InputError
from augkit.data import load_dataset
from augkit.data.labels import read_labels

TEXT = ["dog", "cat", "dog", "emu"]


def table(count: int, first: int = 0, **columns: Any) -> pa.Table:
    images = pa.array(cells(first, count), pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    return pa.table({"image": images, **columns})


def write(rows: pa.Table, path: Path) -> None:
    try:
        pq.write_table(rows, path)
    except pa.ArrowNotImplementedError as error:
        if "_view" not in str(error):
            raise
        pytest.skip(f"this pyarrow stores no views: {error}")


def labels(path: Path) -> tuple[list[int] | None, list[str]]:
    dataset = load_dataset(f"parquet:{path}")
    found = dataset.open_test().labels
    return None if found is None else found.tolist(), dataset.classes


@pytest.mark.parametrize(
    ("columns", "expected", "classes"),
    [
        ({"label": pa.array([Decimal(1), Decimal(0), Decimal(1), None])[:3]}, [1, 0, 1], ["0", "1"]),
        ({"label": pa.array(["b", "a", "b"], pa.string_view())}, [1, 0, 1], ["a", "b"]),
        ({"label": pa.nulls(3)}, None, []),
        ({"label": pa.array([" ", "", None])}, None, []),
        ({"Class": ["b", "a", "b"], "number": [7, 8, 9]}, [1, 0, 1], ["a", "b"]),
        ({"LABEL": [1, 0, 1], "width": [8, 8, 8]}, [1, 0, 1], ["0", "1"]),
        ({"breed": ["b", "a", "b"], "__index_level_0__": [17, 4, 5]}, None, []),
        ({"id": [3, 4, 5], "kind": [1, 0, 1]}, [1, 0, 1], ["0", "1"]),
    ],
)
def test_columns_of_labels(columns: Any, expected: list[int] | None, classes: list[str], tmp_path: Path) -> None:
    write(table(3, **columns), tmp_path / "test.parquet")
    assert labels(tmp_path) == (expected, classes)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": pa.array([[1, 0], [0, 1]]), "id": [0, 1]}, "column 'label': expected one label a row"),
        ({"label": pa.array([{"id": 1}, {"id": 0}])}, "column 'label': expected one label a row"),
        ({"label": pa.array([b"a", b"b"])}, "column 'label': expected one label a row"),
        ({"label": [0, 2**40]}, "at most 1,000,000, got 1099511627776"),
        ({"label": [0.0, 1e20]}, "at most 1,000,000, got 100000000000000000000"),
        ({"label": pa.array([0, 2**63], pa.uint64())}, "at most 1,000,000, got 9223372036854775808"),
    ],
)
def test_columns_that_hold_no_labels(columns: Any, message: str, tmp_path: Path) -> None:
    pq.write_table(table(2, **columns), tmp_path / "test.parquet")
    with pytest.raises(InputError, match=message):
        labels(tmp_path)


def test_images_of_another_binary_type(tmp_path: Path) -> None:
    images = pa.array([cell["bytes"] for cell in cells(0, 2)], pa.binary_view())
    write(pa.table({"image": images, "label": [1, 0]}), tmp_path / "test.parquet")
    assert labels(tmp_path) == ([1, 0], ["0", "1"])


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_files_of_a_split_have_the_same_columns(order: tuple[int, int], tmp_path: Path) -> None:
    tables = [table(2, label=[0, 1]), table(2)]
    for k, which in enumerate(order):
        pq.write_table(tables[which], tmp_path / f"test-{k}.parquet")
    with pytest.raises(InputError, match=r"expected the columns of 'test-0.parquet' .* 'test-1.parquet' has image"):
        labels(tmp_path)
    pq.write_table(tables[0], tmp_path / "test-0.parquet")
    pq.write_table(tables[0].rename_columns(["picture", "label"]), tmp_path / "test-1.parquet")
    with pytest.raises(InputError, match=r"'test-1.parquet' has picture, label"):
        labels(tmp_path)


def test_a_split_may_be_any_word_of_a_file_name(tmp_path: Path) -> None:
    pq.write_table(table(10, label=[0, 1] * 5), tmp_path / "my_train.parquet")
    pq.write_table(table(2, first=10, label=[0, 1]), tmp_path / "my_test.parquet")
    dataset = load_dataset(f"parquet:{tmp_path}")
    assert (len(dataset.train), len(dataset.validation), len(dataset.open_test())) == (8, 2, 2)
    (tmp_path / "my_test.parquet").unlink()
    assert len(load_dataset(f"parquet:{tmp_path}").open_test()) == 2


@pytest.mark.parametrize("limit", [0, -5, 2.5, True, "5", float("nan")])
def test_a_limit_is_a_whole_number(limit: Any) -> None:
    with pytest.raises(InputError, match=r"data.limit: expected a whole number of 1 or more, got "):
        load_dataset("digits", limit=limit)
    with pytest.raises(InputError, match=r"sample: expected a whole number of 1 or more, got "):
        load_dataset("digits").open_test(limit)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"image_size": 2.5}, "data.image_size: expected a whole number of 1 or more, got 2.5"),
        ({"image_size": (32, 32)}, r"data.image_size: expected a whole number of 1 or more, got \(32, 32\)"),
        ({"image_size": True}, "data.image_size: expected a whole number of 1 or more, got True"),
        ({"workers": -1}, "data.workers: expected a whole number of 0 or more, got -1"),
        ({"memory": -1}, "data.memory: expected a whole number of 0 or more, got -1"),
        ({"max_megapixels": 0}, "data.max_megapixels: expected a whole number of 1 or more, got 0"),
        ({"channels": "3"}, "channels: expected 1 or 3, got '3'"),
    ],
)
def test_sizes_are_whole_numbers(wish: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_folder(tmp_path, {"a": 3, "b": 3})
    with pytest.raises(InputError, match=message):
        load_dataset(f"folder:{tmp_path}", **wish)


def test_a_name_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"did you mean 'folder:{tmp_path}', or 'parquet:"):
        load_dataset(str(tmp_path))
    for name in (None, 3, tmp_path):
        with pytest.raises(InputError, match="dataset: expected a name, such as"):
            load_dataset(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("around", ["", "..", "split"])
def test_a_link_to_the_dataset_itself_adds_no_class_and_no_images(around: str, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    write_folder(folder / "train" if around == "split" else folder, {"a": 3, "b": 3})
    inside = folder / "train" if around == "split" else folder
    target = tmp_path if around == ".." else folder
    os.symlink(target, inside / "a" / "loop")
    os.symlink(target, inside / "loop")
    dataset = load_dataset(f"folder:{folder}")
    assert dataset.classes == ["a", "b"]
    found = [part.labels for part in (dataset.train, dataset.validation, dataset.open_test())]
    assert torch.cat(found).bincount().tolist() == [3, 3]  # type: ignore[arg-type]
    assert [*dataset.skipped.values()] == ["a link to a folder that it lies in"] * 2


def test_a_class_that_is_a_link_may_hold_one_back(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", {"b": 3})
    write_folder(tmp_path / "elsewhere", {"a": 3})
    os.symlink(tmp_path / "elsewhere" / "a", tmp_path / "set" / "a")
    os.symlink(tmp_path / "set", tmp_path / "elsewhere" / "a" / "back")
    dataset = load_dataset(f"folder:{tmp_path / 'set'}")
    found = [part.labels for part in (dataset.train, dataset.validation, dataset.open_test())]
    assert torch.cat(found).bincount().tolist() == [3, 3]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({"train": [], "test": []}, "'test' has none"),
        ({"train": ["a", "b"], "test": []}, "'test' has none"),
        ({"train": ["a", "b"], "val": ["a", "b"], "extra": []}, "'extra' is of no split"),
        ({"train": ["a", "b"], "val": ["a", "b"], "unlabeled": ["x", "y"]}, "'unlabeled' is of no split"),
    ],
)
def test_folders_of_splits_are_not_taken_for_classes(
    folders: dict[str, list[str]], message: str, tmp_path: Path
) -> None:
    for name, classes in folders.items():
        if classes:
            write_folder(tmp_path / name, dict.fromkeys(classes, 3))
        else:
            write_folder(tmp_path, {name: 3})
    with pytest.raises(InputError, match=f"expected folders of splits with class folders in each, {message}"):
        load_dataset(f"folder:{tmp_path}")


def test_a_class_may_be_called_as_a_split_is(tmp_path: Path) -> None:
    write_folder(tmp_path, {"train": 3, "bus": 3})
    assert load_dataset(f"folder:{tmp_path}").classes == ["bus", "train"]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("a.csv", "x,0\ny,99999999999", "'99999999999' is above 1,000,000"),
        ("a.json", '{"0": "x", "1000001": "y"}', "'1000001' is above 1,000,000"),
        ("a.json", "[" * 100_000, "expected names one a line, JSON, or CSV"),
    ],
)
def test_labels_files_without_an_end(file: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / file)
