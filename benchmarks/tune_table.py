"""Train and measure a fixed pool of augmentation policies, so that strategies of search can be replayed on it.

    python benchmarks/tune_table.py digits                       # about 10 minutes of one quiet core
    python benchmarks/tune_table.py cifar10 --data parquet:DIR   # about 50 minutes of one quiet core
    python benchmarks/tune_table.py digits --configurations 3 --output FILE

Each configuration is trained once, and `tune_replay.py` reads its results as often as it likes. A line of the table is
one network at one moment: configuration, part, epochs, seed, scores, and the CPU seconds of one thread that training
since the line before and measuring took. The parts:

- ``scratch``: one run with the seed of the search, paused after 1, 2, 4 and 8 epochs and resumed from its checkpoint,
  as `augkit.tune` does with rungs. Below 8 epochs the measuring is cheap (one pair of views an image, at most 256
  images), at 8 epochs it is full. Both are on the validation split.
- ``fork``: one and two epochs from the weights of the control (8 epochs without augmentation), measured cheaply.
- ``verified``: 8 epochs with other seeds, measured on images that no search sees, of which there are more.

A command that was stopped goes on where it was: lines are only appended.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import environment
from torch import nn
from tune_pool import FEW, FORK, RUNGS

import augkit
from augkit.data import Dataset, Images, sample
from augkit.data.dataset import Found
from augkit.data.stream import Reading
from augkit.train.evaluate import measure_model
from augkit.train.loop import fit
from augkit.train.recipe import Recipe
from augkit.tune.space import Space, Value, rounded

HERE = Path(__file__).parent
SEARCH_SEED = 0
FRESH = (101, 102)  # seeds of the verification
POOL_SEED = 20
PRESETS = (0.3, 0.6)  # as `augkit.tune` tries them: fractions of the way from the weak to the strong end


def _ranges(pixels: float, degrees: float, factor: float, area: float) -> dict[str, Any]:
    """A policy with eight searched fields."""
    share = {"search": [0.0, 1.0]}
    return {
        "shift": {"max_pixels": {"search": [0.0, pixels]}, "p": share},
        "rotate": {"max_degrees": {"search": [0.0, degrees]}, "p": share},
        "rescale": {"max_factor": {"search": [1.0, factor]}, "p": share},
        "crop": {"min_area": {"search": [area, 1.0]}, "p": share},
    }


@dataclass(frozen=True)
class Ground:
    """What is trained, and on which images it is verified.

    Attributes:
        tree: recipe with ranges.
        configurations: policies in the pool.
        searched_on: most images of the validation split that a search measures on.
        verified_on: images of the test split on which networks are verified; more than those of the search.
        pairs: pairs of views of each image in the verification.
    """

    tree: dict[str, Any]
    configurations: int
    searched_on: int
    verified_on: int
    pairs: int


GROUNDS = {
    "digits": Ground(
        {
            "name": "digits",
            "data": {"name": "digits", "canvas": 16},
            "model": {"name": "small_cnn", "width": 8},
            "policy": _ranges(4.0, 45.0, 1.5, 0.4),
            "optim": {"lr": 0.2},
            "train": {"epochs": RUNGS[-1], "batch_size": 64, "evaluate_every": RUNGS[-1]},
            "invariance": {"protocol": "embed", "max_shift": 4.0, "pairs": 4},
            "seed": SEARCH_SEED,
        },
        configurations=60,
        searched_on=500,
        verified_on=500,
        pairs=4,
    ),
    "cifar10": Ground(
        {
            "name": "cifar10",
            "data": {
                "name": "cifar10",
                "mean": [0.4914, 0.4822, 0.4465],
                "std": [0.2470, 0.2435, 0.2616],
                "limit": 5000,
            },
            "model": {"name": "resnet18", "width": 8, "stem": "imagenet", "downsample": "stride"},
            "policy": {**_ranges(6.0, 30.0, 1.5, 0.4), "flip": {"p": 0.5}, "padding": "reflection"},
            "optim": {"lr": 0.05},
            "train": {"epochs": RUNGS[-1], "batch_size": 32, "evaluate_every": RUNGS[-1]},
            "invariance": {"protocol": "crop", "max_shift": 2.0, "pairs": 2},
            "seed": SEARCH_SEED,
        },
        configurations=24,
        searched_on=500,
        verified_on=1500,
        pairs=2,
    ),
}


def make_space(ground: Ground) -> Space:
    """The space of a ground."""
    return Space.of(copy.deepcopy(ground.tree), "benchmark")


def small(ground: Ground, recipe: Recipe, source: str | None) -> Dataset:
    """The data of a ground, from ``source`` if given, with as many images in every split as it uses."""
    whole = augkit.load_dataset(source or recipe.data.name, limit=recipe.data.limit)
    parts = {
        "train": whole.train,
        "validation": sample(whole.validation, ground.searched_on),
        "test": whole.open_test(ground.verified_on),
    }
    return Dataset(Found(recipe.data.name, whole.classes, parts), whole.classes, reading=Reading())


def pool(space: Space, count: int) -> list[dict[str, Value]]:
    """The presets of `augkit.tune`, then points drawn uniformly; a longer pool begins as a shorter one does."""
    rng = np.random.default_rng(POOL_SEED)
    points = [space.preset(strength) for strength in PRESETS]
    for _ in range(count - len(points)):
        draws = zip(space.ranges.items(), rng.random(len(space.ranges)), strict=True)
        points.append({key: rounded(r.low + (r.high - r.low) * share, r) for (key, r), share in draws})
    return points[:count]


@dataclass
class Table:
    """The file of results; finished lines are not measured again.

    Attributes:
        path: the file, one JSON object a line.
        rows: lines so far.
    """

    path: Path
    rows: list[dict[str, Any]]

    @classmethod
    def open(cls, path: Path) -> Table:
        """Read a table, or begin one; a line that was torn by a kill is left out."""
        rows = []
        for line in path.read_text().splitlines() if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return cls(path, rows)

    def has(self, configuration: int | str, part: str, count: int) -> bool:
        """Whether a part of a configuration has as many lines as expected."""
        return sum(r.get("configuration") == configuration and r["part"] == part for r in self.rows) >= count

    def add(self, rows: list[dict[str, Any]]) -> None:
        """Append the lines of one part of a configuration."""
        self.rows += rows
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))


@dataclass
class Trainer:
    """Trains and measures configurations of a ground.

    Attributes:
        dataset: data of the search.
        unseen: images of the verification.
        pairs: pairs of views in the verification.
    """

    dataset: Dataset
    unseen: Images
    pairs: int
    control: nn.Module | None = None

    def scratch(self, recipe: Recipe, key: int | str) -> Iterator[dict[str, Any]]:
        """One run with its results on every rung."""
        with tempfile.TemporaryDirectory() as folder:
            for rung in RUNGS:
                began = time.thread_time()
                model = fit(recipe, output=folder, resume=True, dataset=self.dataset, until=rung, device="cpu").model
                trained = time.thread_time() - began
                for cheap in (True, False) if key == "control" and rung == RUNGS[-1] else (rung < RUNGS[-1],):
                    scores = self.searched(model, recipe, cheap)
                    yield {"configuration": key, "part": "scratch", "epochs": rung, "train_s": trained, **scores}
        if key == "control":
            self.control = copy.deepcopy(model)

    def fork(self, recipe: Recipe, key: int) -> Iterator[dict[str, Any]]:
        """A few epochs from the weights of the control, with a schedule of that length."""
        short = {**recipe.train.model_dump(), "epochs": FORK[-1], "evaluate_every": FORK[-1]}
        recipe = recipe.replaced(train=short)
        rows: list[dict[str, Any]] = []
        model, began = copy.deepcopy(self.control), time.thread_time()
        assert model is not None

        def on_epoch(row: Any) -> None:
            nonlocal began
            trained = time.thread_time() - began
            scores = self.searched(model, recipe, cheap=True)
            rows.append({"configuration": key, "part": "fork", "epochs": row["epoch"], "train_s": trained, **scores})
            model.train()
            began = time.thread_time()

        fit(recipe, dataset=self.dataset, model=model, device="cpu", on_epoch=on_epoch)
        yield from rows

    def verified(self, recipe: Recipe, key: int | str) -> Iterator[dict[str, Any]]:
        """Full training with each fresh seed, measured on unseen images."""
        for seed in FRESH:
            began = time.thread_time()
            model = fit(recipe, seed, dataset=self.dataset, device="cpu").model
            trained = time.thread_time() - began
            settings = {**recipe.invariance.model_dump(), "pairs": self.pairs}
            scores = scores_of(model, recipe.replaced(invariance=settings), self.unseen)
            row = {"configuration": key, "part": "verified", "epochs": RUNGS[-1], "seed": seed}
            yield row | {"train_s": trained} | scores

    def searched(self, model: nn.Module, recipe: Recipe, cheap: bool) -> dict[str, Any]:
        """Scores on the validation split, as a search measures them."""
        images = self.dataset.validation
        if cheap:
            recipe = recipe.replaced(invariance={**recipe.invariance.model_dump(), "pairs": 1})
            images = sample(images, FEW)
        return {"cheap": cheap, **scores_of(model, recipe, images)}


def scores_of(model: nn.Module, recipe: Recipe, images: Images) -> dict[str, Any]:
    """What a report says of a network, and the seconds that measuring took."""
    began = time.thread_time()
    report = measure_model(model, recipe, images, device=torch.device("cpu"))
    info = report.shift_information
    return {
        "accuracy": report.accuracy.value,
        "kappa": report.kappa.value,
        "shift_information": info.value if info.defined else 1.0,  # as `augkit.tune` takes answers that say nothing
        "measure_s": time.thread_time() - began,
    }


def build(name: str, data: str | None, count: int, output: Path) -> None:
    """Train what is missing in the table."""
    ground = GROUNDS[name]
    space = make_space(ground)
    dataset = small(ground, space.recipe, data)
    trainer, table = Trainer(dataset, dataset.open_test(), ground.pairs), Table.open(output)
    if not table.has("control", "about", 1):
        about: dict[str, Any] = {"ground": name, "space": space.to_dict()}
        about["environment"] = environment("cpu", ["augkit", "torch", "numpy"]) | {
            "command": f"python benchmarks/tune_table.py {name}" + " --data parquet:DIR" * (data is not None)
        }
        about |= {"train_images": len(dataset.train), "search_images": len(dataset.validation)}
        table.add([{"configuration": "control", "part": "about", **about, "verified_images": len(trainer.unseen)}])
    control = space.recipe.control()
    for _ in trainer.scratch(space.with_values(space.preset(0.6)), "warm-up"):
        break  # the first epoch of a process loads and compiles
    rows = list(trainer.scratch(control, "control"))  # always, for the weights from which the others fork
    if not table.has("control", "scratch", len(RUNGS) + 1):
        table.add(rows)
    if not table.has("control", "verified", len(FRESH)):
        table.add(list(trainer.verified(control, "control")))
    for key, values in enumerate(pool(space, count)):
        recipe = space.with_values(values)
        if not table.has(key, "scratch", len(RUNGS)):
            table.add([{**row, "values": values} for row in trainer.scratch(recipe, key)])
        if not table.has(key, "fork", len(FORK)):
            table.add(list(trainer.fork(recipe, key)))
        if not table.has(key, "verified", len(FRESH)):
            table.add(list(trainer.verified(recipe, key)))
        if key % 10 == 9:
            print(f"{name}: {key + 1} of {count}, {time.process_time():.0f} s of CPU in this run", flush=True)


def main() -> None:
    """Train and append."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ground", choices=GROUNDS)
    parser.add_argument("--data", help="where the images are, as in data.name of a recipe, such as parquet:DIR")
    parser.add_argument("--configurations", type=int)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    count = options.configurations or GROUNDS[options.ground].configurations
    output = options.output or HERE / "results" / f"tune-table-{options.ground}.jsonl"
    build(options.ground, options.data, count, output)


if __name__ == "__main__":
    main()
