"""Training under a constraint on invariance: views, loss, dual variable, control, and runs that resume."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

import augkit
from augkit import Augment, RandomRescale, RandomSubpixelShift
from augkit.core.errors import InputError
from augkit.invariance import Estimate
from augkit.train.augmix import js_divergence
from augkit.train.batches import Batch
from augkit.train.constraint import constrained_loss, dual_variable, outcome, two_views, with_control
from augkit.train.distributed import Process
from augkit.train.policy_in_training import PolicyInTraining
from augkit.train.recipe import Recipe

CPU = torch.device("cpu")


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def constrained(recipe: Recipe, constraint: dict[str, Any] | None = None, **sections: Any) -> Recipe:
    asked = {"learned_invariance": 0.6, "control": 0.1} if constraint is None else constraint
    return recipe.replaced(**{"policy": {"rescale": {"max_factor": 1.1}}, "constraint": asked, **sections})


def row(share: float | None) -> Any:
    return {"shift_information": {"value": share, "low": share, "high": share}}


def test_views_share_all_but_the_shift() -> None:
    images = torch.rand(4, 3, 16, 16, generator=seeded(1))
    augment = Augment(RandomSubpixelShift(3.0), RandomRescale(1.3))
    still, moved = two_views(augment, images, seeded()).unflatten(0, (4, 2)).unbind(1)
    draws = torch.rand(4, augment.draws, generator=seeded())
    assert torch.equal(still, augment(images, draws=draws, strength={"shift": 0.0}))
    assert torch.equal(moved, augment(images, draws=draws))
    assert not torch.equal(still, moved)
    weak = two_views(augment, images, seeded(), 0.0).unflatten(0, (4, 2))
    assert torch.equal(weak[:, 0], images), "a policy of strength 0 leaves the first view as it is"
    assert not torch.equal(weak[:, 1], images), "and the second is shifted all the same"


def test_the_loss_is_cross_entropy_and_divergence() -> None:
    logits, targets = torch.randn(6, 4, dtype=torch.float64, generator=seeded()), torch.tensor([0, 3, 1])
    clean, apart = F.cross_entropy(logits[::2], targets), js_divergence(logits.unflatten(0, (3, 2)))
    torch.testing.assert_close(constrained_loss(logits, targets, 2.5), clean + 2.5 * apart)
    torch.testing.assert_close(constrained_loss(logits, targets, 0.0), clean)
    with pytest.raises(InputError, match="logits"):
        constrained_loss(logits[:5], targets, 1.0)


def test_the_dual_variable_rises_while_the_bound_is_violated_and_never_falls_below_zero(tiny: Recipe) -> None:
    recipe = constrained(tiny)  # bound 0.04
    assert dual_variable(recipe, []) == 0.0
    assert dual_variable(recipe, [row(0.08)]) == pytest.approx(1.0)
    assert dual_variable(recipe, [row(0.08), row(None), {}, row(0.12)]) == pytest.approx(3.0)  # type: ignore[list-item]
    assert dual_variable(recipe, [row(0.08), row(0.0), row(0.0), row(0.06)]) == pytest.approx(0.5)
    faster = constrained(tiny, {"learned_invariance": 0.6, "control": 0.1, "rate": 3.0})
    assert dual_variable(faster, [row(0.08)]) == pytest.approx(3.0)


def test_a_batch_has_two_rows_per_image(tiny: Recipe) -> None:
    batch = Batch(torch.rand(6, 1, 16, 16, generator=seeded()), torch.arange(6), torch.arange(6))
    recipe = constrained(tiny, policy={})
    policy = PolicyInTraining.begin(recipe, [str(k) for k in range(10)], CPU, Process())
    seen = policy.images(batch, 0, 4)
    assert seen.shape == (12, 1, 16, 16)
    assert policy.views == 2
    normalized = (batch.images - recipe.data.mean[0]) / recipe.data.std[0]  # type: ignore[operator]
    torch.testing.assert_close(seen[::2], normalized)
    assert torch.equal(seen, policy.images(batch, 0, 4))
    assert not torch.equal(seen, policy.images(batch, 1, 4))


@pytest.mark.integration
def test_the_control_is_trained_once_and_kept(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = constrained(tiny, {"learned_invariance": 0.5}, train={"epochs": 2, "batch_size": 32})
    whole = augkit.fit(recipe, output=tmp_path / "whole")
    assert whole.recipe.constraint is not None
    assert whole.recipe.constraint.control is not None
    assert Recipe.load(tmp_path / "whole" / "recipe.yaml") == whole.recipe
    augkit.fit(recipe, output=tmp_path / "parts", until=1)
    monkeypatch.setattr("augkit.train.loop._control", None)  # it is in recipe.yaml
    parts = augkit.fit(recipe, output=tmp_path / "parts", resume=True)
    for mine, theirs in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert [r["dual"] for r in parts.history] == [r["dual"] for r in whole.history]
    said = outcome(whole.recipe, whole.history)
    assert said is not None
    assert said.startswith("constraint: at least 50 % learned invariance asked for, validation images show ")
    assert outcome(tiny, whole.history) is None


def test_a_folder_of_another_constraint_is_refused_before_a_control_is_trained(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    augkit.fit(constrained(tiny), output=tmp_path / "run", until=1)
    monkeypatch.setattr("augkit.train.loop._control", None)
    with pytest.raises(InputError, match=r"holds a run of another recipe or seed; resume with its own recipe\.yaml"):
        augkit.fit(constrained(tiny, {"learned_invariance": 0.7}), output=tmp_path / "run", resume=True)


@pytest.mark.integration
def test_a_constraint_gives_more_invariance_than_none(tiny: Recipe) -> None:
    sections = {"data": {"name": "digits", "canvas": 16}, "train": {"epochs": 4, "batch_size": 32}, "policy": {}}
    free = augkit.fit(constrained(tiny, {"learned_invariance": 0.01, "control": 1.0}, **sections))
    held = augkit.fit(constrained(tiny, {"learned_invariance": 0.9, "control": 0.3}, **sections))
    assert all(r["dual"] == 0 for r in free.history)
    assert held.history[-1]["dual"] > 1
    shares = [run.history[-1]["shift_information"]["value"] for run in (free, held)]
    assert None not in shares
    assert shares[1] < 0.5 * shares[0]  # type: ignore[operator]


def test_a_recipe_without_a_constraint_is_what_it_was(tiny: Recipe) -> None:
    assert "constraint" not in tiny.model_dump()
    assert tiny.replaced(constraint=None).digest() == tiny.digest() != constrained(tiny).digest()
    assert constrained(tiny).control().constraint is None


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        ({"policy": {"shift": {"max_pixels": 1.0}}}, "expected no policy.shift, because"),
        ({"policy": {"augmix": {}}}, "expected no policy.augmix, because"),
        ({"policy": {"draws": "even"}}, "expected policy.draws: random beside it, got even"),
        ({"train": {"mixup": 0.2}}, "expected no train.mixup"),
        ({"train": {"cutmix": 0.2}}, "expected no train.mixup or train.cutmix"),
        ({"train": {"patience": 2}}, "expected no train.patience beside it"),
        ({"constraint": {"learned_invariance": 1.0}}, "learned_invariance"),
        ({"constraint": {"learned_invariance": 0.5, "rate": 0}}, "rate"),
    ],
)
def test_bad_input_is_one_line(tiny: Recipe, sections: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        augkit.fit(constrained(tiny, **sections))


def test_a_loader_or_a_control_without_variability_is_refused(tiny: Recipe) -> None:
    recipe = constrained(tiny, {"learned_invariance": 0.5})
    for found in (Estimate(0.0, 0.0, 0.0), Estimate(math.nan, math.nan, math.nan)):
        with pytest.raises(InputError, match="expected a control whose answers depend on the shift"):
            with_control(recipe, found)
    batches: Any = DataLoader(TensorDataset(torch.rand(32, 1, 16, 16), torch.arange(32) % 10), batch_size=16)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    with pytest.raises(InputError, match="expected validation images of a dataset, got a loader"):
        augkit.fit(constrained(tiny), model=model, loader=batches, validation_loader=batches)
