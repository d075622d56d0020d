"""Blur pooling: a reference loop, equivariance to shifts, memory formats, precision, compilation."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from augkit.architectures import BlurPool2d, DenseMaxPool2d, MaxBlurPool2d
from augkit.core.errors import InputError

MODES = ["zeros", "circular", "reflect"]
NUMPY_MODES = {"zeros": "constant", "circular": "wrap", "reflect": "reflect"}
LAYERS = [BlurPool2d(), BlurPool2d(size=3, stride=3), DenseMaxPool2d(3), MaxBlurPool2d(2, padding_mode="circular")]


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding_mode", MODES)
def test_blur_pool_agrees_with_a_loop(size: int, stride: int, padding_mode: str) -> None:
    maps = torch.rand(2, 3, 9, 12, dtype=torch.float64)
    layer = BlurPool2d(3, size=size, stride=stride, padding_mode=padding_mode).double()
    taps = np.array([1.0])
    for _ in range(size - 1):
        taps = np.convolve(taps, [1, 1])
    taps = np.outer(taps, taps) / taps.sum() ** 2
    before, after = (size - 1) // 2, size // 2
    padded = np.pad(maps.numpy(), ((0, 0), (0, 0), (before, after), (before, after)), mode=NUMPY_MODES[padding_mode])
    expected = np.zeros((2, 3, -(-9 // stride), -(-12 // stride)))
    for i, j in np.ndindex(*expected.shape[2:]):
        y, x = stride * i, stride * j
        expected[:, :, i, j] = (padded[:, :, y : y + size, x : x + size] * taps).sum((-2, -1))
    np.testing.assert_allclose(layer(maps).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("padding_mode", MODES)
def test_dense_maximum_agrees_with_a_loop(size: int, padding_mode: str) -> None:
    maps = torch.randn(2, 3, 5, 6) - 3  # below the zeros of padding
    before, after = (size - 1) // 2, size // 2
    pads = ((0, 0), (0, 0), (before, after), (before, after))
    fill = {"constant_values": -np.inf} if padding_mode == "zeros" else {}
    padded = np.pad(maps.numpy(), pads, mode=NUMPY_MODES[padding_mode], **fill)
    expected = np.stack([[padded[:, :, i : i + size, j : j + size].max((-2, -1)) for j in range(6)] for i in range(5)])
    np.testing.assert_array_equal(DenseMaxPool2d(size, padding_mode)(maps).numpy(), expected.transpose(2, 3, 0, 1))


@pytest.mark.parametrize("kernel_size", [2, 3])
def test_max_blur_pool_is_the_maximum_then_the_blur_and_fits_where_max_pooling_stood(kernel_size: int) -> None:
    maps = torch.randn(2, 4, 9, 12)
    layer = MaxBlurPool2d(kernel_size, size=3, padding_mode="reflect")
    dense = DenseMaxPool2d(kernel_size, "reflect")(maps)
    assert torch.equal(layer(maps), BlurPool2d(size=3, padding_mode="reflect")(dense))
    assert layer(maps).shape == nn.MaxPool2d(3, 2, padding=1)(maps).shape


@pytest.mark.parametrize("size", [2, 3, 4, 5, 8])
def test_the_gain_at_frequency_zero_is_exactly_one(size: int) -> None:
    layer = BlurPool2d(4, size=size, padding_mode="circular")
    assert (layer.taps[:, None] * layer.taps).sum() == 1
    assert torch.equal(layer(torch.full((1, 4, 8, 8), 0.75)), torch.full((1, 4, 4, 4), 0.75))


@pytest.mark.parametrize("layer", [BlurPool2d(padding_mode="circular"), MaxBlurPool2d(3, padding_mode="circular")])
def test_blur_pools_commute_with_their_stride_alone(layer: nn.Module) -> None:
    maps = torch.rand(1, 4, 16, 16)
    torch.testing.assert_close(layer(maps.roll((2, -4), (-1, -2))), layer(maps).roll((1, -2), (-1, -2)))
    assert (layer(maps.roll(1, -1)) - layer(maps)).abs().max() > 0.01


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layouts_halves_and_batches_agree(layer: nn.Module) -> None:
    maps = torch.rand(3, 4, 9, 12)
    out = layer(maps)
    assert out.is_contiguous()
    last = layer(maps.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last, out)
    torch.testing.assert_close(torch.cat([layer(each[None]) for each in maps]), out)
    for half in (torch.bfloat16, torch.float16):
        assert layer(maps.to(half)).dtype == half
        torch.testing.assert_close(layer(maps.to(half)).float(), out, atol=0.01, rtol=0.01)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(maps).float(), out, atol=0.01, rtol=0.01)


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_gradients_are_those_of_finite_differences(layer: nn.Module) -> None:
    maps = torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(copy.deepcopy(layer).double(), maps)


@pytest.mark.integration
def test_max_blur_pool_compiles_as_one_graph() -> None:
    layer = MaxBlurPool2d(2)
    maps = torch.rand(2, 3, 8, 9)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(maps), layer(maps))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layers_pickle_copy_and_have_no_state(layer: nn.Module) -> None:
    maps = torch.rand(1, 2, 6, 6)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(maps), layer(maps))
    assert torch.equal(copy.deepcopy(layer)(maps), layer(maps))
    assert layer.state_dict() == {}, "weights of networks without blur pooling still load"


@pytest.mark.gpu
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_cuda_agrees_with_the_cpu(layer: nn.Module) -> None:
    maps = torch.rand(3, 4, 9, 12)
    torch.testing.assert_close(copy.deepcopy(layer).cuda()(maps.cuda()).cpu(), layer(maps))


def test_bad_layers_get_one_line() -> None:
    with pytest.raises(InputError, match="size: expected a whole number of 2 or more"):
        BlurPool2d(3, size=1)
    with pytest.raises(InputError, match="stride: expected a whole number of 1 or more"):
        BlurPool2d(3, stride=1.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="did you mean 'reflect'"):
        BlurPool2d(3, padding_mode="reflct")
    with pytest.raises(InputError, match="expected 3 channels, got maps of 2"):
        BlurPool2d(3)(torch.rand(1, 2, 4, 4))
    with pytest.raises(InputError, match="kernel_size: expected a whole number of 1 or more"):
        DenseMaxPool2d(0)
    with pytest.raises(InputError, match="did you mean 'circular'"):
        MaxBlurPool2d(2, padding_mode="circula")
