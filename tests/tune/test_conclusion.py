"""The response curve (lengths, images), the strengths of the dose-response, and the conclusion."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from augkit.compare.study.claims import TYPICAL
from augkit.invariance import Estimate, InvarianceComparison
from augkit.train.recipe import Recipe
from augkit.tune import conclusion
from augkit.tune.finals import CURVE_POINTS, TuneContext, dose_response


class Recorded:
    """A stand-in for `TuneContext` that records calls and trains nothing."""

    def __init__(self) -> None:
        self.trained: list[tuple[float, int, str]] = []
        self.measured: list[tuple[Any, Any, bool]] = []
        self.final_seeds, self.folder, self.phases = [5, 6], Path("study"), {}
        self.dataset = SimpleNamespace(validation="validation")
        self.display = SimpleNamespace(stage=lambda text: None)

    def train(self, recipe: Recipe, seed: int, output: Path) -> Any:
        self.trained.append((recipe.policy.strength, seed, output.name))
        return SimpleNamespace(seed=seed)

    def measure(self, run: Any, images: Any, *, curve: bool = False) -> Any:
        self.measured.append((run, images, curve))
        return f"{images} curve" if curve else images


def chosen(strength: float, augmented: bool = True) -> Any:
    fields = {"name": "x", "data": {"name": "digits"}, "policy": {"shift": {}, "strength": strength}}
    one = SimpleNamespace(name="trial3", reports=["strong", "other"], runs=["run a", "run b"])
    plain = SimpleNamespace(name="control", reports=["none", "other"], runs=["run c", "run d"])
    own = SimpleNamespace(name="trial3-control", reports=["none", "other"], runs=["run e", "run f"])
    rest = {"finalist": one, "own": own, "plain": plain, "reference": plain, "augmented": augmented}
    return SimpleNamespace(recipe=Recipe.model_validate(fields), **rest)


def test_dose_strengths_are_shares_of_the_strength_of_the_policy() -> None:
    tuning: Any = Recorded()
    found = dose_response(tuning, chosen(0.5))
    assert [(p.strength, p.report) for p in found[::4]] == [(0.0, "none"), (1.0, "strong")]
    assert [p.strength for p in found] == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert [(s, seed) for s, seed, _ in tuning.trained] == [(0.125, 5), (0.25, 5), (0.375, 5)]
    assert tuning.trained[0][2] == "trial3-strength0.25-seed5"
    assert tuning.phases["dose-response"] < 60
    assert dose_response(tuning, chosen(0.5, augmented=False)) == []


def test_the_curve_has_eight_lengths_up_to_the_largest_shift() -> None:
    tuning: Any = SimpleNamespace(recipe=SimpleNamespace(invariance=SimpleNamespace(max_shift=4.0)))
    lengths = TuneContext.lengths.fget(tuning)  # type: ignore[attr-defined]
    assert CURVE_POINTS == 8
    assert lengths == [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0]


@pytest.mark.parametrize("augmented", [True, False])
def test_the_response_curve_is_measured_on_typical_images_alone(
    augmented: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning: Any = Recorded()
    sets = {TYPICAL: "typical images", "blurred": "blurred images"}
    monkeypatch.setattr(conclusion, "open_test_sets", lambda dataset: sets)

    def drawn(group: Any) -> dict[float, Any]:
        return {float(k): dict(report) for k, report in enumerate(group.reports)}

    monkeypatch.setattr(conclusion, "response_curve", drawn)
    monkeypatch.setattr(conclusion, "carried_over", lambda networks: {})
    best = chosen(0.5, augmented)
    for part in (best.finalist, best.plain, best.own):
        part.runs = [SimpleNamespace(seed=seed, of=part.name) for seed in (5, 6)]
    finalists: Any = {"control": best.plain, "trial3-control": best.own, "trial3": best.finalist}
    tested = conclusion._measure(tuning, finalists, best, [])
    curves = [(run.of, run.seed, images) for run, images, curve in tuning.measured if curve]
    beside = "trial3-control" if augmented else "control"
    assert curves == [(name, seed, "typical images") for name in (beside, "trial3") for seed in (5, 6)]
    assert {k: [point.top1_change for point in v] for k, v in tested.curves.items()} == dict.fromkeys(
        tested.curves, [{TYPICAL: "typical images curve"}] * 2
    )
    plain = [(run.of, run.seed, images) for run, images, curve in tuning.measured if not curve]
    assert plain == [(n, s, i) for n in finalists for s in (5, 6) for i in sets.values()]


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
