"""Certificates: what the walk says of a network agrees with its logits, and the layer that breaks it is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import augkit
from augkit.architectures.aliasfree import (
    AliasFreeActivation,
    AliasFreeDownsample2d,
    AliasFreeLayerNorm2d,
    IdealLowpass2d,
)
from augkit.architectures.downsampling import BlurPool2d, DenseMaxPool2d
from augkit.architectures.polyphase import (
    AdaptivePolyphaseSampling,
    AdaptivePolyphaseUpsampling,
    LearnablePolyphaseSampling,
)
from augkit.core.errors import InputError, InputTypeError
from augkit.invariance import Certificate, certify

C = 4  # channels everywhere


def conv(inputs: int = C, size: int = 3, mode: str = "circular", **kwargs: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, C, size, padding="same", padding_mode=mode, **kwargs)  # type: ignore[arg-type]


def head(classes: int = 5) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, classes)]


def net(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(conv(3), *layers, *head())


class Do(nn.Module):
    """A function between layers: ``Do(lambda maps, conv: ..., conv)``."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, maps: Tensor) -> Any:
        return self.function(maps, *self.layers)


class Block(nn.Module):
    """A residual block; where it halves, the shortcut keeps the phase of the branch or chooses its own."""

    def __init__(self, inputs: int, out: int, sampling: Callable[[int], nn.Module] | None, shared: bool = True) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(inputs, out, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(out)
        self.conv2, self.norm2 = nn.Conv2d(out, out, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.pool = sampling(out) if sampling else None
        self.shortcut_pool = AdaptivePolyphaseSampling(odd="allow") if sampling else None
        self.shortcut = nn.Conv2d(inputs, out, 1) if inputs != out else nn.Identity()
        self.shared = shared

    def forward(self, maps: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(maps)))
        if self.pool is not None:
            out, phase = self.pool(out, return_phase=True)
            maps = self.shortcut_pool(maps, phase) if self.shared else self.shortcut_pool(maps)  # type: ignore[misc]
        out = self.norm2(self.conv2(out))
        out += self.shortcut(maps)
        return self.relu(out)


def aps(_: int) -> nn.Module:
    return AdaptivePolyphaseSampling(odd="allow")


def lps(channels: int) -> nn.Module:
    return LearnablePolyphaseSampling(channels, odd="allow")


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


def moves(model: nn.Module, size: tuple[int, int], shifts: list[tuple[float, float]], seed: int) -> float:
    """The largest change of a logit in float64 over the largest logit, on images that `certify` has not seen."""
    model = model.double().eval()
    images = torch.randn(3, 3, *size, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)
    with torch.no_grad():
        logits = model(images.clone())
        moved = [model(shifted(images, s)) for s in shifts]
    return float(max((m - logits).abs().max() for m in moved) / logits.abs().max().clamp_min(1e-30))


def shifted(images: Tensor, shift: tuple[float, float]) -> Tensor:
    if all(float(s).is_integer() for s in shift):
        return images.roll((int(shift[1]), int(shift[0])), (-2, -1))
    return augkit.fourier_shift(images, torch.tensor(shift, dtype=torch.float64))


INTEGER = [(1.0, 0.0), (0.0, 1.0), (3.0, -2.0), (-7.0, 5.0)]
FRACTIONAL = [(0.5, 0.5), (-0.37, 1.21)]


# What is certified, and what is named


def test_stride_one_circular_network_is_invariant_to_integer_shifts_until_its_relu() -> None:
    model = net(nn.BatchNorm2d(C), nn.ReLU(), conv(size=4), nn.ReLU())
    certificate = certify(model, (12, 9))
    assert (certificate.verdict, certificate.layer, certificate.type) == ("integer", "2", "ReLU")
    assert not certificate.check.integer_moves
    assert certificate.check.fractional_moves
    assert certificate.mend is not None
    assert "AliasFreeActivation" in certificate.mend


def test_linear_network_is_invariant_to_fractional_shifts() -> None:
    certificate = certify(net(nn.BatchNorm2d(C), conv(size=5, dilation=2), conv(groups=C)), 12)
    assert (certificate.verdict, certificate.layer, certificate.mend) == ("fractional", None, None)
    assert certificate.check.fractional < 1e-12


def test_torchvision_resnet18_breaks_at_its_first_layer() -> None:
    from torchvision.models import resnet18 as original

    certificate = certify(original(num_classes=4), 48)
    assert (certificate.verdict, certificate.layer, certificate.type) == ("none", "conv1", "Conv2d")
    assert "stride 2" in certificate.reason
    assert "zero padding" in certificate.reason
    assert certificate.mend is not None
    assert "AdaptivePolyphaseSampling(2)" in certificate.mend
    assert "circular" in certificate.mend
    assert certificate.check.integer_moves
    sizes = {step.layer: (step.size, step.stride, step.state) for step in certificate.walk}
    assert sizes["conv1"] == ((24, 24), (2.0, 2.0), "none")
    assert sizes["layer4.1.conv2"] == ((2, 2), (24.0, 24.0), "none")


@pytest.mark.parametrize(
    ("downsample", "padding_mode", "layer", "kind", "words", "mend"),
    [
        ("maxpool", "zeros", "features.0.conv", "Conv2d", "zero padding", "circular"),
        ("maxpool", "circular", "features.0.pool", "MaxPool2d", "stride 2", "stride 1 with circular padding"),
        ("blurpool", "circular", "features.0.pool.1", "BlurPool2d", "stride 2", "AdaptivePolyphaseSampling"),
        ("stride", "circular", "features.0.conv", "Conv2d", "stride 2", "AdaptivePolyphaseSampling"),
        ("blurpool", "reflect", "features.0.conv", "Conv2d", "reflect padding", "circular"),
    ],
)
def test_our_networks_break_where_they_should(
    downsample: str, padding_mode: str, layer: str, kind: str, words: str, mend: str
) -> None:
    model = augkit.build_model("small_cnn", 5, 1, downsample=downsample, padding_mode=padding_mode, width=4, seed=0)
    certificate = certify(model, 32)
    assert (certificate.verdict, certificate.layer, certificate.type) == ("none", layer, kind)
    assert words in certificate.reason
    assert certificate.mend is not None
    assert mend in certificate.mend
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
    assert certificate.mend == "an input whose sides are multiples of 32, such as 64 x 64 or 96 x 96 instead of 72 x 72"
    assert certificate.check.integer_moves
    assert {step.size for step in certificate.walk if step.layer == "10.conv1"} == {(9, 9)}


def test_branches_must_share_their_phase() -> None:
    certificate = certify(resnet18(aps, shared=False), 64)
    assert (certificate.verdict, certificate.type) == ("none", "function add")
    assert "chosen apart" in certificate.reason
    assert certificate.mend is not None
    assert "phase" in certificate.mend


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
    assert certificate.mend is not None
    assert "global average pooling" in certificate.mend


def test_constant_logits_of_a_broken_network_are_not_certified() -> None:
    model = nn.Sequential(nn.Conv2d(3, C, 3, stride=2), *head())
    nn.init.zeros_(model[-1].weight)  # type: ignore[arg-type]
    certificate = certify(model, 16)
    assert certificate.check.integer == 0
    assert (certificate.verdict, certificate.layer) == ("none", "0")


# What keeps which shifts: one case per rule

KEEPS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "group norm, even side": (lambda: nn.GroupNorm(2, C), "integer"),
    "instance norm": (lambda: nn.InstanceNorm2d(C, affine=True), "integer"),
    "layer norm of channels": (lambda: Do(lambda x, n: n(x.movedim(1, 3)).movedim(3, 1), nn.LayerNorm(C)), "integer"),
    "layer norm of all": (lambda: nn.LayerNorm((C, 12, 12)), "integer"),
    "dropout": (nn.Dropout2d, "fractional"),
    "roll": (lambda: Do(lambda x: torch.roll(x, (1, 2), (2, 3)) + x), "fractional"),
    "flip alone": (lambda: Do(lambda x: x.flip(-1)), "fractional"),
    "flip and sum": (lambda: Do(lambda x: x.flip(-1) + x), "none"),
    "squeeze and excitation": (lambda: Do(lambda x: x * x.mean((2, 3), keepdim=True).sigmoid()), "fractional"),
    "spatial attention": (lambda: Do(lambda x, c: x * c(x).sigmoid(), conv()), "integer"),
    "concatenation": (lambda: Do(lambda x, c: c(torch.cat([x, x.relu()], 1)), nn.Conv2d(2 * C, C, 1)), "integer"),
    "joined along a side": (lambda: Do(lambda x: torch.cat([x, 2 * x], 2)), "none"),
    "padded by hand": (lambda: Do(lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), mode="circular"), 3, 1)), "integer"),
    "padded too much": (lambda: Do(lambda x: F.max_pool2d(F.pad(x, (1, 2, 1, 1), mode="circular"), 3, 1)), "none"),
    "no padding": (lambda: nn.Conv2d(C, C, 3), "none"),
    "pixel shuffle": (lambda: Do(lambda x, c: c(F.pixel_shuffle(x, 2)), nn.Conv2d(1, C, 1)), "integer"),
    "up, then a stride": (lambda: nn.Sequential(nn.Upsample(scale_factor=2), conv(), nn.AvgPool2d(2)), "integer"),
    "bilinear upsampling": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), "none"),
    "blocks": (lambda: nn.ConvTranspose2d(C, C, 2, 2), "integer"),
    "overlapping blocks": (lambda: nn.ConvTranspose2d(C, C, 3, 2), "none"),
    "functional convolution": (lambda: Do(lambda x, c: F.conv2d(x, c.weight, padding=1), conv()), "none"),
    "positions": (lambda: Do(lambda x: x + torch.arange(12.0).to(x)), "none"),
    "average of a window": (lambda: nn.AvgPool2d(3, 1, 1), "none"),
    "adaptive pooling to a grid": (lambda: nn.AdaptiveAvgPool2d(3), "none"),
    "global maximum": (lambda: Do(lambda x: x.amax((2, 3), keepdim=True)), "integer"),
    "sequence of places": (lambda: Do(lambda x, f: f(x.flatten(2).mT).mT.view(x.shape), nn.Linear(C, C)), "fractional"),
    "strided slice": (lambda: Do(lambda x: x[..., ::2, ::2]), "none"),
    "dense maximum": (lambda: DenseMaxPool2d(2, "circular"), "integer"),
    "ideal low-pass": (lambda: IdealLowpass2d(0.5), "fractional"),
    "ideal downsampling": (lambda: nn.Sequential(AliasFreeDownsample2d(3), conv()), "fractional"),
    "alias-free activation": (AliasFreeActivation, "fractional"),
    "alias-free norm, even side": (lambda: AliasFreeLayerNorm2d(C), "integer"),
    "alias-free norm": (lambda: nn.Sequential(IdealLowpass2d(), AliasFreeLayerNorm2d(C)), "fractional"),
    "half pixels": (lambda: nn.Sequential(AliasFreeDownsample2d(2), AliasFreeActivation("relu")), "integer"),
    "blur without stride": (lambda: BlurPool2d(C, 5, 1, "circular"), "fractional"),
    "one place": (lambda: Do(lambda x: x[:, :, :1, :1]), "none"),
    "shuffled channels": (lambda: Do(lambda x: x.unflatten(1, (2, 2)).transpose(1, 2).flatten(1, 2)), "fractional"),
    "vector of places": (lambda: Do(lambda x: x + x.mean((2, 3)).mean(1)[:, None, None, None]), "fractional"),
}  # fmt: skip


