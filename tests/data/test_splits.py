"""The split of an image depends only on the dataset, not on other settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import cells, write_folder, write_parquet

from augkit.data import Images, load_dataset
from augkit.data.splits import limited, partition, sample, stratified
from augkit.data.stream import MEMORY


def images(first: int, count: int, labeled: bool = True, classes: int = 3) -> Images:
    values = torch.arange(first, first + count).view(-1, 1, 1, 1)
    return Images(values, torch.arange(count) % classes if labeled else None)


def values(part: Images) -> list[int]:
    return part.images.flatten().tolist()


@settings(max_examples=50, deadline=None)
@given(counts=st.lists(st.integers(3, 40), min_size=2, max_size=5), seed=st.integers(0, 100))
def test_parts_are_disjoint_complete_and_stratified(counts: list[int], seed: int) -> None:
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    parts = stratified(labels, {"validation": 0.1, "test": 0.2})
    together = torch.cat(list(parts.values()))
    assert sorted(together.tolist()) == list(range(len(labels)))
    for name, share in (("validation", 0.1), ("test", 0.2)):
        assert parts[name].tolist() == sorted(parts[name].tolist())
        for label, count in enumerate(counts):
            assert int((labels[parts[name]] == label).sum()) == max(1, round(share * count))


WHOLE, TRAIN, VALIDATION, TEST = images(0, 30), images(100, 30), images(200, 6), images(300, 9)


@pytest.mark.parametrize(
    ("splits", "sizes", "test"),
    [
        ({"all": WHOLE}, (21, 3, 6), None),
        ({"train": WHOLE}, (21, 3, 6), None),
        ({"train": TRAIN, "test": TEST}, (27, 3, 9), TEST),
        ({"train": TRAIN, "validation": VALIDATION}, (27, 3, 6), VALIDATION),
        ({"train": TRAIN, "validation": VALIDATION, "test": TEST}, (30, 6, 9), TEST),
        ({"train": TRAIN, "validation": VALIDATION, "test": images(300, 9, False)}, (27, 3, 6), VALIDATION),
        ({"test": TEST}, (0, 0, 9), TEST),
        ({"validation": VALIDATION}, (0, 0, 6), VALIDATION),
        ({"validation": VALIDATION, "test": TEST}, (0, 6, 9), TEST),
        ({"all": images(0, 30, False)}, (0, 0, 30), None),
        ({"train": images(0, 30, False), "test": TEST}, (0, 0, 9), TEST),
    ],
)
def test_splits_of_its_own_are_kept(
    splits: dict[str, Images], sizes: tuple[int, int, int], test: Images | None
) -> None:
    parts = partition(splits)
    assert list(parts) == ["train", "validation", "test"]
    assert tuple(map(len, parts.values())) == sizes
    if test is not None:
        assert values(parts["test"]) == values(test)
    together = [value for part in parts.values() for value in values(part)]
    assert len(set(together)) == len(together)


def test_a_limit_keeps_the_share_of_every_class() -> None:
    train = images(0, 300)
    assert torch.bincount(limited(train, 30).labels).tolist() == [10, 10, 10]  # type: ignore[arg-type]
    for limit in (None, 300, 1000):
        assert limited(train, limit) is train
    assert values(limited(train, 60)) == sorted(values(limited(train, 60)))


@given(counts=st.lists(st.integers(1, 60), min_size=1, max_size=8), limit=st.integers(1, 300), seed=st.integers(0, 100))
def test_a_limit_is_never_exceeded(counts: list[int], limit: int, seed: int) -> None:
    labels = torch.cat([torch.full((count,), k) for k, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    train = Images(torch.arange(len(labels)).view(-1, 1, 1, 1), labels)
    kept = limited(train, limit)
    assert len(kept) == min(limit, len(labels))
    assert values(kept) == sorted(set(values(kept)))
    assert torch.equal(kept.labels, labels[kept.images.flatten()])  # type: ignore[arg-type]
    for k, count in enumerate(counts):
        got, exact = int((kept.labels == k).sum()), len(kept) * count / len(labels)
        if limit >= len(counts):
            assert got >= 1
        assert got <= max(1, exact + 1)
        assert got > exact - 1 or sum(len(kept) * other / len(labels) < 1 for other in counts)


def test_a_limit_below_the_number_of_classes_and_one_without_labels() -> None:
    assert len(limited(images(0, 2000, classes=100), 10)) == 10
    assert len(limited(images(0, 50, labeled=False), 7)) == 7


@pytest.mark.parametrize("form", ["folder", "parquet", "splits", "streamed"])
def test_a_limit_holds_for_every_form_of_data(form: str, tmp_path: Path) -> None:
    classes = [f"c{k:02d}" for k in range(25)]
    if form == "parquet":
        write_parquet(tmp_path / "a.parquet", cells(0, 100), [k % 25 for k in range(100)])
    else:
        write_folder(tmp_path / "train" if form == "splits" else tmp_path, dict.fromkeys(classes, 4), side=2)
    if form == "splits":
        write_folder(tmp_path / "val", dict.fromkeys(classes, 1), side=2)
    name = f"{'parquet' if form == 'parquet' else 'folder'}:{tmp_path}"
    memory = 0 if form == "streamed" else MEMORY
    dataset = load_dataset(name, limit=10, memory=memory)
    assert (len(dataset.train), len(dataset.validation)) == (10, 25)
    assert len(load_dataset(name, limit=30, memory=memory).train.labels.unique()) == 25  # type: ignore[union-attr]


def test_a_sample_has_as_many_of_every_class_as_there_are() -> None:
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    images = Images(torch.zeros(100, 1, 1, 1, dtype=torch.uint8), labels)
    for seed in range(5):
        found = sample(images, 45, seed=seed).labels
        assert found is not None
        assert found.bincount(minlength=3).tolist() in ([18, 17, 10], [17, 18, 10])
