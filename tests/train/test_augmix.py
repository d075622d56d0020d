"""AugMix in training: its loss against a slow reference, the three views, and runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.spatial.distance
import torch
import torch.nn.functional as F
from torch import Tensor

import augkit
from augkit import Augment, AugMix, RandAugment, RandomSubpixelShift
from augkit.core.errors import InputError
from augkit.train.augmix import augmix_loss, js_divergence, three_views
from augkit.train.batches import Batch
from augkit.train.distributed import Process
from augkit.train.policy_in_training import PolicyInTraining
from augkit.train.recipe import Recipe

CPU = torch.device("cpu")
NAMES = [str(k) for k in range(10)]


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_augmix(recipe: Recipe, weight: float = 12.0, **train: Any) -> Recipe:
    policy = {"shift": {"max_pixels": 2.0}, "augmix": {"js_weight": weight}}
    return recipe.replaced(policy=policy, train={"epochs": 2, "batch_size": 32, **train})


def published(logits: Tensor, targets: Tensor, weight: float) -> Tensor:
    """As in the authors' code, which clamps the mean prediction, for views one after the other."""
    clean, one, two = (F.softmax(part, dim=1) for part in logits.unflatten(0, (-1, 3)).unbind(1))
    middle = torch.clamp((clean + one + two) / 3, 1e-7, 1).log()
    apart = sum(F.kl_div(middle, p, reduction="batchmean") for p in (clean, one, two))
    return F.cross_entropy(logits[::3], targets) + weight * apart / 3


def test_the_loss_is_that_of_the_authors_with_its_gradient() -> None:
    logits = torch.randn(15, 7, dtype=torch.float64, generator=seeded()).requires_grad_()
    targets = torch.arange(5)
    mine, theirs = augmix_loss(logits, targets, 12.0), published(logits, targets, 12.0)
    torch.testing.assert_close(mine, theirs)
    found, expected = (torch.autograd.grad(loss, logits)[0] for loss in (mine, theirs))
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(js_divergence, logits.unflatten(0, (-1, 3)).detach().requires_grad_())


def test_the_divergence_of_two_views_is_that_of_scipy() -> None:
    logits = torch.randn(6, 2, 5, dtype=torch.float64, generator=seeded())
    shares = logits.softmax(-1).numpy()
    expected = np.mean([scipy.spatial.distance.jensenshannon(one, two) ** 2 for one, two in shares])
    assert float(js_divergence(logits)) == pytest.approx(expected)
    assert float(js_divergence(logits[:, :1].expand(-1, 3, -1))) == pytest.approx(0, abs=1e-12)
    apart = 1e4 * torch.eye(3, dtype=torch.float64)[None]
    assert float(js_divergence(apart)) == pytest.approx(np.log(3))  # its largest value, without NaN


def test_targets_may_be_shares_and_are_smoothed() -> None:
    logits, targets = torch.randn(9, 4, generator=seeded()), torch.tensor([0, 1, 3])
    whole = augmix_loss(logits, targets, 2.0, 0.1)
    torch.testing.assert_close(augmix_loss(logits, F.one_hot(targets, 4).float(), 2.0, 0.1), whole)
    clean = F.cross_entropy(logits[::3], targets, label_smoothing=0.1)
    torch.testing.assert_close(whole - clean, 2 * js_divergence(logits.unflatten(0, (3, 3))))
    with pytest.raises(InputError, match="logits"):
        augmix_loss(logits[:8], targets)


def test_views_share_all_but_augmix() -> None:
    images = torch.rand(4, 3, 16, 16, generator=seeded(1))
    augment = Augment(RandomSubpixelShift(3.0), RandAugment(1, 9.0), AugMix())
    draws = torch.rand(4, augment.draws, generator=seeded())
    clean, one, two = three_views(augment, images, seeded(), draws=draws).unflatten(0, (4, 3)).unbind(1)
    assert torch.equal(clean, augment(images, draws=draws, strength={"augmix": 0.0}))
    assert torch.equal(one, augment(images, draws=draws))
    assert not torch.equal(two, one)
    assert not torch.equal(one, clean)
    again = three_views(augment, images, seeded(), draws=draws)
    assert torch.equal(again, torch.stack([clean, one, two], dim=1).flatten(0, 1))
    still = three_views(augment, images, seeded(), {"augmix": 0.0}, draws).unflatten(0, (4, 3))
    assert torch.equal(still, clean[:, None].expand(-1, 3, -1, -1, -1))
    with pytest.raises(InputError, match=r"three_views: expected an Augment with AugMix.*add augkit.AugMix\(\)"):
        three_views(Augment(RandomSubpixelShift(1.0)), images, seeded())


@pytest.mark.integration
def test_a_recipe_trains_on_three_views(tiny: Recipe) -> None:
    recipe = with_augmix(tiny)
    batch = Batch(torch.rand(6, 1, 16, 16, generator=seeded()), torch.arange(6), torch.arange(6))
    policy = PolicyInTraining.begin(recipe, NAMES, CPU, Process())
    assert policy.images(batch, 0, 4).shape == (18, 1, 16, 16)
    assert PolicyInTraining.begin(with_augmix(tiny, 0.0), NAMES, CPU, Process()).images(batch, 0, 4).shape[0] == 6
    assert PolicyInTraining.begin(recipe.control(), NAMES, CPU, Process()).images(batch, 0, 4).shape[0] == 6
    first, second = augkit.fit(recipe, seed=1), augkit.fit(recipe, seed=1)
    assert first.history[-1]["loss"] == second.history[-1]["loss"]
    assert first.history[-1]["loss"] < first.history[0]["loss"]


def test_parts_of_a_batch_keep_views_together(tiny: Recipe) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    torch.nn.init.normal_(model[1].weight, std=0.1)
    runs = []
    for parts in (1, 4):
        recipe = with_augmix(tiny, accumulate=parts, steps=3)
        twin = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
        twin.load_state_dict(model.state_dict())
        runs.append(augkit.fit(recipe, model=twin).model[1].weight.detach())
    torch.testing.assert_close(runs[0], runs[1], rtol=0, atol=1e-5)


def test_mixed_targets_are_refused(tiny: Recipe) -> None:
    with pytest.raises(InputError, match=r"policy.augmix.js_weight: expected no train.mixup or train.cutmix"):
        augkit.fit(with_augmix(tiny, mixup=0.2))
