"""Measurements of streams of images: interrupts, states, precision, and errors."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from measured import CircularNet, photo_like
from torch import Tensor, nn

import augkit
from augkit.core.errors import InputError, InputTypeError
from augkit.invariance import InvarianceReport, Measurement, Network, Plan
from augkit.invariance.batch_stream import batches
from augkit.invariance.plan import full_plan
from augkit.invariance.protocols import ProtocolOptions


def test_batches_may_stream_by() -> None:
    images, labels, model = photo_like(11, 16), torch.arange(11) % 4, CircularNet(stride=2)
    whole = augkit.measure_invariance(model, images, labels, max_shift=2, lengths=(1.0,), batch_size=4)

    def loader() -> Iterator[tuple[Tensor, Tensor]]:
        for start in (0, 8):
            yield images[start : start + 8], labels[start : start + 8]

    done: list[int] = []
    streamed = augkit.measure_invariance(
        model, loader(), max_shift=2, lengths=(1.0,), batch_size=4, on_batch=lambda count, total: done.append(count)
    )
    assert done == [4, 8, 11]
    assert streamed.fingerprint == whole.fingerprint
    for name, values in whole.statistics.items():
        assert torch.equal(values, streamed.statistics[name])
    unlabeled = augkit.measure_invariance(model, [images[:5], images[5:]], max_shift=2)
    assert not hasattr(unlabeled, "accuracy")


class Stopped(nn.Module):
    """Raises Ctrl-C at a given forward pass."""

    def __init__(self, net: nn.Module, at: int) -> None:
        super().__init__()
        self.net, self.left = net, at

    def forward(self, images: Tensor) -> Tensor:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return self.net(images)


def measurement_of(model: nn.Module, seed: int = 0) -> Measurement:
    return Measurement(Network(model), full_plan("shift", 2.0, 2), ProtocolOptions("crop"), seed=seed)


def same(a: InvarianceReport, b: InvarianceReport) -> bool:
    return a.to_dict() == b.to_dict() and a.fingerprint == b.fingerprint


@pytest.mark.parametrize("at", [1, 30, 70, 100])
def test_an_interrupt_keeps_whole_batches_and_resuming_gives_the_same_bits(at: int, tmp_path: Any) -> None:
    images, labels, net = photo_like(11, 16), torch.arange(11) % 4, CircularNet(stride=2)
    through = measurement_of(Stopped(net, 0))
    through.run(batches(images, labels, 4))
    first = measurement_of(Stopped(net, at))
    with pytest.raises(KeyboardInterrupt):
        first.run(batches(images, labels, 4))
    assert first.accumulator.images == 4 * ((at - 1) // first.views)
    torch.save(first.state(), tmp_path / "state.pt")
    second = measurement_of(Stopped(net, 0))
    second.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    second.run(batches(images, labels, 4))
    assert same(second.report(), through.report())


def test_a_state_belongs_to_one_network_plan_and_images() -> None:
    images, net = photo_like(8, 16), CircularNet(stride=2)
    first = measurement_of(net)
    first.run(batches(images[:4], None, 4))
    with pytest.raises(InputError, match="another network"):
        measurement_of(net, seed=1).restore(first.state())
    with pytest.raises(InputError, match="another network"):
        measurement_of(CircularNet(stride=2)).restore(first.state())
    for other, size, message in (
        (images.flip(0), 4, "not the ones measured before"),
        (images, 3, "use the same batch size"),
        (images[:0], 4, "4 were measured before, and 0 came"),
    ):
        again = measurement_of(net)
        again.restore(first.state())
        with pytest.raises(InputError, match=message):
            again.run(batches(other, None, size))


def test_gray_images_are_repeated_for_a_network_of_three_channels() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    gray = photo_like(5, 16)
    report = augkit.measure_invariance(net, gray, max_shift=2, mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0])
    color = augkit.measure_invariance(
        net, gray.expand(-1, 3, -1, -1), max_shift=2, mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0]
    )
    assert report.settings.channels == "1 repeated to 3"
    assert report.js.value == pytest.approx(color.js.value, rel=1e-4)
    with pytest.raises(InputError, match="the model expects 3 channels, the images have 2"):
        augkit.measure_invariance(net, gray.expand(-1, 2, -1, -1), max_shift=2)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_in_the_settings_and_nearly_agrees(precision: str) -> None:
    images, model = photo_like(6, 16), CircularNet(stride=2)
    exact = augkit.measure_invariance(model, images, max_shift=2)
    rough = augkit.measure_invariance(model, images, max_shift=2, precision=precision)
    assert (exact.settings.precision, rough.settings.precision) == ("float32", precision)
    assert rough.fingerprint != exact.fingerprint
    assert rough.logit_change.value == pytest.approx(exact.logit_change.value, abs=0.01)
    with pytest.raises(InputError, match="float64"):
        augkit.measure_invariance(CircularNet().double(), images, max_shift=2, precision=precision)


def test_a_failing_network_gets_one_line() -> None:
    with pytest.raises(InputError, match=r"it fails on images \(3, 1, 12, 12\)"):
        augkit.measure_invariance(
            nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), photo_like(3, 16), max_shift=2, batch_size=3
        )


def test_model_comes_back_in_the_mode_it_was_in_and_images_unchanged() -> None:
    images, model = photo_like(3, 16), CircularNet().train()
    before = images.clone()
    augkit.measure_invariance(model, images, max_shift=2)
    assert model.training
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"protocol": "crp"}, "did you mean 'crop'"),
        ({"kernel": "bilinaer"}, "did you mean 'bilinear'"),
        ({"kernel": "fourier"}, "wraps around"),
        ({"max_shift": -1.0}, "at least 0"),
        ({"max_shift": math.nan}, "max_shift: expected a number that is finite"),
        ({"max_shift": 8.0}, "leaves no window"),
        ({"max_shift": 3.0, "input_size": 12}, "margin of 2"),
        ({"input_size": 20, "max_shift": 0.0}, "at most"),
        ({"protocol": "embed", "input_size": 10, "max_shift": 0.0}, "at least"),
        ({"protocol": "circular", "input_size": 10}, "exactly"),
        ({"mean": [0.5], "max_shift": 2.0}, "both or neither"),
        ({"mean": [0.5, 0.5], "std": [1.0, 1.0], "max_shift": 2.0}, "mean and std"),
        ({"pairs": 0, "max_shift": 2.0}, "pairs: expected a whole number of 1 or more"),
        ({"labels": torch.tensor([0, 1, 9]), "max_shift": 2.0}, "label 9"),
        ({"labels": torch.tensor([0, 1])}, "labels"),
        ({"labels": [0, 1, 2]}, "expected integers"),
        ({"mean": [0.5], "std": [0.5, 0.5], "max_shift": 2.0}, "as many values"),
        ({"seed": -1, "max_shift": 2.0}, "seed"),
        ({"precision": "float16", "max_shift": 2.0}, "unknown precision"),
        ({"background": "gray", "protocol": "embed"}, "unknown background"),
        ({"batch_size": 0, "max_shift": 2.0}, "batch_size: expected a whole number"),
        ({"plan": Plan(), "pairs": 2}, "it replaces"),
    ],
)
def test_bad_input_gets_one_clear_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        augkit.measure_invariance(CircularNet(), photo_like(3, 16), **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Identity(), r"expected logits \(3, K\)"),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(1)), "at least 2 classes"),
    ],
)
def test_models_that_give_no_logits_are_refused(model: nn.Module, message: str) -> None:
    model(torch.zeros(3, 1, 12, 12))
    with pytest.raises(InputError, match=message):
        augkit.measure_invariance(model, photo_like(3, 16), max_shift=2)


def test_logits_that_are_not_finite_are_refused() -> None:
    model = CircularNet()
    nn.init.constant_(model.head.bias, math.nan)
    with pytest.raises(InputError, match="finite logits"):
        augkit.measure_invariance(model, photo_like(3, 16), max_shift=2)


def test_images_of_the_wrong_rank_or_dtype_are_refused() -> None:
    with pytest.raises(InputError, match="4 dimensions"):
        augkit.measure_invariance(CircularNet(), torch.zeros(16, 16))
    with pytest.raises(InputTypeError, match="floating dtype or uint8"):
        augkit.measure_invariance(CircularNet(), torch.zeros(1, 1, 16, 16, dtype=torch.int32))
