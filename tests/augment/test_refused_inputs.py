"""`Augment` and its adapters refuse inputs in one line, before torch, Kornia, Pillow or albumentations get them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import kornia.augmentation as K
import numpy as np
import pytest
import torch
from torchvision import tv_tensors

import augkit
from augkit.adapters.torchvision import Geometry
from augkit.augment.albumentations_twin import PolicyTransform
from augkit.core.errors import InputError

X = torch.rand(2, 3, 8, 8)
SHIFT = augkit.Augment(augkit.RandomSubpixelShift(1.0))
BOXES = torch.tensor([[[1.0, 1.0, 5.0, 5.0]]]).expand(2, 1, 4)
POLICY: Any = augkit.Policy(shift={"max_pixels": 1.0})
PICTURE = np.zeros((8, 8, 3), np.uint8)


def twin(**data: Any) -> Any:
    return POLICY.albumentations(seed=0)(**data)


def another_depth(op: Any, first: int, second: int) -> Any:
    images = [tv_tensors.Image(X[0, :channels]) for channels in (first, second)]
    return Geometry(augkit.Augment(op))(*images)


def alone(**data: Any) -> Any:
    """Without albumentations' `Compose`, which looks at types of its own accord."""
    return PolicyTransform({"shift": {"max_pixels": 1.0}})(**data)


def unmoved(image: np.ndarray) -> Any:
    """Where the draw is the identity, which any array would pass."""
    return PolicyTransform({"flip": {"p": 0.0}})(image=image)


def geometry(*sample: Any) -> Any:
    return Geometry(SHIFT)(*sample)


def boxes_of(dtype: torch.dtype) -> Any:
    return tv_tensors.BoundingBoxes(torch.ones(1, 4).to(dtype), format="XYXY", canvas_size=(8, 8))  # type: ignore[call-overload]


