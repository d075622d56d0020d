"""How fast augmentation is, beside the libraries that people use: one process, contenders taking turns.

    python benchmarks/augment.py --machine quiet  # CPU, some 6 minutes; writes results/augment-cpu-quiet.json
    python benchmarks/augment.py --machine busy   # the same on a shared machine; results/augment-cpu-busy.json
    python benchmarks/augment.py --quick          # a smoke run of seconds; writes nothing unless --output is given
    python benchmarks/augment.py --device cuda    # writes results/augment-cuda.json

Before anything is timed, augkit and the peers that take a matrix are compared with the float64 reference of
``tests/reference.py``. In each round every contender runs once, in random order; a round's ratio is the peer's time
over augkit's in the same round, and its interval is a 95 % bootstrap of the median over rounds. The first call
(compilation, caches) is stated apart. A cell ends after ``--rounds``, or after ``--seconds`` and five rounds. Losses
are published.

On a CPU the clock counts CPU time of the process, with one thread: other processes on the machine disturb it least.
The aims are judged by the shortest time of each contender (``best_ratio``), the median over rounds stands beside. With
``--threads 2`` the wall time of two threads stands in the same rows (``wall``), which means something on a quiet
machine alone: ``--machine`` says what the machine was, and the load before and after stands in the results.
``--only`` measures some tasks anew and keeps the cells of the others, with the date and the load of their own run.
On CUDA the clock is wall time.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import environment, loads

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

import memory  # noqa: E402
import peers  # noqa: E402
import photographs  # noqa: E402
import reference  # noqa: E402
from peers import CONTENDERS, POLICIES, POLICY_CONTENDERS, Case, UnavailableError, augment_of  # noqa: E402

from augkit.augment.resample import resample  # noqa: E402

BATCHES = {"cpu": [(32, 3, 224, 224), (64, 3, 32, 32)], "cuda": [(256, 3, 224, 224), (1024, 3, 32, 32)]}
DTYPES = {"cpu": [torch.float32, torch.uint8], "cuda": [torch.float32, torch.uint8, torch.bfloat16]}
PACKAGES = ["torch", "numpy", "numba", "triton", "kornia", "torchvision", "albumentations", "opencv-python-headless"]
PACKAGES += ["fuse-augmentations", "nvidia-dali-cuda120", "augkit"]
LANCZOS, COMPILED = "augkit lanczos3 antialias", "kornia compiled"
ROTATION = ("augkit", "grid_sample", "kornia", COMPILED, "copy")
ALBUMENTATIONS = "albumentations to a float batch"
# Task and pixels to how often the peer's time must hold augkit's. A copy is faster: at 224 pixels at most 3.5 times.
AIMS: dict[tuple[str, int], dict[str, float]] = {
    ("pipeline", 224): {"kornia": 10, ALBUMENTATIONS: 5, "grid_sample": 6, "copy": 1 / 3.5},
    ("pipeline", 32): {"kornia": 10, ALBUMENTATIONS: 20, "grid_sample": 2.5},
    ("rotation", 224): {"kornia": 4},
    **{(task, 224): {"torchvision per sample": 1} for task in POLICIES},
    ("photographs", 224): {"torchvision per image": 3, "albumentations per image": 2, "NVIDIA DALI": 1},
}
LANCZOS_AIM, MEMORY_AIM = 3, 0.05
LEAST_ROUNDS = 5
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


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


def measure(case: Any, contenders: dict[str, Any], limits: tuple[int, float], clock: str) -> dict[str, Any]:
    """Milliseconds per batch of every contender, taking turns for rounds and seconds of ``limits``."""
    runs, first, skipped = {}, {}, {}
    for name, make in contenders.items():
        start = time.perf_counter()
        try:
            run = make(case)
            run()
        except UnavailableError as reason:
            skipped[name] = str(reason)
            continue
        except Exception as error:  # a peer that fails is a result too
            skipped[name] = f"failed: {type(error).__name__}: {str(error).splitlines()[0][:160]}"
            continue
        synchronize()
        runs[name], first[name] = run, time.perf_counter() - start
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    gc.collect()
    gc.disable()
    end = time.perf_counter() + limits[1]
    for done in range(limits[0]):
        if done >= LEAST_ROUNDS and time.perf_counter() > end:
            break
        for name in random.sample(list(runs), len(runs)):
            times[name].append(once(runs[name], CLOCKS[clock]))
    gc.enable()
    out = {name: summary(times[name], times["augkit"]) | {"first_call_s": round(first[name], 3)} for name in runs}
    return out | {name: {"skipped": reason} for name, reason in skipped.items()}


def once(run: peers.Run, clock: Callable[[], float]) -> float:
    """Milliseconds of a call, after one that is not timed; of several in a row where one is short."""
    run()
    synchronize()
    start, calls = clock(), 0
    while calls == 0 or clock() - start < 10e-3:
        run()
        calls += 1
        synchronize()
    return (clock() - start) / calls * 1e3


def synchronize() -> None:
    if torch.cuda.is_initialized():
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
        "best_ratio": round(float(values.min() / np.min(ours)), 3),
    }


def judge(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The aims on the CPU, and whether the ratio of the shortest times meets each.

    They are for float32, but for photographs and policies, which are uint8.
    """
    out = []
    for cell in cells:
        task, size, results = cell["task"], cell["batch"][-1], cell["results"]
        if cell["dtype"] != "float32" and task not in ("photographs", *POLICIES):
            continue
        for name, aim in AIMS.get((task, size), {}).items():
            if "ms" in results.get(name, {}):
                row = {"task": task, "size": size, "against": name, "aim": round(aim, 3)}
                best, rounds = results[name]["best_ratio"], results[name]["ratio_to_augkit"]
                out.append(row | {"best_ratio": best, "ratio": rounds, "met": best >= aim})
        if task == "pipeline" and "ms" in results.get("kornia", {}):
            ratio = results["kornia"]["best_ms"] / results[LANCZOS]["best_ms"]
            row = {"task": task, "size": size, "against": "kornia bilinear, by augkit lanczos3 antialias"}
            median = results["kornia"]["ms"] / results[LANCZOS]["ms"]
            judged = {"aim": LANCZOS_AIM, "best_ratio": round(ratio, 3), "ratio": [round(median, 3)]}
            out.append(row | judged | {"met": ratio >= LANCZOS_AIM})
        if "memory_beyond_output" in cell:
            share = cell["memory_beyond_output"]["augkit"]["median"]
            row = {"task": task, "size": size, "against": "memory beyond the output, as a share of it"}
            out.append(row | {"aim": MEMORY_AIM, "best_ratio": share, "ratio": [share], "met": share <= MEMORY_AIM})
    return out