@pytest.mark.parametrize("name", KEEPS)
def test_rule_agrees_with_the_logits(name: str) -> None:
    make, expected = KEEPS[name]
    certificate = certify(net(make()), 12)
    assert certificate.verdict == expected, str(certificate)
    if name in ("ideal downsampling", "half pixels"):
        return  # a map that moves by fractions bears no nonlinearity
    # Behind a nonlinearity the mean over all places no longer hides what a layer does to them.
    certificate = certify(net(make(), conv(), nn.Softplus()), 12)
    assert certificate.verdict == ("none" if expected == "none" else "integer"), str(certificate)
    assert certificate.check.integer_moves == (expected == "none")
    # Few frequencies are left to fold behind a low-pass: little, but more than rounding.
    assert certificate.check.fractional > 1e-12 * certificate.check.scale


@pytest.mark.parametrize("side", [32, 36])
def test_alias_free_networks_follow_fractions_of_a_pixel_at_any_size(side: int) -> None:
    model = augkit.build_model("resnet18", 5, downsample="aliasfree", padding_mode="circular", width=4, seed=0)
    certificate = certify(model, side)
    assert (certificate.verdict, certificate.layer) == ("fractional", None)
    assert certificate.check.fractional < 1e-12 * certificate.check.scale


def test_a_nonlinearity_breaks_a_map_that_moves_by_half_pixels() -> None:
    certificate = certify(net(AliasFreeDownsample2d(), nn.ReLU()), 16)
    assert (certificate.verdict, certificate.layer) == ("none", "2")
    assert "moves by 1/2 pixel" in certificate.reason
    assert certificate.check.integer_moves


