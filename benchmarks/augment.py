"""How fast augmentation is, beside the libraries that people use: one process, contenders taking turns.

    python benchmarks/augment.py                  # CPU, about 6 minutes; writes results/augment-cpu.json
    python benchmarks/augment.py --quick          # a smoke run of seconds; writes nothing unless --output is given
    python benchmarks/augment.py --device cuda    # writes results/augment-cuda.json

Before anything is timed, augkit and the peers that take a matrix are compared with the float64 reference of
``tests/reference.py``. In each round every contender runs once, in random order; a round's ratio is the peer's time
over augkit's in the same round, and its interval is a 95 % bootstrap of the median over rounds. The first call
(compilation, caches) is stated apart. Losses are published.

A shared machine distorts runs of several threads, and in augkit's favour: OpenMP's barriers wait for a core that
another process holds, augkit's threads meet once per batch. ``best_ms`` and ``--threads 1`` are robust to that;
the load before and after stands in the results.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import environment, loads

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import peers  # noqa: E402
import reference  # noqa: E402
from peers import CONTENDERS, Case, UnavailableError, augment_of  # noqa: E402

from augkit.augment.resample import resample  # noqa: E402

BATCHES = {"cpu": [(32, 3, 224, 224), (64, 3, 32, 32)], "cuda": [(256, 3, 224, 224), (1024, 3, 32, 32)]}
DTYPES = {"cpu": [torch.float32, torch.uint8], "cuda": [torch.float32, torch.uint8, torch.bfloat16]}
PACKAGES = ["torch", "numpy", "numba", "triton", "kornia", "torchvision", "albumentations", "opencv-python-headless"]
PACKAGES += ["fuse-augmentations", "nvidia-dali-cuda120", "augkit"]
AIMS = {
    224: {"kornia": 6, "albumentations to a float batch": 5, "torchvision per sample": 15, "grid_sample": 3.5},
    32: {"kornia": 12, "albumentations to a float batch": 25, "torchvision per sample": 50, "grid_sample": 2},
}


def check_parity(device: str) -> dict[str, float]:
    """The largest difference from the float64 reference, per contender that takes a matrix; fails above 1e-4."""
    worst: dict[str, float] = {}
    for kernel, antialias in (("bilinear", False), ("lanczos3", True)):
        case = Case("pipeline", torch.rand(4, 3, 48, 40, device=device))
        matrix = augment_of(case).sample(4, case.size, device=device)
        arrays = case.images.cpu().numpy(), matrix.cpu().numpy()
        expected = torch.from_numpy(reference.resample(*arrays, case.size, kernel, "zeros", antialias))
        out = {f"augkit {kernel}": resample(case.images, matrix, kernel=kernel, antialias=antialias)}
        if kernel == "bilinear":
            norm = torch.tensor([[2 / 39, 0, -1], [0, 2 / 47, -1], [0, 0, 1]], device=device)
            out["grid_sample"] = peers.sampled(case.images, matrix, norm, torch.linalg.inv(norm))
        for name, values in out.items():
            worst[name] = float((values.cpu().double() - expected).abs().max())
            # grid_sample's float32 coordinates, and not the reference, are off by more than augkit's.
            if worst[name] > (1e-5 if name.startswith("augkit") else 1e-3):
                raise SystemExit(f"{name} differs from the reference by {worst[name]:.2e}")
    return worst


def measure(case: Case, rounds: int, names: list[str]) -> dict[str, Any]:
    """Milliseconds per batch of every contender, taking turns for ``rounds`` rounds."""
    runs, first, skipped = {}, {}, {}
    for name in names:
        start = time.perf_counter()
        try:
            run = CONTENDERS[name](case)
            run()
        except UnavailableError as reason:
            skipped[name] = str(reason)
            continue
        except Exception as error:  # a peer that fails is a result too
            skipped[name] = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
            continue
        synchronise(case)
        runs[name], first[name] = run, time.perf_counter() - start
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    for _ in range(rounds):
        for name in random.sample(list(runs), len(runs)):
            times[name].append(once(runs[name], case))
    gc.enable()
    out = {name: summary(times[name], times["augkit"]) | {"first_call_s": round(first[name], 3)} for name in runs}
    return out | {name: {"skipped": reason} for name, reason in skipped.items()}


def once(run: peers.Run, case: Case) -> float:
    """Milliseconds of a call, after one that is not timed; of several in a row where one is short."""
    run()
    synchronise(case)
    start, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - start < 5e-3:
        run()
        calls += 1
        synchronise(case)
    return (time.perf_counter() - start) / calls * 1e3


def synchronise(case: Case) -> None:
    if case.images.is_cuda:
        torch.cuda.synchronize()


def summary(times: list[float], ours: list[float]) -> dict[str, Any]:
    values, ratios = np.array(times), np.array(times) / np.array(ours)
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    quartiles = np.quantile(values, [0.25, 0.75])
    return {
        "ms": round(float(np.median(values)), 4),
        "best_ms": round(float(values.min()), 4),
        "iqr_ms": [round(float(q), 4) for q in quartiles],
        "n": len(values),
        "ratio_to_augkit": [round(float(v), 3) for v in (np.median(ratios), low, high)],
    }


def judge(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The aims for bilinear pipelines of float32 on the CPU, and whether the measured ratio meets each."""
    out = []
    for cell in cells:
        if cell["task"] != "pipeline" or cell["dtype"] != "float32":
            continue
        results = cell["results"]
        for name, aim in AIMS[cell["batch"][-1]].items():
            if "ms" in results.get(name, {}):
                ratio = results[name]["ratio_to_augkit"]
                met = ratio[0] >= aim
                out.append({"size": cell["batch"][-1], "against": name, "aim": aim, "ratio": ratio, "met": met})
        if cell["batch"][-1] == 224 and "ms" in results.get("kornia", {}):
            ratio = results["kornia"]["ms"] / results["augkit lanczos3 antialias"]["ms"]
            aim = {"size": 224, "against": "kornia bilinear, by augkit lanczos3 antialias", "aim": 1.5}
            out.append(aim | {"ratio": [round(ratio, 3)], "met": ratio >= 1.5})
    return out


