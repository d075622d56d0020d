"""Gradients with respect to matrices, shifts, blurs and strengths, against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from augkit import Augment, RandomRescale, RandomSubpixelShift, fourier_shift, resample, shift_blur
from augkit.augment import geometry
from augkit.augment.kernels import HALF_WIDTH, PADDINGS

SIZE = (6, 7)
LAST = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
# Axis-aligned, none at a scale of exactly 1 nor at a whole pixel, where the derivative has a kink.
ALIGNED = {
    "grows": [[1.31, 0.0, -0.3], [0.0, 1.17, -0.44]],
    "shrinks": [[0.71, 0.0, 0.83], [0.0, 0.83, 0.41]],
    "mirrors": [[-1.1, 0.0, 5.83], [0.0, 1.2, -0.37]],
}
SHIFTS = torch.tensor([[1.0, 0.0, 0.3], [0.0, 1.0, -0.4]], dtype=torch.float64)


def pictures(batch: int = 1, size: tuple[int, int] = SIZE) -> Tensor:
    return torch.rand(batch, 1, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


def full(rows: Tensor) -> Tensor:
    return torch.cat([rows, LAST.expand(*rows.shape[:-2], 1, 3)], dim=-2)


def differences(act: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences of ``act`` at ``at``: one row an entry."""
    rows = []
    for k in range(at.numel()):
        change = torch.zeros_like(at).view(-1)
        change[k] = step
        change = change.view_as(at)
        rows.append((act(at + change) - act(at - change)).reshape(-1) / (2 * step))
    return torch.stack(rows)


