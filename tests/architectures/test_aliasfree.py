"""Alias-free layers: against sums of waves, and their commuting with shifts by fractions of a pixel."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import augkit
from augkit import fourier_shift, resample
from augkit.architectures import (
    AliasFreeActivation,
    AliasFreeDownsample2d,
    AliasFreeLayerNorm2d,
    ConvNeXt,
    IdealLowpass2d,
    Style,
    aliasfree,
)
from augkit.core.errors import InputError

SHIFTS = [(1.0, 0.0), (3.0, -5.0), (0.5, -0.5), (1 / 3, 2 / 3)]
sides = st.integers(1, 20)
LAYERS = {
    "lowpass": IdealLowpass2d(0.7),
    "downsample": AliasFreeDownsample2d(2),
    "polynomial": AliasFreeActivation(),
    "learned": AliasFreeActivation(channels=3),
    "gelu": AliasFreeActivation("gelu"),
    "norm": AliasFreeLayerNorm2d(3),
}


def samples(function: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Sample a function with given Fourier coefficients (-K..K along both axes) on a grid of ``size``: slowly."""
    K, L = (n // 2 for n in function.shape)
    y, x = np.arange(size[0]) / size[0], np.arange(size[1]) / size[1]
    out = np.zeros(size, dtype=complex)
    for k in range(-K, K + 1):
        for m in range(-L, L + 1):
            out += function[k + K, m + L].item() * np.exp(2j * np.pi * (k * y[:, None] + m * x))
    return out


def coefficients(maps: np.ndarray, bins: tuple[int, int]) -> Tensor:
    """Fourier coefficients -bins..bins of maps, by the definition."""
    H, W = maps.shape
    y, x = np.arange(H) / H, np.arange(W) / W
    out = np.zeros((2 * bins[0] + 1, 2 * bins[1] + 1), dtype=complex)
    for k in range(-bins[0], bins[0] + 1):
        for m in range(-bins[1], bins[1] + 1):
            out[k + bins[0], m + bins[1]] = (maps * np.exp(-2j * np.pi * (k * y[:, None] + m * x))).mean()
    return torch.from_numpy(out)


@pytest.mark.parametrize(
    ("before", "after"), [((6, 7), (6, 7)), ((8, 9), (4, 5)), ((5, 4), (12, 10)), ((3, 2), (1, 1))]
)
def test_band_limited_is_the_sum_of_waves(before: tuple[int, int], after: tuple[int, int]) -> None:
    maps = torch.randn(1, 1, *before, dtype=torch.float64)
    bins = tuple((min(a, b) - 1) // 2 for a, b in zip(before, after, strict=True))
    expected = samples(coefficients(maps[0, 0].numpy(), bins), after)  # type: ignore[arg-type]
    assert np.abs(expected.imag).max() < 1e-12
    np.testing.assert_allclose(aliasfree.band_limited(maps, after, bins)[0, 0].numpy(), expected.real, atol=1e-12)  # type: ignore[arg-type]


@settings(max_examples=30, deadline=None)
@given(height=sides, width=sides, factor=st.sampled_from([0.5, 1.0, 1.5, 2.0]))
def test_both_ways_to_compute_it_agree(height: int, width: int, factor: float) -> None:
    maps = torch.randn(2, 3, height, width, dtype=torch.float64)
    size = tuple(max(1, round(factor * side)) for side in (height, width))
    bins = tuple((min(a, b) - 1) // 2 for a, b in zip((height, width), size, strict=True))
    by_matrix, by_fft = (way(maps, size, bins) for way in (aliasfree._by_matrices, aliasfree._by_fft))  # type: ignore[arg-type]
    torch.testing.assert_close(by_matrix, by_fft, atol=1e-12, rtol=0)


@settings(max_examples=30, deadline=None)
@given(height=sides, width=sides, name=st.sampled_from(["lowpass", "polynomial", "learned", "norm"]))
def test_layers_commute_with_fractional_shifts_at_any_size(height: int, width: int, name: str) -> None:
    maps = IdealLowpass2d()(torch.randn(2, 3, height, width, dtype=torch.float64))
    layer = copy.deepcopy(LAYERS[name]).double()
    for shift in SHIFTS:
        move = torch.tensor(shift, dtype=torch.float64)
        torch.testing.assert_close(
            layer(fourier_shift(maps, move)), fourier_shift(layer(maps), move), atol=1e-12, rtol=0
        )


@pytest.mark.parametrize("size", [(8, 12), (9, 12), (7, 10)])
def test_downsampling_commutes_with_fractional_shifts_at_any_size(size: tuple[int, int]) -> None:
    maps = torch.randn(2, 3, *size, dtype=torch.float64)
    out = AliasFreeDownsample2d(2)(maps)
    rate = torch.tensor([out.shape[-1] / size[1], out.shape[-2] / size[0]], dtype=torch.float64)
    for shift in SHIFTS:
        move = torch.tensor(shift, dtype=torch.float64)
        moved = AliasFreeDownsample2d(2)(fourier_shift(maps, move))
        torch.testing.assert_close(moved, fourier_shift(out, move * rate), atol=1e-12, rtol=0)


def test_downsampling_is_the_low_pass_then_every_second_pixel() -> None:
    maps = torch.randn(2, 3, 12, 20, dtype=torch.float64)
    expected = IdealLowpass2d(0.5)(maps)[..., ::2, ::2]
    torch.testing.assert_close(AliasFreeDownsample2d(2)(maps), expected, atol=1e-12, rtol=0)


def test_the_low_pass_keeps_lower_frequencies_and_removes_the_others() -> None:
    place = torch.arange(12, dtype=torch.float64)
    waves = torch.stack([torch.cos(2 * torch.pi * k * place / 12 + 0.3) for k in range(7)])[None, :, None, :]
    kept = IdealLowpass2d(0.5)(waves.expand(1, 7, 12, 12))
    torch.testing.assert_close(kept[:, :3], waves[:, :3].expand(1, 3, 12, 12), atol=1e-12, rtol=0)
    assert kept[:, 3:].abs().max() < 1e-12, "3 cycles in 12 pixels are the cutoff, 6 the Nyquist frequency"
    assert IdealLowpass2d(1.0)(waves.expand(1, 7, 12, 12))[:, 6].abs().max() < 1e-12
    odd = torch.randn(1, 1, 9, 7, dtype=torch.float64)
    torch.testing.assert_close(IdealLowpass2d(1.0)(odd), odd, atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(8, 12), (9, 6)])
def test_the_polynomial_acts_on_the_continuous_function(size: tuple[int, int]) -> None:
    maps = IdealLowpass2d()(torch.randn(1, 1, *size, dtype=torch.float64))
    bins = tuple((side - 1) // 2 for side in size)
    fine = samples(coefficients(maps[0, 0].numpy(), bins), (64, 64)).real  # type: ignore[arg-type]
    acted = aliasfree.quadratic(torch.from_numpy(fine)).numpy()
    expected = samples(coefficients(acted, bins), size).real  # type: ignore[arg-type]
    np.testing.assert_allclose(AliasFreeActivation()(maps)[0, 0].numpy(), expected, atol=1e-12)


def test_the_quadratic_is_the_nearest_to_gelu_under_the_normal_law() -> None:
    x = torch.linspace(-9, 9, 20001, dtype=torch.float64)
    root = torch.exp(-x * x / 4)
    design = torch.stack([torch.ones_like(x), x, x * x], 1) * root[:, None]
    fitted = torch.linalg.lstsq(design, (F.gelu(x) * root)[:, None]).solution[:, 0]
    torch.testing.assert_close(torch.tensor(aliasfree.GELU_QUADRATIC, dtype=torch.float64), fitted, atol=1e-6, rtol=0)


def test_finer_grids_bring_gelu_nearer_to_the_guarantee() -> None:
    maps = IdealLowpass2d(0.5)(torch.randn(2, 3, 16, 16, dtype=torch.float64))
    third, half = torch.tensor([1 / 3, 1 / 5], dtype=torch.float64), torch.tensor([0.5, 0.5], dtype=torch.float64)
    errors = []
    for factor in (1, 2, 3):
        layer = AliasFreeActivation("gelu", factor=factor)
        errors.append((layer(fourier_shift(maps, third)) - fourier_shift(layer(maps), third)).abs().max().item())
    assert errors[0] > 1e3 * errors[1] > 1e6 * errors[2]
    assert errors[1] > 1e-7
    # Half a pixel is one pixel of the grid twice as fine.
    layer = AliasFreeActivation("gelu", factor=2)
    torch.testing.assert_close(layer(fourier_shift(maps, half)), fourier_shift(layer(maps), half), atol=1e-12, rtol=0)


def test_the_norm_of_each_pixel_aliases() -> None:
    maps = IdealLowpass2d()(torch.randn(2, 3, 16, 16, dtype=torch.float64))
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    layer = augkit.architectures.LayerNorm2d(3).double()
    assert (layer(fourier_shift(maps, half)) - fourier_shift(layer(maps), half)).abs().max() > 0.1


def test_the_norm_divides_a_sample_by_one_number() -> None:
    maps = 3 + 5 * torch.randn(4, 6, 5, 7)
    out = AliasFreeLayerNorm2d(6)(maps)
    assert out.mean(1).abs().max() < 1e-5
    torch.testing.assert_close(out.square().mean((1, 2, 3)), torch.ones(4), atol=1e-4, rtol=0)
    ratio = (maps - maps.mean(1, keepdim=True)) / out
    assert (ratio.flatten(1).std(1) < 1e-2).all()


@pytest.mark.parametrize("name", LAYERS)
def test_layouts_halves_batches_pickles(name: str) -> None:
    layer, maps = LAYERS[name], torch.rand(3, 3, 9, 12)
    out = layer(maps)
    torch.testing.assert_close(layer(maps.contiguous(memory_format=torch.channels_last)), out)
    torch.testing.assert_close(torch.cat([layer(each[None]) for each in maps]), out, atol=1e-5, rtol=1e-5)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(maps), out)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(maps), out), "float32 under autocast"
        half = layer(maps.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), out, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    maps = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    layer = copy.deepcopy(LAYERS[name]).double()
    assert torch.autograd.gradcheck(layer, maps)
    layer(maps).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters() if parameter.grad is not None)


