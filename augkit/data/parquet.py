"""``parquet:DIR``: tables in the image schema of Hugging Face.

A struct column with ``bytes`` (and maybe ``path``) holds the encoded images, a column of numbers or of text the
labels. Names such as ``train-00000-of-00002.parquet`` or folders such as ``train/`` give the splits. Class names come
from the metadata that the library `datasets` writes, where present, or from text, in alphabetical order.
"""

from __future__ import annotations

import json
import os
import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from augkit.core.errors import InputError
from augkit.data.columns import Kind, Table, choose_label, found_in, open_encoded
from augkit.data.dataset import Found
from augkit.data.files import list_files
from augkit.data.folder import SPLIT_NAMES
from augkit.data.stream import Reading, Source

SUFFIXES = frozenset({".parquet", ".parq", ".pq"})
CACHE = 64 * 2**20  # bytes of encoded images that a process caches from the latest row groups


class Rows(Source):
    """Rows of parquet files. Reading a row reads its whole row group; the latest groups are cached."""

    def __init__(self, paths: list[Path], column: str) -> None:
        parquet = _pyarrow()
        self.paths, self.column = paths, column
        groups = []
        for number, path in enumerate(paths):
            metadata = parquet.read_metadata(path)
            groups += [(number, group, metadata.row_group(group).num_rows) for group in range(metadata.num_row_groups)]
        self.groups = [group[:2] for group in groups]
        self.ends = np.cumsum([group[2] for group in groups], dtype=np.int64)
        self._process = os.getpid()
        self._open: dict[int, Any] = {}
        self._read: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def name(self, index: int) -> str:
        """The file in quotes, and the row number in it."""
        file = self.groups[self._group(index)][0]
        first = next(k for k, (number, _) in enumerate(self.groups) if number == file)
        return f"'{self.paths[file]}' row {index - self._start(first)}"

    def open(self, index: int) -> Image.Image:
        """The image, opened by Pillow."""
        group = self._group(index)
        file = self.groups[group][0]
        cell = self._cells(group)[index - self._start(group)]
        return open_encoded(cell.as_py(), self.paths[file].parent)

    def _group(self, index: int) -> int:
        return int(np.searchsorted(self.ends, index, side="right"))

    def _start(self, group: int) -> int:
        return int(self.ends[group - 1]) if group else 0

    def _cells(self, group: int) -> Any:
        if self._process != os.getpid():  # a forked worker opens the files again, because file offsets would be shared
            self._process, self._open, self._read = os.getpid(), {}, OrderedDict()
        if group not in self._read:
            file, within = self.groups[group]
            opened = self._open.get(file) or _pyarrow().ParquetFile(self.paths[file])
            self._open = {file: opened}
            self._read[group] = opened.read_row_group(within, columns=[self.column], use_threads=False)[self.column]
            while len(self._read) > 1 and sum(cells.nbytes for cells in self._read.values()) > CACHE:
                self._read.popitem(last=False)
        self._read.move_to_end(group)
        return self._read[group]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": None, "_open": {}, "_read": OrderedDict()}


def find_parquet(path: Path, reading: Reading) -> Found:
    """Find the images of a folder of parquet files (following links, without hidden files), or of a single file.

    Raises:
        InputError: pyarrow is not installed, there are no files, a file is not parquet, or there is no column of
            images.
    """
    _pyarrow()
    name = f"parquet:{path}"
    files = [path] if path.is_file() else list_files(path, SUFFIXES, "").files if path.is_dir() else []
    if not files:
        raise InputError(f"dataset '{name}': expected parquet files, there are none")
    return found_in(name, {split: _read(name, members) for split, members in _by_split(name, files).items()}, reading)


def _by_split(name: str, files: list[Path]) -> dict[str, list[Path]]:
    """Return files by split, in the order of their names; all are ``all`` where no name contains a split."""
    parts: dict[str, list[Path]] = {}
    folders: dict[str, set[Path]] = {}
    splits = [_split_of(file) for file in files]
    if set(splits) == {"all"}:  # my_train.parquet and my_test.parquet must not be merged
        within = [_split_within(file) for file in files]
        splits = within if len(set(within)) > 1 else splits
    for file, split in zip(files, splits, strict=True):
        parts.setdefault(split, []).append(file)
        folders.setdefault(split, set()).add(file.parent)
    for split, where in folders.items():
        if len(where) > 1:
            listed = ", ".join(f"'{folder}'" for folder in sorted(where)[:4])
            raise InputError(f"dataset '{name}': {split} files lie in several folders, {listed}; name one of them")
    if len(parts) > 1 and "all" in parts:
        raise InputError(
            f"dataset '{name}': expected names such as train-*.parquet and test-*.parquet, got '{parts['all'][0].name}'"
        )
    return parts


