"""RandAugment, TrivialAugment and AugMix compile whole: the eager result, for other batches and sizes, few graphs."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing

from augkit import Augment, AugMix, RandAugment, RandomHorizontalFlip, RandomPerspective, RandomRotation, TrivialAugment
from augkit.augment import color_changes

pytestmark = pytest.mark.integration

OPS = {
    "randaugment": RandAugment(2, 12.0),
    "trivialaugment": TrivialAugment(),
    "augmix": AugMix(width=2, depth=2, all_ops=True),
}

SIZES = [(8, 16, 18), (8, 16, 18), (6, 16, 18), (5, 20, 15), (7, 20, 22)]  # batch, height, width
SLOW = pytest.mark.slow  # a graph takes seconds to trace


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("trivialaugment", SIZES[:2]), *(pytest.param(name, SIZES, marks=SLOW) for name in OPS)],
)
def test_colors_and_geometry_compile_whole(name: str, sizes: list[tuple[int, ...]]) -> None:
    augment = Augment(RandomHorizontalFlip(), OPS[name], kernel="bilinear", normalize=(0.4, 0.3))
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    run = torch.compile(augment, backend=counter, fullgraph=True)
    for seed, (batch, *size) in enumerate(sizes):
        images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        expected = augment(images)
        torch.manual_seed(seed)
        out = run(images)
        # A pixel at a threshold of posterize or solarize may fall to its other side.
        far = (out - expected).abs() > 2e-4
        assert far.float().mean() < 2e-3, (far.float().mean(), (out - expected).abs().max())
    assert counter.frame_count <= 3


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW) for name in OPS])
def test_a_replay_compiles(name: str) -> None:
    """The matrix replays the geometry; colors are not in it."""
    augment, images = Augment(OPS[name], kernel="bilinear"), torch.rand(4, 3, 16, 18)
    torch._dynamo.reset()
    run = torch.compile(lambda x, matrix: augment(x, matrix=matrix), backend="eager", fullgraph=True)
    matrix = augment.sample(4, (16, 18))
    torch.testing.assert_close(run(images, matrix), augment(images, matrix=matrix), rtol=0, atol=5e-5)


def test_colors_of_all_samples_are_those_of_the_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(64, 3, 9, 11) * 1.2 - 0.1
    names = ("identity", *color_changes.CHANGES, "rotate")
    choice, amount = torch.arange(64) % len(names), torch.rand(64) * (torch.arange(64) % 5 > 0)
    for several in (images, images[:, :1]):
        expected = color_changes.change_colors(several, names, choice, amount)
        assert not torch.equal(expected, several)
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            assert torch.equal(color_changes.change_colors(several, names, choice, amount), expected)


@SLOW
@pytest.mark.parametrize("op", [RandomPerspective(0.1), RandomRotation(20.0)], ids=repr)
def test_a_hundred_draws_of_any_size_need_no_further_graph(op: torch.nn.Module) -> None:
    augment = Augment(op, kernel="bilinear")
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    run = torch.compile(augment, backend=counter, fullgraph=True, dynamic=True)
    for n in range(100):
        images = torch.rand(2 + n % 5, 1, 9 + n % 7, 12 + n % 3)
        torch.manual_seed(n)
        out = run(images)
        if n % 20 == 0:
            torch.manual_seed(n)
            torch.testing.assert_close(out, augment(images), rtol=0, atol=5e-5)
    assert counter.frame_count == 1
