"""What people's files may hold: whatever comes, it is read, or refused in one line."""

from __future__ import annotations

import copy
import io
import json
import struct
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import cells, encoded, noise
from PIL import Image

from augkit.augment.ops import op_specs
from augkit.augment.policy import Policy
from augkit.compare.study.schema import Study
from augkit.core.errors import AugkitError
from augkit.core.schema import apply_overrides, parse_yaml
from augkit.data import load_dataset
from augkit.data.decode import Fault, Form, decode, decode_upright
from augkit.data.labels import read_labels
from augkit.train.recipe import Recipe, recipe_folders
from augkit.tune.space import Space

pytestmark = pytest.mark.slow

SECONDS = 8.0
RECIPES = [path.read_text() for folder in recipe_folders() for path in sorted(folder.glob("*.yaml"))]
STUDIES = [path.read_text() for folder in recipe_folders() for path in sorted((folder / "studies").glob("*.yaml"))]
# What is put into the middle of YAML, of JSON and of CSV.
PIECES = [
    *"{}[]:,-#&*!|>'\"%@`?\n\t \\/.~=<+",
    "  ",
    ": ",
    "- ",
    "null",
    "1e3",
    "-1",
    "0",
    ".inf",
    ".nan",
    "{search: [0, 1]}",
]
PIECES += [
    "{choice: [1, 2]}",
    "<<: ",
    "&a ",
    "*a",
    "!!int ",
    "yes",
    "[]",
    "{}",
    "''",
    "1e999",
    "\x00",
    "é",
    "\ud7ff",
    "key: ",
]
LEAVES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    1e3,
    0.5,
    -0.5,
    1e-9,
    10**30,
    float("inf"),
    float("nan"),
    "",
    "x",
    "1e3",
    "timm:",
    "folder:",
]
LEAVES += [
    [],
    {},
    [1],
    [0.5, 0.5],
    ["a"],
    {"search": [0, 1]},
    {"choice": [1, 2]},
    {"search": 1},
    {"op": "RandomErasing"},
    {1: 2},
]


def tries() -> Iterator[np.random.Generator]:
    """A random generator for each of as many tries as the time allows, always the same ones."""
    until, count = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        yield np.random.default_rng([20260101, count])
        count += 1
    assert count > 20


