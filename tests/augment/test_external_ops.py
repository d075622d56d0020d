"""Ops of Kornia and albumentations in a policy: how they are built, their laws, and one line for each mistake."""

from __future__ import annotations

import pickle
import random
from typing import Any

import albumentations
import kornia.augmentation as K
import numpy as np
import pytest
import torch
from torch import Tensor

import augkit
from augkit import Policy
from augkit.augment.policy import search_space, with_values
from augkit.core.errors import InputError
from augkit.core.schema import validate
from augkit.data import Dataset
from augkit.train.recipe import Recipe

SHIFT = {"op": "RandomSubpixelShift", "max_pixels": 2.0}
JITTER = {"op": "ColorJiggle", "brightness": 0.4, "contrast": [0.6, 1.4], "p": 1.0}
ROTATION = {"op": "RandomRotation", "degrees": 20.0, "p": 1.0}
ELASTIC = {"op": "RandomElasticTransform", "p": 1.0}
NOISE = {"op": "GaussNoise", "std_range": [0.1, 0.2], "p": 1.0}
FLIP = {"op": "HorizontalFlip", "p": 0.5}


def policy(**fields: Any) -> Policy:
    return validate(Policy, fields, "policy")


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (6, 3, 16, 16), dtype=torch.uint8)


def test_device_ops_are_those_classes_in_that_order() -> None:
    augment = policy(flip={}, ops=[JITTER, SHIFT, ROTATION]).augment()
    assert [type(op).__name__ for op in augment.ops] == [
        "RandomHorizontalFlip",
        "RandomSubpixelShift",
        "ColorJiggle",
        "RandomRotation",
    ]


def test_own_ops_in_the_list_are_the_fields_of_the_same_name(images: Tensor) -> None:
    listed, field = policy(ops=[SHIFT]).augment(), policy(shift={"max_pixels": 2.0}).augment()
    generators = [torch.Generator().manual_seed(4) for _ in range(2)]
    assert torch.equal(listed(images, generator=generators[0]), field(images, generator=generators[1]))


