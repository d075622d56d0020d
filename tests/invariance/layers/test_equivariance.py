"""Layer-wise equivariance against loops over layers, and shares against errors removed by hand."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit.core.errors import InputError
from augkit.invariance import LayerEquivariance, layerwise_equivariance


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conv(channels: int, out: int, padding_mode: str, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels, out, 3, stride, 1, padding_mode=padding_mode)


def by_name(layers: list[LayerEquivariance]) -> dict[str, LayerEquivariance]:
    return {layer.name: layer for layer in layers}


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("downsample", ["maxpool", "blurpool"])
def test_decibels_agree_with_a_loop(padding_mode: str, downsample: str) -> None:
    net = augkit.build_model("small_cnn", 5, 1, width=3, seed=0, padding_mode=padding_mode, downsample=downsample)
    net = net.double().eval()
    images, shifts = noise(3, 1, 30, 30), torch.tensor([[1.0, -2.0], [2.5, 0.25]])
    found = by_name(layerwise_equivariance(net, images, shifts=shifts, batch_size=2, mean=[0.4], std=[0.2]))
    parts = {
        "features.0.conv": net.features[0].conv,
        "features.0.pool" if downsample == "maxpool" else "features.0.pool.1": net.features[0],
        "features.1": net.features[:2],
        "features.2": net.features,
        "penultimate": nn.Sequential(net.features, net.head[:-1]),
        "logits": net,
    }
    for name, part in parts.items():
        signal = error = 0.0
        for image in images:
            for shift in shifts:
                with torch.no_grad():
                    still = part((image[None] - 0.4) / 0.2)
                    moved = part((augkit.fourier_shift(image[None], shift) - 0.4) / 0.2)
                if still.ndim == 4:
                    stride = {30: 1, 15: 2, 8: 4, 7: 4, 4: 8, 3: 8}[still.shape[-1]]
                    assert found[name].stride == (stride, stride)
                    still = augkit.fourier_shift(still, shift / stride)
                signal += moved.square().sum().item()
                error += (moved - still).square().sum().item()
        expected = 10 * np.log10(signal / error)
        if expected > 250:  # rounding, which is not the same twice
            assert found[name].decibels.value > 250, name
        else:
            assert found[name].decibels.value == pytest.approx(expected, rel=1e-6), name
        assert found[name].decibels.low <= found[name].decibels.value <= found[name].decibels.high


def test_a_torus_keeps_linear_layers_and_whole_strides_exactly() -> None:
    net = nn.Sequential(conv(1, 4, "circular"), conv(4, 4, "circular", stride=2), nn.MaxPool2d(2), nn.Flatten())
    net = nn.Sequential(net, nn.Linear(4 * 16, 3)).double()
    images = noise(3, 1, 16, 16)
    whole = by_name(layerwise_equivariance(net, images, shifts=torch.tensor([[4.0, -8.0]])))
    for name in ("0.0", "0.1", "0.2"):
        assert whole[name].decibels.value > 290
    half = by_name(layerwise_equivariance(net, images, shifts=torch.tensor([[2.0, 2.0]])))
    assert [half[name].stride for name in ("0.0", "0.1", "0.2")] == [(1, 1), (2, 2), (4, 4)]
    assert half["0.1"].decibels.value > 290  # a shift by one pixel of that map
    assert half["0.2"].decibels.value < 30  # and by half a pixel of this one
    one = by_name(layerwise_equivariance(net, images, shifts=torch.tensor([[1.0, 1.0]])))
    assert one["0.0"].decibels.value > 290
    assert one["0.1"].decibels.value < 30
    single = by_name(layerwise_equivariance(copy.deepcopy(net).float(), images, shifts=torch.tensor([[4.0, -8.0]])))
    assert 120 < single["0.1"].decibels.value < 139


def mended(stages: list[nn.Module], images: Tensor, shift: Tensor) -> list[float]:
    """Share of each stage by mending: the logits with an ideal map put in after each stage, one after the other."""
    with torch.no_grad():
        still, ends = images, []
        for k in range(len(stages) + 1):
            logits = augkit.fourier_shift(still, shift) if still.ndim == 4 else still
            for stage in stages[k:]:
                logits = stage(logits)
            ends.append(logits)
            still = stages[k](still) if k < len(stages) else still
        final = ends[0] - ends[-1]
        return [float(((a - b) * final).sum() / final.square().sum()) for a, b in itertools.pairwise(ends)]


def test_a_share_is_the_error_that_fixing_the_layer_would_remove() -> None:
    stages: list[nn.Module] = [
        conv(1, 4, "zeros"),
        conv(4, 4, "circular"),
        conv(4, 6, "zeros"),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 3),
    ]
    images, shift = noise(4, 1, 9, 9), torch.tensor([2.0, -3.0])
    net = nn.Sequential(*stages).double()
    found = by_name(layerwise_equivariance(net, images, shifts=shift[None]))
    expected = mended(stages, images, shift)
    assert [found[name].share.value for name in "0123"] == pytest.approx(expected[:4], abs=1e-9)
    assert abs(found["1"].share.value) < 1e-9
    assert min(abs(found[name].share.value) for name in "02") > 0.01
    assert sum(layer.share.value for layer in found.values()) == pytest.approx(1)


class Block(nn.Module):
    """A residual block that pads two branches with zeros, and adds with or without writing in place."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.left, self.right = conv(1, 3, "zeros"), conv(1, 3, "zeros")
        self.act = nn.ReLU(inplace=inplace)
        self.inplace = inplace

    def forward(self, maps: Tensor) -> Tensor:
        out, side = self.left(maps), self.right(maps)
        if self.inplace:
            out += side
        else:
            out = out + side
        return self.act(out)