def test_layers_used_in_inference_mode_can_train_afterwards() -> None:
    maps = torch.rand(1, 2, 11, 11)
    with torch.inference_mode():
        AliasFreeActivation()(maps)
    maps.requires_grad_()
    AliasFreeActivation()(maps).sum().backward()


@pytest.mark.integration
@pytest.mark.parametrize("side", [8, pytest.param(2 * aliasfree.LONGEST_MATRIX, marks=pytest.mark.slow)])
def test_layers_compile_as_one_graph(side: int) -> None:
    layer = nn.Sequential(AliasFreeLayerNorm2d(2), AliasFreeActivation(), AliasFreeDownsample2d())
    maps = torch.rand(1, 2, side, 6, requires_grad=True)
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(maps)
    torch.testing.assert_close(out, layer(maps))
    out.sum().backward()


@pytest.mark.gpu
@pytest.mark.parametrize("name", LAYERS)
def test_cuda_agrees_with_the_cpu(name: str) -> None:
    maps = torch.rand(2, 3, 9, 12)
    out = copy.deepcopy(LAYERS[name]).cuda()(maps.cuda()).cpu()
    torch.testing.assert_close(out, LAYERS[name](maps), atol=1e-5, rtol=1e-5)


def test_lower_precision_of_products_does_not_reach_the_layers() -> None:
    maps = torch.rand(1, 2, 16, 16)
    expected = AliasFreeActivation()(maps)
    torch.set_float32_matmul_precision("medium")
    try:
        torch.testing.assert_close(AliasFreeActivation()(maps), expected, atol=1e-5, rtol=0)
    finally:
        torch.set_float32_matmul_precision("highest")


