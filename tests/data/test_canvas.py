"""Canvases: their pixels, the places of images on them, and training on a part of the classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import augkit
from augkit.core.errors import InputError
from augkit.data import load_dataset
from augkit.data.atypical import atypical, place_beyond
from augkit.data.images import Canvas, Images
from augkit.train.recipe import Recipe

PIXELS = torch.randint(0, 256, (5, 3, 8, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_mirrored_canvas_is_numpys_reflection() -> None:
    whole = np.pad(PIXELS.numpy(), ((0, 0), (0, 0), (6, 6), (5, 5)), mode="reflect")
    assert np.array_equal(Images(PIXELS, None, "reflection").on_canvas(20).numpy(), whole)


def test_a_canvas_of_the_mean_has_the_mean_color_of_each_image_around_it() -> None:
    found = Canvas(12, "mean")(PIXELS, torch.arange(5))
    assert torch.equal(found[:, :, 2:10, 1:11], PIXELS)
    colors = PIXELS.double().mean((-2, -1)).round().to(torch.uint8)
    assert torch.equal(found[:, :, 0, 0], colors)
    assert torch.equal(found[:, :, 11, 11], colors)


def test_jittered_images_lie_at_places_of_their_own_that_never_change() -> None:
    """The corner of an image that is white says where it lies."""
    images = Images(torch.full((400, 1, 6, 6), 255, dtype=torch.uint8), None)
    found = images.put_on_canvas(14, jitter=4).images
    assert torch.equal(images.put_on_canvas(14, jitter=4).images, found)
    corners = torch.stack([(image[0] == 255).nonzero()[0] for image in found]) - 4
    assert corners.min() == -4
    assert corners.max() == 4
    assert (found == 255).sum() == 400 * 36  # nothing is cut off
    counts = torch.stack([torch.bincount(corners[:, k] + 4, minlength=9) for k in (0, 1)]).double()
    assert ((counts - 400 / 9).abs() < 5 * (400 / 9) ** 0.5).all()
    assert abs(np.corrcoef(corners.numpy().T)[0, 1]) < 0.2
    few = Images(images.images[:7], None).put_on_canvas(14, jitter=4).images
    assert torch.equal(few, found[:7])  # of the number of the image alone


def test_validation_and_test_images_are_not_jittered(tiny: Recipe) -> None:
    from augkit.train.batches import make_batches
    from augkit.train.build import load_recipe_data
    from augkit.train.distributed import Process
    from augkit.train.evaluate import labeled_batches

    cpu, recipe = torch.device("cpu"), tiny.replaced(data={**tiny.data.model_dump(), "canvas": 20, "jitter": 4})
    data = load_recipe_data(recipe)
    batch = next(iter(make_batches(data, recipe, cpu, Process()).epoch(0)))
    assert batch.numbers is not None
    still = data.train.on_canvas(20)[batch.numbers]
    assert not torch.equal(batch.images, still)  # type: ignore[arg-type]
    shown, _ = next(labeled_batches(data.validation, recipe, cpu, Process()))
    assert torch.equal(shown, data.validation.on_canvas(20)[: len(shown)])


def test_classes_left_out_are_in_the_test_split_alone() -> None:
    whole, part = load_dataset("digits"), load_dataset("digits", only=[1, "4"], limit=100)
    assert part.classes == whole.classes
    assert part.train.labels is not None
    assert part.validation.labels is not None
    assert part.train.labels.unique().tolist() == part.validation.labels.unique().tolist() == [1, 4]
    assert len(part.train) == 100
    assert torch.equal(part.open_test().images, whole.open_test().images)
    everything = load_dataset("digits", only=[1, 4])
    assert whole.train.labels is not None
    assert torch.equal(
        everything.train.images, whole.train.images[torch.isin(whole.train.labels, torch.tensor([1, 4]))]
    )


def test_atypical_images_have_the_canvas_of_the_typical_ones() -> None:
    for background in ("mean", "reflection"):
        images = Images(PIXELS, torch.arange(5), background)
        assert {found.background for found in atypical(images).values()} == {background}
        moved = images.then(place_beyond(images, 0, 2.0)).images
        assert (moved.flatten(1).float().std(1) > 0).all()
    # Mirrored content has no uniform margin.
    assert (moved[:, :, 0].float().std(-1) > 0).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["data.classes=[12]"], r"data\.classes: expected numbers from 0 to 9, got 12"),
        (["data.classes=[eight]"], r"data\.classes: unknown class 'eight'"),
        (["data.jitter=9"], r"data\.canvas: expected at least 46 pixels with data\.jitter 9, got 40"),
        (["data.jitter=2", "data.canvas=null"], r"expected a canvas with jitter"),
        (["data.canvas_fill=mean", "data.canvas=null"], r"expected a canvas with canvas_fill"),
        (["data.canvas_fill=white"], r"data\.canvas_fill"),
        (["data.classes=[]"], r"data\.classes"),
    ],
)
def test_places_and_classes_that_do_not_exist_are_one_line(fields: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        augkit.fit(Recipe.load("mnist5k", fields))
    assert "\n" not in str(error.value)


def test_recipes_without_these_fields_keep_their_digest() -> None:
    assert Recipe.load("mnist5k").digest() == "d8666b501575"
    for field in ("data.jitter=1", "data.canvas_fill=mean", "data.classes=[1]", "train.freeze.stages=1"):
        assert Recipe.load("mnist5k", [field]).digest() != "d8666b501575"
