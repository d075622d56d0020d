"""The Triton kernels in Triton's interpreter, as a program: prints what `test_triton.py` judges, in one line of JSON.

Triton reads ``TRITON_INTERPRET`` when it is imported, so that this cannot run in the process of the tests. All is
measured in one process, since importing torch and Triton takes seconds; and images are small, since the interpreter
takes a fraction of a millisecond for each operation of each program.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterator
from typing import Any

os.environ["TRITON_INTERPRET"] = "1"

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from augkit.augment import geometry, resample_each
from augkit.augment import resample as resampling
from augkit.augment.backends import cuda_triton, general, self_check, separable, triton_general
from augkit.augment.backends.triton_call import How, Source
from augkit.augment.kernels import FUNCTION, HALF_WIDTH, PADDINGS
from augkit.augment.ragged import Ragged
from augkit.augment.resample import Finish, resample, shift_checked

# A function that a kernel calls has the whole language made ready for it, at each call. Once for a module is enough.
prepared, ready = InterpretedFunction.__call__, set()


def called(function: Any, *args: Any, **names: Any) -> Any:
    if function.fn.__module__ in ready:
        return function.rewrite()(*args, **names)
    ready.add(function.fn.__module__)
    return prepared(function, *args, **names)


InterpretedFunction.__call__ = called

SIZE = (7, 10)
SHRINK = 1.9


def matrices(kind: str, size: tuple[int, int] = SIZE) -> Tensor:
    """Two, of which the first mirrors and shrinks and the second enlarges; they reach beyond the edges."""
    matrix = geometry.axis_aligned(*torch.tensor([[-0.6, 1.3], [6.2, -2.4], [0.7, 0.9], [0.4, 1.7]]))
    if kind == "aligned":
        return matrix
    # Turned before it shrinks, by other factors along x and y: the footprint of a pixel lies oblique.
    matrix = geometry.compose(geometry.rotate(torch.tensor([25.0, -110.0]), size), matrix)
    if kind == "any":
        matrix[:, 2] = torch.tensor([[0.013, -0.017, 1.0], [0.0, 0.0, 1.0]])
    return matrix


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    values = torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))
    return (values * 255 if dtype == torch.uint8 else values).to(dtype)


def by_torch(images: Tensor, how: How, bound: float) -> Tensor:
    """What the kernel should give, in float32 and neither rounded nor clipped."""
    way = (how.size, how.kernel, how.padding, bound)
    if how.axis_aligned:
        return separable.resample(images.float(), how.matrix, *way)
    return general.resample(images.float(), how.matrix, *way, affine=how.affine)


def difference(source: Source, images: list[Tensor], how: How) -> float:
    """The largest between the kernel and torch, which resamples one image after the other."""
    out, parts = cuda_triton.resample(source, how), []
    bounds = how.bounds if len(how.bounds) > 1 else how.bounds * len(images)
    for k, image in enumerate(images):
        parts.append(by_torch(image[None], how._replace(matrix=how.matrix[k : k + 1]), bounds[k]))
    expected = torch.cat(parts)
    if how.gain is not None and how.bias is not None:
        expected = expected * how.gain[:, None, None] + how.bias[:, None, None]
    if how.dtype == torch.uint8:
        expected = expected.round().clamp(0, 255)
    assert out.dtype == how.dtype
    assert out.shape == expected.shape
    return float((out.float() - expected.to(how.dtype).float()).abs().max())


# kind, kernel, padding, bound on the shrink, dtype, output size
# The sinc of the general kernel, of 256 taps, would take seconds: `weights` compares it.
DENSE: list[tuple[str, str, str, float, torch.dtype, tuple[int, int]]] = [
    ("aligned", "nearest", "border", 1.0, torch.float32, (5, 18)),
    ("aligned", "bilinear", "zeros", 1.0, torch.uint8, (5, 6)),
    ("aligned", "bilinear", "circular", SHRINK, torch.float32, (5, 6)),
    ("aligned", "bicubic", "reflection", SHRINK, torch.bfloat16, (5, 6)),
    ("aligned", "lanczos3", "border", SHRINK, torch.uint8, (17, 3)),
    ("aligned", "sinc", "zeros", 1.0, torch.float32, (4, 5)),
    ("affine", "nearest", "reflection", SHRINK, torch.float32, (9, 17)),
    ("affine", "bilinear", "zeros", 1.0, torch.uint8, (5, 6)),
    ("affine", "bilinear", "border", SHRINK, torch.float16, (5, 6)),
    ("affine", "bicubic", "circular", 1.0, torch.float32, (5, 6)),
    ("affine", "bicubic", "zeros", SHRINK, torch.float32, (5, 6)),
    ("affine", "lanczos3", "reflection", 1.0, torch.uint8, (5, 6)),
    ("any", "nearest", "circular", 1.0, torch.float32, (5, 6)),
    ("any", "bilinear", "reflection", SHRINK, torch.uint8, (5, 6)),
    ("any", "bicubic", "border", 1.0, torch.bfloat16, (5, 6)),
    ("any", "lanczos3", "zeros", 1.2, torch.float32, (3, 4)),
]


def promises(kind: str) -> tuple[bool, bool]:
    return kind == "aligned", kind != "any"


def dense() -> Iterator[tuple[str, float]]:
    for kind, kernel, padding, bound, dtype, size in DENSE:
        images = numbers(2, 3, *SIZE, dtype=dtype).transpose(-1, -2).flip(1) if size == (5, 6) else None
        images = numbers(2, 1, *SIZE, dtype=dtype) if images is None else images
        images = images[:1] if HALF_WIDTH[kernel] > 1 else images  # many taps take the interpreter longest
        how = How(matrices(kind)[: len(images)], size, kernel, padding, [bound], dtype, None, None, *promises(kind))
        yield f"{kind} {kernel} {padding} {bound} {dtype}", difference(Source.of(images), list(images), how)
    gain, bias = torch.tensor([0.02, 0.03]), torch.tensor([-1.0, 0.5])
    for kind in ("aligned", "affine"):
        images = numbers(1, 2, *SIZE, dtype=torch.uint8)
        how = How(matrices(kind)[:1].double(), SIZE, "bilinear", "zeros", [1.0], torch.float32, gain, bias)
        how = how._replace(axis_aligned=kind == "aligned", affine=True)
        yield f"{kind} normalized", difference(Source.of(images), list(images), how)
    # A batch of one, one pixel, and channels beyond the four that are computed at once.
    for kind in ("aligned", "affine"):
        for padding, shape in (
            ("reflection", (1, 5, 1, 1)),
            ("circular", (1, 5, 1, 1)),
            ("circular", (1, 1, 1, 4)),
            ("reflection", (1, 1, 4, 1)),
        ):
            images = numbers(*shape)
            matrix, size = matrices(kind, (3, 2))[1:], (3, 2) if shape[1] > 1 else (1, 1)
            how = How(matrix, size, "bilinear", padding, [1.0], torch.float32, None, None, *promises(kind))
            yield f"{kind} {shape} {padding}", difference(Source.of(images), list(images), how)


def ragged() -> Iterator[tuple[str, float]]:
    """Images of different sizes with bounds of their own, in reverse order, with gaps of what must not count."""
    for kind, kernel, padding, dtype in (
        ("aligned", "bilinear", "border", torch.float32),
        ("aligned", "bicubic", "zeros", torch.uint8),
        ("aligned", "lanczos3", "zeros", torch.float32),
        ("aligned", "nearest", "reflection", torch.float16),
        ("affine", "bilinear", "circular", torch.uint8),
        ("any", "bilinear", "reflection", torch.float32),
    ):
        images = [numbers(2, *size, dtype=dtype) for size in ((5, 8), (1, 1), (9, 3))]
        gap = torch.full((3,), math.nan if dtype.is_floating_point else 255).to(dtype)
        values = torch.cat([part for image in reversed(images) for part in (gap, image.flatten())])
        lengths = [image.numel() + 3 for image in images]
        offsets = torch.tensor([sum(lengths[k + 1 :]) + 3 for k in range(3)])
        sizes = torch.tensor([image.shape[1:] for image in images])
        matrix = matrices(kind)[[0, 1, 0]]
        how = How(matrix, (5, 6), kernel, padding, [SHRINK, 1.0, 1.3], dtype, None, None, *promises(kind))
        source = Source.ragged(values, offsets, sizes, 2)
        yield f"{kind} {kernel} {padding} {dtype} ragged", difference(source, images, how)
        # Bit for bit as each image alone, though some take more taps than others.
        together = cuda_triton.resample(source, how)
        for k in range(3):
            own = how._replace(matrix=matrix[k : k + 1], bounds=[how.bounds[k]])
            alone = cuda_triton.resample(Source.of(images[k][None]), own)[0]
            yield f"{kind} {kernel} {padding} ragged, bits of {k}", float((alone != together[k]).sum())
    nothing = torch.zeros(0, dtype=torch.int64)
    empty = Source.ragged(torch.zeros(0), nothing, nothing.reshape(0, 2), 3)
    for aligned in (True, False):
        how = How(torch.zeros(0, 3, 3), SIZE, "bilinear", "zeros", [], torch.float32, axis_aligned=aligned)
        assert cuda_triton.resample(empty, how).shape == (0, 3, *SIZE)


def exact() -> Iterator[tuple[str, float]]:
    """A flip moves each pixel and changes no bit, NaN and infinity included."""
    images = numbers(1, 2, *SIZE)
    images[0, 0, 4, 5], images[0, 1, 3, 2] = torch.nan, torch.inf
    flip = geometry.flip(torch.tensor([True]), SIZE)
    for kernel, aligned in (("bilinear", True), ("bicubic", True), ("bilinear", False), ("lanczos3", False)):
        how = How(flip, SIZE, kernel, "border", [1.0], torch.float32, axis_aligned=aligned, affine=True)
        out, expected = cuda_triton.resample(Source.of(images), how), images.flip(-1)
        wrong = (out != expected) & ~(out.isnan() & expected.isnan())
        yield f"{kernel} flips NaN, aligned {aligned}", float(wrong.sum())


def far() -> Iterator[tuple[str, float]]:
    """Points that no int32 holds, and a horizon within the output: what is read is finite and within the image."""
    images = numbers(1, 1, *SIZE)
    matrix = geometry.shift(torch.tensor([[3e12, -4e12]]))
    for kind in ("aligned", "affine"):
        how = How(matrix, (2, 3), "bilinear", "border", [1.0], torch.float32, None, None, *promises(kind))
        yield f"{kind} far", difference(Source.of(images), list(images), how)
    matrix = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-0.3, 0.0, 1.0]]])
    how = How(matrix, SIZE, "bilinear", "zeros", [2.0], torch.float32, None, None, False, False)
    yield "horizon", float((~cuda_triton.resample(Source.of(images), how).isfinite()).sum())


@triton.jit
def weights_kernel(distance, out, KERNEL: tl.constexpr, COUNT: tl.constexpr):  # noqa: N803
    at = tl.arange(0, COUNT)
    tl.store(out + at, triton_general.weight_at(tl.load(distance + at), KERNEL))


def weights() -> Iterator[tuple[str, float]]:
    """The weights of the general kernel as functions of the distance: right, and exact at whole numbers."""
    distance = torch.linspace(-9, 9, 2048)
    distance[:19] = torch.arange(-9.0, 10.0)
    for k, (name, function) in enumerate(FUNCTION.items()):
        out = torch.empty_like(distance)
        weights_kernel[(1,)](distance, out, KERNEL=k, COUNT=len(distance))
        yield f"{name} weights", float((out.double() - function(distance.double())).abs().max())
        whole = (distance[:19] == 0).float()
        yield f"{name} at whole numbers, bits", float((out[:19] != whole).sum())


def parity() -> dict[str, float]:
    assert {kernel for _, kernel, *_ in DENSE} == set(HALF_WIDTH)
    assert {padding for _, _, padding, *_ in DENSE} == set(PADDINGS)
    return dict([*dense(), *ragged(), *exact(), *far(), *weights()])


class Spoiled:
    """`cuda_triton.resample`, which raises or is wrong, and counts its calls."""

    sound = staticmethod(cuda_triton.resample)

    def __init__(self, kind: str) -> None:
        self.kind, self.calls = kind, 0

    def __call__(self, source: Source, how: How) -> Tensor:
        self.calls += 1
        if self.kind == "raises":
            raise RuntimeError("PassManager::run failed")
        if self.kind == "nan":
            return torch.full((source.batch, source.channels, *how.size), math.nan, dtype=how.dtype)
        return self.sound(source, how._replace(padding="zeros") if self.kind == "wrong" else how)


def act(kernel: Spoiled) -> dict[str, Any]:
    """Resample through the public functions, as on a device; what is right, and when the kernel was called.

    The nearest pixel alone, which takes the interpreter least.
    """
    state, calls, errors = torch.get_rng_state(), [], []
    images, integers = numbers(2, 1, 6, 5), numbers(2, 1, 6, 5, dtype=torch.uint8)
    size = (6, 5)
    for kind in ("aligned", "any"):
        matrix = matrices(kind, size)
        shrink = resampling.strongest_shrink(matrix, size)
        how = How(matrix, size, "nearest", "circular", [shrink], torch.float32, None, None, *promises(kind))
        for _ in range(2):
            errors.append(
                resample(images, matrix, kernel="nearest", padding="circular") - by_torch(images, how, shrink)
            )
            calls.append(kernel.calls)
    moved = shift_checked(images, torch.full((2, 2), 0.3), size, "nearest", "circular")
    errors.append(moved - separable.shift(images, torch.full((2, 2), 0.3), size, "nearest", "circular"))
    photos, mean, std = [integers[0], integers[1, :, :2]], torch.tensor([0.4]), torch.tensor([0.3])
    matrix, bounds = matrices("aligned", size), [1.0, 1.3]
    way = resample_each.Way(size, "nearest", "circular", list(bounds), Finish(torch.float32, mean, std))
    out = resample_each.resample_each(Ragged.from_list(photos), matrix, None, way, axis_aligned=True)
    calls.append(kernel.calls)
    for k, photo in enumerate(photos):
        expected = separable.resample(photo[None].float(), matrix[k : k + 1], size, "nearest", "circular", bounds[k])
        errors.append(out[k] - (expected[0] / 255 - 0.4) / 0.3)
    return {
        "worst": max(float(error.abs().max()) for error in errors),
        "calls": calls,
        "verdicts": [[case.matrices, case.ragged, kept] for case, kept in self_check.VERDICTS.items()],
        "same state": torch.equal(torch.get_rng_state(), state),
        "empty": list(resample(images[:0], torch.eye(3), kernel="sinc").shape),
    }


def trial() -> dict[str, Any]:
    """What becomes of a kernel that is sound, wrong, gives NaN or raises, before it is used on a device."""
    resampling.choose = resample_each.choose = lambda images, matrix, *, axis_aligned: "cuda_triton"
    told: dict[str, Any] = {}
    for kind in ("sound", "wrong", "nan", "raises"):
        self_check.VERDICTS.clear()
        self_check._WARNED.clear()
        cuda_triton.resample = kernel = Spoiled(kind)
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            told[kind] = act(kernel)
        told[kind]["warnings"] = [[warning.category.__name__, str(warning.message)] for warning in heard]
    return told


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"parity": parity(), "trial": trial()}))
