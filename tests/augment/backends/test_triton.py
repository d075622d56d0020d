"""The Triton kernel: its arithmetic by the interpreter on any machine, and itself where there is a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from augkit.augment import geometry
from augkit.augment.backends import choose, separable
from augkit.augment.resample import Finish, resample

CHECK = """
import json, torch
from augkit.augment import geometry
from augkit.augment.backends import cuda_triton, separable
torch.manual_seed(0)
worst = {}
matrix = geometry.axis_aligned(*torch.tensor([[1, -1.3, 0.6], [0, 11.2, 2.2], [1, 0.8, 0.7], [0, 0.4, -1.0]]))
cases = [("nearest", "border", torch.float32, (6, 130)), ("bicubic", "reflection", torch.float32, (5, 6))]
cases += [("bilinear", "circular", torch.float32, (5, 6)), ("bilinear", "zeros", torch.uint8, (5, 6))]
cases += [("lanczos3", "circular", torch.float32, (12, 7)), ("sinc", "zeros", torch.float32, (5, 6))]
cases += [("bicubic", "border", torch.uint8, (17, 9)), ("nearest", "reflection", torch.float32, (5, 6))]
for kernel, padding, dtype, size in cases:
    images = torch.rand(3, 2, 9, 12)
    images = (images * 255).to(dtype) if dtype == torch.uint8 else images
    out = cuda_triton.resample(images, matrix, size, kernel, padding, 1.7)
    expected = separable.resample(images.float(), matrix, size, kernel, padding, 1.7)
    expected = expected.round().clamp(0, 255) if dtype == torch.uint8 else expected
    worst[f"{kernel} {padding} {dtype}"] = float((out.float() - expected).abs().max())
gain, bias = torch.tensor([2.0, 3.0]), torch.tensor([-1.0, 0.5])
images = (torch.rand(3, 2, 9, 12) * 255).to(torch.uint8)
out = cuda_triton.resample(images, matrix, (9, 12), "bilinear", "zeros", 1.7, dtype=torch.float32, gain=gain, bias=bias)
plain = separable.resample(images.float(), matrix, (9, 12), "bilinear", "zeros", 1.7)
worst["fused"] = float((out - plain * gain[:, None, None] - bias[:, None, None]).abs().max()) / 765
images = torch.rand(1, 2, 9, 12)
images[0, 0, 4, 5], images[0, 1, 3, 2] = torch.nan, torch.inf
flip = geometry.flip(torch.tensor([True]), (9, 12))
for kernel in ("bilinear", "bicubic"):
    out, expected = cuda_triton.resample(images, flip, (9, 12), kernel, "border", 1.0), images.flip(-1)
    worst[f"{kernel} flips NaN"] = float(((out != expected) & ~(out.isnan() & expected.isnan())).sum())
print(json.dumps(worst))
"""


def test_the_interpreted_kernel_agrees_with_torch() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1"}  # read when Triton is imported: another process
    run = subprocess.run(
        [sys.executable, "-c", CHECK], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for case, difference in json.loads(run.stdout.splitlines()[-1]).items():
        # uint8: a value next to a half may round either way
        assert difference <= (1 if "uint8" in case else 1e-5), case


TRIAL = """
import json, warnings, torch
from augkit import Augment, RandomSubpixelCrop
from augkit.augment import geometry, resample as resampling
from augkit.augment.backends import cuda_triton, self_check, separable
from augkit.augment.resample import resample, shift_checked

resampling.choose = lambda images, matrix, *, axis_aligned: "cuda_triton" if axis_aligned else "general"
launch, how = cuda_triton._launcher(), {"kind": "", "calls": 0}

class Launcher:
    def __getitem__(self, grid):
        def run(*args, **options):
            how["calls"] += 1
            if how["kind"] == "raises":
                raise RuntimeError("PassManager::run failed")
            launch[grid](*args, **(options | {"PADDING": 0} if how["kind"] == "wrong" else options))
            if how["kind"] == "nan":
                args[1].fill_(torch.nan)
        return run

