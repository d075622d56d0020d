"""On images whose labels are invariant to shifts only, a search makes shift strong and rescale and crop weak."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from augkit.core.jobs.storage import open_storage
from augkit.train.build import load_recipe_data
from augkit.tune import optuna_study, selection
from augkit.tune.goal import Goal
from augkit.tune.optuna_study import SearchTerms
from augkit.tune.space import Space
from augkit.tune.trial import TrialWorker

SIDE, EACH = 24, 110
RADII = (2.4, 3.0, 3.75, 4.7)  # one per class; each is 1.25 times the one before


@pytest.fixture
def blobs(tmp_path: Path) -> Path:
    """One folder per radius; every blob lies within a pixel of the center."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for label, radius in enumerate(RADII):
        folder = tmp_path / "blobs" / f"{label}"
        folder.mkdir(parents=True)
        for k in range(EACH):
            cx, cy = SIDE / 2 - 0.5 + rng.uniform(-1, 1, 2)
            own = radius * rng.uniform(0.97, 1.03)
            # Soft edges, so that their sharpness does not reveal by how much a blob was enlarged.
            blob = 230 * np.exp(-((np.hypot(x - cx, y - cy) / own) ** 2))
            Image.fromarray(blob.astype(np.uint8)).save(folder / f"{k}.png")
    return tmp_path / "blobs"


@pytest.mark.slow
def test_the_search_raises_only_the_op_that_labels_are_invariant_to(blobs: Path, tmp_path: Path) -> None:
    recipe: dict[str, Any] = {
        "name": "blobs",
        "data": {"name": f"folder:{blobs}", "channels": 1, "canvas": 36, "workers": 0},
        "model": {"name": "small_cnn", "width": 6, "head": "fc"},
        "policy": {
            "shift": {"max_pixels": {"search": [0, 6]}},
            "rescale": {"max_factor": {"search": [1, 2]}},
            "crop": {"min_area": {"search": [0.2, 1]}, "max_ratio": 1.0},
        },
        "optim": {"lr": 0.1, "clip_norm": 1.0},
        "train": {"epochs": 10, "batch_size": 32},
        "invariance": {"protocol": "embed", "max_shift": 6.0, "pairs": 2},
    }
    space = Space.of(recipe, "blobs")
    terms = SearchTerms(space=space.to_dict(), epochs=10, seed=1)
    study, _ = optuna_study.make_or_join(open_storage(tmp_path / "j"), "s", terms, 20, join=False)
    worker = TrialWorker(study, terms, load_recipe_data(space.recipe), torch.device("cpu"))
    worker.run()
    reference = study.user_attrs[optuna_study.control_key({})]["accuracy"]
    chosen = selection.candidates(optuna_study.completed(study), Goal(), reference, len(worker.validation), 3)
    shift, rescale, crop = (
        np.median([trial.user_attrs["values"][f"policy.{key}"] for trial in chosen])
        for key in ("shift.max_pixels", "rescale.max_factor", "crop.min_area")
    )
    # Of 6 px, a factor of 2 and an area of 0.2: shift is high, the other two are in their weak halves.
    assert shift > 2.5
    assert rescale < 1.5
    assert crop > 0.6
    assert all(trial.user_attrs["learned_invariance"] > 0.3 for trial in chosen)
