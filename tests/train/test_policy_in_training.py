"""What training adds to a policy: strengths by epoch and class, even draws by image; resumed, in several processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

import augkit
from augkit.augment.even_draws import even_draws
from augkit.compare.study.arms import ArmSettings
from augkit.compare.study.schema import StudySettings, resolve
from augkit.core.errors import InputError
from augkit.train.batches import Batch, make_batches
from augkit.train.distributed import Process
from augkit.train.policy_in_training import PolicyInTraining
from augkit.train.recipe import Recipe

CPU = torch.device("cpu")
NAMES = [str(k) for k in range(10)]
OPS: dict[str, Any] = {"shift": {"max_pixels": 2.0}, "rescale": {"max_factor": 1.2, "p": 0.5}}


def with_policy(recipe: Recipe, **fields: Any) -> Recipe:
    return recipe.replaced(policy={**OPS, **fields})


def batch(count: int = 12) -> Batch:
    images = torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return Batch(images, torch.arange(count) % 10, torch.arange(100, 100 + count))


def seen(recipe: Recipe, step: int = 0, length: int = 4, rank: int = 0, given: Batch | None = None) -> Tensor:
    return PolicyInTraining.begin(recipe, NAMES, CPU, Process(rank, 2)).images(given or batch(), step, length)


def weights(run: augkit.Run) -> Tensor:
    return torch.cat([value.flatten().double() for value in run.model.state_dict().values()])


def test_without_these_fields_images_are_those_of_the_transform(tiny: Recipe) -> None:
    policy = PolicyInTraining.begin(tiny, NAMES, CPU, Process())
    assert policy.strength(torch.arange(3), 1.0) is None
    assert policy.draws(batch(), 1) is None


def test_a_schedule_is_followed_update_by_update(tiny: Recipe) -> None:
    ramp = with_policy(tiny, schedule={"all": [[0, 0.0], [2, 1.0]]}, strength=0.5)
    for step, strength in ((4, 0.25), (5, 0.3125), (8, 0.5), (20, 0.5)):
        assert torch.equal(seen(ramp, step), seen(with_policy(tiny, strength=strength), step))
    policy = PolicyInTraining.begin(ramp, NAMES, CPU, Process())
    assert torch.equal(seen(ramp, 0), policy.augment.finish(batch().images))
    one = with_policy(tiny, schedule={"rescale": [[0, 0.0]]})
    found = PolicyInTraining.begin(one, NAMES, CPU, Process()).strength(torch.arange(3), 0.0)
    assert found == {"shift": 1.0, "rescale": 0.0}


def test_images_of_other_classes_keep_every_bit(tiny: Recipe) -> None:
    for fields in ({}, {"schedule": {"shift": [[0, 0.5]]}}, {"draws": "even"}):
        some, every = with_policy(tiny, classes=[0, "3"], **fields), with_policy(tiny, **fields)
        here = (batch().labels == 0) | (batch().labels == 3)
        plain = PolicyInTraining.begin(some, NAMES, CPU, Process()).augment.finish(batch().images)
        assert torch.equal(seen(some)[~here], plain[~here])
        assert torch.equal(seen(some)[here], seen(every)[here])
        assert not torch.equal(seen(some)[here], plain[here])


def test_of_probabilities_the_most_probable_class_counts(tiny: Recipe) -> None:
    some = with_policy(tiny, classes=[0])
    soft = batch()._replace(labels=torch.nn.functional.one_hot(batch().labels, 10).float() * 0.9 + 0.01)
    assert torch.equal(seen(some, given=soft), seen(some))


def test_classes_are_checked_against_the_data(tiny: Recipe) -> None:
    with pytest.raises(InputError, match=r"policy\.classes: unknown class 'ten'"):
        augkit.fit(with_policy(tiny, classes=["ten"]))
    with pytest.raises(InputError, match=r"policy\.classes: expected numbers from 0 to 9, got 10"):
        augkit.fit(with_policy(tiny, classes=[10]))


def test_even_draws_are_named_by_seed_image_and_epoch(tiny: Recipe) -> None:
    even = with_policy(tiny, draws="even")
    policy = PolicyInTraining.begin(even, NAMES, CPU, Process())
    draws = even_draws([3, 2], batch().numbers, 2, tiny.seed)  # type: ignore[arg-type]
    assert torch.equal(seen(even, 9), policy.augment(batch().images, draws=draws))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    shuffled = Batch(*(values[order] for values in batch()[:3]))  # type: ignore[index]
    # Of another update of the same epoch, and in another process.
    assert torch.equal(seen(even, 11, rank=1, given=shuffled), seen(even, 9)[order])
    assert not torch.equal(seen(even, 12), seen(even, 9))
    assert not torch.equal(seen(even.replaced(seed=1), 9), seen(even, 9))


def test_batches_bring_the_numbers_of_their_images(tiny: Recipe) -> None:
    data = augkit.load_dataset("digits", limit=200)
    alone = list(make_batches(data, tiny, CPU, Process()).epoch(3))
    shares = [list(make_batches(data, tiny, CPU, Process(rank, 2)).epoch(3)) for rank in range(2)]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert whole.numbers is not None
        assert torch.equal(whole.labels, data.train.labels[whole.numbers])  # type: ignore[index]
        assert torch.equal(whole.numbers[0::2], first.numbers)  # type: ignore[arg-type]
        assert torch.equal(whole.numbers[1::2], second.numbers)  # type: ignore[arg-type]
    assert len(torch.cat([each.numbers for each in alone if each.numbers is not None]).unique()) == 192


def test_even_draws_need_the_numbers_of_images(tiny: Recipe) -> None:
    loader = DataLoader(TensorDataset(torch.rand(40, 1, 16, 16), torch.arange(40) % 10), 8)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    with pytest.raises(InputError, match=r"policy\.draws: expected random with a loader of your own, .* got even"):
        augkit.fit(with_policy(tiny, draws="even"), model=net, loader=loader, validation_loader=loader)
    some = with_policy(tiny, classes=[3], schedule={"shift": [[0, 0.5]]})
    assert augkit.fit(some, model=net, loader=loader, validation_loader=loader).history
    with pytest.raises(InputError, match=r"policy\.classes: expected numbers from 0 to 9, got 12"):
        augkit.fit(with_policy(tiny, classes=[12]), model=net, loader=loader, validation_loader=loader)


def test_a_run_resumes_with_the_same_bits(tiny: Recipe, tmp_path: Path) -> None:
    train = {"epochs": 3, "batch_size": 32, "checkpoint_steps": 2}
    fields = {"schedule": {"shift": [[0, 0.0], [2.5, 1.0]]}, "classes": [1, 2, "7"], "draws": "even"}
    recipe = with_policy(tiny, **fields).replaced(train=train)
    whole = augkit.fit(recipe, output=tmp_path / "whole")
    assert Recipe.load(tmp_path / "whole") == recipe

    def stop(done: int, _: int) -> None:
        if done == 9:  # within the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        augkit.fit(recipe, output=tmp_path / "parts", on_step=stop)
    resumed = augkit.fit(recipe, output=tmp_path / "parts", resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    assert not torch.equal(weights(whole), weights(augkit.fit(with_policy(tiny).replaced(train=train))))


def test_worker_ops_are_for_the_same_classes(tiny: Recipe, tmp_path: Path) -> None:
    for k in range(40):
        (tmp_path / "ab"[k % 2]).mkdir(exist_ok=True)
        Image.new("L", (8, 8), 5 * k).save(tmp_path / "ab"[k % 2] / f"{k}.png")
    noise = {"op": "GaussNoise", "std_range": [0.4, 0.5], "p": 1.0}
    data = {"name": f"folder:{tmp_path}", "workers": 0}
    for memory in (0, 2048):  # streamed, and held
        plain = tiny.replaced(data={**data, "memory": memory}, policy={}, train={"epochs": 1, "batch_size": 4})
        noisy = plain.replaced(policy={"worker_ops": [noise], "classes": ["b"]})
        loaded = augkit.load_dataset(plain.data.name, workers=0, memory=memory * 2**20)
        feeds = [make_batches(loaded, recipe, CPU, Process()).epoch(1) for recipe in (plain, noisy)]
        for before, after in zip(*feeds, strict=True):
            assert torch.equal(before.labels, after.labels)
            changed = (before.images != after.images).flatten(1).any(1)  # type: ignore[union-attr, operator]
            assert torch.equal(changed, before.labels == 1)


def test_arms_of_a_study_have_schedules_classes_and_even_draws() -> None:
    schedule = {"shift": [[0, 0.0], [3, 1.0]]}
    fields = {"policy.shift.max_pixels": 3, "policy.schedule": schedule, "policy.classes": [0, 3]}
    settings = StudySettings(
        name="strengths",
        recipe="mnist5k",
        overrides={"policy.draws": "even"},
        architectures={"plain": {}},
        policies={"ramp": fields},
        arms=[ArmSettings(architectures=["plain"], policies=["none", "ramp"], strengths=[0.5])],
    )
    policy = resolve(settings, "quick", "study").arms["plain+ramp@0.5"].recipe.policy
    assert (policy.schedule, policy.classes, policy.draws) == (schedule, [0, 3], "even")
    assert policy.strength_of("shift", 1.5) == 0.25


def test_digests_made_before_these_fields_still_hold() -> None:
    assert Recipe.load("mnist5k").digest() == "d8666b501575"
    for override in ("policy.draws=even", "policy.classes=[1]", "policy.schedule.shift=[[0, 1]]"):
        assert Recipe.load("mnist5k", [override]).digest() != "d8666b501575"
    assert Recipe.load("mnist5k", ["policy.draws=random", "policy.classes=null"]).digest() == "d8666b501575"
    assert Recipe.load("mnist5k", ["policy.draws=even"]).control() == Recipe.load("mnist5k").control()


def test_a_share_of_every_class_is_augmented_the_same_images_in_all_epochs(tiny: Recipe) -> None:
    data, some = augkit.load_dataset("digits"), with_policy(tiny, share=0.5)
    feed = make_batches(data, some, CPU, Process())
    labels, found = data.train.labels, list[dict[int, bool]]()
    assert labels is not None
    for epoch in range(2):
        batches = list(feed.epoch(epoch))
        numbers = torch.cat([each.numbers for each in batches if each.numbers is not None])
        flags = torch.cat([each.augmented for each in batches if each.augmented is not None])
        found.append(dict(zip(numbers.tolist(), flags.tolist(), strict=True)))
    assert all(found[1][k] == flag for k, flag in found[0].items() if k in found[1])
    every = found[1] | found[0]  # an epoch leaves out the last, smaller batch
    for label in range(10):
        flags = torch.tensor([flag for k, flag in every.items() if labels[k] == label])
        assert abs(flags.float().mean() - 0.5) < 0.06
    policy = PolicyInTraining.begin(some, NAMES, CPU, Process())
    given = batch()._replace(augmented=torch.arange(12) % 2 == 0)
    plain = policy.augment.finish(given.images)
    moved = policy.images(given, 0, 5)
    assert torch.equal(moved[1::2], plain[1::2])
    assert not torch.equal(moved[0::2], plain[0::2])


def test_share_and_classes_go_together(tiny: Recipe) -> None:
    policy = PolicyInTraining.begin(with_policy(tiny, share=0.5, classes=[0, 1, 2, 3, 4, 5]), NAMES, CPU, Process())
    given = batch()._replace(augmented=torch.arange(12) % 2 == 0)
    strength = policy.strength(given.labels, 0, given.augmented)
    assert torch.equal(torch.as_tensor(strength).bool(), (given.labels < 6) & (torch.arange(12) % 2 == 0))


def test_a_share_needs_the_numbers_of_images(tiny: Recipe) -> None:
    loader = DataLoader(TensorDataset(torch.rand(40, 1, 16, 16), torch.arange(40) % 10), 8)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    with pytest.raises(InputError, match=r"policy\.share: expected 1 with a loader of your own, .* got 0\.5"):
        augkit.fit(with_policy(tiny, share=0.5), model=net, loader=loader, validation_loader=loader)
    with pytest.raises(InputError, match=r"share"):
        with_policy(tiny, share=0.0)
