"""The image files of a folder, through symbolic links, and every other file with the reason why it is none."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

# Pillow knows these by their header and cannot decode them itself: for want of a handler, or of another program.
HEADER_ONLY = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
OTHER_READER = frozenset({"MPO"})  # which the reader of JPEG opens


@cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of files that Pillow decodes, in lower case, with the dot.

    >>> {".png", ".jpg", ".jfif", ".ppm", ".gif", ".tif", ".webp"} <= image_suffixes(), ".pdf" in image_suffixes()
    (True, False)
    """
    kinds = Image.registered_extensions()  # loads all of Pillow's plugins, and with them `Image.OPEN`
    decoded = ({*Image.OPEN} | OTHER_READER) - HEADER_ONLY
    return frozenset(suffix for suffix, kind in kinds.items() if kind in decoded)


@dataclass
class Listing:
    """Image files in the order of their paths, and what was left out: the path in quotes to the reason."""

    images: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, path: str | Path, reason: str) -> None:
        """Note a file or folder that is not used."""
        self.left_out[f"'{path}'"] = reason


def list_images(folder: Path, *, deep: bool = True) -> Listing:
    """The image files of a folder, and of the folders in it where ``deep``; links are followed.

    Left out are hidden files and folders, links to a folder around them or to nothing, and what Pillow cannot read.

    Raises:
        OSError: the folder itself cannot be read.
    """
    found = Listing()
    _walk(str(folder), (os.path.realpath(folder),), found, deep)
    found.images.sort()
    return found


def _walk(folder: str, around: tuple[str, ...], found: Listing, deep: bool) -> None:
    """List one folder; ``around`` are the real paths of it and of those that led to it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                if deep:
                    _enter(entry, around, found)
            elif (reason := _not_an_image(entry)) is None:
                found.images.append(Path(entry.path))
            else:
                found.leave_out(entry.path, reason)


def _enter(entry: os.DirEntry[str], around: tuple[str, ...], found: Listing) -> None:
    real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(around[-1], entry.name)
    if entry.name.startswith("."):
        found.leave_out(entry.path, "a hidden folder")
    elif real in around:
        found.leave_out(entry.path, "a link to a folder that it lies in")
    else:
        try:
            _walk(entry.path, (*around, real), found, deep=True)
        except OSError as error:
            found.leave_out(entry.path, f"cannot be read ({error.strerror or error})")


def _not_an_image(entry: os.DirEntry[str]) -> str | None:
    if entry.name.startswith("."):
        return "a hidden file"
    if not entry.is_file():
        return "a link to nothing" if entry.is_symlink() else "not a regular file"
    suffix = os.path.splitext(entry.name)[1].lower()
    if suffix not in image_suffixes():
        return f"Pillow reads no {suffix} files" if suffix else "a file without a suffix"
    return None
