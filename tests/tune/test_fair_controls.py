"""Effects attributed to augmentation: none in a search without augmentation, and none of those of other fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from augkit.core.cli import run
from augkit.core.jobs.storage import open_storage
from augkit.tune import __main__ as tune
from augkit.tune.optuna_study import SearchTerms, control_key, control_study
from augkit.tune.selection import best_controls
from augkit.tune.space import Space

SMOOTHING = "train.label_smoothing={search: [0, 0.7], default: 0}"
DECAY = "optim.weight_decay={search: [0.0001, 0.5], log: true, default: 0.0005}"
BASE = {"name": "x", "data": {"name": "digits"}}


@pytest.fixture
def plain(tiny: Any, tmp_path: Path) -> str:
    path = tmp_path / "plain.yaml"
    path.write_text(tiny.replaced(policy={}).to_yaml())
    return str(path)


def tuned(words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    code = run(tune.main, [*words, "--trial-epochs", "1", "--seeds", "2", "--top", "1", "--output", str(folder)])
    out = capsys.readouterr()
    assert code == 0, out.err
    return json.loads((folder / "results.json").read_text()), " ".join(out.out.split())


@pytest.mark.integration
def test_a_search_without_augmentation_attributes_no_effect_to_it(
    plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, printed = tuned([plain, SMOOTHING, "--trials", "4"], tmp_path / "t", capsys)
    assert results["chosen"]["policy"] == "no augmentation"
    assert set(results["decomposition"]) == {"other_fields"}
    assert results["dose_response"] == []
    said = results["conclusion"]
    assert said.startswith("Chosen: no augmentation")
    as_it_stands = results["chosen"]["others"] == {"train.label_smoothing": 0.0}
    assert ("no trial was better" in said) == as_it_stands
    assert "augmentation removed" not in said
    assert "carry over" not in said
    assert " ".join(said.split())[:60] in " ".join(printed.split())
    page = (tmp_path / "t" / "report.html").read_text()
    assert "the other fields alone" in page
    assert "Dose-response" not in page
    names = optuna.get_all_study_names(open_storage(tmp_path / "t" / "study.journal"))
    assert names == ["augkit"]  # without augmentation no control needs a search


@pytest.mark.slow
def test_effects_of_other_fields_are_not_attributed_to_augmentation(
    plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "t"
    # The policy is fixed, so that the winner augments.
    words = [plain, "policy.shift.max_pixels=2", DECAY, "--trials", "3"]
    results, _ = tuned(words, folder, capsys)
    study = optuna.load_study(storage=open_storage(folder / "study.journal"), study_name=control_study("augkit"))
    assert len(study.trials) >= 3
    assert all(set(trial.user_attrs.get("values", {})) <= {"optim.weight_decay"} for trial in study.trials)
    finalist = next(row for row in results["finalists"] if row["chosen"])
    folders = {path.name.rpartition("-seed")[0] for path in (folder / "final").iterdir()}
    value = results["chosen"]["values"]["optim.weight_decay"]
    if value != pytest.approx(0.0005):
        assert {"augmentation", "other_fields", "both"} <= set(results["decomposition"])
        assert f"optim.weight_decay {value:g} instead of 0.0005" in results["conclusion"]
        own = "control-tuned" if results["chosen"]["control"] == {"control {}": {"optim.weight_decay": value}} else None
        assert (own or f"{finalist['name']}-control") in folders
    assert "augmentation" in results["decomposition"]
    control = results["chosen"]["control"].get("control {}")
    if control:
        assert "against_tuned_control" in results["decomposition"] or control["optim.weight_decay"] == value
        assert "the best network without augmentation that the search found" in results["conclusion"] or (
            control["optim.weight_decay"] == value
        )
    assert "both with seeds 1, 2." in results["conclusion"]


@pytest.mark.slow
def test_the_control_is_not_searched_with_no_tune_control(
    plain: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "t"
    words = [plain, "policy.shift.max_pixels=2", DECAY, "--trials", "2", "--no-tune-control"]
    results, _ = tuned(words, folder, capsys)
    assert optuna.get_all_study_names(open_storage(folder / "study.journal")) == ["augkit"]
    assert results["chosen"]["control"] == {}
    assert run(tune.main, [plain, "--trials", "2", "--tune-control", "--output", str(tmp_path / "u")]) == 2
    assert "--tune-control: expected ranges of train or optim" in capsys.readouterr().err
    assert not (tmp_path / "u").exists()


def space_of(**fields: Any) -> Space:
    return Space.of({**BASE, **fields}, "x")


def test_a_control_differs_from_its_trial_in_the_policy_alone() -> None:
    space = space_of(
        policy={"shift": {"max_pixels": {"search": [0, 6]}}},
        optim={"lr": {"search": [0.01, 1.0], "log": True}},
        model={"downsample": {"choice": ["maxpool", "blurpool"]}},
    )
    values = {"policy.shift.max_pixels": 3.0, "optim.lr": 0.5, "model.downsample": "blurpool"}
    control, treated = space.control(values), space.with_values(values)
    assert control.policy.is_identity
    for section in ("data", "model", "optim", "schedule", "train", "invariance", "seed"):
        assert getattr(control, section) == getattr(treated, section)


@pytest.mark.parametrize(
    ("fields", "twice"),
    [
        ({"policy": {"shift": {"max_pixels": {"search": [0, 6]}}}}, False),
        ({"policy": {"shift": {"max_pixels": {"search": [0, 6]}}}, "optim": {"lr": {"search": [0.01, 1.0]}}}, True),
        ({"policy": {"shift": {"max_pixels": 2.0}}, "train": {"label_smoothing": {"search": [0, 0.5]}}}, True),
        ({"policy": {}, "train": {"label_smoothing": {"search": [0, 0.5]}}}, False),
        ({"model": {"downsample": {"choice": ["maxpool", "blurpool"]}}, "policy": {"shift": {}}}, False),
    ],
)
def test_the_control_is_searched_where_fields_of_its_own_are_searched(fields: dict[str, Any], twice: bool) -> None:
    assert space_of(**fields).searches_training == twice


def test_the_best_control_is_the_most_invariant_of_the_accurate_ones() -> None:
    space = space_of(policy={}, optim={"lr": {"search": [0.01, 1.0], "default": 0.1}})
    terms = SearchTerms(space=space.to_dict(), epochs=1)
    study = optuna.create_study(directions=["maximize"] * 2)
    study.set_user_attr(control_key({}), {"accuracy": 0.9})
    distribution = {"optim.lr": optuna.distributions.FloatDistribution(0.01, 1.0)}
    for lr, accuracy, learned in ((0.2, 0.91, 0.1), (0.3, 0.90, 0.3), (0.9, 0.5, 0.9)):
        attrs = {"values": {"optim.lr": lr}, "accuracy": accuracy, "learned_invariance": learned}
        study.add_trial(
            optuna.trial.create_trial(
                params={"optim.lr": lr}, distributions=distribution, values=[accuracy, learned], user_attrs=attrs
            )
        )
    assert best_controls(study, terms, 500) == {control_key({}): {"optim.lr": 0.3}}
    worse = optuna.create_study(directions=["maximize"] * 2)
    worse.set_user_attr(control_key({}), {"accuracy": 0.9})
    assert best_controls(worse, terms, 500) == {}  # the recipe's own values


def test_the_best_control_is_compared_with_the_control_of_its_own_rung() -> None:
    """After few epochs no network is as accurate as the control after all of them."""
    space = space_of(policy={}, optim={"lr": {"search": [0.01, 1.0], "default": 0.1}})
    terms = SearchTerms(space=space.to_dict(), rungs=(1, 8), epochs=8)
    study = optuna.create_study(directions=["maximize"] * 2)
    study.set_user_attr(control_key({}), {"accuracy": 0.9, "rungs": [{"accuracy": 0.5}]})
    distribution = {"optim.lr": optuna.distributions.FloatDistribution(0.01, 1.0)}
    for lr, accuracy, learned in ((0.2, 0.51, 0.1), (0.3, 0.50, 0.3)):
        attrs = {"values": {"optim.lr": lr}, "accuracy": accuracy, "learned_invariance": learned}
        study.add_trial(
            optuna.trial.create_trial(
                params={"optim.lr": lr}, distributions=distribution, values=[accuracy, learned], user_attrs=attrs
            )
        )
    assert best_controls(study, terms, 500) == {control_key({}): {"optim.lr": 0.3}}
