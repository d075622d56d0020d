"""What measuring costs beside the bare forward passes that it needs, and how its memory grows with the images.

    python benchmarks/measure.py                  # CPU, about 3 minutes; writes results/measure-cpu.json
    python benchmarks/measure.py --device cuda    # writes results/measure-cuda.json
    python benchmarks/measure.py --quick          # a smoke run of seconds; writes nothing unless --output is given

Time: `augkit.measure_invariance` against a plain loop that runs the same network as often, on different batches of the
same size that are ready on the device. Both are measured in every round, in random order; a round's ratio is ours over
the loop's, and its interval is a 95 % bootstrap of the median over rounds. Everything counts: drawing, moving the
images, metrics, hashing, intervals. On the CPU ``outside`` is the time that ours spends outside the network, over the
time inside it, in one and the same run; like ``best_ratio``, it is robust to what others do on a shared machine.
Memory: what a fresh process that has measured 500 images (so that libraries are loaded) takes more to stream N random
images with 1,000 classes, and one that streams several times as many, twice each; the difference of the medians
per image is what is kept of each. The C library is told to hand back large blocks, or its holes would be counted too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import environment, loads
from memory import peak, restart_peak
from torch import Tensor, nn

from augkit.architectures import build_model
from augkit.invariance import Pairs, Plan, measure_invariance
from augkit.invariance.plan import full_plan

HERE = Path(__file__).parent
PACKAGES = ["torch", "torchvision", "numpy", "scipy", "numba", "triton", "augkit"]
AIM = 1.10  # of the bare forward passes
PLANS = {"pairs": Plan(pairs=Pairs(4, -4.0, 4.0)), "full": full_plan("shift", 4.0, 4)}
# network, side of its input, images, batch, plan, protocol
CASES = {
    "cpu": [
        ("augkit resnet18", 32, 8, 8, "pairs", "crop"),
        ("torchvision resnet18", 128, 8, 8, "pairs", "crop"),
        ("torchvision resnet18", 64, 32, 16, "pairs", "circular"),
        ("torchvision resnet18", 64, 8, 8, "full", "crop"),
    ],
    "cuda": [
        ("augkit resnet18", 64, 4096, 256, "pairs", "crop"),
        ("torchvision resnet18", 224, 2048, 256, "pairs", "crop"),
        ("torchvision resnet18", 224, 1024, 256, "full", "crop"),
        ("torchvision resnet50", 224, 1024, 256, "pairs", "circular"),
    ],
}


def network(name: str) -> nn.Module:
    """An untrained network in evaluation mode."""
    torch.manual_seed(0)
    if name.startswith("augkit"):
        return build_model(name.split()[1], num_classes=10, in_channels=3).eval()
    from torchvision import models

    return models.get_model(name.split()[1], weights=None).eval()


class Timed(nn.Module):
    """A network that sums the seconds spent in it."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.seconds = net, 0.0

    def forward(self, images: Tensor) -> Tensor:
        start = time.perf_counter()
        logits = self.net(images)
        self.seconds += time.perf_counter() - start
        return logits


def bare(model: nn.Module, pool: list[Tensor], passes: int, images: int) -> Callable[[], None]:
    """The forward passes and nothing else, on the batches of ``pool`` in turn."""

    def run() -> None:
        with torch.inference_mode():
            for start in range(0, images, len(pool[0])):
                for k in range(passes):
                    model(pool[k % len(pool)][: min(len(pool[0]), images - start)])
        synchronize(pool[0])

    return run


def synchronize(tensor: Tensor) -> None:
    """Wait for the device."""
    if tensor.is_cuda:
        torch.cuda.synchronize()


def cost(case: tuple[str, int, int, int, str, str], device: str, rounds: int) -> dict[str, Any]:
    """Seconds of ours and of the loop, and their ratio, over rounds in which they take turns."""
    name, side, images, batch, plan_name, protocol = case
    plan, model = PLANS[plan_name], Timed(network(name).to(device)).eval()
    margin = 0 if protocol == "circular" else 8
    pixels = torch.randint(0, 256, (images, 3, side + margin, side + margin), dtype=torch.uint8)
    labels = torch.arange(images) % 10
    # Of the values that the network is measured on: on an untrained ResNet-18 plain torch.rand is 2 % faster.
    pool = [(torch.rand(batch, 3, side, side, device=device) - 0.5) / 0.25 for _ in range(8)]
    outside = []

    def ours() -> None:
        start, model.seconds = time.perf_counter(), 0.0
        report = measure_invariance(
            model,
            pixels,
            labels,
            protocol=protocol,
            plan=plan,
            batch_size=batch,
            mean=[0.5] * 3,
            std=[0.25] * 3,
            device=device,
        )
        report.to_dict()
        outside.append((time.perf_counter() - start) / model.seconds - 1)

    views = len(plan.layout.columns)
    runs = {"measure": ours, "bare": bare(model, pool, views, images)}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for warm_up in runs.values():
        warm_up()
    for _ in range(rounds):
        for key in random.sample(list(runs), 2):
            start = time.perf_counter()
            runs[key]()
            times[key].append(time.perf_counter() - start)
    ratios = np.array(times["measure"]) / np.array(times["bare"])
    drawn = np.random.default_rng(0).choice(ratios, (2000, rounds))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {
        "network": name,
        "input": side,
        "images": images,
        "batch": batch,
        "plan": plan_name,
        "protocol": protocol,
        "views": views,
        "seconds": {key: [round(float(f(v)), 4) for f in (np.median, np.min)] for key, v in times.items()},
        "outside": round(float(np.median(outside[1:])), 4) if device == "cpu" else None,
        "ratio": [round(float(v), 4) for v in (np.median(ratios), low, high)],
        "best_ratio": round(min(times["measure"]) / min(times["bare"]), 4),
        "n": rounds,
        "met": bool(np.median(ratios) <= AIM),
    }


