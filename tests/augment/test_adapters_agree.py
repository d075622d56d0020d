"""Every adapter gives what `Augment` gives for the same draw: adapter x op x target x dtype x layout."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from key_points import key_points
from own_ops import NAMES, make_op
from torch import Tensor
from torchvision import tv_tensors

import augkit
from augkit import Augment
from augkit.adapters.batch import Keys
from augkit.adapters.collate import Collate
from augkit.adapters.huggingface import DatasetTransform
from augkit.adapters.timm import AugmentedLoader
from augkit.adapters.torchvision import Geometry
from augkit.augment.albumentations_twin import PolicyTransform
from augkit.augment.ops import op_specs
from augkit.core.random_streams import AUGMENTATION, random_stream

Sample = dict[str, Tensor]
KEYS = Keys("images", masks="masks", boxes="boxes", keypoints="keypoints")
OWN: dict[str, Callable[[], Any]] = {name: partial(make_op, name) for name in NAMES}
OWN |= {
    "shift": lambda: augkit.RandomSubpixelShift(3.0, p=0.8),
    "crop": lambda: augkit.RandomSubpixelCrop((14, 17), area=(0.5, 0.9)),
    "blur": lambda: augkit.RandomShiftBlur(2.0),
}
KORNIA: dict[str, dict[str, Any]] = {
    "rotation": {"op": "RandomRotation", "degrees": 30.0, "p": 0.8},
    "affine": {"op": "RandomAffine", "degrees": 20.0, "translate": [0.1, 0.1], "scale": [0.8, 1.2], "p": 1.0},
    "perspective": {"op": "RandomPerspective", "distortion_scale": 0.4, "p": 0.9},
    "vertical": {"op": "RandomVerticalFlip", "p": 0.5},
    "jiggle": {"op": "ColorJiggle", "brightness": 0.3, "contrast": 0.3, "p": 1.0},
    "noise": {"op": "RandomGaussianNoise", "std": 0.1, "p": 1.0},
    "plasma": {"op": "RandomPlasmaShadow", "p": 1.0},
}
FIELDS = {name: spec.example(30).model_dump() for name, spec in op_specs().items()}
ALONE = ("torchvision one", "hugging face")  # adapters that see one image at a time


def kornia_op(name: str) -> Any:
    return getattr(K, KORNIA[name]["op"])(**{key: value for key, value in KORNIA[name].items() if key != "op"})


def targets_of(out: Any, sample: Sample) -> Sample:
    """What `Augment` gave for the entries of ``sample``."""
    return {"images": out} if isinstance(out, Tensor) else {name: getattr(out, name) for name in sample}


def from_augment(augment: Augment, sample: Sample, **options: Any) -> Sample:
    others = {name: value for name, value in sample.items() if name != "images"}
    return targets_of(augment(sample["images"], **others, **options), sample)


def keys_of(sample: Sample) -> Keys:
    return Keys(**{name: name if name in sample else None for name in ("images", "masks", "boxes", "keypoints")})


def from_collate(augment: Augment, sample: Sample) -> Sample:
    rows = [{name: values[k] for name, values in sample.items()} for k in range(len(sample["images"]))]
    return Collate(augment, keys_of(sample))(rows)


def from_lightning(augment: Augment, sample: Sample) -> Sample:
    pytest.importorskip("lightning", reason="needs the extra 'lightning'")
    from augkit.adapters.lightning import AugmentCallback

    batch = dict(sample)
    AugmentCallback(augment, keys_of(sample)).on_train_batch_start(None, None, batch, 0)
    return batch


def from_timm(augment: Augment, sample: Sample) -> Sample:
    return next(iter(AugmentedLoader([sample], augment, keys_of(sample))))


def from_torchvision(augment: Augment, sample: Sample) -> Sample:
    """A batch, whose boxes and keypoints cannot be told apart by image."""
    given = {"images": tv_tensors.Image(sample["images"])}
    given |= {"masks": tv_tensors.Mask(sample["masks"])} if "masks" in sample else {}
    return {**sample, **Geometry(augment)(given)}


def from_torchvision_one(augment: Augment, sample: Sample) -> Sample:
    size = tuple(sample["images"].shape[-2:])
    wrap = {
        "images": tv_tensors.Image,
        "masks": tv_tensors.Mask,
        "boxes": lambda rows: tv_tensors.BoundingBoxes(rows, format="XYXY", canvas_size=size),
        "keypoints": lambda rows: key_points(rows, size),
    }
    out = Geometry(augment)({name: wrap[name](values[0]) for name, values in sample.items()})
    return {name: values.as_subclass(Tensor)[None] for name, values in out.items()}


def from_hugging_face(augment: Augment, sample: Sample) -> Sample:
    rows = {"image": list(sample["images"])}
    return {**sample, "images": torch.stack(DatasetTransform(augment)(rows)["pixel_values"])}


ADAPTERS: dict[str, Callable[[Augment, Sample], Sample]] = {
    "collate": from_collate,
    "lightning": from_lightning,
    "timm": from_timm,
    "torchvision": from_torchvision,
    "torchvision one": from_torchvision_one,
    "hugging face": from_hugging_face,
}
MOVES_ALL = ("collate", "lightning", "timm", "torchvision one")


def sample_of(seed: int, batch: int, channels: int, dtype: torch.dtype, layout: str) -> Sample:
    """Images with all targets, of which tests take a few."""
    generator = torch.Generator().manual_seed(seed)
    height, width = 18, 23
    images = torch.rand(batch, channels, height, 2 * width, generator=generator)[..., ::2]
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
    if layout != "strided":
        like = torch.channels_last if layout == "channels_last" else torch.contiguous_format
        images = images.contiguous(memory_format=like)
    corners = torch.rand(batch, 3, 2, 2, generator=generator).sort(dim=2).values * torch.tensor([width, height])
    return {
        "images": images,
        "masks": torch.randint(0, 2**40, (batch, 2, height, width), generator=generator),
        "boxes": corners.flatten(2),
        "keypoints": torch.rand(batch, 4, 2, generator=generator) * 17,
    }


def check_same(found: Sample, expected: Sample, names: set[str], valid: Tensor | None = None) -> None:
    for name in names:
        assert found[name].dtype == expected[name].dtype, name
        want = expected[name]
        if name == "boxes" and valid is not None:  # a box that is not visible is empty
            want = torch.where(valid[..., None], want, 0.0)
        torch.testing.assert_close(found[name], want, msg=lambda text, name=name: f"{name}: {text}")


def check_adapter(
    adapter: str, ops: list[str], kept: set[str], sample: Sample, seed: int, options: dict[str, Any]
) -> None:
    augment = Augment(
        *(OWN[name]() for name in OWN if name in ops), *map(kornia_op, filter(KORNIA.get, ops)), **options
    )
    sample = {name: values for name, values in sample.items() if name == "images" or name in kept}
    sample = {name: values[:1] for name, values in sample.items()} if adapter in ALONE else sample
    before = {name: values.clone() for name, values in sample.items()}
    torch.manual_seed(seed)
    found = ADAPTERS[adapter](augment, sample)
    torch.manual_seed(seed)
    if adapter in MOVES_ALL:
        out = augment(**before)
        valid = getattr(out, "boxes_valid", None) if adapter == "torchvision one" else None
        check_same(found, targets_of(out, before), set(before), valid)
    else:
        moved = {"images", "masks"} & set(before) if adapter == "torchvision" else {"images"}
        check_same(found, from_augment(augment, {name: before[name] for name in moved}), moved)
    assert all(torch.equal(before[name], sample[name]) for name in before)  # nothing is changed in place


def check_twin(ops: list[str], kept: set[str], array: np.ndarray, seed: int, options: dict[str, Any]) -> None:
    """The twin against `Augment` with the numbers that the twin's own generator gives."""
    fields = {name: FIELDS[name] for name in FIELDS if name in ops} | options
    policy = augkit.Policy(**fields, ops=[KORNIA[name] for name in ops if name in KORNIA])
    twin, augment = PolicyTransform(policy), policy.augment()
    numbers = np.random.default_rng(seed)
    twin.set_random_state(np.random.default_rng(seed), random.Random(seed))
    sample = sample_of(seed, 1, 1, torch.uint8, "plain")
    height, width = array.shape[:2]
    mask, boxes = np.arange(height * width).reshape(height, width), sample["boxes"][0].numpy()
    points = sample["keypoints"][0].numpy()
    params = twin.get_params_dependent_on_data({"shape": array.shape}, dict.fromkeys(kept))
    found = {
        "images": twin.apply(array, **params),
        "masks": twin.apply_to_mask(mask, **params),
        "boxes": twin.apply_to_bboxes(boxes / [width, height, width, height], **params, shape=array.shape),
        "keypoints": twin.apply_to_keypoints(points, **params),
    }
    draws = torch.from_numpy(numbers.random((1, augment.draws), dtype=np.float32))
    stream = random_stream(int(numbers.integers(2**62)), AUGMENTATION, 0)
    image = torch.from_numpy(np.ascontiguousarray(array)).reshape(height, width, -1).permute(2, 0, 1)[None]
    with mock.patch("augkit.augment.composed_geometry.draw", return_value=draws):
        out = augment(
            image,
            masks=torch.from_numpy(mask)[None, None],
            boxes=sample["boxes"],
            keypoints=sample["keypoints"],
            generator=torch.Generator().manual_seed(stream),
        )
    images = out.images[0].permute(1, 2, 0).numpy().reshape(found["images"].shape)
    np.testing.assert_allclose(found["images"], images, atol=1e-6)
    np.testing.assert_array_equal(found["masks"], out.masks[0, 0].numpy())
    size = out.images.shape[-2:]
    moved = torch.from_numpy(found["boxes"] * [size[1], size[0], size[1], size[0]]).float()
    clipped = torch.stack([moved[:, 0::2].clamp(0, size[1]), moved[:, 1::2].clamp(0, size[0])], -1).flatten(1)
    torch.testing.assert_close(clipped, out.boxes[0], atol=1e-3, rtol=1e-4)
    np.testing.assert_allclose(found["keypoints"], out.keypoints[0].numpy(), atol=1e-3)


