"""A loader of images of different sizes: each is resampled once, by the policy or to its center."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit import Ragged
from augkit.augment.resample_each import centers
from augkit.augment.whole_images import square_views
from augkit.core.errors import InputError
from augkit.train.loaders import labeled
from augkit.train.recipe import Recipe

SIDE = 12
SIZES = [(12 + k % 5, 12 + k % 7) for k in range(40)]
PHOTOS = [torch.rand(1, *size, generator=torch.Generator().manual_seed(k)) for k, size in enumerate(SIZES)]
LABELS = torch.arange(40) % 5
POLICY: dict[str, Any] = {"shift": {"max_pixels": 2.0}, "crop": {"min_area": 0.5}}


class Batches:
    """Batches of 8 images, as ``form`` makes them of a list."""

    def __init__(self, form: Any = Ragged.from_list, images: list[Tensor] = PHOTOS) -> None:
        self.form, self.images = form, images

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for k in range(0, 40, 8):
            yield self.form(self.images[k : k + 8]), LABELS[k : k + 8]


class Seen(nn.Module):
    """A linear network that keeps its inputs, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(SIDE * SIDE, 5)
        self.inputs: dict[bool, list[Tensor]] = {True: [], False: []}

    def forward(self, images: Tensor) -> Tensor:
        self.inputs[self.training].append(images.detach().clone())
        logits: Tensor = self.last(images.flatten(1))
        return logits


def recipe(tiny: Recipe, **data: Any) -> Recipe:
    given = {"name": "digits", "image_size": SIDE, "mean": [0.0], "std": [1.0], **data}
    return tiny.replaced(policy=POLICY, train={"epochs": 1, "batch_size": 8}, data=given)


def fit(own: Recipe, loader: Any, held_out: Any) -> Seen:
    model = Seen()
    augkit.fit(own, model=model, loader=loader, validation_loader=held_out, device="cpu")
    return model


@pytest.mark.parametrize("form", [Ragged.from_list, list, tuple])
@pytest.mark.parametrize("share", [1.0, 0.75])
def test_each_image_is_resampled_once(form: Any, share: float, tiny: Recipe) -> None:
    torch.manual_seed(0)
    seen = fit(recipe(tiny, crop_share=share), Batches(form), Batches(form)).inputs
    assert {image.shape[1:] for image in (*seen[True], *seen[False])} == {(1, SIDE, SIDE)}
    whole = centers(Ragged.from_list(PHOTOS), (SIDE, SIDE), share)
    torch.testing.assert_close(torch.cat(seen[False][-5:]), whole, rtol=0, atol=1e-6)
    augment = square_views(recipe(tiny).policy.augment(), SIDE)
    assert not torch.allclose(torch.cat(seen[True]), augment.eval()(PHOTOS), atol=1e-3)  # drawn views


