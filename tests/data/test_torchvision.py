"""Datasets of torchvision: names, splits, and files in their own layouts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import noise, pixels, sizes, write_folder
from PIL import Image

from augkit.core.errors import InputError
from augkit.data import load_dataset
from augkit.data.stream import Reading
from augkit.data.torchvision import canonical, labels_of, read_items


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
