"""What a search costs beside its training, how soon it gets somewhere, and what a second worker brings.

    python benchmarks/tune.py            # about 15 minutes on 2 quiet cores; writes results/tune-cpu.json
    python benchmarks/tune.py --quick    # a smoke run; writes nothing unless --output is given

``overhead``: seconds of a search outside of training and measuring, over those inside, on mnist5k.
``volume``: on 1,797 digits of 8 x 8 pixels, the seconds until a search dominates the volume (accuracy x learned
invariance) that plain random search has at its end, over the seconds that random search takes to get there; per seed,
then the median over seeds with a 95 % bootstrap interval. ``pareto`` is what `augkit.tune` does by default (presets,
TPE), ``pruned`` is ``--objective accuracy --at-least-invariance``, ``optuna`` its TPE as it comes, without presets.
A search that does not get there within its trials counts with the time it took, so its ratio is a lower bound.
``workers``: the search of mnist5k by one worker in one process, over that by two; rounds take turns.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from machine import environment, loads

from augkit.core.jobs.storage import open_storage
from augkit.train.build import load_recipe_data
from augkit.tune import optuna_study
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.search_figures import dominated_volume
from augkit.tune.space import Space
from augkit.tune.trial import TrialWorker

HERE = Path(__file__).parent
DIGITS = {
    "name": "digits",
    "data": {"name": "digits", "canvas": 16},
    "model": {"name": "small_cnn", "width": 8},
    "policy": {"shift": {"max_pixels": 2.0}, "rescale": {"max_factor": 1.1, "p": 0.5}, "crop": {"min_area": 0.8}},
    "optim": {"lr": 0.2},
    "train": {"epochs": 12, "batch_size": 64},
    "invariance": {"protocol": "embed", "max_shift": 4.0, "pairs": 2},
}
AT_LEAST = 0.5
AIMS = {"overhead": 0.03, "volume": 1 / 3, "workers": 1.7}


class Timed(TrialWorker):
    """A worker that adds up the time of training and measuring, and keeps when each trial ended."""

    inside = 0.0

    def _train(self, *values: Any, **named: Any) -> Any:
        return self._time(super()._train, *values, **named)

    def _measure(self, *values: Any, **named: Any) -> Any:
        return self._time(super()._measure, *values, **named)

    def _time(self, call: Any, *values: Any, **named: Any) -> Any:
        started = time.perf_counter()
        try:
            return call(*values, **named)
        finally:
            self.inside += time.perf_counter() - started


def run_search(recipe: Mapping[str, Any] | str, trials: int, epochs: int, **how: Any) -> tuple[Timed, list[Any], float]:
    """A search of one process; its worker, the points with the seconds at which they were known, and all seconds."""
    space = Space.load(recipe) if isinstance(recipe, str) else Space.of(json.loads(json.dumps(recipe)), "benchmark")
    presets = how.pop("presets", True)
    sampler = how.pop("own_sampler", None)
    terms = SearchTerms(space=space.to_dict(), epochs=epochs, least_epochs=max(1, epochs // 4), **how)
    data = load_recipe_data(space.recipe)
    points: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        kept, optuna_study.PRESETS = optuna_study.PRESETS, optuna_study.PRESETS if presets else {}
        study, _ = optuna_study.make_or_join(open_storage(Path(folder) / "j"), "s", terms, trials, join=False)
        optuna_study.PRESETS = kept
        worker = Timed(study, terms, data, torch.device("cpu"))
        if sampler is not None:
            study.sampler = sampler
        started = time.perf_counter()

        def on_trial(trial: Any, recipe: Any, report: Any) -> None:
            if report is not None:
                found = trial.user_attrs
                points.append([time.perf_counter() - started, found["accuracy"], found["learned_invariance"]])

        worker.on_trial = on_trial
        worker.run()
        return worker, points, time.perf_counter() - started


def overhead(trials: int) -> dict[str, Any]:
    """Seconds outside over seconds inside."""
    worker, _, seconds = run_search("mnist5k", trials, 4)
    return {
        "value": (seconds - worker.inside) / worker.inside,
        "inside": worker.inside,
        "seconds": seconds,
        "trials": trials,
        "per_trial": (seconds - worker.inside) / (trials + 1),
    }


STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random", "presets": False},
    "optuna": {"presets": False},
    "pareto": {},
    "pruned": {"goal": Goal(mode="accuracy", at_least=AT_LEAST)},
}


def volume(seeds: int, trials: int) -> dict[str, Any]:
    """Time to the volume of random search, per strategy and seed."""
    rows = []
    for seed in range(seeds):
        reached: dict[str, Any] = {"seed": seed}
        target = 0.0
        for name, how in STRATEGIES.items():
            own = optuna.samplers.TPESampler(seed=seed) if name == "optuna" else None
            _, points, seconds = run_search(DIGITS, trials, 8, seed=seed, own_sampler=own, **how)
            volumes = [dominated_volume([p[1:] for p in points[: k + 1]], [0.0, 0.0]) for k in range(len(points))]
            target = volumes[-1] if name == "random" else target
            when = next((p[0] for p, v in zip(points, volumes, strict=True) if v >= target), None)
            reached[name] = {
                "seconds_to_target": when,
                "seconds": seconds,
                "volume": volumes[-1] if volumes else 0.0,
                "completed": len(points),
            }
            print(f"seed {seed} {name:8s} volume {reached[name]['volume']:.3f} after {seconds:.0f} s, target {when}")
        rows.append(reached)
    ratios = {}
    for name in STRATEGIES:
        if name == "random":
            continue
        values = [(r[name]["seconds_to_target"] or r[name]["seconds"]) / r["random"]["seconds_to_target"] for r in rows]
        ratios[name] = {**interval(values), "never": sum(r[name]["seconds_to_target"] is None for r in rows)}
    return {"ratios": ratios, "rows": rows, "trials": trials}


def interval(values: list[float]) -> dict[str, float]:
    """The median with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"value": float(np.median(values)), "low": float(low), "high": float(high)}


def workers(rounds: int, trials: int) -> dict[str, Any]:
    """Seconds of a search by one worker over those by two, start-up included; and of the search phase alone."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for k in range(rounds):
        for count in (1, 2) if k % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "augkit.tune", "mnist5k", "train.epochs=4", "--trials", str(trials)]
                command += ["--trial-epochs", "4", "--seeds", "1", "--top", "1", "--workers", str(count), "--json"]
                command += ["--quiet", "--device", "cpu", "--output", f"{folder}/out"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[count].append(json.loads(done.stdout)["cost"]["search"])
        print(f"round {k}: one worker {seconds[1][-1]:.0f} s, two {seconds[2][-1]:.0f} s", flush=True)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    return {**interval(ratios), "seconds": seconds, "rounds": rounds, "trials": trials}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    quick = options.quick
    result: dict[str, Any] = {"aims": AIMS, "environment": environment("cpu", ["torch", "optuna", "numpy", "augkit"])}
    result["overhead"] = overhead(2 if quick else 12)
    print(
        f"overhead {100 * result['overhead']['value']:.1f} % ({1000 * result['overhead']['per_trial']:.0f} ms a trial)"
    )
    result["volume"] = volume(1 if quick else 5, 6 if quick else 30)
    for name, ratio in result["volume"]["ratios"].items():
        print(f"time to the volume of random, {name}: {ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]")
    result["workers"] = workers(1 if quick else 3, 4 if quick else 24)
    found = result["workers"]
    print(f"one worker over two: {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]")
    result["load_after"] = loads()
    output = options.output or (None if quick else HERE / "results" / "tune-cpu.json")
    if output:
        output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