def table(cell: dict[str, Any]) -> str:
    lines = [f"\n{'x'.join(map(str, cell['batch']))} {cell['dtype']} {cell['task']}"]
    for name, row in sorted(cell["results"].items(), key=lambda item: item[1].get("ms", 1e9)):
        if "ms" in row:
            ratio, low, high = row["ratio_to_augkit"]
            lines.append(f"  {name:48s} {row['ms']:9.3f} ms  {ratio:7.2f} x  [{low:.2f}, {high:.2f}]")
        else:
            lines.append(f"  {name:48s} skipped: {row['skipped']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="few rounds, small batches, nothing compiled")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch; 1 on a busy machine")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--output", type=Path, help="JSON file; results/augment-DEVICE.json")
    parser.add_argument("--note", default="", help="a remark for the results, such as what else was running")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    random.seed(0)
    names = [name for name in CONTENDERS if not (options.quick and "compiled" in name)]
    record = environment(options.device, PACKAGES) | {"note": options.note, "parity": check_parity(options.device)}
    cells = []
    for batch in BATCHES[options.device]:
        for dtype in DTYPES[options.device]:
            for task in ("shift", "pipeline"):
                shape = (4, *batch[1:]) if options.quick else batch
                images = torch.rand(shape, device=options.device)
                images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
                results = measure(Case(task, images), 3 if options.quick else options.rounds, names)
                cell = {"batch": list(shape), "dtype": str(dtype).split(".")[1], "task": task, "results": results}
                cells.append(cell)
                print(table(cell), flush=True)
    record |= {"load_after": loads(), "aims": judge(cells), "cells": cells}
    for aim in [] if options.quick or options.device != "cpu" else record["aims"]:
        verdict = "met   " if aim["met"] else "MISSED"
        print(f"{verdict} {aim['size']:4d} {aim['against']}: {aim['ratio']} >= {aim['aim']}")
    output = options.output or HERE / "results" / f"augment-{options.device}.json"
    if options.output or not options.quick:
        output.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
