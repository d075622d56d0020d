"""The blur control has the shift's magnitude response, zero phase, and is the identity at whole pixels."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import augkit
from augkit.augment.blur import shift_blur, shift_response
from augkit.augment.kernels import FUNCTION
from augkit.augment.resample import resample
from augkit.core.errors import InputError

KERNELS = ["bilinear", "bicubic", "lanczos3", "sinc"]
FRACTIONS = [(0.5, 0.25), (-0.3, 2.7), (0.01, -0.5)]


def impulse(height: int = 24, width: int = 31) -> Tensor:
    images = torch.zeros(1, 1, height, width, dtype=torch.float64)
    images[..., height // 2, width // 2] = 1
    return images


def moved(images: Tensor, shift: Tensor, kernel: str) -> Tensor:
    matrix = torch.eye(3, dtype=torch.float64)
    matrix[:2, 2] = shift
    return resample(images, matrix, kernel=kernel, padding="circular")


@pytest.mark.parametrize("shift", FRACTIONS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_magnitude_is_the_shifts_and_phase_is_zero(kernel: str, shift: tuple[float, float]) -> None:
    displacement = torch.tensor(shift, dtype=torch.float64)
    images = impulse()
    before = torch.fft.fft2(images)
    blur = torch.fft.fft2(shift_blur(images, displacement, kernel=kernel, padding="circular")) / before
    move = torch.fft.fft2(moved(images, displacement, kernel)) / before
    torch.testing.assert_close(blur.real, move.abs(), rtol=0, atol=1e-12)  # the same magnitude
    assert blur.imag.abs().max() < 1e-12  # and no phase
    assert blur.real.min() > -1e-12


def test_fourier_blurs_the_nyquist_frequency_alone() -> None:
    images, shift = torch.rand(1, 1, 16, 15, dtype=torch.float64), torch.tensor([0.3, 0.4], dtype=torch.float64)
    blur = torch.fft.fft2(shift_blur(images, shift, kernel="fourier", padding="circular"))
    move = torch.fft.fft2(augkit.fourier_shift(images, shift))
    torch.testing.assert_close(blur.abs(), move.abs(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection", "circular"])
@pytest.mark.parametrize("kernel", ["nearest", *KERNELS])
def test_whole_pixels_are_bitwise_the_identity(kernel: str, padding: str) -> None:
    images = torch.rand(2, 3, 9, 12)
    assert torch.equal(
        shift_blur(images, torch.tensor([[2.0, -1.0], [0.0, 5.0]]), kernel=kernel, padding=padding), images
    )


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("kernel", ["bilinear", "lanczos3"])
def test_other_paddings_are_a_convolution_with_that_padding(kernel: str, padding: str) -> None:
    """Against a slow convolution: taps from a long inverse transform of |W|, the image padded far out by numpy."""
    import numpy as np

    row, f, length = torch.rand(20, dtype=torch.float64), 0.5, 4096
    response = shift_response(torch.tensor([f], dtype=torch.float64), torch.fft.fftfreq(length).double(), kernel)
    taps = torch.fft.ifft(response[0]).real.roll(length // 2)
    mode = {"zeros": "constant", "border": "edge", "reflection": "reflect"}[padding]
    wide = np.pad(row.numpy(), 1024, mode=mode)
    expected = np.convolve(wide, taps[length // 2 - 1000 : length // 2 + 1001].numpy(), mode="same")[1024:-1024]
    image = row.reshape(1, 1, 1, 20)
    got = shift_blur(image, torch.tensor([f, 0.0], dtype=torch.float64), kernel=kernel, padding=padding)
    np.testing.assert_allclose(got.flatten().numpy(), expected, atol=1.5e-3)


def test_response_is_that_of_the_taps() -> None:
    """Bilinear at one half is cos(pi f); bicubic from its four taps."""
    frequency = torch.linspace(0, 0.5, 9, dtype=torch.float64)
    half = torch.tensor([0.5], dtype=torch.float64)
    torch.testing.assert_close(shift_response(half, frequency, "bilinear")[0], torch.cos(math.pi * frequency))
    taps = FUNCTION["bicubic"](torch.tensor([-1.5, -0.5, 0.5, 1.5], dtype=torch.float64))
    expected = 2 * taps[1] * torch.cos(math.pi * frequency) + 2 * taps[0] * torch.cos(3 * math.pi * frequency)
    torch.testing.assert_close(shift_response(half, frequency, "bicubic")[0], expected.abs())


def test_constants_and_centroid_stay() -> None:
    flat = torch.full((1, 1, 16, 16), 0.7)
    shift = torch.tensor([0.5, 0.3])
    torch.testing.assert_close(shift_blur(flat, shift, padding="border"), flat)
    y, x = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    blob = torch.exp(-((x - 15.3) ** 2 + (y - 17.1) ** 2) / 8)[None, None]
    blurred = shift_blur(blob, shift, kernel="bilinear")
    assert blurred.max() < blob.max()
    for axis in (x, y):
        center, after = (axis * blob).sum() / blob.sum(), (axis * blurred).sum() / blurred.sum()
        assert abs(after - center) < 1e-3


def test_batch_is_one_by_one_and_integers_are_rounded() -> None:
    images, shift = torch.randint(0, 256, (4, 3, 9, 10), dtype=torch.uint8), torch.rand(4, 2)
    out = shift_blur(images, shift)
    assert out.dtype == torch.uint8
    for k in range(4):
        assert (shift_blur(images[k : k + 1], shift[k]).int() - out[k].int()).abs().max() <= 1
    real = shift_blur(images.float(), shift)
    assert (real.clamp(0, 255) - out).abs().max() <= 0.5 + 1e-3


def test_the_gradient_agrees_with_finite_differences() -> None:
    images = torch.rand(1, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor([[0.3, 0.6]], dtype=torch.float64)
    assert torch.autograd.gradcheck(
        lambda x: shift_blur(x, shift, kernel="bicubic", padding="reflection"), images, fast_mode=True
    )


class TestOp:
    def test_strength_p_and_replay(self) -> None:
        images = torch.rand(64, 1, 12, 12)
        augment = augkit.Augment(augkit.RandomShiftBlur(3.0, p=0.5), kernel="bilinear", padding="reflection")
        assert torch.equal(augment(images, strength=0.0), images)
        out = augment(images, keypoints=torch.zeros(64, 1, 2))
        assert torch.equal(out.matrix, torch.eye(3).expand(64, 3, 3))
        assert torch.equal(out.keypoints, torch.zeros(64, 1, 2))
        spared = (out.blur == 0).all(-1)
        assert torch.equal(out.images[spared], images[spared])
        assert 16 < int(spared.sum()) < 48
        torch.testing.assert_close(augment(images, matrix=out.matrix, blur=out.blur), out.images)

    def test_draws_what_the_shift_draws(self) -> None:
        images = torch.rand(8, 1, 16, 16)
        control = augkit.Augment(augkit.RandomShiftBlur(3.0), padding="circular")
        shift = augkit.Augment(augkit.RandomSubpixelShift(3.0), padding="circular")
        a = control(images, keypoints=torch.zeros(8, 1, 2), generator=torch.Generator().manual_seed(0))
        b = shift(images, keypoints=torch.zeros(8, 1, 2), generator=torch.Generator().manual_seed(0))
        assert torch.equal(a.blur, b.matrix[:, :2, 2])
        energy = [torch.fft.rfft2(out.images).abs() for out in (a, b)]
        torch.testing.assert_close(*energy, rtol=1e-3, atol=1e-3)

    def test_the_blur_is_applied_before_other_geometry(self) -> None:
        images = torch.rand(4, 1, 12, 12)
        augment = augkit.Augment(augkit.RandomShiftBlur(3.0), augkit.RandomHorizontalFlip(p=1.0))
        out = augment(images, keypoints=torch.zeros(4, 1, 2))
        torch.testing.assert_close(out.images, shift_blur(images, out.blur).flip(-1))

    def test_the_blur_op_alone_replays_its_params(self) -> None:
        op = augkit.RandomShiftBlur(3.0, padding="border")
        images = torch.rand(4, 1, 12, 12)
        out = op(images)
        assert torch.equal(op(images, params=op._params), out)

    def test_a_policy_with_blur_only_builds_the_blur(self) -> None:
        policy = augkit.Policy.from_yaml("shift: {max_pixels: 2.0, blur_only: true}")
        assert "RandomShiftBlur(max_pixels=2.0" in repr(policy.augment())
        assert str(policy) == "shift (max_pixels 2, p 1, blur only)"
        assert augkit.Policy.from_yaml(policy.to_yaml()) == policy


@pytest.mark.parametrize(
    "call",
    [
        lambda: shift_blur(torch.rand(1, 1, 4, 4), torch.zeros(3)),
        lambda: shift_blur(torch.rand(1, 1, 4, 4), torch.tensor([math.nan, 0])),
        lambda: shift_blur(torch.rand(1, 1, 4, 4), torch.zeros(2), kernel="fourier"),
        lambda: augkit.RandomShiftBlur(-1.0),
        lambda: augkit.Augment(augkit.RandomShiftBlur(1.0), augkit.RandomShiftBlur(1.0)),
    ],
)
def test_bad_input_is_one_line(call: object) -> None:
    with pytest.raises(InputError, match=r"\A[^\n]*expected[^\n]*got[^\n]*\Z"):
        call()  # type: ignore[operator]