def _split_of(file: Path) -> str:
    word = re.split(r"[-_.]", file.name)[0].lower()
    return SPLIT_NAMES.get(word) or SPLIT_NAMES.get(file.parent.name.lower()) or "all"


def _split_within(file: Path) -> str:
    """Return the split in any word of the name, as `_split_of` does for the first."""
    return next((SPLIT_NAMES[w] for w in re.split(r"[-_. ]", file.stem.lower()) if w in SPLIT_NAMES), "all")


def _read(name: str, files: list[Path]) -> Table:
    parquet = _pyarrow()
    try:
        schemas = [parquet.read_schema(file) for file in files]
        column, label, names = _columns(schemas[0], f"dataset '{name}'")
        _check_alike(
            name, files, [_columns(schema, f"'{file}'")[:2] for file, schema in zip(files, schemas, strict=True)]
        )
        rows = Rows(files, column)
        tables = [] if label is None else [parquet.read_table(file, columns=[label]) for file in files]
        labels = None if label is None else [value for table in tables for value in table[label].to_pylist()]
    except (OSError, ValueError, KeyError) as error:  # Arrow's own errors are subclasses of these
        if isinstance(error, InputError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"dataset '{name}': cannot be read as parquet ({reason})") from None
    if not len(rows):
        raise InputError(f"dataset '{name}': expected rows, '{files[0].name}' has none")
    return Table(rows, labels, names, f"dataset '{name}', column '{label}'")


def _check_alike(name: str, files: list[Path], columns: list[tuple[str, str | None]]) -> None:
    """Raise InputError if the files of a split have different names for the columns of images or labels."""
    for file, found in zip(files, columns, strict=True):
        if found != columns[0]:
            (image, label), (own_image, own_label) = columns[0], found
            raise InputError(
                f"dataset '{name}': expected the columns of '{files[0].name}' ({image}, {label or 'no labels'}) in"
                f" every file of the split, '{file.name}' has {own_image}, {own_label or 'no labels'}"
            )


def _columns(schema: Any, where: str) -> tuple[str, str | None, list[str] | None]:
    """Return the column of images, the column of labels (or None), and its class names (or None)."""
    import pyarrow as pa

    encoded = [f.name for f in schema if pa.types.is_struct(f.type) and "bytes" in [part.name for part in f.type]]
    encoded = encoded or [f.name for f in schema if str(f.type) in ("binary", "large_binary", "binary_view")]
    if len(encoded) != 1:
        got = ", ".join(f"{f.name} ({f.type})" for f in schema)[:200]
        raise InputError(f"{where}: expected one struct column with bytes, the images, got {got}")
    names = _names_in((schema.metadata or {}).get(b"huggingface", b"{}"))
    kinds: dict[str, Kind] = {}
    for column in schema:
        if column.name != encoded[0]:
            kinds[column.name] = "named" if column.name in names else _kind(column.type)
    label = choose_label(kinds, where)
    return encoded[0], label, names.get(label) if label is not None else None


def _names_in(metadata: bytes) -> dict[str, list[str]]:
    """Return class names by column, from the metadata of the library `datasets`; empty for other metadata."""
    try:
        features = json.loads(metadata)["info"]["features"].items()
        classes = {column: feature["names"] for column, feature in features if "names" in feature}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}
    return {column: list(map(str, names)) for column, names in classes.items() if isinstance(names, list) and names}


def _kind(column: Any) -> Kind:
    """Return the kind of labels in an Arrow column."""
    import pyarrow as pa

    if pa.types.is_integer(column):
        return "whole"
    if pa.types.is_dictionary(column):
        return "strange" if _kind(column.value_type) == "strange" else "category"
    text = str(column) in ("string", "large_string", "string_view")
    number = pa.types.is_floating(column) or pa.types.is_decimal(column) or pa.types.is_boolean(column)
    return "other" if text or number or pa.types.is_null(column) else "strange"


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError:
        raise InputError("data 'parquet:...': pyarrow is not installed; pip install 'augkit[parquet]'") from None
    return pyarrow.parquet
