"""Do a detector and a segmenter flicker when the image moves by a pixel, and does blur pooling remove it?

PLACEHOLDER: rewritten below.

    python benchmarks/flicker.py train --seeds 5      # weights into runs/flicker; goes on where it stopped
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from flicker_networks import NETWORKS, POOLS, train

STEPS = 500
KEPT = (200, 300, 400, 500)


def train_all(folder: Path, seeds: int, steps: int = STEPS, kept: tuple[int, ...] = KEPT) -> None:
    """Train what is not in ``folder`` yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for task in NETWORKS:
            for kind in POOLS:
                file = folder / f"{task}-{kind}-{seed}.pt"
                if file.exists():
                    continue
                start = time.process_time()
                weights = train(task, kind, seed, steps, kept)
                part = file.with_suffix(".part")
                torch.save(weights, part)
                part.rename(file)
                print(f"{file.name}: {time.process_time() - start:.0f} s of the processor", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=("train",))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--runs", type=Path, default=Path("runs/flicker"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    train_all(options.runs, options.seeds)


if __name__ == "__main__":
    main()
