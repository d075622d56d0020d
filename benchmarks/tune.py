"""What a search costs beside its training, and what a second worker brings.

    python benchmarks/tune.py            # about 20 minutes on 2 quiet cores; writes results/tune-cpu.json
    python benchmarks/tune.py --quick    # a smoke run; writes nothing unless --output is given
    python benchmarks/tune.py workers    # one part; the others keep their numbers in the file

``overhead``: seconds of a search outside of training and measuring, over those inside, on mnist5k.
``workers``: the search of mnist5k by one worker, over that by two, each of one thread; rounds take turns. The start of
the workers (some ten seconds each) counts, so ``longer`` is the same with trials of up to 8 epochs instead of 4.

How soon a search gets somewhere is another question: see `tune_table.py` and `tune_replay.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from machine import environment, loads
from tune_pool import interval

from augkit.core.jobs.storage import open_storage
from augkit.train.build import load_recipe_data
from augkit.tune import optuna_study
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.space import Space
from augkit.tune.trial import TrialWorker

HERE = Path(__file__).parent
AIMS = {"overhead": 0.03, "workers": 1.7, "longer": 1.7}


class Timed(TrialWorker):
    """A worker that adds up the time of training and measuring."""

    inside = 0.0

    def _perform(self, *values: Any) -> Any:
        found = super()._perform(*values)
        self.inside += found.seconds
        return found


def overhead(quick: bool) -> dict[str, Any]:
    """Seconds outside over seconds inside."""
    trials, space = 2 if quick else 12, Space.load("mnist5k")
    terms = SearchTerms(space=space.to_dict(), epochs=4)
    data = load_recipe_data(space.recipe)
    with tempfile.TemporaryDirectory() as folder:
        study, _ = optuna_study.make_or_join(open_storage(Path(folder) / "j"), "s", terms, trials, join=False)
        worker = Timed(study, terms, data, torch.device("cpu"))
        started = time.perf_counter()
        worker.run()
        seconds = time.perf_counter() - started
    outside = seconds - worker.inside
    found = {"value": outside / worker.inside, "inside": worker.inside, "seconds": seconds, "trials": trials}
    found["per_trial"] = outside / (trials + 1)
    print(f"overhead {100 * found['value']:.1f} % ({1000 * found['per_trial']:.0f} ms a trial)")
    return found


def workers(quick: bool, epochs: int = 4) -> dict[str, Any]:
    """Seconds of the search phase by one worker over those by two, the start of the workers included."""
    rounds, trials = (1, 4) if quick else (3, 24)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for k in range(rounds):
        for count in (1, 2) if k % 2 == 0 else (2, 1):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "augkit.tune", "mnist5k", f"train.epochs={epochs}"]
                command += ["--trials", str(trials), "--trial-epochs", str(epochs), "--workers", str(count)]
                command += ["--seeds", "1", "--top", "1", "--json"]
                command += ["--quiet", "--device", "cpu", "--output", f"{folder}/out"]
                one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=one_thread)
            seconds[count].append(json.loads(done.stdout)["cost"]["search"])
        print(f"round {k}: one worker {seconds[1][-1]:.0f} s, two {seconds[2][-1]:.0f} s", flush=True)
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    found = {**interval(ratios), "seconds": seconds, "rounds": rounds, "trials": trials, "threads": 1}
    found |= {"epochs": epochs}
    print(f"one worker over two: {found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]")
    return found


def longer(quick: bool) -> dict[str, Any]:
    """`workers` with trials of twice as many epochs."""
    return workers(quick, 8)


PARTS = {"overhead": overhead, "workers": workers, "longer": longer}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all by default")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    output = options.output or (None if options.quick else HERE / "results" / "tune-cpu.json")
    result: dict[str, Any] = {"aims": AIMS}
    if output and output.exists():
        before = json.loads(output.read_text())
        result |= {name: before[name] for name in PARTS if name in before}
    for name in options.parts or PARTS:
        began = environment("cpu", ["torch", "optuna", "numpy", "augkit"])
        result[name] = {**PARTS[name](options.quick), "environment": began, "load_after": loads()}
    if output:
        output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
