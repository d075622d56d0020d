"""``folder:DIR``: one folder per class, the same per split, or a flat folder of unlabeled images."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from augkit.core.errors import InputError, unknown_name
from augkit.data.dataset import Found
from augkit.data.files import Listing, list_images
from augkit.data.images import Images
from augkit.data.stream import Reading, Source, Stream, stream_of

# Usual names of the folders and files of splits.
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
FEWEST = 3  # images per class needed for three splits


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


def read_files(paths: list[Path], reading: Reading | None = None) -> Stream:
    """Return a stream of these files, at least one, without labels.

    Raises:
        InputError: one of the inspected files cannot be read as an image.
    """
    return stream_of(Files(paths), None, reading or Reading())


def find_folder(folder: Path, reading: Reading, *, one_class: bool = False) -> Found:
    """Find the images of a folder, following links; `Found.left_out` lists the other files with reasons.

    Args:
        folder: contains class folders; or folders ``train``, ``val``, ``test`` of class folders; or only images.
        reading: settings for reading images.
        one_class: accept a single class folder, for instance if a labels file names its class.

    Raises:
        InputError: the folder does not exist or has no images; a class is too small to be split, or there is only one
            class; or images lie beside class folders.
    """
    name = f"folder:{folder}"
    if not folder.is_dir():
        raise InputError(f"dataset '{name}': expected a folder, there is none")
    listing = Listing()
    inside = _folders(folder, listing)
    if not inside:
        paths = _own_images(folder, listing)
        if not paths:
            raise InputError(f"dataset '{name}': expected one folder per class, or images, there are none")
        return Found(name, [], {"all": read_files(paths, reading)}, left_out=listing.left_out)
    splits = [child for child in inside if child.name.lower() in SPLIT_NAMES and _folders(child, Listing())]
    others = [child for child in inside if child not in splits]
    named = [child for child in inside if child.name.lower() in SPLIT_NAMES]
    if len(splits) > 1 or len(named) == len(inside) > 1 or len(splits) == len(inside):
        if others:
            # As classes they would train a network to distinguish the splits.
            problem = "has none" if others[0] in named else "is of no split"
            raise InputError(
                f"dataset '{name}': expected folders of splits with class folders in each, '{others[0].name}' "
                f"{problem}; move it away, or its images into class folders"
            )
        return _by_split(name, folder, inside, reading, listing)
    classes = [child.name for child in inside]
    if len(classes) < 2 and not one_class:
        raise InputError(
            f"dataset '{name}': expected one folder per class, at least 2, got 1 ('{classes[0]}'); "
            f"as unlabeled images: folder:{inside[0]}"
        )
    everything = _read(name, folder, classes, FEWEST, reading, listing)
    return Found(name, classes, {"all": everything}, left_out=listing.left_out)


def _by_split(name: str, folder: Path, folders: list[Path], reading: Reading, listing: Listing) -> Found:
    found = {SPLIT_NAMES[child.name.lower()]: child for child in folders}
    if len(found) < len(folders):
        raise InputError(f"dataset '{name}': two folders for one split, {', '.join(f.name for f in folders)}")
    for path in _own_images(folder, listing):
        listing.leave_out(path, "beside the folders of the splits")
    inside = {split: _folders(path, listing) for split, path in found.items()}
    classes = [child.name for child in inside.get("train") or _folders(folders[0], Listing())]
    for split, children in inside.items():
        for child in children:
            if child.name not in classes:
                raise unknown_name(f"class folder in '{found[split]}':", child.name, classes)
    if len(classes) < 2:
        raise InputError(f"dataset '{name}': expected one folder per class, at least 2, got 1 ('{classes[0]}')")
    splits = {split: _read(name, path, classes, 1, reading, listing) for split, path in found.items()}
    return Found(name, classes, splits, left_out=listing.left_out)


def _read(name: str, folder: Path, classes: list[str], fewest: int, reading: Reading, listing: Listing) -> Images:
    beside = _own_images(folder, listing)
    if beside:
        raise InputError(
            f"dataset '{name}': {len(beside)} images lie beside the class folders, such as '{beside[0].name}'; "
            "move them into a class"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, each in enumerate(classes):
        if not (folder / each).is_dir():
            continue
        own = list_images(folder / each, within=folder)
        if len(own.files) < fewest:
            others = f", and {len(own.left_out)} other files" if own.left_out else ""
            raise InputError(
                f"dataset '{name}': class '{each}' has {len(own.files)} images{others}, expected {fewest} or more"
            )
        listing.left_out.update(own.left_out)
        paths.extend(own.files)
        labels.extend([label] * len(own.files))
    return stream_of(Files(paths), torch.tensor(labels, dtype=torch.int64), reading)


def _folders(folder: Path, listing: Listing) -> list[Path]:
    here = folder.resolve()
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        if path.name.startswith("."):
            listing.leave_out(path, "a hidden folder")
        elif path.is_symlink() and here.is_relative_to(path.resolve()):
            listing.leave_out(path, "a link to a folder that it lies in")
        else:
            found.append(path)
    return found


def _own_images(folder: Path, listing: Listing) -> list[Path]:
    """Return the images directly in the folder."""
    own = list_images(folder, deep=False)
    listing.left_out.update(own.left_out)
    return own.files