def one_line(read: Callable[[], Any], given: object) -> bool:
    """Whether ``read`` reads ``given``; where it refuses it, it must do so as augkit does."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except AugkitError as error:
        message = str(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} of {given!r}") from error
    else:
        return True
    assert len(message.splitlines()) == 1, given
    return False


def mangled(text: str, rng: np.random.Generator) -> str:
    """A few pieces put in, left out, doubled or swapped."""
    for _ in range(rng.integers(1, 4)):
        a, b = sorted(rng.integers(0, len(text) + 1, 2))
        b = min(b, a + int(rng.integers(1, 40)))
        piece = PIECES[rng.integers(len(PIECES))]
        kind = rng.integers(4)
        text = text[:a] + [piece, "", text[a:b] * 2, piece][kind] + text[a if kind == 0 else b :]
    return text


def changed(tree: Any, rng: np.random.Generator) -> Any:
    """A tree with some of its parts replaced, left out, or put under another name."""
    if rng.random() < 0.04:
        return copy.deepcopy(LEAVES[rng.integers(len(LEAVES))])
    if isinstance(tree, dict):
        found = {key: changed(value, rng) for key, value in tree.items() if rng.random() > 0.03}
        if rng.random() < 0.05:
            found[str(rng.choice(["op", "name", "search", "choice", "x", "ops", "worker_ops"]))] = changed({}, rng)
        return found
    return [changed(value, rng) for value in tree] if isinstance(tree, list) else tree


def test_mangled_recipes(tmp_path: Path) -> None:
    path, read = tmp_path / "x.yaml", 0
    for rng in tries():
        text = mangled(RECIPES[rng.integers(len(RECIPES))], rng)
        path.write_text(text)
        read += one_line(lambda: Recipe.load(path), text)
        one_line(lambda: Space.load(path), text)
    assert read


def test_random_trees_as_recipes_spaces_and_policies() -> None:
    full = Recipe.load("mnist5k").model_dump()
    full["policy"] |= {name: spec.example(40).model_dump() for name, spec in op_specs().items()}
    full["policy"] |= {
        "ops": [{"op": "RandomErasing", "scale": [0.02, 0.3], "p": 0.5}, {"op": "RandomRescale", "max_factor": 1.2}],
        "worker_ops": [{"op": "GaussNoise", "std_range": [0.1, 0.2]}],
    }
    read = 0
    for rng in tries():
        tree = changed(full, rng)
        if not isinstance(tree, dict):
            continue
        read += one_line(lambda tree=tree: Space.of(copy.deepcopy(tree), "tree"), tree)
        policy = tree.get("policy")
        if isinstance(policy, dict):
            one_line(lambda policy=policy: Policy.from_yaml(json.dumps(policy)), policy)
    assert read


def test_mangled_studies(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    for rng in tries():
        text = mangled(STUDIES[rng.integers(len(STUDIES))], rng)
        path.write_text(text)
        one_line(lambda: Study.load(path), text)


def test_random_overrides() -> None:
    tree = Recipe.load("mnist5k").model_dump()
    keys = [
        "data.mean.0",
        "policy.ops.0.op",
        "train.epochs",
        "policy",
        "name.x",
        "data.mean.9",
        "a.b.c",
        "",
        ".",
        "data..x",
    ]
    for rng in tries():
        word = mangled(f"{keys[rng.integers(len(keys))]}={LEAVES[rng.integers(len(LEAVES))]}", rng)
        one_line(lambda word=word: Recipe.load("mnist5k", [word]), word)
        one_line(lambda word=word: apply_overrides(tree, [word]), word)
        one_line(lambda word=word: parse_yaml(word, "word"), word)


def test_random_exif_beside_whole_pixels() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "maker", "2020:01:01 00:00:00"
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0note"
    exif.get_ifd(0x8825)[1] = "N"
    block, jpeg = exif.tobytes(), encoded(noise(0, (6, 10, 3)), "jpeg")
    for rng in tries():
        payload = bytearray(block if rng.random() < 0.8 else block[:14] + rng.bytes(rng.integers(0, 200)))
        for place in rng.integers(6, len(payload), rng.integers(1, 6)):
            payload[place] = rng.integers(256)
        content = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + bytes(payload) + jpeg[2:]
        found = decode_upright(partial(Image.open, io.BytesIO(content)))
        assert isinstance(found, Image.Image), (found, bytes(payload))
        assert sorted(found.size) == [6, 10]


KINDS = ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "PCX", "ICO", "SGI", "JPEG2000", "DDS", "QOI"]


def test_mangled_pictures_are_pixels_or_faults() -> None:
    files = []
    for kind in KINDS:
        stored = io.BytesIO()
        Image.fromarray(noise(0, (16, 16, 3))).save(stored, kind)
        files.append(stored.getvalue())
    form = Form(8, 8, 3, fit=True, convert=True, max_megapixels=4)
    pixels = 0
    for rng in tries():
        content = bytearray(files[rng.integers(len(files))])
        for place in rng.integers(0, min(len(content), int(rng.choice([40, 10**6]))), rng.integers(1, 5)):
            content[place] = rng.integers(256)
        content = content[: rng.integers(len(content)) if rng.random() < 0.2 else None]
        found = decode(partial(Image.open, io.BytesIO(bytes(content))), form)
        if isinstance(found, Fault):
            assert "\n" not in found.reason
        else:
            assert (found.shape, found.dtype) == ((3, 8, 8), np.uint8)
            pixels += 1
    assert pixels


def columns(rng: np.random.Generator, count: int) -> dict[str, Any]:
    """A random table of ``count`` rows: mostly with images, mostly with something like labels."""
    import pyarrow as pa

    words = np.array(["cat", "dog", "", "é", "10", "9"])
    images = cells(0, count) if rng.random() < 0.9 else [None] * count
    made: dict[str, Any] = {
        "images": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "bytes": pa.array([cell["bytes"] if cell else None for cell in images]),
        "whole": pa.array(rng.integers(-1, 5, count)),
        "small": pa.array(rng.integers(0, 2, count).astype(np.uint8)),
        "missing": pa.array([None if rng.random() < 0.5 else 1 for _ in range(count)], pa.int32()),
        "null": pa.nulls(count),
        "float": pa.array(rng.choice([0.0, 1.0, 0.5, np.nan], count)),
        "words": pa.array(rng.choice(words, count)),
        "category": pa.array(rng.choice(words, count)).dictionary_encode(),
        "truth": pa.array(rng.random(count) < 0.5),
        "list": pa.array([[1]] * count),
        "struct": pa.array([{"a": 1}] * count),
        "time": pa.array([0] * count, pa.timestamp("s")),
        "decimal": pa.array(["1"] * count).cast(pa.decimal128(5, 2)),
    }
    names = ["label", "labels", "class", "target", "x", "y", "fine_label", "image"]
    chosen = (
        ["images", *rng.choice(list(made), rng.integers(0, 4))] if rng.random() < 0.8 else rng.choice(list(made), 3)
    )
    return {names[k]: made[str(kind)] for k, kind in zip(rng.permutation(len(names)), chosen, strict=False)}


def test_random_tables(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    read = 0
    for rng in tries():
        for path in tmp_path.glob("*.parquet"):
            path.unlink()
        for split in rng.permutation(["train", "validation", "test"])[: rng.integers(1, 4)]:
            table = pa.table(columns(rng, int(rng.integers(0, 12))))
            if rng.random() < 0.3:
                feature = [{"_type": "ClassLabel", "names": ["a", "b"]}, 3, {"_type": "ClassLabel"}, None][
                    rng.integers(4)
                ]
                info = [{"info": {"features": {"label": feature}}}, {"info": None}, [], "x"][rng.integers(4)]
                table = table.replace_schema_metadata({"huggingface": json.dumps(info)[: rng.integers(2, 99)]})
            pq.write_table(table, tmp_path / f"{split}.parquet", row_group_size=int(rng.integers(1, 9)))

        def load() -> None:
            dataset = load_dataset(f"parquet:{tmp_path}", image_size=4, skip_corrupt=True)
            assert len(dataset.train.images) + len(dataset.open_test().images) >= 0

        read += one_line(load, [pq.read_schema(path) for path in tmp_path.glob("*.parquet")])
    assert read


def test_random_labels_files(tmp_path: Path) -> None:
    tree = {"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"], "2": "shark"}
    texts = {"csv": "folder,index\na,0\nb,1\n", "json": json.dumps(tree), "txt": "a\nb\nc\n"}
    read = 0
    for rng in tries():
        kind = str(rng.choice(list(texts)))
        path, text = tmp_path / f"labels.{kind}", mangled(texts[kind], rng)
        if kind == "json" and rng.random() < 0.5:
            text = json.dumps(changed(tree, rng))
        path.write_bytes(text.encode() if rng.random() < 0.9 else rng.bytes(40))
        read += one_line(lambda path=path: read_labels(path), text)
    assert read
