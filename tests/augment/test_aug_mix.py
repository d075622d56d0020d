"""AugMix: a slow reference that goes image by image and chain by chain, and its laws."""

from __future__ import annotations

import pytest
import scipy.stats
import torch
from torch import Tensor
from torchvision.transforms import v2

import augkit
from augkit import Augment, AugMix, Policy, RandAugment, RandomSubpixelCrop, RandomSubpixelShift
from augkit.augment import geometry
from augkit.augment.base import draw
from augkit.augment.ops import aug_mix
from augkit.augment.resample import resample

SIZE = (24, 35)
CPU = torch.device("cpu")


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(batch: int = 4, size: tuple[int, int] = SIZE) -> Tensor:
    coarse = torch.rand(batch, 3, 5, 6, generator=seeded(1))
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")


def slow(op: AugMix, images: Tensor, before: Tensor, draws: Tensor) -> Tensor:
    """Formula (1) to (3) of the paper, each chain resampled from the input by a matrix product in float64."""
    out = []
    for b, image in enumerate(images):
        own = draws[b : b + 1]
        clean = resample(image[None], before[b : b + 1], kernel="bilinear")
        weights = -torch.log1p(-own[0, 2 : 2 + op.width])
        mixed = torch.zeros_like(clean)
        for chain, weight in zip(op.chains(own), weights / weights.sum(), strict=True):
            matrix = before[b : b + 1].double()
            for chosen in chain:
                matrix = chosen.matrix(SIZE).double() @ matrix
            seen = resample(image[None], matrix.float(), kernel="bilinear")
            for chosen in chain:
                seen = chosen.colors(seen)
            mixed += weight * seen
        out.append((1 - own[0, 1]) * clean + own[0, 1] * mixed)
    return torch.cat(out)


@pytest.mark.parametrize("op", [AugMix(), AugMix(10.0, 2, 4, all_ops=True)])
def test_equals_a_loop_over_images_and_chains(op: AugMix) -> None:
    shift = RandomSubpixelShift(3.0)
    augment, images = Augment(shift, op, kernel="bilinear"), photos(6)
    draws = draw(6, augment.draws, CPU, seeded())
    expected = slow(op, images, shift.matrix(draws[:, : shift.draws], 1.0, SIZE), draws[:, shift.draws :])
    apart = (augment(images, draws=draws) - expected).abs()
    assert float((apart > 1e-4).float().mean()) < 0.01  # equalize, posterize and solarize have steps
    assert float(apart.mean()) < 1e-3


def test_ranges_are_those_of_torchvision() -> None:
    table = v2.AugMix()
    theirs = {**table._PARTIAL_AUGMENTATION_SPACE, **table._AUGMENTATION_SPACE}
    names = {"shear_x": "ShearX", "translate_y": "TranslateY", "rotate": "Rotate", "brightness": "Brightness"}
    for mine, name in names.items():
        factor = SIZE[0] if mine == "translate_y" else 1
        assert aug_mix.ALL_OPS.amounts[mine] * factor == pytest.approx(float(theirs[name][0](11, *SIZE)[10]))
    bits = theirs["Posterize"][0](11, *SIZE)
    assert [8 - aug_mix.ALL_OPS.lowest["posterize"], 8 - aug_mix.ALL_OPS.amounts["posterize"]] == [bits[0], bits[10]]
    assert len(aug_mix.OPS.names) == len(table._PARTIAL_AUGMENTATION_SPACE)
    assert len(aug_mix.ALL_OPS.names) == len(table._AUGMENTATION_SPACE)


