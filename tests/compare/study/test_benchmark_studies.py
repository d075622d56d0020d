"""Study files of the benchmarks that repeat a shipped study in part: what they share with it is the same."""

from __future__ import annotations

from pathlib import Path

from augkit.compare.study.schema import Study

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


def test_the_factorial_study_on_clothes_is_the_shipped_one_without_rotation() -> None:
    here, shipped = Study.load(str(BENCHMARKS / "clothes-factorial.yaml")), Study.load("invariance", "standard")
    assert set(shipped.arms) - set(here.arms) == {"maxpool+rotate", "harmonic+none"}
    assert all(here.arms[name] == shipped.arms[name] for name in here.arms)
    assert list(here.claims) == [claim for claim in shipped.claims if claim.id != 12]
    assert here.measures == {name: value for name, value in shipped.measures.items() if name != "rotation"}
    assert (here.seeds, here.settings.floors) == (shipped.seeds, shipped.settings.floors)
