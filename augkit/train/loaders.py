"""Checks the batches of a custom loader and converts them to a common form.

Images ``(B, C, H, W)``, or of different sizes in an `augkit.Ragged` or a list, stay uint8 or become float32. Labels
become classes ``(B,)`` int64, or, if they are given as probabilities (including one-hot), ``(B, K)`` float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from augkit.augment.ragged import Ragged, Size, check_list
from augkit.core.errors import InputError
from augkit.train.recipe import Recipe

CHANNELS = (1, 3, 4)  # of images as they come in files
FAR = 0.5  # bound of the overshoot of resampling beyond [0, 1]
SUMS_TO_ONE = 1e-2  # within this: probabilities may have been rounded to half precision
# Attributes in which loaders and samplers keep further ones.
HOLDS = ("sampler", "batch_sampler", "dataset", "loader")


def labeled(batch: Any, name: str = "loader") -> tuple[Tensor | Ragged, Tensor]:
    """Return images and labels of a batch in the form described above; ``name`` begins messages.

    >>> images, labels = labeled((torch.rand(2, 1, 4, 4).double(), torch.eye(2, dtype=torch.uint8)))
    >>> images.dtype, labels.dtype
    (torch.float32, torch.float32)

    Raises:
        InputError: the batch is not a pair of images and labels.
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise InputError(f"{name}: expected batches of (images, labels), two tensors, got {_described(batch)}")
    images, labels = (_at_hand(value, name) for value in batch)
    if _are_images(images):
        check_list(images, f"{name}: images")
        images = Ragged.from_list(images)
    if not isinstance(images, (Tensor, Ragged)):
        raise InputError(f"{name}: expected batches of (images, labels), two tensors, got {_described(batch)}")
    if isinstance(images, Tensor) and images.ndim == 3 and (not isinstance(labels, Tensor) or labels.ndim == 0):
        raise InputError(
            f"{name}: expected batches of images (B, C, H, W), got one image {tuple(images.shape)}; give the DataLoader"
            " a batch_size"
        )
    if not isinstance(labels, Tensor):
        raise InputError(f"{name}: expected batches of (images, labels), two tensors, got {_described(batch)}")
    if isinstance(images, Tensor):
        _check_images(images, name)
    if not labels.ndim or len(labels) != len(images):
        raise InputError(f"{name}: expected as many labels as images, got {tuple(labels.shape)} and {len(images)}")
    return _as_float32(images), _labels(labels, name)


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise InputError unless ``labels`` are below ``classes``, or are probabilities over as many classes."""
    if labels.ndim == 2 and labels.shape[1] != classes:
        raise InputError(f"labels: the network has {classes} classes, expected (B, {classes}), got {labels.shape[1]}")
    if labels.ndim == 1 and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise InputError(
            f"labels: the network has {classes} classes, expected labels from 0 to {classes - 1}, got {found}"
        )


def check_side(images: Tensor | Ragged, recipe: Recipe, name: str = "loader") -> Size | None:
    """Return (H, W) to which ``images`` of different sizes are fitted; None for a batch of one size.

    Raises:
        InputError: the recipe has no ``data.image_size`` for them, or a kernel that cannot resize.
    """
    if isinstance(images, Tensor):
        return None
    side = recipe.data.image_size
    if side is None:
        raise InputError(f"{name}: expected data.image_size for images of different sizes (Ragged), got none; set it")
    if recipe.policy.kernel == "fourier":
        raise InputError(
            f"{name}: expected images (B, C, H, W) with policy.kernel 'fourier', which cannot resize, got a Ragged; "
            "use 'lanczos3' or 'sinc'"
        )
    return side, side


def check_range(images: Tensor | Ragged, mean: Sequence[float], std: Sequence[float], name: str = "loader") -> None:
    """Check that images are uint8 or in [0, 1], as the normalization by ``mean`` and ``std`` expects.

    Raises:
        InputError: there are more or fewer channels than means, or values are not finite or far outside of [0, 1].
    """
    channels = images.channels if isinstance(images, Ragged) else images.shape[1]
    if len(mean) not in (1, channels):
        raise InputError(
            f"{name}: the recipe's data.mean has {len(mean)} values, the images have {channels} channels; set data.mean"
            " and data.std"
        )
    values = images.packed().values if isinstance(images, Ragged) else images
    if values.dtype == torch.uint8 or not values.numel():
        return
    low, high = (float(value) for value in values.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError(f"{name}: expected finite images, got values from {low:g} to {high:g}")
    bare = not any(mean) and all(value == 1 for value in std)  # the loader normalizes, and nothing else does
    if low >= -FAR and high > 20:
        raise InputError(f"{name}: expected images in [0, 1], or uint8, got up to {high:g}; divide by 255")
    if not bare and (low < -FAR or high > 1 + FAR):
        raise InputError(
            f"{name}: expected images in [0, 1], got {low:.3g} to {high:.3g}; leave Normalize out of the loader, as"
            " data.mean and data.std of the recipe do it, or set these to 0 and 1"
        )


def count_batches(loader: Any) -> int:
    """Return the number of batches of an epoch, which is the loader's length.

    Raises:
        InputError: the loader has no length, or its length is 0.
    """
    try:
        steps = len(loader)
    except (TypeError, NotImplementedError):  # of a DataLoader too, where its dataset has none
        got = type(loader).__name__
        raise InputError(f"loader: expected one with a length, such as a DataLoader, got {got} without") from None
    if steps < 1:
        raise InputError("loader: expected at least 1 batch, its length is 0 (fewer images than batch_size?)")
    return steps


def check_repeatable(loader: Iterable[Any], name: str) -> None:
    """Raise InputError for batches that can be iterated only once, such as a generator without a length."""
    if not isinstance(loader, Iterable):
        raise InputError(f"{name}: expected batches, such as a DataLoader, got {type(loader).__name__}")
    if isinstance(loader, Iterator) and not hasattr(loader, "__len__"):
        got = type(loader).__name__
        raise InputError(f"{name}: expected batches that can be gone through again, such as a DataLoader, got {got}")


def set_epoch(loader: Any, epoch: int) -> None:
    """Call ``set_epoch`` of the loader and of all samplers, datasets and loaders nested in it."""
    seen: list[Any] = []
    waiting = [loader]
    while waiting:
        each = waiting.pop()
        if each is None or any(each is other for other in seen):
            continue
        seen.append(each)
        if callable(getattr(each, "set_epoch", None)):
            each.set_epoch(epoch)
        waiting += [getattr(each, name, None) for name in HOLDS]


def _at_hand(value: Any, name: str) -> Any:
    """Return an array of any byte order and strides as a tensor, or a tensor after checking that it has values."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biufc":
            raise InputError(f"{name}: expected arrays of numbers, got one of {value.dtype}; number the classes from 0")
        return torch.from_numpy(np.ascontiguousarray(value.astype(value.dtype.newbyteorder("="), copy=False)))
    if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_nested or value.is_meta):
        kind = "on the device meta" if value.is_meta else "nested" if value.is_nested else "sparse"
        raise InputError(f"{name}: expected dense tensors with values, got one that is {kind}")
    return value


