"""`Collate` makes batches of images of different sizes, with their targets in lists."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, default_collate

import augkit
from augkit.adapters.batch import Keys, augmented, replaced
from augkit.adapters.collate import Collate

Sample = namedtuple("Sample", ["image", "boxes", "label"])
SIZES = [(20, 30), (31, 17), (20, 30), (16, 16)]
FIT = augkit.Augment(augkit.RandomSubpixelCrop(), size=(16, 12))


def sample(k: int, kind: str = "dict") -> Any:
    image = torch.randint(0, 256, (3, *SIZES[k]), dtype=torch.uint8, generator=torch.Generator().manual_seed(k))
    boxes = torch.tensor([[2.0, 3.0, 9.0, 12.0]]).repeat(k, 1)
    if kind == "dict":
        return {"image": image, "boxes": boxes, "label": k}
    return Sample(image, boxes, k) if kind == "namedtuple" else (image, boxes, k)


@pytest.mark.parametrize(
    ("kind", "image", "boxes"), [("dict", "image", "boxes"), ("namedtuple", 0, 1), ("tuple", 0, 1)]
)
def test_images_of_different_sizes_are_augmented_with_their_targets(kind: str, image: Any, boxes: Any) -> None:
    samples = [sample(k, kind) for k in range(4)]
    torch.manual_seed(3)
    batch = Collate(FIT, Keys(image, boxes=boxes))(samples)
    torch.manual_seed(3)
    out = FIT([one[image] for one in samples], boxes=[one[boxes] for one in samples])
    assert type(batch) is type(default_collate([sample(0, kind)]))
    assert torch.equal(batch[image], out.images)
    assert [len(one) for one in batch[boxes]] == [0, 1, 2, 3]
    assert all(map(torch.equal, batch[boxes], out.boxes))
    assert (batch["label"] if kind == "dict" else batch[2]).tolist() == [0, 1, 2, 3]


def test_images_without_anything_else_and_arrays() -> None:
    images = [sample(k)["image"] for k in range(4)]
    arrays = [image.numpy() for image in images]
    for given in (images, arrays, [(one, 0) for one in arrays]):
        torch.manual_seed(1)
        out = Collate(FIT)(given)
        torch.manual_seed(1)
        assert torch.equal(out if isinstance(out, torch.Tensor) else out[0], FIT(images))


def test_targets_are_lists_where_they_are_asked_for() -> None:
    """Batches whose images happen to be alike would otherwise come with tensors among others with lists."""
    samples = [{"image": torch.rand(3, 9, 9), "boxes": torch.rand(2, 4)} for _ in range(3)]
    keys = Keys("image", boxes="boxes")
    assert isinstance(Collate(FIT, keys)(samples)["boxes"], torch.Tensor)
    batch = Collate(FIT, keys, ragged=True)(samples)
    assert isinstance(batch["boxes"], list)
    samples[1]["boxes"] = torch.rand(5, 4)  # as many boxes as there are
    assert [len(one) for one in Collate(FIT, keys)(samples)["boxes"]] == [2, 5, 2]


def test_a_collate_fn_of_ones_own_may_make_a_ragged_batch() -> None:
    def collate(samples: list[Any]) -> Any:
        images, labels = zip(*samples, strict=True)
        return augkit.Ragged.from_list(images), torch.tensor(labels)

    pairs = [(sample(k)["image"], k) for k in range(4)]
    images, labels = Collate(FIT, collate_fn=collate)(pairs)
    assert (images.shape, labels.tolist()) == ((4, 3, 16, 12), [0, 1, 2, 3])
    batch = collate(pairs)
    assert torch.equal(replaced(batch, augmented(FIT, batch, Keys(), strength=0.0))[0], FIT(batch[0], strength=0.0))


def test_the_workers_of_a_loader_send_batches_of_one_size() -> None:
    pairs = [(sample(k)["image"].numpy(), k) for k in range(4)]
    loader = DataLoader(pairs, batch_size=2, collate_fn=Collate(FIT), num_workers=1)  # type: ignore[arg-type]
    assert [images.shape for images, _ in loader] == [(2, 3, 16, 12)] * 2
