"""What is taken for invariance: trained networks that are less sure, and ones that are more invariant, told apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import augkit
from augkit.invariance import InvarianceReport, compare_invariance, learned_invariance
from augkit.train.evaluate import measure_model

pytestmark = pytest.mark.integration

ROOT = Path(augkit.__file__).parent.parent
RULER = json.loads((ROOT / "benchmarks" / "results" / "ruler.json").read_text())
ROWS: dict[str, dict[str, Any]] = {row["change"]: row for row in RULER["rows"]}


@pytest.fixture(scope="module")
def reports() -> dict[str, list[InvarianceReport]]:
    """Small networks on digits, on the validation images."""
    dataset = augkit.load_dataset("digits")
    base = {
        "name": "x",
        "data": {"name": "digits", "canvas": 14},
        "model": {"name": "small_cnn", "width": 8},
        "optim": {"lr": 0.2},
        "invariance": {"protocol": "embed", "max_shift": 2.0, "pairs": 4},
    }
    kinds: dict[str, dict[str, Any]] = {
        "control": {},
        "smoothing": {"label_smoothing": 0.5},
        "shift": {"policy": {"shift": {"max_pixels": 2.0}}},
    }
    found: dict[str, list[InvarianceReport]] = {}
    for name, changes in kinds.items():
        policy = changes.pop("policy", {})
        train = {"epochs": 6, "batch_size": 32, **changes}
        recipe = augkit.Recipe.model_validate({**base, "policy": policy, "train": train})
        runs = [augkit.fit(recipe, seed, dataset=dataset) for seed in (0,)]
        found[name] = [measure_model(run.model, recipe, dataset.validation) for run in runs]
    return found


@pytest.mark.integration
def test_label_smoothing_is_not_invariance(reports: dict[str, list[InvarianceReport]]) -> None:
    by_js = learned_invariance(reports["smoothing"], reports["control"], metric="js")
    assert by_js.value > 0.2  # the fault of the measure that we had
    found = compare_invariance(reports["smoothing"], reports["control"])
    assert found.verdict != "more"
    assert found.by["shift_information"].value < 0


def test_shifts_are(reports: dict[str, list[InvarianceReport]]) -> None:
    found = compare_invariance(reports["shift"], reports["control"])
    assert found.verdict == "more"
    assert min(estimate.value for estimate in found.by.values()) > 0.2


@pytest.mark.parametrize("divisor", [2, 4, 8])
def test_dividing_logits_is_disputed_in_the_kept_numbers(divisor: int) -> None:
    row = ROWS[f"the same network, logits divided by {divisor}"]
    assert row["verdict"] == "disputed"
    assert row["by"]["js"]["low"] > 0.2
    assert row["by"]["entropy_matched_js"]["value"] == pytest.approx(0, abs=0.01)
    assert row["by"]["top1_change"]["value"] == 0
    assert -0.35 < row["by"]["shift_information"]["value"] < 0


def test_signs_of_the_kept_numbers() -> None:
    for smoothing in ("0.2", "0.4", "0.6"):
        row = ROWS[f"label smoothing {smoothing}"]
        assert row["verdict"] == "less"
        assert row["by"]["js"]["low"] > 0
        assert row["by"]["shift_information"]["high"] < 0
    for change in ("learning rate 0.02", "batch 512"):
        assert ROWS[change]["by"]["js"]["low"] > 0
        assert ROWS[change]["by"]["top1_change"]["high"] < 0
        assert ROWS[change]["verdict"] != "more"
    for change in ("weight decay 0.02", "shifts of 3 px", "shifts of 3 px, label smoothing 0.2"):
        assert ROWS[change]["verdict"] == "more"
    assert ROWS["a constant network"]["verdict"] == "undefined"


def test_networks_that_nearly_collapsed_cannot_pass_the_floor_and_augmented_ones_can() -> None:
    from augkit.tune.optuna_study import FLOOR

    control = {key: value["value"] for key, value in RULER["control"].items()}
    for change, row in ROWS.items():
        accuracy, kappa = (row[key]["value"] for key in ("accuracy", "kappa"))
        passes = accuracy - 0.1 >= FLOOR * (control["accuracy"] - 0.1) and kappa >= FLOOR * control["kappa"]
        if change.startswith(("nearly", "batch 512", "a constant")):
            assert not passes, change
        if change.startswith(("shifts", "weight")):
            assert passes, change
