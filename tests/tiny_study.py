"""A study of two arms on a recipe that trains in a fraction of a second."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:  # torch is imported where it is used, see conftest.py
    from augkit.train.recipe import Recipe


def write_study(recipe: Recipe, folder: Path, *, layers: bool = False) -> Path:
    """Write ``study.yaml`` and its recipe; without ``layers`` it leaves out the measure that takes longest."""
    (folder / "base.yaml").write_text(recipe.to_yaml())
    path = folder / "study.yaml"
    tree: dict[str, Any] = {
        "name": "tiny",
        "title": "A tiny study",
        "recipe": str(folder / "base.yaml"),
        "overrides": {"train.epochs": 6, "optim.lr": 0.2},
        "seeds": 2,
        "images": 60,
        "architectures": {"maxpool": {"model.downsample": "maxpool"}},
        "policies": {"shift": {"policy.shift.max_pixels": 2.0}},
        "arms": [{"architecture": "maxpool", "policies": ["none", "shift"]}],
        "measures": {
            "shift": {"images": ["typical", "inverted"], "lengths": [1, 3], "pairs": 1},
            "layers": {"axis": "layers", "pairs": 1},
        },
        "claims": [
            {
                "id": 6,
                "name": "Augmentation teaches invariance",
                "claim": "It removes variability.",
                "source": "Azulay & Weiss 2019",
                "statistic": "learned_invariance",
                "arm": "maxpool+shift",
                "control": "maxpool+none",
                "prediction": "positive",
            },
            {
                "id": 2,
                "name": "Far against near",
                "claim": "Variability grows.",
                "source": "Azulay & Weiss 2019",
                "parts": [
                    {"statistic": "growth", "arm": "maxpool+none", "near": 1, "far": 3, "prediction": "positive"},
                    {"statistic": "half_life", "arm": "maxpool+none", "prediction": "describe"},
                ],
            },
            {
                "id": 3,
                "name": "Layers",
                "claim": "Pools lose.",
                "source": "Zhang 2019",
                "statistic": "layer_loss",
                "arm": "maxpool+none",
                "measure": "layers",
                "prediction": "positive",
            },
            {
                "id": "x",
                "name": "Not there",
                "claim": "No such experiment.",
                "source": "nobody",
                "statistic": "probe",
                "probe": "no_such_probe",
                "key": "value",
                "prediction": "positive",
            },
        ],
    }
    if not layers:
        del tree["measures"]["layers"]
        tree["claims"] = [claim for claim in tree["claims"] if claim.get("measure") != "layers"]
    path.write_text(yaml.safe_dump(tree))
    return path
