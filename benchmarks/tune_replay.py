"""How soon strategies of search get as far as a long search does, replayed on a table of trained configurations.

    python benchmarks/tune_replay.py                                  # reads results/tune-table-*.jsonl, minutes
    python benchmarks/tune_replay.py --peer peer/bin/python   # with MOASHA (tune_moasha.py)
    python benchmarks/tune_replay.py --only "halving, factor 4"   # the others keep their results

`tune_table.py` trained each configuration once; here nothing is trained, so many seeds of every strategy are cheap, and
all strategies see the very same networks. Samplers may propose any point of the space; they are given the nearest
configuration of the table that was not tried yet, which costs them part of their precision.

What counts is what a search would *return*: at any moment its best `TOP` configurations by its own measurements, those
of the highest rung first. Their volume (accuracy x learned invariance) is that of the **verified** networks, which were
retrained with other seeds and measured on images that no search saw. The target is 99 % of the verified volume that a
long reference search returns: one that trained every configuration of the table for all epochs. Time is that of
training and measuring, of the control too: CPU seconds of one thread (medians over the table, so that the load of the
machine does not decide) and epochs. Retraining what is returned costs the same for all and is left out, as are the
seconds in which a sampler thinks.

Per seed, the time of a strategy over that of random search with the same seed; then the median over seeds with a 95 %
bootstrap interval. The table has an end, which a space has not: halving that tried all of it goes on with a smaller
factor. A search that ends without getting there counts with all its time, so its ratio is a lower bound.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from machine import environment, loads
from tune_pool import Pool, Rung, interval, read_pool

from augkit.tune.optuna_study import SAMPLERS
from augkit.tune.promotion import Standing, promotable, ranked
from augkit.tune.rung_report import rank_correlation
from augkit.tune.rung_sampler import ENOUGH
from augkit.tune.volume import dominated_volume

HERE = Path(__file__).parent
TOP = 3  # configurations that a search returns
SHARE = 0.99  # of the reference volume
FACTOR = 3  # of halving, as `augkit.tune` has it
BUDGETS = (4, 8, 16)  # in full trainings: where volumes are compared at equal cost
SHOWN, HEAD = 4, "strategy"  # of the table: a budget, and the first column
AIM = {"median": 0.33, "high": 0.5}
Event = tuple[int, int]  # configuration, number of the rung


def plain(pool: Pool) -> list[Rung]:
    """Every configuration is trained for all epochs at once."""
    return [pool.whole]


def halved(pool: Pool) -> list[Rung]:
    """The rungs of the table."""
    return pool.rungs


def floored(pool: Pool) -> list[Rung]:
    """The rungs of the table, where those that learn more slowly than the control are last on every rung."""
    return pool.floored


def forked(pool: Pool) -> list[Rung]:
    """Only forks of the control, as with ``--fork``."""
    return pool.forks


def forked_first(pool: Pool) -> list[Rung]:
    """Forks of the control; the best of them are then trained from initial weights."""
    return [*pool.forks, pool.whole]


# Strategy: its sampler, its rungs, and of how many configurations one goes on. The rule of promotion is that of
# `augkit.tune`. Factors 2 and 4 were replayed after 3, which `augkit.tune` has by default.
STRATEGIES: dict[str, tuple[str, Callable[[Pool], list[Rung]], int]] = {
    "random": ("random", plain, FACTOR),
    "TPE": ("tpe", plain, FACTOR),
    "GP": ("gp", plain, FACTOR),
    "halving": ("random", halved, FACTOR),
    "halving, factor 2": ("random", halved, 2),
    "halving, factor 4": ("random", halved, 4),
    "halving, TPE": ("tpe", halved, FACTOR),
    "halving, floor on all rungs": ("random", floored, FACTOR),
    "halving + fork": ("random", forked_first, FACTOR),
    "halving of forks alone": ("random", forked, FACTOR),
}
PEER = "MOASHA (syne-tune)"


class Proposer:
    """Proposes configurations that were not tried yet.

    Args:
        pool: the table.
        name: name of the sampler, as for ``--sampler``.
        seed: its seed.
    """

    def __init__(self, pool: Pool, name: str, seed: int) -> None:
        self.pool, self.name = pool, name
        self.order = np.random.default_rng(seed).permutation(len(pool.points)).tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.sampler = SAMPLERS[name](seed)

    def next(self, tried: set[int], seen: Sequence[Standing]) -> int:
        """The next configuration, given those that the sampler learns from."""
        if self.name == "random" or len(seen) < ENOUGH:  # all samplers begin as random search with this seed does
            return next(k for k in self.order if k not in tried)
        study = optuna.create_study(directions=["maximize"] * 2, sampler=self.sampler)
        ranges = self.pool.distributions()
        study.add_trials(
            [
                optuna.trial.create_trial(
                    values=list(standing.values),
                    params=self.pool.parameters[standing.number],
                    distributions=ranges,
                    constraints={"floor": standing.violation},
                )
                for standing in seen
            ]
        )
        proposed = self.pool.place(study.ask(ranges).params)
        left = [k for k in range(len(self.pool.points)) if k not in tried]
        return left[int(np.argmin(((self.pool.points[left] - proposed) ** 2).sum(1)))]


def events_of(pool: Pool, rungs: list[Rung], sampler: str, seed: int, factor: int = FACTOR) -> Iterator[Event]:
    """What one worker trains, in order, until every configuration has reached the top.

    Of several rungs with a promotion the highest comes first, as in `augkit.tune.halving`.
    """
    proposer = Proposer(pool, sampler, seed)
    done: list[list[Standing]] = [[] for _ in rungs]
    while True:
        chosen = None
        for level in range(len(rungs) - 1):
            above = {standing.number for standing in done[level + 1]}
            if numbers := promotable(done[level], above, factor):
                chosen = numbers[0], level + 1
        if chosen is None and len(done[0]) == len(pool.points):
            if factor == 1:
                return
            factor -= 1
            continue
        if chosen is None:
            learns = [standings for standings in done if len(standings) >= ENOUGH]
            tried = {standing.number for standing in done[0]}
            chosen = proposer.next(tried, learns[-1] if learns else done[0]), 0
        number, level = chosen
        done[level].append(rungs[level].standings[number])
        yield number, level


def returned(levels: Sequence[Sequence[Standing]], count: int = TOP) -> list[int]:
    """The best configurations, those of the highest rung first."""
    found: list[int] = []
    for standings in reversed(levels):
        left = tuple(s for s in standings if s.number not in found)
        found += ranked(left)[: count - len(found)]
    return found


def verified_volume(pool: Pool, numbers: Sequence[int]) -> float:
    """Volume of the verified networks of configurations."""
    return dominated_volume([pool.verified[k] for k in numbers], [0.0, 0.0])


def reference(pool: Pool) -> float:
    """Verified volume of what a search returns that trained every configuration for all epochs."""
    return verified_volume(pool, returned([pool.whole.standings]))


def follow(
    pool: Pool, rungs: list[Rung], events: Iterator[Event], target: float, budgets: Sequence[float] = BUDGETS
) -> dict[str, Any]:
    """Go through a search until it has reached the target and spent the largest of the budgets.

    Returns:
        ``seconds`` and ``epochs`` until the target, ``reached``, and ``volumes`` by budget as shares of the reference.
    """
    control, full = pool.control_seconds(rungs), pool.whole.seconds
    seconds, epochs, found = control, float(pool.whole.epochs), None
    whole, spare, volumes = reference(pool), list(budgets), {}
    levels: list[list[Standing]] = [[] for _ in rungs]

    def volume() -> float:
        return verified_volume(pool, returned(levels))

    for number, level in events:
        cost = rungs[level]
        while spare and seconds + cost.seconds - control > spare[0] * full + 1e-9:
            volumes[str(spare.pop(0))] = volume() / whole
        if found is not None and not spare:
            break
        seconds, epochs = seconds + cost.seconds, epochs + cost.epochs
        levels[level].append(cost.standings[number])
        if found is None and volume() >= target:
            found = {"seconds": seconds, "epochs": epochs, "reached": True}
    volumes |= {str(budget): volume() / whole for budget in spare}
    return {**(found or {"seconds": seconds, "epochs": epochs, "reached": False}), "volumes": volumes}


def peer_events(pool: Pool, python: str, seeds: int) -> list[list[Event]]:
    """What MOASHA trains, by seed."""
    scores = [[list(rung.standings[k].values) for rung in pool.rungs] for k in range(len(pool.points))]
    given = {"scores": scores, "rungs": [rung.until for rung in pool.rungs], "seeds": list(range(seeds))}
    script = str(HERE / "tune_moasha.py")
    done = subprocess.run([python, script], input=json.dumps(given), capture_output=True, text=True, check=True)
    return [[(int(k), int(level)) for k, level in events] for events in json.loads(done.stdout)]


def replay(pool: Pool, seeds: int, peer: str | None = None, names: Sequence[str] = tuple(STRATEGIES)) -> dict[str, Any]:
    """The strategies of these names, random search among them, on one table."""
    target = SHARE * reference(pool)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        sampler, ladder, factor = STRATEGIES[name]
        rungs = ladder(pool)
        rows[name] = [follow(pool, rungs, events_of(pool, rungs, sampler, s, factor), target) for s in range(seeds)]
        print(f"{pool.name}: {name}", flush=True)
    if peer is not None:
        rows[PEER] = [follow(pool, pool.rungs, iter(e), target) for e in peer_events(pool, peer, seeds)]
    best = dominated_volume(pool.verified, [0.0, 0.0])
    return {
        "about": pool.about,
        "configurations": len(pool.points),
        "costs": pool.costs(),
        "reference_volume": reference(pool),
        "best_volume": best,
        "strategies": {name: summary(found, rows["random"]) for name, found in rows.items()},
        "tpe_over_gp": compared(rows["TPE"], rows["GP"]) if {"TPE", "GP"} <= rows.keys() else None,
        "ranks": ranks(pool),
        "rows": rows,
    }


def merged(kept: dict[str, Any], found: dict[str, Any], names: Sequence[str], began: dict[str, Any]) -> dict[str, Any]:
    """Earlier results of a ground, with those of strategies that were replayed later, in the order of the table."""
    if kept["rows"]["random"] != found["rows"]["random"]:
        raise SystemExit("tune_replay: random search gives other results than those that are kept; replay all")
    both = {key: {**kept[key], **{name: found[key][name] for name in names}} for key in ("strategies", "rows")}
    order = [name for name in (*STRATEGIES, PEER) if name in both["rows"]]
    ordered = {key: {name: rows[name] for name in order} for key, rows in both.items()}
    later = [*kept.get("later", []), {"strategies": list(names), "environment": began}]
    return {**kept, **ordered, "later": later}


def summary(found: list[dict[str, Any]], of_random: list[dict[str, Any]]) -> dict[str, Any]:
    """Ratios to random search, medians, and volumes at equal cost."""
    volumes = {str(budget): interval([row["volumes"][str(budget)] for row in found]) for budget in BUDGETS}
    return {
        "ratio": compared(found, of_random),
        "ratio_epochs": compared(found, of_random, "epochs"),
        "seconds": interval([row["seconds"] for row in found]),
        "epochs": interval([row["epochs"] for row in found]),
        "never": sum(not row["reached"] for row in found),
        "volumes": volumes,
    }


def compared(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], key: str = "seconds") -> dict[str, float]:
    """Median ratio of times, paired by seed."""
    return interval([a[key] / b[key] for a, b in zip(ours, theirs, strict=True)])


def ranks(pool: Pool) -> dict[str, dict[str, float | None]]:
    """Spearman's rank correlation of each rung, and of forks, with full training and with the verified values."""
    found = {}
    for rung in [*pool.rungs, *pool.forks]:
        for place, objective in enumerate(("accuracy", "learned_invariance")):
            here = [s.values[place] for s in rung.standings]
            full = [s.values[place] for s in pool.whole.standings]
            true = [pair[place] for pair in pool.verified]
            row = found.setdefault(rung.name, {})
            row[f"{objective}, top"] = rank_correlation(here, full)
            row[f"{objective}, verified"] = rank_correlation(here, true)
    for fork in pool.forks:  # against as many epochs from initial weights
        same = next(rung for rung in pool.rungs if rung.until == fork.until)
        for place, objective in enumerate(("accuracy", "learned_invariance")):
            pair = [[s.values[place] for s in rung.standings] for rung in (fork, same)]
            found[fork.name][f"{objective}, scratch of as many epochs"] = rank_correlation(*pair)
    return found


