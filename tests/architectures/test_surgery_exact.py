"""Surgery on networks: what is exact on the torus, and what single layers compute afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operated import build, calibrated, movement
from torch import Tensor, nn

import augkit
from augkit.architectures import (
    AdaptivePolyphaseSampling,
    AntialiasedLayer,
    LearnablePolyphaseSampling,
    antialias,
    surgery_report,
)
from augkit.architectures.strided import Blur2d
from augkit.core.errors import InputError, OddMapWarning

# Families that end in a global average and whose circular form is a torus all the way, with a size that divides.
TORUS = {
    "torchvision:resnet18": 64,
    "torchvision:resnet50": 64,
    "torchvision:densenet121": 64,
    "torchvision:regnet_y_400mf": 64,
    "torchvision:shufflenet_v2_x0_5": 64,
    "torchvision:googlenet": 64,
    "torchvision:mobilenet_v3_small": 96,
    "torchvision:convnext_tiny": 96,
    "timm:hrnet_w18_small": 64,
    "timm:resnetv2_50x1_bit": 64,
    "timm:tf_mobilenetv3_small_minimal_100": 96,
    "timm:dm_nfnet_f0": 64,
    "timm:res2net50_14w_8s": 64,
    "timm:dla34": 64,
}
# A list, not a set: processes that share the tests must agree on their order.
QUICK_TORUS = ["torchvision:shufflenet_v2_x0_5", "timm:hrnet_w18_small", "timm:tf_mobilenetv3_small_minimal_100"]


# --- exactness --------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("method", ["aps", "lps"])
@pytest.mark.parametrize(
    ("size", "dtype", "limit"), [(64, torch.float32, 1e-5), (64, torch.float64, 1e-12), (96, torch.float32, 1e-5)]
)
def test_resnet18_is_exactly_invariant_on_the_torus(method: str, size: int, dtype: torch.dtype, limit: float) -> None:
    model = antialias(build("torchvision:resnet18"), method, "circular").to(dtype)
    images = torch.randn(2, 3, size, size, dtype=dtype)
    assert movement(calibrated(model, images), images, [(1, 0), (0, 1), (17, -7)]) < limit


@pytest.mark.slow
@pytest.mark.parametrize("method", ["aps", "lps"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("size", [64, 96, 128])
def test_resnet50_is_exactly_invariant_on_the_torus(method: str, dtype: torch.dtype, limit: float, size: int) -> None:
    model = antialias(build("torchvision:resnet50"), method, "circular").to(dtype)
    images = torch.randn(2, 3, size, size, dtype=dtype)
    assert movement(calibrated(model, images), images, [(1, 0), (0, 1), (17, -7)]) < limit


@pytest.mark.parametrize(
    "name", [*QUICK_TORUS, *(pytest.param(n, marks=pytest.mark.slow) for n in sorted(TORUS.keys() - set(QUICK_TORUS)))]
)
def test_branches_keep_one_phase_in_every_family(name: str) -> None:
    model = antialias(build(name), "aps", "circular", inplace=True).double()
    images = torch.randn(2, 3, TORUS[name], TORUS[name], dtype=torch.float64)
    assert movement(calibrated(model, images), images, [(1, 0), (3, 5)]) < 1e-11
    assert surgery_report(model).unpadded == ()


def test_the_logits_move_without_any_of_the_exact_parts() -> None:
    images = torch.randn(4, 3, 72, 72)
    original, shifts = build("torchvision:resnet18"), [(1, 0), (3, 5)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        odd = calibrated(antialias(original, "aps", "circular"), images)
    assert all(warning.category is OddMapWarning for warning in caught)
    assert any("9 x 9" in str(warning.message) for warning in caught)
    assert movement(odd, images, shifts) > 1e-2, "a map of 9 x 9 does not halve"
    images = images[..., :64, :64]
    zeros = calibrated(antialias(original, "aps"), images)
    assert movement(zeros, images, shifts) > 1e-3, "padding with zeros"
    blurred = calibrated(antialias(original, "blurpool", "circular"), images)
    assert movement(blurred, images, shifts) > 1e-2, "a blur is no low-pass"
    assert movement(blurred, images, [(32, 32)]) < 1e-5, "but the total stride is a shift of the last map"
    alone = calibrated(antialias(original, "aps", "circular"), images)
    for layer in alone.modules():
        if isinstance(layer, AntialiasedLayer):
            layer.decides = True
    assert movement(alone, images, shifts) > 1e-3, "branches that choose for themselves"


def test_odd_maps_raise_or_pass_as_asked() -> None:
    model, images = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1)), torch.rand(1, 1, 9, 9)
    with pytest.raises(InputError, match="multiples of the stride 2, got 9 x 9"):
        antialias(model, "aps", "circular", odd="raise")(images)
    assert antialias(model, "aps", "circular", odd="allow")(images).shape == (1, 2, 5, 5)
    assert antialias(model, "aps", odd="raise")(images).shape == (1, 2, 5, 5), "without a torus nothing is promised"


@pytest.mark.parametrize("shift", [(0, 1), (1, 0), (3, 2)])
def test_maps_follow_shifts_by_less_than_the_stride(shift: tuple[int, int]) -> None:
    """The outputs of two branches of stride 4, added, are the same up to a roll of the coarse map."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.short = nn.Conv2d(2, 4, 5, 4, 2), nn.Conv2d(2, 4, 1, 4)

        def forward(self, maps: Tensor) -> Tensor:
            return self.main(maps) + self.short(maps)

    model = antialias(Branches().double(), "aps", "circular")
    maps = torch.randn(3, 2, 16, 24, dtype=torch.float64)
    out, shifted = model(maps), model(maps.roll(shift, (-2, -1)))
    for one, other in zip(out, shifted, strict=True):
        rolled = [other.roll((i, j), (-2, -1)) for i in range(4) for j in range(6)]
        assert min((one - candidate).abs().max() for candidate in rolled) < 1e-12


