"""Images and labels, given whole or as an iterable, as a stream of batches of a measurement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from augkit.augment.ragged import Ragged
from augkit.augment.resample import as_size, check_images
from augkit.augment.resample_each import centers
from augkit.core.errors import InputError, InputTypeError, check_whole

Pixels = Tensor | Ragged
Images = Pixels | Iterable[Pixels | tuple[Pixels, Tensor | None]]


def batches(
    images: Images,
    labels: Any,
    batch_size: int,
    image_size: tuple[int, int] | int | None = None,
    *,
    check: Callable[[Any, int], None] | None = None,
) -> Iterator[tuple[Tensor, Any]]:
    """Yield ``images`` and ``labels`` in batches of at most ``batch_size`` images.

    Args:
        images: ``(N, C, H, W)``, or an iterable of batches, each a tensor or a pair of images and labels.
        labels: ``(N,)`` for a tensor of images, or None; anything that can be sliced where ``check`` allows it.
        batch_size: the largest number of images in a batch.
        image_size: see `measure_invariance`.
        check: raises for labels that do not fit a number of images; class indices are expected when None.

    Raises:
        InputError: ``batch_size`` is below 1, the labels do not fit the images, or a `Ragged` has no ``image_size``.
    """
    check_whole("batch_size", batch_size, 1, optional=False)
    if isinstance(images, (Tensor, Ragged)):
        images = [(images, labels)]
    elif isinstance(images, (str, dict)) or not isinstance(images, Iterable):
        raise InputTypeError(f"images: expected (N, C, H, W), or an iterable of batches, got {type(images).__name__}")
    elif labels is not None:
        raise InputError("labels: an iterable of batches brings its own, as pairs (images, labels)")
    for batch in images:
        whole, of_batch = batch if isinstance(batch, (tuple, list)) else (batch, None)
        if not isinstance(whole, Ragged):
            check_images(whole)
        elif image_size is None:
            raise InputError("images: expected an image_size for images of different sizes (Ragged), got none; set it")
        else:
            size = as_size(image_size)
        (check or check_labels)(of_batch, len(whole))
        for start in range(0, len(whole), batch_size):
            part = slice(start, start + batch_size)
            pixels = centers(whole[part], size) if isinstance(whole, Ragged) else whole[part]
            yield pixels, None if of_batch is None else of_batch[part]


def check_labels(labels: Tensor | None, count: int, name: str = "labels") -> None:
    """Raise InputError unless labels are None or class indices ``(count,)``; ``name`` is for the message."""
    if labels is None:
        return
    fits = isinstance(labels, Tensor) and labels.shape == (count,)
    if not fits or labels.is_floating_point() or labels.is_complex():
        got = f"{labels.dtype} {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        raise InputTypeError(f"{name}: expected integers ({count},), got {got}")
    if count and int(labels.min()) < 0:
        raise InputError(f"{name}: expected class indices of at least 0, got {int(labels.min())}")


def class_indices(labels: Any, count: int, name: str = "labels") -> Tensor | None:
    """Return labels as a tensor of class indices ``(count,)``, from a tensor, an array or a list; None stays None.

    Raises:
        InputError: they are no class indices, or not ``count``; ``name`` is for the message.
    """
    with contextlib.suppress(TypeError, ValueError, RuntimeError):  # else `check_labels` says what was expected
        labels = labels if labels is None else torch.as_tensor(labels)
    check_labels(labels, count, name)
    return labels
