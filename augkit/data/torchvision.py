"""Classification datasets of torchvision, by short name or by class name in any case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from augkit.core.errors import InputError
from augkit.data.dataset import Found
from augkit.data.decode import picture_of
from augkit.data.images import Images
from augkit.data.stream import Reading, Source, stream_of

Keywords = Mapping[str, Any]
BY_FLAG: dict[str, Keywords] = {"train": {"train": True}, "test": {"train": False}}
WHOLE: dict[str, Keywords] = {"all": {}}


def _named(train: str = "train", test: str = "test", validation: str | None = None) -> dict[str, Keywords]:
    parts = {"train": train, "validation": validation, "test": test}
    return {split: {"split": name} for split, name in parts.items() if name is not None}


# Per dataset: the class, and the keyword arguments of each split.
TORCHVISION: dict[str, tuple[str, dict[str, Keywords]]] = {
    "mnist": ("MNIST", BY_FLAG),
    "fashion-mnist": ("FashionMNIST", BY_FLAG),
    "kmnist": ("KMNIST", BY_FLAG),
    "cifar10": ("CIFAR10", BY_FLAG),
    "cifar100": ("CIFAR100", BY_FLAG),
    "qmnist": ("QMNIST", BY_FLAG),
    "emnist": ("EMNIST", {split: {"split": "balanced", **words} for split, words in BY_FLAG.items()}),
    "usps": ("USPS", BY_FLAG),
    "semeion": ("SEMEION", WHOLE),
    "svhn": ("SVHN", _named()),
    "stl10": ("STL10", _named()),
    "gtsrb": ("GTSRB", _named()),
    "food101": ("Food101", _named()),
    "stanfordcars": ("StanfordCars", _named()),
    "flowers102": ("Flowers102", _named(validation="val")),
    "dtd": ("DTD", _named(validation="val")),
    "fgvcaircraft": ("FGVCAircraft", _named(validation="val")),
    "pcam": ("PCAM", _named(validation="val")),
    "country211": ("Country211", _named(validation="valid")),
    "renderedsst2": ("RenderedSST2", _named(validation="val")),
    "oxfordiiitpet": ("OxfordIIITPet", _named("trainval")),
    "clevrclassification": ("CLEVRClassification", _named(test="val")),  # its test split has no labels
    "imagenette": ("Imagenette", _named(test="val")),
    "places365": ("Places365", {**_named("train-standard", "val")}),
    "sun397": ("SUN397", WHOLE),
    "caltech101": ("Caltech101", WHOLE),
    "caltech256": ("Caltech256", WHOLE),
    "eurosat": ("EuroSAT", WHOLE),
}
DEFAULT_ROOT = "~/.cache/augkit"


def canonical(name: str) -> str | None:
    """Return the key of `TORCHVISION` for ``name``, ignoring case, hyphens and underscores.

    >>> canonical("FashionMNIST"), canonical("SVHN"), canonical("cifar-10"), canonical("no")
    ('fashion-mnist', 'svhn', 'cifar10', None)
    """
    return {_plain(key): key for key in TORCHVISION}.get(_plain(name))


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


class Items(Source):
    """The images of a map-style dataset of ``(image, label)``."""

    def __init__(self, dataset: Any, title: str) -> None:
        self.dataset, self.title = dataset, title

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        """The dataset, the split and the number of the image."""
        return f"{self.title} image {index}"

    def open(self, index: int) -> Image.Image:
        """The image, as the dataset returns it."""
        return picture_of(self.dataset[index][0])


def find_torchvision(key: str, root: str | Path | None, reading: Reading) -> Found:
    """Load a dataset of `TORCHVISION` from ``root`` in torchvision's layout; download it there when missing.

    Raises:
        InputError: the dataset is missing and cannot be downloaded.
    """
    kind, keywords = TORCHVISION[key]
    folder = Path(root or DEFAULT_ROOT).expanduser()
    opened = {split: _open(key, kind, folder, words) for split, words in keywords.items()}
    splits = {split: read_items(part, f"{key}, {split}", reading) for split, part in opened.items()}
    labels = [part.labels for part in splits.values() if part.labels is not None]
    names = next(iter(opened.values()))
    known = list(getattr(names, "classes", None) or getattr(names, "categories", None) or ())
    return Found(key, known or [str(k) for k in range(1 + max(int(part.max()) for part in labels))], splits)


def _open(key: str, kind: str, root: Path, keywords: Keywords) -> Any:
    from torchvision import datasets

    make = getattr(datasets, kind, None)
    if make is None:
        raise InputError(f"dataset '{key}': this version of torchvision does not have {kind}; upgrade it")
    try:
        try:
            return make(str(root), **keywords, download=False)
        except (RuntimeError, FileNotFoundError):
            root.mkdir(parents=True, exist_ok=True)
            return make(str(root), **keywords, download=True)
    except (RuntimeError, OSError, ValueError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"dataset '{key}': not found in '{root}' and cannot be downloaded ({reason}); "
            "set data.root to a folder that holds it in torchvision's layout"
        ) from None


def read_items(dataset: Any, title: str, reading: Reading) -> Images:
    """Return the images of a map-style dataset of ``(image, label)``, from its array if any, else as a stream."""
    labels = labels_of(dataset)
    pixels = None if reading.image_size is not None else _array(dataset)
    return stream_of(Items(dataset, title), labels, reading) if pixels is None else Images(pixels, labels)


def labels_of(dataset: Any) -> Tensor:
    """Return the labels ``(N,)`` int64 of a map-style dataset of ``(image, label)``.

    They come from an attribute with one of the usual names, else from the items, which opens every image.
    """
    for attribute in ("targets", "labels", "_labels", "y", "_samples", "samples"):
        found = getattr(dataset, attribute, None)
        if found is None or len(found) != len(dataset) or not len(found):
            continue
        values = [value[-1] for value in found] if isinstance(found[0], tuple) else found
        labels = torch.as_tensor(np.asarray(values))
        if labels.ndim == 1 and all(int(labels[k]) == int(dataset[k][1]) for k in (0, len(dataset) - 1)):
            return labels.to(torch.int64)
    return torch.tensor([int(dataset[k][1]) for k in range(len(dataset))], dtype=torch.int64)


def _array(dataset: Any) -> Tensor | None:
    """Return the images as ``(N, C, H, W)`` if the dataset holds them in an array that agrees with its items."""
    data = getattr(dataset, "data", None)
    if not isinstance(data, np.ndarray | Tensor) or len(data) != len(dataset):
        return None
    pixels = torch.as_tensor(data)
    if pixels.dtype != torch.uint8 or pixels.ndim not in (3, 4):
        return None
    item = torch.from_numpy(np.array(dataset[0][0]))
    if pixels.ndim == 3:
        return pixels[:, None] if torch.equal(pixels[0], item) else None
    for planar in (pixels, pixels.permute(0, 3, 1, 2)):
        if planar.shape[1] == 3 and torch.equal(planar[0].permute(1, 2, 0), item):
            return planar.contiguous()
    return None