NETWORKS = {
    "resnet18": lambda **style: augkit.build_model("resnet18", 5, width=8, seed=0, downsample="aliasfree", **style),
    "convnext": lambda **style: augkit.build_model("convnext_aliasfree", 5, width=8, seed=0, **style),
}


def moved(model: nn.Module, images: Tensor) -> float:
    """The largest change of a logit under shifts on the torus."""
    with torch.no_grad():
        logits = model.eval()(images)
        turned = [model(fourier_shift(images, torch.tensor(shift, dtype=torch.float64))) for shift in SHIFTS]
    return max((other - logits).abs().max().item() for other in turned)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("side", "dtype", "bound"), [(64, torch.float32, 1e-5), (64, torch.float64, 1e-11)])
def test_networks_are_invariant_to_fractional_shifts(name: str, side: int, dtype: torch.dtype, bound: float) -> None:
    images = torch.rand(2, 3, side, side, dtype=dtype)
    assert moved(NETWORKS[name](padding_mode="circular").to(dtype), images) < bound


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_large_networks_are_invariant_to_fractional_shifts(name: str, dtype: torch.dtype, bound: float) -> None:
    images = torch.rand(2, 3, 128, 128, dtype=dtype)
    assert moved(NETWORKS[name](padding_mode="circular").to(dtype), images) < bound


