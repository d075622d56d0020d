"""Certificates: the trace of a network agrees with its logits, and the first layer that breaks invariance is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from certified import Block, C, Do, aps, conv, head, lps, net
from torch import Tensor, nn

import augkit
from augkit.architectures.downsampling import DenseMaxPool2d
from augkit.architectures.polyphase import (
    AdaptivePolyphaseSampling,
    AdaptivePolyphaseUpsampling,
    LearnablePolyphaseSampling,
)
from augkit.core.errors import InputError, InputTypeError
from augkit.invariance import Certificate, certify


def resnet18(sampling: Callable[[int], nn.Module], width: int = 4, shared: bool = True) -> nn.Module:
    """ResNet-18 in its ImageNet form (five halvings), with a polyphase sampling in the place of every stride."""
    stem = [nn.Conv2d(3, width, 7, padding=3, padding_mode="circular"), nn.BatchNorm2d(width), nn.ReLU()]
    layers = [*stem, sampling(width), DenseMaxPool2d(2, "circular"), sampling(width)]
    channels = width
    for stage in range(4):
        for k in range(2):
            layers.append(Block(channels, width * 2**stage, sampling if stage and not k else None, shared))
            channels = width * 2**stage
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


# What is certified, and what is named


def test_stride_one_circular_network_is_invariant_to_integer_shifts_until_its_relu() -> None:
    model = net(nn.BatchNorm2d(C), nn.ReLU(), conv(size=4), nn.ReLU())
    certificate = certify(model, (12, 9))
    assert (certificate.verdict, certificate.layer, certificate.type) == ("integer", "2", "ReLU")
    assert not certificate.check.integer_moves
    assert certificate.check.fractional_moves
    assert certificate.remedy is not None
    assert certificate.mend == certificate.remedy, "the former name"
    assert "AliasFreeActivation" in certificate.remedy


def test_linear_network_is_invariant_to_fractional_shifts() -> None:
    certificate = certify(net(nn.BatchNorm2d(C), conv(size=5, dilation=2), conv(groups=C)), 12)
    assert (certificate.verdict, certificate.layer, certificate.remedy) == ("fractional", None, None)
    assert certificate.check.fractional < 1e-12


def test_torchvision_resnet18_breaks_at_its_first_layer() -> None:
    from torchvision.models import resnet18 as original

    certificate = certify(original(num_classes=4), 48)
    assert (certificate.verdict, certificate.layer, certificate.type) == ("none", "conv1", "Conv2d")
    assert "stride 2" in certificate.reason
    assert "zero padding" in certificate.reason
    assert certificate.remedy is not None
    assert "AdaptivePolyphaseSampling(2)" in certificate.remedy
    assert "circular" in certificate.remedy
    assert certificate.check.integer_moves
    sizes = {step.layer: (step.size, step.stride, step.state) for step in certificate.walk}
    assert sizes["conv1"] == ((24, 24), (2.0, 2.0), "none")
    assert sizes["layer4.1.conv2"] == ((2, 2), (24.0, 24.0), "none")


@pytest.mark.parametrize(
    ("downsample", "padding_mode", "layer", "kind", "words", "remedy"),
    [
        ("maxpool", "zeros", "features.0.conv", "Conv2d", "zero padding", "circular"),
        ("maxpool", "circular", "features.0.pool", "MaxPool2d", "stride 2", "stride 1 with circular padding"),
        ("blurpool", "circular", "features.0.pool.1", "BlurPool2d", "stride 2", "AdaptivePolyphaseSampling"),
        ("stride", "circular", "features.0.conv", "Conv2d", "stride 2", "AdaptivePolyphaseSampling"),
        ("blurpool", "reflect", "features.0.conv", "Conv2d", "reflect padding", "circular"),
    ],
)
def test_our_networks_break_where_they_should(
    downsample: str, padding_mode: str, layer: str, kind: str, words: str, remedy: str
) -> None:
    model = augkit.build_model("small_cnn", 5, 1, downsample=downsample, padding_mode=padding_mode, width=4, seed=0)
    certificate = certify(model, 32)
    assert (certificate.verdict, certificate.layer, certificate.type) == ("none", layer, kind)
    assert words in certificate.reason
    assert certificate.remedy is not None
    assert remedy in certificate.remedy
    assert certificate.check.integer_moves


@pytest.mark.parametrize("sampling", [aps, lps])
def test_polyphase_resnet18_is_certified_where_its_maps_divide(sampling: Callable[[int], nn.Module]) -> None:
    model = resnet18(sampling)
    for side in (64, 96):
        certificate = certify(model, side)
        assert certificate.verdict == "integer"
        assert certificate.check.integer < 1e-12 * certificate.check.scale
    certificate = certify(model, 72)
    assert (certificate.verdict, certificate.layer) == ("none", "10.pool")
    assert "9 x 9 map" in certificate.reason
    assert (
        certificate.remedy == "an input whose sides are multiples of 32, such as 64 x 64 or 96 x 96 instead of 72 x 72"
    )
    assert certificate.check.integer_moves
    assert {step.size for step in certificate.walk if step.layer == "10.conv1"} == {(9, 9)}


def test_branches_must_share_their_phase() -> None:
    certificate = certify(resnet18(aps, shared=False), 64)
    assert (certificate.verdict, certificate.type) == ("none", "function add")
    assert "chosen apart" in certificate.reason
    assert certificate.remedy is not None
    assert "phase" in certificate.remedy


def test_chooser_of_learnable_sampling_must_be_circular() -> None:
    certificate = certify(net(LearnablePolyphaseSampling(C, padding_mode="zeros")), 16)
    assert (certificate.verdict, certificate.type) == ("none", "LearnablePolyphaseSampling")
    assert "zero padding" in certificate.reason


def test_a_choice_that_rounding_makes_is_refused() -> None:
    """A norm gives every place the same length, so that all grids have the same norm."""
    certificate = certify(net(Do(F.normalize), AdaptivePolyphaseSampling()), 16)
    assert (certificate.verdict, certificate.type) == ("refused", "AdaptivePolyphaseSampling")
    assert "rounding decides" in certificate.reason
    assert certify(net(nn.Upsample(scale_factor=2), AdaptivePolyphaseSampling()), 8).verdict == "integer", "equal grids"


def test_upsampling_back_to_the_grid_of_its_sampling() -> None:
    def down_and_up(maps: Tensor, down: nn.Module, up: nn.Module, inner: nn.Module) -> Tensor:
        coarse, phase = down(maps, return_phase=True)
        return maps + up(inner(coarse), phase)

    layers = AdaptivePolyphaseSampling(), AdaptivePolyphaseUpsampling(), conv()
    assert certify(net(Do(down_and_up, *layers)), 16).verdict == "integer"


def test_fully_connected_head_is_named() -> None:
    certificate = certify(nn.Sequential(conv(3), nn.ReLU(), nn.Flatten(), nn.Linear(C * 64, 3)), 8)
    assert (certificate.verdict, certificate.layer, certificate.type) == ("none", "2", "Flatten")
    assert "8 x 8 map" in certificate.reason
    assert certificate.remedy is not None
    assert "global average pooling" in certificate.remedy


def test_constant_logits_of_a_broken_network_are_not_certified() -> None:
    model = nn.Sequential(nn.Conv2d(3, C, 3, stride=2), *head())
    nn.init.zeros_(model[-1].weight)  # type: ignore[arg-type]
    certificate = certify(model, 16)
    assert certificate.check.integer == 0
    assert (certificate.verdict, certificate.layer) == ("none", "0")


# The certificate itself


def test_certificate_is_plain_data_and_reads_in_a_terminal() -> None:
    certificate = certify(net(nn.MaxPool2d(2)), (16, 12), seed=3)
    data = json.loads(json.dumps(certificate.to_dict()))
    assert data["verdict"] == "none"
    assert data["layer"] == "1"
    assert data["input_size"] == [16, 12]
    assert data["walk"][1] == {"layer": "1", "type": "MaxPool2d", "size": [8, 6], "stride": [2.0, 2.0], "state": "none"}
    assert data["check"]["integer"] > 0
    assert data["check"]["seed"] == 3
    lines = str(certificate).splitlines()
    assert lines[0].startswith("none: not exactly invariant")
    assert lines[1].startswith("  1 (MaxPool2d): stride 2")
    assert lines[2].startswith("  remedy: ")
    assert len(lines) == 5
    assert all(len(line) < 200 for line in lines)


def test_the_network_and_the_random_state_are_left_alone() -> None:
    model = net(nn.BatchNorm2d(C), nn.ReLU(inplace=True), nn.Dropout()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    first = certify(model, 8, calibrate=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert next(model.parameters()).dtype == torch.float32
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert first.check.calibrated
    assert first == certify(model, 8, calibrate=True), "the same seed gives the same certificate"


def test_calibration_brings_logits_of_a_wild_network_to_scale() -> None:
    model = net(nn.BatchNorm2d(C), nn.ReLU())
    with torch.no_grad():
        model[0].weight.mul_(1e6)  # type: ignore[operator, union-attr]
    wild, calm = certify(model, 8).check.scale, certify(model, 8, calibrate=True).check.scale
    assert calm < 10 < wild


def test_compiled_and_scripted_networks() -> None:
    model = net(nn.ReLU())
    assert certify(torch.compile(model), 8).verdict == "integer"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (nn.Sequential(nn.Conv2d(3, 2, 9), nn.Flatten()), {"input_size": 6}, "6 x 6, 3 channels: .* Kernel size"),
        (nn.Sequential(conv(3), nn.Flatten(), nn.Linear(7, 2)), {"input_size": 6}, "cannot take it"),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), {"input_size": 2}, "in_channels: .*pass it"),
        (conv(3), {"input_size": 6}, r"expected logits \(2, K\), got \(2, 4, 6, 6\)"),
        (nn.Sequential(conv(3), Do(lambda x: {"a": x, "b": x})), {"input_size": 6}, "got a dict with a, b"),
        (net(Do(lambda x: x / 0)), {"input_size": 6}, "not finite"),
        (net(), {"input_size": (6, 0)}, "at least 1"),
        (net(), {"input_size": 6, "tolerance": "a"}, "tolerance: expected at least 0"),
        (net(), {"input_size": 6, "images": 1}, "images: expected a whole number of 2 or more"),
        (net(), {"input_size": 6, "images": 2.5}, "images: expected a whole number of 2 or more, got 2.5"),
        (net(), {"input_size": 6, "tolerance": -1.0}, "tolerance: expected at least 0"),
        (net(), {"input_size": 6, "in_channels": 0}, "in_channels: expected a whole number of 1 or more"),
        (net(), {"input_size": 6, "in_channels": 1.5}, "in_channels: expected a whole number of 1 or more, got 1.5"),
        (net(), {"input_size": 6, "in_channels": 4}, "4 channels: the network cannot take it"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(model: nn.Module, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        certify(model, **arguments)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"logits": y},
        lambda y: (y, y),
        lambda y: SimpleNamespace(logits=y, hidden_states=None),  # as Hugging Face's outputs
    ],
)
def test_logits_within_an_output_are_certified_as_logits_alone(wrap: Callable[[Tensor], object]) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net(nn.ReLU())

        def forward(self, images: Tensor) -> object:
            return wrap(self.inner(images))

    plain, found = certify(net(nn.ReLU()), 8), certify(Wrapped(), 8)
    assert found.verdict == plain.verdict == "integer", str(found)
    assert found.layer == f"inner.{plain.layer}"


def test_model_must_be_a_module() -> None:
    with pytest.raises(InputTypeError, match=r"expected a torch.nn.Module, got function"):
        certify(lambda x: x, 8)  # type: ignore[arg-type, return-value]


def test_certify_is_public() -> None:
    assert augkit.certify is certify
    assert isinstance(augkit.certify(net(), 8), Certificate)