cuda_triton._launcher = Launcher
images, pixels = torch.rand(3, 2, 9, 12), torch.full((3, 2), 0.3)
integers, points = (images * 255).to(torch.uint8), torch.zeros(3, 0, 2)
matrix = geometry.axis_aligned(*torch.tensor([[1, -1.3, 0.6], [0, 11.2, 2.2], [1, 0.8, 0.7], [0, 0.4, -1.0]]))
shrink = resampling.strongest_shrink(matrix, (9, 12))
crop = Augment(RandomSubpixelCrop((5, 6)), kernel="bilinear", padding="circular", normalize=(0.4, 0.3))

def act():
    state, errors, after = torch.get_rng_state(), [], []
    for kernel in ("bilinear", "bicubic"):
        for _ in range(2):
            out = resample(images, matrix, kernel=kernel, padding="circular")
            errors.append(out - separable.resample(images, matrix, (9, 12), kernel, "circular", shrink))
            after.append(how["calls"])
    moved = shift_checked(images, pixels, (9, 12), "bilinear", "circular")
    errors.append(moved - separable.shift(images, pixels, (9, 12), "bilinear", "circular"))
    cut = crop(integers, generator=torch.Generator().manual_seed(0), keypoints=points)
    expected = separable.resample(integers.float(), cut.matrix, (5, 6), "bilinear", "circular", 2.0)
    errors.append(cut.images - (expected / 255 - 0.4) / 0.3)
    empty = resample(images[:0], torch.eye(3), kernel="sinc")
    return {
        "worst": max(float(error.abs().max()) for error in errors),
        "calls": after,
        "verdicts": [[case.kernel, str(case.source), kept] for case, kept in self_check.VERDICTS.items()],
        "same state": torch.equal(torch.get_rng_state(), state),
        "empty": list(empty.shape),
    }

told = {}
for kind in ("sound", "wrong", "nan", "raises"):
    self_check.VERDICTS.clear(), self_check._WARNED.clear(), how.update(kind=kind, calls=0)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        told[kind] = act()
    told[kind]["warnings"] = [[w.category.__name__, str(w.message)] for w in heard]
print(json.dumps(told))
"""


def test_the_kernel_is_tried_before_it_is_trusted() -> None:
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run(
        [sys.executable, "-c", TRIAL], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for kind, told in json.loads(run.stdout.splitlines()[-1]).items():
        assert told["worst"] < 1e-4, kind  # right, whatever became of the kernel
        assert told["same state"]
        assert told["empty"] == [0, 2, 9, 12]
        assert {kernel for kernel, _, _ in told["verdicts"]} == {"bilinear", "bicubic"}
        assert {source for _, source, _ in told["verdicts"]} == {"torch.float32", "torch.uint8"}
        assert all(kept == (kind == "sound") for _, _, kept in told["verdicts"])
        # One trial for each kernel; each later call is the kernel's, or torch's alone.
        assert told["calls"] == ([2, 3, 5, 6] if kind == "sound" else [1, 1, 2, 2])
        assert len(told["warnings"]) == (kind != "sound")
        for category, message in told["warnings"]:
            assert category == "BackendWarning"
            assert "'bilinear' with padding 'circular'" in message
            assert (
                "fails with RuntimeError (PassManager::run failed)" if kind == "raises" else "differs by"
            ) in message
            assert "please report this line" in message
            assert "\n" not in message


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos3", "sinc"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_the_kernel_agrees_with_torch_on_the_gpu(kernel: str, dtype: torch.dtype) -> None:
    images = (torch.rand(3, 3, 70, 90, device="cuda") * 255).to(dtype)
    matrix = geometry.shift(torch.tensor([[0.0, 0.0], [1.3, -2.6], [40.0, 0.5]], device="cuda"))
    assert choose(images, matrix, axis_aligned=True) == "cuda_triton"
    finish = Finish(torch.float32)
    out = resample(images, matrix, (70, 200), kernel=kernel, padding="reflection", finish=finish)
    expected = separable.resample(images.float(), matrix, (70, 200), kernel, "reflection", 1.0)
    scale = 255 if dtype == torch.uint8 else 1
    torch.testing.assert_close(out * scale, expected, rtol=0, atol=1e-2)
    assert torch.equal(resample(images, matrix, kernel=kernel)[0], images[0])