def test_shares_of_parallel_branches_do_not_mix() -> None:
    torch.manual_seed(1)
    block = Block()
    block.act = nn.Identity()
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)).double()
    net, images, shift = nn.Sequential(block, head).double(), noise(4, 1, 9, 9), torch.tensor([2.0, -3.0])
    found = by_name(layerwise_equivariance(net, images, shifts=shift[None]))
    with torch.no_grad():
        moved = augkit.fourier_shift(images, shift)
        final = net(moved) - net(images)
        for name, branch in (("0.left", block.left), ("0.right", block.right)):
            ideal = augkit.fourier_shift(branch(images), shift)
            other = block.right if branch is block.left else block.left
            gain = net(moved) - head(ideal + other(moved))
            share = float((gain * final).sum() / final.square().sum())
            assert found[name].share.value == pytest.approx(share, abs=1e-9)
    assert found["0"].share.value == pytest.approx(0, abs=1e-9)  # the addition itself


def test_writing_in_place_changes_nothing() -> None:
    images = noise(3, 1, 9, 9)
    tail = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 2))
    plain = nn.Sequential(Block(), tail).double()
    inplace = nn.Sequential(Block(inplace=True), tail).double()
    inplace.load_state_dict(plain.state_dict())
    for options in ({}, {"shares": False}):
        a, b = (layerwise_equivariance(net, images, max_shift=2.0, **options) for net in (plain, inplace))
        assert [layer.name for layer in a] == ["0.left", "0.right", "0.act", "0", "1.0", "penultimate", "logits"]
        for one, other in zip(a, b, strict=True):
            assert one.name == other.name
            assert one.decibels.value == pytest.approx(other.decibels.value)
            assert one.share.value == pytest.approx(other.share.value, abs=1e-9, nan_ok=True)


