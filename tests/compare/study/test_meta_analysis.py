"""Meta-analysis of studies on several data sets: against written-out sums, its coverage, and the command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from augkit.compare.__main__ import main
from augkit.compare.study.meta_analysis import (
    CombinedEffect,
    FinishedStudy,
    combine_studies,
    in_words,
    load_results,
    pooled,
)
from augkit.core.cli import run
from augkit.core.errors import InputError


def slow(y: list[float], se: list[float]) -> tuple[float, float, float]:
    """DerSimonian & Laird's mean with Hartung & Knapp's standard error, and I squared, with all sums written out."""
    w = [1 / s**2 for s in se]
    fixed = sum(a * b for a, b in zip(w, y, strict=True)) / sum(w)
    q = sum(a * (b - fixed) ** 2 for a, b in zip(w, y, strict=True))
    k = len(y)
    tau2 = max(0.0, (q - (k - 1)) / (sum(w) - sum(a * a for a in w) / sum(w)))
    star = [1 / (s**2 + tau2) for s in se]
    mean = sum(a * b for a, b in zip(star, y, strict=True)) / sum(star)
    knapp = sum(a * (b - mean) ** 2 for a, b in zip(star, y, strict=True)) / (k - 1)
    return mean, math.sqrt(max(1.0, knapp) / sum(star)), max(0.0, (q - (k - 1)) / q)


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_equals_that_of_dersimonian_and_laird(seed: int) -> None:
    rng = np.random.default_rng(seed)
    y, se = rng.normal(0, 0.4, 4).tolist(), rng.uniform(0.05, 0.3, 4).tolist()
    found, between = pooled(y, se)
    mean, error, share = slow(y, se)
    assert found.value == pytest.approx(mean)
    assert found.high - found.value == pytest.approx(stats.t.ppf(0.975, 3) * error)
    assert between == pytest.approx(share)


def test_the_interval_over_three_data_sets_covers_the_mean_over_all_data_sets() -> None:
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        se = rng.uniform(0.05, 0.2, 3)
        found, _ = pooled((1.0 + rng.normal(0, 0.3, 3) + rng.normal(0, se)).tolist(), se.tolist())
        hits += found.low <= 1.0 <= found.high
    assert 0.92 <= hits / 400 <= 0.995


def study(effect: float, half: float, **more: Any) -> dict[str, Any]:
    part = {
        "label": "shift", "statistic": "learned_invariance", "unit": "share", "per_seed": [effect] * 5,
        "effect": {"value": effect, "low": effect - half, "high": effect + half},
    }  # fmt: skip
    return {"claims": [{"id": 6, "parts": [part]}, {"id": 7, "parts": []}], **more}


def combined(**studies: dict[str, Any]) -> list[CombinedEffect]:
    """Combine studies from the content of their ``results.json``."""
    return combine_studies({name: FinishedStudy.from_json(found) for name, found in studies.items()})


def test_shares_are_combined_as_logs_and_shown_as_shares() -> None:
    line = combined(digits=study(0.8, 0.01), clothes=study(0.6, 0.01))[0]
    assert line.whole.value == pytest.approx(1 - math.exp((math.log(0.2) + math.log(0.4)) / 2), abs=0.02)
    assert line.between > 0.9
    assert "6. shift" in in_words([line])
    kept = study(0.8, 0.01)
    kept["claims"][0]["parts"][0]["tested"] = {"value": -math.log(0.2), "error": 0.02, "freedom": 4}
    assert combined(a=kept, b=kept)[0].whole.value == pytest.approx(0.8)


def test_an_undefined_effect_is_shown_and_not_counted() -> None:
    undefined = study(0.5, 0.1)
    undefined["claims"][0]["parts"][0]["effect"] = dict.fromkeys(("value", "low", "high"))
    line = combined(a=study(0.5, 0.1), b=undefined)[0]
    assert not line.whole.defined
    assert not line.effects["b"].defined


def test_parts_of_one_label_are_combined_each_for_itself() -> None:
    first, second = study(0.5, 0.1), study(0.6, 0.1)
    for one, other in ((first, 0.8), (second, 0.7)):
        one["claims"][0]["parts"] += study(other, 0.1)["claims"][0]["parts"]
    lines = combined(a=first, b=second)
    assert [line.whole.value for line in lines] == pytest.approx(
        [combined(a=study(x, 0.1), b=study(y, 0.1))[0].whole.value for x, y in ((0.5, 0.6), (0.8, 0.7))]
    )


def test_studies_with_different_variabilities_are_refused() -> None:
    with pytest.raises(InputError, match="measured with the same variability, got a with js, b with shift_information"):
        combined(a=study(0.5, 0.1), b=study(0.5, 0.1, measured_with="shift_information"))


def test_the_command_prints_lines_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = []
    for name, effect in (("digits", 0.8), ("clothes", 0.7)):
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(json.dumps(study(effect, 0.05)))
    assert run(main, [*files, "--output", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["across"] == json.loads((tmp_path / "out" / "across.json").read_text())["across"]
    assert run(main, files) == 0
    assert "6. shift: 0.7" in capsys.readouterr().out
    (tmp_path / "other.json").write_text("[]")
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "study.yaml").write_text("")
    for wrong, message in (
        (
            [files[0], str(tmp_path / "none.json")],
            "none.json': expected results.json of a study, there is no such file",
        ),
        ([str(tmp_path / "none.json")], "there is no such file"),
        ([str(tmp_path / "other.json")], "expected results.json of a study, got another file"),
        ([str(tmp_path / "unfinished")], "there is no such file; is the study finished?"),
        ([files[0]], "two studies or more"),
        ([*files, "--seeds", "3"], "remove overrides, --seeds"),
        ([*files, "--workers", "2", "--device", "cpu"], "--workers and --device belong to what is still to be run"),
    ):
        assert run(main, wrong) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line


def test_load_results_refuses_two_studies_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    for file in (tmp_path / "s" / "results.json", tmp_path / "s.json"):
        file.write_text(json.dumps(study(0.5, 0.1)))
    with pytest.raises(InputError, match="'s' twice"):
        load_results([tmp_path / "s", tmp_path / "s.json"])


def test_missing_errors_are_computed_from_the_interval() -> None:
    # The interval of five seeds is based on t(4); the mean of the effects 0.2 and 0.4 then has this error.
    def plain(value: float, half: float) -> dict[str, Any]:
        made = study(value, half)
        made["claims"][0]["parts"][0]["statistic"] = "accuracy_difference"
        return made

    halves = (0.1, 0.3)
    errors = [half / stats.t.ppf(0.975, 4) for half in halves]
    expected, _ = pooled([0.2, 0.4], errors)
    whole = combined(a=plain(0.2, halves[0]), b=plain(0.4, halves[1]))[0].whole
    assert (whole.value, whole.low) == (pytest.approx(expected.value), pytest.approx(expected.low))


@pytest.mark.parametrize("lacking", ["value", "error"])
def test_a_number_without_its_error_is_not_counted(lacking: str) -> None:
    broken = study(0.5, 0.1)
    broken["claims"][0]["parts"][0]["tested"] = {"value": 0.7, "error": 0.1, "freedom": 4, lacking: None}
    assert not combined(a=study(0.5, 0.1), b=broken)[0].whole.defined
