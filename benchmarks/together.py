"""Seeds of one recipe in one program (`augkit.train.fit_together`) against one after the other.

    python benchmarks/together.py                          # one CPU thread: processor time, by turns
    python benchmarks/together.py --device cuda            # wall clock

Digits of 40 px and the small network of recipe mnist5k, 60 updates of 64 images and one evaluation. Prints ratios for
1, 4 and 16 seeds and the largest difference between the weights, and writes ``results/together-DEVICE.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import environment

from augkit import Recipe, load_dataset
from augkit.train import fit, fit_together
from augkit.train.run import Run

STEPS, ROUNDS = 60, 3


def main() -> None:
    """Time, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 4, 16])
    device = parser.parse_args().device
    counts = parser.parse_args().seeds
    recipe = Recipe.load("mnist5k", [f"train.steps={STEPS}", "train.evaluate_every=1000"])
    data, rows = load_dataset("mnist5k"), []

    def alone(seeds: range) -> list[Run]:
        return [fit(recipe, seed, device=device, dataset=data) for seed in seeds]

    def together(seeds: range) -> list[Run]:
        return fit_together(recipe, list(seeds), device=device, dataset=data)

    for ways in (alone, together):
        ways(range(1))  # compile and load what is needed
    for count in counts:
        seconds: dict[str, list[float]] = {"alone": [], "together": []}
        for _ in range(ROUNDS):
            found = {}
            for name, way in (("alone", alone), ("together", together)):
                seconds[name].append(_seconds(way, range(count), device, found.setdefault(name, [])))
        pairs = zip(*(run for run in found.values()), strict=True)
        apart = max(
            float((a - b).abs().max())
            for one, other in pairs
            for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)
        )
        ratio = statistics.median(a / b for a, b in zip(*seconds.values(), strict=True))
        rows.append({"seeds": count, "seconds": seconds, "ratio": ratio, "largest_difference": apart})
        sys.stdout.write(f"{count} seeds: {ratio:.2f} times as fast together, weights differ by {apart:.1e}\n")
    whole = {"steps": STEPS, "rounds": ROUNDS, "rows": rows, "environment": environment(device, ["torch", "augkit"])}
    whole["environment"] |= {"command": f"python benchmarks/together.py --device {device}"}
    path = Path(__file__).parent / "results" / f"together-{device.partition(':')[0]}.json"
    path.write_text(json.dumps(whole, indent=1) + "\n")


def _seconds(way: Callable[[range], list[Run]], seeds: range, device: str, into: list[Run]) -> float:
    """Processor time on a CPU, wall clock on a GPU."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    started = clock()
    into.extend(way(seeds))
    if device != "cpu":
        torch.cuda.synchronize()
    return clock() - started


if __name__ == "__main__":
    main()