class Answers(nn.Module):
    """Answers with 1,000 classes at next to no cost, so that memory is all that is measured."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 16, 1000)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images[..., ::3, ::3].flatten(1)[:, :48])


def stream(images: int, batch: int = 250) -> Iterator[tuple[Tensor, Tensor]]:
    """Random images that are made as they are asked for, with labels."""
    generator = torch.Generator().manual_seed(0)
    for start in range(0, images, batch):
        count = min(batch, images - start)
        shape = (count, 3, 12, 12)
        yield torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator), torch.arange(count) % 1000


def peak_of(images: int) -> float:
    """MiB at most while this process measures ``images`` images, beyond what it holds once it has measured a few."""
    measure_invariance(Answers(), stream(500), protocol="circular", kernel="bilinear", plan=PLANS["full"])
    before = restart_peak()
    measure_invariance(Answers(), stream(images), protocol="circular", kernel="bilinear", plan=PLANS["full"])
    return peak() - before


def memory(sizes: tuple[int, int], repeats: int = 2) -> dict[str, Any]:
    """Peak memory of fresh processes at two sizes, and bytes per image between their medians."""
    peaks: list[list[float]] = [[], []]
    for _ in range(repeats):
        for images, found in zip(sizes, peaks, strict=True):
            command = [sys.executable, __file__, "--peak-of", str(images)]
            # Blocks of 128 KiB and more go back to the system at once: what is counted is held, not left over.
            frugal = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**17), "MALLOC_TRIM_THRESHOLD_": str(2**17)}
            done = subprocess.run(command, capture_output=True, text=True, check=True, env=frugal)
            found.append(float(done.stdout))
    few, many = (float(np.median(found)) for found in peaks)
    growth = (many - few) * 2**20 / (sizes[1] - sizes[0])
    views = len(PLANS["full"].layout.columns)
    held = 8 * 1000 * views
    return {
        "images": list(sizes),
        "more_mib": [[round(peak, 1) for peak in found] for found in peaks],
        "bytes_per_image": round(growth, 1),
        "probabilities_per_image": held,
        "views": views,
        "classes": 1000,
    }


def main() -> None:
    """Time, weigh, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="one small case, two rounds")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; 1 on a busy machine")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--output", type=Path, help="JSON file; results/measure-DEVICE.json")
    parser.add_argument("--note", default="", help="a remark for the results, such as what else was running")
    parser.add_argument("--only-memory", action="store_true", help="put memory anew into the file that is there")
    parser.add_argument("--peak-of", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.peak_of is not None:
        print(peak_of(options.peak_of))
        return
    if options.only_memory:
        output = options.output or HERE / "results" / f"measure-{options.device}.json"
        record = json.loads(output.read_text()) | {"memory": memory((10_000, 30_000))}
        output.write_text(json.dumps(record, indent=1) + "\n")
        return
    random.seed(0)
    record = environment(options.device, PACKAGES) | {"note": options.note, "aim": AIM}
    cases = [("augkit resnet18", 32, 16, 8, "pairs", "crop")] if options.quick else CASES[options.device]
    cells = []
    for case in cases:
        cells.append(cost(case, options.device, 2 if options.quick else options.rounds))
        ratio, low, high = cells[-1]["ratio"]
        more = f"best {cells[-1]['best_ratio']}, outside {cells[-1]['outside']}"
        print(f"{' '.join(map(str, case)):60s} {ratio:.3f} [{low:.3f}, {high:.3f}], {more}", flush=True)
    record |= {"cost": cells, "memory": memory((500, 2000), 1) if options.quick else memory((10_000, 30_000))}
    record["load_after"] = loads()
    print(f"memory: {record['memory']}")
    output = options.output or HERE / "results" / f"measure-{options.device}.json"
    if options.output or not options.quick:
        output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
