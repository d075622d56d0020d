"""Image files and tables for tests: written when needed, always the same."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from augkit.data import Dataset


def noise(seed: int, shape: tuple[int, ...] = (8, 8, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encoded(array: np.ndarray, kind: str = "png") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def write_folder(folder: Path, classes: dict[str, int], side: int = 8, mode: str = "RGB") -> Path:
    """One folder per class with that many PNG files of noise, each different."""
    rng = np.random.default_rng(0)
    for name, count in classes.items():
        (folder / name).mkdir(parents=True)
        for k in range(count):
            shape = (side, side, 3) if mode == "RGB" else (side, side)
            Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / name / f"{k:03d}.png")
    return folder


def write_parquet(
    path: Path, cells: list[Any], labels: list[int | None] | None, *, names: list[str] | None = None, rows: int = 4
) -> None:
    """A table in the image schema of Hugging Face, ``rows`` to a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {"image": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))}
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    if labels is not None:
        columns["label"] = pa.array(labels, pa.int64())
        features["label"] = {"names": names, "_type": "ClassLabel"} if names else {"dtype": "int64", "_type": "Value"}
    table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows)


def cells(first: int, count: int, shape: tuple[int, ...] = (8, 8, 3)) -> list[dict[str, Any]]:
    return [{"bytes": encoded(noise(first + k, shape)), "path": f"{k}.png"} for k in range(count)]


def pixels(seed: int, shape: tuple[int, ...] = (8, 8, 3)) -> torch.Tensor:
    """`noise` as ``(C, H, W)``."""
    array = torch.from_numpy(noise(seed, shape))
    return array.permute(2, 0, 1) if array.ndim == 3 else array[None]


def sizes(dataset: Dataset) -> list[int]:
    """How many images the three splits have."""
    return [len(part) for part in (dataset.train, dataset.validation, dataset.open_test())]
