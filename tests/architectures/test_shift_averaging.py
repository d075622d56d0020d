"""Shift averaging: equal to a loop over shifts, and exactly invariant where its shifts cover the stride."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit.core.errors import InputError, InputTypeError


def net(downsample: str = "maxpool", padding_mode: str = "circular") -> nn.Module:
    model = augkit.build_model(
        "small_cnn", 5, 2, downsample=downsample, padding_mode=padding_mode, width=4, seed=0
    ).double()
    return model.eval()


def images(side: int = 16) -> Tensor:
    return torch.rand(3, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def moves(model: nn.Module, given: Tensor) -> float:
    with torch.no_grad():
        logits = model(given)
        return max(
            float((model(given.roll(s, (-2, -1))) - logits).abs().max()) for s in [(0, 1), (1, 0), (3, -5), (8, 7)]
        )


@pytest.mark.parametrize("downsample", ["maxpool", "stride", "blurpool"])
@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_shifts_that_cover_the_stride_make_a_network_exactly_invariant(downsample: str, average: str) -> None:
    model = net(downsample)
    assert moves(model, images()) > 1e-4
    assert moves(augkit.shift_averaged(model, 8, average=average), images()) < 1e-12
    assert moves(augkit.shift_averaged(model, 2, average=average), images()) > 1e-7, "2 of 8 pixels are too few"


def test_zero_padding_ends_the_guarantee() -> None:
    assert moves(augkit.shift_averaged(net(padding_mode="zeros"), 8), images()) > 1e-6


SHIFTS = [(0.0, 0.0), (1.0, -2.0), (0.5, 0.25)]


@pytest.mark.parametrize("average", ["logits", "probabilities"])
@pytest.mark.parametrize(("kernel", "padding"), [("sinc", "circular"), ("bilinear", "border"), ("fourier", "circular")])
def test_it_equals_a_loop(average: str, kernel: str, padding: str) -> None:
    model, given = net(), images()
    found = augkit.shift_averaged(model, SHIFTS, kernel=kernel, padding=padding, average=average)(given)
    outputs = []
    for x, y in SHIFTS:
        matrix = torch.tensor([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])
        outputs.append(model(augkit.resample(given, matrix, kernel=kernel, padding=padding)))
    expected = torch.stack(outputs).mean(0)
    if average == "probabilities":
        expected = torch.stack(outputs).softmax(-1).mean(0).log()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_views_of_larger_images_are_windows_around_the_center() -> None:
    given = images(12)
    wrapper = augkit.shift_averaged(nn.Flatten(), [(0, 0), (1, -2)], size=(8, 6))
    views = wrapper.views(given).unflatten(0, (3, 2))
    assert torch.equal(views[:, 0], given[..., 2:10, 3:9])
    assert torch.equal(views[:, 1], given[..., 4:12, 2:8]), "content moves right and up"


def test_one_shift_by_nothing_is_the_network() -> None:
    model, given = net(), images()
    assert torch.equal(augkit.shift_averaged(model, 1)(given), model(given))


def test_whole_pixels_change_no_value() -> None:
    views = augkit.shift_averaged(nn.Flatten(), 3).views(images()).unflatten(0, (3, 9))
    for k, (x, y) in enumerate((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)):
        assert torch.equal(views[:, k], images().roll((y, x), (-2, -1)))


def test_it_shares_weights_and_copies_pickles_trains_and_halves() -> None:
    model = net().float()
    wrapper, given = augkit.shift_averaged(model, SHIFTS), images().float()
    assert wrapper.model is model
    assert not wrapper.training
    logits = wrapper(given)
    for other in (copy.deepcopy(wrapper), pickle.loads(pickle.dumps(wrapper))):
        assert torch.equal(other(given), logits)
    wrapper.train()
    wrapper(given).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    half = copy.deepcopy(wrapper.eval()).bfloat16()(given.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wrapper(given), atol=0.1, rtol=0.1)


@pytest.mark.integration
def test_it_compiles_as_one_graph() -> None:
    wrapper, given = augkit.shift_averaged(nn.Flatten(), 2), images().float()
    torch.testing.assert_close(torch.compile(wrapper, fullgraph=True, backend="aot_eager")(given), wrapper(given))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shifts": 0}, "shifts: expected at least 1"),
        ({"shifts": []}, "shifts: expected at least one pair"),
        ({"shifts": [(0.0, float("nan"))]}, "finite"),
        ({"shifts": [1, 2]}, r"expected a number or pairs \(x, y\)"),
        ({"shifts": True}, "expected a number or pairs"),
        ({"shifts": 2, "kernel": "sink"}, "did you mean 'sinc'"),
        ({"shifts": 2, "padding": "circlar"}, "did you mean 'circular'"),
        ({"shifts": 2, "average": "logit"}, "did you mean 'logits'"),
        ({"shifts": 2, "kernel": "fourier", "padding": "border"}, "moves a torus"),
    ],
)
def test_bad_arguments_get_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        augkit.shift_averaged(net(), **arguments)


def test_bad_networks_and_images_get_one_line() -> None:
    with pytest.raises(InputTypeError, match="expected a torch"):
        augkit.shift_averaged(lambda x: x, 2)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least 20 x 20 pixels, got 16 x 16"):
        augkit.shift_averaged(net(), 2, size=20)(images())
    with pytest.raises(InputError, match=r"expected images \(B, C, H, W\), got shape \(2, 16, 16\)"):
        augkit.shift_averaged(net(), 2)(images()[0])

    class Summed(nn.Module):
        def forward(self, given: Tensor) -> Tensor:
            return given.mean((0, 2, 3))[None]

    with pytest.raises(InputError, match=r"one output for each of 12 views, got \(1, 2\)"):
        augkit.shift_averaged(Summed(), 2)(images())


@pytest.mark.parametrize("padding", ["circular", "border", "reflection"])
@pytest.mark.parametrize("size", [None, (9, 6)])
def test_copies_of_whole_pixels_are_what_resampling_gives(padding: str, size: tuple[int, int] | None) -> None:
    shifts = [(0.0, 0.0), (3.0, -2.0), (-5.0, 4.0)]
    given = images(12).float()
    wrapper = augkit.shift_averaged(nn.Flatten(), shifts, padding=padding, size=size)
    resampled = augkit.shift_averaged(nn.Flatten(), [*shifts, (0.5, 0.0)], padding=padding, size=size)
    expected = resampled.views(given).unflatten(0, (3, 4))[:, :3].flatten(0, 1)
    assert torch.equal(wrapper.views(given), expected)
