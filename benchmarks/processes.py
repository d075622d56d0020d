"""Do two processes reach the result of one? Paired by seed, at the same global batch.

    python benchmarks/processes.py            # about 6 minutes on 2 cores; writes results/processes-cpu.json
    python benchmarks/processes.py --seeds 2 train.epochs=1 --output FILE

Each seed trains the recipe twice under torchrun (gloo on the CPU), with one process and with two. They see the same
images in the same order, but every process draws its own augmentation and has its own batch statistics. The interval
of the mean difference is Student's t over seeds; ``noise`` is the standard deviation of one process over seeds, which
is what two runs that differ in their seed alone differ by.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from machine import environment
from scipy import stats

HERE = Path(__file__).parent


def accuracy(recipe: list[str], seed: int, processes: int) -> float:
    """Validation accuracy of one run."""
    with tempfile.TemporaryDirectory() as folder:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = ["-m", "augkit.train", *recipe, "--device", "cpu", "--json", "--quiet", "--seed", str(seed)]
        done = subprocess.run(
            [*launcher, *command, "--output", f"{folder}/run"],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"{processes} processes, seed {seed}: {done.stderr.strip().splitlines()[-1]}")
    return float(json.loads(done.stdout.splitlines()[-1])["validation_accuracy"])


def summarise(one: list[float], two: list[float]) -> dict[str, Any]:
    """The mean paired difference, two less one, with its 95 % interval."""
    difference = np.subtract(two, one)
    half = stats.t.ppf(0.975, len(one) - 1) * stats.sem(difference)
    mean = float(difference.mean())
    return {
        "one": one,
        "two": two,
        "difference": {"value": mean, "low": mean - float(half), "high": mean + float(half)},
        "noise": float(np.std(one, ddof=1)),
        "n_seeds": len(one),
    }


def main() -> None:
    """Train, summarise, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", nargs="*", default=["mnist5k"], help="recipe and overrides (default: mnist5k)")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "processes-cpu.json")
    options = parser.parse_args()
    recipe = options.recipe if "=" not in options.recipe[0] else ["mnist5k", *options.recipe]
    started = environment("cpu", ["torch", "numpy", "augkit"])
    pairs = []
    for seed in range(options.seeds):
        pairs.append([accuracy(recipe, seed, count) for count in (1, 2)])
        print(f"seed {seed}: one process {pairs[-1][0]:.4f}, two {pairs[-1][1]:.4f}", flush=True)
    result = summarise(*(list(values) for values in zip(*pairs, strict=True)))
    options.output.write_text(json.dumps({"recipe": recipe, **result, "environment": started}, indent=2) + "\n")
    low, mean, high = (100 * result["difference"][key] for key in ("low", "value", "high"))
    print(
        f"two less one: {mean:+.2f} points [{low:+.2f}, {high:+.2f}]; one seed differs by {100 * result['noise']:.2f}"
    )


if __name__ == "__main__":
    main()
