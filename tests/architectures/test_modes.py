"""Networks of which a module or a weight has several names keep their own weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from augkit.architectures import antialias
from augkit.architectures.modes import called_with
from augkit.invariance.layers.lie_derivative import lie_derivative


def shared() -> nn.Sequential:
    """One convolution under two names, and two layers with one weight."""
    twice, first, second = nn.Conv2d(3, 3, 3, 2, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
    second.weight = first.weight
    return nn.Sequential(twice, nn.BatchNorm2d(3), twice, first, second, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def check_kept(model: nn.Module, before: dict[str, Tensor], own: list[nn.Parameter]) -> None:
    assert all(a is b for a, b in zip(model.parameters(), own, strict=True))
    for name, value in model.state_dict().items():
        assert (value.dtype, value.device) == (before[name].dtype, before[name].device)
        assert torch.equal(value, before[name])


def test_other_weights_are_used_under_every_name_and_leave_none_behind() -> None:
    model, images = shared().eval(), torch.rand(2, 3, 8, 8, dtype=torch.float64)
    before, own = copy.deepcopy(model.state_dict()), list(model.parameters())
    state = {name: 2 * v.detach().double() for name, v in (*model.named_parameters(), *model.named_buffers())}
    found = called_with(model, state, images)
    check_kept(model, before, own)
    other = copy.deepcopy(model).double()
    other.load_state_dict({name: value * 2 for name, value in before.items()})
    torch.testing.assert_close(found, other(images))


@pytest.mark.parametrize("method", ["blurpool", "aps"])
def test_surgery_on_a_copy_keeps_the_weights_of_a_network_with_a_module_of_two_names(method: str) -> None:
    model = nn.Sequential(shared(), nn.Unflatten(1, (3, 1, 1)), nn.MaxPool2d(1, 2)).eval()
    before, own = copy.deepcopy(model.state_dict()), list(model.parameters())
    operated = antialias(model, method, input_size=16)
    check_kept(model, before, own)
    assert torch.isfinite(operated(torch.rand(1, 3, 16, 16))).all()


def test_a_lie_derivative_in_float64_keeps_the_weights_of_such_a_network() -> None:
    model = shared().eval()
    before, own = copy.deepcopy(model.state_dict()), list(model.parameters())
    lie_derivative(model, torch.rand(2, 3, 8, 8), directions=["shift_x"], method="central")
    check_kept(model, before, own)