def test_odd_sides_have_no_nyquist_frequency_for_a_norm_to_count() -> None:
    assert certify(net(nn.GroupNorm(2, C)), (9, 11)).verdict == "fractional"
    assert certify(net(nn.GroupNorm(2, C)), (9, 12)).verdict == "integer"


# What is refused


def branching(maps: Tensor) -> Tensor:
    return maps if maps.mean() > 0 else -maps


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "control flow": (lambda: Do(branching), "branches"),
    "number of a tensor": (lambda: Do(lambda x: x * x.mean((1, 2, 3))[0].item()), "no rule|batch|one image"),
    "attention": (lambda: Do(_attend, nn.MultiheadAttention(C, 2, batch_first=True)), "no rule"),
    "numpy": (lambda: Do(lambda x: torch.from_numpy(x.numpy())), "no rule"),
    "random": (lambda: Do(lambda x: F.dropout(x, 0.5)), "random"),
    "hook": (lambda: _hooked(nn.ReLU()), "hooks"),
    "other path than the trace": (lambda: Do(lambda x: x if not isinstance(x, Tensor) else x[..., :1]), "another path"),
    "batch statistics": (lambda: nn.BatchNorm2d(C, track_running_stats=False), "batch"),
    "mixed images": (lambda: Do(lambda x: x - x.mean(0, keepdim=True)), "batch"),
    "unknown function": (lambda: Do(lambda x: torch.fft.fft2(x).abs()), "no rule"),
    "gather": (lambda: Do(lambda x: x[:, torch.tensor([1, 0, 3, 2])]), "tensor or a list"),
}  # fmt: skip


