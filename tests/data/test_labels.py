"""Labels files map the classes of the data to the outputs of a network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pictures import write_folder

from augkit.core.errors import InputError
from augkit.data import load_dataset


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
    assert set(mapped.open_test().labels.tolist()) == {1, 3}  # type: ignore[union-attr]


def test_a_labels_file_makes_one_class_enough(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "set", {"dog": 5})
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    dataset = load_dataset(f"folder:{folder}", labels_file=tmp_path / "names.txt")
    labels = [images.labels for images in (dataset.train, dataset.validation, dataset.open_test())]
    assert torch.cat(labels).tolist() == [1] * 5  # type: ignore[arg-type]


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
