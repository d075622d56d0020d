from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import reference
import torch
from torch import Tensor

import augkit
from augkit.augment import backends
from augkit.augment.backends import separable
from augkit.augment.kernels import HALF_WIDTH, PADDINGS
from augkit.augment.resample import Finish, resample, resample_checked, shift_checked

native = pytest.importorskip("augkit.augment.backends.native", reason="numba is not installed")
SIZES = [((7, 10), (7, 10)), ((1, 5), (4, 3)), ((31, 70), (33, 20))]


@pytest.fixture(autouse=True)
def _fresh_answers() -> Iterator[None]:
    yield
    backends.installed.cache_clear()


def batch(size: tuple[int, int], dtype: torch.dtype = torch.float32, channels: int = 2) -> Tensor:
    images = torch.rand(3, channels, *size)
    return (images * 255).to(torch.uint8) if dtype == torch.uint8 else images.to(dtype)


def matrices(size: tuple[int, int], out: tuple[int, int]) -> Tensor:
    """The identity, a flip with enlargement, and a strong shrink off the edge."""
    fx, fy = out[1] / size[1], out[0] / size[0]
    rows = [(1, 0, 1, 0), (-1.3 * fx, size[1] - 1.2, 0.7 * fy, 1.37), (0.4 * fx, -3.3, 1.9 * fy, -5)]
    values = torch.tensor(rows, dtype=torch.float32).T
    return augkit.augment.geometry.axis_aligned(*values)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", HALF_WIDTH)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_native_and_torch_agree_with_the_reference(kernel: str, padding: str, dtype: torch.dtype) -> None:
    for size, out in SIZES:
        for antialias in (True, False):
            images, matrix, shrink = batch(size, dtype), matrices(size, out), 10.0 if antialias else 1.0
            expected = reference.resample(images.numpy(), matrix.numpy(), out, kernel, padding, antialias)
            tolerance = 1e-5 * (255 if dtype == torch.uint8 else 1)
            for actual in (
                native.resample(images, matrix, out, kernel, padding, shrink, dtype=torch.float32),
                separable.resample(images.float(), matrix, out, kernel, padding, shrink),
            ):
                assert np.abs(actual.numpy() - expected).max() < tolerance


def test_uint8_is_rounded_and_clipped() -> None:
    images, matrix = batch((9, 12), torch.uint8) // 128 * 255, matrices((9, 12), (9, 12))
    exact = native.resample(images, matrix, (9, 12), "lanczos3", "reflection", 3.0, dtype=torch.float32)
    out = native.resample(images, matrix, (9, 12), "lanczos3", "reflection", 3.0)
    assert exact.min() < 0  # or the clip is not tested
    assert torch.equal(out, exact.round().clamp(0, 255).to(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("kernel", HALF_WIDTH)
def test_the_identity_is_copied_whatever_it_holds(kernel: str, dtype: torch.dtype) -> None:
    images = batch((6, 5), dtype)
    if dtype.is_floating_point:
        images[0, 0, 2, 1:4] = torch.tensor([torch.nan, torch.inf, -0.0])
    matrix = torch.eye(3).repeat(3, 1, 1)
    matrix[1, 0, 2] = 0.5  # only this sample is resampled
    out = resample_checked(images, matrix, (6, 5), kernel, "border", 1.0, axis_aligned=True)
    for k in (0, 2):
        assert torch.equal(out[k].view(torch.uint8), images[k].view(torch.uint8))


@pytest.mark.parametrize("place", [1e9, -1e9, 400.3, -400.3])
@pytest.mark.parametrize("padding", PADDINGS)
def test_far_from_the_image(padding: str, place: float) -> None:
    images, matrix = torch.rand(1, 1, 6, 7), torch.eye(3)[None].clone()
    matrix[0, :2, 2] = place
    out = native.resample(images, matrix, (6, 7), "bilinear", padding, 1.0)
    expected = separable.resample(images, matrix, (6, 7), "bilinear", padding, 1.0)
    if padding in ("zeros", "border") or abs(place) < 1e6:
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 5), (2, 0, 4, 5), (1, 1, 1, 1), (2, 5, 3, 3)])
def test_any_batch_and_number_of_channels(shape: tuple[int, ...]) -> None:
    images, matrix = torch.rand(shape), augkit.augment.geometry.shift(torch.full((shape[0], 2), 0.25))
    out = native.resample(images, matrix, (6, 2), "bicubic", "reflection", 1.0)
    expected = separable.resample(images, matrix, (6, 2), "bicubic", "reflection", 1.0)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)


