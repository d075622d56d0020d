"""``hf:NAME``: a dataset of the Hugging Face hub, or one in a local folder, through the library `datasets`.

``hf:NAME:CONFIG`` names a configuration. A folder may be one that `datasets.load_dataset` reads, or that
`save_to_disk` wrote.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from PIL import Image

from augkit.core.errors import InputError
from augkit.data.columns import Kind, Table, choose_label, found_in, open_encoded
from augkit.data.dataset import Found
from augkit.data.folder import SPLIT_NAMES
from augkit.data.stream import Reading, Source

DRIVE = re.compile(r"[A-Za-z]:(?=[\\/])")  # begins a path of Windows


def split_config(name: str) -> tuple[str, str]:
    r"""Split ``NAME:CONFIG`` into both; the configuration may be missing.

    >>> split_config("mnist:small"), split_config(r"C:\data\mnist"), split_config("C:/data:small")
    (('mnist', 'small'), ('C:\\data\\mnist', ''), ('C:/data', 'small'))
    """
    drive = DRIVE.match(name)
    start = drive.end() if drive else 0
    path, _, config = name[start:].partition(":")
    return name[:start] + path, config


class HubRows(Source):
    """Rows of a `datasets.Dataset` whose images are left encoded."""

    def __init__(self, rows: Any, column: str, title: str) -> None:
        from datasets import Image as ImageFeature

        self.rows = rows.select_columns([column]).cast_column(column, ImageFeature(decode=False))
        self.column, self.title = column, title

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """The dataset, the split and the row number."""
        return f"{self.title} row {index}"

    def open(self, index: int) -> Image.Image:
        """The image, opened by Pillow."""
        return open_encoded(self.rows[index][self.column])


def find_hub(name: str, root: str | Path | None, reading: Reading) -> Found:
    """Load the images of ``NAME`` or ``NAME:CONFIG``; ``root`` is the cache folder of `datasets`.

    Raises:
        InputError: `datasets` is not installed, the dataset does not exist or cannot be loaded, or it has no column of
            images.
    """
    where = f"dataset 'hf:{name}'"
    parts = _by_split(_load(name, root, where), where)
    return found_in(f"hf:{name}", {split: _read(rows, f"{where}, {split}") for split, rows in parts.items()}, reading)


def _load(name: str, root: str | Path | None, where: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError("data 'hf:...': datasets is not installed; pip install 'augkit[huggingface]'") from None
    path, config = split_config(name)
    cache = None if root is None else str(Path(root).expanduser())
    folder = Path(path).expanduser()
    try:
        if any((folder / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder) if folder.is_dir() else path, config or None, cache_dir=cache)
    except Exception as error:  # the hub's client raises errors of several libraries
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{where}: cannot be loaded ({reason[:200]})") from None


def _by_split(loaded: Any, where: str) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        return {"all": loaded}
    known = {SPLIT_NAMES[key.lower()]: rows for key, rows in loaded.items() if key.lower() in SPLIT_NAMES}
    if not known and len(loaded) > 1:
        raise InputError(f"{where}: expected splits train, validation, test, got {', '.join(loaded)}")
    return known or {"all": next(iter(loaded.values()))}


def _read(rows: Any, where: str) -> Table:
    types = {name: type(feature).__name__ for name, feature in rows.features.items()}
    images = [name for name, kind in types.items() if kind == "Image"]
    if len(images) != 1:
        raise InputError(
            f"{where}: expected one column of images, got {', '.join(f'{k} ({v})' for k, v in types.items())}"
        )
    if not len(rows):
        raise InputError(f"{where}: expected rows, there are none")
    kinds = {name: _kind(feature) for name, feature in rows.features.items() if name != images[0]}
    label = choose_label(kinds, where)
    if label is None:
        return Table(HubRows(rows, images[0], where), None, None, where)
    labels = rows.select_columns([label]).with_format(None)[:][label]
    names = list(rows.features[label].names) if kinds[label] == "named" else None
    return Table(HubRows(rows, images[0], where), labels, names, f"{where}, column '{label}'")


def _kind(feature: Any) -> Kind:
    """Return the kind of labels in a column of a `datasets` feature."""
    if getattr(feature, "names", None):
        return "named"
    dtype = str(getattr(feature, "dtype", ""))
    if type(feature).__name__ not in ("Value", "ClassLabel"):
        return "strange"
    if "int" in dtype:
        return "whole"
    return "other" if dtype.startswith(("bool", "float", "string", "large_string", "decimal", "null")) else "strange"