def table(cell: dict[str, Any]) -> str:
    lines = [f"\n{'x'.join(map(str, cell['batch']))} {cell['dtype']} {cell['task']}, {cell['clock']} time"]
    for name, row in sorted(cell["results"].items(), key=lambda item: item[1].get("ms", 1e9)):
        if "ms" in row:
            ratio, low, high = row["ratio_to_augkit"]
            best = f"{row['best_ms']:9.3f} ms at best {row['best_ratio']:7.2f} x"
            lines.append(f"  {name:48s} {best} {row['ms']:9.3f} ms {ratio:7.2f} x  [{low:.2f}, {high:.2f}]{wall(row)}")
        else:
            lines.append(f"  {name:48s} skipped: {row['skipped']}")
    return "\n".join(lines)


def wall(row: dict[str, Any]) -> str:
    """The wall time of several threads, where it was measured."""
    times = row.get("wall")
    return f" | wall {times['best_ms']:.3f} ms at best {times['best_ratio']:.2f} x" if times else ""


def cases(
    device: str, quick: bool, without: list[str], folder: Path | None
) -> Iterator[tuple[dict[str, Any], Any, dict[str, Any]]]:
    """Each cell of the results with what is to be done in it, and its contenders."""
    left_out = {COMPILED, *without} if quick else set(without)
    every = {name: make for name, make in CONTENDERS.items() if name not in left_out}
    for batch in BATCHES[device]:
        shape = (4, *batch[1:]) if quick else batch
        for dtype in DTYPES[device]:
            images = torch.rand(shape, device=device)
            images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
            for task in ("shift", "pipeline", "rotation"):
                contenders = {name: every[name] for name in ROTATION if name in every} if task == "rotation" else every
                if device == "cpu" and (task == "shift" or dtype == torch.uint8):  # each compilation takes a minute
                    contenders = {name: make for name, make in contenders.items() if name != COMPILED}
                if task != "rotation" or dtype == torch.float32:
                    cell = {"batch": list(shape), "dtype": str(dtype).split(".")[1], "task": task}
                    yield cell, Case(task, images), contenders
    if device == "cpu":
        images = (torch.rand(4 if quick else 32, 3, 224, 224) * 255).to(torch.uint8)
        for task in POLICIES:
            yield {"batch": list(images.shape), "dtype": "uint8", "task": task}, Case(task, images), POLICY_CONTENDERS
        case = photographs.load(folder, 4 if quick else photographs.COUNT)
        cell = {"batch": [len(case.images), 3, photographs.OUT, photographs.OUT], "dtype": "uint8"}
        yield cell | {"task": "photographs", "from": folder and folder.name}, case, photographs.CONTENDERS
    else:
        decoded = photographs.load(folder, 4 if quick else 4 * photographs.COUNT)
        cell = {"batch": [len(decoded.images), 3, photographs.OUT, photographs.OUT], "dtype": "uint8"}
        for task, turn in (("photographs", False), ("photographs turned", True)):
            case = decoded.to(device, turn=turn)
            yield cell | {"task": task, "from": folder and folder.name}, case, photographs.ON_DEVICE


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="few rounds, small batches, nothing compiled")
    parser.add_argument("--threads", type=int, default=2, help="of the wall-clock times on a CPU; 1 leaves them out")
    parser.add_argument("--rounds", type=int, default=20, help="at most")
    parser.add_argument("--seconds", type=float, default=10, help="of a cell and a clock, after which no round begins")
    parser.add_argument("--machine", choices=["quiet", "busy"], default="busy", help="whether other processes ran")
    parser.add_argument("--only", nargs="*", metavar="TASK", help="tasks to measure; other cells of the file stay")
    parser.add_argument("--without", nargs="*", default=[], metavar="NAME", help="contenders to leave out")
    parser.add_argument("--photographs", type=Path, help="folder of parquet files with a column 'image'")
    parser.add_argument("--output", type=Path, help="JSON file; results/augment-DEVICE-MACHINE.json")
    parser.add_argument("--note", default="", help="a remark for the results, such as what else was running")
    return parser.parse_args()


