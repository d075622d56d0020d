"""The memory format: the faster one on the first batch, kept when resumed, equal within rounding, and stated."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from augkit.core.errors import InputError
from augkit.core.safe_files import load_safely
from augkit.invariance import Measurement, Network, Plan, measure_invariance
from augkit.invariance.plan import Pairs
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure import MeasureResults, MeasureSettings, measure, memory_format
from augkit.measure.memory_format import PASSES, SECONDS, choose_memory_format

IMAGES = torch.rand(6, 3, 16, 16)
PLAN = Plan(pairs=Pairs(2, -2.0, 2.0))
NETS = """
import torch
from torch import nn

def make():
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 10))
"""


class Clocked(nn.Module):
    """Takes seconds of a made-up clock, by the memory format of its input; ``change`` is added to channels last."""

    def __init__(self, contiguous: float, channels_last: float, change: float = 0.0) -> None:
        super().__init__()
        self.now, self.calls = 0.0, 0
        self.costs, self.change = (contiguous, channels_last), change
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        last = images.is_contiguous(memory_format=torch.channels_last)
        assert last == self.layer.weight.is_contiguous(memory_format=torch.channels_last)
        self.calls += 1
        self.now += self.costs[last]
        return self.layer(images).mean((2, 3)) + last * self.change


class Views(Clocked):
    """Cannot run in channels last, as its layer's map has no flat view."""

    def forward(self, images: Tensor) -> Tensor:
        super().forward(images)
        return self.layer(images).view(len(images), -1)[:, :4]


def chosen(net: Clocked, monkeypatch: pytest.MonkeyPatch, passes: int = 1000, **options: bool) -> str:
    monkeypatch.setattr(memory_format, "_clock", lambda device: net.now)
    network = Network(net, **options)
    choose_memory_format(network, lambda: IMAGES, passes)
    last = net.layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert last == (network.memory_format == "channels_last")
    return network.memory_format


def test_the_faster_format_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Clocked(1.0, 0.8), monkeypatch) == "channels_last"
    assert chosen(Clocked(1.0, 0.99), monkeypatch) == "contiguous"
    assert chosen(Clocked(1.0, 1.2), monkeypatch) == "contiguous"


def test_a_network_that_fails_or_answers_otherwise_in_channels_last_stays_contiguous(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert chosen(Views(1.0, 0.5), monkeypatch) == "contiguous"
    assert chosen(Clocked(1.0, 0.5, change=0.1), monkeypatch) == "contiguous"
    assert chosen(Clocked(1.0, 0.5, change=float("nan")), monkeypatch) == "contiguous"


def test_short_measurements_are_not_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Clocked(1.0, 0.5)
    assert chosen(few, monkeypatch, passes=PASSES - 1) == "contiguous"
    assert few.calls == 0
    seconds = 0.9 * SECONDS / PASSES
    quick = Clocked(seconds, seconds / 2)
    assert chosen(quick, monkeypatch, passes=PASSES) == "contiguous"
    assert quick.calls == 2
    assert chosen(Clocked(1.2 * seconds, seconds), monkeypatch, passes=PASSES) == "channels_last"


def test_an_explicit_format_changes_numbers_by_rounding_alone() -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    reports = {}
    for name in ("contiguous", "channels_last"):
        network = Network(net)
        network.use_memory_format(name)
        measurement = Measurement(network, PLAN, ProtocolOptions("crop"))
        measurement.run([(IMAGES, None)])
        reports[name] = measurement.report()
        assert reports[name].settings.memory_format == name
    one, other = reports.values()
    for key, values in one.statistics.items():
        torch.testing.assert_close(values, other.statistics[key], rtol=1e-4, atol=1e-5)
    assert one.fingerprint == other.fingerprint  # so that the two are compared image by image
    assert one.js.value == pytest.approx(measure_invariance(net, IMAGES, plan=PLAN).js.value, rel=1e-4)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., MeasureResults]:
    (tmp_path / "nets_in_formats.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def call(output: str, *, resume: bool = False, memory_format: str | None = None) -> MeasureResults:
        settings = MeasureSettings(max_shift=1.0, curves=False, limit=40, batch_size=8, memory_format=memory_format)
        return measure("nets_in_formats:make", "digits", settings, output=output, resume=resume)

    return call


def choose(name: str) -> Callable[..., None]:
    return lambda network, first_batch, passes: network.use_memory_format(name)


def test_a_resumed_measurement_keeps_the_format_that_was_chosen_first(
    run: Callable[..., MeasureResults], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augkit.measure.session.choose_memory_format", choose("channels_last"))
    whole = run("whole")
    assert whole.to_dict()["settings"]["memory_format"] == "channels_last"  # type: ignore[index]
    batches, measured = itertools.count(), Measurement._measure
    monkeypatch.setattr(Measurement, "_measure", lambda *given: measured(*given) if next(batches) != 2 else interrupt())
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    state = load_safely(Path("stopped/measurement.pt"))
    assert (state["memory_format"], len(state["tally"]["columns"]["top1"])) == ("channels_last", 16)
    monkeypatch.setattr("augkit.measure.session.choose_memory_format", choose("contiguous"))
    resumed = run("stopped", resume=True)
    for key, values in whole.typical.report.statistics.items():
        assert torch.equal(values, resumed.typical.report.statistics[key]), key
    with pytest.raises(InputError, match=r"--memory-format: expected channels_last, .* began, got contiguous"):
        run("stopped", resume=True, memory_format="contiguous")


def interrupt() -> None:
    raise KeyboardInterrupt


def test_the_format_can_be_named(run: Callable[..., MeasureResults]) -> None:
    assert run("named", memory_format="channels_last").typical.report.settings.memory_format == "channels_last"
    with pytest.raises(InputError, match=r"unknown memory format 'channels_lst'.*channels_last"):
        run("other", memory_format="channels_lst")
