"""What it costs and brings to train several trials of one search at once, replayed on a table of trained networks.

    python benchmarks/tune_open.py    # reads results/tune-table-digits.jsonl, a minute; writes results/tune-open.json

24 configurations are halved on the first three rungs of the table, as by default on mnist5k. Nothing is trained: each
rung of a configuration takes the seconds of one thread that it took in the table, and processes do not slow each other
down. The start of a process, the sampler and the study take no time.

``one``: one trial at a time. ``team``: two processes, four open trials, told in the order in which they were asked for
(`augkit.tune.side_by_side`). ``workers``: two workers that take trials when they are free, of which the second waits
for the control's scores on the lowest rung; ``workers, waiting``: until the control is trained.

``volume``: verified volume of the three trials that a search returns, over that of ``one`` with the same seed.
``speed``: seconds of ``one`` over those of the others.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from machine import environment, loads
from tune_pool import Pool, Rung, interval, read_pool
from tune_replay import FACTOR, Event, Proposer, returned, verified_volume

from augkit.tune.promotion import Standing, promotable
from augkit.tune.rung_sampler import ENOUGH

HERE = Path(__file__).parent
TRIALS, SAMPLER, OPEN = 24, "tpe", 4


@dataclass
class Search:
    """The decisions of one search: what is asked for next, given what has been told.

    Attributes:
        pool: the table.
        seed: seed of the sampler.
        told: by rung, the standings that are known.
        asked: all events that were asked for.
    """

    pool: Pool
    seed: int
    told: list[list[Standing]] = field(default_factory=lambda: [[], [], []])
    asked: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rungs: list[Rung] = self.pool.rungs[:3]
        self.proposer = Proposer(self.pool, SAMPLER, self.seed)

    def ask(self) -> Event | None:
        """What is trained next; None if nothing is before more is told."""
        closed, found = len(self.told[0]) >= TRIALS, None
        for level in range(len(self.rungs) - 1):
            above = {number for number, on in self.asked if on == level + 1}
            here = self.told[level]
            chosen = promotable(here, above, FACTOR, closed=closed and bool(here))
            found = (chosen[0], level + 1) if chosen else found
            closed = closed and not chosen and len(self.told[level + 1]) == len(above)
        tried = {number for number, on in self.asked if on == 0}
        if found is None and len(tried) < TRIALS:
            learns = [standings for standings in self.told if len(standings) >= ENOUGH]
            found = self.proposer.next(tried, learns[-1] if learns else self.told[0]), 0
        if found is not None:
            self.asked.append(found)
        return found

    def tell(self, event: Event) -> None:
        """Add the result of an event."""
        number, level = event
        self.told[level].append(self.rungs[level].standings[number])

    def seconds(self, event: Event) -> float:
        """Seconds of an event."""
        return self.rungs[event[1]].seconds

    @property
    def control(self) -> list[float]:
        """Seconds of the control by rung."""
        return [rung.seconds for rung in self.rungs]

    @property
    def volume(self) -> float:
        """Verified volume of what the search returns."""
        return verified_volume(self.pool, returned(self.told))


def one(search: Search) -> float:
    """Seconds with one trial at a time."""
    now = sum(search.control)
    while (event := search.ask()) is not None:
        now += search.seconds(event)
        search.tell(event)
    return now


def team(search: Search) -> float:
    """Seconds with two processes and `OPEN` trials in order; this process tells, and trains what it waits for."""
    now, other = 0.0, 0.0  # clocks of this process and of the other
    opened: deque[int] = deque()
    events: list[Event] = []
    waiting: deque[tuple[int, float]] = deque()  # number, asked for at
    ended: dict[int, float] = {}

    def fill(places: int) -> None:
        while len(opened) < places and (event := search.ask()) is not None:
            opened.append(len(events))
            waiting.append((len(events), now))
            events.append(event)

    def beside() -> None:
        """What the other process has begun by now."""
        nonlocal other
        while waiting and max(other, waiting[0][1]) < now:
            number, since = waiting.popleft()
            other = max(other, since) + search.seconds(events[number])
            ended[number] = other

    fill(OPEN - 1)
    now = sum(search.control)
    beside()
    fill(OPEN)
    while opened:
        first = opened[0]
        while ended.get(first, now + 1) > now:
            mine = next((pair for pair in waiting if pair[0] == first), waiting[0] if waiting else None)
            if mine is None:
                now = ended[first]
                continue
            waiting.remove(mine)
            now += search.seconds(events[mine[0]])
            ended[mine[0]] = now
            beside()
        search.tell(events[opened.popleft()])
        beside()
        fill(OPEN)
    return now


def workers(search: Search, *, wait: bool) -> float:
    """Seconds of two workers that take trials when they are free."""
    free = [sum(search.control), sum(search.control) if wait else search.control[0]]
    running: list[tuple[float, Event]] = []
    while True:
        who = min((0, 1), key=free.__getitem__)
        for end, event in sorted(running):
            if end <= free[who]:
                running.remove((end, event))
                search.tell(event)
        found = search.ask()
        if found is not None:
            free[who] += search.seconds(found)
            running.append((free[who], found))
        elif running:
            free[who] = min(end for end, _ in running) + 1e-9
        else:
            return max(free)


def waiting_workers(search: Search) -> float:
    """Seconds of two workers, of which the second waits until the control is trained."""
    return workers(search, wait=True)


def early_workers(search: Search) -> float:
    """Seconds of two workers, of which the second waits for the lowest rung of the control."""
    return workers(search, wait=False)


WAYS = {"team": team, "workers": early_workers, "workers, waiting": waiting_workers}


def replayed(pool: Pool, seeds: Sequence[int]) -> dict[str, Any]:
    """Speed and volume of each way, over one trial at a time."""
    alone = [Search(pool, seed) for seed in seeds]
    seconds = [one(search) for search in alone]
    found = {}
    for name, way in WAYS.items():
        searches = [Search(pool, seed) for seed in seeds]
        took = [way(search) for search in searches]
        pairs = list(zip(searches, alone, strict=True))
        found[name] = {
            "speed": interval([a / b for a, b in zip(seconds, took, strict=True)]),
            "volume": interval([s.volume / a.volume for s, a in pairs]),
            "epochs": interval([epochs(s) / epochs(a) for s, a in pairs]),
        }
        print(name, json.dumps(found[name]))
    return found


def epochs(search: Search) -> int:
    """Epochs that were trained, without those of the control."""
    return sum(search.rungs[level].epochs for _, level in search.asked)


def main() -> None:
    """Replay, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--output", type=Path, default=HERE / "results" / "tune-open.json")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    began = environment("cpu", ["torch", "optuna", "numpy", "augkit"])
    found = replayed(read_pool(HERE / "results" / "tune-table-digits.jsonl"), range(options.seeds))
    result = {"trials": TRIALS, "open": OPEN, "sampler": SAMPLER, "seeds": options.seeds, "ways": found}
    options.output.write_text(json.dumps({**result, "environment": began, "load_after": loads()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
