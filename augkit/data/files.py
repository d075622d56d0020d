"""Lists the files of one kind in a folder, following symbolic links, and the omitted files with reasons."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from augkit.core.errors import InputError

BEFORE_A_FOLDER = ("folder:", "parquet:", "hf:")  # in names of data and networks
# Pillow identifies these but cannot decode them: it has no handler, or needs another program.
HEADER_ONLY = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"})
OTHER_READER = frozenset({"MPO"})  # opened by the JPEG reader


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of files that Pillow decodes, in lower case, with the dot.

    >>> {".png", ".jpg", ".jfif", ".ppm", ".gif", ".tif", ".webp"} <= image_suffixes(), ".pdf" in image_suffixes()
    (True, False)
    """
    kinds = Image.registered_extensions()  # loads all of Pillow's plugins, and with them `Image.OPEN`
    decoded = ({*Image.OPEN} | OTHER_READER) - HEADER_ONLY
    return frozenset(suffix for suffix, kind in kinds.items() if kind in decoded)


@dataclass
class Listing:
    """Files in the order of their paths, and the omitted files: the path in quotes to the reason."""

    files: list[Path] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    def leave_out(self, path: str | Path, reason: str) -> None:
        """Record an omitted file or folder."""
        self.left_out[f"'{path}'"] = reason


def list_images(folder: Path, *, deep: bool = True, within: Path | None = None) -> Listing:
    """List the image files of a folder as `list_files` does."""
    return list_files(folder, image_suffixes(), "Pillow reads no {} files", deep=deep, within=within)


def list_files(
    folder: Path, suffixes: frozenset[str], others: str, *, deep: bool = True, within: Path | None = None
) -> Listing:
    """List the files of a folder with one of ``suffixes``, with ``deep`` also those of its subfolders.

    Links are followed. Hidden files and folders, links to a folder around them or to nothing, and files with another
    suffix are omitted; ``others`` is the reason for the last. ``within`` is the parent folder, where ``folder`` may be
    a link.

    Raises:
        OSError: the folder itself cannot be read.
    """
    found = Listing()
    real = Path(os.path.realpath(folder))
    around = {*map(str, real.parents), *([] if within is None else [os.path.realpath(within)])}
    _Walk(suffixes, others, deep, found).down(str(folder), (*around, str(real)))
    found.files.sort()
    return found


@dataclass(frozen=True)
class _Walk:
    suffixes: frozenset[str]
    others: str
    deep: bool
    found: Listing

    def down(self, folder: str, around: tuple[str, ...]) -> None:
        """List one folder; ``around`` are the real paths of it and of its parents."""
        with os.scandir(folder) as entries:
            for entry in entries:
                if os.path.isdir(entry.path):  # the entry's own method raises for a link to itself
                    if self.deep:
                        self._enter(entry, around)
                elif (reason := self._why_not(entry)) is None:
                    self.found.files.append(Path(entry.path))
                else:
                    self.found.leave_out(entry.path, reason)

    def _enter(self, entry: os.DirEntry[str], around: tuple[str, ...]) -> None:
        real = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(around[-1], entry.name)
        if entry.name.startswith("."):
            self.found.leave_out(entry.path, "a hidden folder")
        elif real in around:
            self.found.leave_out(entry.path, "a link to a folder that it lies in")
        else:
            try:
                self.down(entry.path, (*around, real))
            except OSError as error:
                self.found.leave_out(entry.path, f"cannot be read ({error.strerror or error})")

    def _why_not(self, entry: os.DirEntry[str]) -> str | None:
        if entry.name.startswith("."):
            return "a hidden file"
        if not os.path.isfile(entry.path):
            return "a link to nothing" if entry.is_symlink() else "not a regular file"
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix in self.suffixes:
            return None
        return self.others.format(suffix) if suffix else "a file without a suffix"


def check_kept(folder: Path, read: Iterable[str | Path | None]) -> None:
    """Check that nothing that a command reads lies in the folder that it replaces.

    Args:
        folder: the folder.
        read: files, folders and names of data and networks; those that are no path are passed over.

    Raises:
        InputError: one of them lies in the folder, or is the folder.
    """
    for source in read:
        name = str(source or "")
        place = Path(name.removeprefix(next(filter(name.startswith, BEFORE_A_FOLDER), ""))).expanduser()
        if name and place.exists() and place.resolve().is_relative_to(folder.resolve()):
            raise InputError(
                f"output '{folder}': --overwrite would delete '{place}', which is read; name another --output"
            )


def check_read_files(folder: Path, files: Iterable[str], again: str) -> None:
    """Check as `check_kept` that no recipe or study that a command reads lies in the folder that it replaces.

    Args:
        folder: the folder.
        files: files, folders with one, or shipped names.
        again: name of the file in ``folder`` that may be read, because the command writes it again.
    """
    paths = [Path(file).expanduser() for file in files]
    paths = [path / again if path.is_dir() else path for path in paths]
    check_kept(folder, [path for path in paths if path.is_file() and path.resolve() != (folder / again).resolve()])
