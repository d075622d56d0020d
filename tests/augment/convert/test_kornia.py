"""`Augment.from_kornia`: pipelines, probabilities and refusals."""

from __future__ import annotations

import kornia.augmentation as K
import pytest
import torch
from torch import Tensor, nn

from augkit.augment.compose import Augment
from augkit.core.errors import InputError

SIZE = (36, 50)


def photo(batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    """Smooth images in [0, 1], on which a place that is wrong by a hundredth of a pixel shows."""
    y, x = torch.meshgrid(*(torch.arange(n) for n in size), indexing="ij")
    waves = [torch.sin(x / 5 + k) * torch.cos(y / 4 - k) for k in range(3 * batch)]
    return torch.stack(waves).reshape(batch, 3, *size) * 0.5 + 0.5


def test_a_pipeline_becomes_one_resampling() -> None:
    torch.manual_seed(0)
    color = K.ColorJitter(0.2, 0.2, p=0.5)
    pipeline = K.AugmentationSequential(
        K.RandomResizedCrop((24, 24)),
        K.RandomHorizontalFlip(p=0.3),
        K.RandomVerticalFlip(p=0.2),
        nn.Sequential(K.RandomRotation(10.0, p=0.7, same_on_batch=True), color),
        K.Normalize(torch.tensor([0.5] * 3), torch.tensor([0.25] * 3)),
        data_keys=["input"],
    )
    augment = Augment.from_kornia(pipeline)
    assert [op.p for op in augment.geometry] == [1.0, 0.3, 0.2, 0.7]
    assert [op.same_on_batch for op in augment.geometry] == [False, False, False, True]
    assert list(augment.kornia_ops) == [color]
    assert augment.normalize == ([0.5] * 3, [0.25] * 3)
    assert augment((255 * photo(4)).to(torch.uint8)).shape == (4, 3, 24, 24)
    matrices = Augment.from_kornia(K.RandomRotation((20.0, 30.0), p=0.7)).sample(1000, SIZE)
    assert float((matrices[:, 0, 1] != 0).float().mean()) == pytest.approx(0.7, abs=0.06)


def test_all_that_cannot_be_taken_is_named_at_once() -> None:
    pipeline = nn.Sequential(
        K.RandomElasticTransform(), K.RandomGaussianBlur((3, 3), (0.1, 2.0)), K.CenterCrop(8), nn.ReLU()
    )
    with pytest.raises(InputError, match="from_kornia: cannot convert") as caught:
        Augment.from_kornia(pipeline)
    for name in ("RandomElasticTransform (no matrix)", "before CenterCrop", "ReLU (not an op of Kornia)"):
        assert name in str(caught.value)
