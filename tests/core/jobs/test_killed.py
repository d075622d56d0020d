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
# Trains in a child per number of updates, which says after each how far it is and kills itself after the last: from
# outside, a busy machine comes too late. The children are forked, so that torch is imported once.
UNTIL = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from augkit.train.loop import fit
from augkit.train.optimizer import warm_up
from augkit.train.recipe import Recipe

warm_up()
for last in map(int, sys.argv[3:]):
    def on_step(step, steps):
        print(step, flush=True)
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        fit(Recipe.load(sys.argv[1]), output=sys.argv[2], resume=True, device="cpu", on_step=on_step)
        os._exit(0)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    if os.path.exists(sys.argv[2] + "/checkpoint.pt"):
        print("stored", torch.load(sys.argv[2] + "/checkpoint.pt", weights_only=False)["step"], flush=True)
"""
STEPS = 4 * (200 // 16)


@pytest.mark.slow
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
    arguments = [sys.executable, "-c", UNTIL, str(tmp_path / "mine.yaml"), str(tmp_path / "killed")]
    done = subprocess.run([*arguments, *map(str, [*kills, STEPS + 1])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = done.stdout.splitlines()
    ends = [place for place, line in enumerate(said) if line.startswith("ended")]
    assert [int(said[place - 1]) for place in ends] == [*kills, STEPS]
    assert [said[place] for place in ends] == [f"ended {-signal.SIGKILL}"] * len(kills) + ["ended 0"]
    stored = [line for line in said if line.startswith("stored")]
    assert stored == [f"stored {step}" for step in (5, 12, 25, 45, STEPS)], "every 5 updates and at each epoch's end"
    expected, found = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "killed"))
    for key in ("model", "trained"):
        for name, value in expected[key].items():
            assert torch.equal(value, found[key][name]), f"{key} {name}"
    assert str(expected["optimizer"]) == str(found["optimizer"])
    timing = ("seconds", "images_per_second")
    rows = [[{k: v for k, v in row.items() if k not in timing} for row in s["history"]] for s in (expected, found)]
    assert rows[0] == rows[1]
    assert len(whole.history) == 4


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
