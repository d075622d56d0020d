"""A dataset whose labels are the positions of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import augkit
from augkit.core.errors import InputError
from augkit.data import Dataset, Images, localization
from augkit.train.evaluate import evaluate
from augkit.train.recipe import Recipe

# Localisation


class Watched(Dataset):
    """Notes when its test split is opened."""

    opened = 0

    def open_test(self, limit: int | None = None, *, seed: int = 0) -> Images:
        self.opened += 1
        return super().open_test(limit, seed=seed)


def watched(digits: Dataset) -> Watched:
    source = Watched.__new__(Watched)
    source.__dict__.update(digits.__dict__)
    return source


def test_located_images_are_in_the_cells_of_their_labels(digits: Dataset) -> None:
    source = watched(digits)
    task = localization.locate(source, canvas=19, cells=3, seed=5)
    kept = source.train.images.clone()
    parts = [(task.train, source.train), (task.validation, source.validation)]
    assert source.opened == 0
    parts.append((task.open_test(), digits.open_test()))
    assert source.opened == 1
    for placed, original in parts:
        assert placed.images.shape == (len(original), 1, 19, 19)
        assert placed.images.dtype == torch.uint8
        seen = set()
        for image, label, digit in zip(placed.images, placed.labels.tolist(), original.images, strict=True):
            windows = image[0].unfold(0, 8, 1).unfold(1, 8, 1)
            found = (windows == digit[0]).all(-1).all(-1) & (image.sum() == digit.sum())
            # 12 places along an axis in 3 cells of 4; a digit with empty borders fits at several.
            places = found.nonzero()
            assert any(3 * (y // 4) + x // 4 == label for y, x in places.tolist())
            seen.update(map(tuple, places.tolist()) if len(places) == 1 else ())
        if original is source.train:
            assert len(seen) > 100  # of 144
    assert torch.equal(source.train.images, kept)


def test_a_mirrored_canvas_has_no_seam_that_tells_the_place() -> None:
    """Every window is one of the image mirrored on all sides, which a moved and wrapped canvas would not be."""
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    placed = localization._place(Images(images, None, "reflection"), 15, 3, np.random.default_rng(1))
    for image, found in zip(images[:, 0].numpy(), placed.images[:, 0].numpy(), strict=True):
        whole = np.pad(image, 7, mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(whole, (15, 15))
        assert (windows == found).all((-1, -2)).any()


def test_located_labels_are_balanced_within_each_class(digits: Dataset) -> None:
    task = localization.locate(digits, canvas=16, cells=2)
    assert len(task.classes) == 4
    for placed, original in ((task.train, digits.train), (task.open_test(), digits.open_test())):
        counts = torch.bincount(placed.labels, minlength=4)
        assert counts.max() - counts.min() <= 1
        for digit in range(10):
            inside = torch.bincount(placed.labels[original.labels == digit], minlength=4)
            assert inside.max() - inside.min() <= 1
    again, other = (
        localization.locate(digits, canvas=16, cells=2),
        localization.locate(digits, canvas=16, cells=2, seed=1),
    )
    assert torch.equal(again.train.images, task.train.images)
    assert torch.equal(again.train.labels, task.train.labels)
    assert not torch.equal(other.train.labels, task.train.labels)
    assert len(task.open_test(20)) == 20


def test_splits_are_placed_independently(digits: Dataset) -> None:
    class Twice(Dataset):
        @property
        def validation(self) -> Images:
            return self.train

    source = Twice.__new__(Twice)
    source.__dict__.update(digits.__dict__)
    task = localization.locate(source, canvas=16)
    assert (task.train.labels == task.validation.labels).double().mean() < 0.2


def test_uneven_cells_cover_every_position_once() -> None:
    """13 places in 4 cells: 4, 3, 3 and 3 of them, all used, and no label but its own."""
    pixels = torch.zeros(4000, 1, 4, 4, dtype=torch.uint8)
    pixels[:, :, 0, 0] = 200
    placed = localization._place(Images(pixels, None), 16, 4, np.random.default_rng(0))
    y, x = (placed.images[:, 0] == 200).nonzero()[:, 1:].T
    assert torch.equal(placed.labels, (y * 4 // 13) * 4 + x * 4 // 13)
    assert sorted(set(y.tolist())) == sorted(set(x.tolist())) == list(range(13))


def test_a_canvas_without_room_is_refused(digits: Dataset) -> None:
    localization.locate(digits, canvas=11, cells=4)
    for canvas in (7, 10):
        with pytest.raises(InputError, match="canvas of 11 pixels or more"):
            localization.locate(digits, canvas=canvas, cells=4)


@pytest.mark.integration
def test_a_located_dataset_is_trained_on_and_evaluated(digits: Dataset, tiny: Recipe) -> None:
    """A fully connected head learns positions; a global average on a torus cannot."""
    task = localization.locate(digits, canvas=16, cells=2)
    accuracy = {}
    for head, padding in (("fc", "zeros"), ("gap", "circular")):
        recipe = tiny.replaced(
            data={**tiny.data.model_dump(), "limit": None},
            model={"name": "small_cnn", "width": 4, "head": head, "padding_mode": padding, "downsample": "aps"},
            policy={},
            train={"epochs": 6, "batch_size": 32},
        )
        run = augkit.fit(recipe, dataset=task, device="cpu")
        accuracy[head] = evaluate(run.model, task.open_test(), recipe, torch.device("cpu")).accuracy
    assert accuracy["fc"] > 0.8
    assert accuracy["gap"] < 0.4


def test_located_streams_are_those_of_images_at_hand(digits: Dataset) -> None:
    from augkit.data import batches
    from augkit.train.batches import _as_stream

    images = digits.train.take(torch.arange(40))
    order = torch.arange(39, -1, -1)
    placed = localization._place(images.take(order), 16, 4, np.random.default_rng(0))
    streamed = localization._place(_as_stream(images, 0).take(order), 16, 4, np.random.default_rng(0))
    assert torch.equal(torch.cat(list(batches(streamed, 16))), placed.images)
    assert torch.equal(streamed.labels, placed.labels)
