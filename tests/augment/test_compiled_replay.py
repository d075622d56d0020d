"""Replay by ``matrix`` in torch.export and torch.compile: any batch and size, any matrix, no further graphs."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from torch.export import Dim

from augkit import Augment, RandomHorizontalFlip, RandomPerspective, RandomRotation, RandomSubpixelShift

pytestmark = pytest.mark.integration

OPS = (RandomSubpixelShift(2.0), RandomRotation(20.0), RandomHorizontalFlip())


class Replay(nn.Module):
    """An `Augment` as a function of images and matrix alone."""

    def __init__(self, augment: Augment) -> None:
        super().__init__()
        self.augment = augment

    def forward(self, images: Tensor, matrix: Tensor) -> Tensor:
        out: Tensor = self.augment(images, matrix=matrix)
        return out


def test_an_export_serves_all_sizes_and_all_matrices() -> None:
    augment = Augment(*OPS, RandomPerspective(0.1), kernel="bilinear", padding="reflection", normalize=(0.4, 0.3))
    batch, height, width = Dim("batch", min=2, max=512), Dim("height", min=8, max=512), Dim("width", min=8, max=512)
    example = (torch.rand(4, 3, 16, 24), augment.sample(4, (16, 24)))
    shapes = {"images": {0: batch, 2: height, 3: width}, "matrix": {0: batch}}
    exported = torch.export.export(Replay(augment), example, dynamic_shapes=shapes).module()
    for shape in ((4, 3, 16, 24), (3, 3, 20, 20), (2, 3, 41, 30)):
        images, matrix = torch.rand(*shape), augment.sample(shape[0], shape[2:])
        torch.testing.assert_close(exported(images, matrix), augment(images, matrix=matrix), rtol=0, atol=5e-5)


def test_a_hundred_draws_need_no_further_graph() -> None:
    augment = Augment(*OPS, kernel="bilinear")
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    drawn, replayed = (torch.compile(one, backend=counter, fullgraph=True) for one in (augment, Replay(augment)))
    images = torch.rand(2, 1, 9, 12)
    for n in range(100):
        matrix = augment.sample(2, (9, 12))
        out = replayed(images, matrix)
        if n % 25 == 0:
            torch.testing.assert_close(out, augment(images, matrix=matrix), rtol=0, atol=5e-5)
        drawn(images)
    assert counter.frame_count == 2


@pytest.mark.slow
def test_other_sizes_of_a_replay_need_few_graphs() -> None:
    augment = Augment(*OPS, kernel="bilinear")
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    run = torch.compile(Replay(augment), backend=counter, fullgraph=True)
    for batch, *size in [(8, 17, 24), (5, 17, 24), (6, 20, 31), (9, 25, 18), (4, 30, 30)]:
        images, matrix = torch.rand(batch, 3, *size), augment.sample(batch, (size[0], size[1]))
        torch.testing.assert_close(run(images, matrix), augment(images, matrix=matrix), rtol=0, atol=5e-5)
    assert counter.frame_count <= 3