def _attend(maps: Tensor, attention: nn.Module) -> Tensor:
    tokens = maps.flatten(2).transpose(1, 2)
    return attention(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, maps.shape[2:])


def _hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda module, args, out: out)
    return module


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_seen_through_is_refused(name: str) -> None:
    make, words = REFUSED[name]
    certificate = certify(net(make()), 8)
    assert certificate.verdict == "refused", str(certificate)
    assert any(word in certificate.reason for word in words.split("|")), certificate.reason
    assert "\n" not in certificate.reason


def test_logits_that_move_are_never_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that is wrong does not get its way."""
    from augkit.invariance.certificate import module_rules

    monkeypatch.setitem(module_rules.MODULES, nn.MaxPool2d, lambda module, call: call.x.state)
    monkeypatch.setattr(
        module_rules.window_rules, "without", lambda x, dims, keepdim=True: x.state.with_axes((None, None))
    )
    certificate = certify(net(nn.MaxPool2d(2)), 16)
    assert certificate.verdict == "refused"
    assert "the logits move under integer ones" in certificate.reason


# Networks at random: the structure never says yes where fresh images say no

MENU: dict[str, Callable[[], nn.Module]] = {
    **{name: make for name, (make, _) in KEEPS.items() if name not in ("layer norm of all", "positions")},
    **{f"conv {k}": (lambda k=k: conv(size=k)) for k in (1, 2, 3)},
    "relu": lambda: nn.ReLU(inplace=True),
    "gelu": nn.GELU,
    "aps": lambda: aps(C),
    "lps": lambda: lps(C),
    "aps 3": lambda: AdaptivePolyphaseSampling(3, odd="allow"),
    "block": lambda: Block(C, C, None),
    "block aps": lambda: Block(C, C, aps),
    "block lps": lambda: Block(C, C, lps),
    "block apart": lambda: Block(C, C, aps, shared=False),
    "zeros": lambda: conv(mode="zeros"),
    "norm": lambda: nn.BatchNorm2d(C),
    "finer relu": lambda: AliasFreeActivation("relu", factor=3),
    "max pool": lambda: nn.MaxPool2d(2),
    "blur pool": lambda: BlurPool2d(C, padding_mode="circular"),
    "nearest": lambda: nn.Upsample(scale_factor=2),
    "in place": lambda: Do(lambda x: x.mul_(2).add_(x.sigmoid())),
    "transposed": lambda: Do(lambda x: x.transpose(2, 3)),
    "residual of a transposed": lambda: Do(lambda x: x + x.transpose(2, 3)),
    "rows": lambda: Do(lambda x: x * x.mean(2, keepdim=True).tanh()),
    "softmax": nn.Softmax2d,
    "norm of channels": lambda: Do(F.normalize),
}  # fmt: skip
HEADS: dict[str, Callable[[], list[nn.Module]]] = {
    "average": head,
    "maximum": lambda: [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(C, 3)],
    "sequence": lambda: [Do(lambda x: x.flatten(2).mean(-1)), nn.Linear(C, 3)],
    "deviation": lambda: [Do(lambda x: x.std((2, 3))), nn.LayerNorm(C), nn.Linear(C, 3)],
    "corner": lambda: [Do(lambda x: x[:, :, 0, 0]), nn.Linear(C, 3)],
}


@settings(max_examples=120, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    names=st.lists(st.sampled_from(sorted(MENU)), min_size=1, max_size=5),
    last=st.sampled_from(sorted(HEADS)),
    size=st.sampled_from([(8, 8), (12, 12), (16, 16), (9, 9), (12, 8), (5, 7)]),
    seed=st.integers(0, 1000),
)
def test_certificates_of_random_networks_hold_on_fresh_images(
    names: list[str], last: str, size: tuple[int, int], seed: int
) -> None:
    torch.manual_seed(seed)
    model = nn.Sequential(conv(3), *(MENU[name]() for name in names), *HEADS[last]())
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None):
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    try:
        certificate = certify(model, size)
    except InputError:
        assume(False)
    event(certificate.verdict)
    assert "a layer hides something" not in certificate.reason, (names, last, size, str(certificate))
    if certificate.verdict in ("integer", "fractional"):
        assert moves(model, size, INTEGER, seed) < 1e-9
    if certificate.verdict == "fractional":
        assert moves(model, size, FRACTIONAL, seed) < 1e-9


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
    assert lines[2].startswith("  mend: ")
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
        (net(), {"input_size": 6, "images": 1}, "images: expected at least 2"),
        (net(), {"input_size": 6, "in_channels": 0}, "in_channels: expected at least 1"),
        (net(), {"input_size": 6, "in_channels": 4}, "4 channels: the network cannot take it"),
    ],
)  # fmt: skip
def test_bad_input_gets_one_line(model: nn.Module, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        certify(model, **arguments)
    assert "\n" not in str(error.value)


def test_model_must_be_a_module() -> None:
    with pytest.raises(InputTypeError, match=r"expected a torch.nn.Module, got function"):
        certify(lambda x: x, 8)  # type: ignore[arg-type, return-value]


def test_certify_is_public() -> None:
    assert augkit.certify is certify
    assert isinstance(augkit.certify(net(), 8), Certificate)