class Quirk(nn.Module):
    """A block whose branch writes into the input before the shortcut reads it, as in some published networks."""

    def __init__(self, inplace: bool) -> None:
        super().__init__()
        self.stem, self.conv, self.act = conv(1, 3, "zeros"), conv(3, 3, "zeros"), nn.ReLU(inplace)
        self.skip = conv(3, 3, "zeros")
        self.head = nn.Linear(3, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        active = self.act(maps)
        return self.head((self.conv(active) + self.skip(maps if self.act.inplace else active)).amax((-2, -1)))


def test_in_place_writes_have_the_same_effect_as_without_hooks() -> None:
    images, shifts = noise(3, 1, 9, 9), torch.tensor([[1.5, -2.0]])
    nets = [Quirk(inplace).double() for inplace in (False, True)]
    nets[1].load_state_dict(nets[0].state_dict())
    with torch.no_grad():
        assert torch.equal(nets[0](images), nets[1](images))
        error = (nets[0](augkit.fourier_shift(images, shifts[0])) - nets[0](images)).square().sum()
        signal = nets[0](augkit.fourier_shift(images, shifts[0])).square().sum()
    for options in ({}, {"shares": False}):
        a, b = (layerwise_equivariance(net, images, shifts=shifts, **options) for net in nets)
        assert b[-1].decibels.value == pytest.approx(10 * np.log10((signal / error).item()))
        for one, other in zip(a, b, strict=True):
            assert one.name == other.name
            assert one.decibels.value == pytest.approx(other.decibels.value)
    assert sum(layer.share.value for layer in layerwise_equivariance(nets[1], images)) == pytest.approx(1)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_shares_sum_to_one_and_circular_convolutions_add_nothing(name: str) -> None:
    net = augkit.build_model(name, 5, 1, width=4, seed=0, padding_mode="circular").double()
    layers = layerwise_equivariance(net, noise(3, 1, 33, 33), max_shift=4.0, draws=2)
    assert sum(layer.share.value for layer in layers) == pytest.approx(1, abs=1e-9)
    for layer in layers:
        if layer.kind == "BatchNorm2d" or (layer.kind == "Conv2d" and layer.stride == (1.0, 1.0)):
            assert abs(layer.share.value) < 1e-9, layer.name
    assert max(abs(layer.share.value) for layer in layers if layer.kind == "MaxPool2d") > 0.01
    assert layers[-1].decibels.value > layers[-3].decibels.value - 1


def test_frozen_weights_have_the_same_shares_and_none_cost_nothing() -> None:
    net, images = augkit.build_model("small_cnn", 5, 1, width=3, seed=0).double(), noise(3, 1, 28, 28)
    free = layerwise_equivariance(net, images)
    frozen = layerwise_equivariance(net.requires_grad_(False), images)
    assert frozen == free
    without = layerwise_equivariance(net, images, shares=False)
    assert [layer.decibels for layer in without] == [layer.decibels for layer in free]
    assert not any(layer.share.defined for layer in without)


def test_exactly_invariant_networks_have_nothing_to_share_out() -> None:
    net = nn.Sequential(conv(1, 4, "circular"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    layers = layerwise_equivariance(net, noise(3, 1, 12, 12).float())
    assert min(layer.decibels.value for layer in layers) > 110
    assert not any(layer.share.defined for layer in layers)
    assert layers[0].to_dict()["share"] == {"value": None, "low": None, "high": None}
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    assert not layerwise_equivariance(net, noise(3, 1, 12, 12).float())[0].decibels.defined  # no features at all


class Odd(nn.Module):
    """Modules that run twice, work on channels last, give tuples or take lists."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(2, 2, "circular")
        self.norm = nn.LayerNorm(2)
        self.mix = nn.Linear(2, 6)  # (B, 6, 6, 6) has the proportions of a map
        self.pair = Pair()
        self.joined = Joined()
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.drop(self.conv(self.conv(images)))
        mixed = self.mix(self.norm(maps.permute(0, 2, 3, 1))).tanh().permute(0, 3, 1, 2)
        joined = self.joined([*self.pair(maps), mixed[:, :2]])
        return self.head(joined.mean((-2, -1)))


class Pair(nn.Module):
    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        return maps, maps.relu()


class Joined(nn.Module):
    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat([maps[1], maps[2]], dim=1)


def test_which_layers_are_reported_can_be_foretold() -> None:
    layers = layerwise_equivariance(Odd().double(), noise(2, 2, 6, 6), max_shift=2.0)
    assert [layer.name for layer in layers] == ["conv", "conv#2", "joined", "penultimate", "logits"]
    assert not by_name(layers)["joined"].share.defined
    assert sum(layer.share.value for layer in layers if layer.share.defined) == pytest.approx(1)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.Upsample(scale_factor=2), nn.Flatten(), nn.Linear(50, 2)
    )
    layers = layerwise_equivariance(net[:2].append(nn.Flatten()).append(nn.Linear(338, 2)), noise(2, 1, 28, 28).float())
    assert [layer.stride for layer in layers] == [(1, 1), (2, 2), None, None]
    net = nn.Sequential(nn.AvgPool2d((4, 2)), nn.Flatten(), nn.Linear(30, 2))
    layers = layerwise_equivariance(net, noise(2, 1, 12, 20).float())
    assert [layer.name for layer in layers] == ["penultimate", "logits"]  # 3 x 10: in another proportion


def test_result_does_not_depend_on_the_batch_size() -> None:
    net, images = augkit.build_model("small_cnn", 5, 1, width=3, seed=0).double(), noise(9, 1, 28, 28)
    done: list[tuple[int, int]] = []
    found = [
        layerwise_equivariance(net, images, batch_size=size, draws=2, seed=4, on_batch=lambda *n: done.append(n))
        for size in (1, 7, 9)
    ]
    assert done[-3:] == [(7, 9), (9, 9), (9, 9)]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert a.name == b.name
            for one, two in ((a.decibels, b.decibels), (a.share, b.share)):
                assert [two.value, two.low, two.high] == pytest.approx([one.value, one.low, one.high], abs=1e-6)


def test_network_and_random_state_stay_as_they_were() -> None:
    net = augkit.build_model("small_cnn", 5, 1, width=3, seed=0).train()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    images = (noise(2, 1, 28, 28) * 255).to(torch.uint8)
    layerwise_equivariance(net, images, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training and not module._forward_hooks for module in net.modules())
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws: expected a whole number of 1 or more"),
        ({"max_shift": -1.0}, "max_shift: expected a number at least 0"),
        ({"shifts": torch.zeros(3)}, r"expected \(S, 2\) or \(2, S, 2\)"),
        ({"shifts": torch.zeros(3, 4, 2)}, r"got \(3, 4, 2\)"),
        ({"shifts": torch.full((1, 2), float("nan"))}, "finite pixels"),
        ({"shifts": [1.0, 2.0]}, "got list"),
        ({"batch_size": 0}, "batch_size"),
        ({"mean": [0.5]}, "both or neither"),
    ],
)
def test_bad_input_gets_one_clear_line(options: dict[str, object], message: str) -> None:
    net = augkit.build_model("small_cnn", 5, 1, width=2, seed=0)
    with pytest.raises(InputError, match=message) as caught:
        layerwise_equivariance(net, noise(2, 1, 28, 28).float(), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_networks_that_change_their_layers_are_refused() -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.runs = conv(1, 2, "circular"), 0

        def forward(self, images: Tensor) -> Tensor:
            self.runs += 1
            maps = self.conv(images)
            return (self.conv(maps[:, :1]) if self.runs % 2 else maps).mean((-2, -1))

    with pytest.raises(InputError, match="same layers to run for shifted images"):
        layerwise_equivariance(Moody(), noise(2, 1, 8, 8).float())
