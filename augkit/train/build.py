"""A recipe's network, dataset and device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Required, TypedDict

import torch
from torch import nn

from augkit.architectures import NETWORKS, antialias, build_model
from augkit.architectures.external import timm_network, torchvision_network, torchvision_weights
from augkit.architectures.stages import freeze, parts_of
from augkit.architectures.weights import final_layer, fit_weights, read_weights, unwrapped
from augkit.augment.whole_images import needed_side
from augkit.core.errors import InputError
from augkit.core.random_streams import seeded
from augkit.data import Dataset, Images, Reading, WholeImages, load_dataset
from augkit.data.files import check_kept
from augkit.train.recipe import Recipe
from augkit.train.recipe_sections import DataSettings, ModelSettings

CELL = "cell:"  # prefix of the name of a study's arm in model.weights


class InputEntry(TypedDict, total=False):
    """The entry ``input`` of a checkpoint; for a custom network it has only ``model``, the name of its class."""

    model: str
    classes: Required[list[str]]
    channels: int | None
    side: int | None


@dataclass(frozen=True)
class NetworkInput:
    """Images and classes for which a network is built.

    Attributes:
        classes: names, in the order of the labels; numbers for a custom loader without names.
        channels, side: channels and side (pixels) of the images; None for a custom network.
        model: the name of the class of a custom network.
    """

    classes: list[str]
    channels: int | None = None
    side: int | None = None
    model: str | None = None

    def image(self) -> tuple[int, int]:
        """Channels and side, for networks that are built from a recipe."""
        assert self.channels is not None
        assert self.side is not None
        return self.channels, self.side

    def to_dict(self) -> InputEntry:
        """The entry ``input`` of a checkpoint."""
        if self.model is not None:
            return {"model": self.model, "classes": list(self.classes)}
        return {"classes": self.classes, "channels": self.channels, "side": self.side}


def describe_input(recipe: Recipe, data: Any, model: nn.Module | None = None) -> NetworkInput:
    """Return the input of the recipe's network, or of a custom ``model``, for a dataset or a loader."""
    if model is not None:
        final = final_layer(model)
        numbered = [str(k) for k in range(final[1] if final else 0)]
        classes = data.classes if isinstance(data, Dataset) else numbered
        return NetworkInput(list(classes), model=type(model).__qualname__)
    return NetworkInput(data.classes, data.shape[0], recipe.data.canvas or data.shape[-1])


def fresh_model(recipe: Recipe, data: Dataset) -> nn.Module:
    """Return the recipe's network for ``data``, untrained, frozen as in training, on the CPU, for early checks."""
    model = build_recipe_model(recipe, describe_input(recipe, data), recipe.seed, fresh=False)
    if recipe.train.freeze is not None:
        freeze(model, recipe.train.freeze.stages, recipe.train.freeze.head)
    return model


def build_recipe_model(recipe: Recipe, given: NetworkInput, seed: int, *, fresh: bool = True) -> nn.Module:
    """Return the recipe's network for the ``given`` input, with initial weights from ``seed``.

    With ``fresh`` False, neither pretrained weights nor the file of weights are loaded, as others will replace them.
    Pretrained weights that the file of weights replaces are not loaded either.

    Raises:
        InputError: the network is unknown or does not fit, timm is not installed, or the weights do not fit.
    """
    settings = recipe.model
    file = settings.weights if fresh else None
    if file is not None and file.startswith(CELL):
        raise InputError(f"model.weights: '{file}' names an arm of a study; expected a path outside of one")
    model = (
        _augkit_network(settings, given, seed)
        if settings.name in NETWORKS
        else _external_network(settings, given, seed, fresh and file is None)
    )
    if file is None:
        return model
    whole = load_initial_weights(model, file, settings.weights_of)
    if not whole and _trained_classes(settings, model) == len(given.classes):
        # The final layer of the file does not fit, that of the pretrained weights does.
        model = _external_network(settings, given, seed, True)
        load_initial_weights(model, file, settings.weights_of)
    return model


def _augkit_network(settings: ModelSettings, given: NetworkInput, seed: int) -> nn.Module:
    channels, side = given.image()
    return build_model(
        settings.name,
        len(given.classes),
        channels,
        downsample=settings.downsample,
        head=settings.head,
        padding_mode=settings.padding_mode,
        activation=settings.activation,
        stem=settings.stem,
        width=settings.width,
        input_size=side,
        position=settings.position,
        seed=seed,
    )


def _external_network(settings: ModelSettings, given: NetworkInput, seed: int, fresh: bool) -> nn.Module:
    package, _, name = settings.name.partition(":")
    classes, (channels, _) = len(given.classes), given.image()
    with seeded(seed):
        if package == "timm":
            model = timm_network(name, classes, channels=channels, pretrained=fresh and settings.pretrained)
        elif channels == 3:
            short, _, version = name.partition("@")
            trained = (version or "DEFAULT") if version or settings.pretrained else None
            model = torchvision_network(short, classes, weights=trained, load=fresh)
        else:
            raise InputError(f"model '{settings.name}': expected images of 3 channels, got {channels}; data.channels=3")
    return model if settings.downsample is None else antialias(model, method=settings.downsample)


