"""A measurement of outputs that was interrupted goes on where it was, and ends with the bits of one run."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from augkit.core.cli import run
from augkit.core.errors import InputError
from augkit.core.safe_files import load_safely
from augkit.invariance import Network
from augkit.invariance.outputs import OutputMeasurement
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.protocols import ProtocolOptions
from augkit.measure import __main__ as measure

NETS = """
import os, pathlib, signal
import torch
from torch import nn

class Stopping(nn.Module):
    '''Interrupts the process in its eleventh pass, where a file says so.'''
    def __init__(self, net, take=lambda x: x):
        super().__init__()
        self.net, self.take, self.passes = net, take, 0
    def forward(self, images):
        self.passes += 1
        if self.passes == 11 and pathlib.Path("stop").exists():
            os.kill(os.getpid(), signal.SIGINT)
        return self.take(self.net(images))

def net(*last):
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), *last)
def map(): return Stopping(net(nn.Conv2d(4, 3, 1), nn.Upsample(scale_factor=2)))
def image(): return Stopping(net(nn.PixelShuffle(2)))
def embedding(): return Stopping(net(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
def keypoints(): return Stopping(net(nn.Flatten(), nn.LazyLinear(6)), lambda x: 4 + x.unflatten(1, (3, 2)))
def boxes(found):
    corners, one = found.flatten(1)[:, :4].abs() + torch.tensor([1.0, 1.0, 3.0, 3.0]), torch.ones(1)
    return [{"boxes": box[None], "labels": one.long(), "scores": one} for box in corners]
def detections(): return Stopping(net(), boxes)
"""
KINDS = ("map", "image", "embedding", "keypoints", "detections")


@pytest.fixture(autouse=True)
def _nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_that_stop.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets_that_stop", None)


def command(kind: str, *rest: str) -> int:
    words = [f"nets_that_stop:{kind}", "--output-kind", kind, "--data", "digits", "--limit", "20", "--batch-size", "4"]
    return run(measure.main, [*words, "--max-shift", "1", "--pairs", "2", "--quiet", *rest])


def stopped(kind: str, folder: str, *rest: str) -> None:
    """A real Ctrl-C between the views of the third or fourth batch."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    Path("stop").touch()
    try:
        assert command(kind, "--output", folder, *rest) == 130
    finally:
        signal.signal(signal.SIGINT, before)
        Path("stop").unlink()


@pytest.mark.integration
@pytest.mark.parametrize("kind", KINDS)
def test_the_line_that_an_interrupt_prints_ends_with_the_bits_of_one_run(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(kind, "--output", "through") == 0
    stopped(kind, "a folder")
    line = capsys.readouterr().err.strip().splitlines()[-1].strip()
    state = load_safely(Path("a folder/measurement.pt"))
    assert state["images"] == 12
    assert not Path("a folder/results.json").exists()
    assert run(measure.main, shlex.split(line)[3:]) == 0
    assert the_same(read("through"), read("a folder"))
    assert command(kind, "--output", "a folder", "--resume") == 0  # nothing is left to measure
    assert the_same(read("through"), read("a folder"))


def read(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text())
    return found


def the_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    said = {"folder": "", "command": "", "environment": {}}
    return {**one, **said} == {**other, **said}


@pytest.mark.integration
def test_another_measurement_is_not_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    stopped("map", "out")
    capsys.readouterr()
    wrong = {
        "--seed 3": "of another network, plan",
        "--border 1": "kind of output or its options",
        "--batch-size 5": "use the same batch size",
        "--memory-format channels_last": "expected contiguous, with which the measurement there began",
    }
    for words, message in wrong.items():
        assert command("map", "--output", "out", "--resume", *words.split()) == 2
        said = capsys.readouterr().err.strip()
        assert message in said
        assert len(said.splitlines()) == 1
    Path("out/measurement.pt").write_bytes(b"torn")
    assert command("map", "--output", "out", "--resume") == 2
    assert "cannot be resumed" in capsys.readouterr().err
    assert command("map", "--output", "nothing", "--resume") == 2
    assert "holds no measurement to go on with" in capsys.readouterr().err


def test_other_or_fewer_images_are_not_those_measured_before() -> None:
    images = torch.rand(8, 1, 12, 12)
    network, plan = Network(torch.nn.Conv2d(1, 2, 3, padding=1)), Plan(pairs=Pairs(1, -1, 1, quantum=1.0))

    def begun() -> OutputMeasurement:
        measurement = OutputMeasurement(network, plan, ProtocolOptions("crop"), output="map")
        measurement.begin(images[:1])
        return measurement

    first = begun()
    with pytest.raises(InputError, match="once the first batch"):
        first.state()
    first.run([(images[:4], None)])
    for stream, message in (
        ([images[:2]], "4 were measured before, and 2 came"),
        ([images[4:]], "those from 0 on are not the ones"),
    ):
        later = begun()
        later.restore(first.state())
        with pytest.raises(InputError, match=message):
            later.run((part, None) for part in stream)
