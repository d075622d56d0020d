"""The choice among the finalists by the lower ends of their intervals, and the final runs."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from augkit.invariance import Estimate
from augkit.invariance.learned import AGREEING, InvarianceComparison
from augkit.train.recipe import Recipe
from augkit.tune.final_jobs import FinalJob
from augkit.tune.finals import CURVE_POINTS, STRENGTHS, Choice, Finalist, TuneContext, dose_jobs, dose_response, retrain
from augkit.tune.goal import Goal
from augkit.tune.selection import FinalistRow, decide
from augkit.tune.space import Range, Space
from augkit.tune.team import VALIDATION

NAN = float("nan")


def row(
    number: int | None,
    accuracy: tuple[float, float],
    learned: tuple[float, float] | None,
    comparison: InvarianceComparison | None = None,
) -> FinalistRow:
    def between(ends: tuple[float, float] | None) -> Estimate:
        return Estimate(NAN, NAN, NAN) if ends is None else Estimate(sum(ends) / 2, *ends)

    return FinalistRow(f"{number}", number, between(accuracy), between(learned), comparison=comparison)


CONTROL = row(None, (0.94, 0.96), None)
LUCKY = row(1, (0.93, 0.97), (0.2, 0.9))  # the highest value, but the lowest lower end
STEADY = row(2, (0.94, 0.95), (0.4, 0.5))
INACCURATE = row(3, (0.80, 0.90), (0.8, 0.9))
UNDEFINED = row(4, (0.95, 0.97), None)


@pytest.mark.parametrize(
    ("goal", "winner"),
    [
        (Goal(), STEADY),
        (Goal(mode="accuracy", at_least=0.3), STEADY),
        (Goal(mode="accuracy", at_least=0.6), INACCURATE),
        (Goal(mode="accuracy", at_least=0.1), STEADY),
        (Goal(mode="accuracy", at_least=0.85), INACCURATE),  # no trial is clearly above the bound: the nearest
        (Goal(mode="invariance", at_least=0.925), STEADY),
        (Goal(mode="invariance", at_least=0.7), INACCURATE),
        (Goal(mode="invariance", at_least=0.99), UNDEFINED),
    ],
)
def test_the_finalist_with_the_highest_lower_end_is_chosen(goal: Goal, winner: FinalistRow) -> None:
    rows = [CONTROL, LUCKY, STEADY, INACCURATE, UNDEFINED]
    chosen, rule = decide(rows, goal)
    assert rows[chosen] is winner
    assert ("this one comes nearest" in rule) == (goal.at_least in (0.85, 0.99))


def test_the_most_invariant_trial_is_chosen_where_none_is_as_accurate_as_the_control() -> None:
    assert decide([CONTROL, row(1, (0.5, 0.6), (0.1, 0.2)), row(2, (0.4, 0.5), (0.3, 0.4))], Goal())[0] == 2


def test_accuracy_is_clearly_lower_only_where_the_interval_ends_below_the_best_lower_end() -> None:
    """An interval that ends where the best one begins counts as equally accurate; one that ends below it does not."""
    best = row(1, (0.90, 0.96), (0.1, 0.2))
    touches, below = row(2, (0.80, 0.90), (0.5, 0.6)), row(3, (0.80, 0.89), (0.8, 0.9))
    assert decide([best, touches, below], Goal())[0] == 1
    assert decide([best, below], Goal())[0] == 0


def test_a_lower_end_exactly_at_the_bound_satisfies_it() -> None:
    at, under = row(1, (0.5, 0.6), (0.3, 0.4)), row(2, (0.9, 0.95), (0.29, 0.6))
    chosen, rule = decide([at, under], Goal(mode="accuracy", at_least=0.3))
    assert chosen == 0
    assert "this one comes nearest" not in rule


def test_a_trial_with_disputed_invariance_is_chosen_only_where_all_are_disputed() -> None:
    by = dict.fromkeys(AGREEING, Estimate(0.9, 0.8, 0.95))
    disputed = row(1, (0.9, 0.95), (0.8, 0.95), InvarianceComparison("disputed", by, ("top1_change",)))
    agreed = row(2, (0.9, 0.95), (0.1, 0.2), InvarianceComparison("more", by))
    assert decide([disputed, agreed], Goal())[0] == 1
    assert decide([disputed], Goal())[0] == 0


@pytest.fixture
def tuning(tiny: Recipe, tmp_path: Path) -> TuneContext:
    made = TuneContext.__new__(TuneContext)
    made.space, made.seeds, made.top = Space(tiny, {}), 3, 2
    made.dataset = SimpleNamespace(listed_train=range(50), validation=range(20))  # type: ignore[assignment]
    return made


def test_final_runs_use_seeds_that_the_search_did_not_use(tuning: TuneContext) -> None:
    assert len(set(tuning.final_seeds)) == tuning.seeds
    assert tuning.recipe.seed not in tuning.final_seeds
    assert tuning.final_seeds == list(range(tuning.recipe.seed + 1, tuning.recipe.seed + 4))


def test_the_response_curve_ends_at_the_longest_shift_in_equal_steps(tuning: TuneContext) -> None:
    lengths = np.array([0.0, *tuning.lengths])
    assert len(lengths) == CURVE_POINTS + 1
    assert lengths[-1] == tuning.recipe.invariance.max_shift
    assert np.diff(lengths) == pytest.approx(lengths[-1] / CURVE_POINTS)


def test_the_progress_bar_counts_training_and_measuring_of_every_network(
    tuning: TuneContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compare with a sum over networks, at a cost of 1 per image and 100 per length."""
    monkeypatch.setattr(
        "augkit.tune.finals.measuring_cost", lambda recipe, images, train, lengths=0: images + 100 * lengths
    )
    for searches in (False, True):
        if searches:
            lr = Range(low=0.01, high=1.0, log=True, default=0.1)
            tuning.space = Space(tuning.recipe, {"optim.lr": lr})
        controls = 2 + tuning.top if searches else 1
        networks = 3 * (tuning.top + controls) + len(STRENGTHS)
        training = networks * (tuning.recipe.train.epochs + 20)
        testing = networks * (40 + 3 * 20)  # the test split is twice as large; atypical sets have half as many images
        assert tuning.work() == training + testing + networks * 100 * CURVE_POINTS


