"""NaN and infinity: they move with their pixel, and reach only the pixels whose taps hold them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from augkit import Augment, RandomHorizontalFlip, fourier_shift, resample, shift_blur
from augkit.augment import geometry
from augkit.augment.backends import separable
from augkit.augment.kernels import HALF_WIDTH, PADDINGS
from augkit.augment.resample import resample_checked, shift_checked

SIZE = (9, 11)
VALUES = (float("nan"), float("inf"), float("-inf"))
Way = Callable[[Tensor, Tensor, str, str], Tensor]


def mapped(images: Tensor, matrix: Tensor, kernel: str, padding: str) -> Tensor:
    def one(image: Tensor) -> Tensor:
        return resample(image[None], matrix, kernel=kernel, padding=padding)[0]

    return torch.func.vmap(one)(images)


WAYS: dict[str, Way] = {
    "native": lambda x, m, k, p: resample(x, m, kernel=k, padding=p),
    "torch": lambda x, m, k, p: resample(x.double(), m, kernel=k, padding=p).float(),
    "recorded": lambda x, m, k, p: resample(x.clone().requires_grad_(), m, kernel=k, padding=p).detach(),
    "half": lambda x, m, k, p: resample(x.half(), m, kernel=k, padding=p).float(),
    "general": lambda x, m, k, p: resample(x, m.clone().requires_grad_(), kernel=k, padding=p).detach(),
    "mapped": mapped,
}


def picture(
    values: tuple[float, ...] = VALUES, places: tuple[tuple[int, int], ...] = ((4, 5), (4, 7), (0, 0))
) -> Tensor:
    images = (torch.rand(2, 2, *SIZE, generator=torch.Generator().manual_seed(1)) + 0.25).half().float()
    for value, (y, x) in zip(values, places, strict=True):
        images[:, 1, y, x] = value
    return images


def same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | (a.isnan() & b.isnan())).all())


@pytest.mark.parametrize("gathered", [False, True])
@pytest.mark.parametrize("kernel", HALF_WIDTH)
@pytest.mark.parametrize("way", list(WAYS))
def test_a_flip_and_whole_shifts_move_every_value_as_it_is(
    way: str, kernel: str, gathered: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gathered:
        monkeypatch.setattr(separable, "DENSE_UP_TO", 0)
    images = picture()
    flip = geometry.flip(torch.tensor([True]), SIZE)[0]
    for padding in PADDINGS:
        assert same(WAYS[way](images, flip, kernel, padding), images.flip(-1))
        assert same(WAYS[way](images, torch.eye(3), kernel, padding), images)
    rolled = WAYS[way](images, geometry.shift(torch.tensor([[3.0, -2.0]]))[0], kernel, "circular")
    assert same(rolled, images.roll((-2, 3), (-2, -1)))
    turned = geometry.axis_aligned(*torch.tensor([[-1.0], [13.0], [-1.0], [6.0]]))[0]
    expected = images.flip(-1, -2).roll((-2, 3), (-2, -1))
    assert same(WAYS[way](images, turned, kernel, "circular"), expected)


@pytest.mark.integration
@pytest.mark.parametrize("size", [9, 80])
def test_traced_code_handles_special_values_alike(size: int) -> None:
    images = torch.rand(1, 1, size, size)
    images[0, 0, 4, 4], images[0, 0, 0, 7] = torch.nan, torch.inf

    @torch.compile(backend="aot_eager", fullgraph=True)
    def run(images: Tensor, matrix: Tensor) -> Tensor:
        return resample_checked(images, matrix, (size, size), "bicubic", "border", 1.0, axis_aligned=True)

    flip = geometry.flip(torch.tensor([True]), (size, size))
    assert same(run(images, flip), images.flip(-1))


@settings(max_examples=25, deadline=None)
@given(
    way=st.sampled_from(list(WAYS)),
    kernel=st.sampled_from(list(HALF_WIDTH)),
    padding=st.sampled_from(PADDINGS),
    value=st.sampled_from(VALUES),
    place=st.tuples(st.integers(0, SIZE[0] - 1), st.integers(0, SIZE[1] - 1)),
    scale=st.sampled_from([1.0, -1.0, 2.0, 0.5, 0.8, 1.3]),
    offset=st.sampled_from([0.0, 1.0, -2.0, 0.5, 0.3, 4.7]),
)
def test_a_special_value_reaches_only_the_pixels_whose_taps_hold_it(
    way: str, kernel: str, padding: str, value: float, place: tuple[int, int], scale: float, offset: float
) -> None:
    images, spot = picture((value,), (place,)), torch.zeros(2, 2, *SIZE)
    spot[:, 1, place[0], place[1]] = 1
    entries = torch.tensor([[scale], [offset + (scale < 0) * 10], [abs(scale)], [-offset]])
    matrix = geometry.axis_aligned(*entries)[0]
    out, share = (WAYS[way](x, matrix, kernel, padding) for x in (images, spot))
    exact = resample(spot.double(), matrix, kernel=kernel, padding=padding)
    reached = ~out.isfinite()
    # A share of a rounding may be 0 in one arithmetic and not in another.
    assert reached[exact.abs() > 1e-6].all()
    assert not reached[(exact == 0) & (share == 0)].any()
    finite = resample(images.nan_to_num(0, 0, 0), matrix, kernel=kernel, padding=padding)
    torch.testing.assert_close(out[~reached], finite[~reached], rtol=0, atol=5e-3 if way == "half" else 1e-5)


def test_the_gradient_of_a_shift_by_whole_pixels_sees_its_neighbors() -> None:
    images = torch.rand(1, 1, 6, 7, dtype=torch.float64)
    gradients = []
    for given_images in (images, torch.cat([images, torch.full_like(images, torch.inf)])):
        pixels = torch.tensor([[1.0, -2.0]], dtype=torch.float64, requires_grad=True)
        out = shift_checked(given_images, pixels.expand(len(given_images), 2), (6, 7), "bicubic", "circular")
        gradients.append(torch.autograd.grad((out[0] * torch.arange(7)).sum(), pixels)[0])
    torch.testing.assert_close(*gradients)
    assert gradients[0].abs().max() > 0.01


@pytest.mark.parametrize("kernel", HALF_WIDTH)
def test_shift_checked_moves_them_too(kernel: str) -> None:
    pixels = torch.tensor([[3.0, -2.0], [0.0, 4.0]])
    for images in (picture(), picture().double(), picture().requires_grad_()):
        out = shift_checked(images, pixels, SIZE, kernel, "circular").detach()
        assert same(out[:1], images[:1].detach().roll((-2, 3), (-2, -1)))
        assert same(out[1:], images[1:].detach().roll(4, -2))


def test_whole_shifts_by_fourier_are_rolls_bit_for_bit() -> None:
    images, shift = picture(), torch.tensor([[3.0, -2.0], [0.4, 1.0]])
    expected = images[:1].roll((-2, 3), (-2, -1))
    assert same(fourier_shift(images, shift)[:1], expected)
    assert same(fourier_shift(images, shift.clone().requires_grad_())[:1].detach(), expected)
    assert same(resample(images, geometry.shift(shift), kernel="fourier", padding="circular")[:1], expected)
    clean = images.nan_to_num(0, 0, 0)
    assert torch.equal(fourier_shift(clean, shift)[:1], clean[:1].roll((-2, 3), (-2, -1)))


def test_a_blur_of_whole_pixels_touches_nothing() -> None:
    images = picture()
    assert same(shift_blur(images, torch.tensor([2.0, -1.0])), images)


@pytest.mark.parametrize("normalize", [None, (0.4, 0.3)])
def test_augment_flips_special_values_with_their_pixels(normalize: tuple[float, float] | None) -> None:
    images = picture()
    for given_images in (images, images.double()):
        out = Augment(RandomHorizontalFlip(1.0), kernel="lanczos3", normalize=normalize)(given_images)
        expected = given_images.flip(-1)
        expected = expected if normalize is None else (expected - normalize[0]) / normalize[1]
        torch.testing.assert_close(out, expected, equal_nan=True, rtol=0, atol=1e-5)
