"""Labels of tables: numbers, text, categories, truth values; numbered alike in all splits, with the names kept."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import cells, noise
from PIL import Image

from augkit.core.errors import InputError
from augkit.data import load_dataset
from augkit.train.build import load_recipe_data
from augkit.train.recipe import Recipe


def write(path: Path, **columns: Any) -> None:
    count = len(next(iter(columns.values())))
    images = pa.array(cells(0, count), pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": images, **columns}), path)


def labels(path: Path) -> tuple[list[int] | None, list[str]]:
    dataset = load_dataset(f"parquet:{path}")
    found = dataset.open_test().labels
    return None if found is None else found.tolist(), dataset.classes


TEXT = ["dog", "cat", "dog", "emu"]


@pytest.mark.parametrize(
    ("column", "expected", "classes"),
    [
        (pa.array(TEXT), [1, 0, 1, 2], ["cat", "dog", "emu"]),
        (pa.array(TEXT, pa.large_string()), [1, 0, 1, 2], ["cat", "dog", "emu"]),
        (pa.array(TEXT).dictionary_encode(), [1, 0, 1, 2], ["cat", "dog", "emu"]),
        (pa.array([7, 3, 7, 3]).dictionary_encode(), [7, 3, 7, 3], [str(k) for k in range(8)]),
        (pa.array(["10", "9", "10", "9"]), [0, 1, 0, 1], ["10", "9"]),
        (pa.array([True, False, True, True]), [1, 0, 1, 1], ["False", "True"]),
        (pa.array([1.0, 0.0, 2.0, 1.0]), [1, 0, 2, 1], ["0", "1", "2"]),
        (pa.array([None, None, "", ""]), None, []),
        (pa.array([float("nan")] * 4), None, []),
    ],
)
def test_labels_of_every_type(column: Any, expected: list[int] | None, classes: list[str], tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", label=column)
    assert labels(tmp_path) == (expected, classes)


def test_splits_share_the_numbers_of_text(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", label=["b", "d"] * 10)
    write(tmp_path / "validation.parquet", label=["d", "b"])
    write(tmp_path / "test.parquet", label=["d", "a", "c", "b"])
    dataset = load_dataset(f"parquet:{tmp_path}")
    assert dataset.classes == ["a", "b", "c", "d"]
    assert dataset.train.labels.tolist() == [1, 3] * 10  # type: ignore[union-attr]
    assert dataset.open_test().labels.tolist() == [3, 0, 2, 1]  # type: ignore[union-attr]
    (tmp_path / "names.txt").write_text("d\nc\nb\na")
    dataset = load_dataset(f"parquet:{tmp_path}", labels_file=tmp_path / "names.txt")
    assert dataset.open_test().labels.tolist() == [0, 3, 1, 2]  # type: ignore[union-attr]


def test_class_names_of_the_table_keep_their_order(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", label=["x", "y", "x"])
    table = pq.read_table(tmp_path / "test.parquet")
    features = {"label": {"_type": "ClassLabel", "names": ["y", "x"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "test.parquet")
    assert labels(tmp_path) == ([1, 0, 1], ["y", "x"])


def test_the_usual_name_of_the_label_column_wins_for_any_type(tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", width=[8, 8, 8, 8], label=TEXT, caption=["a b", "c", "d", "e"])
    assert labels(tmp_path)[1] == ["cat", "dog", "emu"]
    write(tmp_path / "test.parquet", caption=["a b", "c", "d", "e"])
    assert labels(tmp_path) == (None, [])
    write(tmp_path / "test.parquet", caption=["a b", "c", "d", "e"], breed=pa.array(TEXT).dictionary_encode())
    assert labels(tmp_path)[1] == ["cat", "dog", "emu"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (["a", None, "b", ""], "column 'label': expected labels of 0 or more, 2 of 4 are negative or missing"),
        ([0.5, 1.0, 2.0, 1.0], "column 'label': expected whole numbers or text, got '0.5'"),
    ],
)
def test_labels_that_cannot_be_used(column: list[Any], message: str, tmp_path: Path) -> None:
    write(tmp_path / "test.parquet", label=column)
    with pytest.raises(InputError, match=message):
        labels(tmp_path)


def test_numbers_in_one_split_and_text_in_another(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", label=["a", "b"] * 5)
    write(tmp_path / "test.parquet", label=[0, 1])
    with pytest.raises(InputError, match="expected labels that are all text, or names of classes; got 0"):
        labels(tmp_path)


def test_training_without_labels_is_an_error_that_names_them(tmp_path: Path) -> None:
    write(tmp_path / "all.parquet", caption=["a"] * 12)
    recipe = Recipe.model_validate({"name": "x", "data": {"name": f"parquet:{tmp_path}"}})
    with pytest.raises(InputError, match=r"expected images with labels, 'parquet:.*' has none; .* call their column"):
        load_recipe_data(recipe)


@pytest.mark.integration
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of a file that `datasets` leaves open
@pytest.mark.parametrize("kind", ["csv", "jsonl", "saved"])
def test_text_labels_of_the_hubs_library(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    names = [TEXT[k % 4] for k in range(20)]
    folder = tmp_path / "set"
    if kind == "saved":
        images = [Image.fromarray(noise(k)) for k in range(20)]
        rows = datasets.Dataset.from_dict({"image": images, "label": names})
        rows.cast_column("image", datasets.Image()).save_to_disk(str(folder))
    else:
        folder.mkdir()
        for k in range(20):
            Image.fromarray(noise(k)).save(folder / f"{k:02d}.png")
        lines = [json.dumps({"file_name": f"{k:02d}.png", "label": name}) for k, name in enumerate(names)]
        csv = ["file_name,label", *(f"{k:02d}.png,{name}" for k, name in enumerate(names))]
        (folder / f"metadata.{kind}").write_text("\n".join(csv if kind == "csv" else lines))
    dataset = load_dataset(f"hf:{folder}", root=tmp_path / "cache")
    gc.collect()
    assert dataset.classes == ["cat", "dog", "emu"]
    parts = (dataset.train, dataset.validation, dataset.open_test())
    labels = [label for part in parts for label in part.labels.tolist()]  # type: ignore[union-attr]
    for pixels, label in zip(torch.cat([part.images for part in parts]), labels, strict=True):
        place = next(k for k in range(20) if np.array_equal(noise(k).transpose(2, 0, 1), pixels))
        assert dataset.classes[label] == names[place]
