"""Polyphase sampling under gradients, low precision, compilation, tracing, copies, and on a GPU."""

from __future__ import annotations

import copy
import io
import pickle
import warnings
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from sampled import SAMPLINGS, layouts, maps_of, sampling
from torch import Tensor, nn

from augkit.architectures import (
    AdaptivePolyphaseSampling,
    AdaptivePolyphaseUpsampling,
    LearnablePolyphaseSampling,
    sample_phase,
)
from augkit.architectures.polyphase import component_norms, polyphase
from augkit.core.errors import InputError, OddMapWarning

# Dtypes, layouts, compilers


forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch's own


@pytest.mark.integration
@forward_mode
@sampling
@layouts
@pytest.mark.parametrize("stride", [2, 3])
def test_gradients_are_right(name: str, layout: torch.memory_format, stride: int) -> None:
    layer = SAMPLINGS[name](stride).double()
    maps = maps_of(2, 3, 2 * stride, stride).contiguous(memory_format=layout).requires_grad_()
    assert torch.autograd.gradcheck(layer, maps, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(layer, maps)
    phase = torch.tensor([1, stride**2 - 1])
    up = AdaptivePolyphaseUpsampling(stride)
    assert torch.autograd.gradcheck(lambda maps: up(maps, phase), maps, check_forward_ad=True)


def test_gradients_reach_the_scores() -> None:
    layer, maps = LearnablePolyphaseSampling(2, hidden=3).double(), maps_of(2, 2, 4, 6).requires_grad_()
    weights = [p.detach().requires_grad_() for p in layer.parameters()]

    def soft(maps: Tensor, *values: Tensor) -> Tensor:
        named = dict(zip(dict(layer.named_parameters()), values, strict=True))
        noise = {"generator": torch.Generator().manual_seed(0)}
        out: Tensor = torch.func.functional_call(layer, named, (maps,), noise)
        return out

    assert torch.autograd.gradcheck(soft, (maps, *weights))
    up = AdaptivePolyphaseUpsampling()
    phase = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(up, (maps, phase))


@forward_mode
@sampling
def test_transforms_of_functions_work(name: str) -> None:
    layer, maps, tangent = SAMPLINGS[name]().double(), maps_of(2, 3, 4, 4), maps_of(2, 3, 4, 4, seed=1)
    out, phase = layer(maps, return_phase=True)
    _, derivative = torch.func.jvp(layer, (maps,), (tangent,))
    assert torch.equal(derivative, layer(tangent, phase))
    each = torch.func.vmap(lambda image: layer(image[None])[0])(maps)
    assert torch.equal(each, out)


@sampling
@layouts
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_chooses_in_float32(name: str, layout: torch.memory_format, dtype: torch.dtype) -> None:
    maps = torch.full((1, 3, 64, 64), 300.0, dtype=dtype)  # whose squares overflow float16
    maps[:, :, 1::2, 0::2] *= 1 + 2**-7  # a difference that bfloat16 holds, in a sum of thousands that it does not
    maps[0, 0, 1, 1] = 302.0
    maps = maps.contiguous(memory_format=layout)
    assert AdaptivePolyphaseSampling().choose(maps).tolist() == [2]
    assert torch.isfinite(component_norms(maps, 2)).all()
    layer = SAMPLINGS[name]()
    with torch.autocast("cpu", dtype):
        out, phase = layer(maps, return_phase=True)
    assert out.dtype == dtype
    assert torch.equal(out, sample_phase(maps.float(), phase, 2).to(dtype))


def test_scores_are_not_rounded_by_autocast() -> None:
    layer, maps = LearnablePolyphaseSampling(3), torch.rand(4, 3, 16, 16)
    layer.score.weight.data += 1.0  # so that the scores are far from 0 and close to one another
    with torch.autocast("cpu", torch.bfloat16):
        scores = layer.scores(maps)
        _, weights = layer(maps, return_phase=True)
    assert scores.dtype == weights.dtype == torch.float32
    assert all(len(set(row)) == 4 for row in scores.tolist())
    assert not torch.equal(scores, scores.bfloat16().float())


@sampling
@pytest.mark.parametrize("training", [False, True])
def test_channels_last_is_kept_and_changes_nothing(name: str, training: bool) -> None:
    layer, maps = SAMPLINGS[name]().double().train(training), maps_of(2, 3, 8, 6)
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = maps.contiguous(memory_format=layout).requires_grad_()
        torch.manual_seed(0)
        out = layer(leaf)
        assert out.is_contiguous(memory_format=layout)
        (gradient,) = torch.autograd.grad(out.square().sum(), leaf)
        results.append((out, gradient))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.integration
@sampling
@pytest.mark.parametrize("training", [False, True])
def test_layers_compile_in_one_graph(name: str, training: bool) -> None:
    torch.compiler.reset()
    layer = SAMPLINGS[name]().train(training)
    up = AdaptivePolyphaseUpsampling()

    def there_and_back(maps: Tensor) -> Tensor:
        coarse, phase = layer(maps, return_phase=True)
        shortcut = AdaptivePolyphaseSampling()(maps, phase)
        out: Tensor = up(coarse + shortcut, phase, (8, 7))
        return out

    compiled = torch.compile(there_and_back, fullgraph=True, backend="aot_eager")
    maps = maps_of(2, 3, 8, 7, dtype=torch.float32).requires_grad_()  # odd: warned of in eager mode alone
    torch.manual_seed(0)
    out = compiled(maps)
    out.sum().backward()
    assert maps.grad is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OddMapWarning)
        if not training:
            torch.testing.assert_close(out, there_and_back(maps))


