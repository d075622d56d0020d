"""The transforms under AMP, torch.compile, channels_last, pickle, repr; and without waiting for the device."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import kornia.augmentation as K
import pytest
import torch
import torch._dynamo.testing
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import augkit

# Names that a repr may use.
from augkit.augment.compose import Augment
from augkit.augment.ops import (
    RandomHorizontalFlip,
    RandomRescale,
    RandomShiftBlur,
    RandomSubpixelCrop,
    RandomSubpixelShift,
)

SIZE = (24, 33)
OPS = [
    RandomSubpixelShift(2.5, p=0.5, kernel="lanczos3", padding="border"),
    RandomShiftBlur(1.5),
    RandomRescale(1.25, kernel="sinc"),
    RandomSubpixelCrop((20, 27), area=(0.4, 0.9), ratio=(0.8, 1.2), p=0.7),
    RandomSubpixelCrop(),
    RandomHorizontalFlip(0.3),
]


def full(**options: Any) -> Augment:
    ops = (RandomSubpixelShift(2.0, p=0.5), RandomRescale(1.2), RandomSubpixelCrop((20, 27)), RandomHorizontalFlip())
    return Augment(*ops, **options)


NORMALIZED = {"normalize": ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]), "dtype": torch.bfloat16}
PIPELINES = {
    "bilinear": full(kernel="bilinear"),
    "lanczos3, normalized": full(kernel="lanczos3", padding="reflection", **NORMALIZED),
    "sinc": full(kernel="sinc", padding="border"),
    "fourier": Augment(RandomSubpixelShift(2.0), kernel="fourier", padding="circular"),
    "blur": Augment(RandomShiftBlur(2.0), RandomHorizontalFlip()),
}
TARGETS = {
    "masks": torch.zeros(4, 1, *SIZE, dtype=torch.int64),
    "boxes": torch.rand(4, 3, 4) * 20,
    "keypoints": torch.rand(4, 2, 2) * 20,
}


def seeded(function: Any, *args: Any, **kwargs: Any) -> Any:
    torch.manual_seed(0)
    out = function(*args, **kwargs)
    return out if isinstance(out, Tensor) else tuple(value for value in out if value is not None)


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_repr_of_an_op_round_trips(op: Any) -> None:
    again = eval(repr(op))
    assert repr(again) == repr(op)
    images = torch.rand(4, 3, *SIZE)
    assert torch.equal(seeded(op, images), seeded(again, images))


@pytest.mark.parametrize("augment", PIPELINES.values(), ids=PIPELINES)
def test_repr_pickle_and_deepcopy_of_augment(augment: Augment) -> None:
    images = torch.rand(4, 3, *SIZE)
    for again in (eval(repr(augment)), pickle.loads(pickle.dumps(augment)), copy.deepcopy(augment)):
        assert repr(again) == repr(augment)
        assert torch.equal(seeded(augment, images), seeded(again, images))


def test_a_used_op_pickles() -> None:
    op = RandomSubpixelShift(2.0)
    images = torch.rand(2, 3, *SIZE)
    out = op(images)
    again = pickle.loads(pickle.dumps(op))
    assert torch.equal(again(images, params=again._params), out)


class NoHostSync(TorchDispatchMode):
    """Raises where a value is read on the host, or a tensor is made from host values.

    On a GPU both synchronize with the device, and neither can be part of a CUDA graph.
    """

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "lift_fresh", "is_nonzero", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert not any(name in str(func) for name in self.WAITS), f"{func} waits for the device"
        return func(*args, **(kwargs or {}))


def test_the_guard_detects_a_synchronization() -> None:
    with pytest.raises(AssertionError, match="waits"), NoHostSync():
        bool(torch.rand(1) > 0)


@pytest.mark.parametrize("targets", [{}, TARGETS], ids=["images", "targets"])
@pytest.mark.parametrize("augment", PIPELINES.values(), ids=PIPELINES)
def test_nothing_waits_for_the_device(augment: Augment, targets: dict[str, Tensor]) -> None:
    images = torch.rand(4, 3, *SIZE)
    with NoHostSync():
        augment(images, **targets)
        augment(images, strength=0.5, **targets)


# "bilinear" is compiled below, with targets.
@pytest.mark.integration
@pytest.mark.parametrize("augment", [PIPELINES[name] for name in ("lanczos3, normalized", "fourier", "blur")])
def test_compiles_without_graph_breaks(augment: Augment) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(augment, fullgraph=True, backend="eager")
    images = torch.rand(4, 3, *SIZE)
    torch.testing.assert_close(seeded(compiled, images), seeded(augment, images))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("strength", "backend"),
    [(0.5, "eager"), (torch.tensor([0.1, 0.4, 0.7, 1.0]), "aot_eager")],
    ids=["float", "tensor"],
)
def test_compiles_with_targets_and_strength(strength: Any, backend: str) -> None:
    torch._dynamo.reset()
    augment = full(kernel="bilinear")
    compiled = torch.compile(augment, fullgraph=True, backend=backend)
    images = torch.rand(4, 3, *SIZE)
    expected = seeded(augment, images, strength=strength, **TARGETS)
    for a, b in zip(seeded(compiled, images, strength=strength, **TARGETS), expected, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.integration
def test_a_strength_that_changes_compiles_twice_at_most() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    compiled = torch.compile(full(kernel="bilinear"), fullgraph=True, backend=counter)
    for strength in (0.1, 0.2, 0.3, 0.45):
        compiled(torch.rand(2, 3, *SIZE), strength=strength)
    assert counter.frame_count <= 2


@pytest.mark.slow
def test_compiles_with_inductor() -> None:
    torch._dynamo.reset()
    augment = full(kernel="bilinear", padding="reflection")
    compiled = torch.compile(augment, fullgraph=True)
    images = torch.rand(4, 3, *SIZE)
    matrix = seeded(augment, images, keypoints=TARGETS["keypoints"])[2]
    out, _, again = seeded(compiled, images, keypoints=TARGETS["keypoints"])[:3]
    torch.testing.assert_close(out, augment(images, matrix=again), rtol=0, atol=1e-5)
    assert again.shape == matrix.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("augment", PIPELINES.values(), ids=PIPELINES)
def test_autocast_changes_nothing(augment: Augment, dtype: torch.dtype) -> None:
    images = torch.rand(4, 3, *SIZE)
    plain = seeded(augment, images, **TARGETS)
    with torch.autocast("cpu", dtype=dtype):
        cast = seeded(augment, images, **TARGETS)
    assert all(map(torch.equal, plain, cast))


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_autocast_changes_nothing_in_an_op_alone(op: Any) -> None:
    images = torch.rand(4, 3, *SIZE)
    plain = seeded(op, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = seeded(op, images)
    assert torch.equal(plain, cast)


@pytest.mark.parametrize("augment", PIPELINES.values(), ids=PIPELINES)
def test_channels_last(augment: Augment) -> None:
    rgb = torch.rand(4, 3, *SIZE)
    colored = Augment(
        *augment.ops, K.ColorJiggle(0.2, 0.2, 0.2, 0.1, p=1.0), kernel=augment.kernel, padding=augment.padding
    )
    for images in (rgb, rgb.double(), (rgb * 255).to(torch.uint8), rgb.clone().requires_grad_()):
        for module in (augment, colored):
            plain = seeded(module, images)
            last = seeded(module, images.contiguous(memory_format=torch.channels_last))
            assert is_last(last)
            assert not is_last(plain)
            assert torch.equal(plain, last)
    assert is_last(copy.deepcopy(augment).eval()(rgb.contiguous(memory_format=torch.channels_last)))


def is_last(images: Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()


@pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)
def test_channels_last_in_an_op_alone(op: Any) -> None:
    images = torch.rand(4, 3, *SIZE)
    last = seeded(op, images.contiguous(memory_format=torch.channels_last))
    assert is_last(last)
    assert torch.equal(last, seeded(op, images))


def test_channels_last_in_the_functions() -> None:
    images = torch.rand(2, 3, 9, 11)
    last, pixels = images.contiguous(memory_format=torch.channels_last), torch.tensor([0.3, 1.2])
    turn = augkit.augment.geometry.rotate(torch.tensor([20.0, 30.0]), (9, 11))
    for act in (
        lambda x: augkit.resample(x, turn),
        lambda x: augkit.resample(x, turn.clone().requires_grad_()),
        lambda x: augkit.resample(x, torch.eye(3)),
        lambda x: augkit.resample(x, torch.eye(3), (4, 5), kernel="nearest"),
        lambda x: augkit.fourier_shift(x, pixels),
        lambda x: augkit.shift_blur(x, pixels),
    ):
        assert is_last(act(last))
        assert torch.equal(act(last), act(images))


def test_state_dict_is_empty_and_buffers_move() -> None:
    augment = full(**NORMALIZED)
    assert not augment.state_dict()
    assert augment.to(torch.float64).mean.dtype == torch.float64


@pytest.mark.gpu
@pytest.mark.parametrize("augment", PIPELINES.values(), ids=PIPELINES)
def test_runs_in_a_cuda_graph(augment: Augment) -> None:
    if "fourier" in repr(augment) or "Blur" in repr(augment):
        pytest.skip("cuFFT plans are made outside of graphs")
    augment = copy.deepcopy(augment).cuda()
    images = torch.rand(4, 3, *SIZE, device="cuda")
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            augment(images)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = augment(images)
    graph.replay()
    first = out.clone()
    graph.replay()
    assert not torch.equal(first, out)  # each replay draws anew


def test_public_names_are_exported() -> None:
    for name in ("RandomShiftBlur", "shift_blur"):
        assert name in augkit.__all__
        assert getattr(augkit, name).__doc__
