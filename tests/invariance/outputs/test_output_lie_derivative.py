"""Lie derivatives of maps, images and embeddings: exact networks, and finite differences of another interpolant."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from augkit.core.errors import InputError
from augkit.invariance import lie_derivative
from augkit.invariance.layers.lie_derivative import DIRECTIONS
from augkit.invariance.outputs import output_lie_derivative
from tests.dense_networks import Returns, autoencoder, conv, embedder, segmenter
from tests.invariance.layers.test_lie_derivative import H, flow, moved

SHIFTS = ("shift_x", "shift_y")


def images(count: int = 3, height: int = 16, width: int = 16) -> Tensor:
    """Band-limited gray images, in float64."""
    noise = torch.rand(count, 1, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kept = torch.fft.rfft2(noise)
    y, x = torch.fft.fftfreq(height).abs(), torch.fft.rfftfreq(width)
    return torch.fft.irfft2(kept * ((y[:, None] < 0.3) & (x < 0.3)), s=(height, width))


@pytest.mark.parametrize("method", ["forward", "central"])
def test_a_linear_circular_network_of_stride_1_gives_zero_and_a_strided_one_does_not(method: str) -> None:
    torch.manual_seed(0)
    for network, kind in ((nn.Sequential(conv(1, 4), conv(4, 3)), "map"), (conv(1, 1), "image")):
        found = output_lie_derivative(network.double(), images(), directions=SHIFTS, method=method)
        assert (found.kind, found.settings.method, found.settings.stride) == (kind, method, [1.0, 1.0])
        for name in SHIFTS:
            assert found.relative[name].high < 1e-12
    strided = nn.Sequential(conv(1, 4, 2), conv(4, 3)).double()
    noise = torch.rand(3, 1, 16, 16, dtype=torch.float64)
    assert output_lie_derivative(strided, noise, directions=SHIFTS).relative["shift_x"].low > 0.1
    # Of what stride 2 can hold nothing is lost.
    coarse = images(height=8, width=8)
    fine = torch.fft.irfft2(_padded(torch.fft.rfft2(coarse)), s=(16, 16))
    assert output_lie_derivative(strided, fine, directions=SHIFTS).relative["shift_x"].high < 1e-12


def _padded(spectrum: Tensor) -> Tensor:
    """The spectrum of 8 x 8 pixels, without its highest frequency, as one of 16 x 16."""
    out = spectrum.new_zeros(*spectrum.shape[:2], 16, 9)
    out[..., :4, :4], out[..., -3:, :4] = spectrum[..., :4, :4], spectrum[..., -3:, :4]
    return out


def test_a_network_of_single_pixels_is_equivariant_to_every_direction() -> None:
    found = output_lie_derivative(nn.Conv2d(1, 3, 1).double(), images())
    assert all(found.relative[name].high < 1e-20 for name in DIRECTIONS)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_it_is_the_finite_difference_of_the_moved_output_of_the_moved_image(direction: str) -> None:
    """Both by an explicit interpolant in float64, for maps of stride 2 along y and 1 along x."""
    torch.manual_seed(1)
    network = nn.Sequential(nn.Conv2d(1, 2, 3, (2, 1), 1, padding_mode="circular"), nn.Tanh()).double()
    image = torch.rand(1, 1, 8, 7, dtype=torch.float64)
    to_map = np.array([[1, 0, 0], [0, 1 / 2, 0.5 / 2 - 0.5], [0, 0, 1]])  # from pixels of the image to those of the map

    def back(t: float) -> np.ndarray:
        """``T_-t f(T_t x)``, ``(2, 4, 7)``."""
        seen = torch.from_numpy(moved(image[0, 0].numpy(), flow(direction, t, (8, 7)), (8, 7)))
        maps = network(seen[None, None])[0].detach().numpy()
        matrix = to_map @ flow(direction, -t, (8, 7)) @ np.linalg.inv(to_map)
        return np.stack([moved(one, matrix, (4, 7)) for one in maps])

    wanted = (back(H) - back(-H)) / (2 * H)
    found = output_lie_derivative(network, image, directions=[direction])
    assert found.settings.stride == [2.0, 1.0]
    assert found.mean_square[direction].value == pytest.approx(np.square(wanted).mean(), rel=1e-5)
    variance = network(image).detach().numpy().var((-2, -1)).mean()
    assert found.relative[direction].value == pytest.approx(np.square(wanted).mean() / variance, rel=1e-5)
    inner = output_lie_derivative(network, image, directions=[direction], border=1.5)  # one row of the map at each side
    assert inner.mean_square[direction].value == pytest.approx(np.square(wanted[:, 1:-1, 2:-2]).mean(), rel=1e-5)


def test_embeddings_should_not_move() -> None:
    network, noise = embedder(2).double(), torch.rand(4, 1, 12, 12, dtype=torch.float64)
    found, wanted = output_lie_derivative(network, noise), lie_derivative(network, noise)
    assert (found.kind, found.settings.stride) == ("embedding", None)
    variance = network(noise).var(0, correction=0).mean().item()
    for name in DIRECTIONS:
        assert found.mean_square[name].value == pytest.approx(wanted.logits[name].value)
        assert found.relative[name].value == pytest.approx(wanted.logits[name].value / variance)
    invariant = nn.Sequential(conv(1, 4), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    assert output_lie_derivative(invariant, noise, directions=SHIFTS).relative["shift_y"].high < 1e-20


def test_batches_change_nothing_and_progress_is_told() -> None:
    seen: list[tuple[int, int]] = []
    network, noise = segmenter(2), images(5).float()
    whole = output_lie_derivative(network, noise)
    parts = output_lie_derivative(network, noise, batch_size=2, on_batch=lambda *at: seen.append(at))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert whole.per_image["square"].shape == (5, 4)
    torch.testing.assert_close(whole.per_image, parts.per_image, rtol=1e-4, atol=1e-9)


def test_constant_maps_have_no_relative_derivative() -> None:
    found = output_lie_derivative(Returns(lambda x: x[:, :, ::2, ::2] * 0 + 1), images().float())
    assert not found.relative["shift_x"].defined
    assert found.mean_square["shift_x"].value == 0


def test_tokens_are_laid_out_and_a_dict_is_looked_into() -> None:
    latent = autoencoder(4)[:2]  # type: ignore[index]
    tokens = output_lie_derivative(Returns(lambda x: latent(x).flatten(2).mT), images().float(), output="map")
    plain = output_lie_derivative(Returns(lambda x: {"out": latent(x)}), images().float())
    assert tokens.settings.stride == plain.settings.stride == [4.0, 4.0]
    torch.testing.assert_close(tokens.per_image, plain.per_image)


def _boxes(x: Tensor) -> object:
    return [{"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0)} for _ in x]


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (_boxes, {}, "of kind 'detections' have no Lie derivative; boxes come and go in steps"),
        (lambda x: x.flatten(1)[:, :8].unflatten(1, (4, 2)), {}, "of kind 'keypoints' have no Lie derivative; most"),
        (lambda x: x.flatten(1), {"output": "logits"}, "of kind 'logits' have no Lie derivative; that of logits is"),
        (lambda x: x, {"output": "mpa"}, "unknown output 'mpa'"),
        (lambda x: x, {"border": 8.0}, "border: 8 px leave nothing of a map of 16 x 16"),
        (lambda x: x, {"border": -1.0}, "border: expected pixels of at least 0"),
        (lambda x: x, {"directions": ["shift"]}, "unknown direction 'shift'"),
        (lambda x: x, {"batch_size": 0}, "batch_size: expected a whole number of 1 or more"),
        (lambda x: x[..., :9, :9], {"output": "map"}, "expected a map whose size divides"),
        (lambda x: x / 0, {}, "expected finite outputs and derivatives"),
    ],
)
def test_bad_input_is_one_line(function: object, options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as found:
        output_lie_derivative(Returns(function), images().float(), **options)  # type: ignore[arg-type]
    assert len(str(found.value).splitlines()) == 1
