"""The resampling against slow loops, other libraries, and the laws of shifts and scales."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import reference
import scipy.ndimage
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends import separable
from augkit.augment.resample import fourier_shift, resample, resample_checked, shift_checked

KERNELS = ["nearest", "bilinear", "bicubic", "lanczos3", "sinc"]
PADDINGS = ["zeros", "border", "reflection", "circular"]
NUMPY_MODE = {"zeros": "constant", "border": "edge", "reflection": "reflect", "circular": "wrap"}

# Input size, output size, and (scale_x, shift_x, scale_y, shift_y) of each sample: numbers of few bits, so that
# float32 coordinates are as exact as they can be.
CASES = {
    "shift": ((7, 10), (7, 10), [(1, 1.28125, 1, -2.71875), (1, -13.21875, 1, 0.46875)]),
    "enlarge": ((9, 5), (13, 11), [(2.1875, 0.71875, 1.40625, -0.34375), (1.09375, -1.03125, 1.15625, 1.21875)]),
    "shrink": ((13, 8), (5, 6), [(0.59375, 0.21875, 0.40625, -0.15625), (0.90625, 0.34375, 1.34375, -1.21875)]),
    "enlarge a long axis": ((5, 71), (6, 90), [(1.28125, -3.09375, 1.15625, 0.28125)]),
    "shrink a long axis": ((70, 6), (40, 9), [(1.46875, 0.28125, 0.59375, -0.90625)]),
    "shift a long axis": ((3, 80), (4, 77), [(1, -5.71875, 1, 0.28125), (1, 2.09375, 1, 0.21875)]),
    "mirror": ((6, 9), (8, 7), [(-0.84375, 6.21875, -1.28125, 7.09375)]),
    "one pixel": ((1, 4), (3, 1), [(0.71875, 0.21875, 1.40625, 0.59375)]),
}


def axis_aligned(rows: list[tuple[float, ...]], dtype: torch.dtype = torch.float64) -> Tensor:
    return geometry.axis_aligned(*torch.tensor(rows, dtype=dtype).unbind(-1))


def recorded(images: Tensor) -> Tensor:
    """The images, watched by autograd: a path of its own in the backends."""
    return images.clone().requires_grad_()


def shift(x: float, y: float, dtype: torch.dtype = torch.float32) -> Tensor:
    return axis_aligned([(1, x, 1, y)], dtype)[0]


def whole(size: tuple[int, int], out: tuple[int, int], dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix that shows an image of ``size`` as a whole at size ``out``."""
    zero = torch.zeros(1, dtype=dtype)
    return geometry.crop(zero, zero, zero + size[1], zero + size[0], out)[0]


def waves(height: int, width: int, top: float) -> Tensor:
    """Random images in [-1, 1] of frequencies below ``top`` cycles per pixel, on a torus."""
    fy, fx = torch.fft.fftfreq(height)[:, None].abs(), torch.fft.fftfreq(width)[None].abs()
    spectrum = torch.fft.fft2(torch.randn(2, 1, height, width, dtype=torch.float64))
    images = torch.fft.ifft2(spectrum * ((fx < top) & (fy < top))).real
    return images / images.abs().max()


def blob(x: float, y: float, size: tuple[int, int], sigma: float = 2.0) -> Tensor:
    rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])[None]
    return torch.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))[None, None]


