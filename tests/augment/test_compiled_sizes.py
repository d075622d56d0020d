"""torch.compile and torch.export with another batch, height or width: right values, few graphs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.export import Dim

from augkit import (
    Augment,
    RandomHorizontalFlip,
    RandomRescale,
    RandomShiftBlur,
    RandomSubpixelCrop,
    RandomSubpixelShift,
)
from augkit.augment.kernels import frequencies

pytestmark = pytest.mark.integration

FULL = (RandomSubpixelShift(2.0, p=0.5), RandomRescale(1.2), RandomSubpixelCrop(), RandomHorizontalFlip())
FIXED = (RandomSubpixelShift(2.0), RandomSubpixelCrop((12, 13), p=0.5))
MODULES: dict[str, nn.Module] = {
    "all": Augment(*FULL, kernel="bilinear", padding="reflection", normalize=(0.4, 0.3), dtype=torch.float32),
    "fourier": Augment(RandomSubpixelShift(2.0), kernel="fourier", padding="circular"),
    "blur": Augment(RandomShiftBlur(2.0)),
    "fixed": Augment(*FIXED),
    "alone": RandomSubpixelShift(2.0, p=0.5),
}
BATCH = Dim("batch", min=2, max=512)  # torch 2.7 asks for an upper bound


def seeded(module: Any, images: Tensor, **options: Any) -> Tensor:
    torch.manual_seed(0)
    out: Tensor = module(images, **options)
    return out


def compiled(module: nn.Module) -> tuple[Any, Any]:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    return torch.compile(module, backend=counter, fullgraph=True), counter


SLOW = pytest.mark.slow  # a graph takes a second or two to trace


@pytest.mark.parametrize(
    ("name", "graphs"),
    [
        ("all", 3),
        *(pytest.param(*case, marks=SLOW) for case in (("fourier", 3), ("fixed", 4), ("alone", 3), ("blur", 3))),
    ],
)
def test_other_sizes_give_the_eager_result_with_few_graphs(name: str, graphs: int) -> None:
    module, sizes = MODULES[name], [(8, 17, 24), (5, 17, 24), (6, 20, 31), (9, 25, 18), (4, 30, 30)]
    run, counter = compiled(module)
    for batch, *size in sizes:
        images = torch.rand(batch, 3, *size)
        torch.testing.assert_close(seeded(run, images), seeded(module, images), rtol=0, atol=5e-5)
    # One for the first size, one for any batch, one for any size; the last for stronger shrinks.
    assert counter.frame_count <= graphs


def test_the_last_batch_of_an_epoch_with_targets() -> None:
    augment = Augment(*FULL, kernel="bilinear")
    run, counter = compiled(augment)
    for batch in (8, 5, 7):
        given = {
            "masks": torch.randint(0, 9, (batch, 1, 16, 18)),
            "boxes": torch.rand(batch, 2, 4) * 9,
            "keypoints": torch.rand(batch, 3, 2) * 9,
            "strength": torch.rand(batch),
        }
        images = torch.rand(batch, 3, 16, 18)
        for a, b in zip(seeded(run, images, **given), seeded(augment, images, **given), strict=True):
            torch.testing.assert_close(a, b)
    assert counter.frame_count == 2


@pytest.mark.parametrize("training", [True, pytest.param(False, marks=SLOW)])
@pytest.mark.parametrize(
    "name", ["all", "fourier", pytest.param("blur", marks=SLOW), pytest.param("alone", marks=SLOW)]
)
def test_an_export_serves_all_sizes(name: str, training: bool) -> None:
    module = MODULES[name].train(training)
    images = "input" if name == "alone" else "images"
    shapes = {images: {0: BATCH, 2: Dim("height", min=8, max=512), 3: Dim("width", min=8, max=512)}}
    exported = torch.export.export(module, (torch.rand(4, 3, 16, 24),), dynamic_shapes=shapes).module()
    for shape in ((4, 3, 16, 24), (3, 3, 20, 20), (5, 3, 80, 31), (2, 3, 90, 100)):
        given = torch.rand(*shape)
        torch.testing.assert_close(seeded(exported, given), seeded(module, given), rtol=0, atol=5e-5)
    module.train()


@SLOW
def test_an_export_of_a_crop_to_a_size_serves_all_sizes_without_antialiasing() -> None:
    module = Augment(*FIXED, antialias=False)
    shapes = {"images": {0: BATCH, 2: Dim("height", min=8, max=99), 3: Dim("width", min=8, max=99)}}
    exported = torch.export.export(module, (torch.rand(4, 3, 16, 24),), dynamic_shapes=shapes).module()
    for shape in ((3, 3, 20, 20), (5, 3, 80, 31)):
        images = torch.rand(*shape)
        torch.testing.assert_close(seeded(exported, images), seeded(module, images), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", range(1, 12))
def test_frequencies_are_those_of_torch(size: int) -> None:
    like = torch.empty(0, dtype=torch.float64)
    torch.testing.assert_close(
        frequencies(size, like), torch.fft.rfftfreq(size, dtype=torch.float64), rtol=1e-15, atol=0
    )
    both = frequencies(size, like, both=True)
    torch.testing.assert_close(both, torch.fft.fftfreq(size, dtype=torch.float64), rtol=1e-15, atol=0)
