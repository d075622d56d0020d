"""Seeds of one arm in one program give the study that one by one gives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from augkit.compare.study.cells import CellStore, cells_of
from augkit.compare.study.pipeline import run_study
from augkit.compare.study.results import StudyResults
from augkit.compare.study.schema import Study
from augkit.compare.study.seed_groups import _groups, train_seeds_together
from augkit.core.errors import InputError
from augkit.core.jobs.pool import WorkerSettings
from augkit.core.progress import Display


def with_sources(file: Path, path: Path) -> Path:
    """The study with an arm that begins with the weights of another, and one whose recipe cannot be stacked."""
    tree = yaml.safe_load(file.read_text())
    tree["overrides"] |= {"train.epochs": 2, "optim.lr": 0.02}  # so that rounding does not grow
    tree["policies"]["later"] = {"model.weights": "cell:+none"}
    tree["policies"]["early"] = {"train.patience": 3}
    tree["arms"].append({"architecture": "maxpool", "policies": ["later", "early"]})
    path.write_text(yaml.safe_dump(tree))
    return path


@pytest.mark.slow
@pytest.mark.usefixtures("without_pages")
def test_a_study_is_the_same_with_its_seeds_together(study_file: Path, tmp_path: Path) -> None:
    study = Study.load(with_sources(study_file, tmp_path / "study.yaml"), seeds=2)
    alone, together = tmp_path / "alone", tmp_path / "together"
    first = run_study(study, alone)
    second = run_study(study, together, together=16)
    assert isinstance(first, StudyResults)
    assert isinstance(second, StudyResults)
    assert second.cost.failed == {}
    ours, theirs = (CellStore(study, folder, torch.device("cpu")) for folder in (together, alone))
    for cell in cells_of(study):
        if "shift" in cell.measures and cell.arm.name != "no-network":
            here, there = (np.exp(store.answers(cell, "shift").astype(float)) for store in (ours, theirs))
            other = np.exp(theirs.answers(replace(cell, seed=1 - cell.seed), "shift").astype(float))
            apart = float(np.abs(here - there).mean() / np.abs(other - there).mean())
            assert apart < 0.05, cell.name
    assert [claim.verdict for claim in first.claims] == [claim.verdict for claim in second.claims]
    record = json.loads((together / "cells" / "maxpool+none-seed1" / "cell.json").read_text())
    assert 0 < record["training_seconds"] < record["seconds"]


def test_what_cannot_be_stacked_is_named_and_left(study_file: Path, tmp_path: Path) -> None:
    study = Study.load(with_sources(study_file, tmp_path / "study.yaml"), seeds=2)
    store, cells = CellStore(study, tmp_path / "out", torch.device("cpu")), cells_of(study)
    assert {len(group) for group in _groups(cells, 16)} == {2}
    assert {len(group) for group in _groups(cells * 2, 3)} == {3}, "the fourth is alone"
    assert list(_groups(cells[:1], 16)) == []
    lines: list[str] = []
    show = Display(0, quiet=True)
    show.line = lines.append  # type: ignore[method-assign]
    few = [cell for cell in cells if cell.arm.name in ("maxpool+early", "maxpool+later")]
    train_seeds_together(store, few, 16, show)
    said = [line for line in lines if "seed by seed" in line]
    assert len(said) == 1
    assert said[0].startswith("arm maxpool+early is trained seed by seed: ")
    assert "train.patience" in said[0]
    assert store.trained == {}, "the source of the other is not there"


@pytest.mark.parametrize(("workers", "together"), [(2, 2), (1, 17)])
def test_it_needs_a_single_worker(study_file: Path, tmp_path: Path, workers: int, together: int) -> None:
    with pytest.raises(InputError, match="--together: expected at most 16 seeds at once, in one worker"):
        run_study(Study.load(study_file), tmp_path / "out", spread=WorkerSettings(count=workers), together=together)
    assert not (tmp_path / "out").exists()