def test_kornias_ops_follow_the_geometry(images: Tensor) -> None:
    augment = policy(shift={"max_pixels": 2.0}, ops=[JITTER, ROTATION]).augment(dtype=torch.float32)
    torch.manual_seed(3)
    out = augment(images)
    torch.manual_seed(3)
    expected = policy(shift={"max_pixels": 2.0}).augment(dtype=torch.float32)(images).clamp(0, 1)
    for op in (K.ColorJiggle(0.4, (0.6, 1.4), p=1.0), K.RandomRotation(20.0, p=1.0)):
        expected = op(expected)
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize("ops", [[JITTER], [ROTATION], [ROTATION, SHIFT, JITTER]], ids=str)
def test_laws_on_the_device(images: Tensor, ops: list[dict[str, Any]]) -> None:
    augment, before = policy(ops=ops).augment(), images.clone()
    state = torch.random.get_rng_state()
    first, second = (augment(images, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(images, before)
    assert not torch.equal(first, images)
    assert torch.equal(augment(images, strength=0.0), images)
    assert torch.equal(augment.eval()(images), images)


def test_targets_cannot_follow_an_op_without_a_matrix(images: Tensor) -> None:
    augment = policy(ops=[ELASTIC]).augment()
    with pytest.raises(InputError, match="cannot follow Kornia's RandomElasticTransform, which has no matrix; leave"):
        augment(images, keypoints=torch.rand(6, 2, 2))
    for op in (JITTER, ROTATION):
        assert policy(ops=[op]).augment()(images, keypoints=torch.rand(6, 2, 2)).keypoints.shape == (6, 2, 2)


def test_worker_ops_depend_on_seed_epoch_and_image_alone(images: Tensor) -> None:
    step = policy(worker_ops=[NOISE, FLIP]).worker_step(3, 1)
    assert step is not None
    numbers, before = torch.tensor([5, 2, 9, 0, 1, 7]), images.clone()
    whole = step(images, numbers)
    assert whole.dtype == torch.uint8
    assert torch.equal(images, before)
    order = torch.randperm(6)
    one_by_one = torch.cat([step(images[k : k + 1], numbers[k : k + 1]) for k in order.tolist()])
    assert torch.equal(one_by_one, whole[order])
    assert torch.equal(pickle.loads(pickle.dumps(step))(images, numbers), whole)
    for seed, epoch in ((3, 2), (4, 1)):
        other = policy(worker_ops=[NOISE, FLIP]).worker_step(seed, epoch)
        assert other is not None
        assert not torch.equal(other(images, numbers), whole)


def test_worker_ops_are_albumentations_own(images: Tensor) -> None:
    step = policy(worker_ops=[NOISE]).worker_step(0, 0)
    assert step is not None
    mixed = np.random.SeedSequence([0, 0, 11])
    reference = albumentations.Compose([albumentations.GaussNoise((0.1, 0.2), p=1.0)])
    reference.set_random_state(np.random.default_rng(mixed), random.Random(int(mixed.generate_state(2)[1])))
    expected = reference(image=images[0].permute(1, 2, 0).contiguous().numpy())["image"]
    assert np.array_equal(step(images[:1], torch.tensor([11]))[0].permute(1, 2, 0).numpy(), expected)


def test_worker_ops_draw_independently_of_each_other() -> None:
    step = policy(worker_ops=[FLIP, {"op": "VerticalFlip", "p": 0.5}]).worker_step(0, 0)
    assert step is not None
    images = torch.tensor([[1, 2], [3, 4]], dtype=torch.uint8).expand(800, 1, 2, 2).contiguous()
    corner = step(images, torch.arange(800))[:, 0, 0, 0]  # 1 by no flip, 2 and 3 by one, 4 by both
    assert all(150 < int((corner == value).sum()) < 250 for value in (1, 2, 3, 4))


def test_strength_is_the_share_of_images_that_the_twin_changes() -> None:
    twin = policy(worker_ops=[NOISE], strength=0.5).albumentations(seed=0)
    image = np.full((4, 4, 3), 100, np.uint8)
    changed = sum(bool((twin(image=image)["image"] != image).any()) for _ in range(400))
    assert 150 < changed < 250


def test_strength_is_the_share_of_images_that_workers_change() -> None:
    images, numbers = torch.full((600, 1, 4, 4), 100, dtype=torch.uint8), torch.arange(600)
    assert policy(worker_ops=[NOISE], strength=0.0).worker_step(0, 0) is None
    half = policy(worker_ops=[NOISE], strength=0.5).worker_step(0, 0)
    assert half is not None
    changed = (half(images, numbers) != images).flatten(1).any(1).sum()
    assert 250 < int(changed) < 350


@pytest.mark.parametrize("workers", [0, 2])
def test_training_runs_them_in_workers(tiny: Recipe, digits: Dataset, workers: int) -> None:
    data = {**tiny.data.model_dump(), "workers": workers}
    recipe = tiny.replaced(data=data, policy={"worker_ops": [NOISE], "ops": [{**JITTER, "contrast": 0.0}]})
    recipe = recipe.replaced(train={"epochs": 1, "batch_size": 32})
    losses = [augkit.fit(recipe).history[-1]["loss"] for _ in range(2)]
    assert losses[0] == losses[1]
    plain = augkit.fit(recipe.replaced(policy={"ops": [{**JITTER, "contrast": 0.0}]})).history[-1]["loss"]
    assert plain != losses[0]
    alone = recipe.replaced(data={**data, "workers": 0})
    assert augkit.fit(alone).history[-1]["loss"] == losses[0]


def test_ops_that_change_the_size_are_refused_before_training(tiny: Recipe) -> None:
    resize = {"op": "Resize", "height": 5, "width": 5}
    with pytest.raises(InputError, match=r"policy\.worker_ops: expected Resize to keep uint8 .*got uint8 \(5, 5, 1\)"):
        augkit.fit(tiny.replaced(policy={"worker_ops": [resize]}))


def test_the_twin_has_worker_ops_before_and_kornias_in_it() -> None:
    twin = policy(shift={"max_pixels": 1.0}, worker_ops=[FLIP], ops=[JITTER]).albumentations(seed=0)
    assert [type(op).__name__ for op in twin.transforms] == ["HorizontalFlip", "PolicyTransform"]
    image = np.full((6, 6, 3), 100, np.uint8)
    assert (twin(image=image)["image"] != image).all()


def test_ops_in_a_policy_are_dumped_and_read_back(images: Tensor) -> None:
    both = policy(shift={"max_pixels": 1.0}, ops=[JITTER], worker_ops=[NOISE])
    assert Policy.from_yaml(both.to_yaml()) == both
    none = policy(worker_ops=[{"op": "PixelDropout", "drop_value": None}])
    assert Policy.from_yaml(none.to_yaml()).worker_ops[0].arguments == {"drop_value": None}
    assert str(both) == (
        "shift (max_pixels 1, p 1), ColorJiggle (brightness 0.4, contrast [0.6, 1.4], p 1.0),"
        " GaussNoise (std_range [0.1, 0.2], p 1.0) in workers"
    )
    assert not policy(ops=[JITTER]).is_identity
    assert not policy(worker_ops=[NOISE]).is_identity
    assert list(search_space(both)) == ["shift.max_pixels", "shift.p"]
    assert with_values(both, {"shift.max_pixels": 3.0}).ops == both.ops
    properties = Policy.model_json_schema()["$defs"]["Op"]
    assert properties["additionalProperties"]
    assert properties["required"] == ["op"]


def test_overrides_reach_into_the_lists() -> None:
    recipe = Recipe.load("mnist5k", ["policy.ops=[{op: RandomSubpixelShift}]", "policy.ops.0.max_pixels=3"])
    assert recipe.policy.ops[0].arguments == {"max_pixels": 3}
    assert recipe.digest() != Recipe.load("mnist5k").digest()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.ops=[{op: ColorJigle}]", r"policy\.ops\.0: expected a class of kornia.* did you mean 'ColorJiggle'"),
        ("policy.ops=[{op: RandomSubpixelShft}]", "did you mean 'RandomSubpixelShift'"),
        ("policy.ops=[{op: Normalize}]", "unknown op 'Normalize'"),
        ("policy.ops=[{op: Resize}]", "that keeps the size; unknown op 'Resize'"),
        ("policy.ops=[{op: RandomResizedCrop, size: [8, 8]}]", "that keeps the size; unknown op 'RandomResizedCrop'"),
        ("policy.ops=[{op: RandomInvert}, {op: Nothing}]", r"policy\.ops\.1: .*got {'op': 'Nothing'}$"),
        ("policy.ops=[{op: RandomErasing, scal: 1}]", "unknown argument 'scal': did you mean 'scale'"),
        ("policy.ops=[{op: RandomSubpixelShift, max_pixels: -1}]", "arguments that RandomSubpixelShift takes"),
        ("policy.ops=[{brightness: 1}]", "policy.ops.0.op: expected a value, the key is missing"),
        ("policy.ops=[ColorJiggle]", "policy.ops.0: expected"),
        ("policy.worker_ops=[{op: GausNoise}]", "class of albumentations .*did you mean 'GaussNoise'"),
        ("policy.worker_ops=[{op: GaussNoise, std_rang: 1}]", "unknown argument 'std_rang': did you mean 'std_range'"),
        (
            "policy.worker_ops=[{op: GaussNoise, p: 2}]",
            r"GaussNoise takes \(p: Input should be less than .*to 1\), got",
        ),
        ("policy.worker_ops=[{op: os.system}]", "unknown op 'os.system'"),
        ("policy.worker_ops=[{op: Compose}]", "unknown op 'Compose'"),
    ],
)
def test_mistakes_get_one_line(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Recipe.load("mnist5k", [override])
    assert "\n" not in str(caught.value)