def test_weights_levels_and_depths_are_distributed_as_in_the_paper() -> None:
    op = AugMix(severity=5.0)
    draws = draw(4000, op.draws, CPU, seeded())
    weights = op.weights(draws)
    torch.testing.assert_close(weights.sum(1), torch.ones(4000))
    # A share of Dirichlet(1, 1, 1) has the distribution Beta(1, 2).
    assert scipy.stats.kstest(weights[:, 0].numpy(), "beta", args=(1, 2)).pvalue > 0.01
    assert scipy.stats.kstest(op.share(draws, 1.0).numpy(), "uniform").pvalue > 0.01
    first, _, last = op.chains(draws)[1]
    assert float((first.amount != 0).float().mean()) > 0.99
    assert float((last.amount != 0).float().mean()) == pytest.approx(1 / 3, abs=0.03)
    degrees = first.amount[first.choice == 4].abs()
    assert 0.3 <= float(degrees.min()) < 0.7  # from a tenth of a level
    assert 14.5 < float(degrees.max()) <= 15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_strength_0_changes_no_bit_and_strength_scales_the_share(dtype: torch.dtype) -> None:
    images = (photos(8) * 255).to(torch.uint8) if dtype == torch.uint8 else photos(8).to(dtype)
    augment = Augment(AugMix())
    assert torch.equal(augment(images, strength=0.0), images)
    assert torch.equal(augment(images, strength=torch.zeros(8)), images)
    draws = draw(8, augment.draws, CPU, seeded())
    half, whole = (augment(images, draws=draws, strength=s).float() - images.float() for s in (0.5, 1.0))
    limit = {torch.uint8: 1.01, torch.float16: 2e-3, torch.float32: 1e-5}[dtype]
    assert (2 * half - whole).abs().max() <= 1.5 * limit
    assert whole.abs().max() > 10 * limit


def test_targets_stay_with_the_image_and_colors_before_are_kept() -> None:
    augment, points = Augment(RandomSubpixelShift(3.0), AugMix()), torch.rand(4, 5, 2) * 20
    out = augment(photos(), keypoints=points)
    assert torch.allclose(out.keypoints, geometry.apply_to_points(out.matrix, points), atol=1e-4)
    assert torch.equal(out.matrix[:, :2, :2], torch.eye(2).expand(4, 2, 2))
    # Chains of nothing (level 0 of what has one): the mixture is what came before, colors included.
    both, only = Augment(RandAugment(2, 15.0), AugMix(width=2, depth=1)), Augment(RandAugment(2, 15.0))
    draws = draw(4, both.draws, CPU, seeded())
    draws[:, 9:] = 0.0  # shears at the lowest level, of 0.003
    apart = both(photos(), draws=draws) - only(photos(), draws=draws[:, : only.draws])
    assert apart[..., 4:-4, 4:-4].abs().mean() < 0.01


def test_own_sizes_a_crop_and_a_policy() -> None:
    augment = Augment(RandomSubpixelCrop(), AugMix(), size=(20, 20))
    images = [photos(1, size)[0] for size in ((30, 40), (50, 25))]
    draws = draw(2, augment.draws, CPU, seeded())
    together = augment(images, draws=draws)
    for k, image in enumerate(images):
        torch.testing.assert_close(together[k], augment([image], draws=draws[k : k + 1])[0], rtol=0, atol=1e-5)
    policy = Policy(augmix={"severity": 2, "all_ops": True})
    assert Policy.from_yaml(policy.to_yaml()) == policy
    assert policy.augment()(photos()).shape == photos().shape
    assert policy.albumentations(seed=0)(image=photos(1)[0].permute(1, 2, 0).numpy())["image"].shape == (*SIZE, 3)
    assert Policy(augmix={"severity": 0.0}).own_ops["augmix"].changes_nothing


def test_alone_as_in_a_transform() -> None:
    op, images = AugMix(), photos()
    out = op(images)
    assert torch.equal(op(images, params=op._params), out)
    inside = Augment(op)(images, draws=op._params["draws"])
    assert torch.allclose(inside, out, atol=1e-5)


@pytest.mark.parametrize(("name", "value"), [("severity", 11), ("width", 0), ("depth", 9), ("all_ops", 2)])
def test_bad_arguments_are_named(name: str, value: int) -> None:
    with pytest.raises(augkit.core.errors.AugkitError, match=f"^{name}: expected"):
        AugMix(**{name: value})
