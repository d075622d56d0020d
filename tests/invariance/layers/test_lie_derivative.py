"""Lie derivatives: the generator against an explicit interpolant, networks against finite differences."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import augkit
from augkit.augment import geometry
from augkit.core.errors import InputError
from augkit.invariance import lie_derivative, make_protocol
from augkit.invariance.layers.lie_derivative import DIRECTIONS, spectral_derivative, tangents

H = 1e-5


class CircularNet(nn.Module):
    """Exactly invariant to any shift of a torus: the sum of squares of a convolution is kept by every shift."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, 1, 1, padding_mode="circular")
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.conv(images).square().mean((-2, -1)))


class Centroid(nn.Module):
    """Where the content of an image lies, in pixels from the center: ``(B, 2)`` as x and y."""

    def forward(self, images: Tensor) -> Tensor:
        maps = images.mean(1)
        y, x = (torch.arange(n, dtype=maps.dtype) - (n - 1) / 2 for n in maps.shape[-2:])
        mass = maps.sum((-2, -1))
        return torch.stack([(maps.sum(-2) @ x) / mass, (maps.sum(-1) @ y) / mass], dim=-1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def blob(x: float, y: float, side: int = 33) -> Tensor:
    grid = torch.arange(float(side), dtype=torch.float64) - (side - 1) / 2
    return torch.exp(-((grid[:, None] - y) ** 2 + (grid - x) ** 2) / 8)[None, None]


def dirichlet(distance: np.ndarray, size: int) -> np.ndarray:
    """The trigonometric interpolant of a unit pulse on ``size`` periodic pixels."""
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.sin(np.pi * distance / size) if size % 2 else np.tan(np.pi * distance / size)
        values = np.sin(np.pi * distance) / (size * below)
    return np.where(np.abs(np.sin(np.pi * distance / size)) < 1e-12, 1.0, values)


def moved(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The interpolant of a periodic image, moved by an affine matrix, at every pixel of a window of ``size``."""
    back = np.linalg.inv(matrix)
    out = np.empty(size)
    for v in range(size[0]):
        for u in range(size[1]):
            x, y, _ = back @ [u, v, 1]
            rows = dirichlet(y - np.arange(image.shape[0]), image.shape[0])
            out[v, u] = rows @ image @ dirichlet(x - np.arange(image.shape[1]), image.shape[1])
    return out


def flow(direction: str, t: float, size: tuple[int, int]) -> np.ndarray:
    """The matrix that moves content by ``t`` pixels, root mean square, about the center of ``size``."""
    radius = math.sqrt(sum((n**2 - 1) / 12 for n in size))
    if direction.startswith("shift"):
        return geometry.shift(torch.tensor([[t, 0.0] if direction == "shift_x" else [0.0, t]]).double())[0].numpy()
    amount = torch.tensor([t / radius], dtype=torch.float64)
    matrix = (
        geometry.rescale(amount.exp(), size) if direction == "log_scale" else geometry.rotate(amount.rad2deg(), size)
    )
    return matrix[0].numpy()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("size", [(7, 8), (6, 5)])
@pytest.mark.parametrize("name", ["circular", "crop", "embed"])
def test_velocity_is_that_of_the_moved_interpolant(direction: str, size: tuple[int, int], name: str) -> None:
    image = noise(1, 1, *size)
    window = {"circular": size, "crop": (size[0] - 2, size[1] - 3), "embed": (size[0] + 2, size[1] + 3)}[name]
    protocol = make_protocol(name, size, input_size=window, background=0.4)
    seen, velocity = tangents(image, protocol, [direction])
    plain = image[0, 0].numpy()
    start = np.eye(3)
    if name == "crop":  # mirrored about the border pixels, which are not repeated
        plain = np.pad(plain, [(0, n - 2) for n in size], mode="reflect")
        start[:2, 2] = -((size[1] - window[1]) // 2), -((size[0] - window[0]) // 2)
    elif name == "embed":
        plain = seen[0, 0].numpy()
        assert plain[0, 0] == pytest.approx(0.4)
    ends = [moved(plain, flow(direction, t, window) @ start, window) for t in (H, -H)]
    np.testing.assert_allclose(velocity[0, 0, 0].numpy(), (ends[0] - ends[1]) / (2 * H), atol=1e-7)


@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 999))
@settings(max_examples=25, deadline=None)
def test_derivative_is_that_of_the_fourier_shift(height: int, width: int, seed: int) -> None:
    images = noise(2, 1, height, width, seed=seed)
    for dim, step in ((-1, torch.tensor([H, 0.0])), (-2, torch.tensor([0.0, H]))):
        ends = [augkit.fourier_shift(images, sign * step.double()) for sign in (1, -1)]
        torch.testing.assert_close(-spectral_derivative(images, dim), (ends[0] - ends[1]) / (2 * H), atol=1e-7, rtol=0)


def test_content_moves_one_pixel_in_the_direction_named() -> None:
    radius = math.sqrt(2 * (33**2 - 1) / 12)
    for (x, y), direction, expected in [
        ((0.0, 0.0), "shift_x", (1.0, 0.0)),
        ((3.0, 0.0), "shift_y", (0.0, 1.0)),
        ((4.0, -2.0), "log_scale", (4.0 / radius, -2.0 / radius)),
        ((4.0, 0.0), "rotation", (0.0, -4.0 / radius)),  # counter-clockwise: what is right of the center goes up
    ]:
        found = lie_derivative(Centroid(), blob(x, y), directions=[direction])
        assert found.radius == pytest.approx(radius)
        # A mean over two outputs of the squared velocity; its sign is checked on the velocity itself.
        assert found.logits[direction].value == pytest.approx(sum(v * v for v in expected) / 2, rel=1e-6)
        image, velocity = tangents(blob(x, y), make_protocol("circular", (33, 33)), [direction])
        ahead = Centroid()(image + H * velocity[0]) - Centroid()(image)
        torch.testing.assert_close(ahead[0] / H, torch.tensor(expected).double(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("side", [16, 17])
@pytest.mark.parametrize("method", ["forward", "central"])
def test_invariant_networks_score_zero_where_a_one_sided_generator_does_not(side: int, method: str) -> None:
    images, net = noise(8, 1, side, side), CircularNet().double()
    nn.init.normal_(net.head.weight, std=3.0)
    one_sided = images.roll(1, -1) - images  # what bilinear interpolation gives just right of 0
    _, slope = torch.func.jvp(net, (images,), (one_sided,))
    assert slope.square().mean().item() > 0.01
    for network, data in ((net, images), (copy.deepcopy(net).float(), images.float())):
        found = lie_derivative(network, data, method=method, directions=["shift_x", "shift_y"])
        assert found.settings.method == method
        for estimate in found.logits.values():
            assert estimate.value < (1e-9 if data.dtype == torch.float32 and method == "forward" else 1e-15)


def test_circular_convolution_and_average_pooling_give_zero() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, 1, 2, padding_mode="circular"), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    found = lie_derivative(net, noise(4, 3, 12, 15).float())
    assert max(found.logits[name].value for name in ("shift_x", "shift_y")) < 1e-10
    assert max(found.probabilities[name].value for name in ("shift_x", "shift_y")) < 1e-6
    assert found.logits["log_scale"].value > 1e-5  # the mean brightness changes as content leaves


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small_cnn", {"padding_mode": "circular", "downsample": "blurpool", "width": 4}),
        ("small_cnn", {"padding_mode": "zeros", "downsample": "maxpool", "width": 4}),
        ("resnet18", {"padding_mode": "zeros", "downsample": "stride", "width": 4}),
        ("resnet18", {"padding_mode": "circular", "downsample": "maxpool", "width": 4}),
    ],
)
def test_networks_agree_with_central_differences_of_shifted_images(name: str, options: dict[str, object]) -> None:
    net = augkit.build_model(name, 5, 2, seed=1, **options).double().eval()  # type: ignore[arg-type]
    images = noise(3, 2, 32, 32)
    found = lie_derivative(net, images, directions=["shift_x", "shift_y"], mean=[0.5], std=[0.25])
    assert found.settings.method == "forward"
    for d, step in enumerate(torch.tensor([[1e-7, 0.0], [0.0, 1e-7]]).double()):
        with torch.no_grad():
            ends = [net((augkit.fourier_shift(images, sign * step) - 0.5) / 0.25) for sign in (1, -1)]
        slope = (ends[0] - ends[1]) / 2e-7
        chances = (ends[0].softmax(-1) - ends[1].softmax(-1)) / 2e-7
        torch.testing.assert_close(found.per_image["logits"][:, d], slope.square().mean(-1), rtol=1e-3, atol=1e-9)
        torch.testing.assert_close(found.per_image["probabilities"][:, d], chances.abs().mean(-1), rtol=1e-3, atol=1e-9)
    assert found.logits["shift_x"].value == pytest.approx(found.per_image["logits"][:, 0].mean().item())
    assert found.logits["shift_x"].low <= found.logits["shift_x"].value <= found.logits["shift_x"].high


def test_both_methods_agree_in_every_direction() -> None:
    net = augkit.build_model("small_cnn", 5, 1, width=4, seed=0).double()
    images = noise(3, 1, 28, 28)
    protocol = make_protocol("crop", (28, 28), input_size=24)
    found = [lie_derivative(net, images, method=method, protocol=protocol) for method in ("forward", "central")]
    for form in ("logits", "probabilities"):
        torch.testing.assert_close(found[0].per_image[form], found[1].per_image[form], rtol=1e-2, atol=1e-9)


def test_result_does_not_depend_on_the_batch_size() -> None:
    net, images = augkit.build_model("small_cnn", 5, 1, width=4, seed=0).double(), noise(9, 1, 28, 28)
    done: list[tuple[int, int]] = []
    found = [
        lie_derivative(net, images, batch_size=size, on_batch=lambda *n: done.append(n), seed=3) for size in (1, 7, 9)
    ]
    assert done == [*((n, 9) for n in range(1, 10)), (7, 9), (9, 9), (9, 9)]
    for other in found[1:]:
        torch.testing.assert_close(other.per_image["logits"], found[0].per_image["logits"], rtol=1e-9, atol=1e-15)
        assert other.logits["rotation"].low == pytest.approx(found[0].logits["rotation"].low)


class Doubled(torch.autograd.Function):
    """Without a forward derivative."""

    @staticmethod
    def forward(ctx: object, images: Tensor) -> Tensor:
        del ctx
        return 2 * images

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        del ctx
        return 2 * gradient


class Around(nn.Module):
    """A network behind, or before, a function of tensors."""

    def __init__(self, before: object = None, after: object = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
        self.before, self.after = before or (lambda x: x), after or (lambda x: x)

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.net(self.before(images)))


@pytest.mark.parametrize("wrap", [{"before": Doubled.apply}, {"after": lambda y: y.detach()}], ids=["op", "detached"])
def test_networks_without_forward_mode_fall_back_to_central_differences(wrap: dict[str, object]) -> None:
    images, net = noise(3, 1, 10, 10).float(), Around(**wrap)
    plain = Around(before=(lambda x: 2 * x) if "before" in wrap else None)
    plain.load_state_dict(net.state_dict())
    found = lie_derivative(net, images)
    assert found.settings.method == "central"
    assert next(net.parameters()).dtype == torch.float32
    expected = lie_derivative(plain, images, method="forward")
    torch.testing.assert_close(found.per_image["logits"], expected.per_image["logits"], rtol=1e-3, atol=1e-10)
    with pytest.raises(InputError, match=r"forward mode fails .* method='central'"):
        lie_derivative(net, images, method="forward")


def test_networks_that_support_neither_are_refused_in_one_line() -> None:
    weight = torch.ones(3, 3)
    net = Around(before=Doubled.apply, after=lambda y: y @ weight)
    with pytest.raises(InputError, match=r"forward mode fails .* need float64") as caught:
        lie_derivative(net, noise(2, 1, 10, 10).float())
    assert "\n" not in str(caught.value)


def test_attention_is_differentiated_forward() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(images[:, 0])[:, 0]

    net, images = Attention(), noise(2, 1, 6, 8).float()
    found = lie_derivative(net, images)
    assert found.settings.method == "forward"
    expected = lie_derivative(net, images, method="central")
    torch.testing.assert_close(found.per_image["logits"], expected.per_image["logits"], rtol=1e-3, atol=1e-6)


def test_network_and_random_state_stay_as_they_were() -> None:
    net = augkit.build_model("small_cnn", 5, 1, width=4, seed=0).train()
    net.features[0].norm.eval()  # a frozen layer stays frozen, the rest goes back to training
    before = copy.deepcopy(net.state_dict())
    images = noise(3, 1, 28, 28).float()
    kept, state = images.clone(), torch.get_rng_state()
    for method in ("forward", "central"):
        lie_derivative(net, images, method=method, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    assert net.training
    assert not net.features[0].norm.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in net.parameters())


def test_uint8_images_are_scaled_and_the_result_goes_into_json() -> None:
    net = augkit.build_model("small_cnn", 5, 1, width=4, seed=0)
    images = (noise(2, 1, 28, 28) * 255).to(torch.uint8)
    found = lie_derivative(net, images, directions=["shift_x"])
    expected = lie_derivative(net, images.float() / 255, directions=["shift_x"])
    assert found.logits == expected.logits
    tree = found.to_dict()
    assert set(tree["logits"]["shift_x"]) == {"value", "low", "high"}
    assert tree["settings"]["generator"] == "spectral"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directions": ["shiftx"]}, "did you mean 'shift_x'"),
        ({"directions": []}, "at least one of shift_x"),
        ({"method": "forwrd"}, "did you mean 'forward'"),
        ({"protocol": make_protocol("circular", (9, 9))}, "made for images of"),
        ({"batch_size": 0}, "batch_size: expected a whole number of 1 or more"),
        ({"mean": [0.5]}, "both or neither"),
        ({"mean": [0.5], "std": [0.0]}, "above 0"),
        ({"mean": [0.5, 0.5], "std": [1.0, 1.0]}, "expected 1 values"),
    ],
)
def test_bad_input_gets_one_clear_line(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        lie_derivative(CircularNet(), noise(2, 1, 10, 10).float(), **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_objects_that_are_not_networks_or_give_no_logits_are_errors() -> None:
    images = noise(2, 1, 10, 10).float()
    with pytest.raises(InputError, match=r"expected a torch\.nn\.Module"):
        lie_derivative(lambda x: x, images)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"expected logits \(1, K\), got \(1, 1, 10, 10\)"):
        lie_derivative(nn.Identity(), images)
    with pytest.raises(InputError, match="at least 1, got none"):
        lie_derivative(CircularNet(), images[:0])
    net = CircularNet()
    nn.init.constant_(net.head.bias, math.nan)
    with pytest.raises(InputError, match="expected finite logits"):
        lie_derivative(net, images)
