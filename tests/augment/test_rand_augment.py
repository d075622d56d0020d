"""RandAugment and TrivialAugment against torchvision's ops at the same amounts, and the laws that they keep."""

from __future__ import annotations

import copy
import pickle

import albumentations
import kornia.augmentation
import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

import augkit
from augkit import Augment, AugMix, Policy, RandAugment, RandomHorizontalFlip, RandomSubpixelShift, TrivialAugment
from augkit.adapters.torchvision import Geometry
from augkit.augment import geometry
from augkit.augment.base import draw
from augkit.augment.color_changes import CHANGES
from augkit.augment.ops import rand_augment, trivial_augment
from augkit.augment.random_choices import WITHOUT_AMOUNT, Choices, RandomChoices
from augkit.preview.strengths import strength_rows
from augkit.tune.space import Space

SIZE = (24, 35)
CASES = {"rand": (RandAugment, rand_augment.OPS), "trivial": (TrivialAugment, trivial_augment.OPS)}
THEIRS = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "autocontrast": "AutoContrast",
}
MAKERS = [lambda: RandAugment(2, 9.0), lambda: RandAugment(3, 30.0, p=0.5), TrivialAugment]


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(batch: int = 4, size: tuple[int, int] = SIZE) -> Tensor:
    """Smooth uint8 images that use a part of the range, ``(B, 3, H, W)``."""
    coarse = torch.rand(batch, 3, 5, 6, generator=seeded(1))
    smooth = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return (40 + 180 * smooth).to(torch.uint8)


def draws_for(choices: Choices, name: str, sign: float, level: float, batch: int) -> Tensor:
    number = choices.names.index(name)
    return torch.tensor([[0.0, (number + 0.5) / len(choices.names), 0.25 if sign < 0 else 0.75, level]]).repeat(
        batch, 1
    )


def theirs(case: str, images: Tensor, name: str, amount: float) -> Tensor:
    """What torchvision's policies do for one op, by the function that they call with a magnitude."""
    policy = v2.RandAugment(interpolation=v2.InterpolationMode.BILINEAR)
    policy = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR) if case == "trivial" else policy
    transform = THEIRS.get(name, name.capitalize())
    return policy._apply_image_or_video_transform(
        images, transform, amount, interpolation=policy.interpolation, fill=policy._fill
    )


@pytest.mark.parametrize("case", CASES)
def test_ops_and_ranges_are_those_of_torchvision(case: str) -> None:
    """Every op at the largest magnitude of torchvision's own table."""
    policy = v2.RandAugment() if case == "rand" else v2.TrivialAugmentWide()
    table = policy._AUGMENTATION_SPACE
    choices = CASES[case][1]
    assert [THEIRS.get(name, name.capitalize()) for name in choices.names] == list(table)
    for name, (their_name, (made, signed)) in zip(choices.names, table.items(), strict=True):
        most = None if made(31, *SIZE) is None else float(made(31, *SIZE)[30])
        if name in WITHOUT_AMOUNT:
            assert most is None
            continue
        factor = {"translate_x": SIZE[1], "translate_y": SIZE[0]}.get(name, 1) if not choices.pixels else 1
        mine = choices.amounts[name] * factor
        mine = {"posterize": 8 - mine, "solarize": 1 - mine}.get(name, mine)
        assert mine == pytest.approx(most), their_name
        assert signed == (choices.pick(draws_for(choices, name, -1, 1.0, 1)[:, 1:], 1.0, 1.0).amount < 0).item()


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize("level", [0.3, 0.95])
@pytest.mark.parametrize("name", rand_augment.OPS.names)
@pytest.mark.parametrize("case", CASES)
def test_one_op_gives_the_pixels_of_torchvision(case: str, name: str, level: float, sign: float) -> None:
    kind, choices = CASES[case]
    images, most = photos(), choices.amounts[name]
    op = RandAugment(1, 30 * level) if kind is RandAugment else TrivialAugment()
    draws = draws_for(choices, name, sign, level, len(images))
    signed = choices.pick(draws[:, 1:], 1.0, 1.0).amount[0].item()
    amount = np.sign(signed) * most * level
    if name.startswith("translate") and not choices.pixels:
        amount *= SIZE[name.endswith("x")]
    if name.startswith("translate"):
        whole = int(amount)  # theirs move by whole pixels
        amount = float(whole)
        if kind is RandAugment:
            op = RandAugment(1, 30 * abs(whole) / (most * SIZE[name.endswith("x")]))
        else:
            draws[:, 3] = abs(whole) / most
    amount = {"posterize": 8 - round(amount), "solarize": 1 - amount}.get(name, amount)
    expected = theirs(case, images, name, amount)
    mine = Augment(op, kernel="bilinear", antialias=False)(images, draws=draws)
    difference = (mine.float() - expected.float()).abs()
    if name in ("rotate", *[f"{kind}_{axis}" for kind in ("shear", "translate") for axis in "xy"]):
        # torchvision fills pixel by pixel at the border; ours interpolates with the padding in the same way.
        assert difference.mean() < 0.5
        assert float((difference > 2).float().mean()) < 0.01
    else:
        assert difference.max() <= 2  # theirs rounds in between
    if name not in ("identity", "solarize"):
        assert not torch.equal(mine, images)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_strength_0_changes_no_bit(make: type[RandomChoices], dtype: torch.dtype) -> None:
    batch = photos(8) if dtype == torch.uint8 else (photos(8) / 255).to(dtype)
    augment = Augment(make(), RandomHorizontalFlip(0.0))
    assert not torch.equal(augment(batch), batch)
    assert torch.equal(augment(batch, strength=0.0), batch)
    assert torch.equal(augment(batch, strength=torch.zeros(8)), batch)
    if dtype != torch.uint8:
        assert torch.equal(make()(batch, strength=0.0), batch)


