"""A run that pauses after some epochs and goes on later is bitwise the run trained through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import augkit
from augkit.core.errors import InputError
from augkit.train.checkpoint import read_checkpoint
from augkit.train.recipe import Recipe
from augkit.train.run import Run

LONG = {"epochs": 5, "batch_size": 32}


def weights(run: Run) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in run.model.state_dict().values()])


def losses(run: Run) -> list[tuple[float, float, float | None]]:
    return [(row["loss"], row["lr"], row.get("validation_accuracy")) for row in run.history]


@pytest.mark.integration
@pytest.mark.parametrize(
    "train",
    [
        {},
        {"ema": 0.9},
        {"evaluate_every": 2},
        {"patience": 2},
        {"patience": 1, "ema": 0.9},
        {"mixup": 0.4, "label_smoothing": 0.1},
    ],
)
def test_a_paused_run_goes_on_bitwise(tiny: Recipe, tmp_path: Path, train: dict[str, Any]) -> None:
    recipe = tiny.replaced(train={**LONG, **train})
    whole = augkit.fit(recipe, output=tmp_path / "whole")
    counted: list[int] = []
    for until in (1, 2, 4, 5):
        run = augkit.fit(
            recipe,
            output=tmp_path / "parts",
            resume=True,
            until=until,
            on_epoch=lambda row: counted.append(row["epoch"]),
        )
        assert len(run.history) == min(until, len(whole.history))
        assert run.evaluation.accuracy >= 0
    assert counted == [row["epoch"] for row in whole.history], "no epoch is trained twice"
    assert torch.equal(weights(run), weights(whole))
    assert losses(run) == losses(whole)
    a, b = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert a["step"] == b["step"]
    for name, value in a["model"].items():
        assert torch.equal(value, b["model"][name])


def test_a_paused_run_is_that_of_its_first_epochs(tiny: Recipe, tmp_path: Path) -> None:
    recipe = tiny.replaced(train=LONG)
    paused = augkit.fit(recipe, until=2)
    whole = augkit.fit(recipe, output=tmp_path / "run", until=9)
    assert losses(paused) == losses(whole)[:2], "the schedule is that of all epochs"
    assert not paused.model.training
    again = augkit.fit(recipe, output=tmp_path / "run", resume=True, until=1)
    assert len(again.history) == 5, "a run is not taken back"


@pytest.mark.parametrize("until", [0, -1, 1.5, True])
def test_a_number_of_epochs_that_is_none_is_refused(tiny: Recipe, until: Any) -> None:
    with pytest.raises(InputError, match="until: expected a whole number of 1 or more"):
        augkit.fit(tiny, until=until)
