"""The rules of a certificate, one layer at a time: they agree with the logits, and unknown layers are refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from certified import Block, C, Do, aps, conv, head, lps, net
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
)
from augkit.core.errors import InputError
from augkit.invariance import certify
from augkit.invariance.certificate import module_rules


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
    "attention, batch second": (lambda: Do(_attend, nn.MultiheadAttention(C, 2)), "second dimension"),
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
def test_networks_that_cannot_be_traced_are_refused(name: str) -> None:
    make, words = REFUSED[name]
    certificate = certify(net(make()), 8)
    assert certificate.verdict == "refused", str(certificate)
    assert any(word in certificate.reason for word in words.split("|")), certificate.reason
    assert "\n" not in certificate.reason


def test_logits_that_move_are_never_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong rule is detected by the check on logits."""

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
    "attention": lambda: Do(_attend, nn.MultiheadAttention(C, 2, batch_first=True)),
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


@pytest.mark.parametrize("name", module_rules.AUGKIT)
def test_every_layer_of_ours_that_has_a_rule_is_where_the_rule_looks_for_it(name: str) -> None:
    module, _, kind = name.rpartition(".")
    assert issubclass(getattr(importlib.import_module(module), kind), nn.Module)
