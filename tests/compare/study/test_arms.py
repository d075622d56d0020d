"""Arms that begin with the weights of other arms, floors of accuracy, and planned power."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from augkit.compare.study.cells import CellStore, cells_of
from augkit.compare.study.claims import Claim
from augkit.compare.study.hypothesis_tests import power
from augkit.compare.study.pipeline import run_study
from augkit.compare.study.planning import below_floor, planned_power
from augkit.compare.study.results import StudyResults
from augkit.compare.study.schema import Study
from augkit.compare.study.sequential import InterimAnalysis, levels
from augkit.core.errors import InputError

HEAD = {"model.weights": "cell:+shift", "model.weights_of": "features", "train.freeze.stages": 3}


def changed(study_file: Path, **fields: Any) -> Path:
    """The tiny study with other fields, and an arm whose frozen features are those of the arm with shifts."""
    tree = yaml.safe_load(study_file.read_text())
    tree["policies"] |= {"head": HEAD}
    tree["arms"] = [{"architecture": "maxpool", "policies": ["head", "none", "shift"]}]
    study_file.write_text(yaml.safe_dump({**tree, **fields}))
    return study_file


def test_a_cell_comes_after_the_cell_whose_weights_it_begins_with(study_file: Path) -> None:
    cells = [cell for cell in cells_of(Study.load(changed(study_file), seeds=2)) if "network" not in cell.name]
    assert [cell.arm.policy for cell in cells] == ["shift", "head", "none"] * 2
    head, shift = cells[1], cells[0]
    assert head.source == shift
    assert head.arm.source == "maxpool+shift"
    other = yaml.safe_load(study_file.read_text())["policies"] | {"shift": {"policy.shift.max_pixels": 1.0}}
    again = cells_of(Study.load(changed(study_file, policies={**other, "head": HEAD}), seeds=1))
    assert again[1].arm == head.arm
    assert again[1].digest != head.digest  # because its source is another


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ({"head": {**HEAD, "model.weights": "cell:+shft"}}, r"arm maxpool\+head: model\.weights: unknown arm .*shift"),
        ({"head": {"model.weights": "cell:+head"}}, r"weights that begin anew somewhere, got maxpool\+head from"),
        (
            {"head": {"policy.shift.max_pixels": 2.0, "constraint.learned_invariance": 0.5}},
            r"arm maxpool\+head: constraint: expected no policy\.shift",
        ),
    ],
)
def test_weights_of_arms_that_do_not_exist_and_fields_that_do_not_go_together_are_refused(
    study_file: Path, policies: Mapping[str, object], message: str
) -> None:
    shift = {"shift": {"policy.shift.max_pixels": 2.0}}
    path = changed(study_file)
    tree = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**tree, "policies": {**shift, **policies}}))
    with pytest.raises(InputError, match=message):
        Study.load(path)


@pytest.mark.integration
@pytest.mark.usefixtures("without_pages")
def test_an_arm_has_the_features_of_its_source_and_groups_are_answered_without_training(
    study_file: Path, tmp_path: Path
) -> None:
    study = Study.load(changed(study_file), seeds=1)
    folder = tmp_path / "out"
    run_study(study, folder)
    before, after = (
        torch.load(folder / "cells" / f"maxpool+{name}-seed0" / "checkpoint.pt", weights_only=True)["model"]
        for name in ("shift", "head")
    )
    for name in before:
        assert torch.equal(before[name], after[name]) != name.startswith("head."), name
    stamp = {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/checkpoint.pt")}
    pairs = {"arms": ["maxpool+shift"], "controls": ["maxpool+none"], "groups": ["low"], "answers": "group"}
    claim = {"id": 1, "name": "n", "claim": "c", "source": "s", "statistic": "mean_log_ratio", "prediction": "negative"}
    path = changed(study_file, groups={"low": [0, 1, 2]}, claims=[{**claim, **pairs}])
    results = run_study(Study.load(path, seeds=1), folder, resume=True)
    assert isinstance(results, StudyResults)
    assert results.claims[0].effect is not None
    assert results.claims[0].effect.defined
    assert results.claims[0].n_images == 18  # of 60 test images, stratified
    assert {path: path.stat().st_mtime_ns for path in folder.glob("cells/*/checkpoint.pt")} == stamp
    store = CellStore(study, folder, torch.device("cpu"))
    assert np.isfinite(store.answers(cells_of(study)[0], "shift")).all()


def claim_of(study: Study) -> Claim:
    return study.claims[0]


def test_a_claim_about_networks_below_the_floor_is_a_pilot(study_file: Path) -> None:
    study = Study.load(changed(study_file, floors={"digits": 0.9, "default": 0.5}), seeds=2)
    high, low = {"maxpool+none": 0.95, "maxpool+shift": 0.92}, {"maxpool+none": 0.95, "maxpool+shift": 0.88}
    for arms, count in ((high, 0), (low, 1)):
        accuracy = {(name, seed): value for name, value in arms.items() for seed in range(2)}
        found = below_floor(study, claim_of(study), accuracy, range(2))
        assert len(found) == count
    assert found == ["maxpool+shift answers 88.0% right, below the floor of 90%"]
    near = {"maxpool+none": 0.95, "maxpool+shift": 0.8996}
    found = below_floor(study, claim_of(study), {(arm, seed): near[arm] for arm in near for seed in (0, 1)}, [0, 1])
    assert found == ["maxpool+shift answers 89.96% right, below the floor of 90%"]
    tree = yaml.safe_load(study_file.read_text())
    tree["arms"] = [{**tree["arms"][0], "floor": False}]
    study_file.write_text(yaml.safe_dump(tree))
    assert below_floor(Study.load(study_file, seeds=2), claim_of(study), accuracy, range(2)) == []


@pytest.mark.integration
@pytest.mark.usefixtures("without_pages")
def test_pilots_have_no_verdict(study_file: Path, tmp_path: Path) -> None:
    tree = yaml.safe_load(study_file.read_text())
    study_file.write_text(yaml.safe_dump({**tree, "floors": {"default": 1.0}}))
    results = run_study(Study.load(study_file, seeds=1), tmp_path / "out")
    assert isinstance(results, StudyResults)
    assert [claim.verdict for claim in results.claims] == ["pilot", "pilot", "not run"]
    assert "below the floor of 100%" in " ".join(results.claims[0].sentences)


def test_the_planned_power_is_that_of_the_corrected_level(study_file: Path) -> None:
    tree = yaml.safe_load(study_file.read_text())
    tree["claims"][0]["expected"] = {"value": 1.0, "spread": 0.5}
    study_file.write_text(yaml.safe_dump(tree))
    claim = claim_of(Study.load(study_file))
    found = power(1.0, 0.5, 5, (0.0, float("inf")), 0.05 / 4)
    assert planned_power(claim, 5, 4).endswith(f"5 seeds have a power of {found:.0%}")
    assert planned_power(claim, 1, 4) == ""
    looks = levels([5, 10], "obrien-fleming")
    early = InterimAnalysis(5, (5, 10), (5,), looks[0], "obrien-fleming")
    shares = [power(1.0, 0.5, n, (0.0, float("inf")), level / 4) for n, level in zip((5, 10), looks, strict=True)]
    words = " and ".join(f"{n} seeds have a power of {p:.0%}" for n, p in zip((5, 10), shares, strict=True))
    assert planned_power(claim, 5, 4, early).endswith(words)
    tree["claims"][0]["expected"] = {"value": 1.0, "spread": 0.0}
    study_file.write_text(yaml.safe_dump(tree))
    with pytest.raises(InputError, match="spread"):
        Study.load(study_file)


def test_groups_that_the_study_does_not_have_are_refused(study_file: Path) -> None:
    pairs = {"arms": ["maxpool+shift"], "controls": ["maxpool+none"], "groups": ["hgih"]}
    claim = {"id": 1, "name": "n", "claim": "c", "source": "s", "statistic": "mean_log_ratio", "prediction": "negative"}
    with pytest.raises(InputError, match=r"claim 1: unknown group 'hgih': did you mean 'high'"):
        Study.load(changed(study_file, groups={"high": [5, 6]}, claims=[{**claim, **pairs}]))
    study = Study.load(changed(study_file, groups={"hgih": [5, 16]}, claims=[{**claim, **pairs}]), seeds=1)
    store = CellStore(study, study_file.parent / "out", torch.device("cpu"))
    with pytest.raises(InputError, match=r"groups: expected classes from 0 to 9 in 'hgih', got \[5, 16\]"):
        store.check(cells_of(study)[0])
