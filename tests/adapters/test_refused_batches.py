"""Invalid batches, columns and metrics are refused in one line; unusual but valid ones pass."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.transforms import v2

import augkit
from augkit import Augment
from augkit.adapters.batch import Keys, augmented, replaced
from augkit.adapters.collate import Collate
from augkit.adapters.huggingface import DatasetTransform
from augkit.adapters.lightning import AugmentCallback
from augkit.adapters.timm import AugmentedLoader
from augkit.adapters.torchmetrics import Kappa, ShiftAccuracy, TopOneChange
from augkit.core.errors import InputError

X = torch.rand(2, 3, 8, 8)
SHIFT = augkit.Augment(augkit.RandomSubpixelShift(1.0))
POLICY: Any = augkit.Policy(shift={"max_pixels": 1.0})
PICTURE = np.zeros((8, 8, 3), np.uint8)
P = torch.rand(4, 5).softmax(-1)
HALF = ([0.5] * 3, [0.5] * 3)


def timm(batch: Any, normalized: Any = None, keys: Keys = Keys(), augment: Augment = SHIFT) -> Any:  # noqa: B008 (frozen)
    return next(iter(AugmentedLoader([batch], augment, keys, normalized=normalized)))


def dataset(images: Any, mode: Any = "RGB") -> Any:
    return DatasetTransform(SHIFT, mode=mode)({"image": images})


def accuracy(labels: Any) -> Any:
    return ShiftAccuracy().update(P, P, labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: timm((X, 0), ([0.5] * 3, [0.0] * 3)), "normalized: .* std above 0"),
        (lambda: timm((X, 0), ([0.5] * 2, [0.5] * 2)), r"normalized: expected images \(B, 2, H, W\), got \(2, 3"),
        (lambda: timm({"image": X}), r"batch: expected an entry 0, got \['image'\]"),
        (lambda: timm(("x", 0)), r"batch\[0\]: expected a tensor, got str"),
        (lambda: dataset([PICTURE], mode="XYZ"), "unknown mode 'XYZ'"),
        (lambda: dataset(None), "expected a list of images in 'image', got NoneType"),
        (lambda: dataset([PIL.Image.new("La", (4, 4))], mode="RGBA"), "conversion from La"),
        (lambda: timm((X.to_sparse(), 0), HALF), "images: expected a dense tensor"),
        (lambda: timm((X.to(torch.float8_e5m2), 0), HALF), "images: expected a floating dtype or uint8"),
        (lambda: AugmentedLoader([], POLICY), "AugmentedLoader: expected an augkit.Augment, got Policy"),
        (lambda: dataset("pixels"), "expected a list of images in 'image', got str"),
        (lambda: dataset(PIL.Image.new("RGB", (8, 8))), "expected a list of images in 'image', got Image"),
        (lambda: DatasetTransform(SHIFT, output="y")({"image": [PICTURE], "y": [0]}), "output: .* 'y' is there"),
        (lambda: dataset([PICTURE], mode="P"), "unknown mode 'P'"),
        (lambda: dataset([PICTURE], mode="F"), "unknown mode 'F'"),
        (lambda: dataset([PICTURE], mode=["RGB"]), "unknown mode"),
        (lambda: dataset([PICTURE.transpose(2, 0, 1)]), r"looks like \(C, H, W\); pass it as a tensor"),
        (lambda: DatasetTransform(POLICY), "DatasetTransform: expected an augkit.Augment, got Policy"),
        (lambda: DatasetTransform(SHIFT)([1]), "expected columns by name"),  # type: ignore[arg-type]
        (lambda: Collate(POLICY), r"Collate: expected an augkit.Augment, got Policy; .*policy.augment\(size\)"),
        (lambda: Collate(SHIFT, "image"), r"Collate: expected keys as Keys\(images=...\)"),  # type: ignore[arg-type]
        (lambda: Collate(SHIFT)([X[0], X[1, :, :4]]), "an output size for images of different sizes; use Augment"),
        (lambda: Collate(SHIFT)([X[0], X[1, :1]]), r"images\[1\]: expected the channels of the first image, 3, got 1"),
        (lambda: Collate(SHIFT)([(X[0], X[0]), (X[1], X[1, :1])]), "Collate: expected samples of tensors or arrays of"),
        (lambda: Collate(SHIFT)([(PICTURE, 0)]), r"got \(8, 8, 3\), which looks like \(H, W, C\); transpose it"),
        (lambda: Collate(SHIFT)([PICTURE, PICTURE[:5]]), r"which looks like \(H, W, C\)"),
        (lambda: Collate(SHIFT, ragged=1), "ragged: expected True or False, got 1"),  # type: ignore[arg-type]
        (lambda: Collate(SHIFT)([(PIL.Image.new("RGB", (8, 8)), 0)]), "Collate: expected samples of tensors or arrays"),
        (lambda: AugmentCallback(POLICY), "AugmentCallback: expected an augkit.Augment, got Policy"),
        (lambda: Keys(images=0, masks=0), "Keys: expected a place for images, and no place twice"),
        (lambda: Keys(images=None), "Keys: expected a place for images"),  # type: ignore[arg-type]
        (lambda: TopOneChange(logits="no"), "logits: expected True or False"),
        (lambda: TopOneChange().update(P.to_sparse(), P), "p and q: expected a dense tensor"),
        (lambda: TopOneChange().update(P.to(torch.float8_e5m2), P), "p and q: expected floating tensors .*float8"),
        (lambda: TopOneChange().update(P, P.to("meta")), "p and q: expected tensors on one device, got cpu and meta"),
        (lambda: Kappa(2.5), "num_classes: expected an integer"),  # type: ignore[arg-type]
        (lambda: accuracy(torch.tensor([0, 1, 2, 5])), "labels: expected 0 to 4"),
        (lambda: accuracy(torch.tensor([0, 1, 2, -1])), "labels: expected 0 to 4"),
        (lambda: accuracy(torch.ones(4, dtype=torch.bool)), "labels: expected integers"),
        (lambda: ShiftAccuracy().update(None, P, torch.zeros(4)), "p and q: expected floating tensors"),  # type: ignore[arg-type]
    ],
)
def test_refused_in_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_statistics_of_one_channel_serve_all() -> None:
    normalized = (X - 0.5) / 0.25
    out, _ = timm((normalized, 0), ([0.5], [0.25]))
    assert out.shape == X.shape
    assert bool(out.isfinite().all())


@pytest.mark.parametrize(
    "augment",
    [
        Augment(augkit.RandomSubpixelCrop(size=(6, 6)), strength=0.0),
        Augment(SHIFT.ops[0], size=(6, 6)).eval(),
        Augment.from_torchvision(v2.Resize((6, 6))).eval(),
    ],
    ids=["strength 0", "size", "resize"],
)
def test_what_only_resizes_sees_images_before_they_are_normalized(augment: Augment) -> None:
    out, _ = timm(((X - 0.5) / 0.25, 0), ([0.5], [0.25]), augment=augment)
    torch.testing.assert_close(out, (augment(X) - 0.5) / 0.25, rtol=0, atol=1e-5)


def test_a_negative_position_counts_from_the_end() -> None:
    batch, keys = [torch.arange(2), X], Keys(images=-1)
    out = replaced(batch, augmented(SHIFT, batch, keys))
    assert torch.equal(out[0], batch[0])
    assert not torch.equal(out[1], X)
    assert not torch.equal(timm(tuple(batch), HALF, keys)[1], X)


def test_a_defaultdict_stays_one() -> None:
    batch = defaultdict(list, image=X)
    out = replaced(batch, augmented(SHIFT, batch, Keys(images="image")))
    assert isinstance(out, defaultdict)
    assert out["absent"] == []
    assert batch["image"] is X
    assert not torch.equal(out["image"], X)


@pytest.mark.parametrize("column", [X, X.permute(0, 2, 3, 1).numpy(), list(X)])
def test_a_column_may_be_stacked(column: Any) -> None:
    out = DatasetTransform(SHIFT.eval())({"image": column})["pixel_values"]
    SHIFT.train()
    assert all(torch.equal(image, x) for image, x in zip(out, X, strict=True))
