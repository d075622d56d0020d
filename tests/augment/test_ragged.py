"""`Ragged` holds images of different sizes in one buffer, and gives them back as they came."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from augkit import Ragged
from augkit.core.errors import InputError, InputTypeError

SIZES = [(5, 7), (3, 3), (9, 2), (5, 7), (1, 1)]


def pictures(sizes: list[tuple[int, int]] = SIZES, channels: int = 3, dtype: torch.dtype = torch.uint8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (channels, *size), generator=generator).to(dtype) for size in sizes]


def equal(batch: Ragged, images: list[Tensor]) -> bool:
    return len(batch) == len(images) and all(map(torch.equal, batch, images))


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=8),
    st.integers(1, 4),
    st.sampled_from([torch.uint8, torch.float32, torch.float16]),
)
def test_images_come_back_as_they_were(sizes: list[tuple[int, int]], channels: int, dtype: torch.dtype) -> None:
    images = pictures(sizes, channels, dtype)
    batch = Ragged.from_list(images)
    assert equal(batch, images)
    assert equal(pickle.loads(pickle.dumps(batch)), images)
    assert len(batch.values) == sum(image.numel() for image in images)  # nothing is padded
    assert batch.nbytes == sum(image.nbytes for image in images)
    assert [tuple(size) for size in batch.sizes.tolist()] == sizes
    assert (batch.dtype, batch.device, batch.channels) == (dtype, torch.device("cpu"), channels)


def test_strided_images_are_taken_by_their_pixels() -> None:
    images = [image.mT for image in pictures()] + [pictures()[0].flip(-1)[:, ::2]]
    assert equal(Ragged.from_list(images), images)


@pytest.mark.parametrize(
    "index",
    [slice(1, 3), slice(None), slice(None, None, 2), slice(None, None, -1), [4, 0], [1, 1], [True, False] * 2 + [True]],
)
def test_a_part_of_a_batch_shares_its_buffer(index: Any) -> None:
    images = pictures()
    batch = Ragged.from_list(images)
    chosen = np.arange(len(images))[index]
    for part in (batch[index], batch[index if isinstance(index, slice) else torch.tensor(index)]):
        assert equal(part, [images[k] for k in chosen])
        assert part.values.data_ptr() == batch.values.data_ptr()
        assert equal(part.packed(), list(part))
        assert len(part.packed().values) == sum(image.numel() for image in part)


def test_an_image_is_a_view() -> None:
    batch = Ragged.from_list(pictures())
    batch[-4][:] = 7
    assert batch[1].unique().tolist() == [7]
    assert torch.equal(batch[torch.tensor(1)], batch[1])
    with pytest.raises(IndexError, match="expected an index below 5, got 5"):
        batch[5]


def test_a_slice_pickles_its_own_pixels_alone() -> None:
    batch = Ragged.from_list(pictures([(100, 100)] * 20))
    for part in (batch[3:5], batch[[3, 7]], batch[:2]):
        content = pickle.dumps(part)
        assert equal(pickle.loads(content), list(part))
        assert len(content) < 2 * part.nbytes
    buffer = io.BytesIO()
    torch.save(batch[3:4], buffer)
    assert len(buffer.getvalue()) < 2 * batch[3:4].nbytes


@pytest.mark.gpu
def test_its_pixels_move_to_a_device_and_its_sizes_stay() -> None:
    batch = Ragged.from_list(pictures())
    there = batch[1:3].to("cuda")
    assert there.device.type == "cuda"
    assert there.values.shape == (batch[1:3].nbytes,)
    assert there.offsets.device.type == there.sizes.device.type == "cpu"
    assert all(torch.equal(a.cpu(), b) for a, b in zip(there, batch[1:3], strict=True))


def test_a_move_takes_a_device_that_holds_pixels() -> None:
    batch = Ragged.from_list(pictures())
    assert batch.to("cpu") is batch
    with pytest.raises(InputError, match="expected pixels, got a tensor on the device meta"):
        batch.to("meta")
    with pytest.raises(InputTypeError, match="expected a device, got torch"):
        batch.to(torch.float16)  # type: ignore[arg-type]


def test_shared_memory_is_seen_by_whoever_maps_it() -> None:
    batch = Ragged.from_list(pictures()).share_memory()
    assert batch.values.is_shared()
    assert equal(batch, pictures())


def pinned(batch: Ragged) -> Ragged:
    return Ragged(batch.values + 1, batch.offsets, batch.sizes, batch.channels)


def test_a_loader_brings_batches_from_its_workers_and_pins_them(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures() * 2
    for workers in (0, 1):
        loader = DataLoader(images, batch_size=5, collate_fn=Ragged.from_list, num_workers=workers)  # type: ignore[arg-type]
        for k, batch in enumerate(loader):
            assert equal(batch, images[5 * k : 5 * k + 5])
    from torch.utils.data._utils.pin_memory import pin_memory

    monkeypatch.setattr(Ragged, "pin_memory", pinned)  # there may be no device to pin for
    assert pin_memory([Ragged.from_list([torch.zeros(1, 2, 2)])])[0].values.tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        (SIZES, "Ragged(5 images of 3 channels, 1 x 1 to 5 x 7 pixels, torch.uint8, cpu)"),
        ([(4, 6)], "Ragged(1 image of 3 channels, 4 x 6 pixels, torch.uint8, cpu)"),
    ],
)
def test_it_says_what_it_holds(sizes: list[tuple[int, int]], text: str) -> None:
    assert repr(Ragged.from_list(pictures(sizes))) == text


VALUES, INDEX = torch.zeros(24), torch.tensor


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ragged.from_list([]), "images: expected at least one image, got none"),
        (lambda: Ragged.from_list("ab"), "images: expected a list of tensors (C, H, W), got str"),
        (lambda: Ragged.from_list([VALUES]), "images[0]: expected (C, H, W) with at least one pixel, got (24,)"),
        (lambda: Ragged.from_list([torch.zeros(3, 0, 4)]), "images[0]: expected (C, H, W) with at least one pixel"),
        (lambda: Ragged.from_list([np.zeros((3, 4, 4))]), "images[0]: expected a tensor (C, H, W), got ndarray"),
        (lambda: Ragged.from_list([torch.zeros(3, 4, 4).long()]), "images[0]: expected a floating dtype or uint8"),
        (
            lambda: Ragged.from_list([torch.zeros(3, 4, 4), torch.zeros(1, 4, 4)]),
            "images[1]: expected the channels of the first image, 3, got 1",
        ),
        (
            lambda: Ragged.from_list([torch.zeros(3, 4, 4), torch.zeros(3, 4, 4).half()]),
            "images[1]: expected the dtype of the first image, torch.float32, got torch.float16",
        ),
        (
            lambda: Ragged.from_list([torch.zeros(3, 4, 4), torch.zeros(3, 4, 4, device="meta")]),
            "images[1]: expected pixels, got a tensor on the device meta, which has none",
        ),
        (lambda: Ragged(VALUES, INDEX([0, 11]), INDEX([[3, 4], [3, 4]]), 1), "images 0 and 1 in the same values"),
        (lambda: Ragged(VALUES, INDEX([4, 0]), INDEX([[2, 2], [3, 2]]), 1), "images 1 and 0 in the same values"),
        (lambda: Ragged(VALUES, INDEX([0, 0]), INDEX([[2, 3], [3, 2]]), 1), "that do not overlap"),
        (lambda: Ragged(VALUES, INDEX([0, 13]), INDEX([[3, 4]] * 2), 1), "got image 1 at 13 to 25"),
        (lambda: Ragged(VALUES, INDEX([-1]), INDEX([[3, 4]]), 1), "got image 0 at -1 to 11"),
        (lambda: Ragged(VALUES, INDEX([0]), INDEX([[0, 4]]), 1), "expected at least one pixel, got image 0 of (0, 4)"),
        (lambda: Ragged(VALUES, INDEX([0.0]), INDEX([[3, 4]]), 1), "offsets: expected an int64 tensor (B,)"),
        (lambda: Ragged(VALUES, INDEX([0]), INDEX([3, 4]), 1), "expected shapes (B,) and (B, 2), got (1,) and (2,)"),
        (lambda: Ragged(VALUES, INDEX([0]), INDEX([[3, 4]]), 0), "channels: expected a whole number of 1 or more"),
        (lambda: Ragged(VALUES.view(4, 6), INDEX([0]), INDEX([[3, 4]]), 1), "values: expected a contiguous tensor"),
        (lambda: Ragged(VALUES.long(), INDEX([0]), INDEX([[3, 4]]), 1), "values: expected a floating or uint8 tensor"),
        (lambda: Ragged.from_list(pictures())[[9]], "Ragged: expected indices below 5"),
        (lambda: Ragged.from_list(pictures())[:0], "Ragged: expected at least one image, got none"),
    ],
)
def test_what_is_no_batch_is_refused_in_one_line(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
