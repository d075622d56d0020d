"""Random ops and `Augment`: what they draw, how far that reaches, and what follows the images."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from typing import Any

import kornia.augmentation
import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from augkit import Augment, RandomHorizontalFlip, RandomRescale, RandomSubpixelCrop, RandomSubpixelShift
from augkit.augment import geometry
from augkit.augment.base import RandomGeometry, draw
from augkit.augment.resample import resample
from augkit.core.errors import InputError, InputTypeError

SIZE = (24, 35)  # not square, one side even and one odd
OPS: dict[str, Callable[..., RandomGeometry]] = {
    "shift": lambda **k: RandomSubpixelShift(3.0, **k),
    "rescale": lambda **k: RandomRescale(1.5, **k),
    "crop": lambda **k: RandomSubpixelCrop(area=(0.3, 0.8), **k),
    "flip": lambda **k: RandomHorizontalFlip(**{"p": 0.5, **k}),
}


def all_ops(size: tuple[int, int] | None = None) -> list[RandomGeometry]:
    return [
        RandomSubpixelShift(3.0),
        RandomRescale(1.5),
        RandomSubpixelCrop(size, area=(0.5, 0.9)),
        RandomHorizontalFlip(),
    ]


def seeded(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(batch: int = 4, channels: int = 2, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(batch, channels, *size, generator=seeded(1))


def drawn(op: RandomGeometry, count: int = 4000, strength: float = 1.0, size: tuple[int, int] = SIZE) -> Tensor:
    """Matrices for ``count`` samples; the first two draw the ends of every range."""
    draws = torch.rand(count, op.draws, generator=seeded())
    draws[0], draws[1] = 0.0, 1 - 2**-24
    return op.matrix(draws, torch.full((count,), strength), size)


def windows(matrix: Tensor, size: tuple[int, int], out: tuple[int, int]) -> tuple[Tensor, ...]:
    """Left, top, right and bottom edge of the window that each crop shows."""
    box = torch.tensor([[[0.0, 0.0, out[1], out[0]]]]).expand(len(matrix), 1, 4)
    return geometry.apply_to_boxes(geometry.invert(matrix), box)[:, 0].unbind(-1)


@pytest.mark.parametrize("name", OPS)
def test_every_sample_has_its_own_parameters(name: str) -> None:
    op = OPS[name]()
    op(images(64))
    different = len(torch.unique(op.transform_matrix, dim=0))
    assert different == (2 if name == "flip" else 64)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_p_is_a_coin_for_each_sample(name: str, p: float) -> None:
    op = OPS[name](p=p)
    matrix = op.matrix(draw(4000, op.draws, torch.device("cpu"), seeded()), torch.ones(4000), SIZE)
    spared = (matrix == torch.eye(3)).all(dim=(-2, -1)).float().mean()
    assert float(spared) == pytest.approx(1 - p, abs=0.03 if 0 < p < 1 else 0)


@pytest.mark.parametrize("size", [SIZE, (16, 16), (40, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
@pytest.mark.parametrize("name", [*OPS, "all"])
def test_strength_0_changes_no_bit(name: str, dtype: torch.dtype, size: tuple[int, int]) -> None:
    batch = (images(size=size) * 255).to(dtype)
    ops = all_ops() if name == "all" else [OPS[name]()]
    assert torch.equal(Augment(*ops, kernel="sinc")(batch, strength=0.0), batch)
    assert torch.equal(Augment(*ops, strength=0.0)(batch), batch)
    for op in ops if dtype != torch.uint8 else []:
        assert torch.equal(op(batch, strength=0.0), batch)


@pytest.mark.parametrize("name", OPS)
def test_more_strength_is_never_weaker(name: str) -> None:
    op = OPS[name]()
    draws = torch.rand(200, op.draws, generator=seeded())
    effect = []
    for strength in torch.linspace(0, 1, 9):
        matrix = op.matrix(draws, strength.expand(200), SIZE)
        left, top, right, bottom = windows(matrix, SIZE, SIZE)
        effect.append(
            {
                "shift": matrix[:, :2, 2].abs(),
                "rescale": matrix[:, 0, 0].log().abs(),
                "crop": 1 - (right - left) * (bottom - top) / (SIZE[0] * SIZE[1]),
                "flip": (matrix[:, 0, 0] < 0).float(),
            }[name]
        )
    growth = torch.stack(effect).diff(dim=0)
    assert (growth >= -1e-6).all()
    assert (growth.sum(dim=0) > 0).float().mean() > 0.4


@pytest.mark.parametrize("name", OPS)
def test_strength_may_differ_between_samples(name: str) -> None:
    op, strength = OPS[name](), torch.tensor([0.0, 0.25, 1.0, 0.5])
    batch = images()
    together = op(batch, strength=strength, generator=seeded())
    for k, s in enumerate(strength.tolist()):
        alone = op(batch, strength=s, generator=seeded())
        torch.testing.assert_close(together[k], alone[k], rtol=0, atol=1e-6)
    expected = Augment(op)(batch, strength=strength, generator=seeded())
    assert torch.equal(expected[0], batch[0])


@pytest.mark.parametrize("make", [*OPS.values(), lambda: Augment(*all_ops())], ids=[*OPS, "Augment"])
def test_a_generator_decides_all_and_the_global_state_is_left_alone(make: Callable[[], nn.Module]) -> None:
    module, batch = make(), images()
    before = torch.get_rng_state()
    first = module(batch, generator=seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(3)
    assert torch.equal(module(batch, generator=seeded(1)), first)
    assert not torch.equal(module(batch, generator=seeded(3)), first)
    torch.manual_seed(1)
    from_global = module(batch)
    torch.manual_seed(1)
    assert torch.equal(module(batch), from_global)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos3", "sinc"])
def test_replay_by_matrix_is_exact(kernel: str, dtype: torch.dtype) -> None:
    augment, batch = Augment(*all_ops((20, 18)), kernel=kernel), images().to(dtype)
    masks, keypoints = batch[:, :1], torch.rand(4, 3, 2) * 20
    for seed in range(15):  # The bits must not depend on how much the draws happen to shrink.
        out = augment(batch, masks=masks, keypoints=keypoints, generator=seeded(seed))
        again = augment(batch, masks=masks, keypoints=keypoints, matrix=out.matrix)
        assert torch.equal(again.images, out.images)
        assert torch.equal(again.masks, out.masks)
        assert torch.equal(again.keypoints, out.keypoints)
    one = augment(batch, keypoints=keypoints, matrix=out.matrix[0])
    assert torch.equal(one.keypoints[0], out.keypoints[0])
    assert one.matrix.shape == (4, 3, 3)


@pytest.mark.parametrize("name", OPS)
def test_replay_by_params_as_in_kornia(name: str) -> None:
    op, batch = OPS[name](), images()
    first = op(batch, strength=0.7)
    params = op._params
    assert not torch.equal(op(batch), first)
    assert torch.equal(op(batch, params=params), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OPS)
def test_runs_inside_a_container_of_kornia(name: str, dtype: torch.dtype) -> None:
    op, batch = OPS[name](), images(8).to(dtype)
    masks, keypoints = (batch[:, :1] > 0.5).to(dtype), torch.rand(8, 5, 2, dtype=dtype) * 20
    container = kornia.augmentation.AugmentationSequential(op, data_keys=["input", "mask", "keypoints"])
    out, moved_masks, moved_keypoints = container(batch, masks, keypoints)
    matrix = op.transform_matrix
    kernel = "nearest" if name == "flip" else "bicubic"
    torch.testing.assert_close(out, resample(batch, matrix, kernel=kernel), rtol=0, atol=1e-6)
    assert torch.equal(moved_masks, resample(masks, matrix, kernel="nearest"))
    expected = geometry.apply_to_points(matrix.to(dtype), keypoints)
    torch.testing.assert_close(moved_keypoints, expected, rtol=0, atol=1e-4)
    assert not torch.allclose(moved_keypoints, keypoints, atol=0.1)


def test_the_inverse_of_kornia_leads_back() -> None:
    rows, columns = torch.arange(40.0)[:, None], torch.arange(50.0)[None]
    blob = torch.exp(-((columns - 24) ** 2 + (rows - 20) ** 2) / 18)[None, None]
    op = RandomSubpixelShift(4.0)
    container = kornia.augmentation.AugmentationSequential(op, data_keys=["input"])
    there = container(blob)
    assert (there - blob).abs().max() > 0.05
    torch.testing.assert_close(container.inverse(there), blob, rtol=0, atol=5e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_coordinates_stay_in_float32(dtype: torch.dtype) -> None:
    batch = images(2, size=(8, 300)).to(dtype)
    op = RandomSubpixelShift(3.0)
    with torch.autocast("cpu", torch.bfloat16):
        out = op(batch, generator=seeded())
    assert op.transform_matrix.dtype == torch.float32
    assert torch.equal(out, op(batch.float(), generator=seeded()).to(dtype))
    keypoints, augment = torch.full((2, 1, 2), 251.0), Augment(RandomRescale(1.3))
    moved = augment(batch, keypoints=keypoints.to(dtype), generator=seeded()).keypoints
    assert torch.equal(moved, augment(batch, keypoints=keypoints, generator=seeded()).keypoints.to(dtype))


def is_uniform(values: Tensor, low: float, high: float) -> bool:
    assert values.min() >= low - 1e-5
    assert values.max() <= high + 1e-5
    assert values.max() - values.min() > 0.999 * (high - low)
    return scipy.stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_shifts_are_uniform_in_their_range(strength: float) -> None:
    matrix = drawn(RandomSubpixelShift(3.0), strength=strength)
    assert is_uniform(matrix[:, 0, 2], -3 * strength, 3 * strength)
    assert is_uniform(matrix[:, 1, 2], -3 * strength, 3 * strength)
    assert abs(matrix[:, :2, 2].T.corrcoef()[0, 1]) < 0.1


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_factors_are_uniform_in_their_logarithm(strength: float) -> None:
    matrix = drawn(RandomRescale(1.5), strength=strength)
    assert torch.equal(matrix[:, 0, 0], matrix[:, 1, 1])
    assert is_uniform(matrix[:, 0, 0].log(), -math.log(1.5) * strength, math.log(1.5) * strength)


@pytest.mark.parametrize("out", [None, (20, 20)])
@pytest.mark.parametrize("size", [SIZE, (30, 30), (60, 20)])
def test_windows_have_the_area_drawn_and_lie_inside(size: tuple[int, int], out: tuple[int, int] | None) -> None:
    op = RandomSubpixelCrop(out, area=(0.2, 0.9), ratio=(0.5, 1.6))
    draws = torch.rand(4000, op.draws, generator=seeded())
    draws[0], draws[1] = 0.0, 1 - 2**-24
    left, top, right, bottom = windows(op.matrix(draws, torch.ones(4000), size), size, out or size)
    width, height = right - left, bottom - top
    area = width * height / (size[0] * size[1])
    torch.testing.assert_close(area, 0.2 + 0.7 * draws[:, 1], rtol=1e-4, atol=0)
    assert min(left.min(), top.min()) > -1e-3
    assert right.max() < size[1] + 1e-3
    assert bottom.max() < size[0] + 1e-3
    # Where the range of aspects cannot be had at this area, the window spans the image along one side.
    aspect = width / height
    inside = (aspect > 0.5 - 1e-3) & (aspect < 1.6 + 1e-3)
    spans = (width > size[1] - 1e-3) | (height > size[0] - 1e-3)
    assert (inside | spans).all()
    assert inside.float().mean() > 0.5
    # Anywhere inside, with equal chance.
    torch.testing.assert_close(left, draws[:, 3] * (size[1] - width), rtol=0, atol=1e-3)
    torch.testing.assert_close(top, draws[:, 4] * (size[0] - height), rtol=0, atol=1e-3)


def test_aspects_are_uniform_in_their_logarithm_whatever_the_area() -> None:
    left, top, right, bottom = windows(drawn(RandomSubpixelCrop(area=(0.3, 0.4)), size=(30, 30)), (30, 30), (30, 30))
    width, height = right - left, bottom - top
    assert is_uniform((width / height).log(), math.log(3 / 4), math.log(4 / 3))
    assert abs(torch.stack([width / height, width * height]).corrcoef()[0, 1]) < 0.1


def test_a_crop_shows_its_window() -> None:
    ramp = torch.arange(35.0).expand(1, 1, 24, 35)
    op = RandomSubpixelCrop(area=(0.25, 0.25), ratio=(35 / 24, 35 / 24), kernel="bilinear")
    draws = torch.tensor([[0.0, 0.0, 0.0, 0.4, 0.7]])
    out = Augment(op, kernel="bilinear")(ramp, matrix=op.matrix(draws, torch.ones(1), SIZE))
    # Half of 35 pixels wide, from the edge 0.4 * 17.5 = 7 on: pixel u shows the place 7 + (u + 1/2) / 2 - 1/2.
    torch.testing.assert_close(out[0, 0, 5], 6.75 + torch.arange(35.0) / 2)


def test_flip_mirrors_the_pixels() -> None:
    batch = images(64)
    out = Augment(RandomHorizontalFlip(0.5))(batch, keypoints=torch.zeros(64, 1, 2))
    mirrored = out.matrix[:, 0, 0] < 0
    assert 16 < mirrored.sum() < 48
    assert torch.equal(out.images[mirrored], batch[mirrored].flip(-1))
    assert torch.equal(out.images[~mirrored], batch[~mirrored])
    assert torch.equal(RandomHorizontalFlip(1.0)(batch), batch.flip(-1))


def test_augment_resamples_once_through_the_composed_matrix() -> None:
    ops, batch = all_ops((20, 18)), images()
    augment = Augment(*ops, kernel="lanczos3", padding="reflection")
    columns = sum(op.draws for op in ops)
    draws, total, first = draw(4, columns, torch.device("cpu"), seeded()), [], 0
    for op in ops:
        total.append(
            op.matrix(draws[:, first : first + op.draws], torch.ones(4), SIZE if op is not ops[3] else (20, 18))
        )
        first += op.draws
    matrix = geometry.compose(*total)
    out = augment(batch, keypoints=torch.zeros(4, 1, 2), generator=seeded())
    torch.testing.assert_close(out.matrix, matrix)
    assert torch.equal(augment.sample(4, SIZE, generator=seeded()), out.matrix)
    expected = resample(batch, matrix, (20, 18), kernel="lanczos3", padding="reflection")
    torch.testing.assert_close(out.images, expected, rtol=0, atol=1e-5)
    assert augment.output_size(SIZE) == (20, 18)


@pytest.mark.parametrize("antialias", [True, False])
def test_a_crop_that_shrinks_is_antialiased_on_request(antialias: bool) -> None:
    augment, batch = Augment(RandomSubpixelCrop((9, 11)), RandomRescale(1.5), antialias=antialias), images()
    out = augment(batch, keypoints=torch.zeros(4, 1, 2))
    expected = resample(batch, out.matrix, (9, 11), antialias=antialias)
    torch.testing.assert_close(out.images, expected, rtol=0, atol=1e-5)
    assert torch.equal(augment(batch, matrix=out.matrix), out.images)
    # A matrix that shrinks more than the ops can is antialiased in full.
    strong = geometry.rescale(torch.tensor([0.2]), SIZE).expand(4, 3, 3)
    expected = resample(batch, strong, (9, 11), antialias=antialias)
    torch.testing.assert_close(augment(batch, matrix=strong), expected, rtol=0, atol=1e-5)


def test_the_fourier_kernel_shifts_on_the_torus() -> None:
    augment, batch = Augment(RandomSubpixelShift(3.0), kernel="fourier", padding="circular"), images()
    out = augment(batch, keypoints=torch.zeros(4, 1, 2))
    assert torch.equal(out.images, resample(batch, out.matrix, kernel="fourier", padding="circular"))
    assert torch.equal(augment(batch, matrix=out.matrix), out.images)
    assert not torch.allclose(out.images, batch, atol=0.1)


def test_eval_is_the_identity_but_normalizes() -> None:
    batch, points = images(), torch.rand(4, 2, 2)
    augment = Augment(*all_ops((20, 18))).eval()
    assert torch.equal(augment(batch), batch)
    out = augment(batch, masks=batch, keypoints=points, boxes=torch.tensor([[[1.0, 2.0, 3.0, 4.0]]] * 4))
    assert torch.equal(out.masks, batch)
    assert torch.equal(out.keypoints, points)
    assert out.boxes[0, 0].tolist() == [1, 2, 3, 4]
    augment = Augment(*all_ops(), normalize=((0.2, 0.5), (0.5, 2.0)), dtype=torch.float64).eval()
    expected = (batch - torch.tensor([0.2, 0.5])[:, None, None]) / torch.tensor([0.5, 2.0])[:, None, None]
    assert torch.equal(augment(batch), expected.double())


def test_uint8_comes_back_rounded() -> None:
    augment, batch = Augment(*all_ops(), kernel="lanczos3"), (images() * 255).to(torch.uint8)
    out = augment(batch, generator=seeded())
    assert out.dtype == torch.uint8
    assert torch.equal(out, augment(batch.float(), generator=seeded()).round().clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("normalize", [None, (0.4, 0.3), ((0.2, 0.5), (0.5, 2.0))])
def test_normalize_and_dtype_equal_doing_it_after(integer: bool, dtype: torch.dtype | None, normalize: Any) -> None:
    batch = (images() * 255).to(torch.uint8) if integer else images()
    out = Augment(*all_ops(), normalize=normalize, dtype=dtype)(batch, generator=seeded())
    # With either, uint8 is left unrounded; with neither it stays uint8.
    fused = normalize is not None or dtype is not None
    after = Augment(*all_ops())(batch.float() if fused else batch, generator=seeded())
    if integer and fused:
        after = after / 255
    if normalize:
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in normalize)
        after = (after - mean) / std
    after = after.to(dtype or after.dtype)
    assert out.dtype == after.dtype
    torch.testing.assert_close(out, after, **({"rtol": 1e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_masks_keep_their_labels(dtype: torch.dtype) -> None:
    batch = images()
    masks = torch.tensor([0, 3, 200])[(batch[:, :1] * 3).long()].to(dtype)
    out = Augment(*all_ops((20, 18)), kernel="sinc")(batch, masks=masks)
    assert out.masks.shape == (4, 1, 20, 18)
    assert out.masks.dtype == dtype
    assert set(out.masks.unique().tolist()) == {0, 3, 200}
    assert torch.equal(out.masks, resample(masks, out.matrix, (20, 18), kernel="nearest"))


def test_boxes_keypoints_and_masks_follow_a_blob() -> None:
    centre, radius, size = torch.tensor([33.0, 26.0]), 5.0, (56, 64)
    rows, columns = torch.arange(56.0)[:, None], torch.arange(64.0)[None]
    distance = ((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2).sqrt()
    batch = torch.exp(-(distance**2) / 8).expand(32, 1, *size)
    edges = torch.cat([centre - radius, centre + radius]) + 0.5
    augment = Augment(
        RandomSubpixelShift(3.0), RandomRescale(1.2), RandomSubpixelCrop((48, 40), (0.7, 1.0)), RandomHorizontalFlip()
    )
    out = augment(
        batch,
        masks=(distance <= radius).float().expand(32, 1, *size),
        boxes=edges.expand(32, 1, 4),
        keypoints=centre.expand(32, 1, 2),
    )
    mass = out.images[:, 0] / out.images[:, 0].sum(dim=(1, 2), keepdim=True)
    x = (mass.sum(1) * torch.arange(40.0)).sum(1)
    y = (mass.sum(2) * torch.arange(48.0)).sum(1)
    torch.testing.assert_close(torch.stack([x, y], dim=-1), out.keypoints[:, 0], rtol=0, atol=0.05)
    assert (out.keypoints[:, 0, 0] - 33).abs().max() > 2
    for mask, box in zip(out.masks[:, 0] > 0, out.boxes[:, 0], strict=True):
        seen_x, seen_y = mask.any(0).nonzero(), mask.any(1).nonzero()
        seen = [seen_x.min(), seen_y.min(), seen_x.max() + 1, seen_y.max() + 1]
        # A box is up to half a pixel off the pixels whose centres it holds, and another half where they round.
        assert box.tolist() == pytest.approx([float(v) for v in seen], abs=1.3)


def test_boxes_are_clipped_to_the_output_and_keypoints_are_not() -> None:
    matrix = geometry.shift(torch.tensor([[-10.0, 5.0]]))
    boxes, keypoints = torch.tensor([[[0.0, 0.0, 35.0, 24.0]]]), torch.tensor([[[2.0, 22.0]]])
    out = Augment(RandomSubpixelShift(1.0))(images(1), boxes=boxes, keypoints=keypoints, matrix=matrix)
    assert out.boxes.flatten().tolist() == [0, 5, 25, 24]
    assert out.keypoints.flatten().tolist() == [-8, 27]


def test_targets_are_returned_only_where_they_are_passed() -> None:
    augment = Augment(RandomSubpixelShift(1.0))
    assert isinstance(augment(images()), Tensor)
    out = augment(images(), boxes=torch.zeros(4, 0, 4))
    assert out._fields[:5] == ("images", "masks", "boxes", "keypoints", "matrix")
    assert out.boxes.shape == (4, 0, 4)
    assert out.masks is None
    assert out.keypoints is None


@pytest.mark.parametrize("make", [*OPS.values(), lambda: Augment(*all_ops(), normalize=(0.5, 0.2))], ids=[*OPS, "all"])
@pytest.mark.parametrize("twin", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_and_pickles_act_alike(make: Callable[[], nn.Module], twin: Callable[[nn.Module], nn.Module]) -> None:
    module, batch = make(), images()
    before = module(batch, generator=seeded())
    assert torch.equal(twin(module)(batch, generator=seeded()), before)
    assert repr(twin(module)) == repr(module)


def test_representations_name_the_ranges() -> None:
    assert repr(RandomSubpixelShift(2.5, p=0.5)) == "RandomSubpixelShift(max_pixels=2.5, p=0.5)"
    assert repr(RandomRescale(1.2)) == "RandomRescale(max_factor=1.2, p=1.0)"
    crop = "RandomSubpixelCrop(size=(8, 9), area=(0.5, 1.0), ratio=(0.5, 2.0), p=1.0)"
    assert repr(RandomSubpixelCrop((8, 9), (0.5, 1), (0.5, 2))) == crop
    assert repr(RandomHorizontalFlip()) == "RandomHorizontalFlip(p=0.5)"
    text = repr(Augment(RandomHorizontalFlip(), kernel="sinc", strength=0.5))
    assert "kernel='sinc', padding='zeros', strength=0.5" in text
    assert "RandomHorizontalFlip(p=0.5)" in text


@pytest.mark.parametrize("make", [*OPS.values(), lambda: Augment(*all_ops())], ids=[*OPS, "Augment"])
def test_the_input_is_never_changed(make: Callable[[], nn.Module]) -> None:
    batch = images()
    before = batch.clone()
    make()(batch).zero_()
    assert torch.equal(batch, before)


@pytest.mark.parametrize("batch", [0, 1])
def test_small_batches(batch: int) -> None:
    assert Augment(*all_ops((20, 18)))(images(batch)).shape == (batch, 2, 20, 18)
    for make in OPS.values():
        assert make()(images(batch)).shape == (batch, 2, *SIZE)


X, SHIFT = torch.zeros(2, 3, 8, 9), RandomSubpixelShift(1.0)
AUGMENT = Augment(SHIFT)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: RandomSubpixelShift(-1.0), InputError, "max_pixels: expected a number at least 0, got -1"),
        (lambda: RandomSubpixelShift(float("inf")), InputError, "max_pixels.*got inf"),
        (lambda: RandomSubpixelShift(float("nan")), InputError, "max_pixels.*got nan"),
        (lambda: RandomSubpixelShift("2"), InputTypeError, "max_pixels: expected a number, got '2'"),
        (lambda: RandomSubpixelShift(True), InputTypeError, "max_pixels: expected a number, got True"),
        (lambda: RandomRescale(0.9), InputError, "max_factor: expected a number at least 1, got 0.9"),
        (lambda: RandomHorizontalFlip(1.1), InputError, r"p: expected a number in \[0, 1\], got 1.1"),
        (lambda: RandomRescale(1.1, p=-0.1), InputError, r"p: expected a number in \[0, 1\], got -0.1"),
        (lambda: RandomSubpixelCrop(area=(0.0, 1.0)), InputError, "area: expected a number"),
        (lambda: RandomSubpixelCrop(area=(0.5, 1.1)), InputError, "area: expected a number"),
        (lambda: RandomSubpixelCrop(area=(0.9, 0.5)), InputError, "area: expected low <= high"),
        (lambda: RandomSubpixelCrop(area=0.5), InputError, r"area: expected \(low, high\), got 0.5"),
        (lambda: RandomSubpixelCrop(ratio=(1.0,)), InputError, r"ratio: expected \(low, high\)"),
        (lambda: RandomSubpixelCrop(ratio=(0.0, 1.0)), InputError, "ratio: expected a number"),
        (lambda: RandomSubpixelCrop((0, 8)), InputError, r"size: expected \(H, W\)"),
        (lambda: RandomSubpixelShift(1.0, kernel="linear"), InputError, "kernel 'linear': did you mean 'bilinear'"),
        (lambda: RandomSubpixelShift(1.0, padding="zero"), InputError, "padding 'zero': did you mean 'zeros'"),
        (lambda: Augment(SHIFT, kernel="lanczos"), InputError, "kernel 'lanczos': did you mean 'lanczos3'"),
        (lambda: Augment(SHIFT, strength=1.5), InputError, r"strength: expected a number in \[0, 1\], got 1.5"),
        (lambda: Augment(nn.Flatten()), InputTypeError, "expected augkit ops.*got Flatten"),
        (lambda: Augment([SHIFT]), InputTypeError, "expected augkit ops.*got list"),
        (lambda: Augment(RandomRescale(1.1), kernel="fourier", padding="circular"), InputError, "'fourier' expects"),
        (lambda: Augment(SHIFT, kernel="fourier"), InputError, "'fourier' expects padding 'circular'"),
        (lambda: Augment(dtype=torch.int64), InputTypeError, "dtype: expected a floating dtype.*int64"),
        (lambda: Augment(dtype="float32"), InputTypeError, "dtype: expected a floating dtype"),
        (lambda: Augment(normalize=(0.5,)), InputTypeError, r"normalize: expected \(mean, std\)"),
        (lambda: Augment(normalize=0.5), InputTypeError, r"normalize: expected \(mean, std\)"),
        (lambda: Augment(normalize=(0.5, 0.0)), InputError, "std above 0"),
        (lambda: Augment(normalize=([0.5] * 3, [1.0])), InputError, "equal length"),
        (lambda: Augment(normalize=([0.5] * 2, [1.0] * 2))(X), InputError, "images of 2 channels, got 3"),
        (lambda: AUGMENT(X[0]), InputError, "images: expected 4 dimensions"),
        (lambda: AUGMENT(X.long()), InputTypeError, "images: expected a floating dtype or uint8"),
        (lambda: AUGMENT(X.numpy()), InputTypeError, "images: expected a torch.Tensor.*ndarray"),
        (lambda: SHIFT(X[0]), InputError, "images: expected 4 dimensions"),
        (lambda: SHIFT(X.byte()), InputTypeError, "images: expected a floating dtype.*uint8"),
        (lambda: SHIFT(X, strength=2), InputError, "strength: expected a number"),
        (lambda: AUGMENT(X, strength=-0.1), InputError, "strength: expected a number"),
        (lambda: AUGMENT(X, strength="all"), InputTypeError, "strength: expected a number, got 'all'"),
        (lambda: AUGMENT(X, strength=torch.ones(3)), InputError, r"strength: expected a scalar or shape \(2,\)"),
        (lambda: AUGMENT(X, strength=torch.tensor([0.5, 1.5])), InputError, r"strength: expected values in \[0, 1\]"),
        (lambda: AUGMENT(X, strength=torch.tensor(math.nan)), InputError, r"strength: expected values in \[0, 1\]"),
        (lambda: AUGMENT(X, generator=3), InputTypeError, "generator: expected a torch.Generator, got int"),
        (lambda: SHIFT(X, generator=3), InputTypeError, "generator: expected a torch.Generator, got int"),
        (lambda: AUGMENT(X, matrix=torch.eye(3).expand(3, 3, 3)), InputError, "matrix: expected shape"),
        (lambda: AUGMENT(X, masks=X[:1]), InputError, "masks: expected the batch, height and width of the images"),
        (lambda: AUGMENT(X, masks=X[..., 1:]), InputError, "masks: expected the batch, height and width"),
        (lambda: AUGMENT(X, masks=X[:, 0]), InputError, "masks: expected 4 dimensions"),
        (lambda: AUGMENT(X, masks=X.cfloat()), InputTypeError, "masks: expected a real tensor"),
        (lambda: AUGMENT(X, boxes=torch.zeros(2, 4)), InputError, r"boxes: expected shape \(2, N, 4\)"),
        (lambda: AUGMENT(X, boxes=torch.zeros(2, 1, 4).long()), InputTypeError, "boxes: expected a floating tensor"),
        (lambda: AUGMENT(X, keypoints=torch.zeros(1, 3, 2)), InputError, r"keypoints: expected shape \(2, N, 2\)"),
        (lambda: AUGMENT(X, keypoints=[[1, 2]]), InputTypeError, "keypoints: expected a floating tensor.*list"),
    ],
)
def test_bad_input(act: Callable[[], Any], error: type[InputError], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        act()
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