def _trained_classes(settings: ModelSettings, model: nn.Module) -> int | None:
    """The number of classes of the pretrained weights that the settings name; None if they name none."""
    package, _, name = settings.name.partition(":")
    if package == "timm" and settings.pretrained:
        classes: int | None = getattr(model, "pretrained_cfg", {}).get("num_classes")
        return classes
    short, _, version = name.partition("@")
    if package == "torchvision" and (version or settings.pretrained):
        return len(torchvision_weights(short, version or "DEFAULT").meta["categories"] or ())
    return None


def load_initial_weights(model: nn.Module, path: str, part: str = "all") -> bool:
    """Load the weights in ``path``, except (auxiliary) final layers with another number of classes.

    With ``part`` ``features`` or ``head`` the other part of the network stays as it is.

    Returns:
        Whether the file has all of the network's weights.
    """
    own = model.state_dict()
    if part != "all":
        _, head = parts_of(model)
        state = dict(unwrapped(read_weights(path), own))
        kept = {name: value for name, value in own.items() if (name in head) != (part == "head")}
        fit_weights(model, state | kept, path)
        return False
    state = dict(unwrapped(read_weights(path), own))
    final = final_layer(model)
    given = state.get(f"{final[0]}.weight") if final is not None else None
    whole = True
    if final is not None and given is not None and given.ndim and len(given) != final[1]:
        whole = False
        for key in own.keys() & state.keys():
            mine, theirs = own[key].shape, state[key].shape
            if mine[:1] == (final[1],) and theirs == (len(given), *mine[1:]):
                state[key] = own[key]
    fit_weights(model, state, path)
    return whole


def reading_of(data: DataSettings) -> Reading:
    """Return the settings for reading encoded images."""
    return Reading(
        image_size=data.image_size,
        channels=data.channels,
        skip_corrupt=data.skip_corrupt,
        workers=data.workers,
        memory=data.memory * 2**20,
        max_megapixels=data.max_megapixels,
        crop_share=data.crop_share,
        decode_size=data.decode_size,
    )


def side_for_crops(recipe: Recipe) -> int | None:
    """Return the shorter side of images from which the policy's smallest crop need not be enlarged.

    None where training sees center squares alone: without a crop, on a canvas, or where images keep their size.
    """
    data = recipe.data
    if data.image_size is None or data.canvas is not None:
        return None
    return needed_side(recipe.policy.augment(), data.image_size)


def load_data(data: DataSettings) -> Dataset:
    """Load the dataset of these settings."""
    reading = reading_of(data)
    fill: float | str = 0.0 if data.canvas_fill == "black" else data.canvas_fill
    return load_dataset(
        data.name,
        root=data.root,
        limit=data.limit,
        labels_file=data.labels_file,
        only=data.classes,
        background=fill,
        **vars(reading),
    )


def check_overwrite(folder: str | Path, recipe: Recipe) -> None:
    """Raise InputError if data, labels or weights of a recipe lie in a folder that is to be replaced."""
    check_kept(Path(folder), [recipe.model.weights, recipe.data.name, recipe.data.root, recipe.data.labels_file])


def load_recipe_data(recipe: Recipe) -> Dataset:
    """Load the recipe's dataset, check it against the recipe's channels and canvas, and decode what training needs."""
    data = recipe.data
    dataset = load_data(data)
    if not dataset.classes:
        raise InputError(
            f"recipe {recipe.name}: expected images with labels, '{data.name}' has none; in a table call their column"
            " 'label'"
        )
    channels, *sides = dataset.shape
    if len(data.mean) not in (1, channels):
        raise InputError(f"recipe {recipe.name}: data.mean: expected 1 or {channels} values, got {len(data.mean)}")
    least = max(sides) + 2 * data.jitter
    if data.canvas is not None and data.canvas < least:
        room = f" with data.jitter {data.jitter}" if data.jitter else ""
        raise InputError(
            f"recipe {recipe.name}: data.canvas: expected at least {least} pixels{room}, got {data.canvas}"
        )
    training_images(recipe, dataset)
    return dataset


def training_images(recipe: Recipe, dataset: Dataset) -> Images | WholeImages:
    """Return the training images in the form that training needs: whole ones if the policy crops, else `Dataset.train`.

    Raises:
        InputError: a file is broken.
    """
    shorter = side_for_crops(recipe)
    whole = None if shorter is None else dataset.whole_train(shorter)
    return dataset.train if whole is None else whole


def choose_device(device: str | torch.device | None) -> torch.device:
    """Return ``device`` as a `torch.device`; when None, a CUDA GPU if there is one, else the CPU.

    Apple's GPU is used where it is named, ``mps``. It has not been run; tests simulate that it has no float64.

    Raises:
        InputError: the device is not available.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"device '{device}': cannot be used here ({reason})") from None
    return chosen