def table(result: dict[str, Any]) -> str:
    """As Markdown: strategies, then what each rung is worth."""
    lines = [summary_table(result)]
    for name, ground in result["grounds"].items():
        lines.append(
            f"| {name}, measured after | accuracy: rank like the top | learned invariance: rank like the top |"
        )
        lines.append("|---|--:|--:|")
        for rung, row in ground["ranks"].items():
            words = [_number(row[f"{objective}, top"]) for objective in ("accuracy", "learned_invariance")]
            lines.append("| " + " | ".join([rung, *words]) + " |")
        lines.append("")
    return "\n".join(lines)


def summary_table(result: dict[str, Any]) -> str:
    """Strategies in rows; for each ground, the time over that of random search, and a volume at equal cost."""
    head = [HEAD]
    for name in result["grounds"]:
        head += [f"{name}: time / random", f"volume for {SHOWN} trainings, %"]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|--:" * (len(head) - 1) + "|"]
    for strategy in next(iter(result["grounds"].values()))["strategies"]:
        words = [strategy]
        for ground in result["grounds"].values():
            row = ground["strategies"][strategy]
            words += [_text(row["ratio"], row["never"]), f"{100 * row['volumes'][str(SHOWN)]['value']:.1f}"]
        lines.append("| " + " | ".join(words) + " |")
    return "\n".join(lines) + "\n"