def test_strides_of_the_input_do_not_matter() -> None:
    images, matrix = torch.rand(3, 3, 8, 9), matrices((8, 9), (8, 9))
    expected = resample(images, matrix)
    wide = torch.rand(3, 6, 8, 18)
    wide[:, ::2, :, ::2] = images
    assert torch.equal(resample(wide[:, ::2, :, ::2], matrix), expected)
    last = images.to(memory_format=torch.channels_last)
    assert torch.equal(resample(last, matrix), expected)
    assert torch.equal(resample(images[:1].expand(3, -1, -1, -1), matrix[:, :, :])[0], expected[0])


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads: int) -> None:
    images, matrix, before = torch.rand(3, 5, 64, 64), matrices((64, 64), (64, 64)), torch.get_num_threads()
    expected = native.resample(images, matrix, (64, 64), "bilinear", "zeros", 3.0)
    try:
        torch.set_num_threads(threads)
        assert torch.equal(native.resample(images, matrix, (64, 64), "bilinear", "zeros", 3.0), expected)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_normalization_is_the_same_fused_or_after(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    images, matrix = batch((8, 9), dtype, channels=3), matrices((8, 9), (8, 9))
    finish = Finish(torch.bfloat16, torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.25, 0.3]))
    fused = resample(images, matrix, finish=finish)
    monkeypatch.setattr(backends, "installed", lambda _: False)
    after = resample(images, matrix, finish=finish)
    assert fused.dtype == after.dtype == torch.bfloat16
    torch.testing.assert_close(fused, after, rtol=1e-2, atol=1e-2)
    scaled = images.double() / (255 if dtype == torch.uint8 else 1)
    plain = (scaled[0] - finish.mean[:, None, None]) / finish.std[:, None, None]
    torch.testing.assert_close(fused[0].double(), plain, rtol=1e-2, atol=1e-2)


def test_shifts_agree_with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    images, pixels = torch.rand(2, 3, 12, 15), torch.tensor([[0.5, -1.25], [3.0, 0.0]])
    for kernel in HALF_WIDTH:
        out = shift_checked(images, pixels, (10, 17), kernel, "reflection")
        with monkeypatch.context() as patch:
            patch.setattr(backends, "installed", lambda _: False)
            expected = shift_checked(images, pixels, (10, 17), kernel, "reflection")
        torch.testing.assert_close(out, expected, rtol=0, atol=1e-5)


class TestChoice:
    images, matrix = torch.rand(2, 3, 8, 8), torch.eye(3).expand(2, 3, 3)

    def test_cpu_without_gradients_is_native(self) -> None:
        for dtype in (torch.float32, torch.uint8, torch.float16, torch.bfloat16):
            assert backends.choose(self.images.to(dtype), self.matrix, axis_aligned=True) == "native"

    def test_float64_is_left_to_torch(self) -> None:
        assert backends.choose(self.images.double(), self.matrix, axis_aligned=True) == "separable"

    def test_gradients_are_left_to_torch(self) -> None:
        images = self.images.clone().requires_grad_()
        matrix = self.matrix.clone().requires_grad_()
        assert backends.choose(images, self.matrix, axis_aligned=True) == "separable"
        assert backends.choose(self.images, matrix, axis_aligned=True) == "separable"
        with torch.no_grad():
            assert backends.choose(images, matrix, axis_aligned=True) == "native"
        resample(images, matrix).sum().backward()
        assert images.grad is not None
        assert matrix.grad is not None

    @pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
    def test_forward_gradients_are_left_to_torch(self) -> None:
        moved = torch.func.jvp(
            lambda pixels: shift_checked(self.images, pixels, (8, 8), "bicubic", "border"),
            (torch.full((2, 2), 0.3),),
            (torch.ones(2, 2),),
        )
        assert moved[1].abs().max() > 0

    def test_compiled_code_is_left_to_torch(self) -> None:
        chosen = []

        @torch.compile(backend="eager", fullgraph=True)
        def run(images: Tensor, matrix: Tensor) -> Tensor:
            chosen.append(backends.choose(images, matrix, axis_aligned=True))
            return resample_checked(images, matrix, (8, 8), "bilinear", "zeros", 1.0, axis_aligned=True)

        matrix = augkit.augment.geometry.shift(torch.full((2, 2), 0.3))
        torch.testing.assert_close(run(self.images, matrix), resample(self.images, matrix, kernel="bilinear"))
        assert set(chosen) == {"separable"}

    def test_a_missing_numba_is_left_to_torch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = resample(self.images, self.matrix * 1.0)
        backends.installed.cache_clear()
        monkeypatch.setitem(sys.modules, "numba", None)
        monkeypatch.delitem(sys.modules, "augkit.augment.backends.native")
        monkeypatch.delattr(backends, "native")
        assert backends.choose(self.images, self.matrix, axis_aligned=True) == "separable"
        torch.testing.assert_close(resample(self.images, self.matrix * 1.0), expected)

    def test_numba_is_imported_only_when_used(self) -> None:
        import subprocess

        code = "import sys, augkit.augment.resample, augkit.augment.backends; sys.exit('numba' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_works_in_a_forked_worker() -> None:
    images, matrix = torch.rand(4, 3, 64, 64), augkit.augment.geometry.shift(torch.full((4, 2), 0.3))
    expected = resample(images, matrix)  # starts the threads, which a fork loses
    loader = torch.utils.data.DataLoader(
        Augmented(images, matrix),
        batch_size=None,
        num_workers=1,
        multiprocessing_context="fork",
        worker_init_fn=_two_threads,
    )
    (actual,) = list(loader)
    assert torch.equal(actual, expected)


class Augmented(torch.utils.data.Dataset[Tensor]):
    def __init__(self, images: Tensor, matrix: Tensor) -> None:
        self.images, self.matrix = images, matrix

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Tensor:
        return resample(self.images, self.matrix)


def _two_threads(worker: int) -> None:
    torch.set_num_threads(2)