def replay_on_more_images() -> Any:
    op = augkit.RandomSubpixelShift(1.0)
    op(X)
    return op(torch.cat([X, X]), params=op._params)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SHIFT(X.to_sparse()), "expected a dense tensor .* sparse_coo"),
        (lambda: SHIFT(torch.nested.nested_tensor([X[0], X[1]], layout=torch.jagged)), "dense tensor .*a nested one"),
        (lambda: SHIFT(X.to(torch.float8_e4m3fn)), "expected a floating dtype or uint8, got torch.float8"),
        (lambda: augkit.Augment(normalize=([math.nan], [1.0])), "normalize: expected finite"),
        (lambda: augkit.Augment(normalize=([0.0], [math.inf])), "normalize: expected finite"),
        (lambda: augkit.Augment(normalize=([0.5], [1e-60])), "normalize: expected finite"),
        (lambda: augkit.Augment(normalize=([], [])), "normalize: expected finite"),
        (lambda: augkit.Augment(antialias="no"), "antialias: expected True or False, got 'no'"),  # type: ignore[arg-type]
        (lambda: augkit.Augment(same_on_batch="no"), "same_on_batch: expected True"),  # type: ignore[arg-type]
        (lambda: augkit.RandomSubpixelShift(1.0, same_on_batch="no"), "same_on_batch: expected True"),  # type: ignore[arg-type]
        (lambda: SHIFT(X, masks=X.to_sparse()), "masks: expected a dense tensor"),
        (lambda: SHIFT(X, masks=X.to(torch.float8_e5m2)), "masks: expected a real tensor .* torch.float8"),
        (lambda: SHIFT(X.to("meta")), "images: expected pixels, got a tensor on the device meta"),
        (lambda: augkit.RandomShiftBlur(1.0)(X.to("meta")), "images: expected pixels"),
        (lambda: augkit.Augment(normalize=([0.5] * 3, [0.5] * 3))(X.to("meta")), "images: expected pixels"),
        (lambda: augkit.resample(X.to("meta"), torch.eye(3)), "images: expected pixels"),
        (lambda: augkit.fourier_shift(X.to("meta"), [0.5, 0.0]), "images: expected pixels"),
        (lambda: augkit.shift_blur(X.to("meta"), [0.5, 0.0]), "images: expected pixels"),
        (lambda: SHIFT(X, masks=X.to("meta")), "masks: expected a tensor on cpu, .* on meta"),
        (lambda: SHIFT(X, boxes=BOXES.to_sparse()), "boxes: expected a dense tensor"),
        (lambda: SHIFT(X, boxes=BOXES.to(torch.float8_e5m2)), "boxes: expected a floating tensor .* torch.float8"),
        (lambda: SHIFT(X, boxes=BOXES.to("meta")), "boxes: expected a tensor on cpu, .* on meta"),
        (lambda: SHIFT(X, keypoints=BOXES[..., :2].to_sparse()), "keypoints: expected a dense tensor"),
        (lambda: SHIFT(X, strength=torch.ones(2).to_sparse()), "strength: expected a dense tensor"),
        (lambda: SHIFT(X, strength=torch.ones(2, dtype=torch.complex64)), "strength: .* got torch.complex64"),
        (lambda: SHIFT(X, strength=torch.full((2,), 2, dtype=torch.uint16)), r"strength: expected values in \[0, 1\]"),
        (lambda: SHIFT(X, matrix=torch.eye(3, device="meta")), "matrix: expected a tensor on cpu, .* on meta"),
        (lambda: augkit.resample(X, torch.eye(3), antialias="no"), "antialias: expected True"),  # type: ignore[arg-type]
        (lambda: SHIFT(X, matrix=torch.eye(3).to_sparse()), "matrix: expected a dense tensor"),
        (lambda: SHIFT(X, matrix=torch.eye(3).to(torch.float8_e5m2)), "matrix: expected a floating tensor"),
        (lambda: SHIFT(X, matrix=torch.eye(3), blur=BOXES[0, :, :2].to_sparse()), "shift: expected a dense tensor"),
        (lambda: augkit.fourier_shift(X, torch.zeros(2, dtype=torch.complex64)), "shift: expected real numbers"),
        (lambda: augkit.RandomSubpixelShift(1.0)(X, params={}), "params: expected those that the op drew"),
        (
            lambda: SHIFT.render(torch.cat([X, X]), torch.eye(3)[None]),
            "matrix: expected one for each of 4 images",
        ),
        (replay_on_more_images, "params: expected draws for a batch of 4, got them for 2"),
        (lambda: Geometry("shift"), "Geometry: expected an augkit.Augment, got str"),  # type: ignore[arg-type]
        (lambda: geometry(tv_tensors.Image(X), tv_tensors.Image(X[0])), "Geometry: expected images of one batch"),
        (lambda: geometry(tv_tensors.Image(X[:1]), tv_tensors.Image(X)), "Geometry: expected images of one batch"),
        (lambda: geometry(X[0].to_sparse()), "images: expected a dense tensor"),
        (lambda: geometry(tv_tensors.Image(X[0]), tv_tensors.Mask(X[0, 0].to(torch.float8_e5m2))), "masks: .*float8"),
        (
            lambda: geometry(tv_tensors.Image(X[0]), boxes_of(torch.bool)),
            "BoundingBoxes: .* got torch.bool",
        ),
        (lambda: geometry(tv_tensors.Image(X[0]), boxes_of(torch.complex64)), "BoundingBoxes: .* torch.complex64"),
        (
            lambda: another_depth(K.RandomGaussianNoise(p=1.0), 3, 1),
            "RandomGaussianNoise drew for images of 3",
        ),
        (
            lambda: another_depth(K.RandomGaussianNoise(p=1.0), 1, 3),
            "RandomGaussianNoise drew for images of 1",
        ),
        (lambda: another_depth(K.RandomChannelDropout(p=1.0), 1, 3), "RandomChannelDropout drew for images of 1"),
        (lambda: twin(image=PICTURE.astype(np.complex64)), "numbers of at most 64 bits, got complex64"),
        (lambda: twin(image=PICTURE.astype(object)), "numbers of at most 64 bits, got object"),
        (lambda: unmoved(PICTURE.astype(np.complex64)), "numbers of at most 64 bits, got complex64"),
        (lambda: alone(image=[[1, 2], [3, 4]]), "expected numpy arrays as images, got list"),
        (lambda: alone(image=X[0]), "expected numpy arrays as images, got Tensor"),
        (lambda: alone(image=PICTURE[:0]), "expected at least one pixel"),
        (lambda: alone(image=PICTURE, mask=X[0, 0]), "mask: expected a numpy array, got Tensor"),
        (lambda: alone(image=PICTURE, mask=np.zeros(8, np.uint8)), r"mask: expected \(H, W\)"),
        (lambda: POLICY.albumentations(seed="a"), "seed: expected an integer of at least 0, got 'a'"),
        (lambda: augkit.Policy.from_yaml(None), "policy: expected a file or text, got NoneType; use Policy"),  # type: ignore[arg-type]
        (lambda: POLICY.albumentations(seed=-1), "seed: expected an integer of at least 0, got -1"),
        (lambda: PolicyTransform({}, size=5), r"size: expected \(H, W\)"),  # type: ignore[arg-type]
        (lambda: PolicyTransform({}, size=(4, 4, 4)), r"size: expected \(H, W\)"),  # type: ignore[arg-type]
        (lambda: twin(image=np.zeros(5, np.uint8)), r"expected images \(H, W\)"),
        (lambda: twin(image=np.zeros((2, 2, 2, 2), np.uint8)), r"expected images \(H, W\)"),
        (lambda: twin(mask=PICTURE[..., 0]), "expected an image, images or a volume, got .'mask'"),
        (lambda: twin(image=PICTURE, mask=PICTURE.astype(np.complex128)), "mask: .* got complex128"),
        (lambda: twin(image=PICTURE, mask=PICTURE.astype(object)), "mask: .* got object"),
    ],
)
def test_refused_in_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_a_strength_may_be_a_tensor_of_unsigned_integers() -> None:
    """Torch compares no unsigned integers but uint8."""
    out = SHIFT(X, strength=torch.zeros(2, dtype=torch.uint16))
    assert torch.equal(out, X)


@pytest.mark.parametrize("op", [K.RandomBrightness(p=1.0), K.RandomErasing(p=1.0), K.RandomBoxBlur(p=1.0)])
def test_images_of_different_channels_share_only_draws_without_channels(op: Any) -> None:
    color, gray = another_depth(op, 3, 1)
    assert (color.shape, gray.shape) == ((3, 8, 8), (1, 8, 8))
    assert torch.allclose(color[:1], gray)