ops_of = st.lists(st.sampled_from([*OWN, *KORNIA]), min_size=1, max_size=4, unique=True)
kept_of = st.sets(st.sampled_from(["masks", "boxes", "keypoints"]))
options_of = st.fixed_dictionaries(
    {"kernel": st.sampled_from(["bilinear", "lanczos3"]), "padding": st.sampled_from(["zeros", "reflection"])},
    optional={"strength": st.sampled_from([0.0, 0.6]), "min_visible_area": st.just(0.3)},
)
dtypes_of = st.sampled_from([torch.uint8, torch.float32, torch.float64, torch.float16])
layouts = st.sampled_from(["plain", "channels_last", "strided"])
forms = st.tuples(dtypes_of, layouts, st.integers(1, 3))
seeds = st.integers(0, 2**31)


def adapters_agree(examples: int) -> Callable[[], None]:
    @settings(max_examples=examples)
    @given(st.sampled_from(list(ADAPTERS)), ops_of, kept_of, options_of, forms, seeds)
    def run(
        adapter: str,
        ops: list[str],
        kept: set[str],
        options: dict[str, Any],
        form: tuple[torch.dtype, str, int],
        seed: int,
    ) -> None:
        dtype, layout, batch = form
        check_adapter(adapter, ops, kept, sample_of(seed, batch, 3, dtype, layout), seed, options)

    return run


def twin_agrees(examples: int) -> Callable[[], None]:
    @settings(max_examples=examples)
    @given(ops_of.filter(lambda ops: "blur" not in ops), kept_of, options_of, st.booleans(), layouts, seeds)
    def run(ops: list[str], kept: set[str], options: dict[str, Any], whole: bool, layout: str, seed: int) -> None:
        options = {name: value for name, value in options.items() if name != "min_visible_area"}
        array = sample_of(seed, 1, 3, torch.uint8 if whole else torch.float32, "plain")["images"][0].permute(1, 2, 0)
        seen = array.numpy()[:, ::-1] if layout == "strided" else array.contiguous().numpy()
        check_twin(ops, kept, seen, seed, options)

    return run


def test_adapters_agree_with_augment() -> None:
    adapters_agree(40)()


def test_the_twin_agrees_with_augment() -> None:
    twin_agrees(30)()


@pytest.mark.slow
def test_adapters_agree_with_augment_over_many_samples() -> None:
    adapters_agree(3000)()
    twin_agrees(1500)()