def test_odd_sides_are_no_obstacle() -> None:
    images = torch.rand(2, 3, 35, 42, dtype=torch.float64)
    assert moved(NETWORKS["resnet18"](padding_mode="circular").double(), images) < 1e-11


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("broken", "least"),
    [
        ({"padding_mode": "zeros"}, 1e-3),
        ({"activation": "gelu", "padding_mode": "circular"}, 1e-4),
        ({"activation": "quadratic", "padding_mode": "circular"}, 1e-5),
        ({"activation": "aliasfree_gelu", "padding_mode": "circular"}, 1e-6),
    ],
)
def test_each_piece_is_needed(name: str, broken: dict[str, str], least: float) -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    assert moved(NETWORKS[name](**broken).double(), images) > least


def test_norm_and_downsampling_are_needed_in_convnext() -> None:
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    exact = Style("aliasfree", "circular")
    for style, norm in ((exact, "layer"), (Style("stride", "circular", "aliasfree"), "aliasfree")):
        torch.manual_seed(0)
        assert moved(ConvNeXt(5, style=style, width=8, norm=norm).double(), images) > 1e-4
    torch.manual_seed(0)
    assert moved(ConvNeXt(5, style=exact, width=8, norm="aliasfree").double(), images) < 1e-11


@pytest.mark.parametrize("name", NETWORKS)
def test_bilinear_shifts_move_them(name: str) -> None:
    images = torch.rand(2, 3, 32, 32)
    model = NETWORKS[name](padding_mode="circular").eval()
    matrix = torch.eye(3).repeat(2, 1, 1)
    matrix[:, 0, 2] = 0.5
    blurred = resample(images, matrix, kernel="bilinear", padding="circular")
    with torch.no_grad():
        assert (model(blurred) - model(images)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: IdealLowpass2d(0.0), "0 < cutoff <= 1"),
        (lambda: AliasFreeDownsample2d(0), "stride: expected a whole number of 1 or more"),
        (lambda: AliasFreeActivation("polynomail"), "did you mean 'polynomial'"),
        (lambda: AliasFreeActivation("gelu", channels=3), "with form 'polynomial' only"),
        (lambda: AliasFreeActivation("gelu", factor=0), "factor: expected a whole number of 1 or more"),
        (lambda: ConvNeXt(5, norm="aliasfre"), "did you mean 'aliasfree'"),
        (lambda: ConvNeXt(5, stem="smal"), "did you mean 'small'"),
        (lambda: ConvNeXt(5, style=Style(padding_mode="full")), "a network without shortcuts"),
    ],
)
def test_bad_layers_get_one_line(make: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()  # type: ignore[operator]
