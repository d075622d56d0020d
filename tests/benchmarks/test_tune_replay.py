"""Laws of the replay of searches, on made-up tables whose answers are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from augkit.tune.promotion import Standing

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))
try:
    import tune_open
    import tune_pool
    import tune_replay
    import tune_table
finally:
    sys.path.remove(str(FOLDER))

COUNT, RUNGS = 24, tune_pool.RUNGS


def line(key: int | str, part: str, epochs: int, quality: float, **more: Any) -> dict[str, Any]:
    """A line of a table; the volume of a network grows with its quality, from 0 to 1."""
    row = {"configuration": key, "part": part, "epochs": epochs, "cheap": epochs < RUNGS[-1]}
    row |= {"accuracy": 0.8 + 0.1 * quality, "kappa": 0.5, "shift_information": 0.5 - 0.4 * quality}
    trained = {"scratch": {1: 1.0, 2: 1.0, 4: 2.0, 8: 4.0}, "fork": {1: 1.0, 2: 1.0}, "verified": {8: 8.0}}
    return row | {"train_s": trained[part][epochs], "measure_s": 0.1} | more


def write_table(path: Path, low: list[float], top: list[float], true: list[float]) -> Path:
    """A table by the qualities that low rungs show, that the top shows, and that are verified."""
    ranges = {"policy.shift.p": {"low": 0.0, "high": 2.0}, "policy.crop.p": {"low": -1.0, "high": 1.0}}
    about = {"ground": "made up", "space": {"ranges": ranges}, "environment": {}}
    about |= dict.fromkeys(("train_images", "search_images", "verified_images"), 400)
    rows = [{"configuration": "control", "part": "about", **about}]
    rows += [line("control", "scratch", e, 0.0) for e in (*RUNGS, RUNGS[-1])]
    rows[-2]["cheap"] = True
    rows += [line("control", "verified", 8, 0.0) for _ in range(2)]
    for k in range(len(true)):
        values = {"policy.shift.p": 2 * true[k], "policy.crop.p": 2 * ((7 * k) % COUNT) / COUNT - 1}
        rows += [line(k, "scratch", e, top[k] if e == 8 else low[k], values=values) for e in RUNGS]
        rows += [line(k, "fork", e, low[k]) | {"cheap": True} for e in tune_pool.FORK]
        rows += [line(k, "verified", 8, true[k]) for _ in range(2)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


QUALITY = [((5 * k) % COUNT) / COUNT for k in range(COUNT)]


@pytest.fixture
def truthful(tmp_path: Path) -> Any:
    """Every rung shows the quality."""
    return tune_pool.read_pool(write_table(tmp_path / "t.jsonl", QUALITY, QUALITY, QUALITY))


@pytest.fixture
def lying(tmp_path: Path) -> Any:
    """Low rungs show the opposite."""
    return tune_pool.read_pool(write_table(tmp_path / "l.jsonl", [1 - q for q in QUALITY], QUALITY, QUALITY))


def test_the_ratio_of_random_search_to_itself_is_one(truthful: Any) -> None:
    found = tune_replay.replay(truthful, 3, names=("random", "halving"))["strategies"]
    assert found["random"]["ratio"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert found["random"]["never"] == 0
    assert found["halving"]["ratio"]["value"] < 0.5


def test_halving_takes_half_of_the_time_of_random_search_where_rungs_tell_the_truth(truthful: Any) -> None:
    """At most: it promotes as soon as it can, and more than halving that knows the whole rung."""
    rungs, target = truthful.rungs, tune_replay.SHARE * tune_replay.reference(truthful)
    for seed in range(8):
        found, of_random = (
            tune_replay.follow(truthful, way, tune_replay.events_of(truthful, way, "random", seed), target)
            for way in (rungs, [truthful.whole])
        )
        assert found["reached"]
        assert found["seconds"] < 0.5 * of_random["seconds"]


def test_halving_loses_where_rungs_lie(truthful: Any, lying: Any) -> None:
    times = {}
    for name, pool in (("truth", truthful), ("lie", lying)):
        target = tune_replay.SHARE * tune_replay.reference(pool)
        events = [tune_replay.events_of(pool, pool.rungs, "random", seed) for seed in range(3)]
        times[name] = sum(tune_replay.follow(pool, pool.rungs, e, target)["seconds"] for e in events)
    assert times["lie"] > 1.5 * times["truth"]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_each_configuration_is_trained_once_and_from_the_lowest_rung_up(truthful: Any, sampler: str) -> None:
    events = list(tune_replay.events_of(truthful, truthful.rungs, sampler, 1))
    assert len(events) == len(set(events)) == COUNT * len(RUNGS)
    reached: dict[int, int] = {}
    for number, level in events:
        assert level == reached.get(number, -1) + 1
        reached[number] = level


def test_samplers_that_learn_find_what_random_search_finds_later(truthful: Any) -> None:
    target = tune_replay.SHARE * tune_replay.reference(truthful)
    whole = [truthful.whole]
    times = {
        sampler: [
            tune_replay.follow(truthful, whole, tune_replay.events_of(truthful, whole, sampler, seed), target)["epochs"]
            for seed in range(6)
        ]
        for sampler in ("random", "tpe")
    }
    assert sum(times["tpe"]) < sum(times["random"])


def test_what_is_returned_comes_from_the_highest_rung() -> None:
    low = [Standing(k, (0.1 * k, 0.1 * k)) for k in range(5)]
    high = [Standing(1, (0.0, 0.0))]
    assert tune_replay.returned([low, high], 3) == [1, 4, 3]
    assert tune_replay.returned([low, []], 2) == [4, 3]


def test_ranks_and_costs(truthful: Any, lying: Any) -> None:
    assert set(tune_replay.ranks(truthful)["1 epoch"].values()) == {1.0}
    assert set(tune_replay.ranks(lying)["2 epochs"].values()) == {-1.0}
    assert tune_replay.ranks(lying)["8 epochs"]["accuracy, verified"] == 1.0
    assert truthful.rungs[1].epochs == 1
    assert truthful.rungs[3].epochs == 4
    assert truthful.whole.seconds == pytest.approx(8.1)


def test_the_target_is_what_a_search_of_everything_returns_not_luck(tmp_path: Path) -> None:
    true = [*QUALITY[:-1], 1.2]  # verified by luck, and not seen by the search
    pool = tune_pool.read_pool(write_table(tmp_path / "t.jsonl", QUALITY, [*QUALITY[:-1], 0.0], true))
    best = max(a * b for a, b in pool.verified)
    assert tune_replay.reference(pool) < best


def test_unfinished_configurations_are_left_out(tmp_path: Path) -> None:
    path = write_table(tmp_path / "t.jsonl", QUALITY, QUALITY, QUALITY)
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:20])
    table = tune_table.Table.open(path)
    assert not table.has(COUNT - 1, "verified", 2)
    assert len(tune_pool.read_pool(path).points) == COUNT - 1


def test_a_longer_pool_begins_as_a_shorter_one() -> None:
    for ground in tune_table.GROUNDS.values():
        space = tune_table.make_space(ground)
        assert len(space.ranges) == 8
        assert tune_table.pool(space, 9)[:5] == tune_table.pool(space, 5)
        for values in tune_table.pool(space, 9):
            space.with_values(values)


def test_the_table_that_the_site_shows_is_that_of_the_results() -> None:
    results = FOLDER / "results" / "tune-replay.json"
    found = json.loads(results.read_text())
    assert results.with_suffix(".md").read_text() == tune_replay.table(found)
    assert all(ground["strategies"]["random"]["ratio"]["value"] == 1 for ground in found["grounds"].values())


def test_several_trials_at_once_are_all_run_in_at_least_half_of_the_time(
    truthful: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One at a time takes the sum of what is trained; two processes cannot take less than half of that."""
    monkeypatch.setattr(tune_open, "SAMPLER", "random")
    for seed in range(3):
        for way in (tune_open.one, *tune_open.WAYS.values()):
            search = tune_open.Search(truthful, seed)
            seconds, whole = way(search), sum(map(search.seconds, search.asked)) + sum(search.control)
            assert len(search.told[0]) == tune_open.TRIALS
            assert sum(map(len, search.told)) == len(search.asked) == len(set(search.asked))
            assert search.told[2]
            if way is tune_open.one:
                assert seconds == pytest.approx(whole)
            else:
                assert whole / 2 <= seconds < whole
