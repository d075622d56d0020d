"""What Hugging Face tables have in common: a column of images, one of labels, names of classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from augkit.data.images import Images
from augkit.errors import InputError

LABEL_NAMES = ("label", "labels", "fine_label", "target", "class")


def open_encoded(value: Mapping[str, Any] | bytes | None, folder: Path | None = None) -> Image.Image:
    """The image of a cell: ``bytes``, or a struct with ``bytes`` or else the ``path`` of a file, under ``folder``.

    Raises:
        ValueError: the cell is empty.
    """
    cell: Mapping[str, Any] = {"bytes": value} if isinstance(value, bytes) else value or {}
    if cell.get("bytes"):
        return Image.open(BytesIO(cell["bytes"]))
    if cell.get("path"):
        return Image.open((folder or Path()) / cell["path"])
    raise ValueError("the cell is empty")


def choose_label(integers: list[str], classes: Mapping[str, list[str]], where: str) -> str | None:
    """The column of labels: one that carries class names, or an integer one, by its usual name; None without any.

    Raises:
        InputError: several, none of which has a usual name.
    """
    for names in (list(classes), integers):
        usual = [name for name in LABEL_NAMES if name in names]
        if usual or len(names) == 1:
            return usual[0] if usual else names[0]
        if names:
            raise InputError(f"{where}: expected one column of labels, got {', '.join(names)}; call it 'label'")
    return None


def clean_labels(values: Iterable[int | None], where: str) -> Tensor | None:
    """Labels ``(N,)`` int64; None where all are -1 or missing, as in a split whose labels are not public.

    Raises:
        InputError: only some are negative or missing.
    """
    labels = torch.tensor([-1 if value is None else int(value) for value in values], dtype=torch.int64)
    hidden = int((labels < 0).sum())
    if hidden == len(labels):
        return None
    if hidden:
        raise InputError(f"{where}: expected labels of 0 or more, {hidden} of {len(labels)} are negative or missing")
    return labels


def class_names(names: list[str] | None, splits: Mapping[str, Images], where: str) -> list[str]:
    """``names``, or numbers where there are none; empty without labels.

    Raises:
        InputError: a label beyond the names.
    """
    largest = max((int(part.labels.max()) for part in splits.values() if part.labels is not None), default=-1)
    if not names:
        return [str(k) for k in range(largest + 1)]
    if largest >= len(names):
        raise InputError(f"{where}: {len(names)} class names, got label {largest}")
    return list(names)
