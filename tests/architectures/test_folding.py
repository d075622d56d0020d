"""Folding batch norms: the same outputs within rounding, only where allowed, and every weight as before at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torchvision.models import get_model
from torchvision.ops import FrozenBatchNorm2d

from augkit.architectures import build_model
from augkit.architectures.folding import FoldablePair, foldable_pairs, folded

IMAGES = torch.rand(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
OURS = [(name, way) for name in ("small_cnn", "resnet18") for way in ("maxpool", "stride", "blurpool", "aps")]


def with_statistics(model: nn.Module) -> nn.Module:
    """The network in evaluation and float64, with statistics and weights of its norms that are not those of a start."""
    draw = torch.Generator().manual_seed(1)
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if "running_var" in name:
            values.data.uniform_(0.5, 2.0, generator=draw)
        elif "running_mean" in name or values.ndim == 1:
            values.data.uniform_(-0.7, 1.3, generator=draw)
    return model.double().eval()


def pairs_of(model: nn.Module, images: Tensor = IMAGES) -> list[FoldablePair]:
    with torch.no_grad():
        return foldable_pairs(model, lambda: model(images))


def norms_in(model: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize(
    ("make", "left"),
    [
        *((lambda name=name, way=way: build_model(name, 10, 3, downsample=way, width=4), 0) for name, way in OURS),
        (lambda: get_model("resnet18", weights=None), 0),
        (lambda: get_model("mobilenet_v3_small", weights=None), 0),
        (lambda: get_model("densenet121", weights=None), 62),  # its norms come before convolutions
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_the_same_within_rounding(
    make: Callable[[], nn.Module], left: int, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    model = with_statistics(make()).to(memory_format=layout)
    images = IMAGES.contiguous(memory_format=layout)
    pairs = pairs_of(model, images)
    assert len(pairs) == norms_in(model) - left
    with torch.no_grad():
        before = model(images)
        with folded(pairs):
            torch.testing.assert_close(model(images), before, rtol=1e-10, atol=1e-10 * float(before.abs().max()))
        assert torch.equal(model(images), before)


def test_norms_of_timm_keep_their_activation() -> None:
    timm = pytest.importorskip("timm")
    model = with_statistics(timm.create_model("tf_efficientnet_lite0", pretrained=False))
    pairs = pairs_of(model)
    assert len(pairs) == norms_in(model) > 0
    with torch.no_grad():
        before = model(IMAGES)
        with folded(pairs):
            torch.testing.assert_close(model(IMAGES), before, rtol=1e-10, atol=1e-12)


class Net(nn.Module):
    """A convolution and a norm, run as ``forward`` of the test says."""

    def __init__(self, run: Callable[[Net, Tensor], Tensor], norm: nn.Module | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.other = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4) if norm is None else norm
        self.run = run

    def forward(self, images: Tensor) -> Tensor:
        return self.run(self, images)


def plain(net: Net, images: Tensor) -> Tensor:
    return net.norm(net.conv(images))


@pytest.mark.parametrize(
    ("run", "found"),
    [
        (plain, 1),
        (lambda net, images: net.norm(net.conv(images)) + net.norm(net.conv(images)), 0),  # each twice
        (lambda net, images: net.norm(net.conv(images) + 1), 0),  # another tensor
        (lambda net, images: net.norm(net.conv(images).relu()), 0),
        (lambda net, images: net.norm(net.other(net.conv(images))), 1),  # the later convolution
        (lambda net, images: net.norm(net.conv(images)[:1]), 0),
        (lambda net, images: net.conv(images), 0),
    ],
)
def test_a_norm_is_folded_into_the_convolution_whose_output_it_gets(
    run: Callable[[Net, Tensor], Tensor], found: int
) -> None:
    assert len(pairs_of(with_statistics(Net(run)))) == found


def test_a_later_tensor_in_the_place_of_the_output_is_another() -> None:
    """Python gives the id of a tensor that has gone to a new one."""

    def forgetful(net: Net, images: Tensor) -> Tensor:
        number, tensors = id(net.conv(images)), [torch.zeros(2, 4, 3, 3, dtype=images.dtype)]
        while id(tensors[-1]) != number and len(tensors) < 1000:
            tensors.append(torch.zeros_like(tensors[0]))
        reused.append(id(tensors[-1]) == number)
        return net.norm(tensors[-1])

    reused: list[bool] = []
    assert pairs_of(with_statistics(Net(forgetful))) == []
    assert reused == [True]


@pytest.mark.parametrize(
    "norm",
    [
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        nn.GroupNorm(2, 4),
        nn.SyncBatchNorm(4),
        type("Own", (nn.BatchNorm2d,), {"forward": lambda self, maps: 2 * nn.BatchNorm2d.forward(self, maps)})(4),
    ],
)
def test_other_norms_stay(norm: nn.Module) -> None:
    assert pairs_of(with_statistics(Net(plain, norm))) == []


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d(4), nn.BatchNorm2d(4, affine=False)])
def test_frozen_norms_and_those_without_weights_are_folded(norm: nn.Module) -> None:
    net = with_statistics(Net(plain, norm))
    (pair,) = pairs_of(net)
    with torch.no_grad():
        before = net(IMAGES)
        with folded([pair]):
            assert net.conv.bias is not None
            torch.testing.assert_close(net(IMAGES), before, rtol=1e-10, atol=1e-12)


def test_layers_with_hooks_parametrizations_or_a_forward_of_their_own_and_norms_in_training_stay() -> None:
    nets = [with_statistics(Net(plain)) for _ in range(5)]
    nets[0].conv.register_forward_hook(lambda *given: None)
    nets[1].norm.register_forward_pre_hook(lambda *given: None)
    spectral_norm(nets[2].conv)
    forward = nets[3].norm.forward
    nets[3].norm.forward = lambda maps: forward(maps) + 1
    nets[4].norm.train()
    assert [pairs_of(net) for net in nets] == [[]] * 5


def test_weights_return_after_an_error_and_can_be_trained() -> None:
    net = with_statistics(Net(plain))
    weight, state = net.conv.weight, {name: values.clone() for name, values in net.state_dict().items()}
    pairs = pairs_of(net)

    def stop() -> None:
        with torch.inference_mode(), folded(pairs):
            assert net.conv.weight is not weight
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop()
    assert net.conv.weight is weight
    assert net.conv.bias is None
    assert "forward" not in vars(net.norm)
    assert net.state_dict().keys() == state.keys()
    assert all(torch.equal(values, state[name]) for name, values in net.state_dict().items())
    net.train()(IMAGES).sum().backward()
    assert weight.grad is not None


def test_finding_pairs_leaves_no_hooks_even_after_an_error() -> None:
    net = with_statistics(Net(lambda net, images: net.norm(net.conv(images)).view(7)))
    with pytest.raises(RuntimeError):
        pairs_of(net)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.integration
def test_a_compiled_network_stays_as_it_is() -> None:
    net = with_statistics(Net(plain))
    whole = torch.compile(net, backend="eager")
    parts = nn.Sequential(torch.compile(net, backend="eager"), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)).double().eval()
    assert [pairs_of(each) for each in (whole, parts)] == [[], []]
    assert len(pairs_of(net)) == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_a_scripted_network_stays_as_it_is() -> None:
    net = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    for each in (torch.jit.script(net), torch.jit.trace(net, IMAGES)):
        assert pairs_of(each) == []
