"""The inputs of `augkit.tune_policy`: validation images and the space of a policy, both checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from augkit.augment.policy import Policy, changes_nothing
from augkit.core.errors import InputError, InputTypeError
from augkit.core.schema import Tree
from augkit.data import Dataset, Images, Stream
from augkit.train.recipe import find_ranges
from augkit.tune.space import Space


@dataclass(frozen=True)
class HeldOut:
    """Validation images in the place of a dataset; ``name`` identifies them.

    A search does not know the training images of a function. Their number only sets the share of measuring in the
    progress bar, and the validation images stand in for them.
    """

    validation: Images
    name: str

    @property
    def listed_train(self) -> Images:
        """The validation images."""
        return self.validation


def policy_space(space: Policy | Mapping[str, Any], settings: Tree) -> Space:
    """The space of the policy's strengths, or of the ranges of a mapping.

    Args:
        space: the policy, or a mapping as under ``policy`` in a recipe.
        settings: the other sections of the recipe that holds it.

    Raises:
        InputError: there is nothing to search, or the mapping is not that of a policy.
    """
    if not isinstance(space, (Policy, Mapping)):
        raise InputTypeError(f"space: expected an augkit.Policy or a mapping, got {type(space).__name__}")
    tree = space.model_dump(exclude_none=True) if isinstance(space, Policy) else _copied(space)
    found = Space.of({**settings, "policy": tree}, "space")
    # A recipe without ops has some that are searched by default; for a space that was given, that would be a surprise.
    written = not isinstance(space, Policy) and any(find_ranges(dict(space)))
    added = not written and any(key.split(".")[1] not in found.recipe.policy.own_ops for key in found.ranges)
    if added or not found.ranges or changes_nothing(found.with_values(found.preset(1.0)).policy):
        raise InputError(
            f"space: expected an op whose strength can be searched, such as shift, got {found.recipe.policy}"
        )
    return found


def _copied(tree: Mapping[str, Any]) -> Tree:
    return {key: _copied(value) if isinstance(value, Mapping) else value for key, value in tree.items()}


def validation_images(given: tuple[Tensor, Tensor] | Images | Dataset, *, scored: bool) -> Images:
    """The validation images; with labels, unless there is a score.

    Raises:
        InputError: images or labels have the wrong type, shape or range.
    """
    images = given.validation if isinstance(given, Dataset) else given
    if isinstance(images, (tuple, list)):
        if len(images) != 2 or not isinstance(images[0], Tensor):
            raise InputTypeError("validation: expected a pair (images, labels) of tensors")
        images = Images(*images)
    if not isinstance(images, Images):
        raise InputTypeError(f"validation: expected (images, labels) or a dataset, got {type(images).__name__}")
    labels = images.labels
    pixels = images.take(torch.arange(min(2, len(images)))).images if isinstance(images, Stream) else images.images
    if pixels.ndim != 4 or len(pixels) < 2:
        raise InputError(f"validation: expected two or more images (N, C, H, W), got {tuple(pixels.shape)}")
    if labels is None and not scored:
        raise InputError("validation: expected labels, for accuracy, got none; or give a score")
    if labels is not None and (not isinstance(labels, Tensor) or labels.shape != (len(images),)):
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise InputTypeError(f"validation: expected labels ({len(images)},), got {got}")
    if labels is not None and (labels.is_floating_point() or int(labels.min()) < 0):
        raise InputError("validation: expected class indices from 0 as labels")
    if pixels.is_floating_point() and not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise InputError("validation: expected images in [0, 1], not normalized; give mean and std instead")
    return images


def classes_of(images: Images) -> int | None:
    """Least number of classes that the labels need; None without labels."""
    return None if images.labels is None else max(2, int(images.labels.max()) + 1)


def fingerprint(images: Images) -> str:
    """A short hash of the images and labels, so that a study is not continued with others."""
    found = hashlib.sha256()
    pixels = torch.tensor(images.shape) if isinstance(images, Stream) else images.images  # decoding takes long
    for tensor in (pixels, images.labels):
        if tensor is not None:
            found.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]
