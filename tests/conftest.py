from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest
from tiny_study import write_study

# Augkit and torch are imported where they are used: the process that hands out the tests of `-n` needs neither.
if TYPE_CHECKING:
    from augkit.data import Dataset
    from augkit.train.recipe import Recipe

# Several processes may share the tests and the cores: each has one thread, and so have the processes that it starts.
# Set before torch, numpy and OpenCV are imported.
os.environ["OMP_NUM_THREADS"] = "1"

# A busy machine stalls for longer than any example takes, and what fails once should fail again.
hypothesis.settings.register_profile(
    "augkit", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("augkit")


@pytest.fixture(autouse=True)
def _same_random_state_for_every_test() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    from augkit.data import load_dataset

    return load_dataset("digits")


@pytest.fixture(scope="session")
def tiny() -> Recipe:
    """A recipe whose training takes a fraction of a second."""
    from augkit.train.recipe import Recipe

    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"name": "digits", "canvas": 16, "limit": 200},
            "model": {"name": "small_cnn", "width": 4},
            "policy": {"shift": {"max_pixels": 2.0}, "rescale": {"max_factor": 1.1, "p": 0.5}},
            "train": {"epochs": 2, "batch_size": 32},
            "invariance": {"protocol": "embed", "max_shift": 3.0, "pairs": 2},
        }
    )


@pytest.fixture
def tiny_file(tiny: Recipe, tmp_path: Path) -> str:
    path = tmp_path / "tiny.yaml"
    path.write_text(tiny.to_yaml())
    return str(path)


@pytest.fixture
def study_file(tiny: Recipe, tmp_path: Path) -> Path:
    """A study of two arms, two of whose claims can be answered."""
    return write_study(tiny, tmp_path)


@pytest.fixture
def layered_study_file(tiny: Recipe, tmp_path: Path) -> Path:
    """`study_file` with a measure of layers and a claim about them, which take longer than all the rest."""
    return write_study(tiny, tmp_path, layers=True)


@pytest.fixture(scope="session")
def finished_study(tiny: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `layered_study_file` after all its runs; for tests that copy it or change nothing in it."""
    from augkit.compare.study.pipeline import run_study
    from augkit.compare.study.schema import Study

    folder = tmp_path_factory.mktemp("study")
    run_study(Study.load(write_study(tiny, folder, layers=True)), folder / "out")
    return folder / "out"