@pytest.mark.parametrize("own_strength", [1.0, 0.5])
def test_dose_strengths_are_shares_of_the_chosen_strength(
    tuning: TuneContext, own_strength: float, tmp_path: Path
) -> None:
    """The points go from no augmentation to the chosen policy; each network is trained at its share of the strength."""
    tuning.folder = tmp_path
    policy = tuning.recipe.policy.model_copy(update={"strength": own_strength})
    winner = Finalist("w", tuning.recipe.replaced(policy=policy), [], ["strong"])  # type: ignore[list-item]
    plain = Finalist("p", tuning.recipe.control(), [], ["none"])  # type: ignore[list-item]
    chosen = Choice(winner, plain, plain, plain, "", [])
    jobs = dose_jobs(tuning, chosen)
    assert list(jobs) == list(STRENGTHS)
    assert [job.recipe.policy.strength / own_strength for job in jobs.values()] == pytest.approx(list(STRENGTHS))
    assert {job.seed for job in jobs.values()} == {tuning.final_seeds[0]}
    assert jobs[0.5].folder == tmp_path / "dose" / "w-strength0.5-seed1"
    doses = dose_response(chosen, dict.fromkeys(jobs, "between"))  # type: ignore[arg-type]
    assert [dose.strength for dose in doses] == [0.0, *STRENGTHS, 1.0]
    assert [dose.report for dose in doses] == ["none", *["between"] * len(STRENGTHS), "strong"]
    nothing = Choice(plain, plain, plain, plain, "", [])
    assert (dose_jobs(tuning, nothing), dose_response(nothing, {})) == ({}, [])


def test_equal_recipes_are_trained_once(tuning: TuneContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal controls are one finalist, and every trial refers to its own control."""
    lr = Range(low=0.01, high=1.0, log=True, default=0.1)
    shift = Range(low=0.0, high=4.0, default=1.0)
    tuning.space = Space(tuning.recipe, {"optim.lr": lr, "policy.shift.max_pixels": shift})
    values = [
        {"optim.lr": rate, "policy.shift.max_pixels": pixels} for rate, pixels in ((0.2, 1.0), (0.2, 2.0), (0.3, 1.0))
    ]
    trials = [SimpleNamespace(number=k, user_attrs={"values": v}) for k, v in enumerate(values)]
    tuning.study = SimpleNamespace(user_attrs=defaultdict(lambda: {"accuracy": 0.9}))  # type: ignore[assignment]
    tuning.terms = SimpleNamespace(goal=Goal(), control_values=lambda architecture: {"optim.lr": 0.2})  # type: ignore[assignment]
    tuning.display, tuning.phases = SimpleNamespace(line=lambda text: None), {}  # type: ignore[assignment]
    monkeypatch.setattr("augkit.tune.finals.optuna_study.completed", lambda study: trials)
    monkeypatch.setattr("augkit.tune.finals.selection.candidates", lambda done, *rest: done)
    tuning.folder, performed = tmp_path, list[FinalJob]()
    tuning.perform = lambda jobs, team, stage: performed.extend(jobs) or [{VALIDATION: j.folder.name} for j in jobs]  # type: ignore[method-assign,assignment,func-returns-value]
    found = retrain(tuning, None)  # type: ignore[arg-type]
    for one in found.values():
        assert one.reports == [f"{one.name}-seed{seed}" for seed in tuning.final_seeds]
        assert [job.recipe for job in one.runs] == [one.recipe] * tuning.seeds
    assert performed == [job for one in found.values() for job in one.runs]
    controls = [f.recipe for f in found.values() if f.trial is None]
    assert len({recipe.to_yaml() for recipe in controls}) == len(controls) == 3  # the recipe's own lr, 0.2 and 0.3
    for number, wanted in enumerate(values):
        trial = found[f"trial{number}"]
        assert trial.recipe == tuning.space.with_values(wanted)
        assert found[trial.own].recipe == tuning.space.control(wanted)
        assert found[trial.reference].recipe.optim.lr == 0.2
    assert next(iter(found.values())).recipe == tuning.space.control({})
