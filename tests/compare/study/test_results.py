"""Results of a study as Python objects and as ``results.json``, whose keys older tools and reports read."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_study import write_study

import augkit.compare
from augkit.compare.study.claim_results import ClaimResult, PartCount
from augkit.compare.study.results import StudyCost, StudyResults
from augkit.core.files import environment
from augkit.invariance import Estimate
from augkit.train.recipe import Recipe

# As version 1 wrote it, before results were dataclasses.
KEYS = {
    "": "name size title lead measured_with looks claims arms dose_response dose_response_label plane carry_over layers"
    " gallery cost settings environment recipe_yaml study_yaml",
    "looks": "seeds declared taken level rule exploratory",
    "arms": "arm architecture policy strength accuracy n_seeds seconds shift_information js learned_invariance"
    " architectural_invariance",
    "plane": "arm kind x y",
    "layers": "arm names db",
    "cost": "seconds runs loaded wall_seconds failed",
    "settings": "size seeds images recipe reference measures arms",
}
CLAIM_KEYS = [
    "id",
    "name",
    "claim",
    "source",
    "prediction",
    "unit",
    "n_seeds",
    "check",
    "primary",
    "exploratory",
    "verdict",
    "effect",
    "p",
    "n_images",
    "seeds_needed",
    "matched",
    "parts",
    "held",
    "sentences",
    "figure",
]
NOT_RUN_KEYS = [
    "id",
    "name",
    "claim",
    "source",
    "prediction",
    "unit",
    "n_seeds",
    "check",
    "primary",
    "exploratory",
    "effect",
    "p",
    "n_images",
    "seeds_needed",
    "matched",
    "figure",
    "verdict",
    "sentences",
    "parts",
    "held",
]
PART_KEYS = [
    "label",
    "statistic",
    "prediction",
    "unit",
    "effect",
    "tested",
    "bounds",
    "per_seed",
    "p_for",
    "p_against",
    "verdict",
    "dissent",
    "reason",
    "matched",
]


@pytest.fixture(scope="module")
def results(
    tiny: Recipe, finished_study: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[StudyResults, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("results")
    shutil.copytree(finished_study, folder / "out")  # trained and measured
    study = augkit.compare.Study.load(write_study(tiny, folder, layers=True))
    found = augkit.compare.run_study(study, folder / "out", resume=True)
    assert isinstance(found, StudyResults)
    return found, json.loads((folder / "out" / "results.json").read_text())


@pytest.mark.integration
def test_the_file_holds_what_the_function_returns_under_the_keys_of_earlier_versions(
    results: tuple[StudyResults, dict[str, Any]],
) -> None:
    found, written = results
    assert found.to_dict() == written
    for key, names in KEYS.items():
        rows = written[key] if key else written
        for row in rows if isinstance(rows, list) else [rows]:
            assert list(row) == names.split(), key
    run = [claim for claim in written["claims"] if claim["verdict"] != "not run"]
    assert len(run) == len(written["claims"]) - 1
    for claim in run:
        assert list(claim) == CLAIM_KEYS
        assert [list(part) for part in claim["parts"]] == [PART_KEYS] * len(claim["parts"])
        assert set(claim["parts"][0]["tested"]) == {"value", "error", "freedom"}
    (other,) = (claim for claim in written["claims"] if claim["verdict"] == "not run")
    assert list(other) == NOT_RUN_KEYS
    assert other["parts"] == []


def claim(**fields: Any) -> ClaimResult:
    about = {"id": 1, "name": "n", "claim": "c", "source": "s", "prediction": "p", "unit": "u"}
    return ClaimResult(**about, n_seeds=2, check=False, primary=0, exploratory=False, **fields)


def test_undefined_and_infinite_numbers_are_null_in_json(results: tuple[StudyResults, dict[str, Any]]) -> None:
    undefined = Estimate(math.nan, math.nan, math.nan)
    claims = [claim(verdict="undetermined", effect=undefined, p=math.inf, held=PartCount(0, 1))]
    found = replace(results[0], claims=claims, cost=StudyCost(math.inf, 1, 0), environment=environment())
    plain = found.to_dict()
    assert plain["claims"][0]["effect"] == {"value": None, "low": None, "high": None}
    assert plain["claims"][0]["p"] is None
    assert plain["cost"]["seconds"] is None
    json.dumps(plain, allow_nan=False)
