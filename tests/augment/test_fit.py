"""One map fits images to a size: for `Augment`, the CPU twin, torchvision's pipelines and decoded images alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torchvision import tv_tensors

import augkit
from augkit.adapters.torchvision import Geometry
from augkit.augment.fit import fit, fit_box, fit_scale, fit_shrink
from augkit.core.errors import InputError
from augkit.data import load_dataset
from augkit.data.decode import Form, decode
from tests import reference

SIDES = st.tuples(st.integers(1, 400), st.integers(1, 400))


@given(SIDES, SIDES, st.floats(0.05, 1.0))
def test_the_matrix_maps_what_is_seen_onto_the_frame(
    size: tuple[int, int], frame: tuple[int, int], crop_share: float
) -> None:
    left, top, right, bottom = fit_box(size, frame, crop_share)
    assert 0 <= left < right <= size[1]
    assert 0 <= top < bottom <= size[0]
    assert max((right - left) / size[1], (bottom - top) / size[0]) == pytest.approx(crop_share)
    like = torch.empty(2, 1, dtype=torch.float64)
    matrix = fit(size, frame, like, crop_share=crop_share).matrix(frame)
    corners = torch.tensor([[left, top, 1], [right, bottom, 1]], dtype=torch.float64) - torch.tensor([0.5, 0.5, 0])
    moved = (matrix[0] @ corners.T).T[:, :2] + 0.5
    assert moved.flatten().tolist() == pytest.approx([0, 0, frame[1], frame[0]], abs=1e-6)
    assert torch.equal(fit([size, size], frame, like, crop_share=crop_share).matrix(frame), matrix)
    assert fit_shrink(size, frame, crop_share) == max(1.0, 1 / fit_scale(size, frame, crop_share))


@given(SIDES, st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_decoded_images_are_those_of_pillow(size: tuple[int, int], frame: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    picture = Image.fromarray(pixels)
    found = decode(picture.copy, Form(*frame, 1, fit=True))
    expected = ImageOps.fit(picture, frame[::-1], Image.Resampling.LANCZOS)
    assert isinstance(found, np.ndarray)
    assert np.abs(found[0].astype(int) - np.asarray(expected).astype(int)).max() <= 1


@pytest.mark.parametrize("crop_share", [1.0, 0.875, 0.5])
def test_the_decoded_center_is_one_resampling(crop_share: float, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(pixels).resize((90, 60)))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for k in range(10):
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    images = load_dataset(f"folder:{tmp_path}", image_size=16, crop_share=crop_share).open_test().images
    matrix = fit((60, 90), (16, 16), torch.empty(1, 1, dtype=torch.float64), crop_share=crop_share).matrix((16, 16))
    expected = reference.resample(pixels[None, None], matrix.numpy(), (16, 16), "lanczos3", "border")
    # Pillow rounds weights and rows to integers, and leaves taps beyond the image out.
    difference = np.abs(images[:1].numpy() - expected.clip(0, 255))
    assert difference.max() < 8
    assert difference.mean() < 1


@pytest.mark.parametrize("value", [0, 1.5, float("nan"), True, "half"])
def test_a_share_is_above_0_and_at_most_1(value: Any) -> None:
    with pytest.raises(InputError, match="crop_share: expected a number above 0 and at most 1"):
        load_dataset("digits", crop_share=value)


POLICY = augkit.Policy(shift={"max_pixels": 2.0}, crop={"min_area": 0.4}, flip={}, kernel="bicubic", padding="border")  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(40, 60), (61, 33), (16, 16)])
def test_the_twin_fits_images_of_any_size_as_the_device_transform(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    twin = POLICY.albumentations((16, 16), fit=True, seed=0).transforms[-1]
    params = twin.get_params_dependent_on_data({"shape": image.shape}, {})
    augment = POLICY.augment((16, 16), fit=True)
    matrix = torch.from_numpy(params["matrix"])
    expected = augment(torch.from_numpy(image).permute(2, 0, 1)[None], matrix=matrix[None])[0].permute(1, 2, 0)
    assert np.array_equal(twin.apply(image, **params), expected.numpy())
    box = twin.apply_to_bboxes(np.array([[0.0, 0.0, 1.0, 1.0]]), shape=image.shape, **params)[0] * 16
    corners = matrix @ torch.tensor([[-0.5, -0.5, 1], [size[1] - 0.5, size[0] - 0.5, 1]]).T
    assert np.allclose(np.sort(box.reshape(2, 2), axis=0), np.sort((corners[:2].T + 0.5).numpy(), axis=0), atol=1e-3)
    with pytest.raises(InputError, match=r"expected a size \(H, W\) to fit images to"):
        POLICY.augment(fit=True)


def test_a_pipeline_of_torchvision_fits_images_in_training_and_in_evaluation() -> None:
    augment = augkit.Augment(augkit.RandomSubpixelShift(1.0), size=(16, 16))
    geometry = Geometry(augment)
    image, boxes = torch.rand(3, 40, 60), torch.tensor([[10.0, 0.0, 50.0, 40.0]])
    sample = (
        tv_tensors.Image(image),
        tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(40, 60)),  # type: ignore[call-overload]
        tv_tensors.Mask(torch.ones(1, 40, 60)),
    )
    assert [tuple(value.shape) for value in geometry(*sample)] == [(3, 16, 16), (1, 4), (1, 16, 16)]
    geometry.eval()
    augment.eval()
    seen, moved, mask = geometry(*sample)
    assert torch.equal(seen, augment(image[None])[0])
    assert torch.allclose(moved.as_subclass(torch.Tensor), torch.tensor([[0.0, 0.0, 16.0, 16.0]]), atol=1e-5)
    assert moved.canvas_size == (16, 16)
    assert mask.shape == (1, 16, 16)


@pytest.mark.parametrize("default", [torch.float16, torch.bfloat16])
def test_the_default_dtype_changes_nothing_in_a_fit(default: torch.dtype) -> None:
    augment, images = (
        augkit.Augment(size=(7, 9)).eval(),
        torch.rand(2, 3, 30, 41, generator=torch.Generator().manual_seed(0)),
    )
    expected, each = augment(images), augment(list(images))
    torch.set_default_dtype(default)
    try:
        assert torch.equal(augment(images), expected)
        assert torch.equal(augment(list(images)), each)
    finally:
        torch.set_default_dtype(torch.float32)
