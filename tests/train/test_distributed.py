"""Two real processes under torchrun (gloo on the CPU): shares, sums, one writer, and the result of one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import augkit
from augkit.core.errors import InputError
from augkit.train.batches import make_batches
from augkit.train.checkpoint import read_checkpoint
from augkit.train.distributed import Process
from augkit.train.recipe import Recipe

RECIPE = """
name: shared
data: {name: digits, canvas: 12}
model: {name: small_cnn, width: 8}
policy: {shift: {max_pixels: 1.0}}
optim: {name: sgd, lr: 0.2}
train: {epochs: 8, batch_size: 64, ema: 0.9}
"""
CPU = torch.device("cpu")


def torchrun(*arguments: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    threads = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*launcher, *arguments], capture_output=True, text=True, env=threads, check=False)


def test_shares_are_disjoint_and_whole(tiny: Recipe) -> None:
    data = augkit.load_dataset("digits", limit=200)
    recipe = tiny.replaced(policy={}, train={"epochs": 1, "batch_size": 32})
    alone = list(make_batches(data, recipe, CPU, Process()).epoch(3))
    shares = [list(make_batches(data, recipe, CPU, Process(rank, 2)).epoch(3)) for rank in range(2)]
    for whole, first, second in zip(alone, *shares, strict=True):
        assert torch.equal(whole[0][0::2], first[0])
        assert torch.equal(whole[0][1::2], second[0])
        assert torch.equal(whole[1][1::2], second[1])
    with pytest.raises(InputError, match=r"train\.batch_size: expected a multiple of 3 processes x .*got 32"):
        make_batches(data, recipe, CPU, Process(0, 3))


def test_epochs_begin_anywhere_with_the_same_batches(tiny: Recipe) -> None:
    feed = make_batches(augkit.load_dataset("digits", limit=200), tiny, CPU, Process())
    whole, rest = list(feed.epoch(1)), list(feed.epoch(1, 4))
    assert len(whole) == feed.steps == 6
    for a, b in zip(whole[4:], rest, strict=True):
        assert torch.equal(a[0], b[0])


@pytest.mark.slow
@pytest.mark.cluster
def test_two_processes_reach_the_result_of_one(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE)
    command = ["-m", "augkit.train", str(recipe), "--device", "cpu", "--json", "--output"]
    done = torchrun(*command, str(tmp_path / "two"))
    assert done.returncode == 0, done.stderr
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(results) == 1, "rank 0 alone prints"
    one = augkit.fit(Recipe.load(recipe), device="cpu")
    two = read_checkpoint(tmp_path / "two" / "checkpoint.pt")
    assert two["step"] == one.history[-1]["step"]
    for mine, other in zip(one.history, two["history"], strict=True):
        assert mine["lr"] == other["lr"]
        assert other["loss"] == pytest.approx(mine["loss"], rel=0.5)  # each rank draws its own shifts
    sums = [sum(row["loss"] for row in history) for history in (one.history, two["history"])]
    assert sums[1] == pytest.approx(sums[0], rel=0.1)
    accuracies = [one.evaluation.accuracy, results[0]["validation_accuracy"]]
    assert min(accuracies) > 0.8
    assert abs(accuracies[0] - accuracies[1]) < 0.1
    rows = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert rows == two["history"]
    resumed = torchrun(*command, str(tmp_path / "two"), "--resume")
    assert resumed.returncode == 0, resumed.stderr


@pytest.mark.cluster
def test_gradients_of_two_processes_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    # Without augmentation and batch norm two processes do exactly what one does, up to the order of sums.
    code = tmp_path / "plain.py"
    code.write_text(
        "import sys, torch, augkit\n"
        "from augkit.train.recipe import Recipe\n"
        "torch.manual_seed(0)\n"
        "net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(144, 10))\n"
        "recipe = Recipe.load(sys.argv[1], ['policy={}', 'train.epochs=2', 'train.accumulate=2'])\n"
        "augkit.fit(recipe, model=net, output=sys.argv[2], device='cpu')\n"
    )
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE)
    for count in (1, 2):
        done = torchrun(str(code), str(recipe), str(tmp_path / str(count)), processes=count)
        assert done.returncode == 0, done.stderr
    one, two = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("1", "2"))
    torch.testing.assert_close(one["model"]["1.weight"], two["model"]["1.weight"], atol=1e-6, rtol=1e-4)
    assert one["history"][-1]["validation_accuracy"] == pytest.approx(two["history"][-1]["validation_accuracy"])
    assert one["history"][-1]["loss"] == pytest.approx(two["history"][-1]["loss"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.cluster
def test_two_processes_draw_different_numbers_and_resume_to_the_same_bits(tmp_path: Path) -> None:
    code = tmp_path / "drawing.py"
    code.write_text(
        "import os, sys, torch, augkit\n"
        "from torch import nn\n"
        "from augkit.train.recipe import Recipe\n"
        "class Noise(nn.Module):\n"
        "    def forward(self, x):\n"
        "        drawn = torch.rand(x.shape)\n"
        "        if self.training:\n"
        "            print(float(drawn[0, 0]), file=kept, flush=True)\n"
        "        return x * drawn\n"
        "kept = open(f'{sys.argv[2]}.{os.environ[\"RANK\"]}', 'a')\n"
        "torch.manual_seed(0)\n"
        "net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(144), Noise(), nn.Linear(144, 10))\n"
        "net[1].eval()\n"
        "recipe = Recipe.load(sys.argv[1], ['train.epochs=2', 'train.accumulate=2', 'train.batch_size=500'])\n"
        "def stop(row):\n"
        "    if len(sys.argv) > 3 and row['epoch'] == 1: raise KeyboardInterrupt\n"
        "try: augkit.fit(recipe, model=net, output=sys.argv[2], resume=True, device='cpu', on_epoch=stop)\n"
        "except KeyboardInterrupt: pass\n"
    )
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(RECIPE)
    whole = torchrun(str(code), str(recipe), str(tmp_path / "whole"))
    assert whole.returncode == 0, whole.stderr
    for how in (["stop"], []):
        torchrun(str(code), str(recipe), str(tmp_path / "parts"), *how)
    drawn, again = ([(tmp_path / f"{name}.{k}").read_text().split() for k in (0, 1)] for name in ("whole", "parts"))
    assert again == drawn
    both = drawn[0] + drawn[1]
    assert len(set(both)) == len(both) == 2 * 2 * 2 * 2, "every epoch, update, part and process draws other numbers"
    one, two = (read_checkpoint(tmp_path / name / "checkpoint.pt") for name in ("whole", "parts"))
    assert torch.equal(one["model"]["3.weight"], two["model"]["3.weight"])
    assert not one["model"]["1.running_mean"].any(), "a frozen norm"
