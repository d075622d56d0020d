"""Checks the images on which networks of a user's training loop are measured."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from augkit.core.errors import InputError, InputTypeError
from augkit.core.named import load_named
from augkit.core.schema import Tree, parse_override
from augkit.data import Dataset, Images, Stream

MEASURING: Tree = {  # by the keys of a recipe
    **{"invariance.protocol": "crop", "invariance.max_shift": 4.0, "invariance.kernel": None, "invariance.pairs": 4},
    **{"data.canvas": None, "data.mean": [0.0], "data.std": [1.0]},
}

CHANNELS = 4  # more channels than this, in images that are no wider, are rows
# The types of images that are measured.
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)


def measuring_overrides(overrides: Sequence[str], others: str) -> Tree:
    """The arguments of `measuring_settings` from overrides of the command line.

    Args:
        overrides: texts ``dotted.key=value``, such as ``invariance.max_shift=2``.
        others: for messages, the other keys that the command accepts.

    Raises:
        InputError: a key is not one of `MEASURING`.
    """
    found = dict(MEASURING)
    for text in overrides:
        dotted, value = parse_override(text)
        if dotted not in MEASURING:
            raise InputError(
                f"override '{text}': expected {others} or one of {', '.join(MEASURING)}, because a function trains by"
                " its own settings"
            )
        found[dotted] = [value] if dotted in ("data.mean", "data.std") and not isinstance(value, list) else value
    return {dotted.partition(".")[2]: value for dotted, value in found.items()}


def images_named(source: str, what: str) -> Any:
    """The images that ``package.module:attribute`` names, not checked; a function is called without arguments.

    Raises:
        InputError: it cannot be imported, or the function raises.
    """
    found = load_named(source, what)
    if not callable(found):
        return found
    try:
        return found()
    except Exception as error:  # the user's own code may raise anything
        reason = (str(error).splitlines() or [""])[0]
        raise InputError(f"{what} '{source}': calling it failed ({type(error).__name__}: {reason})") from error


def measuring_settings(
    images: Images,
    *,
    protocol: str,
    max_shift: float,
    kernel: str | None,
    pairs: int,
    canvas: int | None,
    mean: Sequence[float],
    std: Sequence[float],
) -> Tree:
    """The sections ``data`` and ``invariance`` of a recipe that measures ``images`` by these settings."""
    measuring: Tree = {"protocol": protocol, "max_shift": max_shift, "kernel": kernel, "pairs": pairs}
    name = f"images-{fingerprint(images)}"
    return {
        "data": {"name": name, "canvas": canvas, "mean": _listed(mean), "std": _listed(std)},
        "invariance": {key: value for key, value in measuring.items() if value is not None},
    }


def _listed(values: Sequence[float]) -> Any:
    """The values as a list; as they are where the recipe refuses them because they are none."""
    return list(values) if isinstance(values, Iterable) else values


def checked_images(given: tuple[Tensor, Tensor] | Images | Dataset, name: str, *, scored: bool) -> Images:
    """The images, of a dataset its validation split; with labels, unless there is a score.

    Args:
        given: the images.
        name: start of messages.
        scored: whether labels may be missing.

    Raises:
        InputError: images or labels have the wrong type, shape or range.
    """
    images = given.validation if isinstance(given, Dataset) else given
    if isinstance(images, (tuple, list)):
        if len(images) != 2 or not isinstance(images[0], Tensor):
            kinds = ", ".join(type(part).__name__ for part in images[:3])
            raise InputTypeError(f"{name}: expected a pair (images, labels) of tensors, got ({kinds})")
        images = Images(*images)
    if not isinstance(images, Images):
        kind = type(images).__name__
        raise InputTypeError(f"{name}: expected (images, labels) or a dataset of augkit, got {kind}")
    labels = images.labels
    pixels = images.take(torch.arange(min(2, len(images)))).images if isinstance(images, Stream) else images.images
    if pixels.ndim != 4 or len(pixels) < 2:
        raise InputError(f"{name}: expected two or more images (N, C, H, W), got {tuple(pixels.shape)}")
    if pixels.shape[1] > CHANNELS >= pixels.shape[3]:
        raise InputError(
            f"{name}: expected images (N, C, H, W), got {tuple(pixels.shape)}, which looks like (N, H, W, C); permute"
            " them by images.permute(0, 3, 1, 2)"
        )
    if pixels.dtype not in DTYPES:
        raise InputTypeError(f"{name}: expected images of uint8 or floating numbers, got {pixels.dtype}")
    if labels is None and not scored:
        raise InputError(f"{name}: expected labels, for accuracy, got none; or give a score")
    if labels is not None and (not isinstance(labels, Tensor) or labels.shape != (len(images),)):
        got = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise InputTypeError(f"{name}: expected labels ({len(images)},), got {got}")
    if labels is not None and (labels.is_floating_point() or labels.is_complex() or int(labels.min()) < 0):
        raise InputError(f"{name}: expected class indices from 0 as labels")
    if pixels.is_floating_point() and not bool(((pixels >= 0) & (pixels <= 1)).all()):
        raise InputError(f"{name}: expected images in [0, 1], not normalized; give mean and std instead")
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
            plain = tensor.detach().cpu().contiguous().flatten()
            found.update(plain.view(torch.uint8).numpy().tobytes())  # numpy has no bfloat16
    return found.hexdigest()[:12]