def test_images_of_one_size_are_seen_as_a_batch_of_them_is(tiny: Recipe) -> None:
    """With the same draws; a batch of ``image_size`` needs no fit."""
    images = [torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(k)) for k in range(40)]
    own = recipe(tiny)
    torch.manual_seed(0)
    ragged = fit(own, Batches(images=images), Batches(images=images)).inputs
    torch.manual_seed(0)
    dense = fit(own, Batches(torch.stack, images), Batches(torch.stack, images)).inputs
    for training in (True, False):
        for ours, theirs in zip(ragged[training], dense[training], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_uint8_of_a_ragged_is_scaled(tiny: Recipe) -> None:
    bytes_ = [(255 * image).round().to(torch.uint8) for image in PHOTOS]
    seen = fit(recipe(tiny), Batches(images=bytes_), Batches(images=bytes_)).inputs
    assert float(seen[True][0].max()) <= 1.5
    whole = centers(Ragged.from_list(PHOTOS[32:]), (SIDE, SIDE)).clamp(0, 1)  # as bytes are
    torch.testing.assert_close(seen[False][-1], whole, rtol=0, atol=0.01)


def test_augmix_and_mixup_see_them_too(tiny: Recipe) -> None:
    own = recipe(tiny)
    mixed = own.replaced(train={**own.train.model_dump(), "mixup": 0.2})
    assert len(fit(mixed, Batches(), Batches()).inputs[True]) == 5
    three = own.replaced(policy={**POLICY, "augmix": {"severity": 3, "js_weight": 1.0}})
    assert [len(batch) for batch in fit(three, Batches(), Batches()).inputs[True]] == [24] * 5


@pytest.mark.parametrize("role", ["loader", "validation_loader"])
@pytest.mark.parametrize(
    ("change", "images", "message"),
    [
        ({"image_size": None}, PHOTOS, "expected data.image_size for images of different sizes"),
        ({}, [255 * image for image in PHOTOS], "divide by 255"),
        ({}, [image * float("nan") for image in PHOTOS], "expected finite images"),
        ({"mean": [0.1, 0.2, 0.3], "std": [1.0] * 3}, PHOTOS, "the images have 1 channels"),
    ],
)
def test_refused_in_one_line(role: str, change: Any, images: list[Tensor], message: str, tiny: Recipe) -> None:
    good = Batches(torch.stack, [torch.rand(1, SIDE, SIDE)] * 40) if change else Batches()
    given = {"loader": good, "validation_loader": good, role: Batches(images=images)}
    if "mean" in change:
        given = dict.fromkeys(given, Batches(images=images))
        role = "validation_loader"
    with pytest.raises(InputError, match=f"^{role}: .*{message}") as caught:
        fit(recipe(tiny, **change), **{"loader": given["loader"], "held_out": given["validation_loader"]})
    assert "\n" not in str(caught.value)


def test_a_kernel_that_cannot_resize_is_refused(tiny: Recipe) -> None:
    own = recipe(tiny).replaced(policy={"shift": {"max_pixels": 2.0}, "kernel": "fourier", "padding": "circular"})
    with pytest.raises(InputError, match="'fourier', which cannot resize"):
        fit(own, Batches(), Batches())


def test_lists_that_are_no_images_are_named() -> None:
    for images in ([], [torch.rand(3, 4)], ["a", "b"]):
        with pytest.raises(InputError, match=r"^loader: "):
            labeled((images, torch.arange(2)))
    with pytest.raises(InputError, match=r"^loader: images\[1\]: expected the channels of the first image, 3, got 1"):
        labeled(([torch.rand(3, 4, 5), torch.rand(1, 4, 5)], torch.arange(2)))
    with pytest.raises(InputError, match="expected as many labels as images"):
        labeled((Ragged.from_list(PHOTOS[:3]), torch.arange(2)))
    with pytest.raises(InputError, match=r"^loader: expected batches of"):
        labeled(Ragged.from_list(PHOTOS[:3]))
    doubles = labeled((Ragged.from_list([image.double() for image in PHOTOS[:3]]), torch.arange(3)))[0]
    assert doubles.dtype == torch.float32


def test_invariance_is_measured_on_their_centers() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    whole, options = Ragged.from_list(PHOTOS), {"max_shift": 1.0, "pairs": 2, "input_size": 8, "batch_size": 16}
    expected = augkit.measure_invariance(model, centers(whole, (10, 10)), LABELS, **options)
    ours = augkit.measure_invariance(model, whole, LABELS, image_size=10, **options)
    streamed = augkit.measure_invariance(model, Batches(), image_size=(10, 10), **options)
    assert ours.js.value == expected.js.value
    assert ours.fingerprint == expected.fingerprint
    assert streamed.js.value == pytest.approx(expected.js.value, rel=1e-5)
    assert streamed.settings.images == 40
    with pytest.raises(InputError, match="expected an image_size for images of different sizes"):
        augkit.measure_invariance(model, whole, LABELS, **options)
    with pytest.raises(InputError, match=r"size: expected \(H, W\)"):
        augkit.measure_invariance(model, whole, LABELS, image_size=0, **options)
