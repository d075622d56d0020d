"""A check of partial-classes without augkit's statistics: numpy on the answers that its cells keep.

For each half of the classes: top-1 change and shift information of the images of that half, with answers restricted to
it, as log ratios against the networks without shifts, the mean over seeds.

    python benchmarks/by_hand.py RUNS/partial-classes     # a folder of `augkit.compare partial-classes --output`

It writes ``results/by-hand.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from machine import environment

from augkit import load_dataset  # the labels of the test split, nothing else

ARMS = ("shift", "shiftA", "shiftB", "shifthalf")
HALVES = {"A": slice(0, 5), "B": slice(5, 10)}


def entropy(p: np.ndarray) -> np.ndarray:
    """Bits of distributions ``(..., K)``."""
    return -(p * np.log2(np.maximum(p, 1e-300))).sum(-1)


def variabilities(path: Path, here: np.ndarray, classes: slice) -> tuple[float, float]:
    """Top-1 change over the two pairs of views, and shift information over the four views."""
    kept = np.load(path)["typical|log_probabilities"][here][:, :, classes].astype(float)  # image, view, class
    p = np.exp(kept)
    p /= p.sum(-1, keepdims=True)
    top = p.argmax(-1)
    changed = np.mean([(top[:, 1] != top[:, 2]).mean(), (top[:, 3] != top[:, 4]).mean()])
    views = p[:, 1:]
    of_shift = (entropy(views.mean(1)) - entropy(views).mean(1)).mean()
    return float(changed), float(of_shift / (entropy(views.mean((0, 1))) - entropy(views).mean()))


def main(folder: Path) -> None:
    """Write the file and print a line per arm and half."""
    labels = load_dataset("mnist5k").open_test(500).labels
    assert labels is not None
    found, seeds = {}, len(list((folder / "cells").glob("maxpool+none-seed*")))
    for arm in ARMS:
        for half, classes in HALVES.items():
            here = (labels.numpy() >= classes.start) & (labels.numpy() < classes.stop)
            cells = [
                [folder / "cells" / f"maxpool+{name}-seed{seed}" / "measured" / "shift.npz" for name in (arm, "none")]
                for seed in range(seeds)
            ]
            values = np.array([[variabilities(path, here, classes) for path in pair] for pair in cells])
            logs = np.log(values[:, 0] / values[:, 1])
            row = {"log top-1 change": logs[:, 0].tolist(), "log shift information": logs[:, 1].tolist()}
            found[f"{arm} on {half}"] = row
            means = ", ".join(f"{name} {np.mean(each):+.2f}" for name, each in row.items())
            sys.stdout.write(f"{arm} on {half}: {means}\n")
    whole = {"seeds": seeds, "images": len(labels), "log ratios against no shifts, one per seed": found}
    whole["environment"] = environment("cpu", ["numpy"]) | {
        "command": "python benchmarks/by_hand.py RUNS/partial-classes"
    }
    (Path(__file__).parent / "results" / "by-hand.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
