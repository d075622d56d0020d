"""Do a detector and a segmenter flicker when the image moves by a pixel, and does blur pooling remove it?

A small detector and a small segmenter of stride 4 (``flicker_networks.py``) are trained on synthetic shapes
(``flicker_shapes.py``), with max pooling and with blur pooling, everything else alike. `augkit.measure_outputs` then
compares every held-out image with itself moved to the right by 1, 2, 3 and 4 whole pixels, in the protocol ``crop``:
the pixels that both views show are the same bit for bit. 4 pixels are the stride, where both must be quiet inside.

Three causes of a difference that are not blur pooling are looked for:

- **threshold**: `lost` boxes are told apart from `vanished` ones, which have no partner of any score; and `lost` is
  given once more at the threshold of each network at which it finds as many boxes as there are shapes;
- **accuracy**: average precision and mIoU stand beside, and the flicker is compared at matched accuracy: the better
  network of a seed is taken where, along its training, it was as good as the other one is at its end (linearly
  between the checkpoints);
- **the border**: boxes count only away from it, and the row of 4 pixels shows what is left.

A checkpoint within the training has had fewer steps, at higher learning rates, than a final network.

    python benchmarks/flicker.py                  # twenty minutes of one core; goes on where it stopped
    python benchmarks/flicker.py --seeds 2        # a first look
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from flicker_networks import MARGIN, NETWORKS, POOLS, SIDE, train
from flicker_report import markdown, summary
from flicker_shapes import CLASSES, Shapes, crop, draw
from torch import Tensor, nn

from augkit import measure_outputs
from augkit.core.files import environment, write
from augkit.invariance.plan import one_shift

STEPS = 500
KEPT = (200, 300, 400, 500)
SHIFTS = (1, 2, 3, 4)
IMAGES = 300
SCORE = 0.3
BORDER = 12.0  # pixels at each border of a map that are not compared, as zero padding reaches them
NUMBERS = {
    "detector": (
        "lost", "new", "vanished", "class_change", "score_change", "box_iou", "equivariance_error", "ap50", "ap",
    ),
    "segmenter": ("pixel_top1_change", "equivariance_error"),
}  # fmt: skip


def train_all(folder: Path, seeds: int) -> None:
    """Train what is not in ``folder`` yet; the weights after each of `KEPT` steps are kept."""
    for seed in range(seeds):
        for task in NETWORKS:
            for kind in POOLS:
                file = folder / f"{task}-{kind}-{seed}.pt"
                if file.exists():
                    continue
                start = time.process_time()
                weights = train(task, kind, seed, STEPS, KEPT)
                torch.save(weights, file.with_suffix(".part"))
                file.with_suffix(".part").rename(file)
                print(f"{file.name}: {time.process_time() - start:.0f} s of the processor", file=sys.stderr, flush=True)


def load(folder: Path, task: str, kind: str, seed: int, step: int) -> nn.Module:
    """A trained network."""
    network = NETWORKS[task](kind)
    network.load_state_dict(torch.load(folder / f"{task}-{kind}-{seed}.pt", weights_only=True)[step])
    return network.eval()


def targets_of(shapes: Shapes) -> list[dict[str, Tensor]]:
    """The true boxes, as torchvision has them."""
    rows = zip(shapes.boxes, shapes.labels, strict=True)
    return [{"boxes": boxes[labels >= 0], "labels": labels[labels >= 0]} for boxes, labels in rows]


def flicker(task: str, network: nn.Module, shapes: Shapes, shift: int, score: float = SCORE) -> dict[str, float]:
    """The numbers of `measure_outputs` for images moved to the right by whole pixels."""
    extra: dict[str, Any] = {"box_score": score} if task == "detector" else {"border": BORDER}
    report = measure_outputs(
        network,
        shapes.images,
        targets_of(shapes) if task == "detector" else None,
        output={"detector": "detections", "segmenter": "map"}[task],
        plan=one_shift(shift, 0),
        input_size=SIDE,
        **extra,
    )
    return {name: report.numbers[name].value for name in NUMBERS[task]}


@torch.no_grad()
def accuracy(task: str, network: nn.Module, shapes: Shapes) -> float:
    """AP at IoU 0.5 is part of `flicker`; the segmenter's is its mean IoU over classes on the middle of the images."""
    middle = crop(shapes, MARGIN, MARGIN, SIDE)
    answers = torch.cat([network(part).argmax(1) for part in middle.images.split(50)])
    both = [((answers == k) & (middle.classes == k)).sum() for k in range(len(CLASSES) + 1)]
    either = [((answers == k) | (middle.classes == k)).sum() for k in range(len(CLASSES) + 1)]
    return float(sum(a / b for a, b in zip(both, either, strict=True)) / len(both))


