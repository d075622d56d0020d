"""The Triton kernels: their arithmetic by the interpreter on any machine, and themselves where there is a GPU."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from augkit import Ragged
from augkit.augment import geometry
from augkit.augment.backends import choose, general, separable
from augkit.augment.kernels import HALF_WIDTH, PADDINGS
from augkit.augment.matrix_checks import strongest_shrink
from augkit.augment.resample import Finish, resample
from augkit.augment.resample_each import Way, resample_each

pytest.importorskip("triton", reason="Triton is not installed")
PROGRAM = Path(__file__).parent / "interpreted_triton.py"
KERNELS = tuple(HALF_WIDTH)
NO_FUSION = "ignore:TRITON_DEFAULT_FP_FUSION"


@pytest.fixture(scope="module")
def interpreted() -> dict[str, Any]:
    """What the kernels do in the interpreter, which has to be another process."""
    run = subprocess.run([sys.executable, PROGRAM], capture_output=True, text=True, timeout=600, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    told: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return told


@pytest.mark.slow
def test_the_interpreted_kernels_agree_with_torch(interpreted: dict[str, Any]) -> None:
    for case, difference in interpreted["parity"].items():
        # uint8: a value next to a half may round either way; half precision: so may the last bit
        allowed = {"uint8": 1, "bfloat16": 2**-7, "float16": 2**-10}
        assert difference <= next((bound for name, bound in allowed.items() if name in case), 3e-6), case


@pytest.mark.slow
def test_a_kernel_is_tried_before_it_is_trusted(interpreted: dict[str, Any]) -> None:
    for kind, told in interpreted["trial"].items():
        assert told["worst"] < 1e-4, kind  # right, whatever became of the kernel
        assert told["same state"]
        assert told["empty"] == [0, 1, 6, 5]
        tried = {(matrices, ragged) for matrices, ragged, _ in told["verdicts"]}
        assert tried == {("aligned", False), ("any", False), ("aligned", True)}
        assert all(kept == (kind == "sound") for *_, kept in told["verdicts"])
        # One trial for each kind of call; each later call is the kernel's, or torch's alone.
        assert told["calls"][:4] == ([2, 3, 5, 6] if kind == "sound" else [1, 1, 2, 2])
        assert len(told["warnings"]) == (kind != "sound")
        for category, message in told["warnings"]:
            assert category == "BackendWarning"
            assert "'nearest' with padding 'circular'" in message
            assert "aligned matrices" in message
            assert (
                "fails with RuntimeError (PassManager::run failed)" if kind == "raises" else "differs by"
            ) in message
            assert "please report this line" in message
            assert "\n" not in message


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ragged", [False, True])
def test_the_kernels_compile_for_a_device(
    aligned: bool, ragged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    try:
        from augkit.augment.backends import triton_axes, triton_general
    except RuntimeError as error:  # older Triton asks for the device when it only sees `autotune`
        if "active drivers" not in str(error):
            raise
        pytest.skip(f"this Triton compiles beside a device only: {error}")

    module: Any = triton_axes if aligned else triton_general
    pointers = {"values": "*u8", "offsets": "*i64", "sizes": "*i64", "out": "*bf16", "affine": "*fp32"}
    names = dict(module.TILES[0].kwargs, PADDING=2, RAGGED=ragged, QUANTIZE=ragged)
    if aligned:
        pointers |= {"first_column": "*i32", "first_row": "*i32", "weight_x": "*fp32", "weight_y": "*fp32"}
        names |= {"STREAM": ragged}
    else:
        pointers |= {"matrix": "*fp32", "bounds": "*fp64"}
        kernel = "sinc" if ragged else "bilinear"
        names |= {"KERNEL": KERNELS.index(kernel), "HALF_WIDTH": HALF_WIDTH[kernel]}
        names |= {"TAPS": math.ceil(2 * HALF_WIDTH[kernel]), "CHANNELS": 4, "STRETCHED": ragged, "STRAIGHT": not ragged}
    # Of a number that is 1, Triton makes a constant; so are here those of an image of one pixel.
    names |= {} if ragged else dict.fromkeys(("channels", "height", "width", "out_height"), 1)
    arguments = module._kernel.arg_names
    kinds = {name: "constexpr" if name in names else pointers.get(name, "i32") for name in arguments}
    constants = {(arguments.index(name),): value for name, value in names.items()}
    source = ASTSource(fn=module._kernel, signature=kinds, constexprs=constants)
    assert "cubin" in compile(source, target=GPUTarget("cuda", 90, 32)).asm


def on_the_gpu(*shape: int, dtype: torch.dtype) -> Tensor:
    return (torch.rand(shape, device="cuda") * 255).to(dtype)


def turned(size: tuple[int, int], tilted: bool) -> Tensor:
    """Three matrices that turn, the first two of which stretch and shrink obliquely and may be tilted."""
    rows = torch.tensor([[0.55, 1.3, 1.0], [20.0, -9.0, 0.0], [0.8, 0.9, 1.0], [4.0, 7.0, 0.0]])
    turn = geometry.rotate(torch.tensor([25.0, -110.0, 3.0]), size)
    matrix = geometry.compose(turn, geometry.axis_aligned(*rows))
    if tilted:
        matrix[:2, 2, :2] = torch.tensor([[0.2 / size[1], -0.15 / size[0]], [-0.1 / size[1], 0.1 / size[0]]])
    return matrix.cuda()


@pytest.mark.gpu
@pytest.mark.filterwarnings(NO_FUSION)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
def test_the_kernel_agrees_with_torch_on_the_gpu(kernel: str, dtype: torch.dtype) -> None:
    images = on_the_gpu(3, 3, 70, 90, dtype=dtype)
    matrix = geometry.shift(torch.tensor([[0.0, 0.0], [1.3, -2.6], [40.0, 0.5]], device="cuda"))
    assert choose(images, matrix, axis_aligned=True) == "cuda_triton"
    finish = Finish(torch.float32)
    out = resample(images, matrix, (70, 200), kernel=kernel, padding="reflection", finish=finish)
    expected = separable.resample(images.float(), matrix, (70, 200), kernel, "reflection", 1.0)
    scale = 255 if dtype == torch.uint8 else 1
    torch.testing.assert_close(out * scale, expected, rtol=0, atol=1e-2)
    assert torch.equal(resample(images, matrix, kernel=kernel)[0], images[0])


@pytest.mark.gpu
@pytest.mark.filterwarnings(NO_FUSION)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("tilted", [False, True])
def test_any_matrix_agrees_with_torch_on_the_gpu(kernel: str, padding: str, tilted: bool) -> None:
    for dtype, antialias in ((torch.float32, True), (torch.uint8, False), (torch.bfloat16, True)):
        images, size = on_the_gpu(3, 5, 70, 90, dtype=dtype), (61, 83)
        matrix = turned(size, tilted)
        assert choose(images, matrix, axis_aligned=False) == "cuda_triton"
        how = {"kernel": kernel, "padding": padding, "antialias": antialias, "finish": Finish(torch.float32)}
        out = resample(images, matrix, size, **how)  # type: ignore[arg-type]
        shrink = strongest_shrink(matrix, size) if antialias else 1.0
        expected = general.resample(images.float(), matrix, size, kernel, padding, shrink)
        torch.testing.assert_close(out * (255 if dtype == torch.uint8 else 1), expected, rtol=0, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.filterwarnings(NO_FUSION)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["aligned", "affine", "any"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_a_ragged_batch_agrees_with_torch_on_the_gpu(kernel: str, kind: str, dtype: torch.dtype) -> None:
    images = [on_the_gpu(3, *size, dtype=dtype) for size in ((70, 90), (1, 1), (33, 120))]
    size, bounds = (61, 83), [2.1, 1.0, 1.4]
    rows = torch.tensor([[0.55, 40.0, -0.8], [1.3, 2.2, 80.0], [0.7, 30.0, 1.1], [0.4, 1.7, -3.0]], device="cuda")
    aligned, matrix = kind == "aligned", geometry.axis_aligned(*rows)
    matrix = matrix if aligned else turned(size, kind == "any")
    for padding in PADDINGS:
        way = Way(size, kernel, padding, list(bounds), Finish(torch.float32))
        batch = Ragged.from_list(images)[[2, 0, 1]]  # in another order than in the buffer
        order = matrix[[2, 0, 1]]
        way = way._replace(bounds=[bounds[k] for k in (2, 0, 1)])
        out = resample_each(batch, order, None, way, axis_aligned=aligned, affine=kind != "any")
        for k, (image, own, bound) in enumerate(zip(batch, order.split(1), way.bounds, strict=True)):
            run = separable.resample if aligned else general.resample
            expected = run(image[None].float(), own, size, kernel, padding, bound or 1.0)[0]
            torch.testing.assert_close(out[k] * (255 if dtype == torch.uint8 else 1), expected, rtol=0, atol=1e-2)


@pytest.mark.gpu
@pytest.mark.filterwarnings(NO_FUSION)
def test_a_ragged_batch_beyond_two_thousand_million_values_on_the_gpu() -> None:
    if torch.cuda.get_device_properties(0).total_memory < 8 * 2**30:
        pytest.skip("needs 8 GiB of memory")
    values, sizes = torch.zeros(2**31 + 2**20, dtype=torch.uint8, device="cuda"), torch.tensor([[64, 64], [64, 64]])
    last = 2**31 + 1000
    values[last : last + 64 * 64] = 200
    batch = Ragged(values, torch.tensor([0, last]), sizes, 1)
    for aligned in (True, False):
        matrix = torch.eye(3, device="cuda").repeat(2, 1, 1)
        way = Way((64, 64), "bilinear", "zeros", [1.0, 1.0], Finish())
        out = resample_each(batch, matrix, None, way, axis_aligned=aligned, affine=True)
        assert out[0].max() == 0
        assert out[1].unique().tolist() == [200]
