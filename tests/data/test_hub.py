"""``hf:NAME``: the library `datasets`, on local folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pictures import cells, pixels, sizes, write_parquet

from augkit.core.errors import InputError
from augkit.data import load_dataset


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
    everything = torch.cat([images.images for images in (dataset.train, dataset.validation, dataset.open_test())])
    expected = torch.stack([pixels(k) for k in range(12)])
    assert sorted(everything.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())
    datasets.DatasetDict({"odd": saved, "even": saved}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(InputError, match="expected splits train, validation, test, got odd, even"):
        load_dataset(f"hf:{tmp_path / 'two'}")
    broken = {"image": [*cells(0, 9), {"bytes": b"no", "path": None}], "label": [0, 1] * 5}
    datasets.Dataset.from_dict(broken, features).save_to_disk(str(tmp_path / "three"))
    with pytest.raises(InputError, match="all row 9: cannot be read as an image"):
        _ = load_dataset(f"hf:{tmp_path / 'three'}").train
