"""The search: what is asked for is what is run, once, and it goes on after an interrupt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from augkit import search
from augkit.errors import InputError, RunError
from augkit.policy import Policy

POLICY = Policy.model_validate({"shift": {"max_pixels": 2.0}, "rescale": {"max_factor": 1.1}})


def toy(policy: Policy, number: int) -> dict[str, Any]:
    """Shift makes invariant at no cost; rescaling costs accuracy and gives nothing."""
    assert policy.shift is not None
    assert policy.rescale is not None
    reach = policy.shift.max_pixels * policy.shift.p / 6
    return {"accuracy": 0.95 - 0.3 * (policy.rescale.max_factor - 1), "learned_invariance": 0.8 * reach}


def started(tmp_path: Path, *, seed: int = 0, resume: bool = False) -> Any:
    study = search.open_study(tmp_path / "study.journal", "s", POLICY, "digest", resume=resume, seed=seed)
    if not study.trials:
        search.begin(study, POLICY, 0.94)
    return study


def test_exactly_as_many_trials_as_asked_for_and_presets_first(tmp_path: Path) -> None:
    study, seen = started(tmp_path), []
    search.search(study, POLICY, 7, toy, lambda trial: seen.append(trial.number))
    assert len(search.completed(study)) == len(seen) == 7
    assert study.trials[0].user_attrs["control"]
    assert study.trials[0].values == [0.94, 0.0]
    first, second = search.completed(study)[:2]
    assert search.policy_of(first, POLICY) == POLICY
    assert second.params["shift.max_pixels"] == pytest.approx(3.6)


def test_a_synthetic_truth_is_found(tmp_path: Path) -> None:
    study = started(tmp_path)
    search.search(study, POLICY, 40, toy, lambda trial: None)
    chosen = search.choose(search.completed(study), 0.94, 1_000)
    assert chosen.params["shift.max_pixels"] * chosen.params["shift.p"] > 3
    assert chosen.params["rescale.max_factor"] < 1.1
    importance = search.importance(study)
    assert max(importance["accuracy"], key=importance["accuracy"].__getitem__) == "rescale.max_factor"
    assert max(importance["learned_invariance"], key=importance["learned_invariance"].__getitem__).startswith("shift")


def test_an_interrupted_trial_is_run_by_the_next_session(tmp_path: Path) -> None:
    def interrupted(policy: Policy, number: int) -> dict[str, Any]:
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append(policy)
        return toy(policy, number)

    asked: list[Policy] = []
    with pytest.raises(KeyboardInterrupt):
        search.search(started(tmp_path), POLICY, 6, interrupted, lambda trial: None)
    study = started(tmp_path, resume=True)
    assert len(search.completed(study)) == 3
    lost = next(trial for trial in study.trials if trial.state.name == "FAIL")
    search.search(study, POLICY, 6, toy, lambda trial: None)
    assert len(search.completed(study)) == 6
    assert lost.params in [trial.params for trial in search.completed(study)]


def test_a_killed_sessions_trial_is_recovered(tmp_path: Path) -> None:
    study = started(tmp_path)
    running = study.ask(search._distributions(POLICY))
    again = started(tmp_path, resume=True)
    assert search.recover(again) == 1
    search.search(again, POLICY, 2, toy, lambda trial: None)
    assert running.params in [trial.params for trial in search.completed(again)]
    assert search.recover(again) == 0


def test_a_torn_journal_is_repaired(tmp_path: Path) -> None:
    search.search(started(tmp_path), POLICY, 3, toy, lambda trial: None)
    journal = tmp_path / "study.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "worker')
    study = started(tmp_path, resume=True)
    assert len(search.completed(study)) == 3
    assert not search.repair_journal(journal)


def test_failed_trials_do_not_count_and_three_in_a_row_stop(tmp_path: Path) -> None:
    def fails_once(policy: Policy, number: int) -> dict[str, Any]:
        if number == 2:
            raise RunError("the loss is nan")
        return toy(policy, number)

    study = started(tmp_path)
    search.search(study, POLICY, 4, fails_once, lambda trial: None)
    assert len(search.completed(study)) == 4

    def always(policy: Policy, number: int) -> dict[str, Any]:
        raise RunError("the loss is nan")

    with pytest.raises(RunError, match=r"three trials failed in a row.*nan"):
        search.search(study, POLICY, 5, always, lambda trial: None)


def test_front_and_choice_by_hand(tmp_path: Path) -> None:
    study = started(tmp_path)
    points = {0: (0.96, 0.1), 1: (0.95, 0.6), 2: (0.94, 0.5), 3: (0.80, 0.9)}
    search.search(
        study,
        POLICY,
        4,
        lambda policy, number: dict(zip(search.OBJECTIVES, points[number - 1], strict=True)),
        lambda trial: None,
    )
    trials = search.completed(study)
    assert [trial.number - 1 for trial in search.front(trials)] == [0, 1, 3]
    # Two standard errors of 0.96 on 500 images are 0.0175, on 50,000 images 0.00175.
    assert search.choose(trials, 0.9, 500).number - 1 == 1
    assert search.choose(trials, 0.9, 50_000).number - 1 == 0
    # A control far above all trials leaves the most accurate one.
    assert search.choose(trials, 0.999, 50_000).number - 1 == 0


def test_storages_and_studies_that_cannot_be_used(tmp_path: Path) -> None:
    started(tmp_path)
    with pytest.raises(InputError, match=r"exists in .*add --resume"):
        search.open_study(tmp_path / "study.journal", "s", POLICY, "digest", resume=False, seed=0)
    with pytest.raises(InputError, match="another recipe, space or budget"):
        search.open_study(tmp_path / "study.journal", "s", POLICY, "other", resume=True, seed=0)
    with pytest.raises(InputError, match="there is no"):
        search.open_study(tmp_path / "no" / "study.journal", "s", POLICY, "d", resume=False, seed=0)
    with pytest.raises(InputError, match="cannot be reached") as caught:
        search.open_study("postgresql+psycopg://me:secret@127.0.0.1:1/none", "s", POLICY, "d", resume=False, seed=0)
    assert "secret" not in str(caught.value)
    (tmp_path / "text.journal").write_text("this is no journal\n")
    with pytest.raises(InputError, match="cannot be read as a journal"):
        search.open_study(tmp_path / "text.journal", "s", POLICY, "d", resume=False, seed=0)
