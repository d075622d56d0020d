"""Relative invariance against a loop over pairs, and on features that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit.augment import geometry
from augkit.core.errors import InputError
from augkit.invariance import Protocol, make_protocol, relative_invariance
from augkit.invariance.layers.relative import _draw
from augkit.invariance.protocols import Scene


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def small(padding_mode: str = "zeros") -> nn.Module:
    return augkit.build_model("small_cnn", 5, 1, width=4, seed=0, padding_mode=padding_mode)


@pytest.mark.parametrize("count", [6, 7])
@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_agrees_with_a_loop_over_pairs(count: int, distance: str) -> None:
    images, net = noise(count, 1, 30, 30).double(), small().double().eval()
    found = relative_invariance(net, images, max_shift=2.0, draws=3, distance=distance, seed=5, batch_size=4)
    pairs, transforms = _draw(count, 3, 2.0, 1.0, 5)
    assert pairs[:, 0].tolist() + pairs[: len(pairs) - count % 2, 1].tolist() != list(range(count))
    protocol = make_protocol("crop", (30, 30), max_shift=2.0)
    features = net.features, net.head[:-1]

    def phi(n: int, shift: Tensor) -> Tensor:
        with torch.no_grad():
            return features[1](features[0](protocol.shift(images[n : n + 1], shift[None])))[0]

    def d(a: Tensor, b: Tensor) -> float:
        if distance == "cosine":
            return 1 - float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
        return math.sqrt(float((a - b) @ (a - b)))

    expected: dict[int, float] = {}
    for pair, moves in zip(pairs.tolist(), transforms, strict=True):
        for n, other in (pair, pair[::-1]):
            ratios = []
            for move in moves[:, :2]:
                z, z_s, z_other = phi(n, torch.zeros(2)), phi(n, move), phi(other, move)
                ratios.append((d(z, z_other) - d(z, z_s)) / d(z, z_other))
            expected.setdefault(n, sum(ratios) / 3)
    assert sorted(expected) == list(range(count))
    torch.testing.assert_close(
        found.per_image, torch.tensor([expected[n] for n in range(count)]).double(), rtol=1e-6, atol=1e-6
    )
    assert found.relative.value == pytest.approx(found.per_image.mean().item())
    assert found.relative.low <= found.relative.value <= found.relative.high <= 1


def test_invariant_features_score_one_and_constant_features_zero() -> None:
    images = noise(6, 1, 17, 17)
    torus = make_protocol("circular", (17, 17), kernel="fourier")
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1, padding_mode="circular"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    assert relative_invariance(net, images, protocol=torus).relative.value > 0.999
    assert relative_invariance(net.double(), images, max_shift=0.0).relative.value == pytest.approx(1, abs=1e-9)
    net.float()
    nn.init.constant_(net[0].bias, 1.0)
    for weight in (0.0, 3e-7):  # constant, and constant but for the last place
        nn.init.constant_(net[0].weight, weight)
        found = relative_invariance(net, images, max_shift=3.0, draws=20)
        if weight == 0:
            assert abs(found.relative.value) < 1e-9
        else:  # rounding decides the value, which differs by machine
            assert found.relative.low < 0.01
            assert found.relative.high > -0.01
            assert abs(found.relative.value) < 0.1
        assert found.moved.value < 1e-6
    assert found.apart.value > 1e-9


def test_features_that_depend_only_on_position_score_below_zero() -> None:
    class Where(nn.Module):
        """Computes the centroid of a blob, so that all images move by the same distance."""

        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)

        def forward(self, images: Tensor) -> Tensor:
            place = torch.arange(images.shape[-1], dtype=images.dtype)
            mass = images.sum((1, 2, 3))
            return self.head(torch.stack([images.sum((1, 2)) @ place / mass, images.sum((1, 3)) @ place / mass], 1))

    grid = torch.arange(33.0) - 16
    blob = torch.exp(-(grid[:, None] ** 2 + grid**2) / 8)[None, None]
    images = torch.cat([blob, blob.roll(1, -1), blob.roll(1, -2), blob.roll(-1, -1)])
    found = relative_invariance(Where(), images, max_shift=6.0, protocol=make_protocol("embed", (33, 33), max_shift=6))
    # Moved and other images differ from the image by the shift, or by the shift and a pixel: no better than another.
    assert abs(found.relative.value) < 0.6
    assert found.moved.value == pytest.approx(found.apart.value, rel=0.4)
    assert found.moved.value > 3


def test_result_does_not_depend_on_the_batch_size() -> None:
    images, net = noise(9, 1, 30, 30).double(), small().double()
    done: list[tuple[int, int]] = []
    found = [
        relative_invariance(
            net, images, max_shift=1.5, max_factor=1.2, batch_size=size, seed=2, on_batch=lambda *n: done.append(n)
        )
        for size in (1, 7, 100)
    ]
    assert done == [(2, 9), (4, 9), (6, 9), (8, 9), (9, 9), (6, 9), (9, 9), (9, 9)]
    for other in found[1:]:
        torch.testing.assert_close(other.per_image, found[0].per_image, rtol=1e-9, atol=1e-12)
        assert other.relative.low == pytest.approx(found[0].relative.low)


@pytest.mark.parametrize("name", ["crop", "embed", "circular"])
def test_rescaling_and_shift_compose_about_the_center(name: str) -> None:
    grid = torch.arange(41.0).double() - 20
    blob = torch.exp(-((grid[:, None] - 4) ** 2 + (grid + 6) ** 2) / 8)[None, None]  # at (-6, 4) from the center
    window = {"crop": (35, 35), "embed": (61, 61), "circular": (41, 41)}[name]
    protocol = make_protocol(name, (41, 41), input_size=window, kernel="sinc")
    out = Scene(protocol, blob).rescale(torch.tensor([0.8]), 0.8, torch.tensor([[1.5, -2.0]]))
    assert out.shape[-2:] == window
    place = torch.arange(window[0]).double() - (window[0] - 1) / 2
    mass = out.sum()
    assert (out.sum(-2) @ place / mass).item() == pytest.approx(0.8 * -6 + 1.5, abs=0.02)
    assert (out.sum(-1) @ place / mass).item() == pytest.approx(0.8 * 4 - 2.0, abs=0.02)
    assert (mass / blob.sum()).item() == pytest.approx(0.64, rel=0.01)
    none = Scene(protocol, blob).rescale(torch.ones(1), 0.8, torch.tensor([[2.0, 1.0]]))
    torch.testing.assert_close(none, protocol.shift(blob, torch.tensor([[2.0, 1.0]])), atol=1e-5, rtol=0)


def test_rescaling_is_measured_and_no_transform_leaves_the_image() -> None:
    images, net = noise(6, 1, 40, 40), small()
    found = relative_invariance(net, images, max_shift=0.0, max_factor=1.25)
    assert found.settings.input_size == [32, 32]
    assert 0 < found.relative.value < 1
    # Content that is scaled by 1 / 1.25 brings in just what the image has: pixels beyond would show.
    protocol = make_protocol("crop", (40, 40), input_size=32)
    matrix = geometry.compose(
        geometry.shift(torch.tensor([[-4.0, -4.0]])), geometry.rescale(torch.tensor([0.8]), (32, 32))
    )
    plain = augkit.resample(images[:1], matrix, (32, 32), kernel="sinc", padding="zeros")
    mirrored = Scene(protocol, images[:1]).rescale(torch.tensor([0.8]), 0.8, torch.zeros(1, 2))
    torch.testing.assert_close(mirrored[..., 8:24, 8:24], plain[..., 8:24, 8:24], atol=1e-5, rtol=0)


def test_a_module_can_be_named() -> None:
    images, net = noise(4, 1, 30, 30), small()
    default = relative_invariance(net, images, max_shift=1.0)
    assert relative_invariance(net, images, max_shift=1.0, features="head.1").relative == default.relative
    maps = relative_invariance(net, images, max_shift=1.0, features="features")
    assert maps.relative != default.relative
    assert maps.apart.value > default.apart.value  # more numbers, of which the others are averages
    headless = nn.Sequential(nn.Conv2d(1, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(InputError, match="name a module by features="):
        relative_invariance(headless, images, max_shift=1.0)
    assert relative_invariance(headless, images, max_shift=1.0, features="1").relative.defined


def test_network_and_random_state_stay_as_they_were() -> None:
    net, images = small().train(), noise(4, 1, 30, 30)
    state = torch.get_rng_state()
    found = relative_invariance(net, (images * 255).to(torch.uint8), max_shift=1.0, mean=[0.5], std=[0.2])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())
    assert set(found.to_dict()) == {"relative", "moved", "apart", "settings"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": noise(1, 1, 30, 30)}, "images: expected 2 or more"),
        ({"draws": 0}, "draws: expected a whole number of 1 or more"),
        ({"distance": "cosin"}, "did you mean 'cosine'"),
        ({"features": "haed.1"}, "did you mean 'head.1'"),
        ({"max_shift": 15.0}, "leave no window"),
        ({"max_factor": 0.5}, "max_factor: expected a number at least 1"),
        ({"max_shift": math.nan}, "max_shift: expected a number at least 0"),
        ({"protocol": make_protocol("crop", (30, 30), input_size=28), "max_shift": 2.0}, "need 32, and there are 30"),
        ({"protocol": make_protocol("crop", (30, 30), input_size=28), "max_factor": 1.5}, "need 42, and there are 30"),
        ({"protocol": make_protocol("embed", (30, 30), input_size=32), "max_shift": 2.0}, "need 34, and there are 32"),
        ({"protocol": make_protocol("circular", (30, 30)), "max_factor": 1.5}, "'fourier' shifts only"),
        ({"protocol": make_protocol("circular", (31, 31))}, "made for images of"),
    ],
)
def test_bad_input_gets_one_clear_line(options: dict[str, object], message: str) -> None:
    defaults: dict[str, object] = {"images": noise(4, 1, 30, 30), "max_shift": 0.0}
    with pytest.raises(InputError, match=message) as caught:
        relative_invariance(small(), **{**defaults, **options})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert isinstance(options.get("protocol"), Protocol | None)