def jacobian(act: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    return torch.autograd.functional.jacobian(act, at).reshape(-1, at.numel()).T


SMOOTH = [name for name in HALF_WIDTH if name != "nearest"]
EVERY = [("grows", kernel, padding) for kernel in SMOOTH for padding in PADDINGS]
EVERY += [(name, kernel, "reflection") for name in ("shrinks", "mirrors") for kernel in SMOOTH]


@pytest.mark.parametrize(("name", "kernel", "padding"), EVERY)
def test_every_entry_of_an_axis_aligned_matrix_has_its_gradient(name: str, kernel: str, padding: str) -> None:
    images, rows = pictures(), torch.tensor([ALIGNED[name]], dtype=torch.float64)

    def act(rows: Tensor) -> Tensor:
        return resample(images, full(rows), (5, 6), kernel=kernel, padding=padding)

    expected = differences(act, rows)
    assert (expected.abs().amax(dim=1) > 0.05).all()
    torch.testing.assert_close(jacobian(act, rows), expected, rtol=1e-5, atol=1e-6)
    gradient = torch.func.jacrev(act)(rows).reshape(-1, 6).T
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos3", "sinc"])
def test_rotation_and_shear_can_be_learned_from_a_shift(kernel: str, antialias: bool) -> None:
    images = pictures()

    def act(lean: Tensor) -> Tensor:
        turn = torch.stack([torch.stack([lean[0] * 0, lean[0]]), torch.stack([lean[1], lean[0] * 0])])
        rows = SHIFTS + torch.nn.functional.pad(turn, (0, 1))
        return resample(images, full(rows), kernel=kernel, padding="border", antialias=antialias)

    still = torch.zeros(2, dtype=torch.float64)
    torch.testing.assert_close(jacobian(act, still), differences(act, still), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_one_matrix_for_all_or_one_each(batch: int | None) -> None:
    images = pictures(batch or 2)
    rows = torch.tensor(ALIGNED["grows"], dtype=torch.float64)
    rows = rows if batch is None else rows + torch.linspace(0, 0.02, batch, dtype=torch.float64)[:, None, None]
    rows[..., [0, 1], [1, 0]] = 0

    def act(rows: Tensor) -> Tensor:
        return resample(images, full(rows))

    torch.testing.assert_close(jacobian(act, rows), differences(act, rows), rtol=1e-5, atol=1e-6)


def test_the_gradient_of_nearest_is_zero_and_not_missing() -> None:
    matrix = full(torch.tensor([ALIGNED["grows"]], dtype=torch.float64)).requires_grad_()
    resample(pictures(), matrix, kernel="nearest").sum().backward()
    assert matrix.grad is not None
    assert not matrix.grad.any()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
def test_forward_derivatives() -> None:
    images, rows = pictures(), torch.tensor([ALIGNED["shrinks"]], dtype=torch.float64)
    tangent = torch.rand(1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def act(rows: Tensor) -> Tensor:
        return resample(images, full(rows), kernel="bicubic", padding="border")

    expected = (differences(act, rows) * tangent.reshape(6, 1)).sum(dim=0)
    moved = torch.func.jvp(act, (rows,), (tangent,))[1]
    torch.testing.assert_close(moved.flatten(), expected, rtol=1e-5, atol=1e-6)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(act(forward_ad.make_dual(rows, tangent))).tangent
    torch.testing.assert_close(dual, moved)


def test_the_replay_of_augment_has_the_gradients_too() -> None:
    images, augment = pictures(2), Augment(RandomSubpixelShift(1.0), RandomRescale(1.3), padding="reflection")
    matrix = augment(images, keypoints=images.new_zeros(2, 0, 2)).matrix.double()

    def act(rows: Tensor) -> Tensor:
        return augment(images, matrix=full(rows))

    rows = matrix[:, :2].clone()
    torch.testing.assert_close(jacobian(act, rows), differences(act, rows), rtol=1e-5, atol=1e-6)
    points, boxes = torch.rand(2, 3, 2, dtype=torch.float64) * 6, torch.tensor([[[1.0, 1, 4, 3]]]).expand(2, 1, 4)

    def follow(rows: Tensor) -> Tensor:
        out = augment(images, keypoints=points, boxes=boxes.double(), matrix=full(rows))
        return torch.cat([out.keypoints.flatten(), out.boxes.flatten()])

    # Where the corner that makes an edge of the box is not unique, a lean has a kink; points have none.
    got, expected = jacobian(follow, rows), differences(follow, rows)
    torch.testing.assert_close(got[:, :12], expected[:, :12], rtol=1e-5, atol=1e-6)
    straight = [k for k in range(12) if k % 6 not in (1, 3)]
    torch.testing.assert_close(got[straight], expected[straight], rtol=1e-5, atol=1e-6)


def test_values_do_not_depend_on_whether_a_gradient_is_wanted() -> None:
    images = torch.rand(2, 3, 20, 30)
    matrix = geometry.axis_aligned(*torch.tensor([[0.7, 1.2], [1.3, -2.1], [1.1, 0.8], [0.4, 3.3]]))
    for kernel in HALF_WIDTH:
        plain = resample(images, matrix, kernel=kernel)
        torch.testing.assert_close(resample(images, matrix.clone().requires_grad_(), kernel=kernel), plain)
    same = resample(images, torch.eye(3).requires_grad_())
    assert torch.equal(same, images)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", [name for name in HALF_WIDTH if name != "nearest"])
def test_the_blur_of_a_shift(kernel: str, padding: str) -> None:
    images = pictures()

    def act(shift: Tensor) -> Tensor:
        return shift_blur(images, shift, kernel=kernel, padding=padding)

    for pixels in ([0.3, -0.4], [0.5, 0.25], [1.7, 2.2]):
        shift = torch.tensor(pixels, dtype=torch.float64)
        got = jacobian(act, shift)
        assert got.isfinite().all()
        if 0.5 not in pixels:  # the response of bilinear vanishes there at the highest frequency: a kink
            torch.testing.assert_close(got, differences(act, shift), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pixels", [[0.3, -0.7], [0.0, 0.0], [2.0, -1.0], [1.0, 0.5]])
def test_the_fourier_shift(pixels: list[float]) -> None:
    images, shift = pictures(size=(5, 7)), torch.tensor([pixels], dtype=torch.float64)

    def act(shift: Tensor) -> Tensor:
        return fourier_shift(images, shift)

    torch.testing.assert_close(jacobian(act, shift), differences(act, shift), rtol=1e-5, atol=1e-6)
    forward = torch.func.jacrev(act)(shift).reshape(-1, 2).T
    torch.testing.assert_close(forward, differences(act, shift), rtol=1e-5, atol=1e-6)


def test_a_strength_can_be_learned() -> None:
    images, augment = pictures(4), Augment(RandomSubpixelShift(2.0), padding="border")
    draws = torch.tensor([[0.1, 0.37, 0.81], [0.2, 0.43, 0.66], [0.3, 0.9, 0.2], [0.4, 0.55, 0.12]])

    def act(strength: Tensor) -> Tensor:
        return augment.render(images, augment.matrix(draws.double(), strength, SIZE))

    strength = torch.tensor([0.3, 0.5, 0.7, 0.45], dtype=torch.float64)
    torch.testing.assert_close(jacobian(act, strength), differences(act, strength), rtol=1e-5, atol=1e-6)
