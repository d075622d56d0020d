"""Harmonic layers and network are equivariant to rotation: exactly for 90 degrees, approximately for other angles."""

from __future__ import annotations

import importlib.util
import math
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from augkit.architectures import HarmonicConv2d, HarmonicNet, MagnitudeBatchNorm2d, MagnitudeReLU, magnitude
from augkit.architectures.build import build_model, initialize
from augkit.architectures.harmonic import CenteredBlurPool2d, Streams, harmonic_rings
from augkit.core.errors import InputError

FILE = Path(__file__).parent.parent.parent / "benchmarks" / "harmonic.py"
STREAMS = {0: 3, 1: 2, 2: 2}
TOLERANCE = {torch.float32: 3e-5, torch.float64: 1e-13}  # of the largest value
DTYPES = list(TOLERANCE)


def load_benchmark():
    spec = importlib.util.spec_from_file_location("harmonic_benchmark", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


benchmark = load_benchmark()


def turned(maps: Tensor, streams: Streams, quarters: int) -> Tensor:
    """Maps of an image turned by ``quarters`` times 90 degrees: turned themselves, each by the phase of its order."""
    real, imaginary = maps.rot90(quarters, (-2, -1)).chunk(2, dim=1)
    orders = torch.tensor([order for order, channels in sorted(streams.items()) for _ in range(channels)])
    cos, sin = (torch.tensor(cycle)[orders * quarters % 4][:, None, None] for cycle in ([1, 0, -1, 0], [0, 1, 0, -1]))
    return torch.cat([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=1)


def difference(first: Tensor, second: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    first, second = first.detach(), second.detach()
    return float((first - second).abs().max() / second.abs().max())


def random_maps(streams: Streams, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 2 * sum(streams.values()), height, width, dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding_mode", ["zeros", "circular", "reflect"])
@pytest.mark.parametrize("shape", [(12, 12), (13, 13), (9, 14)])
@pytest.mark.parametrize("size", [5, 7, 9])
def test_convolution_turns_with_its_maps(
    size: int, shape: tuple[int, int], padding_mode: str, dtype: torch.dtype
) -> None:
    conv = HarmonicConv2d(STREAMS, {0: 2, 1: 3, 2: 1}, size, padding_mode).to(dtype)
    maps = random_maps(STREAMS, *shape, dtype=dtype)
    for quarters in (1, 2, 3):
        out = conv(turned(maps, STREAMS, quarters))
        assert difference(out, turned(conv(maps), conv.outputs, quarters)) < TOLERANCE[dtype]
    assert difference(out, conv(maps.rot90(quarters, (-2, -1))) if shape[0] != shape[1] else conv(maps)) > 0.1


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("side", [12, 13])
def test_magnitude_layers_and_pooling_turn_with_their_maps(side: int, dtype: torch.dtype) -> None:
    channels = sum(STREAMS.values())
    relu = MagnitudeReLU(channels).to(dtype)
    nn.init.uniform_(relu.bias, -1, 1)
    maps = random_maps(STREAMS, side, side, dtype)
    layers = [relu, MagnitudeBatchNorm2d(channels).to(dtype)]
    for layer in [*layers, *(CenteredBlurPool2d(mode).to(dtype) for mode in ("zeros", "circular", "reflect"))]:
        for quarters in (1, 2, 3):
            out = layer(turned(maps, STREAMS, quarters))
            assert difference(out, turned(layer(maps), STREAMS, quarters)) < TOLERANCE[dtype]


def test_max_pooling_does_not_turn_with_its_maps() -> None:
    maps = random_maps(STREAMS, 12, 12)
    pool = nn.MaxPool2d(2)
    assert difference(pool(turned(maps, STREAMS, 1)), turned(pool(maps), STREAMS, 1)) > 0.5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
@pytest.mark.parametrize("shape", [(28, 28), (33, 33), (20, 27)])
def test_logits_are_invariant_to_quarter_turns(shape: tuple[int, int], padding_mode: str, dtype: torch.dtype) -> None:
    net = HarmonicNet(5, 2, padding_mode, width=3, max_order=2).to(dtype)
    images = nn.functional.interpolate(torch.randn(4, 2, 6, 6, dtype=dtype), shape, mode="bicubic")
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the statistics are those of the images
    for training in (True, False):
        net.train(training)
        logits, maps = net(images), net.features(images)
        for quarters in (1, 2, 3):
            assert difference(net(images.rot90(quarters, (-2, -1))), logits) < TOLERANCE[dtype]
            expected = turned(maps, {0: 12, 1: 12, 2: 12}, quarters)
            assert difference(net.features(images.rot90(quarters, (-2, -1))), expected) < TOLERANCE[dtype]
    assert logits.std(dim=0).min() > 1e-2, "a constant would be invariant too"
    assert difference(net(images.flip(-1)), logits) > 1e-2, "a mirror image is another image"


@pytest.mark.parametrize("m", [0, 1, 2])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_convolution_turns_by_any_angle_on_images_without_fine_detail(m: int, n: int) -> None:
    least = {5: {0: 55, 1: 45, 2: 40}, 7: {0: 55, 1: 50, 2: 45}, 9: {0: 55, 1: 50, 2: 45}}
    for size, decibels in least.items():
        assert benchmark.layer_decibels(m, n, size, seed=9, patches=50) > decibels[abs(n - m)]


def test_network_is_nearly_invariant_to_any_angle() -> None:
    assert benchmark.network_decibels(size=9, seed=0, count=8, turns=3) > 28


@pytest.mark.parametrize(("m", "n"), [(0, 0), (0, 1), (1, 0), (2, 1), (0, 2), (2, 0)])
def test_filters_agree_with_their_formula(m: int, n: int) -> None:
    conv = HarmonicConv2d({m: 2}, {n: 3}, size=7)
    real, imaginary = conv.filters().detach().double().unbind(0)
    profile, phase = conv.radial[f"{m}_to_{n}"].detach().numpy(), conv.phase.detach().numpy()
    expected = np.zeros((3, 2, 7, 7), dtype=complex)
    for j, radius in enumerate(range(int(n != m), 3)):
        # A Gaussian blob at every degree of the circle, each with the phase of its place.
        ring = np.zeros((7, 7), dtype=complex)
        for degree in range(360):
            angle = math.radians(degree)
            for row, column in np.ndindex(7, 7):
                x, y = column - 3 - radius * math.cos(angle), 3 - row - radius * math.sin(angle)
                blob = math.exp(-(x * x + y * y) / (2 * 0.6**2))
                ring[row, column] += blob * np.exp(1j * (n - m) * angle)
        expected += profile[:, :, j, None, None] * ring / np.linalg.norm(ring)
    expected *= np.exp(1j * phase)[:, :, None, None]
    np.testing.assert_allclose(real + 1j * imaginary, expected, atol=1e-6)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_rings_turn_bit_for_bit_and_are_independent(order: int) -> None:
    rings = harmonic_rings(order, 9)
    real, imaginary = rings.rot90(1, (-2, -1)).unbind(1)
    turn = {0: (real, imaginary), 1: (-imaginary, real), 2: (-real, -imaginary)}[order]
    # Turning a filter by 90 degrees is the same as dividing it by exp(i k 90 degrees).
    assert torch.equal(torch.stack(turn, dim=1), rings)
    flat = rings.flatten(1)
    torch.testing.assert_close((flat * flat).sum(1), torch.ones(len(flat), dtype=torch.float64))
    assert torch.linalg.eigvalsh(flat @ flat.T).min() > 0.1


def test_convolution_agrees_with_complex_arithmetic() -> None:
    conv = HarmonicConv2d(STREAMS, {0: 2, 2: 2}, size=5).double()
    maps = random_maps(STREAMS, 6, 7, torch.float64)
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)))
    padded = padded[:, :7] + 1j * padded[:, 7:]
    real, imaginary = conv.filters().detach().numpy()
    out = conv(maps).detach().numpy()
    for i, j in np.ndindex(6, 7):
        patch = padded[:, None, :, i : i + 5, j : j + 5]
        expected = (patch * (real + 1j * imaginary)).sum((-3, -2, -1))
        np.testing.assert_allclose(out[:, :4, i, j] + 1j * out[:, 4:, i, j], expected, atol=1e-12)


def test_images_may_leave_out_their_imaginary_half() -> None:
    conv = HarmonicConv2d({0: 3}, STREAMS, size=5)
    images = torch.rand(2, 3, 9, 9)
    torch.testing.assert_close(conv(images), conv(torch.cat([images, torch.zeros_like(images)], dim=1)))


@given(st.floats(-math.pi, math.pi), st.floats(-2, 2), st.floats(0.2, 5))
@settings(max_examples=50, deadline=None)
def test_magnitude_relu_keeps_the_phase(phase: float, bias: float, size: float) -> None:
    layer = MagnitudeReLU(1).double()
    nn.init.constant_(layer.bias, bias)
    number = size * np.exp(1j * phase)
    out = layer(torch.tensor([number.real, number.imag]).view(1, 2, 1, 1)).detach().flatten().numpy()
    expected = max(0, size + bias) * np.exp(1j * phase)
    assert abs(out[0] + 1j * out[1] - expected) < 2e-3 * (1 + abs(bias))  # softened near 0


def test_batch_norm_normalizes_magnitudes() -> None:
    layer = MagnitudeBatchNorm2d(3).double()
    nn.init.constant_(layer.norm.bias, 10)  # so that the ReLU cuts nothing
    maps = 3 * random_maps({0: 3}, 9, 9, torch.float64) + 1
    sizes = magnitude(layer(maps))
    torch.testing.assert_close(sizes.mean((0, 2, 3)), torch.full((3,), 10.0, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(sizes.std((0, 2, 3)), torch.ones(3, dtype=torch.float64), atol=1e-2, rtol=0)


@pytest.mark.parametrize("layer", [MagnitudeReLU(2), MagnitudeBatchNorm2d(2)])
def test_gradients_are_finite_where_a_map_is_zero(layer: nn.Module) -> None:
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, 0.5 if name.endswith("bias") else 1.0)
    maps = torch.zeros(2, 4, 5, 5, requires_grad=True)
    out = layer(maps)
    assert torch.equal(out, torch.zeros_like(out))
    out.sum().backward()
    assert torch.isfinite(maps.grad).all()


def test_gradients_agree_with_finite_differences() -> None:
    conv = HarmonicConv2d({0: 1, 1: 1}, {1: 1, 2: 1}, size=5, padding_mode="circular").double()
    chain = nn.Sequential(conv, MagnitudeReLU(2), CenteredBlurPool2d(), MagnitudeBatchNorm2d(2)).double()
    maps = torch.randn(2, 4, 4, 5, dtype=torch.float64, requires_grad=True)
    names, parameters = zip(*chain.named_parameters(), strict=True)

    def run(maps: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(chain, dict(zip(names, values, strict=True)), (maps,))

    assert torch.autograd.gradcheck(run, (maps, *parameters))


def test_mixed_precision_and_memory_format_keep_the_numbers() -> None:
    net = HarmonicNet(4, 1, width=3).eval()
    images = torch.rand(2, 1, 28, 28)
    logits = net(images)
    last = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(last(images.contiguous(memory_format=torch.channels_last)), logits, atol=1e-5, rtol=0)
    net.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(images).square().mean()
    loss.backward()
    assert all(p.dtype == torch.float32 and torch.isfinite(p.grad).all() for p in net.parameters())
    net.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        out, turned_out = net(images), net(images.rot90(1, (-2, -1)))
    assert difference(out, turned_out) < 0.02
    assert difference(net.bfloat16()(images.bfloat16()).float(), logits) < 0.1


@pytest.mark.integration
def test_network_compiles_whole() -> None:
    net = HarmonicNet(3, 1, width=1, size=5).eval()
    images = torch.rand(2, 1, 12, 12)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(images), net(images))


def test_network_pickles_and_its_weights_load() -> None:
    net = HarmonicNet(3, 1, width=2, max_order=2).eval()
    images = torch.rand(2, 1, 20, 20)
    assert torch.equal(pickle.loads(pickle.dumps(net))(images), net(images))
    other = HarmonicNet(3, 1, width=2, max_order=2, size=7).eval()
    assert difference(other(images), net(images)) > 1e-3
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(images), net(images))


def test_initial_weights_follow_the_seed_and_keep_the_scale() -> None:
    nets = [HarmonicNet(10, 1, width=8, max_order=2) for _ in range(3)]
    for net, seed in zip(nets, (3, 3, 4), strict=True):
        initialize(net, seed)
    first, same, other = (dict(net.named_parameters()) for net in nets)
    assert all(torch.equal(first[name], same[name]) for name in first)
    conv = nets[0].features[3]
    assert not torch.equal(conv.phase, other["features.3.phase"])
    # The whole circle: a mean direction of hundreds of phases is near 0.
    assert torch.polar(torch.ones(()), conv.phase.detach()).mean().abs() < 0.1
    for layer in (conv, HarmonicConv2d({0: 9, 1: 4, 2: 9}, {0: 50, 1: 50}, size=7)):
        maps = torch.randn(8, 2 * sum(layer.inputs.values()), 20, 20)
        assert layer(maps).var().item() == pytest.approx(2, rel=0.35)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: HarmonicConv2d({0: 1}, {0: 1}, size=6), "odd size of at least 5 pixels, got 6"),
        (lambda: HarmonicConv2d({0: 1}, {0: 1}, size=3), "odd size of at least 5 pixels, got 3"),
        (lambda: HarmonicConv2d({3: 1}, {0: 1}), "orders 0, 1, 2"),
        (lambda: HarmonicConv2d({0: 1}, {}), "orders 0, 1, 2"),
        (lambda: HarmonicConv2d((1, 1), {0: 1}), r"such as \{0: 8, 1: 8\}, got \(1, 1\)"),
        (lambda: HarmonicConv2d({0: 1}, {0: 0}), "at least 1"),
        (lambda: HarmonicConv2d({0: 1}, {0: 1}, padding_mode="zero"), "did you mean 'zeros'"),
        (lambda: HarmonicConv2d({1: 2}, {0: 1})(torch.rand(1, 2, 9, 9)), r"expected maps \(B, 4, H, W\)"),
        (lambda: HarmonicConv2d({0: 2}, {0: 1})(torch.rand(1, 3, 9, 9)), r"or a real image \(2\)"),
        (lambda: HarmonicConv2d({0: 2}, {0: 1}, 9, "reflect")(torch.rand(1, 2, 4, 9)), "need at least 5 pixels"),
        (lambda: CenteredBlurPool2d("circle"), "did you mean 'circular'"),
        (lambda: HarmonicNet(3, max_order=3), "max_order 0, 1 or 2, got 3"),
    ],
)
def test_bad_arguments_get_one_line(build, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()


def test_claims_match_the_results() -> None:
    assert HarmonicConv2d.__doc__ is not None
    results = benchmark.read_results()
    for row in results["layer"]["table"]:
        cells = "      ".join(f"{row[f'order_{k}']:.1f}" for k in (0, 1, 2))
        assert f" {row['size']}      {cells}\n" in HarmonicConv2d.__doc__, row


@pytest.mark.slow
def test_harmonic_network_reads_turned_digits_that_the_plain_one_cannot() -> None:
    digits = benchmark.load_digits(limit=1000)
    accuracies = {name: benchmark.train_and_test(name, digits, seed=0, epochs=6) for name in ("harmonic", "small_cnn")}
    turned_share = {name: float(out["rotated"].mean()) for name, out in accuracies.items()}
    assert turned_share["harmonic"] > turned_share["small_cnn"] + 0.2, turned_share


def test_it_is_built_by_name_and_from_a_seed() -> None:
    images = torch.rand(2, 1, 28, 28)
    one, again, other = (build_model("harmonic", 10, 1, seed=seed).eval() for seed in (3, 3, 4))
    assert torch.equal(one(images), again(images))
    assert not torch.allclose(one(images), other(images))
    with pytest.raises(InputError, match="network 'harmonic' has its own pools"):
        build_model("harmonic", 10, 1, head="fc", input_size=28)
