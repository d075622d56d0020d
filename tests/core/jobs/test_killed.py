"""Killed runs and full disks: nothing is lost, and results are the same bit for bit."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import augkit
from augkit.core.errors import RunError
from augkit.train.checkpoint import read_checkpoint
from augkit.train.recipe import Recipe

RECIPE = """
name: killed
data: {name: digits, canvas: 16, limit: 200}
model: {name: small_cnn, width: 4}
policy: {shift: {max_pixels: 2.0}, rescale: {max_factor: 1.1, p: 0.5}}
optim: {name: adamw, lr: 0.01}
train: {epochs: 4, batch_size: 16, ema: 0.9, mixup: 0.2, cutmix: 1.0, checkpoint_steps: 5, patience: 3}
"""
# Says after each update how far it is, and kills itself after one of them: from outside, a busy machine comes too late.
UNTIL = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from augkit.train.loop import fit
from augkit.train.recipe import Recipe

def on_step(step, steps):
    print(step, flush=True)
    if step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)

fit(Recipe.load(sys.argv[1]), output=sys.argv[2], resume=True, device="cpu", on_step=on_step)
"""
STEPS = 4 * (200 // 16)


def train_until(tmp_path: Path, step: int) -> tuple[int, int]:
    """Train in a process that is killed after ``step`` updates; return the updates it reported, and its exit code."""
    arguments = [sys.executable, "-c", UNTIL, str(tmp_path / "mine.yaml"), str(tmp_path / "killed"), str(step)]
    done = subprocess.run(arguments, stdout=subprocess.PIPE, text=True, check=False)
    return int(done.stdout.split()[-1]), done.returncode


@pytest.mark.cluster
def test_killed_at_any_step_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = augkit.fit(Recipe.load(tmp_path / "mine.yaml"), output=tmp_path / "whole", device="cpu")
    finally:
        torch.set_num_threads(threads)
    kills = [3, 8, 13, 27, 46]  # before the first checkpoint, within an epoch, at its first step, and later
    for step in kills:
        assert train_until(tmp_path, step) == (step, -signal.SIGKILL)
    assert train_until(tmp_path, STEPS + 1) == (STEPS, 0)
    expected, found = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "killed"))
    for key in ("model", "trained"):
        for name, value in expected[key].items():
            assert torch.equal(value, found[key][name]), f"{key} {name}"
    assert str(expected["optimizer"]) == str(found["optimizer"])
    timing = ("seconds", "images_per_second")
    rows = [[{k: v for k, v in row.items() if k not in timing} for row in s["history"]] for s in (expected, found)]
    assert rows[0] == rows[1]
    assert len(whole.history) == 4


@pytest.mark.integration
def test_a_checkpoint_within_an_epoch_stores_its_step(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(RECIPE)
    train_until(tmp_path, 7)
    assert read_checkpoint(tmp_path / "killed" / "checkpoint.pt")["step"] == 5


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files")
def test_a_full_disk_leaves_the_previous_checkpoint(tiny: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    before: dict[str, bytes] = {}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill_the_disk(row: dict[str, object]) -> None:
        before["checkpoint"] = (folder / "checkpoint.pt").read_bytes()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))

    try:
        with pytest.raises(RunError, match=r"cannot write '.*checkpoint\.pt' .*what was there before is intact"):
            augkit.fit(tiny, output=folder, on_epoch=fill_the_disk)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (folder / "checkpoint.pt").read_bytes() == before["checkpoint"]
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(".")) == []
    whole = augkit.fit(tiny, output=folder, resume=True)
    assert len(whole.history) == 2
