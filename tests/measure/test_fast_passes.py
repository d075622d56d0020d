"""Memory format and folded norms: as is faster on the first batch, kept when resumed, equal within rounding, stated."""

from __future__ import annotations

import contextlib
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from augkit.core.errors import InputError
from augkit.core.safe_files import load_safely
from augkit.invariance import Measurement, Network, Plan, measure_invariance
from augkit.invariance.plan import Pairs
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure import MeasureResults, MeasureSettings, fast_passes, measure
from augkit.measure.fast_passes import LEAST, MOST, PASSES, SECONDS, choose_fast_passes

IMAGES = torch.rand(6, 3, 16, 16)
PLAN = Plan(pairs=Pairs(2, -2.0, 2.0))
NETS = """
import torch
from torch import nn

def make():
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8, 10))

def normed():
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), *make()[1:3], *make()[3:])
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
    monkeypatch.setattr(fast_passes, "_clock", lambda device: net.now)
    network = Network(net, **options)
    choose_fast_passes(network, lambda: IMAGES, passes)
    last = net.layer.weight.is_contiguous(memory_format=torch.channels_last)
    assert last == (network.memory_format == "channels_last")
    return network.memory_format


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_a_pass_on_an_accelerator_has_ended_when_its_time_is_read(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    fast_passes._clock(torch.device(kind))
    fast_passes._clock(torch.device("cpu"))
    assert waited == [torch.device(kind)]


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


@pytest.mark.parametrize("last", [False, True])
def test_a_network_whose_format_was_chosen_can_be_trained_and_differentiated(
    last: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that were laid out anew in inference mode could not."""
    net = Clocked(1.0, 0.5 if last else 1.0)
    assert chosen(net, monkeypatch) == ("channels_last" if last else "contiguous")
    assert not any(weight.is_inference() for weight in net.parameters())
    net.layer(IMAGES).sum().backward()
    assert net.layer.weight.grad is not None


def test_short_measurements_are_not_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    few = Clocked(1.0, 0.5)
    assert chosen(few, monkeypatch, passes=PASSES - 1) == "contiguous"
    assert few.calls == 0
    seconds = 0.9 * SECONDS / PASSES
    quick = Clocked(seconds, seconds / 2)
    assert chosen(quick, monkeypatch, passes=PASSES) == "contiguous"
    assert quick.calls == 2
    assert chosen(Clocked(1.2 * seconds, seconds), monkeypatch, passes=PASSES) == "channels_last"


def test_a_longer_measurement_times_more_passes_but_for_a_tenth_of_itself_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for passes in (PASSES, 160, 240, 10_000):
        net = Clocked(1.0, 0.5)
        assert chosen(net, monkeypatch, passes=passes) == "channels_last"
        timed = net.calls - 2 - 1  # two tell how long the measurement takes, one finds norms to fold
        assert 4 * (LEAST + 1) <= timed <= min(passes / 10, 4 * (MOST + 1))
    assert timed == 4 * (MOST + 1)


class Disturbed(Clocked):
    """All but every fifth pass take twice as long, as beside other processes; channels last is faster by a fifth."""

    def forward(self, images: Tensor) -> Tensor:
        before = self.now
        found = super().forward(images)
        self.now += (self.now - before) * (self.calls % 5 > 0)
        return found