@torch.no_grad()
def fair_score(network: nn.Module, shapes: Shapes) -> float:
    """The threshold at which a detector finds as many boxes as there are shapes whole in the middle of the images."""
    middle = crop(shapes, MARGIN, MARGIN, SIDE)
    inside = (middle.boxes >= 0).all(-1) & (middle.boxes <= SIDE).all(-1) & (middle.labels >= 0)
    found = [one for part in middle.images.split(50) for one in network(part)]
    scores = torch.cat([o["scores"][((o["boxes"] >= 0) & (o["boxes"] <= SIDE)).all(-1)] for o in found])
    return float(scores.sort(descending=True).values[int(inside.sum()) - 1])


def measure_one(task: str, folder: Path, kind: str, seed: int, shapes: Shapes) -> dict[str, Any]:
    """All numbers of one network, and those of its earlier checkpoints that matching needs."""
    row: dict[str, Any] = {"task": task, "pool": kind, "seed": seed, "checkpoints": [], "shifts": {}}
    for step in KEPT:
        network = load(folder, task, kind, seed, step)
        found = flicker(task, network, shapes, 1)
        found["accuracy"] = found["ap50"] if task == "detector" else accuracy(task, network, shapes)
        row["checkpoints"].append({"step": step, **found})
        if step != KEPT[-1]:
            continue
        row["shifts"]["1"] = found
        row["shifts"] |= {str(shift): flicker(task, network, shapes, shift) for shift in SHIFTS[1:]}
        if task == "detector":
            row["fair_score"] = fair_score(network, shapes)
            row["fair"] = flicker(task, network, shapes, 1, row["fair_score"])
    return row


def kept(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The content of a JSON file, which is made where it is not there yet."""
    if not file.exists():
        start = time.process_time()
        found = make()
        if not all(math.isfinite(v) for v in found["shifts"]["1"].values()):
            raise SystemExit(f"{file.name}: a number is not finite")
        write(file, json.dumps(found))
        print(f"{file.name}: {time.process_time() - start:.0f} s of the processor", file=sys.stderr, flush=True)
    out: dict[str, Any] = json.loads(file.read_text())
    return out


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, write, print the tables."""
    parser = argparse.ArgumentParser(description="Flicker of a detector and a segmenter, with and without blur.")
    parser.add_argument("--seeds", type=int, default=5, metavar="N")
    parser.add_argument("--runs", type=Path, default=Path("runs/flicker"), metavar="DIR", help="weights and numbers")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results", metavar="DIR")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.runs.mkdir(parents=True, exist_ok=True)
    options.output.mkdir(parents=True, exist_ok=True)
    train_all(options.runs, options.seeds)
    shapes = draw(IMAGES, SIDE + 2 * MARGIN, torch.Generator().manual_seed(99))
    rows = [
        kept(
            options.runs / f"{task}-{kind}-{seed}.json",
            lambda task=task, kind=kind, seed=seed: measure_one(task, options.runs, kind, seed, shapes),  # type: ignore[misc]
        )
        for seed in range(options.seeds)
        for task in NETWORKS
        for kind in POOLS
    ]
    facts = {"seeds": options.seeds, "images": IMAGES, "steps": STEPS, "score": SCORE, "side": SIDE}
    results: dict[str, Any] = {**environment(), **facts, "summary": summary(rows), "rows": rows}
    results["command"] = results["command"].replace("python -m flicker.py", "python benchmarks/flicker.py")
    write(options.output / "flicker.json", json.dumps(results, indent=1, allow_nan=False) + "\n")
    write(options.output / "flicker.md", markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
