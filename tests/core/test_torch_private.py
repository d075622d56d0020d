"""What torch keeps private is read alike in eager and in compiled code."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import grad, vmap

from augkit.augment.backends.values import laid_out
from augkit.core.torch_private import in_function_transform

IMAGES = torch.rand(3, 2, 5, 8, 9, generator=torch.Generator().manual_seed(0))


def seen(images: Tensor) -> Tensor:
    return images * (2.0 if in_function_transform() else 1.0)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.integration)])
def test_a_transform_is_known_where_it_runs(compiled: bool) -> None:
    images = IMAGES[0]
    for function, factor in (
        (seen, 1.0),
        (vmap(seen), 2.0),
        (grad(lambda x: seen(x).sum()), None),
        (lambda x: vmap(seen)(x) + seen(x), 3.0),
    ):
        run = torch.compile(function, backend="eager", fullgraph=True) if compiled else function
        assert torch.equal(run(images), torch.full_like(images, 2.0) if factor is None else factor * images)


@pytest.mark.integration
def test_compiled_code_keeps_the_memory_format_outside_of_transforms() -> None:
    last = IMAGES[0].to(memory_format=torch.channels_last)
    run = torch.compile(lambda x: laid_out(2 * x.contiguous(), x), backend="eager", fullgraph=True)
    assert run(last).is_contiguous(memory_format=torch.channels_last)
    assert run(IMAGES[0]).is_contiguous()
    several = IMAGES.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, IMAGES.shape[:2])
    inside = torch.compile(vmap(lambda x: laid_out(2 * x, x)), backend="eager", fullgraph=True)
    assert torch.equal(inside(several), 2 * IMAGES)