def test_other_processes_do_not_hide_the_faster_format(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(Disturbed(1.0, 0.8), monkeypatch) == "channels_last"


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

    def call(output: str, *, net: str = "make", resume: bool = False, **how: Any) -> MeasureResults:
        settings = MeasureSettings(max_shift=1.0, curves=False, limit=40, batch_size=8, **how)
        return measure(f"nets_in_formats:{net}", "digits", settings, output=output, resume=resume)

    return call


def choose(name: str) -> Callable[..., None]:
    return lambda network, *given, **chosen: network.use_memory_format(name)


def test_a_resumed_measurement_keeps_the_format_that_was_chosen_first(
    run: Callable[..., MeasureResults], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("augkit.measure.session.choose_fast_passes", choose("channels_last"))
    whole = run("whole")
    assert whole.to_dict()["settings"]["memory_format"] == "channels_last"  # type: ignore[index]
    batches, measured = itertools.count(), Measurement._measure
    monkeypatch.setattr(Measurement, "_measure", lambda *given: measured(*given) if next(batches) != 2 else interrupt())
    with pytest.raises(KeyboardInterrupt):
        run("stopped")
    state = load_safely(Path("stopped/measurement.pt"))
    assert (state["memory_format"], len(state["tally"]["columns"]["top1"])) == ("channels_last", 16)
    monkeypatch.setattr("augkit.measure.session.choose_fast_passes", choose("contiguous"))
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


SEGMENTER = """
import torch
from torch import nn

LAST = []

class Seen(nn.Module):
    '''Notes whether its weights lie channels last at each pass.'''
    def __init__(self, *more):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.Sequential(nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), *more)
    def forward(self, images):
        LAST.append(self.layers[2].weight.is_contiguous(memory_format=torch.channels_last))
        return self.layers(images)

def segmenter(): return Seen()
def classifier(): return Seen(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10))
"""


@pytest.mark.integration
@pytest.mark.parametrize("name", ["segmenter", "classifier"])
def test_analyses_run_contiguous_where_the_passes_run_in_channels_last(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets_that_note.py").write_text(SEGMENTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    analyzed: list[int] = []
    kinds = {"layers": True, "certify": True} | ({"lie": True} if name == "classifier" else {})
    settings = MeasureSettings(
        max_shift=1.0, limit=8, probe_images=2, memory_format="channels_last", curves=False, pairs=1, **kinds
    )
    seen = __import__("nets_that_note").LAST
    seen.clear()
    analyze = fast_passes.contiguous

    @contextlib.contextmanager
    def noted(network: Network) -> Iterator[None]:
        analyzed.append(len(seen))
        with analyze(network):
            yield
        analyzed.append(len(seen))
        assert network.memory_format == "channels_last"

    monkeypatch.setattr("augkit.measure.session_parts.contiguous", noted)
    found = measure(f"nets_that_note:{name}", "digits", settings, output="out").to_dict()
    begin, end = analyzed
    assert begin < end
    assert all(seen[begin - 2 : begin])  # both views of the only batch
    assert not any(seen[begin:end])
    assert all(seen[end:])  # pictures of the worst cases
    assert found["settings"]["memory_format"] == "channels_last"  # type: ignore[index]
    assert found["probe_memory_format"] == "contiguous"


class Normed(nn.Module):
    """Takes seconds of a made-up clock, by whether its norm is folded; ``beside`` is the part of the convolution."""

    def __init__(self, apart: float, folded: float, beside: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.now, self.costs, self.beside = 0.0, (apart, folded), beside
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_var.fill_(0.5)
        self.folded = list[bool]()

    def forward(self, images: Tensor) -> Tensor:
        self.folded.append("forward" in vars(self.norm))
        self.now += self.costs[self.folded[-1]]
        maps = self.conv(images)
        return (self.norm(maps) + self.beside * maps).mean((2, 3))


def folds(net: Normed, monkeypatch: pytest.MonkeyPatch, passes: int = 1000, **options: Any) -> bool:
    monkeypatch.setattr(fast_passes, "_clock", lambda device: net.now)
    network = Network(net, precision=options.pop("precision", "float32"))
    choose_fast_passes(network, lambda: IMAGES, passes, **options)
    return network.folds


def test_norms_are_folded_where_that_is_faster_and_gives_the_same_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    assert folds(Normed(1.0, 0.8), monkeypatch)
    assert not folds(Normed(1.0, 0.99), monkeypatch)
    assert not folds(Normed(1.0, 1.2), monkeypatch)
    assert not folds(Normed(1.0, 0.8), monkeypatch, passes=PASSES - 1)
    # Another layer uses what the convolution makes, even if little of it.
    assert not folds(Normed(1.0, 0.8, beside=1.0), monkeypatch)
    assert not folds(Normed(1.0, 0.8, beside=0.01), monkeypatch)


def test_norms_are_not_folded_in_half_precision_nor_against_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not folds(Normed(1.0, 0.8), monkeypatch, precision="bf16")
    assert not folds(Normed(1.0, 0.8), monkeypatch, fold=False)
    assert folds(Normed(1.0, 1.2), monkeypatch, fold=True, passes=1)
    with pytest.raises(InputError, match="--fold: expected a network whose convolutions feed their batch norm alone"):
        folds(Normed(1.0, 1.2, beside=0.1), monkeypatch, fold=True, passes=1)


def test_folded_norms_change_numbers_by_rounding_alone_and_return() -> None:
    net = Normed(0.0, 0.0)
    reports, digests = [], []
    for on in (False, True):
        network = Network(net)
        network.use_folding(on)
        net.folded.clear()
        measurement = Measurement(network, PLAN, ProtocolOptions("crop"))
        measurement.run([(IMAGES, None), (IMAGES, None)])
        reports.append(measurement.report())
        digests.append(network.digest)
        assert sum(net.folded) == (len(net.folded) - 1 if on else 0)  # one pass finds the norm
        assert "forward" not in vars(net.norm)
        assert reports[-1].settings.folded is on
    one, other = reports
    assert digests[0] == digests[1]
    assert one.fingerprint == other.fingerprint
    for key, values in one.statistics.items():
        torch.testing.assert_close(values, other.statistics[key], rtol=1e-4, atol=1e-5)


def test_finding_norms_draws_no_number_of_the_measurement() -> None:
    class Noisy(Normed):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + torch.rand(4)

    logits = []
    for on in (False, True):
        network = Network(Noisy(0.0, 0.0))
        network.use_folding(on)
        with network.measuring():
            logits.append([network(IMAGES) for _ in range(2)])
    torch.testing.assert_close(logits[0], logits[1])


def test_a_resumed_measurement_folds_as_it_began(
    run: Callable[..., MeasureResults], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "augkit.measure.session.choose_fast_passes", lambda network, *given, **chosen: network.use_folding(True)
    )
    measured, batches = Measurement._measure, itertools.count()
    whole = run("whole", net="normed")
    monkeypatch.setattr(Measurement, "_measure", lambda *given: measured(*given) if next(batches) != 2 else interrupt())
    with pytest.raises(KeyboardInterrupt):
        run("stopped", net="normed")
    assert load_safely(Path("stopped/measurement.pt"))["folds"] is True
    resumed = run("stopped", net="normed", resume=True)
    assert resumed.to_dict()["settings"]["folded"] is True  # type: ignore[index]
    for key, values in whole.typical.report.statistics.items():
        assert torch.equal(values, resumed.typical.report.statistics[key]), key
    with pytest.raises(InputError, match="--no-fold: expected --fold, with which the measurement there began"):
        run("stopped", net="normed", resume=True, fold=False)


@pytest.mark.parametrize("name", ["segmenter", "classifier"])
def test_passes_of_any_output_are_timed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_in_turn.py").write_text(SEGMENTER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    seen = __import__("nets_in_turn").LAST
    monkeypatch.setattr(fast_passes, "_clock", lambda device: 10 * len(seen) - 5 * sum(seen))  # channels last: 5 s less
    settings = MeasureSettings(max_shift=1.0, limit=32, batch_size=1, curves=False, pairs=4)
    found = measure(f"nets_in_turn:{name}", "digits", settings).to_dict()["settings"]
    sys.modules.pop("nets_in_turn")
    assert found["memory_format"] == "channels_last"  # type: ignore[index]
    assert found["folded"] is False  # type: ignore[index]
    assert all(seen[-10:])


def test_outputs_that_hold_no_tensors_or_other_shapes_are_not_the_same() -> None:
    boxes = [{"boxes": torch.ones(3, 4), "labels": torch.ones(3, dtype=torch.long)}]
    fewer = [{"boxes": torch.ones(2, 4), "labels": torch.ones(2, dtype=torch.long)}]
    none = [{"boxes": torch.ones(0, 4), "labels": torch.ones(0, dtype=torch.long)}]
    tensors = [list(fast_passes._tensors(output)) for output in (boxes, fewer, none, object())]
    assert fast_passes._are_close(tensors[0], tensors[0], 1e-3)
    assert not fast_passes._are_close(tensors[0], tensors[1], 1e-3)
    assert fast_passes._are_close(tensors[2], tensors[2], 1e-3)
    assert not fast_passes._are_close(tensors[3], tensors[3], 1e-3)


def test_a_compiled_network_is_not_folded(run: Callable[..., MeasureResults]) -> None:
    with pytest.raises(InputError, match="--fold: expected no --compile"):
        run("both", net="normed", fold=True, compile=True)
    assert not Path("both").exists()
