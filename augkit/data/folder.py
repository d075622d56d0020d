"""``folder:DIR``: one folder per class, a folder per split of these, or a flat folder of unlabelled images."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from augkit.data.dataset import Found
from augkit.data.images import Images
from augkit.data.stream import Reading, Source, stream_of
from augkit.errors import InputError, unknown_name

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
# What folders and files of splits are called.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
FEWEST = 3  # images of a class that is to be split in three


class Files(Source):
    """Image files."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, index: int) -> str:
        """The path in quotes."""
        return f"'{self.paths[index]}'"

    def open(self, index: int) -> Image.Image:
        """The image, opened by Pillow."""
        return Image.open(self.paths[index])


def find_folder(folder: Path, reading: Reading, *, one_class: bool = False) -> Found:
    """The images of a folder; hidden files and folders are passed over, as are files that are no images.

    Args:
        folder: class folders; or folders ``train``, ``val``, ``test`` of class folders; or images alone.
        reading: how images are read.
        one_class: whether a single class folder will do, as where a labels file says what it stands for.

    Raises:
        InputError: no such folder; no images; a class too small to be split, or only one class; images beside
            class folders.
    """
    name = f"folder:{folder}"
    if not folder.is_dir():
        raise InputError(f"dataset '{name}': expected a folder, there is none")
    inside = _folders(folder)
    if not inside:
        paths = _images(folder, deep=False)
        if not paths:
            raise InputError(f"dataset '{name}': expected one folder per class, or images, there are none")
        return Found(name, [], {"all": stream_of(Files(paths), None, reading)})
    if all(child.name.lower() in SPLIT_NAMES and _folders(child) for child in inside):
        return _by_split(name, inside, reading)
    classes = [child.name for child in inside]
    if len(classes) < 2 and not one_class:
        raise InputError(
            f"dataset '{name}': expected one folder per class, at least 2, got 1 ('{classes[0]}'); "
            f"as unlabelled images: folder:{inside[0]}"
        )
    return Found(name, classes, {"all": _read(name, folder, classes, FEWEST, reading)})


def _by_split(name: str, folders: list[Path], reading: Reading) -> Found:
    found = {SPLIT_NAMES[folder.name.lower()]: folder for folder in folders}
    if len(found) < len(folders):
        raise InputError(f"dataset '{name}': two folders for one split, {', '.join(f.name for f in folders)}")
    classes = [child.name for child in _folders(found.get("train") or folders[0])]
    for folder in folders:
        for child in _folders(folder):
            if child.name not in classes:
                raise unknown_name(f"class folder in '{folder}':", child.name, classes)
    if len(classes) < 2:
        raise InputError(f"dataset '{name}': expected one folder per class, at least 2, got 1 ('{classes[0]}')")
    return Found(name, classes, {split: _read(name, path, classes, 1, reading) for split, path in found.items()})


def _read(name: str, folder: Path, classes: list[str], fewest: int, reading: Reading) -> Images:
    beside = _images(folder, deep=False)
    if beside:
        raise InputError(
            f"dataset '{name}': {len(beside)} images lie beside the class folders, such as '{beside[0].name}'; "
            "move them into a class"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, each in enumerate(classes):
        own = _images(folder / each, deep=True)
        if len(own) < fewest and (folder / each).is_dir():
            raise InputError(
                f"dataset '{name}': class '{each}' has {len(own)} images, expected {fewest} or more "
                f"({', '.join(sorted(IMAGE_SUFFIXES))})"
            )
        paths.extend(own)
        labels.extend([label] * len(own))
    return stream_of(Files(paths), torch.tensor(labels, dtype=torch.int64), reading)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _images(folder: Path, *, deep: bool) -> list[Path]:
    found = folder.rglob("*") if deep else folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in found if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file())
