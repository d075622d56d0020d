"""Streams decode on demand: the same pixels in the same order as in memory, without keeping all."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import cells, noise, write_folder, write_parquet
from PIL import Image

from augkit.core.errors import InputError
from augkit.data import Images, Reading, Stream, atypical_versions, batches, load_dataset, sample
from augkit.data.stream import Source, stream_of


class Counted(Source):
    """Images made from their index, which counts how often it is read; those in ``broken`` cannot be."""

    def __init__(self, count: int, broken: tuple[int, ...] = (), side: int = 8) -> None:
        self.count, self.broken, self.side = count, broken, side
        self.reads = 0

    def __len__(self) -> int:
        return self.count

    def name(self, index: int) -> str:
        return f"image {index}"

    def open(self, index: int) -> Image.Image:
        self.reads += 1
        if index in self.broken:
            raise OSError("torn")
        return Image.fromarray(noise(index, (self.side, self.side, 3)))


def pixels(indices: list[int]) -> torch.Tensor:
    return torch.stack([torch.from_numpy(noise(k)).permute(2, 0, 1) for k in indices])


def joined(images: Images, size: int = 7) -> torch.Tensor:
    return torch.cat(list(batches(images, size)))


def labeled(count: int, broken: tuple[int, ...] = (), **reading: int) -> Stream:
    return stream_of(Counted(count, broken), torch.arange(count) % 3, Reading(**reading))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 40), size=st.integers(1, 50), chunk=st.integers(1, 2000), at_hand=st.booleans())
def test_batches_are_the_images_in_order(count: int, size: int, chunk: int, at_hand: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("augkit.data.stream.CHUNK", chunk)
        stream: Images = labeled(count)
        found = list(batches(stream.load() if at_hand else stream, size))  # type: ignore[attr-defined]
    assert [len(batch) for batch in found] == [size] * (count // size) + [count % size] * (count % size > 0)
    assert torch.equal(torch.cat(found), pixels(list(range(count))))


def test_a_stream_has_shape_and_labels_but_no_pixels() -> None:
    stream = labeled(30)
    assert len(stream) == 30
    assert stream.images.shape == (30, 3, 8, 8)
    assert stream.images.dtype == torch.uint8
    assert stream.images.untyped_storage().device.type == "meta"
    assert stream.labels.tolist() == [k % 3 for k in range(30)]  # type: ignore[union-attr]
    with pytest.raises(InputError, match=r"30 images are 0\.00 GiB decoded and are streamed"):
        stream.on_canvas(None)


def test_only_requested_images_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augkit.data.stream.CHUNK", 5 * 8 * 8 * 3)
    stream = labeled(1000)
    source = stream.source
    assert isinstance(source, Counted)
    source.reads = 0
    kept = sample(stream, 50, seed=3)
    assert source.reads == 0
    assert isinstance(kept, Stream)
    assert sorted(torch.bincount(kept.labels).tolist()) == [16, 17, 17]  # type: ignore[arg-type]
    assert torch.equal(joined(kept), pixels(kept.indices.tolist()))
    assert source.reads == 50
    found = batches(stream, 10)
    next(found)
    assert source.reads <= 50 + 10 + 5


def test_samples_of_streams_and_of_images_are_the_same() -> None:
    stream = labeled(100)
    for count in (1, 10, 99, 100):
        one, other = sample(stream, count, seed=5), sample(stream.load(), count, seed=5)
        assert torch.equal(joined(one), other.images)
        assert one.labels.tolist() == other.labels.tolist()  # type: ignore[union-attr]


def test_any_order_can_be_taken() -> None:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    taken = labeled(20).take(order).take(torch.tensor([3, 3, 0]))
    wanted = order[[3, 3, 0]].tolist()
    assert torch.equal(joined(taken), pixels(wanted))
    assert taken.labels.tolist() == [k % 3 for k in wanted]  # type: ignore[union-attr]


def test_worker_processes_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augkit.data.stream.CHUNK", 3 * 8 * 8 * 3)
    stream = labeled(50, workers=2)
    before = torch.get_rng_state()
    assert torch.equal(joined(stream), pixels(list(range(50))))
    assert torch.equal(torch.get_rng_state(), before)  # the workers' seeds are not drawn from the global state
    broken = labeled(50, (33,), workers=2, skip_corrupt=True)
    with pytest.raises(InputError, match=r"^image 33: cannot be read as an image \(torn\); repair or remove it.*$"):
        joined(broken)
    skipped: dict[str, str] = {}
    readable = broken.readable(skipped)
    assert skipped == {"image 33": "cannot be read as an image (torn)"}
    assert torch.equal(joined(readable), pixels([k for k in range(50) if k != 33]))


def test_an_image_of_another_size_is_never_skipped() -> None:
    class Mixed(Counted):
        def open(self, index: int) -> Image.Image:
            return super().open(index) if index != 41 else Image.new("RGB", (9, 8))

    stream = stream_of(Mixed(100), None, Reading(skip_corrupt=True))
    with pytest.raises(InputError, match=r"image 41: expected 8 x 8 pixels as image 0, got 9 x 8; resize them"):
        stream.load({})


def test_canvas_on_a_stream_is_the_canvas_on_images() -> None:
    stream = labeled(9)
    placed = stream.put_on_canvas(13)
    assert placed.images.shape == (9, 3, 13, 13)
    assert torch.equal(joined(placed), stream.load().on_canvas(13))
    assert torch.equal(placed.load().images, stream.load().put_on_canvas(13).images)
    assert stream.put_on_canvas(None) is stream
    with pytest.raises(InputError, match="at least 8 pixels, got 7"):
        stream.put_on_canvas(7)


def test_streams_pickle() -> None:
    stream = atypical_versions(labeled(9), max_shift=1.0)["out of range"].put_on_canvas(12)
    assert torch.equal(joined(pickle.loads(pickle.dumps(stream))), joined(stream))


# Datasets


def test_a_large_folder_is_streamed_and_a_small_one_held(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 30, "b": 30})
    held = load_dataset(f"folder:{folder}")
    test = 12 * 3 * 8 * 8
    streamed = load_dataset(f"folder:{folder}", memory=test - 1)
    parts = [(held.train, streamed.train), (held.open_test(), streamed.open_test())]
    for one, other in parts:
        assert isinstance(other, Stream)
        assert not isinstance(one, Stream)
        assert torch.equal(joined(other), one.images)
        assert torch.equal(other.labels, one.labels)  # type: ignore[arg-type]
    assert not isinstance(load_dataset(f"folder:{folder}", memory=test).open_test(), Stream)
    # A sample that fits is held; it is the sample of what is held.
    few = streamed.open_test(5, seed=2)
    assert not isinstance(few, Stream)
    assert torch.equal(few.images, held.open_test(5, seed=2).images)


def test_a_large_dataset_counts_what_it_skips_per_split(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, {"a": 50, "b": 50})
    for path in folder.rglob("*.png"):
        if path.stem[-1] == "7":
            path.write_bytes(b"no")
    dataset = load_dataset(f"folder:{folder}", memory=0, skip_corrupt=True)
    assert dataset.skipped == {}
    test = dataset.open_test()
    assert isinstance(test, Stream)
    from_test = len(dataset.skipped)
    assert len(test) == 20 - from_test
    assert len(joined(test)) == len(test)
    assert len(dataset.train) + len(dataset.validation) == 90 - (10 - from_test) - 10
    assert len(dataset.skipped) == 10


def test_measuring_decodes_only_the_test_split_and_training_all_splits(tmp_path: Path) -> None:
    """A broken training image does not affect a measurement; a broken test image stops it immediately."""
    folder = write_folder(tmp_path, {"a": 50, "b": 50})
    whole = load_dataset(f"folder:{folder}")
    looked_at = {round(k * 99 / 31) for k in range(32)}
    for split in ("train", "test"):
        stream = whole._parts[split]
        assert isinstance(stream, Stream)
        path = Path(stream.source.name(next(k for k in stream.indices.tolist() if k not in looked_at)).strip("'"))
        before = path.read_bytes()
        path.write_bytes(b"no")
        with pytest.raises(InputError, match="cannot be read"):
            _ = load_dataset(f"folder:{folder}").train
        if split == "train":
            assert len(load_dataset(f"folder:{folder}").open_test()) == 20
        path.write_bytes(before)


def test_rows_of_parquet_stream_in_any_order_from_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("augkit.data.stream.CHUNK", 3 * 8 * 8 * 3)
    monkeypatch.setattr("augkit.data.parquet.CACHE", 600)
    write_parquet(tmp_path / "test-0.parquet", cells(0, 30), [0, 1] * 15, rows=7)
    write_parquet(tmp_path / "test-1.parquet", cells(30, 20), [0, 1] * 10, rows=7)
    for workers in (0, 2):
        stream = load_dataset(f"parquet:{tmp_path}", memory=0, workers=workers).open_test()
        assert isinstance(stream, Stream)
        assert torch.equal(joined(stream), pixels(list(range(50))))
        order = torch.randperm(50, generator=torch.Generator().manual_seed(1))
        assert torch.equal(joined(stream.take(order)), pixels(order.tolist()))


def test_batch_sizes_are_checked() -> None:
    with pytest.raises(InputError, match="batch size: expected a whole number of 1 or more, got 0"):
        batches(labeled(3), 0)
    assert list(batches(Images(torch.empty(0, 3, 8, 8, dtype=torch.uint8), None), 4)) == []
    assert list(batches(labeled(3).take(torch.tensor([], dtype=torch.int64)), 4)) == []


@pytest.mark.gpu
@pytest.mark.parametrize("at_hand", [True, False])
def test_batches_on_a_gpu_are_the_same(at_hand: bool) -> None:
    stream = labeled(100, workers=2)
    found = list(batches(stream.load() if at_hand else stream, 7, "cuda"))
    assert all(batch.device.type == "cuda" for batch in found)
    assert torch.equal(torch.cat(found).cpu(), pixels(list(range(100))))