def _are_images(value: Any) -> bool:
    """Whether ``value`` is a list of images; a list of numbers or labels is not."""
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(one, Tensor) and one.ndim == 3 for one in value)
    )


def _as_float32(images: Tensor | Ragged) -> Tensor | Ragged:
    if images.dtype in (torch.uint8, torch.float32):
        return images
    return images.with_values(images.values.float()) if isinstance(images, Ragged) else images.float()


def _check_images(images: Tensor, name: str) -> None:
    shape = tuple(images.shape)
    if images.ndim != 4:
        hint = "; images.unsqueeze(1) gives gray images a channel" if images.ndim == 3 else ""
        raise InputError(f"{name}: expected images (B, C, H, W), got {shape}{hint}")
    if not images.numel():
        raise InputError(f"{name}: expected at least 1 image in every batch, got {shape}")
    if shape[3] in CHANNELS and shape[1] not in CHANNELS and shape[2] > 4:
        raise InputError(
            f"{name}: expected images (B, C, H, W), got {shape}, whose channels are last; images.permute(0, 3, 1, 2)"
        )
    if not images.is_floating_point() and images.dtype != torch.uint8:
        kind = str(images.dtype).removeprefix("torch.")
        raise InputError(f"{name}: expected images in uint8, or floating in [0, 1], got {kind}")


def _labels(labels: Tensor, name: str) -> Tensor:
    kind, shape = str(labels.dtype).removeprefix("torch."), tuple(labels.shape)
    whole = not labels.is_floating_point() and not labels.is_complex()
    if whole and (labels.ndim == 1 or (labels.ndim == 2 and shape[1] == 1)):
        return labels.reshape(-1).long()
    if labels.ndim != 2 or shape[1] < 2 or labels.is_complex():
        raise InputError(
            f"{name}: expected labels (B,) as integers, or (B, K) as probabilities, got {shape} {kind}"
            f"{'; labels.long()' if labels.ndim == 1 else ''}"
        )
    shares = labels.float()
    if not bool((shares >= 0).all() & ((shares.sum(1) - 1).abs() < SUMS_TO_ONE).all()):
        raise InputError(f"{name}: expected labels (B, K) whose rows sum to 1, one class an image, got other rows")
    return shares


def _described(batch: Any) -> str:
    if isinstance(batch, (tuple, list)):
        return f"{len(batch)} values ({', '.join(type(value).__name__ for value in batch[:4])})"
    if isinstance(batch, Mapping):
        return f"a dict of {', '.join(map(str, batch))}; give a pair of its images and labels"
    return type(batch).__name__
