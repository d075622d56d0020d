"""Shared parts of the readers of Hugging Face tables: a column of images, one of labels, and class names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from augkit.core.errors import InputError, brief
from augkit.data.dataset import Found
from augkit.data.labels import LARGEST
from augkit.data.stream import Reading, Source, stream_of

LABEL_NAMES = ("label", "labels", "fine_label", "target", "class", "category")
# What a possible column of labels holds: numbers of classes that it names, whole numbers, categories, or ``other``:
# text, booleans, or whole numbers stored as floats, which are labels only in a column with a usual name. What cannot
# be a label, such as a list, is ``strange``.
Kind = Literal["named", "whole", "category", "other", "strange"]
COUNTS = ("id", "idx", "index", "image_id", "unnamed: 0", "__index_level_0__")  # which row it is, as pandas writes it


@dataclass(frozen=True)
class Table:
    """One split of a table.

    Attributes:
        rows: the images.
        labels: the labels of the rows as stored; None without a column of labels.
        names: names of the classes, if the table has them.
        where: name of the labels in error messages.
    """

    rows: Source
    labels: list[Any] | None
    names: list[str] | None
    where: str


def open_encoded(value: Mapping[str, Any] | bytes | None, folder: Path | None = None) -> Image.Image:
    """Open the image of a cell: ``bytes``, or a struct with ``bytes`` or the ``path`` of a file under ``folder``.

    Raises:
        ValueError: the cell is empty.
    """
    cell: Mapping[str, Any] = {"bytes": value} if isinstance(value, bytes) else value or {}
    if cell.get("bytes"):
        return Image.open(BytesIO(cell["bytes"]))
    if cell.get("path"):
        return Image.open((folder or Path()) / cell["path"])
    raise ValueError("the cell is empty")


def choose_label(kinds: Mapping[str, Kind], where: str) -> str | None:
    """Return the name of the column of labels, or None without one.

    It is the column with class names, one with a usual name (in any case), or the only candidate. A column that numbers
    the rows is not a candidate.

    Raises:
        InputError: there are several candidates without a usual name, or a column with a usual name has no labels.
    """
    usual = [name for word in LABEL_NAMES for name in kinds if name.lower() == word]
    named = [name for name, kind in kinds.items() if kind == "named"]
    strange = [name for name in usual if kinds[name] == "strange"]
    usual = [name for name in usual if name not in strange]
    if strange and not (named or usual):
        raise InputError(
            f"{where}, column '{strange[0]}': expected one label a row, a whole number or text, got another type;"
            " convert it, or call it otherwise where the images are to have no labels"
        )
    candidates = named or usual[:1]
    candidates = candidates or [
        name for name, kind in kinds.items() if kind in ("whole", "category") and name.lower() not in COUNTS
    ]
    best = [name for name in usual if name in candidates]
    if len(candidates) > 1 and not best:
        raise InputError(f"{where}: expected one column of labels, got {', '.join(candidates)}; call it 'label'")
    return best[0] if best else candidates[0] if candidates else None


def found_in(name: str, tables: Mapping[str, Table], reading: Reading) -> Found:
    """Return the images of the splits, with the same numbering of labels in all of them.

    Raises:
        InputError: labels cannot be read, or a label exceeds the number of class names.
    """
    plain = {split: _plain_labels(table) for split, table in tables.items()}
    names = next((table.names for table in tables.values() if table.names), None)
    words = {value for values in plain.values() for value in values or () if isinstance(value, str)}
    if words:
        names = names or sorted(words)
        plain = {split: _numbered(values, names, tables[split].where) for split, values in plain.items()}
    labels = {split: _tensor(values, tables[split].where) for split, values in plain.items()}
    largest = max((int(part.max()) for part in labels.values() if part is not None), default=-1)
    if names and largest >= len(names):
        raise InputError(f"dataset '{name}': {len(names)} class names, got label {largest}")
    classes = names or [str(k) for k in range(largest + 1)]
    splits = {split: stream_of(table.rows, labels[split], reading) for split, table in tables.items()}
    return Found(name, list(classes), splits)


def _plain_labels(table: Table) -> list[Any] | None:
    """Return labels as whole numbers or text; None for missing labels and for empty text."""
    if table.labels is None:
        return None
    return [_plain(value, table.where) for value in table.labels]


def _plain(value: Any, where: str) -> int | str | None:
    if (
        value is None
        or (isinstance(value, str) and not value.strip())
        or (isinstance(value, float) and math.isnan(value))
    ):  # NaN is pandas' word for none
        return None
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int) or (isinstance(value, float | Decimal) and math.isfinite(value) and value == int(value)):
        if value > LARGEST:
            raise InputError(f"{where}: expected numbers of classes, at most {LARGEST:,}, got {int(value)}; as text?")
        return int(value)
    raise InputError(f"{where}: expected whole numbers or text, got {str(value)[:40]!r}")


def _numbered(values: list[Any] | None, names: list[str], where: str) -> list[int | None] | None:
    if values is None:
        return None
    numbers = {name: number for number, name in enumerate(names)}
    strange = next((value for value in values if value is not None and value not in numbers), None)
    if strange is not None:
        raise InputError(f"{where}: expected labels that are all text, or names of classes; got {brief(strange)}")
    return [None if value is None else numbers[value] for value in values]


def _tensor(values: list[int | None] | None, where: str) -> Tensor | None:
    """Return labels ``(N,)`` int64; None where all are -1 or missing, as in a split with hidden labels.

    Raises:
        InputError: only some labels are negative or missing.
    """
    if values is None:
        return None
    labels = torch.tensor([-1 if value is None else max(-1, value) for value in values], dtype=torch.int64)
    hidden = int((labels < 0).sum())
    if hidden == len(labels):
        return None
    if hidden:
        raise InputError(f"{where}: expected labels of 0 or more, {hidden} of {len(labels)} are negative or missing")
    return labels
