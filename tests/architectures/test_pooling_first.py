"""Pooling before the ReLU: the same bits, only where it is a ReLU and a maximum, and only within the context."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import augkit
from augkit.architectures.blocks import Stage, pooling_first
from augkit.train import loop
from augkit.train.recipe import Recipe


def step(network: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Logits in evaluation, then logits, gradients and statistics of a training step."""
    images = images.clone().requires_grad_()
    found = [network.eval()(images).detach()]
    logits = network.train()(images)
    torch.nn.functional.cross_entropy(logits, torch.arange(len(images)) % logits.shape[1]).backward()
    return [*found, logits.detach(), images.grad, *(p.grad for p in network.parameters()), *network.buffers()]  # type: ignore[list-item]


@settings(max_examples=12)
@given(st.integers(0, 2**31), st.booleans(), st.booleans())
def test_outputs_gradients_and_statistics_have_the_same_bits(seed: int, whole: bool, channels_last: bool) -> None:
    """Also with ties in the windows and zeros, which images of a few whole numbers give."""
    torch.manual_seed(seed)
    network = augkit.build_model("small_cnn", num_classes=3, in_channels=1, width=4)
    images = torch.randint(-2, 3, (3, 1, 17, 20)).float() if whole else torch.randn(3, 1, 17, 20)
    if channels_last:
        network, images = (x.to(memory_format=torch.channels_last) for x in (network, images))
    other = copy.deepcopy(network)
    with pooling_first(other):
        swapped = step(other, images)
    assert all(map(torch.equal, step(network, images), swapped))


@pytest.mark.parametrize("style", [{"activation": "gelu"}, {"downsample": "blurpool"}, {"downsample": "stride"}, {}])
def test_only_relu_and_maximum_are_swapped_and_only_within_the_context(style: Any) -> None:
    network = augkit.build_model("small_cnn", num_classes=3, in_channels=1, width=4, **style)
    stages = [module for module in network.modules() if isinstance(module, Stage)]
    order: list[str] = []
    stages[0].act.register_forward_hook(lambda *_: order.append("act"))
    stages[0].pool.register_forward_hook(lambda *_: order.append("pool"))
    with pooling_first(network):
        assert {stage.pools_first for stage in stages} == {not style}
        network(torch.rand(1, 1, 16, 16))
    assert order == (["act", "pool"] if style else ["pool", "act"])
    network(torch.rand(1, 1, 16, 16))
    assert order[2:] == ["act", "pool"]


def test_a_run_has_the_same_bits_and_a_network_of_the_caller_is_left_alone(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.replaced(train={"epochs": 1, "batch_size": 32}, data={**tiny.data.model_dump(), "limit": 100})
    fast = augkit.fit(recipe).model.state_dict()
    called: list[bool] = []
    real = loop.pooling_first

    def counted(network: torch.nn.Module) -> Any:
        called.append(True)
        return real(torch.nn.Identity())

    monkeypatch.setattr(loop, "pooling_first", counted)
    slow = augkit.fit(recipe)
    assert all(torch.equal(fast[name], value) for name, value in slow.model.state_dict().items())
    assert len(called) == 1
    augkit.fit(recipe, model=slow.model)
    assert len(called) == 1
