"""What tells a network that an image was moved? Answers of the networks of cifar10-partial-classes, without training.

Networks that see shifts in half of the classes alone can take any sign of a shift for a sign of these classes. Test
images are shown to them in the center; placed 3 px aside with their pixels copied; moved 3 px as augmentation does it,
which mirrors the canvas at its edge; and moved by half a pixel, where they hardly move but are interpolated. For each,
the share of answers that lie in the half of the classes that was shifted in training.

    python benchmarks/moved_or_resampled.py RUNS/cifar10-partial-classes data.name=parquet:DATA/cifar10-jpeg

The folder is one of `augkit.compare --output`. It writes ``results/moved-or-resampled.json`` and ``.md``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from machine import environment

from augkit import load_dataset, resample
from augkit.invariance import make_protocol
from augkit.invariance.protocols import Scene
from augkit.train.loaded_run import load_run

RESULTS = Path(__file__).parent / "results"
ARMS = {"shiftA": slice(0, 5), "shiftB": slice(5, 10)}  # the half that was shifted in training
CONTROLS = ("none", "shift")
IMAGES = 1000
CANVAS = 44


def views(images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The images, floats in [0, 1], on their mirrored canvas: in the center, placed, moved, interpolated."""
    protocol = make_protocol("embed", (32, 32), max_shift=6.0, input_size=CANVAS, background="reflection")
    scene = Scene(protocol, images)
    center = scene.unshifted()

    def moved(x: float) -> torch.Tensor:
        matrix = torch.eye(3)
        matrix[0, 2] = x
        return resample(center, matrix, kernel="lanczos3", padding="reflection").clamp(0, 1)

    return {
        "in the center": center,
        "placed 3 px aside, pixels copied": scene.shift_whole(3, 0),
        "moved 3 px, the canvas mirrored at its edge": moved(3.0),
        "moved by half a pixel": moved(0.5),
        "moved by 3.5 px": moved(3.5),
    }


def shares(folder: Path, shown: dict[str, torch.Tensor], half: slice) -> list[float]:
    """The share of answers in the half, by view."""
    run = load_run(folder)
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (run.recipe.data.mean, run.recipe.data.std))
    found = []
    with torch.inference_mode():
        for view in shown.values():
            top = torch.cat([run.network((part - mean) / std).argmax(-1) for part in view.split(250)])
            found.append(float(((top >= half.start) & (top < half.stop)).double().mean()))
    return found


def main(folder: Path, name: str) -> None:
    """Write JSON and table."""
    images = load_dataset(name).open_test(IMAGES).images
    shown = views(images.float() / 255)
    rows = []
    for arm, half in ARMS.items():
        for trained in (arm, *CONTROLS):
            cells = sorted((folder / "cells").glob(f"maxpool+{trained}-seed*"))
            by_seed = np.array([shares(cell, shown, half) for cell in cells])
            row = {"trained": trained, "answers in": f"{half.start} to {half.stop - 1}", "seeds": len(cells)}
            rows.append(row | {"share": dict(zip(shown, by_seed.T.tolist(), strict=True))})
    command = "python benchmarks/moved_or_resampled.py RUNS/cifar10-partial-classes data.name=parquet:DATA/cifar10-jpeg"
    whole = {
        "images": IMAGES,
        "rows": rows,
        "environment": environment("cpu", ["numpy", "torch"]) | {"command": command},
    }
    (RESULTS / "moved-or-resampled.json").write_text(json.dumps(whole, indent=1) + "\n")
    lines = [
        "| trained | classes of the answers | " + " | ".join(shown) + " |",
        "| --- | --- |" + " --: |" * len(shown),
    ]
    for row in rows:
        cells = [f"{100 * np.mean(v):.0f} [{100 * min(v):.0f}, {100 * max(v):.0f}]" for v in row["share"].values()]
        lines.append(f"| {row['trained']} | {row['answers in']} | " + " | ".join(cells) + " |")
    head = "Share of top-1 answers that lie in one half of the classes, %: mean of the seeds [least, greatest]. "
    head += f"{IMAGES:,} test images of CIFAR-10, half of them of either half; {rows[0]['seeds']} seeds."
    text = f"{head}\n\n" + "\n".join(lines) + f"\n\n`{command}`\n"
    (RESULTS / "moved-or-resampled.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2].removeprefix("data.name="))