def _text(found: dict[str, float], never: int = 0) -> str:
    return "≥ " * (never > 0) + f"{found['value']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _number(value: float | None) -> str:
    return "undefined" if value is None or math.isnan(value) else f"{value:.2f}"


def main() -> None:
    """Replay, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    text = "results/tune-table-*.jsonl by default; with some alone, the others keep their results"
    parser.add_argument("tables", type=Path, nargs="*", help=text)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--peer", help="Python interpreter that has syne-tune")
    parser.add_argument(
        "--only", nargs="+", choices=STRATEGIES, help="strategies to replay; the others keep their results"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results" / "tune-replay.json")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    tables = options.tables or sorted((HERE / "results").glob("tune-table-*.jsonl"))
    keeps = (options.tables or options.only) and options.output.is_file()
    kept = json.loads(options.output.read_text()) if keeps else {"grounds": {}, "seeds": options.seeds}
    if kept["seeds"] != options.seeds:
        parser.error(f"expected --seeds {kept['seeds']}, as those of the results that are kept, got {options.seeds}")
    grounds = kept["grounds"]
    for path in tables:
        pool = read_pool(path)
        began = environment("cpu", ["augkit", "optuna", "numpy", "torch"])
        began["command"] = f"python benchmarks/tune_replay.py --seeds {options.seeds}" + " --peer PYTHON" * bool(
            options.peer
        )
        if options.only:
            began["command"] += " --only " + " ".join(f"'{name}'" for name in options.only)
            found = replay(pool, options.seeds, names=("random", *options.only))
            grounds[pool.name] = merged(grounds[pool.name], found, options.only, began)
        else:
            grounds[pool.name] = {**replay(pool, options.seeds, options.peer), "environment": began}
    result = {"aim": AIM, "seeds": options.seeds, "top": TOP, "share": SHARE, "grounds": grounds}
    result["load_after"] = loads()
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    options.output.with_suffix(".md").write_text(table(result))
    print(table(result))


if __name__ == "__main__":
    main()
