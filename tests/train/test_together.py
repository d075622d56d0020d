"""Several seeds in one program: each network is the one that `fit` trains alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from augkit import Recipe
from augkit.core.errors import InputError
from augkit.train import fit, fit_together
from augkit.train.run import Run

SMALL = [
    "data.name=digits",
    "data.canvas=12",
    "data.limit=160",
    "train.epochs=2",
    "train.batch_size=32",
    "model.width=4",
]


def recipe(*overrides: str) -> Recipe:
    return Recipe.load("mnist5k", [*SMALL, *overrides])


def assert_equal(alone: Run, together: Run) -> None:
    theirs = together.model.state_dict()
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(
            theirs[name], value, rtol=2e-4, atol=2e-5, msg=lambda said, name=name: f"{name}: {said}"
        )
    assert together.evaluation.loss == pytest.approx(alone.evaluation.loss, rel=1e-3)
    assert [row["step"] for row in together.history] == [row["step"] for row in alone.history]
    for ours, other in zip(together.history, alone.history, strict=True):
        assert ours["loss"] == pytest.approx(other["loss"], rel=1e-3)


def slower(*overrides: str, name: str) -> object:
    return pytest.param([*overrides], id=name, marks=pytest.mark.integration)


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param([], id="plain"),
        slower(
            "optim.clip_norm=0.1", "train.ema=0.9", "optim.name=adamw", "optim.lr=0.01", name="clip, average, AdamW"
        ),
        slower("train.mixup=0.5", "train.label_smoothing=0.1", "train.accumulate=2", name="mixup, parts"),
        slower("model.head=fc", "train.steps=7", "policy.share=0.5", "train.freeze.stages=1", name="frozen, steps"),
    ],
)
def test_each_network_is_that_of_a_run_of_its_own(overrides: list[str]) -> None:
    found = fit_together(recipe(*overrides), [3, 0, 5], device="cpu")
    assert [run.seed for run in found] == [3, 0, 5]
    for run in found[:2]:
        assert_equal(fit(recipe(*overrides), run.seed, device="cpu"), run)
    first, last = (run.model.state_dict()["features.0.conv.weight"] for run in (found[0], found[2]))
    assert not torch.allclose(first, last), "seeds differ"


@pytest.mark.integration
def test_folders_are_those_of_fit_and_resume(tmp_path: Path) -> None:
    folders = [tmp_path / f"seed{seed}" for seed in (0, 1, 2)]
    fit(recipe(), 0, output=folders[0], device="cpu", until=1)
    seen: list[tuple[int, int]] = []
    found = fit_together(
        recipe(), [0, 1, 2], outputs=folders, resume=True, device="cpu",
        on_epoch=lambda seed, row: seen.append((seed, row["epoch"])),
    )  # fmt: skip
    assert sorted(seen) == [(0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    for run, folder in zip(found, folders, strict=True):
        assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2
        assert json.loads((folder / "environment.json").read_text())
        assert_equal(fit(recipe(), run.seed, device="cpu"), run)
        again = fit(recipe(), run.seed, output=folder, resume=True, device="cpu")
        assert again.history == run.history, "a finished run is only loaded"
        assert not any(value._base is not None for value in again.model.state_dict().values())


@pytest.mark.integration
def test_initial_weights_come_from_a_file_per_seed(tmp_path: Path) -> None:
    folders = [tmp_path / f"seed{seed}" for seed in (0, 1)]
    fit_together(recipe(), [0, 1], outputs=folders, device="cpu")
    files = [folder / "checkpoint.pt" for folder in folders]
    for run, file in zip(fit_together(recipe(), [0, 1], weights=files, device="cpu"), files, strict=True):
        assert_equal(fit(recipe(), run.seed, weights=file, device="cpu"), run)


@pytest.mark.parametrize(
    ("overrides", "seeds", "message"),
    [
        (["train.patience=2"], [0, 1], "a recipe without train.patience; train its seeds one by one"),
        (["train.compile=true"], [0, 1], "a recipe without train.compile"),
        ([], [0, 0], "expected 1 to 16 distinct seeds, got 0, 0"),
        ([], [], "expected 1 to 16 distinct seeds, got none"),
        ([], list(range(17)), "expected 1 to 16 distinct seeds"),
    ],
)
def test_what_cannot_be_stacked_is_refused(overrides: list[str], seeds: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_together(recipe(*overrides), seeds, device="cpu")
    with pytest.raises(InputError, match="outputs: expected one for each of 2 seeds, got 1"):
        fit_together(recipe(), [0, 1], outputs=["one"], device="cpu")


def test_what_is_no_list_and_shared_folders_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="seeds: expected 1 to 16 distinct seeds, got 3"):
        fit_together(recipe(), 3, device="cpu")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="outputs: expected one for each of 2 seeds, got 'ab'"):
        fit_together(recipe(), [0, 1], outputs="ab", device="cpu")
    with pytest.raises(InputError, match="outputs: expected a folder of its own for each seed"):
        fit_together(recipe(), [0, 1], outputs=[tmp_path / "run", f"{tmp_path}/./run"], overwrite=True, device="cpu")
    assert not (tmp_path / "run").exists()


def test_no_output_is_emptied_where_another_is_refused(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    fit_together(recipe(), [0], outputs=[first], device="cpu")
    before = {path.name for path in first.iterdir()}
    second.mkdir()
    (second / "mine.txt").write_text("not augkit's")
    with pytest.raises(InputError, match="--overwrite replaces folders that augkit wrote"):
        fit_together(recipe(), [0, 1], outputs=[first, second], overwrite=True, device="cpu")
    assert {path.name for path in first.iterdir()} == before
    assert (second / "mine.txt").read_text() == "not augkit's"


def test_a_network_that_draws_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from augkit.train import loop

    build = loop.build_recipe_model

    def with_dropout(*args: object, **how: object) -> nn.Module:
        return nn.Sequential(build(*args, **how), nn.Dropout(0.5))  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "build_recipe_model", with_dropout)
    with pytest.raises(InputError, match="expected a network that draws nothing"):
        fit_together(recipe(), [0, 1], device="cpu")
