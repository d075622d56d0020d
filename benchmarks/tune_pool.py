"""The table that `tune_table.py` wrote, as what strategies of search are replayed on."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution

from augkit.tune.optuna_study import FLOOR
from augkit.tune.promotion import Standing

CLASSES = 10
FEW = 256  # validation images of cheap measuring
RUNGS, FORK = (1, 2, 4, 8), (1, 2)
PARTS = {"scratch": len(RUNGS), "fork": len(FORK), "verified": 2}  # lines of a finished configuration
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Rung:
    """A moment at which every configuration of the table was measured.

    Attributes:
        name: in words.
        until: epochs of training up to here.
        epochs: epochs that getting here costs, from the rung before.
        seconds: seconds of training and measuring that this costs.
        standings: scores of all configurations, in their order.
    """

    name: str
    until: int
    epochs: int
    seconds: float
    standings: list[Standing]


@dataclass(frozen=True)
class Pool:
    """A table of trained configurations.

    Attributes:
        name: name of the ground.
        about: data and machine of the table.
        ranges: ends of each field.
        parameters: values of each configuration by field.
        points: (N, D) the same, each field from 0 to 1.
        rungs: measurements along one training; the last is that of all epochs, and it alone has a floor.
        floored: the same with a floor on every rung, as `augkit.tune` had it before this benchmark.
        whole: the last rung, reached in one go.
        forks: measurements after a few epochs from the weights of the control.
        verified: accuracy and learned invariance of networks of other seeds on other images.
        control: seconds of the control: trained and measured once, and measured cheaply on one rung.
    """

    name: str
    about: dict[str, Any]
    ranges: dict[str, tuple[float, float]]
    parameters: list[dict[str, float]]
    points: NDArray[np.float64]
    rungs: list[Rung]
    floored: list[Rung]
    whole: Rung
    forks: list[Rung]
    verified: list[tuple[float, float]]
    control: tuple[float, float]

    def distributions(self) -> dict[str, BaseDistribution]:
        """The ranges for Optuna."""
        return {key: FloatDistribution(low, high) for key, (low, high) in self.ranges.items()}

    def place(self, values: dict[str, float]) -> NDArray[np.float64]:
        """A point of the space, each field from 0 to 1."""
        return np.array([(values[key] - low) / (high - low) for key, (low, high) in self.ranges.items()])

    def control_seconds(self, rungs: list[Rung]) -> float:
        """Seconds of the control, which is measured on every rung as its trials are."""
        whole, cheap = self.control
        return whole + cheap * (len(rungs) - 1)

    def costs(self) -> dict[str, float]:
        """Seconds by rung."""
        return {rung.name: rung.seconds for rung in [*self.rungs, self.whole, *self.forks]}


def read_pool(path: Path) -> Pool:
    """Read a table; configurations that are not finished are left out."""
    rows: Rows = [json.loads(line) for line in path.read_text().splitlines()]
    about = next(row for row in rows if row["part"] == "about")
    by: dict[Any, dict[str, Rows]] = {}
    for row in rows:
        by.setdefault(row["configuration"], {}).setdefault(row["part"], []).append(row)
    control = by.pop("control")
    whole = [parts for _, parts in sorted(by.items()) if all(len(parts.get(p, [])) == n for p, n in PARTS.items())]
    ranges = {key: (r["low"], r["high"]) for key, r in about["space"]["ranges"].items()}
    parameters = [parts["scratch"][0]["values"] for parts in whole]
    points = np.array([[(p[k] - low) / (high - low) for k, (low, high) in ranges.items()] for p in parameters])
    references = {(row["epochs"], row["cheap"]): row for row in control["scratch"]}
    images = about["search_images"]
    floored = _rungs("epoch", [parts["scratch"] for parts in whole], references, None, images)
    rungs = [*(without_floor(rung) for rung in floored[:-1]), floored[-1]]
    forks = _rungs("epoch from the control", [parts["fork"] for parts in whole], references, RUNGS[-1], images)
    once = _median([row["train_s"] for parts in whole for row in parts["verified"]])
    measured = _median([parts["scratch"][-1]["measure_s"] for parts in whole])
    cheap = _median([row["measure_s"] for parts in whole for row in parts["scratch"] if row["cheap"]])
    return Pool(
        name=about["ground"],
        about={k: about[k] for k in ("train_images", "search_images", "verified_images", "environment")},
        ranges=ranges,
        parameters=parameters,
        points=points,
        rungs=rungs,
        floored=floored,
        whole=Rung(f"{RUNGS[-1]} epochs at once", RUNGS[-1], RUNGS[-1], once + measured, rungs[-1].standings),
        forks=[without_floor(fork) for fork in forks],
        verified=[_verified(parts["verified"], control["verified"]) for parts in whole],
        control=(once + measured, cheap),
    )


def _rungs(
    word: str, each: list[Rows], references: dict[tuple[int, bool], Any], until: int | None, images: int
) -> list[Rung]:
    """The measurements of one part; ``until`` is the epoch of the control that they are compared with, if fixed."""
    found: list[Rung] = []
    for level, first in enumerate(each[0]):
        here = [rows[level] for rows in each]
        reference = references[until or first["epochs"], first["cheap"]]
        shown = min(FEW, images) if first["cheap"] else images
        scores = [standing(number, row, reference, shown) for number, row in enumerate(here)]
        before = found[-1].until if found else 0
        seconds = _median([row["train_s"] for row in here]) + _median([row["measure_s"] for row in here])
        name = f"{first['epochs']} {word.replace('epoch', 'epochs') if first['epochs'] > 1 else word}"
        found.append(Rung(name, first["epochs"], first["epochs"] - before, seconds, scores))
    return found


def standing(number: int, row: dict[str, Any], reference: dict[str, Any], images: int) -> Standing:
    """Accuracy above that of guessing and learned invariance, and how far the network is below the floor of a search.

    As in `augkit.tune`, only a shortfall of more than two binomial standard errors counts.
    """
    chance = 1 / CLASSES
    least = {"accuracy": chance + FLOOR * (reference["accuracy"] - chance), "kappa": FLOOR * reference["kappa"]}
    short = sum(max(0.0, low - _error(row[key], images) - row[key]) for key, low in least.items())
    invariance = 1 - row["shift_information"] / reference["shift_information"]
    return Standing(number, (row["accuracy"] - chance, invariance), short)


def without_floor(rung: Rung) -> Rung:
    """The same measurements, none of which is below a floor."""
    return replace(rung, standings=[replace(found, violation=0.0) for found in rung.standings])


def _error(share: float, images: int) -> float:
    inside = min(1.0, max(0.0, share))
    return 2 * math.sqrt(inside * (1 - inside) / images)


def _verified(rows: Rows, control: Rows) -> tuple[float, float]:
    """Mean accuracy, and learned invariance by the mean of log ratios, paired by seed."""
    logs = [math.log(a["shift_information"] / b["shift_information"]) for a, b in zip(rows, control, strict=True)]
    return sum(row["accuracy"] for row in rows) / len(rows), 1 - math.exp(sum(logs) / len(logs))


def _median(values: list[float]) -> float:
    return float(np.median(values))


def interval(values: list[float]) -> dict[str, float]:
    """The median with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    draws = np.median(rng.choice(values, (2000, len(values))), axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"value": float(np.median(values)), "low": float(low), "high": float(high)}