# --- single layers ----------------------------------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn) -> Callable[[], nn.Module]:
    kind = draw(st.sampled_from(["conv", "max", "avg"]))
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    stride = draw(st.integers(2, 4))
    if kind == "conv":
        padding, dilation = (draw(st.integers(0, 3)), draw(st.integers(0, 3))), draw(st.integers(1, 2))
        mode = draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
        return lambda: nn.Conv2d(3, 4, kernel, stride, padding, dilation, padding_mode=mode)
    padding, ceil = (draw(st.integers(0, kernel[0] // 2)), draw(st.integers(0, kernel[1] // 2))), draw(st.booleans())
    if kind == "max":
        return lambda: nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil)
    counted = draw(st.booleans())
    return lambda: nn.AvgPool2d(kernel, stride, padding, ceil_mode=ceil, count_include_pad=counted)


@settings(max_examples=150, deadline=None)
@given(layer=layers(), height=st.integers(9, 16), width=st.integers(9, 16))
def test_any_layer_at_the_first_phase_is_itself(layer: Callable[[], nn.Module], height: int, width: int) -> None:
    maps, model = torch.randn(2, 3, height, width, dtype=torch.float64), nn.Sequential(layer().double())
    expected = model(maps)
    model = antialias(model, "aps", odd="allow", input_size=(3, height, width))
    layer_, choose = model[0], AdaptivePolyphaseSampling.choose
    layer_.sampler.choose = lambda maps: torch.zeros(len(maps)).long()
    torch.testing.assert_close(model(maps), expected, rtol=0, atol=1e-12)
    assert choose is AdaptivePolyphaseSampling.choose


@pytest.mark.parametrize("phase", range(4))
@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 3, 3, 2, 1),
        nn.Conv2d(2, 3, 2, 2),
        nn.Conv2d(2, 4, 5, 2, 2, groups=2),
        nn.Conv2d(2, 3, 1, 2),
        nn.MaxPool2d(3, 2, 1),
        nn.MaxPool2d(2, 2),
        nn.AvgPool2d(2, 2),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    ],
    ids=str,
)
def test_on_the_torus_a_phase_is_a_shift_of_the_input(
    layer: nn.Module, phase: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, k = torch.randn(2, 2, 8, 10), 2
    changed = antialias(nn.Sequential(layer), "aps", "circular")
    monkeypatch.setattr(AdaptivePolyphaseSampling, "choose", lambda self, maps: torch.full((len(maps),), phase))
    tiled = maps.roll((-(phase // 2), -(phase % 2)), (-2, -1)).repeat(1, 1, 3, 3)  # borders are far from the middle
    middle = layer(tiled)[..., 4 : 4 + 4, 5 : 5 + 5]
    torch.testing.assert_close(changed(maps), middle, msg=f"{k}")


def test_a_blurred_convolution_is_the_dense_one_blurred_and_subsampled() -> None:
    """On the torus, Zhang's order and the cheap one differ only in the position of the activation."""
    conv = nn.Conv2d(3, 5, 3, 2, 1, padding_mode="circular").double()
    maps = torch.randn(2, 3, 12, 16, dtype=torch.float64)
    dense = torch.nn.functional.conv2d(
        torch.nn.functional.pad(maps, (1, 1, 1, 1), mode="circular"), conv.weight, conv.bias
    )
    expected = augkit.architectures.BlurPool2d(5, size=5, padding_mode="circular").double()(dense)
    changed = antialias(nn.Sequential(conv), "blurpool", size=5)
    torch.testing.assert_close(changed(maps), expected)


def test_a_constant_image_keeps_its_features_away_from_the_border() -> None:
    model = build("torchvision:resnet18")
    trunk = nn.Sequential(model.conv1, model.bn1, model.relu, model.maxpool, model.layer1, model.layer2)
    changed = antialias(trunk, "blurpool", "zeros")
    assert len(surgery_report(changed).changed) == 4
    images = torch.tensor([0.2, 0.5, 0.7]).view(1, 3, 1, 1).expand(1, 3, 224, 224)
    expected, got = trunk(images)[..., 12:16, 12:16], changed(images)[..., 12:16, 12:16]
    torch.testing.assert_close(got, expected)
    assert not torch.allclose(trunk(images)[..., :2, :2], changed(images)[..., :2, :2])


def test_the_blur_widens_with_the_stride() -> None:
    blur = Blur2d(4, (4, 2), (4, 2), "circular").double()
    assert (len(blur.taps_y), len(blur.taps_x)) == (13, 4)
    torch.testing.assert_close(blur.taps_x, torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8)
    maps = torch.zeros(1, 1, 32, 16, dtype=torch.float64)
    maps[..., 16, 8] = 1
    dense = torch.nn.functional.conv2d(
        maps.repeat(1, 1, 3, 3), (blur.taps_y[:, None] * blur.taps_x).view(1, 1, 13, 4)
    )  # row i, column j look at rows i to i + 12
    middle = dense[..., 32 - 6 : 64 - 6 : 4, 16 - 1 : 32 - 1 : 2]
    torch.testing.assert_close(blur(maps), middle)
    for side in range(1, 8):
        assert Blur2d(4, (4, 2), (4, 2), "reflect")(torch.ones(1, 2, side, side)).eq(1).all(), "maps of any size"


def test_learnable_sampling_learns_and_shares_soft_weights() -> None:
    model = antialias(build("torchvision:resnet18"), "lps", "circular")
    model.train()(torch.rand(4, 3, 64, 64)).pow(2).sum().backward()
    samplers = [module for module in model.modules() if isinstance(module, LearnablePolyphaseSampling)]
    assert len(samplers) == 5, "one for each grid; shortcuts follow"
    assert all(sampler.score.weight.grad.abs().max() > 0 for sampler in samplers)
    assert all(sampler.training for sampler in samplers)
