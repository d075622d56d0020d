"""Labels files, which map the classes of the data to the outputs of a network."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import torch
from torch import Tensor

from augkit.core.errors import InputError, unknown_name

LARGEST = 10**6  # largest class number; above are identifiers, and that many names would fill the memory


def class_mapping(classes: list[str], labels_file: str | Path | None) -> tuple[Tensor | None, list[str]]:
    """Return the index of each of the data's ``classes`` in a labels file ``(K,)``, and the names of that file.

    Without a file the result is None and ``classes``: class folders are numbered in the order of their names.

    Raises:
        InputError: the file lacks a class; the message suggests the nearest name.
    """
    if labels_file is None:
        return None, classes
    path = Path(labels_file).expanduser()
    numbers, names = read_labels(path)
    for name in classes:
        if name not in numbers:
            raise unknown_name(f"class in '{path}':", name, numbers)
    return torch.tensor([numbers[name] for name in classes], dtype=torch.int64), names


def read_labels(path: Path) -> tuple[dict[str, int], list[str]]:
    """Return the number of every name in a labels file, and one name per number.

    A text file has one name per line, in the order of the network's outputs. A JSON file has a list of names in that
    order, or an object from number to name; both may have several names for one output, as ImageNet's index
    (``{"0": ["n01440764", "tench"], ...}``). A CSV file has lines ``folder,index``.

    Raises:
        InputError: the file does not exist, has another format, or has a name twice with different numbers.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _PARSERS.get(path.suffix.lower(), _lines)(text)
    except (OSError, ValueError, TypeError, RecursionError, csv.Error) as error:  # a UnicodeDecodeError is a ValueError
        said = getattr(error, "strerror", None) or str(error)  # of a missing file without its number and name
        reason = (said.splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"labels file '{path}': {reason}; expected names one a line, JSON, or CSV folder,index"
        ) from None
    if not rows:
        raise InputError(f"labels file '{path}': expected class names, it is empty")
    numbers: dict[str, int] = {}
    names: dict[int, str] = {}
    for number, name in rows:
        if numbers.setdefault(name, number) != number:
            raise InputError(f"labels file '{path}': '{name}' stands for {numbers[name]} and for {number}")
        names.setdefault(number, name)
    return numbers, [names.get(number, str(number)) for number in range(max(names) + 1)]


def _lines(text: str) -> list[tuple[int, str]]:
    lines = [line.strip() for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        raise ValueError(f"line {lines.index('') + 1} is empty")
    return list(enumerate(lines))


def _json(text: str) -> list[tuple[int, str]]:
    tree = json.loads(text)
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None:
        raise ValueError(f"a JSON {type(tree).__name__}")
    rows = []
    for number, value in items:
        for name in value if isinstance(value, list) else [value]:
            if not isinstance(name, str):
                raise ValueError(f"{name!r} is not a name")
            rows.append((_number(str(number)), name))
    return rows


def _csv(text: str) -> list[tuple[int, str]]:
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if any(len(row) != 2 for row in rows):
        raise ValueError("a line that is not folder,index")
    if rows and not rows[0][1].strip().isdecimal():
        rows = rows[1:]  # a header
    return [(_number(number), name.strip()) for name, number in rows]


def _number(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"'{text}' is not the number of a class")
    if len(text.strip()) > len(str(LARGEST)) or int(text) > LARGEST:
        raise ValueError(f"'{text.strip()[:40]}' is above {LARGEST:,}, the largest number of a class")
    return int(text)


_PARSERS = {".json": _json, ".csv": _csv}