@pytest.mark.slow
@sampling
def test_inductor_agrees(name: str) -> None:
    torch.compiler.reset()
    layer, maps = SAMPLINGS[name](), maps_of(2, 3, 8, 6, dtype=torch.float32)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True)(maps), layer(maps))


@sampling
def test_layers_are_leaves_of_a_traced_graph(name: str) -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch, self.shortcut = SAMPLINGS[name]().double(), AdaptivePolyphaseSampling()

        def forward(self, maps: Tensor) -> Tensor:
            out, phase = self.branch(maps, return_phase=True)
            total: Tensor = out + self.shortcut(maps, phase)
            return total

    class Tracer(torch.fx.Tracer):
        def is_leaf_module(self, module: nn.Module, name: str) -> bool:
            return not isinstance(module, Block)

    block = Block()
    graph = Tracer().trace(block)
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    assert calls == {"branch": 1, "shortcut": 1}
    maps = maps_of(2, 3, 4, 4)
    assert torch.equal(torch.fx.GraphModule(block, graph)(maps), block(maps))


@sampling
def test_layers_pickle_copy_and_load(name: str) -> None:
    layer, maps = SAMPLINGS[name]().double(), maps_of(2, 3, 8, 8)
    for other in (pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer)):
        assert torch.equal(other(maps), layer(maps))
    file = io.BytesIO()
    torch.save(layer.state_dict(), file)
    file.seek(0)
    fresh = SAMPLINGS[name]().double()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(maps), layer(maps))
    keys = [] if name == "aps" else ["conv.weight", "conv.bias", "score.weight"]
    assert list(layer.state_dict()) == keys, "adaptive sampling adds no keys to a network"


@pytest.mark.gpu
@sampling
@layouts
def test_the_gpu_agrees_and_never_waits(name: str, layout: torch.memory_format) -> None:
    layer, maps = SAMPLINGS[name](), maps_of(4, 3, 16, 12, dtype=torch.float32)
    expected, phase = layer(maps, return_phase=True)
    layer, on_gpu = layer.cuda(), maps.cuda().contiguous(memory_format=layout).requires_grad_()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out, chosen = layer(on_gpu, return_phase=True)
        up = AdaptivePolyphaseUpsampling()(out, chosen)
        up.sum().backward()
        layer.train()(on_gpu).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(chosen.cpu(), phase)
    assert torch.equal(out.cpu(), expected)
    assert torch.equal(up.cpu(), AdaptivePolyphaseUpsampling()(expected, phase))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: AdaptivePolyphaseSampling(0),
            "Sampling: stride: expected a whole number of 1 or more, got 0",
        ),
        (
            lambda: AdaptivePolyphaseUpsampling(0),
            "Upsampling: stride: expected a whole number of 1 or more, got 0",
        ),
        (lambda: AdaptivePolyphaseSampling(2.5), "stride: expected a whole number of 1 or more, got 2.5"),  # type: ignore[arg-type]
        (lambda: AdaptivePolyphaseSampling(norm=0.5), "norm of order 1 to inf, got 0.5"),
        (lambda: AdaptivePolyphaseSampling(norm=float("nan")), "norm of order 1 to inf, got nan"),
        (lambda: AdaptivePolyphaseSampling(odd="warm"), "did you mean 'warn'"),
        (lambda: LearnablePolyphaseSampling(0), "channels: expected a whole number of 1 or more, got 0"),
        (lambda: LearnablePolyphaseSampling(3, temperature=0.0), "temperature above 0, got 0.0"),
        (lambda: LearnablePolyphaseSampling(3, padding_mode="circlar"), "did you mean 'circular'"),
        (lambda: AdaptivePolyphaseSampling()(torch.rand(3, 4, 4)), r"maps \(B, C, H, W\).*got shape \(3, 4, 4\)"),
        (lambda: AdaptivePolyphaseSampling()(torch.rand(1, 3, 0, 4)), "at least one pixel"),
        (lambda: AdaptivePolyphaseSampling()(torch.rand(2, 3, 4, 4), torch.tensor([1])), r"expected shape \(2,\)"),
        (lambda: AdaptivePolyphaseSampling()(torch.rand(2, 3, 4, 4), torch.rand(2, 9)), r"expected shape \(2, 4\)"),
        (lambda: AdaptivePolyphaseUpsampling()(torch.rand(1, 1, 2, 2), torch.tensor([0]), (5, 4)), "do not fill 5 x 4"),
        (lambda: polyphase(torch.rand(1, 1, 5, 4), 2), "multiples of 2, got 5 x 4"),
    ],
)
def test_bad_arguments_get_one_line(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
