"""MOASHA of syne-tune (Schmucker et al. 2021) on a table of trained configurations, in an environment of its own.

    python -m venv peer && peer/bin/pip install "syne-tune[moo]"
    python benchmarks/tune_replay.py --peer peer/bin/python

`tune_replay.py` starts this file with the other interpreter. It reads, from standard input, ``rungs`` (epochs),
``scores`` (configuration x rung x objective) and ``seeds``; it writes, for each seed, the configurations and rungs in
the order in which MOASHA trains them. MOASHA proposes at random and stops a configuration at a rung if it is not among
the best half there; a configuration that is proposed twice is skipped.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import numpy as np
from syne_tune.backend.trial_status import Trial
from syne_tune.config_space import randint
from syne_tune.optimizer.scheduler import SchedulerDecision
from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

FACTOR = 2  # its rungs are powers of it, those of the table


def order(scores: list[list[list[float]]], rungs: list[int], seed: int) -> list[tuple[int, int]]:
    """Pairs of configuration and number of the rung, as one worker trains them, until no configuration is left."""
    np.random.seed(seed)  # noqa: NPY002 (its search space draws from the global state)
    names = [f"objective {k}" for k in range(len(scores[0][0]))]
    scheduler = MOASHA(
        {"configuration": randint(0, len(scores) - 1)},
        names,
        do_minimize=False,
        time_attr="epochs",
        max_t=rungs[-1],
        grace_period=rungs[0],
        reduction_factor=FACTOR,
        random_seed=seed,
    )
    events: list[tuple[int, int]] = []
    tried: set[int] = set()
    while len(tried) < len(scores):
        number = int(scheduler.suggest().config["configuration"])
        if number in tried:
            continue
        trial = Trial(len(tried), {"configuration": number}, datetime.now())
        tried.add(number)
        scheduler.on_trial_add(trial)
        for rung, epochs in enumerate(rungs):
            events.append((number, rung))
            result: dict[str, Any] = {"epochs": epochs, **dict(zip(names, scores[number][rung], strict=True))}
            if scheduler.on_trial_result(trial, result) == SchedulerDecision.STOP:
                break
    return events


def main() -> None:
    """From standard input to standard output."""
    given = json.load(sys.stdin)
    json.dump([order(given["scores"], given["rungs"], seed) for seed in given["seeds"]], sys.stdout)


if __name__ == "__main__":
    main()