@pytest.mark.parametrize("make", MAKERS)
def test_strength_and_colors_are_of_each_sample(make: type[RandomChoices]) -> None:
    augment, batch = Augment(RandomSubpixelShift(1.0), make()), photos(12)
    draws, strength = draw(12, augment.draws, torch.device("cpu"), seeded()), torch.linspace(0, 1, 12)
    together = augment(batch, draws=draws, strength=strength)
    for k in range(12):
        alone = augment(batch[k : k + 1], draws=draws[k : k + 1], strength=strength[k].item())
        assert (together[k].float() - alone[0].float()).abs().max() <= 1


@pytest.mark.parametrize("make", MAKERS)
def test_a_generator_decides_all(make: type[RandomChoices]) -> None:
    augment, batch = Augment(make()), photos(8)
    before = torch.get_rng_state()
    first = augment(batch, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(augment(batch, generator=seeded(1)), first)
    assert not torch.equal(augment(batch, generator=seeded(2)), first)
    for twin in (copy.deepcopy(augment), pickle.loads(pickle.dumps(augment))):
        assert torch.equal(twin(batch, generator=seeded(1)), first)


@pytest.mark.parametrize("make", MAKERS)
def test_floats_and_bytes_agree_and_the_input_stays(make: type[RandomChoices]) -> None:
    augment, batch = Augment(make(), kernel="bilinear"), photos(8)
    before = batch.clone()
    from_bytes = augment(batch, generator=seeded())
    from_floats = augment(batch / 255, generator=seeded())
    apart = (from_bytes / 255 - from_floats).abs() > 0.51 / 255  # posterize and equalize have steps
    assert float(apart.float().mean()) < 0.002
    assert torch.equal(batch, before)
    assert augment(photos(0), generator=seeded()).shape == (0, 3, *SIZE)


def test_each_op_is_as_likely_and_p_is_a_coin() -> None:
    op = RandAugment(2, 9.0, p=0.5)
    draws = draw(20_000, op.draws, torch.device("cpu"), seeded())
    first, second = op.chosen_ops(draws, 1.0)
    share = torch.bincount(first.choice, minlength=14) / len(draws)
    assert share.numpy() == pytest.approx(np.full(14, 1 / 14), abs=0.008)
    assert float((first.choice == second.choice).float().mean()) == pytest.approx(1 / 14, abs=0.008)
    still = (first.amount == 0) & (first.choice > 0)
    assert float(still.float().mean()) == pytest.approx(0.5 * 13 / 14, abs=0.02)
    signs = first.amount[(first.amount != 0) & (first.choice == 5)].sign()
    assert float(signs.mean()) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("make", MAKERS)
def test_more_strength_is_never_weaker(make: type[RandomChoices]) -> None:
    op = make()
    draws = torch.rand(200, op.draws, generator=seeded())
    steps = [[chosen.amount.abs() for chosen in op.chosen_ops(draws, s)] for s in torch.linspace(0, 1, 9).tolist()]
    growth = torch.stack([torch.stack(step) for step in steps]).diff(dim=0)
    assert (growth >= 0).all()
    assert all(float(amount.max()) == 0 for amount in steps[0])


def test_targets_follow_the_geometry_and_the_shrink_is_bounded() -> None:
    op = RandAugment(3, 30.0)
    augment, points = Augment(op), torch.rand(64, 5, 2, generator=seeded()) * 20
    out = augment(photos(64), keypoints=points, boxes=torch.rand(64, 2, 4) * 9, masks=photos(64)[:, :1] > 120)
    assert torch.allclose(out.keypoints, geometry.apply_to_points(out.matrix, points), atol=1e-4)
    assert len(torch.unique(out.matrix, dim=0)) > 20
    assert out.masks.dtype == torch.bool
    matrix = op.matrix(torch.rand(5000, op.draws, generator=seeded()), 1.0, SIZE)
    stretch = torch.linalg.svdvals(matrix[:, :2, :2])
    assert stretch.max() <= op.max_enlarge() * (1 + 1e-5)
    assert 1 / stretch.min() <= op.max_shrink(SIZE) * (1 + 1e-5)


def test_images_of_their_own_sizes_and_of_one_channel() -> None:
    augment = Augment(RandAugment(2, 15.0), size=(24, 24))
    images = [photos(1, size)[0] for size in ((30, 40), (50, 25))]
    draws = draw(2, augment.draws, torch.device("cpu"), seeded())
    together = augment(images, draws=draws)
    for k, image in enumerate(images):
        assert (together[k].float() - augment([image], draws=draws[k : k + 1])[0].float()).abs().max() <= 1
    for channels in (1, 2, 4):
        assert Augment(TrivialAugment())(torch.rand(20, channels, 16, 16)).shape == (20, channels, 16, 16)


def test_a_policy_and_its_twin() -> None:
    policy = Policy(randaugment={"num_ops": 2, "magnitude": 12}, kernel="bilinear")
    assert Policy.from_yaml(policy.to_yaml()) == policy
    assert str(policy) == "randaugment (num_ops 2, magnitude 12, p 1)"
    twin, image = policy.albumentations(seed=3), photos(1)[0].permute(1, 2, 0).numpy()
    found = [twin(image=image)["image"] for _ in range(8)]
    assert any(np.array_equal(np.sort(a.ravel()), np.sort(image.ravel())) is False for a in found)
    assert isinstance(twin, albumentations.Compose)
    assert Policy(trivialaugment={"p": 0.0}).own_ops["trivialaugment"].changes_nothing
    assert Policy(randaugment={"magnitude": 0.0}).own_ops["randaugment"].changes_nothing
    batch = photos(8)
    assert torch.equal(Policy(randaugment={"magnitude": 0.0}).augment()(batch), batch)


def test_a_search_finds_the_magnitude_and_a_preview_shows_colors() -> None:
    space = Space.of({"name": "x", "data": {"name": "digits"}, "policy": {"randaugment": {}}}, "x")
    assert set(space.ranges) == {"policy.randaugment.magnitude", "policy.randaugment.p"}
    magnitude = space.ranges["policy.randaugment.magnitude"]
    assert (magnitude.low, magnitude.high, magnitude.default) == (0, 30, 9)
    # All draws at 0.75 choose posterize, the eleventh of the fourteen ops, which clears 4.5 bits, rounded to even.
    row = strength_rows(photos(1)[0], Policy(trivialaugment={}), (0.0, 1.0), (0.75,))[0]
    assert torch.equal(row.tiles[0, 0], photos(1)[0])
    assert torch.equal(row.tiles[0, 1], photos(1)[0] & 0xF0)


def test_adapters_for_one_sample_change_colors_too() -> None:
    torch.manual_seed(0)
    geometry_of = Geometry(Augment(TrivialAugment(), AugMix()))
    video = photos(1).expand(5, -1, -1, -1)
    for _ in range(4):
        out = geometry_of(video[0])
        assert out.shape == video[0].shape
        assert not torch.equal(out, video[0])
        frames = geometry_of(tv_tensors.Video(video))
        assert torch.equal(frames[0], frames[4])


def test_alone_and_in_a_container_of_kornia() -> None:
    op, batch = RandAugment(2, 15.0), photos(8) / 255
    out = op(batch)
    assert torch.equal(op(batch, params=op._params), out)
    inside = Augment(op, kernel="bicubic")(batch, draws=op._params["draws"])
    assert torch.allclose(inside, out, atol=1e-6)
    container = kornia.augmentation.AugmentationSequential(op, data_keys=["input", "mask"])
    assert container(batch, (batch[:, :1] > 0.5).float())[0].shape == batch.shape


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_ops": 0}, "num_ops: expected a whole number of 1 or more, got 0"),
        ({"num_ops": 9}, r"num_ops: expected a number in \[1, 8\], got 9"),
        ({"magnitude": 31}, r"magnitude: expected a number in \[0, 30\], got 31"),
    ],
)
def test_bad_numbers_are_named(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(augkit.core.errors.InputError, match=message):
        RandAugment(**arguments)


def test_normalized_images_are_refused() -> None:
    with pytest.raises(augkit.core.errors.InputError, match=r"Augment: RandAugment expected images in \[0, 1\]"):
        Augment(RandAugment())(torch.randn(4, 3, 16, 16) * 3)


@pytest.mark.parametrize("name", CHANGES)
def test_an_amount_of_0_changes_nothing(name: str) -> None:
    images = photos() / 255
    assert torch.allclose(CHANGES[name](images, torch.zeros(4)), images, atol=1e-6)
