"""The response curve (lengths, images), the strengths of the dose-response, and the conclusion."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from augkit.compare.study.claims import TYPICAL
from augkit.invariance import Estimate, InvarianceComparison
from augkit.train.recipe import Recipe
from augkit.tune import conclusion
from augkit.tune.final_jobs import FinalJob
from augkit.tune.finals import CURVE_POINTS, STRENGTHS, TuneContext
from augkit.tune.team import VALIDATION


class Recorded:
    """A stand-in for `TuneContext` that records jobs and trains nothing."""

    def __init__(self) -> None:
        self.jobs: list[FinalJob] = []
        self.final_seeds, self.folder, self.phases = [5, 6], Path("study"), {}
        self.lengths = [1.0, 2.0]
        self.data = SimpleNamespace(tests={TYPICAL: "typical images", "blurred": "blurred images"})

    def perform(self, jobs: Any, team: Any, stage: str) -> list[dict[str, Any]]:
        self.jobs += jobs
        return [{name: f"{job.name} {job.seed} {name}" for name in job.sets} for job in jobs]


def chosen(strength: float, augmented: bool = True) -> Any:
    fields = {"name": "x", "data": {"name": "digits"}, "policy": {"shift": {}, "strength": strength}}
    one = SimpleNamespace(name="trial3", reports=["strong", "other"], runs=["run a", "run b"])
    plain = SimpleNamespace(name="control", reports=["none", "other"], runs=["run c", "run d"])
    own = SimpleNamespace(name="trial3-control", reports=["none", "other"], runs=["run e", "run f"])
    rest = {"finalist": one, "own": own, "plain": plain, "reference": plain, "augmented": augmented}
    return SimpleNamespace(recipe=Recipe.model_validate(fields), **rest)


def test_the_curve_has_eight_lengths_up_to_the_largest_shift() -> None:
    tuning: Any = SimpleNamespace(recipe=SimpleNamespace(invariance=SimpleNamespace(max_shift=4.0)))
    lengths = TuneContext.lengths.fget(tuning)  # type: ignore[attr-defined]
    assert CURVE_POINTS == 8
    assert lengths == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


@pytest.mark.parametrize("augmented", [True, False])
def test_what_is_measured_on_the_test_split(augmented: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All networks on all sets with the same settings; and what is trained for the dose-response."""
    tuning: Any = Recorded()
    carried: list[str] = []

    def drawn(group: Any) -> dict[float, Any]:
        return {float(k): dict(report) for k, report in enumerate(group.reports)}

    monkeypatch.setattr(conclusion, "response_curve", drawn)
    monkeypatch.setattr(conclusion, "carried_over", lambda networks: carried.extend(name for name, _ in networks) or {})
    best = chosen(0.5, augmented)
    loser = SimpleNamespace(name="trial4", reports=[], runs=[])
    for part in (best.finalist, best.plain, best.own, loser):
        part.runs = [FinalJob(part.name, best.recipe, seed, Path(part.name)) for seed in (5, 6)]
    finalists: Any = {"control": best.plain, "trial3-control": best.own, "trial3": best.finalist, "trial4": loser}
    tested = conclusion._measure(tuning, cast(Any, None), finalists, best)
    doses = [job for job in tuning.jobs if "strength" in job.name]
    assert [job.sets for job in doses] == [(VALIDATION, TYPICAL, "blurred")] * (len(STRENGTHS) if augmented else 0)
    assert [job.recipe.policy.strength for job in doses] == [0.5 * s for s in STRENGTHS if augmented]
    others = tuning.jobs[len(doses) :]
    wanted = [(name, seed, (TYPICAL, "blurred")) for name in finalists for seed in (5, 6)]
    assert [(job.name, job.seed, job.sets) for job in others] == wanted
    assert {job.lengths for job in tuning.jobs} == {(1.0, 2.0)}
    beside = "trial3-control" if augmented else "control"
    for name, of in ((conclusion.PLAIN, beside), ("best", "trial3")):
        shown = [point.top1_change[TYPICAL] for point in tested.curves[name]]
        assert shown == [f"{of} {seed} {TYPICAL}" for seed in (5, 6)]
    assert carried == [f"{job.name}, seed {job.seed}" for job in [*others, *doses]]
    assert [point.strength for point in tested.dose] == ([0.0, *STRENGTHS, 1.0] if augmented else [])
    assert [point.report for point in tested.dose[1:-1]] == [f"{job.name} 5 {VALIDATION}" for job in doses]


def test_the_conclusion_states_the_top1_change_of_the_chosen_recipe_on_typical_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def recipe(**fields: Any) -> Recipe:
        return Recipe.model_validate({"name": "x", "data": {"name": "digits"}, **fields})

    def rate(value: float) -> Estimate:
        return Estimate(value, value, value)

    plain, best = recipe(), recipe(policy={"shift": {"max_pixels": 2.0}}, optim={"lr": 0.5})
    rows = [(arm, images) for arm in ("control", "best") for images in (TYPICAL, "upside down")]
    table = [{"arm": arm, "images": images, "top1_change": rate(0.1 * (k + 1))} for k, (arm, images) in enumerate(rows)]
    more = InvarianceComparison("more", {"shift_information": rate(0.5)})
    tuning: Any = SimpleNamespace(recipe=plain, final_seeds=[1, 2], terms=SimpleNamespace(seed=0))
    one = SimpleNamespace(recipe=plain)
    winner: Any = SimpleNamespace(recipe=best, augmented=True, plain=one, own=one, reference=one)
    monkeypatch.setattr(conclusion, "conclusion", lambda *args: "What augmentation did.")
    tested: Any = SimpleNamespace(carried={})
    text = conclusion._conclusion(tuning, winner, tested, table, {"both": more})
    assert text.startswith("Chosen: shift (max_pixels 2, p 1), with optim.lr 0.5 instead of ")
    assert "still changes for 30.0 % [30.0, 30.0] of pairs" in text
    assert text.endswith("both with seeds 1, 2.")
