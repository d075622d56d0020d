"""Do even draws help? Paired by seed: the same weights, order of images and policy, with random and with even draws.

    python benchmarks/even_draws.py digits-8 digits-24 cifar10 --cifar parquet:DIR      # about an hour on one busy core
    python benchmarks/even_draws.py digits-8 --seeds 2 --output FILE

Controls, the same recipe without augmentation, come last. Every run is written to ``results/even-draws.json`` when it
ends, and a second call goes on where the first stopped. Accuracy and variability under shifts (shift information) are
those on the test split. Learned invariance is the share of the variability of the control of the same seed that a
policy removed. Intervals are Student's t over seeds of paired differences, and of paired logarithms of ratios: they
hold for these test images.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import environment
from scipy import stats

import augkit
from augkit.train.evaluate import evaluate, measure_model

HERE = Path(__file__).parent
DIGITS = (
    "data.name=digits",
    "data.canvas=16",
    "policy.shift.max_pixels=3",
    "invariance.max_shift=3",
)
CIFAR = (
    "data.limit=1000",
    "model={name: small_cnn, width: 8}",
    "policy={shift: {max_pixels: 4}, rescale: {max_factor: 1.15, p: 0.5}, flip: {p: 0.5}, padding: reflection}",
    "train={epochs: 12, batch_size: 64}",
    "optim.lr=0.1",
    "invariance={protocol: crop, max_shift: 3, pairs: 4}",
)
# By name: a recipe, its overrides, seeds, and test images.
CASES: dict[str, tuple[str, tuple[str, ...], int, int | None]] = {
    "digits-8": ("mnist5k", (*DIGITS, "train.epochs=8"), 16, None),
    "digits-24": ("mnist5k", (*DIGITS, "train.epochs=24"), 10, None),
    "cifar10": ("cifar10-resnet18", CIFAR, 8, 1000),
}
ARMS = ("random", "even", "control")


def recipes(name: str, cifar: str) -> dict[str, augkit.Recipe]:
    """The recipe of each arm."""
    source, overrides, _, _ = CASES[name]
    overrides = (*overrides, f"data.name={cifar}") if name.startswith("cifar") else overrides
    base = augkit.Recipe.load(source, list(overrides))
    train = {**base.train.model_dump(), "evaluate_every": base.train.epochs}
    base = base.replaced(name=name, train=train)
    even = base.replaced(policy={**base.policy.model_dump(), "draws": "even"})
    return {"random": base, "even": even, "control": base.control()}


def scores(recipe: augkit.Recipe, seed: int, data: augkit.Dataset, images: int | None) -> dict[str, float]:
    """Accuracy and variability of one run on the test split."""
    run = augkit.fit(recipe, seed=seed, dataset=data, device="cpu")
    test = data.open_test(images)
    found = evaluate(run.model, test, recipe, torch.device("cpu"))
    report = measure_model(run.model, recipe, test)
    return {"accuracy": found.accuracy, "variability": report.shift_information.value, "loss": run.history[-1]["loss"]}


def interval(values: Sequence[float]) -> dict[str, float]:
    """The mean with its 95 % interval."""
    mean, half = float(np.mean(values)), float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))
    return {"value": mean, "low": mean - half, "high": mean + half}


def share(logs: Sequence[float]) -> dict[str, float]:
    """The share that is removed, of the mean logarithm of ratios."""
    found = interval(logs)
    return {"value": -np.expm1(found["value"]), "low": -np.expm1(found["high"]), "high": -np.expm1(found["low"])}


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Paired differences over the seeds that have all arms."""
    by_seed: dict[int, dict[str, dict[str, Any]]] = {}
    for run in runs:
        by_seed.setdefault(run["seed"], {})[run["arm"]] = run
    pairs = [arms for _, arms in sorted(by_seed.items()) if {"random", "even"} <= arms.keys()]
    whole = [arms for arms in pairs if "control" in arms]
    found: dict[str, Any] = {"n_seeds": len(pairs), "n_seeds_with_control": len(whole)}
    if len(pairs) > 1:
        accuracy = {arm: np.array([arms[arm]["accuracy"] for arms in pairs]) for arm in ("random", "even")}
        found["accuracy"] = {arm: interval(values) for arm, values in accuracy.items()}
        found["even_less_random_accuracy"] = interval(accuracy["even"] - accuracy["random"])
        found["variability_removed_by_even_draws"] = share(logs(pairs, "even") - logs(pairs, "random"))
    if len(whole) > 1:
        against = logs(whole, "control")
        found["learned_invariance"] = {arm: share(logs(whole, arm) - against) for arm in ("random", "even")}
    return found


def logs(seeds: Sequence[dict[str, dict[str, Any]]], arm: str) -> np.ndarray:
    """The logarithm of an arm's variability, by seed."""
    return np.log([arms[arm]["variability"] for arms in seeds])


def results(path: Path) -> dict[str, Any]:
    """What is written already."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"cases": {}}
    return found


def main() -> None:
    """Train what is missing, summarise, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", choices=list(CASES), help="of these: " + ", ".join(CASES))
    parser.add_argument("--cifar", default="cifar10", help="where CIFAR-10 lies, as in data.name of a recipe")
    parser.add_argument("--seeds", type=int, help="in place of the case's")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "even-draws.json")
    options = parser.parse_args()
    for name in options.cases or list(CASES):
        _, overrides, seeds, images = CASES[name]
        arms = recipes(name, options.cifar)
        data = augkit.load_dataset(arms["random"].data.name, limit=arms["random"].data.limit)
        case = results(options.output)["cases"].get(name, {"overrides": list(overrides), "runs": []})
        every = range(options.seeds or seeds)
        wanted = [(seed, arm) for group in (ARMS[:2], ARMS[2:]) for seed in every for arm in group]
        done = {(run["seed"], run["arm"]) for run in case["runs"]}
        for seed, arm in (run for run in wanted if run not in done):
            started = time.perf_counter()
            found = scores(arms[arm], seed, data, images)
            case["runs"].append({"seed": seed, "arm": arm, **found})
            case.update(summarise(case["runs"]))
            case["environment"] = environment("cpu", ["torch", "numpy", "augkit"])
            known = results(options.output)  # read anew: another process may write another case
            known["cases"][name] = case
            options.output.write_text(json.dumps(known, indent=1) + "\n")
            print(f"{name} seed {seed} {arm}: {found} ({time.perf_counter() - started:.0f} s)", flush=True)
        print(name, json.dumps({key: value for key, value in case.items() if key not in ("runs", "environment")}))


if __name__ == "__main__":
    main()
