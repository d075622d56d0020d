"""What each way to halve a map costs: ResNet-18 in every variant against the one with max pooling.

    python benchmarks/architectures.py                  # CPU, about 4 minutes; writes results/architectures-cpu.json
    python benchmarks/architectures.py --quick          # a smoke run; writes nothing unless --output is given
    python benchmarks/architectures.py --device cuda    # writes results/architectures-cuda.json

One process, variants taking turns: in each round every variant takes one training step (forward, cross entropy,
backward, SGD) and one inference step, in random order. A round's ratio is the variant's time over the max-pool
baseline's in the same round; its interval is a 95 % bootstrap of the median over rounds. Memory is measured in a
process of its own per variant on the CPU (the growth of the largest resident set over that of the built model), and
as the peak of allocated memory on CUDA. Beside the JSON a table of the same name is written in Markdown. Aims that
are missed are marked so.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from machine import environment, loads
from memory import peak, restart_peak

import augkit
from augkit.architectures import DOWNSAMPLES

HERE = Path(__file__).parent
BASELINE = "maxpool"
CASES = {"cpu": {"batch": 16, "side": 32, "width": 64}, "cuda": {"batch": 256, "side": 32, "width": 64}}
AIMS = {
    "cpu": {"stride": 2.5, "blurpool": 2.5, "aps": 2.5, "lps": 2.5},
    "cuda": {"blurpool": 1.15, "aps": 1.3, "lps": 1.6, "aliasfree": 4.0},
}


class Variant:
    """A network with what a step of training and of inference needs."""

    def __init__(self, downsample: str, case: dict[str, int], device: str, amp: bool) -> None:
        model = augkit.build_model("resnet18", 10, downsample=downsample, width=case["width"], seed=0)
        self.model = model.to(device, memory_format=torch.channels_last)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        images = torch.rand(case["batch"], 3, case["side"], case["side"], device=device)
        self.images = images.contiguous(memory_format=torch.channels_last)
        self.labels = torch.arange(case["batch"], device=device) % 10
        self.device, self.amp = device, amp

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def train(self) -> None:
        self.model.train()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            loss = F.cross_entropy(self.model(self.images), self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def infer(self) -> None:
        self.model.eval()
        with torch.inference_mode(), torch.autocast(self.device, torch.bfloat16, enabled=self.amp):
            self.model(self.images)


def measure(variants: dict[str, Variant], rounds: int) -> dict[str, dict[str, Any]]:
    """Milliseconds of a step, and its ratio to the baseline's, of every variant for training and inference."""
    tasks: dict[str, Callable[[Variant], None]] = {"train": Variant.train, "infer": Variant.infer}
    times: dict[tuple[str, str], list[float]] = {(name, task): [] for name in variants for task in tasks}
    for variant in variants.values():
        for step in tasks.values():
            step(variant)
            step(variant)
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name, task in random.sample(list(times), len(times)):
            times[name, task].append(once(lambda: tasks[task](variants[name]), variants[name].device))  # noqa: B023
    gc.enable()
    return {
        name: {task: summary(times[name, task], times[BASELINE, task]) for task in tasks} | {"parameters": v.parameters}
        for name, v in variants.items()
    }


def once(step: Callable[[], None], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) * 1e3


def summary(times: list[float], baseline: list[float]) -> dict[str, Any]:
    values, ratios = np.array(times), np.array(times) / np.array(baseline)
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {
        "ms": round(float(np.median(values)), 3),
        "best_ms": round(float(values.min()), 3),
        "iqr_ms": [round(float(q), 3) for q in np.quantile(values, [0.25, 0.75])],
        "n": len(values),
        "ratio": [round(float(v), 3) for v in (np.median(ratios), low, high)],
    }


def peak_memory(downsample: str, case: dict[str, int], device: str, amp: bool) -> float:
    """MiB that training steps need beyond the model and its data."""
    if device == "cuda":
        variant = Variant(downsample, case, device, amp)
        variant.train()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        variant.train()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    command = [sys.executable, __file__, "--memory-of", downsample, "--case", json.dumps(case)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(out.stdout)


def resident_growth(downsample: str, case: dict[str, int]) -> float:
    """MiB by which two training steps raise the resident memory of this process, on Linux."""
    variant = Variant(downsample, case, "cpu", False)
    before = restart_peak()
    for _ in range(2):
        variant.train()
    return peak() - before


def judge(results: dict[str, dict[str, Any]], device: str) -> list[dict[str, Any]]:
    """Each aim for training and inference, and whether the measured ratio meets it."""
    return [
        {"variant": name, "task": task, "aim": aim, "ratio": results[name][task]["ratio"]}
        | {"met": results[name][task]["ratio"][0] <= aim}
        for name, aim in AIMS[device].items()
        for task in ("train", "infer")
    ]


def table(record: dict[str, Any]) -> str:
    """The results as a Markdown table with a line that says what was measured."""
    case = record["case"]
    lines = [
        f"ResNet-18 (small stem, width {case['width']}), batch {case['batch']} of 3 x {case['side']} "
        f"x {case['side']}, {record['dtype']}, channels_last, {record['device']}, torch {record['versions']['torch']}, "
        f"{record['torch_threads']} threads; ratios to max pooling, median of {record['rounds']} rounds with 95 % "
        "interval.\n",
        "| downsample | training step | inference | ms (training, inference) | parameters | memory of a step |",
        "|---|---|---|---|--:|--:|",
    ]
    missed = {(aim["variant"], aim["task"]): aim["aim"] for aim in record["aims"] if not aim["met"]}
    for name, row in record["results"].items():
        cells = []
        for task in ("train", "infer"):
            middle, low, high = row[task]["ratio"]
            cells.append(f"{middle:.2f} [{low:.2f}, {high:.2f}]")
            if (name, task) in missed:
                cells[-1] += f" (missed: aim {missed[name, task]})"
        times = f"{row['train']['ms']:.1f}, {row['infer']['ms']:.1f}"
        lines.append(
            f"| {name} | {' | '.join(cells)} | {times} | {row['parameters']:,} | {row['memory_mib']:.0f} MiB |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="few rounds of a small network")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; 1 on a busy machine")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--amp", action="store_true", help="bfloat16 autocast")
    parser.add_argument("--output", type=Path, help="JSON file; results/architectures-DEVICE.json")
    parser.add_argument("--note", default="", help="a remark for the results, such as what else was running")
    parser.add_argument("--memory-of", choices=DOWNSAMPLES, help=argparse.SUPPRESS)
    parser.add_argument("--case", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random.seed(0)
    if options.memory_of:
        print(resident_growth(options.memory_of, options.case))
        return
    case = {"batch": 4, "side": 32, "width": 8} if options.quick else CASES[options.device]
    rounds = 3 if options.quick else options.rounds
    record = environment(options.device, ("torch", "numpy", "augkit")) | {
        "note": options.note,
        "case": case,
        "rounds": rounds,
    }
    record["dtype"] = "bfloat16 autocast" if options.amp else "float32"
    variants = {name: Variant(name, case, options.device, options.amp) for name in DOWNSAMPLES}
    results = measure(variants, rounds)
    variants.clear()
    for name, row in results.items():
        row["memory_mib"] = round(peak_memory(name, case, options.device, options.amp), 1)
    record |= {"load_after": loads(), "aims": judge(results, options.device), "results": results}
    print(table(record))
    output = options.output or HERE / "results" / f"architectures-{options.device}.json"
    if options.output or not options.quick:
        output.write_text(json.dumps(record, indent=1) + "\n")
        output.with_suffix(".md").write_text(table(record))


if __name__ == "__main__":
    main()
