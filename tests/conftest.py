from __future__ import annotations

import hypothesis
import pytest
import torch

from augkit.data import Dataset, load_dataset
from augkit.recipe import Recipe

# A busy machine stalls for longer than any example takes, and what fails once should fail again.
hypothesis.settings.register_profile(
    "augkit", deadline=None, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("augkit")


@pytest.fixture(autouse=True)
def _same_random_state_for_every_test() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture
def tiny() -> Recipe:
    """A recipe whose training takes a fraction of a second."""
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
