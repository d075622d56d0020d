"""The subject of a preview: one image, from a file, a dataset or a recipe, and the policy for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from augkit.augment.ops import op_specs
from augkit.augment.policy import Policy
from augkit.core.errors import InputError, unknown_name
from augkit.core.schema import apply_overrides, validate
from augkit.data import TORCHVISION, Images, Stream, list_images, read_files
from augkit.data.files import BEFORE_A_FOLDER
from augkit.data.load import FORMS
from augkit.data.torchvision import canonical
from augkit.preview.strengths import TILE
from augkit.train.build import load_data, reading_of, side_for_crops
from augkit.train.recipe import DataSettings, Recipe, find_recipe, shipped_recipes

DATASETS = ("mnist5k", "digits", *TORCHVISION)


@dataclass(frozen=True)
class Subject:
    """An image ``(C, H, W)`` uint8 at its full size, its title, the policy to show on it, and its recipe if any."""

    title: str
    image: Tensor
    policy: Policy
    recipe: Recipe | None = None


def find_subject(source: str | None = None, overrides: list[str] | None = None, seed: int | None = None) -> Subject:
    """Find the image and the policy of ``source``.

    Args:
        source: an image file, a dataset, or a recipe's file or shipped name; a name of both a dataset and a recipe is
            the recipe. None is a photograph from scikit-learn.
        overrides: ``dotted.key=value``, applied to the recipe, or to the policy of the examples of all ops.
        seed: selects the image of a dataset; the recipe's own, or 0, when None.

    Raises:
        InputError: the file is missing or not an image, the name is unknown, or, without a recipe, an override is not
            for the policy.
    """
    overrides = overrides or []
    if source is None:
        from sklearn.datasets import load_sample_image

        photograph = torch.from_numpy(np.array(load_sample_image("china.jpg"))).permute(2, 0, 1)
        return _with_example_policy("china.jpg of scikit-learn", photograph, overrides)
    path = Path(source).expanduser()
    if _is_recipe(source, path):
        recipe = Recipe.load(find_recipe(source), overrides)
        image = _image_of(_frame_of_training(recipe), recipe.seed if seed is None else seed)
        return Subject(f"recipe {recipe.name}", image, recipe.policy, recipe)
    if source.startswith(BEFORE_A_FOLDER) or source in DATASETS or canonical(source) is not None:
        name = Path(source.partition(":")[2]).name if source.startswith(BEFORE_A_FOLDER) else source
        return _with_example_policy(name, _image_of(DataSettings(name=source), seed or 0), overrides)
    if path.is_file():
        return _with_example_policy(path.name, _loaded(read_files([path])).images[0], overrides)
    if path.is_dir():
        raise InputError(f"'{source}': expected an image, a dataset or a recipe, it is a folder; as data: folder:DIR")
    if path.suffix or len(path.parts) > 1:
        raise InputError(f"'{source}': expected an image, a dataset or a recipe, there is no such file")
    raise unknown_name("image, dataset or recipe", source, {*DATASETS, *FORMS, *shipped_recipes()})


def reduced(image: Tensor, side: int) -> Tensor:
    """Return ``image`` ``(C, H, W)`` uint8, reduced to a longer side of at most ``side`` pixels."""
    height, width = image.shape[-2:]
    if max(height, width) <= side:
        return image
    factor = side / max(height, width)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    planes = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS)) for plane in image.numpy()]
    return torch.from_numpy(np.stack(planes))


def _is_recipe(source: str, path: Path) -> bool:
    if path.suffix in (".yaml", ".yml") or (path / "recipe.yaml").is_file():
        return True
    return source in shipped_recipes() and not path.is_file()


def _with_example_policy(title: str, image: Tensor, overrides: list[str]) -> Subject:
    """Return the policy of a subject without a recipe: the examples of all ops, with the overrides."""
    for override in overrides:
        if not override.startswith("policy."):
            raise InputError(f"override '{override}': expected policy.KEY=value; other keys need a recipe")
    side = min(reduced(image, TILE).shape[-2:])
    examples = {name: spec.example(side).model_dump() for name, spec in op_specs().items()}
    tree = apply_overrides({"policy": {**examples, "padding": "reflection"}}, overrides)
    return Subject(title, image, validate(Policy, tree["policy"], "policy"))


def _frame_of_training(recipe: Recipe) -> DataSettings:
    """Return the data of ``recipe`` as its policy sees them: a crop is one of the whole shorter side."""
    whole = side_for_crops(recipe) is not None
    return recipe.data.model_copy(update={"crop_share": 1.0}) if whole else recipe.data


def _image_of(data: DataSettings, seed: int) -> Tensor:
    """Return one image in the form used in training; from a folder, one of its files, regardless of labels."""
    rng = np.random.default_rng(seed)
    if data.name.startswith("folder:"):
        folder = Path(data.name.removeprefix("folder:")).expanduser()
        if not folder.is_dir():
            raise InputError(f"dataset '{data.name}': expected a folder, there is none")
        paths = list_images(folder).files
        if not paths:
            raise InputError(f"dataset '{data.name}': expected images, there are none")
        images: Images = read_files([paths[int(rng.integers(len(paths)))]], reading_of(data))
    else:
        train = load_data(data).train
        if not len(train):
            raise InputError(f"dataset '{data.name}': expected images with labels to train on, there are none")
        images = train.take(torch.tensor([int(rng.integers(len(train)))]))
    return _loaded(images).on_canvas(data.canvas)[0]


def _loaded(images: Images) -> Images:
    return images.load() if isinstance(images, Stream) else images