def centroid(image: Tensor) -> list[float]:
    mass = image[0, 0] / image.sum()
    return [
        float((mass.sum(0) * torch.arange(mass.shape[1])).sum()),
        float((mass.sum(1) * torch.arange(mass.shape[0])).sum()),
    ]


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("padding", PADDINGS)
def test_the_reference_pads_as_numpy(padding: str, size: int) -> None:
    row = np.arange(1.0, size + 1)
    expected = np.pad(row, 11, NUMPY_MODE[padding]) if size > 1 or padding != "reflection" else np.ones(23)
    places = [reference.padded(i, size, padding) for i in range(-11, size + 11)]
    assert [0.0 if place is None else row[place] for place in places] == expected.tolist()


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_resample_agrees_with_the_reference(kernel: str, padding: str, case: str) -> None:
    size, out, rows = CASES[case]
    images, matrix = torch.rand(len(rows), 2, *size, dtype=torch.float64), axis_aligned(rows)
    expected = torch.from_numpy(reference.resample(images.numpy(), matrix.numpy(), out, kernel, padding))
    for given in (images, recorded(images)):
        exact = resample(given, matrix, out, kernel=kernel, padding=padding)
        torch.testing.assert_close(exact, expected, rtol=0, atol=1e-12)
        single = resample(given.float(), matrix.float(), out, kernel=kernel, padding=padding)
        torch.testing.assert_close(single.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_antialias_off_agrees_with_the_reference(kernel: str) -> None:
    size, out, rows = CASES["shrink"]
    images, matrix = torch.rand(2, 2, *size, dtype=torch.float64), axis_aligned(rows)
    expected = reference.resample(images.numpy(), matrix.numpy(), out, kernel, "reflection", antialias=False)
    for given in (images, recorded(images)):
        actual = resample(given, matrix, out, kernel=kernel, padding="reflection", antialias=False)
        torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_three_ways_to_apply_taps_agree(padding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(2, 3, 40, 47, dtype=torch.float64)
    matrix = axis_aligned([(1.2, 0.3, 0.9, -0.7), (0.7, -4.4, 1.3, 0.6)])
    monkeypatch.setattr(separable, "_gather", None)
    with monkeypatch.context() as only:
        only.setattr(separable, "_apply_dense", None)
        bags = resample(images, matrix, (31, 52), padding=padding)
    monkeypatch.setattr(separable, "_apply_bags", None)
    dense = resample(recorded(images), matrix, (31, 52), padding=padding)
    torch.testing.assert_close(dense, bags, rtol=0, atol=1e-12)
    monkeypatch.undo()
    monkeypatch.setattr(separable, "DENSE_UP_TO", 0)
    monkeypatch.setattr(separable, "_apply_dense", None)
    gathered = resample(recorded(images), matrix, (31, 52), padding=padding)
    torch.testing.assert_close(gathered, bags, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", [*KERNELS, "fourier"])
def test_the_identity_changes_no_bit(kernel: str, padding: str, dtype: torch.dtype) -> None:
    padding = "circular" if kernel == "fourier" else padding
    images = (torch.rand(2, 3, 7, 70) * 255).to(dtype)
    for given in (images, recorded(images)) if dtype.is_floating_point else (images,):
        out = resample(given, torch.eye(3), kernel=kernel, padding=padding)
        assert out.dtype == dtype
        assert torch.equal(out, images)
        if kernel != "fourier":
            assert torch.equal(shift_checked(given, torch.zeros(2, 2), (7, 70), kernel, padding), images)


@pytest.mark.parametrize(("x", "y"), [(3, 0), (-2, 1), (0, -4), (9, -11)])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_whole_pixels_move_pixels_and_change_none(kernel: str, padding: str, x: int, y: int) -> None:
    images = torch.rand(2, 3, 6, 70)
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (12, 12), (12, 12)), NUMPY_MODE[padding])
    expected = torch.from_numpy(wide)[..., 12 - y : 18 - y, 12 - x : 82 - x]
    pixels = torch.tensor([[x, y]], dtype=torch.float32).expand(2, 2)
    for given in (images, recorded(images)):
        assert torch.equal(resample(given, shift(x, y), kernel=kernel, padding=padding), expected)
        assert torch.equal(shift_checked(given, pixels, (6, 70), kernel, padding), expected)
    if padding == "circular":
        assert torch.equal(expected, images.roll((y, x), (-2, -1)))


# The largest error on images in [-1, 1] of frequencies below 1/8 of a cycle per pixel: a little above what was seen.
COMPOSITION_ERROR = {"bilinear": 0.15, "bicubic": 0.015, "lanczos3": 0.018, "sinc": 2e-4, "fourier": 1e-12}


@pytest.mark.parametrize("kernel", COMPOSITION_ERROR)
def test_shifts_compose_and_invert(kernel: str) -> None:
    images = waves(24, 33, top=1 / 8)

    def moved(images: Tensor, x: float, y: float) -> Tensor:
        return resample(images, shift(x, y, torch.float64), kernel=kernel, padding="circular")

    bound = COMPOSITION_ERROR[kernel]
    assert (moved(moved(images, 0.3, -1.4), 2.25, 0.8) - moved(images, 2.55, -0.6)).abs().max() < bound
    assert (moved(moved(images, 0.5, 0.5), -0.5, -0.5) - images).abs().max() < bound
    assert (moved(images, 0.5, 0.5) - images).abs().max() > 0.1


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("scale", [1.0, 0.6, 1.7])
def test_constant_images_stay_constant(kernel: str, padding: str, scale: float) -> None:
    matrix = axis_aligned([(scale, 0.3, scale, -0.4)], torch.float32)
    out = resample(torch.full((1, 1, 90, 90), 0.7), matrix, kernel=kernel, padding=padding)
    if padding == "zeros":  # The content shrinks to 54 pixels, and the sinc reaches 8 * 1.7 pixels of the output.
        out = out[..., 15:39, 15:39]
    torch.testing.assert_close(out, torch.full_like(out, 0.7), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kernel", [*KERNELS, "fourier"])
def test_a_batch_is_its_images_one_by_one(kernel: str) -> None:
    images = torch.rand(3, 2, 11, 9)
    scales = [1.0, 1.0, 1.0] if kernel == "fourier" else [1.0, 0.6, 1.4]
    matrix = axis_aligned([(s, 0.3 * k, s, -0.9) for k, s in enumerate(scales)], torch.float32)
    together = resample(images, matrix, kernel=kernel, padding="circular")
    alone = [resample(i[None], m, kernel=kernel, padding="circular") for i, m in zip(images, matrix, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("batch", [0, 1, 2])
def test_any_batch_and_number_of_channels(batch: int, channels: int) -> None:
    images = torch.rand(batch, channels, 8, 70)
    matrix = axis_aligned([(0.8, 0.3, 1.1, 0.2)] * batch, torch.float32) if batch else torch.zeros(0, 3, 3)
    out = resample(images, matrix, (6, 50))
    assert out.shape == (batch, channels, 6, 50)
    assert shift_checked(images, torch.zeros(batch, 2), (6, 50), "bicubic", "zeros").shape == out.shape
    assert fourier_shift(images, torch.full((batch, 2), 0.5)).shape == images.shape
    for c in range(channels):
        torch.testing.assert_close(out[:, c : c + 1], resample(images[:, c : c + 1], matrix, (6, 50)))


@pytest.mark.parametrize("act", [resample, lambda x, m: fourier_shift(x, m[:, :2, 2])])
def test_the_input_is_never_changed(act: Callable[[Tensor, Tensor], Tensor]) -> None:
    images, matrix = torch.rand(2, 1, 7, 70), shift(0.5, 1.5).expand(2, 3, 3).clone()
    before = images.clone(), matrix.clone()
    act(images, matrix).zero_()
    assert torch.equal(images, before[0])
    assert torch.equal(matrix, before[1])


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos3", "sinc", "fourier"])
def test_the_centroid_moves_by_the_pixels_promised(kernel: str) -> None:
    padding = "circular" if kernel == "fourier" else "zeros"
    out = resample(blob(17.2, 19.4, (36, 41)), shift(3.3, -2.6), kernel=kernel, padding=padding)
    # Lanczos weights, normalized, do not keep the first moment; that is a property of the kernel.
    assert centroid(out) == pytest.approx([20.5, 16.8], abs=0.02 if kernel == "lanczos3" else 2e-3)


@pytest.mark.parametrize("factor", [0.6, 1.5])
@pytest.mark.parametrize("kernel", KERNELS)
def test_distances_grow_by_the_factor(kernel: str, factor: float) -> None:
    size = (48, 51)
    matrix = geometry.rescale(torch.tensor([factor]), size)
    ends = [centroid(resample(blob(x, y, size), matrix, kernel=kernel)) for x, y in ((19, 20), (31, 26))]
    distance = [b - a for a, b in zip(*ends, strict=True)]
    # Nearest pixels are places rounded to pixels.
    assert distance == pytest.approx([12 * factor, 6 * factor], abs=0.1 if kernel == "nearest" else 0.02)


@pytest.mark.parametrize(
    ("padding", "mode"),
    [("zeros", "grid-constant"), ("circular", "grid-wrap"), ("reflection", "mirror"), ("border", "nearest")],
)
@pytest.mark.parametrize("scale", [1.0, 1.6])
def test_bilinear_agrees_with_scipy(padding: str, mode: str, scale: float) -> None:
    image = torch.rand(1, 1, 9, 12, dtype=torch.float64)
    matrix = axis_aligned([(scale, 2.3, scale, -3.6)])
    inverse = geometry.invert(matrix)[0]
    expected = scipy.ndimage.affine_transform(
        image[0, 0].numpy(), np.eye(2) / scale, inverse[[1, 0], [2, 2]].numpy(), order=1, mode=mode
    )
    actual = resample(image, matrix, kernel="bilinear", padding=padding)[0, 0]
    torch.testing.assert_close(actual, torch.from_numpy(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "filter_", "reach"),
    [
        ("bilinear", Image.Resampling.BILINEAR, 1),
        ("bicubic", Image.Resampling.BICUBIC, 2),
        ("lanczos3", Image.Resampling.LANCZOS, 3),
    ],
)
@pytest.mark.parametrize("out", [(31, 33), (80, 75)])
def test_resizing_agrees_with_pillow(kernel: str, filter_: int, reach: int, out: tuple[int, int]) -> None:
    image = torch.rand(64, 51)
    expected = torch.from_numpy(np.array(Image.fromarray(image.numpy()).resize(out[::-1], filter_)))
    actual = resample(image[None, None], whole((64, 51), out), out, kernel=kernel, padding="border")[0, 0]
    # At the border Pillow drops the taps outside and normalizes the rest; the pixels there differ by definition.
    inner = slice(2 * reach, -2 * reach)
    torch.testing.assert_close(actual[inner, inner], expected[inner, inner], rtol=0, atol=1e-5)


@pytest.mark.parametrize("out", [(20, 31), (32, 25), (70, 100)])
def test_resizing_agrees_with_torch(out: tuple[int, int]) -> None:
    images = torch.rand(2, 3, 64, 50)
    matrix = whole((64, 50), out)
    expected = F.interpolate(images, out, mode="bilinear", antialias=True, align_corners=False)
    actual = resample(images, matrix, out, kernel="bilinear", padding="border")
    torch.testing.assert_close(actual[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], rtol=0, atol=1e-5)
    plain = F.interpolate(images, out, mode="bilinear", align_corners=False)
    actual = resample(images, matrix, out, kernel="bilinear", padding="border", antialias=False)
    torch.testing.assert_close(actual, plain, rtol=0, atol=1e-5)
    # Halving puts every sample midway between two pixels: the tie is part of the definition.
    nearest = F.interpolate(images, out, mode="nearest-exact")
    assert torch.equal(resample(images, matrix, out, kernel="nearest"), nearest)


def test_midway_nearest_takes_the_pixel_after() -> None:
    row = torch.arange(1.0, 5.0).reshape(1, 1, 1, 4)
    assert resample(row, shift(-0.5, 0), kernel="nearest").flatten().tolist() == [2, 3, 4, 0]
    assert resample(row, shift(0.5, 0), kernel="nearest").flatten().tolist() == [1, 2, 3, 4]
    # Just below -1/2, where float32 rounds the distance of the pixel to more than 1/2.
    step = torch.nextafter(torch.tensor(0.5), torch.tensor(1.0)).item()
    assert resample(row, shift(step, 0), kernel="nearest", padding="border").isfinite().all()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_shift_checked_equals_resample(kernel: str, padding: str) -> None:
    images, pixels = torch.rand(3, 2, 9, 70), torch.tensor([[0.3, -1.6], [2.25, 0.5], [-33.4, 20.9]])
    for given in (images, recorded(images)):
        actual = shift_checked(given, pixels, (12, 66), kernel, padding)
        expected = resample(given, geometry.shift(pixels), (12, 66), kernel=kernel, padding=padding)
        torch.testing.assert_close(actual, expected, rtol=0, atol=2e-5)
        precise = shift_checked(given.double(), pixels.double(), (12, 66), kernel, padding)
        expected = resample(given.double(), geometry.shift(pixels.double()), (12, 66), kernel=kernel, padding=padding)
        torch.testing.assert_close(precise, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos3", "sinc"])
@pytest.mark.parametrize("gathered", [False, True])
def test_gradients(kernel: str, padding: str, gathered: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if gathered:
        monkeypatch.setattr(separable, "DENSE_UP_TO", 0)
    images = torch.rand(2, 1, 3, 33, dtype=torch.float64, requires_grad=True)
    # A scale of exactly 1 is left out: antialiasing begins there, and the gradient has a kink.
    rows = [(0.83, 0.21, 1.27, -0.37), (1.1, -0.63, 0.71, 0.4)]
    entries = torch.tensor(rows, dtype=torch.float64, requires_grad=True)

    def act(images: Tensor, entries: Tensor) -> Tensor:
        return resample(images, geometry.axis_aligned(*entries.unbind(-1)), (2, 5), kernel=kernel, padding=padding)

    assert torch.autograd.gradcheck(act, (images, entries), fast_mode=True)


def test_the_strongest_shrink_keeps_its_gradient() -> None:
    images = torch.rand(1, 1, 5, 9, dtype=torch.float64)
    for scale in torch.linspace(0.3, 0.9, 50, dtype=torch.float64):
        entries = torch.tensor([[float(scale), 0.2, 0.95, -0.3]], dtype=torch.float64, requires_grad=True)
        matrix = geometry.axis_aligned(*entries.unbind(-1))
        bound_elsewhere = resample_checked(images, matrix, (3, 4), "bicubic", "border", 5.0, axis_aligned=True)
        gradients = [
            torch.autograd.grad(out[0, 0, 1, 2], entries, retain_graph=True)[0]
            for out in (resample(images, matrix, (3, 4), padding="border"), bound_elsewhere)
        ]
        torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("kernel", ["bilinear", "lanczos3"])
def test_autocast_does_not_lower_the_precision(kernel: str) -> None:
    # Recorded, or numba and `embedding_bag` would do what autocast cannot see.
    images, matrix = recorded(torch.rand(2, 3, 12, 80)), axis_aligned([(0.8, 0.3, 1.1, -0.2)] * 2, torch.float32)
    turn, pixels = geometry.rotate(torch.tensor([20.0, -5.0]), (12, 80)), torch.tensor([[0.3, 1.7]] * 2)

    def all_ways() -> list[Tensor]:
        shifted = shift_checked(images, pixels, (12, 80), kernel, "zeros")
        return [shifted, *(resample(images, m, kernel=kernel) for m in (matrix, turn))]

    expected = all_ways()
    with torch.autocast("cpu", torch.bfloat16):
        assert all(torch.equal(a, b) for a, b in zip(all_ways(), expected, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_resampled_in_float32(dtype: torch.dtype) -> None:
    images = torch.rand(2, 1, 10, 300).to(dtype)
    matrix = axis_aligned([(1.01, 0.3, 0.99, -0.2)] * 2, torch.float32)
    for given in (images, recorded(images)):
        assert torch.equal(resample(given, matrix), resample(given.float(), matrix).to(dtype))


def test_uint8_is_rounded_and_clipped() -> None:
    row = torch.tensor([0, 0, 255, 255], dtype=torch.uint8).reshape(1, 1, 1, 4)
    exact = resample(row.float(), shift(0.25, 0), kernel="lanczos3", padding="border")
    assert exact.min() < 0
    assert exact.max() > 255
    expected = exact.round().clamp(0, 255).to(torch.uint8)
    assert torch.equal(resample(row, shift(0.25, 0), kernel="lanczos3", padding="border"), expected)
