"""Kornia's color ops after the geometry of `Augment`."""

from __future__ import annotations

from typing import Any

import kornia.augmentation as K
import pytest
import torch
from torch import Tensor, nn

from augkit import Augment, RandomHorizontalFlip, RandomSubpixelShift
from augkit.core.errors import InputError, InputTypeError

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def jitter() -> nn.Module:
    return K.ColorJitter(0.4, 0.4, 0.4, 0.1, p=1.0)


def colored(**options: Any) -> Augment:
    return Augment(RandomSubpixelShift(2.0), jitter(), K.RandomGrayscale(p=0.3), kernel="lanczos3", **options)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(16, 3, 12, 14)


@pytest.mark.parametrize("options", [{}, {"normalize": (MEAN, STD)}, {"dtype": torch.float64}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_color_comes_after_the_resampling_and_before_the_normalization(
    images: Tensor, dtype: torch.dtype, options: dict[str, Any]
) -> None:
    batch = (255 * images).to(torch.uint8) if dtype == torch.uint8 else images
    torch.manual_seed(3)
    out = colored(**options)(batch)
    torch.manual_seed(3)
    moved = Augment(RandomSubpixelShift(2.0), kernel="lanczos3", dtype=torch.float32)(batch)
    expected = moved.clamp(0, 1)
    for op in (jitter(), K.RandomGrayscale(p=0.3)):
        expected = op(expected)
    if "normalize" in options:
        expected = (expected - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    if dtype == torch.uint8 and not options:
        assert out.dtype == torch.uint8
        expected = (255 * expected).round()
    assert not torch.allclose(expected, moved, atol=0.05)
    torch.testing.assert_close(out.double(), expected.double(), rtol=0, atol=1e-5)
    assert out.dtype == options.get("dtype", torch.uint8 if dtype == torch.uint8 and not options else torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.uint8])
def test_strength_0_changes_no_bit(images: Tensor, dtype: torch.dtype) -> None:
    batch = (300 * images - 20).clamp(0, 255).to(dtype) if dtype == torch.uint8 else (1.2 * images - 0.1).to(dtype)
    assert torch.equal(colored()(batch, strength=0.0), batch)
    assert torch.equal(colored()(batch, strength=torch.zeros(16)), batch)
    assert torch.equal(colored().eval()(batch), batch)


def test_strength_is_the_share_of_samples_that_are_colored() -> None:
    images = torch.rand(2000, 3, 4, 4)
    out = Augment(jitter())(images, strength=0.3)
    changed = (out != images).flatten(1).any(dim=1)
    assert changed.float().mean() == pytest.approx(0.3, abs=0.04)
    per_sample = torch.tensor([0.0, 1.0]).repeat(1000)
    changed = (Augment(jitter())(images, strength=per_sample) != images).flatten(1).any(dim=1)
    assert torch.equal(changed, per_sample.bool())


def test_a_generator_decides_color_too_and_the_global_state_is_left_alone(images: Tensor) -> None:
    before = torch.get_rng_state()
    first, again, other = (colored()(images, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_matrix_replays_the_geometry_and_draws_color_anew(images: Tensor) -> None:
    augment = Augment(RandomSubpixelShift(2.0), K.RandomGrayscale(p=0.0), K.RandomGrayscale(p=1.0))
    out = augment(images, keypoints=torch.zeros(16, 1, 2))
    torch.testing.assert_close(augment(images, matrix=out.matrix), out.images)
    assert torch.equal(out.images[:, 0], out.images[:, 1])  # gray, all of it
    assert not torch.equal(colored()(images, matrix=out.matrix), colored()(images, matrix=out.matrix))


def test_geometry_after_color_ops_and_other_modules_are_refused() -> None:
    with pytest.raises(InputError, match="expected all geometry before the first color op"):
        Augment(jitter(), RandomHorizontalFlip())
    with pytest.raises(InputTypeError, match="ops such as ColorJitter, got Dropout"):
        Augment(nn.Dropout())


def test_an_op_that_fails_is_named_in_one_line(images: Tensor) -> None:
    even = Augment(K.RandomGaussianBlur((2, 2), (1.0, 2.0), p=1.0))
    with pytest.raises(InputError, match=r"RandomGaussianBlur fails on images \(16, 3, 12, 14\) \(Kernel size"):
        even(images)
    with pytest.raises(InputError, match=r"RandomPlanckianJitter fails on images \(16, 1, 12, 14\)") as caught:
        Augment(K.RandomPlanckianJitter(p=1.0))(images[:, :1])
    assert "\n" not in str(caught.value)