def kept(output: Path, only: list[str] | None) -> list[dict[str, Any]]:
    """The cells of the file that are not measured anew."""
    if not only or not output.exists():
        return []
    return [cell for cell in json.loads(output.read_text())["cells"] if cell["task"] not in only]


def main() -> None:
    options = parsed()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    limits, clock = (3, options.seconds) if options.quick else (options.rounds, options.seconds), "cpu"
    if options.device != "cpu":
        clock = "wall"
    name = f"augment-{options.device}" + (f"-{options.machine}" if options.device == "cpu" else "")
    output = options.output or HERE / "results" / f"{name}.json"
    cells = kept(output, options.only)
    record = environment(options.device, PACKAGES) | {"machine_was": options.machine, "note": options.note}
    record["parity"] = check_parity(options.device)
    for cell, case, contenders in cases(options.device, options.quick, options.without, options.photographs):
        if options.only and cell["task"] not in options.only:
            continue
        cell |= {"clock": clock, "date": record["date"], "load": loads()}
        results = measure(case, contenders, limits, clock)
        if clock == "cpu" and options.threads > 1:
            torch.set_num_threads(options.threads)
            few = {name: make for name, make in contenders.items() if name != COMPILED}
            for name, row in measure(case, few, (limits[0], limits[1] / 2), "wall").items():
                results[name]["wall"] = row if "ms" in row else None
            torch.set_num_threads(1)
            cell["wall_threads"] = options.threads
        cells.append(cell | {"results": results})
        print(table(cells[-1]), flush=True)
        if clock == "cpu" and cell["task"] == "pipeline" and cell["batch"][-1] == 224 and cell["dtype"] == "float32":
            cells[-1]["memory_beyond_output"] = memory.beyond_output()
        record |= {"load_after": loads(), "aims": judge([c for c in cells if c["clock"] == "cpu"]), "cells": cells}
        if options.output or not options.quick:
            output.write_text(json.dumps(record, indent=1) + "\n")
    for aim in [] if options.quick or options.device != "cpu" else record["aims"]:
        verdict, wanted = "met   " if aim["met"] else "MISSED", f"{aim['best_ratio']} at best, {aim['ratio']}"
        print(f"{verdict} {aim['size']:4d} {aim['task']}, {aim['against']}: {wanted}; aim {aim['aim']}")


if __name__ == "__main__":
    main()
