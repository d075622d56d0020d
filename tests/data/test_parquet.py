"""``parquet:DIR``: tables in the image schema of Hugging Face."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pictures import cells, noise, pixels, sizes, write_parquet
from PIL import Image

from augkit.core.errors import InputError
from augkit.data import load_dataset


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
    refused("expected one size, got test 9 x 9, train 8 x 8 pixels; resize them")
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
