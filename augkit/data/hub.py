"""``hf:NAME``: a dataset of the Hugging Face hub, or one in a local folder, through the library `datasets`.

``hf:NAME:CONFIG`` names a configuration. A folder may be one that `datasets.load_dataset` reads, or that
`save_to_disk` wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from augkit.data.columns import choose_label, class_names, clean_labels, open_encoded
from augkit.data.dataset import Found
from augkit.data.folder import SPLIT_NAMES
from augkit.data.images import Images
from augkit.data.stream import Reading, Source, stream_of
from augkit.errors import InputError


class HubRows(Source):
    """Rows of a `datasets.Dataset` whose images are left encoded."""

    def __init__(self, rows: Any, column: str, title: str) -> None:
        from datasets import Image as ImageFeature

        self.rows = rows.select_columns([column]).cast_column(column, ImageFeature(decode=False))
        self.column, self.title = column, title

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        """The dataset, the split and the row."""
        return f"{self.title} row {index}"

    def open(self, index: int) -> Image.Image:
        """The image, opened by Pillow."""
        return open_encoded(self.rows[index][self.column])


def find_hub(name: str, root: str | Path | None, reading: Reading) -> Found:
    """The images of ``NAME`` or ``NAME:CONFIG``; ``root`` is where `datasets` keeps its files.

    Raises:
        InputError: `datasets` is missing; there is no such dataset, or it cannot be had; no column of images.
    """
    where = f"dataset 'hf:{name}'"
    splits: dict[str, Images] = {}
    names: list[str] | None = None
    for split, rows in _by_split(_load(name, root, where), where).items():
        splits[split], found = _read(rows, f"{where}, {split}", reading)
        names = names or found
    return Found(f"hf:{name}", class_names(names, splits, where), splits)


def _load(name: str, root: str | Path | None, where: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise InputError("data 'hf:...': datasets is not installed; pip install 'augkit[huggingface]'") from None
    path, _, config = name.partition(":")
    cache = None if root is None else str(Path(root).expanduser())
    folder = Path(path).expanduser()
    try:
        if any((folder / mark).is_file() for mark in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder) if folder.is_dir() else path, config or None, cache_dir=cache)
    except Exception as error:  # the hub's client raises many kinds, of several libraries
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{where}: cannot be loaded ({reason[:200]})") from None


def _by_split(loaded: Any, where: str) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        return {"all": loaded}
    known = {SPLIT_NAMES[key.lower()]: rows for key, rows in loaded.items() if key.lower() in SPLIT_NAMES}
    if not known and len(loaded) > 1:
        raise InputError(f"{where}: expected splits train, validation, test, got {', '.join(loaded)}")
    return known or {"all": next(iter(loaded.values()))}


def _read(rows: Any, where: str, reading: Reading) -> tuple[Images, list[str] | None]:
    kinds = {name: type(feature).__name__ for name, feature in rows.features.items()}
    images = [name for name, kind in kinds.items() if kind == "Image"]
    if len(images) != 1:
        raise InputError(
            f"{where}: expected one column of images, got {', '.join(f'{k} ({v})' for k, v in kinds.items())}"
        )
    if not len(rows):
        raise InputError(f"{where}: expected rows, there are none")
    classes = {name: list(rows.features[name].names) for name, kind in kinds.items() if kind == "ClassLabel"}
    integers = [name for name in kinds if "int" in str(getattr(rows.features[name], "dtype", ""))]
    label = choose_label(integers, classes, where)
    labels = None
    if label is not None:
        labels = clean_labels(rows.select_columns([label]).with_format(None)[:][label], where)
    return stream_of(HubRows(rows, images[0], where), labels, reading), classes.get(label or "")
